package account

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

// failureLines is how much of the log of something that failed is shown.
const failureLines = 20

// SayLog writes to the progress, and returns, the last lines of the log of
// something that failed. what is whose log it is.
func (a *Account) SayLog(ctx context.Context, what, group string, since time.Time) []string {
	lines, err := a.LastLines(ctx, group, failureLines, since)
	switch {
	case err != nil:
		a.Say("%s log: %v", what, err)
	case len(lines) == 0:
		a.Say("%s log: %s has no line", what, group)
	default:
		a.Say("the last lines of %s log (%s):", what, group)
		for _, line := range lines {
			a.Say("  %s", line)
		}
	}
	return lines
}

// LastLines returns the last lines, at most most, of the newest stream of a log
// group in which there are any; none if no stream has begun since then.
func (a *Account) LastLines(ctx context.Context, group string, most int, since time.Time) ([]string, error) {
	found, err := a.logs.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{
		LogGroupName: &group, OrderBy: types.OrderByLastEventTime, Descending: aws.Bool(true), Limit: aws.Int32(50),
	})
	if IsMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, a.Explain(err, "log group "+group)
	}
	// Something of the same name may have been there earlier; after a failed update,
	// what goes on serving writes the latest lines.
	streams := slices.DeleteFunc(found.LogStreams, func(s types.LogStream) bool {
		return aws.ToInt64(s.CreationTime) < since.UnixMilli()
	})
	slices.SortFunc(streams, func(a, b types.LogStream) int {
		return cmp.Compare(aws.ToInt64(b.CreationTime), aws.ToInt64(a.CreationTime))
	})
	for _, stream := range streams {
		out, err := a.logs.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{
			LogGroupName: &group, LogStreamName: stream.LogStreamName, Limit: aws.Int32(int32(min(most, 10_000))), StartFromHead: aws.Bool(false),
		})
		if err != nil {
			return nil, a.Explain(err, "log stream "+group+" "+aws.ToString(stream.LogStreamName))
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

// MatchingLines returns the lines of a log group, at most the last most, that
// CloudWatch's filter pattern matches; none if the group does not exist.
func (a *Account) MatchingLines(ctx context.Context, group, pattern string, most int, since time.Time) ([]string, error) {
	in := &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group, FilterPattern: &pattern, StartTime: aws.Int64(since.UnixMilli())}
	const mostPages = 20 // of which many may be empty: a search reads what it does not find, too
	var lines []string
	for range mostPages {
		out, err := a.logs.FilterLogEvents(ctx, in)
		if IsMissing(err) {
			return nil, nil
		}
		if err != nil {
			return nil, a.Explain(err, "log group "+group)
		}
		for _, event := range out.Events {
			lines = append(lines, strings.TrimRight(aws.ToString(event.Message), "\r\n"))
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	return lines[max(0, len(lines)-most):], nil
}

// RemoveLog deletes a log group, and says which; one that does not exist is no
// error.
func (a *Account) RemoveLog(ctx context.Context, group string) (removed string, err error) {
	_, err = a.logs.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: &group})
	switch what := "log group " + group; {
	case IsMissing(err):
		return "", nil
	case err != nil:
		return "", a.Explain(err, what)
	default:
		return what, nil
	}
}
