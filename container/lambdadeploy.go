package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/millrace-ai/millrace/container/lambda/deploy"
)

// lambdaDeploy is the command that makes or changes a function.
type lambdaDeploy struct {
	Name  string `arg:"" help:"The function's name."`
	Image string `required:"" placeholder:"URI" help:"Image in the region's ECR, best by digest."`
	Role  string `env:"LAMBDA_ROLE" placeholder:"ARN" help:"What the function acts as (env LAMBDA_ROLE); an update keeps the role it finds."`

	CreateRole  bool `help:"Make the role, with the permissions that this function needs and no more; delete deletes it."`
	PrintPolicy bool `help:"Print the role's policies as JSON, and do not ask AWS."`

	Model        string            `placeholder:"S3" help:"s3://BUCKET/PREFIX/. Without: the image's own, or what --env MODEL_ID names."`
	Env          map[string]string `short:"e" env:"-" mapsep:"none" placeholder:"NAME=VALUE" help:"The function's environment; repeat it."`
	Architecture string            `enum:"x86_64,arm64" default:"x86_64" help:"The processor that the image is for: ${enum}."`
	Memory       int32             `default:"3008" placeholder:"MB" help:"128 to 10240 MB; 1769 MB buy a core. New accounts get no more than the default."`
	Tmp          int32             `name:"tmp" default:"512" placeholder:"MB" help:"Size of /tmp: 512 to 10240 MB."`
	Timeout      time.Duration     `default:"5m" help:"A request must be answered: 1s to 15m."`
	SnapStart    bool              `help:"Start environments from a snapshot, in which the model is loaded."`

	URL     string `name:"url" enum:"none,iam,public" default:"iam" help:"Who may use the function's URL: none there is, whom IAM allows to, or everybody (${enum})."`
	URLMode string `name:"url-mode" enum:"buffered,stream" default:"stream" help:"Whether answers leave the URL as they are generated or in one piece: ${enum}."`

	Force  bool              `help:"Publish a new version although nothing has changed, such as an image under the same tag."`
	Tag    map[string]string `mapsep:"none" placeholder:"KEY=VALUE" help:"Tags of the function; repeat it."`
	DryRun bool              `help:"Print the requests as JSON and change nothing."`

	awsAccount
}

func (d *lambdaDeploy) spec() *deploy.Spec {
	return &deploy.Spec{
		Name: d.Name, Image: d.Image, Arm: d.Architecture == "arm64", Role: d.Role, CreateRole: d.CreateRole,
		Env: d.Env, Tags: d.Tag, Model: d.Model, MemoryMB: d.Memory, Timeout: d.Timeout, TmpMB: d.Tmp,
		URL: deploy.URL(d.URL), Buffered: d.URLMode == "buffered", SnapStart: d.SnapStart, Force: d.Force,
	}
}

// dialLambda makes a client of Lambda whose progress goes to standard error.
func (a *awsAccount) dialLambda(ctx context.Context, dry bool) (*deploy.Client, error) {
	c, err := deploy.Dial(ctx, a.access(), dry, os.Stderr)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// Run deploys and prints the function's URL; a signal ends the waiting, and the
// same command goes on from there.
func (d *lambdaDeploy) Run(ctx context.Context) error {
	s := d.spec()
	c, err := d.dialLambda(ctx, d.DryRun)
	if err != nil {
		return err
	}
	if done, err := examine(s, c.Region(), d.PrintPolicy); done || err != nil {
		return err
	}
	url, err := c.Deploy(ctx, s)
	switch {
	case err != nil:
		return err
	case d.DryRun:
		return printRequests(c.Account)
	case url != "":
		fmt.Println(url)
	}
	return nil
}

// lambdaInvoke is the command that calls a function.
type lambdaInvoke struct {
	Name string `arg:"" help:"The function's name."`
	callFlags
	Qualifier string `default:"live" placeholder:"NAME" help:"Alias or version to call; empty for the function as it is last configured."`
	awsAccount
}

// Run calls the function and prints the text.
func (i *lambdaInvoke) Run(ctx context.Context) error {
	described, err := i.describe()
	if err = errors.Join(err, deploy.CheckName(i.Name)); err != nil {
		return usageError{fmt.Errorf("invoke: %w", err)}
	}
	c, err := i.dialLambda(ctx, false)
	if err != nil {
		return err
	}
	if err := i.read(ctx, &described); err != nil {
		return err
	}
	result, err := c.Invoke(ctx, &deploy.Call{Call: described, Function: i.Name, Qualifier: i.Qualifier}, os.Stdout)
	if err == nil {
		i.report(result)
	}
	return err
}

// lambdaStatus is the command that shows a function.
type lambdaStatus struct {
	Name string `arg:"" help:"The function's name."`
	Logs int    `placeholder:"N" help:"Show the last N lines of the function's log."`
	JSON bool   `name:"json" help:"Print JSON."`
	awsAccount
}

// Run shows the function.
func (s *lambdaStatus) Run(ctx context.Context) error {
	if err := deploy.CheckName(s.Name); err != nil {
		return usageError{err}
	}
	c, err := s.dialLambda(ctx, false)
	if err != nil {
		return err
	}
	status, err := c.Status(ctx, s.Name, s.Logs)
	if err != nil {
		return err
	}
	return printStatus(status, s.JSON)
}

// lambdaDelete is the command that takes a function away.
type lambdaDelete struct {
	Name string `arg:"" help:"The function's name."`
	Yes  bool   `short:"y" help:"Do not ask."`
	Logs bool   `help:"Delete the function's log too."`
	awsAccount
}

// Run deletes after a confirmation.
func (d *lambdaDelete) Run(ctx context.Context) error {
	if err := deploy.CheckName(d.Name); err != nil {
		return usageError{err}
	}
	c, err := d.dialLambda(ctx, false)
	if err != nil {
		return err
	}
	return remove(ctx, d.Yes, "function", d.Name, c.Region(), func() ([]string, error) { return c.Delete(ctx, d.Name, d.Logs) })
}
