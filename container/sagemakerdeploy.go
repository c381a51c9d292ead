package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/internal/account"
	"github.com/millrace-ai/millrace/sagemaker/deploy"
)

// awsAccount are the flags of every command that speaks with AWS.
type awsAccount struct {
	Region      string `placeholder:"REGION" help:"AWS region; else AWS_REGION or the profile's."`
	Profile     string `placeholder:"NAME" help:"Profile of the AWS configuration; else AWS_PROFILE."`
	EndpointURL string `placeholder:"URL" help:"Address of an emulator instead of AWS."`
}

// access is what the flags say.
func (a *awsAccount) access() account.Access {
	return account.Access{Region: a.Region, Profile: a.Profile, Endpoint: a.EndpointURL}
}

// dial makes a client of SageMaker whose progress goes to standard error.
func (a *awsAccount) dial(ctx context.Context, dry bool) (*deploy.Client, error) {
	c, err := deploy.Dial(ctx, a.access(), dry, os.Stderr)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// sageMakerDeploy is the command that makes or updates an endpoint.
type sageMakerDeploy struct {
	Name  string `arg:"" help:"The endpoint's name."`
	Image string `placeholder:"URI" help:"Image in the region's ECR, by tag or digest."`
	Role  string `env:"SAGEMAKER_ROLE" placeholder:"ARN" help:"What the container acts as (env SAGEMAKER_ROLE); an update keeps the role it finds."`

	CreateRole  bool `help:"Make the role, with the permissions that this endpoint needs and no more; delete deletes it."`
	PrintPolicy bool `help:"Print the role's policies as JSON, and do not ask AWS."`

	Model       string            `placeholder:"S3|FOLDER" help:"s3://BUCKET/PREFIX/, s3://BUCKET/KEY.tar.gz, or a folder, which is copied to --bucket. Without: the image's own, or what --env MODEL_ID names."`
	Bucket      string            `placeholder:"BUCKET[/PREFIX]" help:"Where a folder is copied to."`
	StreamModel bool              `help:"Let the container read the model from S3 itself, instead of waiting for SageMaker's copy."`
	Env         map[string]string `short:"e" env:"-" mapsep:"none" placeholder:"NAME=VALUE" help:"The container's environment; repeat it."`

	InstanceType   string        `placeholder:"ml.TYPE" help:"Such as ml.c7i.2xlarge."`
	FallbackType   []string      `placeholder:"ml.TYPE" help:"Taken where --instance-type has no capacity; repeat it, in the order to try."`
	Instances      int32         `default:"1" help:"How many."`
	Serverless     string        `placeholder:"MEMORY,CONCURRENCY" help:"No instances: memory in MB (1024 to 6144) and requests at a time."`
	Async          string        `placeholder:"S3" help:"Make it asynchronous: s3://BUCKET/PREFIX for the answers."`
	VolumeSize     int32         `placeholder:"GB" help:"Size of the disk, where the instance type has none of its own."`
	StartupTimeout time.Duration `default:"10m" help:"For the model's copy, and for the first good /ping: 1m to 1h."`

	Subnet           []string `placeholder:"ID" help:"Subnets of a VPC; repeat it."`
	SecurityGroup    []string `placeholder:"ID" help:"Security groups of the VPC; repeat it."`
	NetworkIsolation bool     `help:"Give the container no network and no credentials."`
	KMSKey           string   `name:"kms-key" placeholder:"ID" help:"Key for disks and for asynchronous answers."`

	ShadowImage    string            `placeholder:"URI" help:"Another image, which gets a copy of each call on as many instances of its own; its answers are dropped."`
	UpdateStrategy string            `enum:"blue-green,rolling" default:"blue-green" help:"How an update replaces instances: ${enum}."`
	Force          bool              `help:"Deploy although nothing has changed, such as an image under the same tag."`
	Tag            map[string]string `mapsep:"none" placeholder:"KEY=VALUE" help:"Tags of all parts; repeat it."`
	Wait           bool              `default:"true" negatable:"" help:"Wait until the endpoint serves."`
	DryRun         bool              `help:"Print the requests as JSON and change nothing."`

	adviseFlags
	awsAccount
}

// spec is what the flags describe.
func (d *sageMakerDeploy) spec() (*deploy.Spec, error) {
	s := &deploy.Spec{
		Name: d.Name, Image: d.Image, Role: d.Role, Env: d.Env, Tags: d.Tag,
		Model: d.Model, Bucket: strings.TrimPrefix(d.Bucket, "s3://"), StreamModel: d.StreamModel,
		ShadowImage: d.ShadowImage, FallbackTypes: d.FallbackType,
		InstanceType: d.InstanceType, Instances: d.Instances, AsyncOutput: d.Async,
		Subnets: d.Subnet, SecurityGroups: d.SecurityGroup, NetworkIsolation: d.NetworkIsolation,
		KMSKey: d.KMSKey, VolumeGB: d.VolumeSize, StartupTimeout: d.StartupTimeout,
		Rolling: d.UpdateStrategy == "rolling", Force: d.Force, CreateRole: d.CreateRole,
	}
	if d.Serverless != "" {
		memory, concurrency, _ := strings.Cut(d.Serverless, ",")
		mb, err := strconv.ParseInt(memory, 10, 32)
		n, err2 := strconv.ParseInt(concurrency, 10, 32)
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("--serverless %s: expected MEMORY,CONCURRENCY, such as 4096,5", d.Serverless)
		}
		s.Serverless = &deploy.Serverless{MemoryMB: int32(mb), MaxConcurrency: int32(n)}
	}
	return s, nil
}

