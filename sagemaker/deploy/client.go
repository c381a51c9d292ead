package deploy

import (
	"context"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"

	"github.com/millrace-ai/millrace/internal/account"
)

// Client speaks with SageMaker and what belongs to it in an account. Make one
// with Dial. Like an Account, it must not be put into an interface.
type Client struct {
	*account.Account
	sm      *sagemaker.Client
	metrics *cloudwatch.Client
	s3      *s3.Client
	runtime *sagemakerruntime.Client
}

// Dial returns a Client of an account, as account.Dial does.
func Dial(ctx context.Context, access account.Access, dry bool, out io.Writer) (*Client, error) {
	a, err := account.Dial(ctx, access, dry, out)
	if err != nil {
		return nil, err
	}
	return &Client{
		Account: a,
		sm:      sagemaker.NewFromConfig(a.Config),
		metrics: cloudwatch.NewFromConfig(a.Config),
		s3: s3.NewFromConfig(a.Config, func(o *s3.Options) {
			// A server of one's own rarely has a name for each bucket.
			o.UsePathStyle = o.BaseEndpoint != nil
		}),
		runtime: sagemakerruntime.NewFromConfig(a.Config, func(o *sagemakerruntime.Options) {
			o.Retryer = aws.NopRetryer{} // calls are repeated in sight of the caller
		}),
	}, nil
}
