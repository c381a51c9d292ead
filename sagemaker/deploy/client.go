package deploy

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
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
)

// Account says where AWS is; empty fields are found as every AWS tool finds
// them, in the environment and the shared configuration.
type Account struct {
	Region   string
	Profile  string
	Endpoint string // of all services: an emulator's URL
}

// Client speaks with SageMaker and what belongs to it. Make one with Dial. It
// must not be put into an interface: the linker would then keep the code of
// every operation of the SDK.
type Client struct {
	region  string
	sm      *sagemaker.Client
	logs    *cloudwatchlogs.Client
	metrics *cloudwatch.Client
	s3      *s3.Client
	iam     *iam.Client
	sts     *sts.Client
	runtime *sagemakerruntime.Client
	notes   *notebook // of a dry run, else nil

	poll time.Duration // between two looks at something that is under way
	out  io.Writer     // lines of progress
}

// Dial returns a Client; it does not contact AWS. Progress goes to out, a line at
// a time. A dry client reads what exists and only records what it would change,
// without a word.
func Dial(ctx context.Context, a Account, dry bool, out io.Writer) (*Client, error) {
	options := []func(*config.LoadOptions) error{
		config.WithLogger(logging.Nop{}),
		// A throttled control plane is common while many endpoints change.
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
	c := &Client{region: cfg.Region, poll: 10 * time.Second, out: out}
	if dry {
		c.notes, c.out = newNotebook(ctx, &cfg), io.Discard
	}
	c.sm = sagemaker.NewFromConfig(cfg)
	c.logs = cloudwatchlogs.NewFromConfig(cfg)
	c.iam = iam.NewFromConfig(cfg)
	c.sts = sts.NewFromConfig(cfg)
	c.metrics = cloudwatch.NewFromConfig(cfg)
	c.s3 = s3.NewFromConfig(cfg, func(o *s3.Options) {
		// A server of one's own rarely has a name for each bucket.
		o.UsePathStyle = o.BaseEndpoint != nil
	})
	c.runtime = sagemakerruntime.NewFromConfig(cfg, func(o *sagemakerruntime.Options) {
		o.Retryer = aws.NopRetryer{} // calls are repeated in sight of the caller
	})
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

// Region is where the client works.
func (c *Client) Region() string { return c.region }

// say writes a line of progress.
func (c *Client) say(format string, args ...any) { fmt.Fprintf(c.out, format+"\n", args...) }

// sleep waits, and reports whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