// Run deploys; a signal ends the waiting, not the deployment.
func (d *sageMakerDeploy) Run(ctx context.Context) error {
	if err := d.check(); err != nil {
		return usageError{err}
	}
	if d.Advise {
		return d.advise(ctx, d.Model, d.Env)
	}
	s, err := d.spec()
	if err != nil {
		return usageError{err}
	}
	c, err := d.dial(ctx, d.DryRun)
	if err != nil {
		return err
	}
	if done, err := examine(s, c.Region(), d.PrintPolicy); done || err != nil {
		return err
	}
	progress, finish := progressBar(os.Stderr)
	err = c.Deploy(ctx, s, d.Wait, deploy.Progress(progress))
	finish()
	if err != nil || !d.DryRun {
		return err
	}
	return printRequests(c.Account)
}

// specification is what is deployed: an endpoint's or a function's.
type specification interface {
	Check(region string) (notes []string, err error)
	Policy(region, id string) account.Policy
	Account() string
}

// examine checks what is to be deployed to a region, and prints notes on it; or the
// role's policies, if those are all that is asked for: then it is done.
func examine(s specification, region string, printPolicy bool) (done bool, err error) {
	notes, err := s.Check(region)
	if err != nil {
		return false, usageError{err}
	}
	if printPolicy {
		return true, printJSON(s.Policy(region, s.Account()))
	}
	for _, note := range notes {
		fmt.Fprintln(os.Stderr, "note:", note)
	}
	return false, nil
}

// printRequests prints what a dry run would have sent.
func printRequests(a *account.Account) error {
	if a.Offline() {
		fmt.Fprintln(os.Stderr, "note: no credentials found; AWS was not contacted. This is what a first deployment takes")
	}
	return printJSON(a.Requests())
}

// sageMakerStatus is the command that shows an endpoint.
type sageMakerStatus struct {
	Name string `arg:"" help:"The endpoint's name."`
	Logs int    `placeholder:"N" help:"Show the last N lines of the container's log."`
	JSON bool   `name:"json" help:"Print JSON."`
	awsAccount
}

// Run shows the endpoint.
func (s *sageMakerStatus) Run(ctx context.Context) error {
	if err := deploy.CheckName(s.Name); err != nil {
		return usageError{err}
	}
	c, err := s.dial(ctx, false)
	if err != nil {
		return err
	}
	status, err := c.Status(ctx, s.Name, s.Logs)
	if err != nil {
		return err
	}
	return printStatus(status, s.JSON)
}

// sageMakerDelete is the command that takes an endpoint away.
type sageMakerDelete struct {
	Name      string `arg:"" help:"The endpoint's name."`
	Yes       bool   `short:"y" help:"Do not ask."`
	KeepModel bool   `help:"Keep SageMaker's model objects."`
	Logs      bool   `help:"Delete the containers' log too."`
	awsAccount
}

// Run deletes after a confirmation.
func (d *sageMakerDelete) Run(ctx context.Context) error {
	if err := deploy.CheckName(d.Name); err != nil {
		return usageError{err}
	}
	c, err := d.dial(ctx, false)
	if err != nil {
		return err
	}
	return remove(ctx, d.Yes, "endpoint", d.Name, c.Region(), func() ([]string, error) {
		return c.Delete(ctx, d.Name, deploy.Removal{KeepModel: d.KeepModel, Logs: d.Logs})
	})
}

// remove deletes an endpoint or a function after a confirmation, unless that was given with
// --yes, and prints what of it is gone.
func remove(ctx context.Context, yes bool, kind, name, region string, del func() ([]string, error)) error {
	if err := confirm(ctx, yes, fmt.Sprintf("Delete %s %s in %s and what was deployed for it?", kind, name, region)); err != nil {
		return err
	}
	removed, err := del()
	for _, part := range removed {
		fmt.Println("deleted", part)
	}
	if err == nil && len(removed) == 0 {
		fmt.Printf("nothing of %s is left in %s\n", name, region)
	}
	return err
}

// confirm asks on the terminal, unless the answer was given with --yes.
func confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(os.Stdin) {
		return usageError{errors.New("delete: standard input is not a terminal, so nothing can confirm it: give --yes")}
	}
	fmt.Fprint(os.Stderr, question, " [y/N] ")
	reply, err := interruptible(ctx, func() (reply string, err error) {
		_, err = fmt.Scanln(&reply)
		return reply, err
	})
	if err != nil || !strings.HasPrefix(strings.ToLower(reply), "y") {
		return errors.New("nothing was deleted")
	}
	return nil
}

func printJSON(v any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(v)
}

// printStatus prints the status of an endpoint or a function, for people or as JSON.
func printStatus(status interface{ Write(out io.Writer) error }, asJSON bool) error {
	if asJSON {
		return printJSON(status)
	}
	return status.Write(os.Stdout)
}

// interruptible waits for what read brings, but no longer than ctx: nothing
// ends a read of the terminal, so it is left behind.
func interruptible(ctx context.Context, read func() (string, error)) (string, error) {
	type outcome struct {
		text string
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		text, err := read()
		done <- outcome{text, err}
	}()
	select {
	case o := <-done:
		return o.text, o.err
	case <-ctx.Done():
		return "", errors.New("interrupted")
	}
}
