package telemetry

import (
	"log/slog"
	"strconv"
	"time"
)

// emf is CloudWatch's embedded metric format: the member _aws of a line of
// JSON in a log, by which metrics are made of the line's other members. It
// needs neither a network nor permissions.
type emf struct {
	Timestamp         int64 // milliseconds since 1970
	CloudWatchMetrics []emfDirective
}

// emfDirective names members of the line: Metrics are numbers, Dimensions sets
// of texts.
type emfDirective struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []emfMetric
}

type emfMetric struct{ Name, Unit string }

// emfUnits are the fields of a request's line that become metrics.
var emfUnits = map[string]string{
	"prompt_tokens":    "Count",
	"cached_tokens":    "Count",
	"generated_tokens": "Count",
	"ttft_ms":          "Milliseconds",
	"queue_ms":         "Milliseconds",
	"total_ms":         "Milliseconds",
}

// appendEMF makes a request's line one that CloudWatch counts, by model and by
// how the request ended.
func (rep *Reporter) appendEMF(attrs []slog.Attr, r *Request) []slog.Attr {
	ended := strconv.Itoa(r.Status)
	if r.Generated != nil {
		ended = r.Timing.Finish
	}
	d := emfDirective{Namespace: rep.Namespace, Dimensions: [][]string{{"model"}, {"model", "outcome"}}}
	for _, a := range attrs {
		if unit := emfUnits[a.Key]; unit != "" {
			d.Metrics = append(d.Metrics, emfMetric{a.Key, unit})
		}
	}
	return append(attrs, slog.String("model", rep.ModelID), slog.String("outcome", ended),
		slog.Any("_aws", emf{time.Now().UnixMilli(), []emfDirective{d}}))
}
