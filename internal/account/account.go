// Package account is an AWS account that something is deployed to: how it is
// reached, the roles that are made in it, the logs of what runs there, and what
// its errors mean. What is deployed, and how, is with its users: endpoints in
// sagemaker/deploy, functions in container/lambda/deploy.
//
//	account.go   how the account is reached
//	dryrun.go    one that only records what would be changed
//	role.go      roles; policy.go what they may do
//	log.go       the last lines that something has written
//	tag.go       the tags of what is deployed
//	cause.go     errors of AWS in one line
package account

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
)

// Access says where AWS is; empty fields are found as every AWS tool finds
// them, in the environment and the shared configuration.
type Access struct {
	Region   string
	Profile  string
	Endpoint string // of all services: an emulator's URL
}

// Account is an account in one region. Make one with Dial. It must not be put
// into an interface: the linker would then keep the code of every operation of
// the SDK.
type Account struct {
	Config aws.Config // for the clients of further services

	Poll time.Duration // between two looks at something that is changing
	Out  io.Writer     // lines of progress

	logs  *cloudwatchlogs.Client
	iam   *iam.Client
	sts   *sts.Client
	notes *notebook // of a dry run, else nil
}

// Dial returns an Account; it does not contact AWS. Progress goes to out, a line at
// a time. A dry account reads what exists and only records what would be changed,
// without a word.
func Dial(ctx context.Context, a Access, dry bool, out io.Writer) (*Account, error) {
	options := []func(*config.LoadOptions) error{
		config.WithLogger(logging.Nop{}),
		// A throttled control plane is common while many things change.
		config.WithRetryMaxAttempts(8),
	}
	if a.Region != "" {
		options = append(options, config.WithRegion(a.Region))
	}
	if a.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(a.Profile))
	}
	if a.Endpoint != "" {
		options = append(options, config.WithBaseEndpoint(a.Endpoint))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return nil, errors.New("no region: give --region, or set AWS_REGION or a region in the AWS profile")
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = awshttp.NewBuildableClient()
	}
	cfg.HTTPClient = patientClient{cfg.HTTPClient}
	c := &Account{Poll: 10 * time.Second, Out: out}
	if dry {
		c.notes, c.Out = newNotebook(ctx, &cfg), io.Discard
	}
	c.Config = cfg
	c.logs = cloudwatchlogs.NewFromConfig(cfg)
	c.iam = iam.NewFromConfig(cfg)
	c.sts = sts.NewFromConfig(cfg)
	return c, nil
}

// patientClient hides from net/http that the SDK's request bodies have WriteTo.
// The SDK closes the body when the head of an answer is there. If net/http only
// then looks whether the body has more than was announced, WriteTo of a closed
// body is an error to it (smithy-go 1.28: EOF), and it closes the connection in
// the middle of the answer, which an endpoint on this machine is fast enough
// for. Read of a closed body is just the end.
type patientClient struct{ aws.HTTPClient }

// Do sends r.
func (c patientClient) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.HTTPClient.Do(r)
}

// Region is where the account is used.
func (a *Account) Region() string { return a.Config.Region }

// Say writes a line of progress.
func (a *Account) Say(format string, args ...any) { fmt.Fprintf(a.Out, format+"\n", args...) }

// ID is the number of the account; an account that is not asked takes it to be
// guess.
func (a *Account) ID(ctx context.Context, guess string) (string, error) {
	if a.Offline() {
		return guess, nil
	}
	id, err := a.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", a.Explain(err, "the account")
	}
	return aws.ToString(id.Account), nil
}

// Sleep waits, and reports whether ctx still goes on.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
