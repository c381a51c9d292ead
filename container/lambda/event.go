package lambda

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// source is what made an event. It decides how the answer is written.
type source int

const (
	functionURL  source = iota
	httpAPI             // API Gateway, events of format 2.0
	httpAPIv1           // the same, set to events of format 1.0
	restAPI             // API Gateway, events of format 1.0
	loadBalancer        // answers with single headers
	loadBalancerMulti
	direct // the event is the body of a request to /invocations
	queue  // SQS: each record is one
)

func (s source) String() string {
	return [...]string{"function URL", "HTTP API", "HTTP API", "REST API", "load balancer", "load balancer", "direct invocation", "SQS"}[s]
}

// streams reports whether the source can be set to accept streamed answers.
func (s source) streams() bool { return s == functionURL || s == restAPI || s == direct }

// event is a decoded event: one HTTP request, or the records of a queue.
type event struct {
	source   source
	method   string
	path     string // as sent, percent signs and all
	query    string
	header   http.Header
	body     []byte
	sourceIP string
	records  []events.SQSMessage // of a queue
}

const accepted = "a function URL, an API Gateway HTTP or REST API, an Application Load Balancer, " +
	"an SQS queue, a schedule of EventBridge, or a direct invocation with `inputs`, `messages` or `prompt`"

// decode reads an event. An error says what came and what is accepted.
func decode(data []byte) (*event, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("the event is not a JSON object; accepted are events of %s", accepted)
	}
	var context struct {
		HTTP, ELB    json.RawMessage
		DomainName   string
		ConnectionID any
	}
	if raw := fields["requestContext"]; raw != nil {
		if err := json.Unmarshal(raw, &context); err != nil {
			return nil, fmt.Errorf("the event's requestContext is not understood: %w", err)
		}
	}
	has := func(name string) bool { return fields[name] != nil && string(fields[name]) != "null" }
	switch {
	case context.HTTP != nil && strings.Contains(context.DomainName, ".lambda-url."):
		return decodeHTTP(data, functionURL)
	case context.HTTP != nil:
		return decodeHTTP(data, httpAPI)
	case context.ELB != nil:
		return decodeHTTP(data, loadBalancer)
	case has("httpMethod") && (has("path") || has("resource")) && has("version"): // which only HTTP APIs have
		return decodeHTTP(data, httpAPIv1)
	case has("httpMethod") && (has("path") || has("resource")):
		return decodeHTTP(data, restAPI)
	case string(fields["detail-type"]) == `"Scheduled Event"`, string(fields["source"]) == `"serverless-plugin-warmup"`, string(fields["warmer"]) == "true":
		// A rule of EventBridge or one of the usual warmers keeps an environment
		// warm: all it needs is that the model is loaded.
		return &event{source: direct, method: http.MethodGet, path: "/health", header: http.Header{}}, nil
	case has("Records"):
		return decodeQueue(data)
	case has("inputs"), has("messages"), has("prompt"):
		return &event{
			source: direct, method: http.MethodPost, path: "/invocations", body: data,
			header: http.Header{"Content-Type": {"application/json"}},
		}, nil
	}
	return nil, fmt.Errorf("the event is %s; accepted are events of %s", describe(fields, context.ConnectionID != nil), accepted)
}

// describe names an event that is not accepted.
func describe(fields map[string]json.RawMessage, webSocket bool) string {
	text := func(name string) (s string) {
		if json.Unmarshal(fields[name], &s) != nil {
			return ""
		}
		return clip(s)
	}
	switch {
	case webSocket:
		return "an API Gateway WebSocket message"
	case fields["detail-type"] != nil:
		return fmt.Sprintf("EventBridge's %q from %q", text("detail-type"), text("source"))
	case fields["messageVersion"] != nil && fields["agent"] != nil:
		return "a Bedrock agent's"
	case len(fields) == 0:
		return "an empty object"
	}
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, clip(name))
	}
	slices.Sort(names)
	const most = 8
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return "an object with " + strings.Join(names, ", ")
}

// clip shortens a name for use in an error.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// decodeQueue reads the records of an SQS event.
func decodeQueue(data []byte) (*event, error) {
	var in events.SQSEvent
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("the event's Records are not understood: %w", err)
	}
	for _, r := range in.Records {
		if r.EventSource != "aws:sqs" {
			return nil, fmt.Errorf("the event has records of %q; accepted are events of %s", clip(r.EventSource), accepted)
		}
	}
	return &event{source: queue, records: in.Records}, nil
}
