package deploy

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"
)

// failureLines is how much of a failed container's log is shown.
const failureLines = 20

// failure says why the endpoint did not come into service: the last lines of the
// container's log go to the progress, the probable cause into the error.
func (c *Client) failure(ctx context.Context, s *Spec, e *sagemaker.DescribeEndpointOutput) error {
	lines, err := c.lastLines(ctx, s.Name, failureLines, aws.ToTime(e.CreationTime))
	switch {
	case err != nil:
		c.say("the container's log: %v", err)
	case len(lines) == 0:
		c.say("the container's log: %s has no line", logGroup(s.Name))
	default:
		c.say("the last lines of the container's log (%s):", logGroup(s.Name))
		for _, line := range lines {
			c.say("  %s", line)
		}
	}
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

// lastLines returns the last lines, at most most, that the newest container of
// an endpoint has written; none if no container since then has written any.
func (c *Client) lastLines(ctx context.Context, name string, most int, since time.Time) ([]string, error) {
	group := logGroup(name)
	found, err := c.logs.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{
		LogGroupName: &group, OrderBy: cwtypes.OrderByLastEventTime, Descending: aws.Bool(true), Limit: aws.Int32(50),
	})
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, c.explain(err, "log group "+group)
	}
	// An earlier endpoint may have had this name; after a failed update, the containers
	// that go on serving write the latest lines.
	streams := slices.DeleteFunc(found.LogStreams, func(s cwtypes.LogStream) bool {
		return aws.ToInt64(s.CreationTime) < since.UnixMilli()
	})
	slices.SortFunc(streams, func(a, b cwtypes.LogStream) int {
		return cmp.Compare(aws.ToInt64(b.CreationTime), aws.ToInt64(a.CreationTime))
	})
	for _, stream := range streams {
		out, err := c.logs.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{
			LogGroupName: &group, LogStreamName: stream.LogStreamName, Limit: aws.Int32(int32(min(most, 10_000))), StartFromHead: aws.Bool(false),
		})
		if err != nil {
			return nil, c.explain(err, "log stream "+group+" "+aws.ToString(stream.LogStreamName))
		}
		lines := make([]string, 0, len(out.Events))
		for _, event := range out.Events {
			lines = append(lines, strings.TrimRight(aws.ToString(event.Message), "\r\n"))
		}
		if len(lines) > 0 {
			return lines, nil
		}
	}
	return nil, nil
}
