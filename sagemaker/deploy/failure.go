package deploy

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"
)

// failure says why the endpoint did not come into service: the last lines of the
// container's log go to the progress, the probable cause into the error.
func (c *Client) failure(ctx context.Context, s *Spec, e *sagemaker.DescribeEndpointOutput) error {
	lines := c.SayLog(ctx, "the container's", logGroup(s.Name), aws.ToTime(e.CreationTime))
	reason := strings.Join(strings.Fields(aws.ToString(e.FailureReason)), " ")
	outcome, remedy := "failed", ""
	switch e.EndpointStatus {
	case types.EndpointStatusFailed:
		remedy = fmt.Sprintf("; deploying again recreates it, `millrace sagemaker delete %s` deletes it", s.Name)
	case types.EndpointStatusInService:
		outcome = "the update failed and was rolled back"
	case types.EndpointStatusUpdateRollbackFailed:
		outcome, remedy = "the update failed, and so did the rollback: some instances serve the old configuration, some the new one", "; deploying again updates them all"
	}
	if reason == "" {
		reason = "SageMaker gives no reason; status " + string(e.EndpointStatus)
	}
	if cause := probableCause(reason, lines, s.InstanceType); cause != "" {
		reason = fmt.Sprintf("%s (SageMaker: %s)", cause, reason)
	}
	return fmt.Errorf("endpoint %s: %s: %s%s", s.Name, outcome, reason, remedy)
}

// causes are what is known of failures, most telling first: a pattern in the
// container's log or in SageMaker's reason, and what it means. %s is the
// instance type.
var causes = []struct {
	pattern *regexp.Regexp
	inLog   bool // else in the reason
	cause   string
}{
	{regexp.MustCompile(`(?i)exec format error`), true, "the image is built for a different processor than that of %s: build it for linux/amd64, or linux/arm64 for Graviton"},
	{regexp.MustCompile(`(?i)exec: "serve"|executable file not found`), true, "the image has no entrypoint that takes the word serve: use ENTRYPOINT in the Dockerfile, not CMD"},
	{regexp.MustCompile(`(?i)access denied|AccessDenied|s3:GetObject|s3:ListBucket`), true, "the role may not read the model in S3: it needs s3:GetObject and s3:ListBucket there, and kms:Decrypt on its key"},
	{regexp.MustCompile(`(?i)out of memory|cannot allocate memory|\bOOM\b|does not fit`), true, "the memory of %s is too small for this model: take a larger instance type or a quantised model"},
	{regexp.MustCompile(`(?i)no space left on device`), true, "the disk is full: raise --volume-size, or use --stream-model, which needs no disk"},
	{regexp.MustCompile(`(?i)insufficient.?capacity|CapacityError|unable to provision|not enough capacity`), false, "AWS has no free %s in this region or zone now: try again later, another instance type, or subnets in other zones"},
	{regexp.MustCompile(`(?i)ecr:|pull.*image|image.*(pull|not exist|not found)|images included|BatchGetImage|repository`), false, "the image cannot be pulled: it must exist, and the role needs ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer; in a VPC without internet, endpoints for ecr.api, ecr.dkr and S3"},
	{regexp.MustCompile(`(?i)s3|model data|download`), false, "the model cannot be copied from S3: it must exist in this region, with a role that has s3:GetObject, s3:ListBucket and kms:Decrypt on its key, and within --startup-timeout"},
	{regexp.MustCompile(`(?i)exec format`), false, "the image is built for a different processor than that of %s: build it for linux/amd64, or linux/arm64 for Graviton"},
	{regexp.MustCompile(`(?i)ping|health check`), false, "the container did not answer /ping with 200 in time: its log says what it was doing; --startup-timeout gives it more time, but a model that is too large for the instance never becomes ready"},
}

// probableCause puts a failure into one line, "" if nothing is known of it.
func probableCause(reason string, log []string, instance string) string {
	joined := strings.Join(log, "\n")
	for _, known := range causes {
		text := reason
		if known.inLog {
			text = joined
		}
		if !known.pattern.MatchString(text) {
			continue
		}
		if instance == "" {
			instance = "the machine"
		}
		return strings.ReplaceAll(known.cause, "%s", instance)
	}
	return ""
}

func logGroup(endpoint string) string { return "/aws/sagemaker/Endpoints/" + endpoint }
