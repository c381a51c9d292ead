package lambda

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

const chatBody = `{"messages":[{"role":"user","content":"Hi"}],"stream":true}`

// sourceEvents are events as their sources make them, by the types that AWS
// publishes.
func sourceEvents(t testing.TB) map[string]string {
	text := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	url := events.LambdaFunctionURLRequest{
		Version: "2.0", RawPath: "/v1/chat/completions", RawQueryString: "a=1&b=%20x",
		Cookies: []string{"session=1", "theme=dark"},
		Headers: map[string]string{"host": "abc.lambda-url.eu-west-1.on.aws", "content-type": "application/json", "accept": "text/html,*/*"},
		RequestContext: events.LambdaFunctionURLRequestContext{
			AccountID: "anonymous", APIID: "abc", DomainName: "abc.lambda-url.eu-west-1.on.aws", DomainPrefix: "abc",
			HTTP: events.LambdaFunctionURLRequestContextHTTPDescription{
				Method: "POST", Path: "/v1/chat/completions", Protocol: "HTTP/1.1", SourceIP: "203.0.113.7", UserAgent: "curl",
			},
		},
		Body: chatBody,
	}
	binary := url
	binary.Body, binary.IsBase64Encoded, binary.RawPath = "eyJpbnB1dHMiOiJIaSJ9", true, "/"
	get := url
	get.Body, get.Cookies, get.RawPath, get.RequestContext.HTTP.Method = "", nil, "/ping", "GET"
	staged := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RouteKey: "ANY /{proxy+}", RawPath: "/dev/generate", Headers: map[string]string{"content-type": "application/json"},
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			APIID: "xyz", DomainName: "xyz.execute-api.eu-west-1.amazonaws.com", Stage: "dev",
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{Method: "POST", Path: "/dev/generate", SourceIP: "203.0.113.7"},
		},
		Body: `{"inputs":"Hi"}`,
	}
	unstaged := staged
	unstaged.RawPath, unstaged.RequestContext.Stage = "/generate", "$default"
	// The published type lacks the version, which tells this format from a REST API's.
	v1 := strings.Replace(text(events.APIGatewayProxyRequest{
		Resource: "/{proxy+}", Path: "/dev/generate", HTTPMethod: "POST", Headers: map[string]string{"Content-Type": "application/json"},
		RequestContext: events.APIGatewayProxyRequestContext{Stage: "dev", APIID: "xyz"}, Body: `{"inputs":"Hi"}`,
	}), "{", `{"version":"1.0",`, 1)
	rest := events.APIGatewayProxyRequest{
		Resource: "/{proxy+}", Path: "/generate_stream", HTTPMethod: "POST",
		Headers:                         map[string]string{"Content-Type": "application/json", "X-Two": "b"},
		MultiValueHeaders:               map[string][]string{"Content-Type": {"application/json"}, "X-Two": {"a", "b"}},
		QueryStringParameters:           map[string]string{"q": "z & z"},
		MultiValueQueryStringParameters: map[string][]string{"q": {"z & z", "2"}},
		RequestContext:                  events.APIGatewayProxyRequestContext{Stage: "prod", Identity: events.APIGatewayRequestIdentity{SourceIP: "203.0.113.7"}},
		Body:                            `{"inputs":"Hi"}`,
	}
	alb := events.ALBTargetGroupRequest{
		HTTPMethod: "POST", Path: "/generate", QueryStringParameters: map[string]string{"q": "z%20z"},
		Headers:        map[string]string{"host": "alb.example.com", "content-type": "application/json"},
		RequestContext: events.ALBTargetGroupRequestContext{ELB: events.ELBContext{TargetGroupArn: "arn:aws:elasticloadbalancing:tg"}},
		Body:           `{"inputs":"Hi"}`,
	}
	multi := alb
	multi.Headers, multi.QueryStringParameters = nil, nil
	multi.MultiValueHeaders = map[string][]string{"content-type": {"application/json"}, "x-two": {"a", "b"}}
	multi.MultiValueQueryStringParameters = map[string][]string{"q": {"1", "z%20z"}}
	return map[string]string{
		"function URL":                   text(url),
		"function URL, base64":           text(binary),
		"function URL, GET":              text(get),
		"HTTP API with a stage":          text(staged),
		"HTTP API without a stage":       text(unstaged),
		"HTTP API, format 1.0":           v1,
		"REST API":                       text(rest),
		"load balancer":                  text(alb),
		"load balancer, lists":           text(multi),
		"direct generate":                `{"inputs":"Hi","parameters":{"max_new_tokens":3}}`,
		"direct chat":                    chatBody,
		"direct completion":              `{"prompt":"Hi"}`,
		"direct, fields like an event's": `{"inputs":"Hi","path":5,"body":[],"Records":null}`,
		"warmer, of the framework":       `{"source":"serverless-plugin-warmup"}`,
		"warmer, of lambda-warmer":       `{"warmer":true,"concurrency":3}`,
		"schedule":                       text(events.CloudWatchEvent{Version: "0", DetailType: "Scheduled Event", Source: "aws.events", Detail: json.RawMessage(`{}`)}),
		"queue": text(events.SQSEvent{Records: []events.SQSMessage{
			{MessageId: "m1", EventSource: "aws:sqs", Body: `{"inputs":"Hi"}`}, {MessageId: "m2", EventSource: "aws:sqs", Body: `{"prompt":"Hi"}`},
		}}),
	}
}

// Each source's event becomes the request that the source's client made.
func TestEvents(t *testing.T) {
	want := map[string]string{
		"function URL": "function URL streams wants\nPOST /v1/chat/completions?a=1&b=%20x from 203.0.113.7:0\n" +
			"Accept: text/html,*/*\nContent-Type: application/json\nCookie: session=1; theme=dark\nHost: abc.lambda-url.eu-west-1.on.aws\n\n" + chatBody,
		"function URL, base64": "function URL streams\nPOST /?a=1&b=%20x from 203.0.113.7:0\n" +
			"Accept: text/html,*/*\nContent-Type: application/json\nCookie: session=1; theme=dark\nHost: abc.lambda-url.eu-west-1.on.aws\n\n" + `{"inputs":"Hi"}`,
		"function URL, GET": "function URL streams\nGET /ping?a=1&b=%20x from 203.0.113.7:0\n" +
			"Accept: text/html,*/*\nContent-Type: application/json\nHost: abc.lambda-url.eu-west-1.on.aws\n\n",
		"HTTP API with a stage":    "HTTP API\nPOST /generate from 203.0.113.7:0\nContent-Type: application/json\n\n" + `{"inputs":"Hi"}`,
		"HTTP API without a stage": "HTTP API\nPOST /generate from 203.0.113.7:0\nContent-Type: application/json\n\n" + `{"inputs":"Hi"}`,
		"HTTP API, format 1.0":     "HTTP API\nPOST /generate from \nContent-Type: application/json\n\n" + `{"inputs":"Hi"}`,
		"REST API": "REST API streams wants\nPOST /generate_stream?q=z+%26+z&q=2 from 203.0.113.7:0\nContent-Type: application/json\n" +
			"X-Two: a|b\n\n" + `{"inputs":"Hi"}`,
		"load balancer":        "load balancer\nPOST /generate?q=z%20z from \nContent-Type: application/json\nHost: alb.example.com\n\n" + `{"inputs":"Hi"}`,
		"load balancer, lists": "load balancer\nPOST /generate?q=1&q=z%20z from \nContent-Type: application/json\nX-Two: a|b\n\n" + `{"inputs":"Hi"}`,
		"direct generate": "direct invocation streams\nPOST /invocations from \nContent-Type: application/json\n\n" +
			`{"inputs":"Hi","parameters":{"max_new_tokens":3}}`,
		"direct chat":                    "direct invocation streams wants\nPOST /invocations from \nContent-Type: application/json\n\n" + chatBody,
		"direct completion":              "direct invocation streams\nPOST /invocations from \nContent-Type: application/json\n\n" + `{"prompt":"Hi"}`,
		"direct, fields like an event's": "direct invocation streams\nPOST /invocations from \nContent-Type: application/json\n\n" + `{"inputs":"Hi","path":5,"body":[],"Records":null}`,
		"warmer, of the framework":       "direct invocation streams\nGET /health from \n\n",
		"warmer, of lambda-warmer":       "direct invocation streams\nGET /health from \n\n",
		"schedule":                       "direct invocation streams\nGET /health from \n\n",
		"queue":                          `SQS: m1 {"inputs":"Hi"}, m2 {"prompt":"Hi"}`,
	}
	all := sourceEvents(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			e, err := decode([]byte(all[name]))
			if err != nil {
				t.Fatal(err)
			}
			if got := written(t, e); got != want[name] {
				t.Errorf("event %s\nbecomes %s\nwant %s", all[name], got, want[name])
			}
		})
	}
}

// written is an event for people.
func written(t *testing.T, e *event) string {
	t.Helper()
	if e.source == queue {
		var all []string
		for _, r := range e.records {
			all = append(all, r.MessageId+" "+r.Body)
		}
		return "SQS: " + strings.Join(all, ", ")
	}
	r, err := e.request(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(e.source.String())
	if e.source.streams() {
		b.WriteString(" streams")
	}
	if e.wantsStream() {
		b.WriteString(" wants")
	}
	fmt.Fprintf(&b, "\n%s %s from %s\n", r.Method, r.RequestURI, r.RemoteAddr)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(r.Header[name], "|"))
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || int64(len(body)) != r.ContentLength {
		t.Errorf("body of %d bytes, %v; its length is said to be %d", len(body), err, r.ContentLength)
	}
	return b.String() + "\n" + string(body)
}

// What is not accepted is called by its name, together with what is.
func TestEventsThatAreNotAccepted(t *testing.T) {
	for _, tt := range []struct{ name, event, want string }{
		{"nothing", ``, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"a list", `[1]`, "not a JSON object"},
		{"an empty object", `{}`, "an empty object"},
		{"EventBridge", `{"version":"0","detail-type":"Object Created","source":"aws.s3","detail":{}}`, `EventBridge's "Object Created" from "aws.s3"`},
		{"S3", `{"Records":[{"eventSource":"aws:s3","s3":{}}]}`, `records of "aws:s3"`},
		{"WebSocket", `{"requestContext":{"connectionId":"abc=","routeKey":"$default"},"body":"x"}`, "a WebSocket message"},
		{"Bedrock agent", `{"messageVersion":"1.0","agent":{"name":"a"},"inputText":"x"}`, "a Bedrock agent's"},
		{"anything", `{"b":1,"a":2}`, "an object with a, b;"},
		{"odd context", `{"requestContext":5}`, "requestContext is not understood"},
		{"odd headers", `{"version":"2.0","requestContext":{"http":{"method":"GET"}},"headers":[1]}`, "the HTTP API is not understood"},
		{"odd body", `{"httpMethod":"POST","path":"/","body":{}}`, "the REST API is not understood"},
		{"odd records", `{"Records":5}`, "Records are not understood"},
		{"no base64", `{"httpMethod":"POST","path":"/","body":"!","isBase64Encoded":true}`, "its body is base64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode([]byte(tt.event))
			if err == nil || !strings.Contains(strings.Replace(err.Error(), "an API Gateway WebSocket", "a WebSocket", 1), tt.want) {
				t.Errorf("%s: %v; want %q", tt.event, err, tt.want)
			}
		})
	}
}

// Whatever comes in becomes a request or an error.
func FuzzDecode(f *testing.F) {
	for _, event := range sourceEvents(f) {
		f.Add([]byte(event))
	}
	f.Add([]byte(`{"httpMethod":"%","path":"%zz\u0000?","multiValueHeaders":{"\n":["\r"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decode(data)
		if err != nil || e.source == queue {
			return
		}
		e.wantsStream()
		r, err := e.request(context.Background())
		if err != nil {
			return
		}
		if r.URL.Path == "" || r.URL.Path[0] != '/' || r.Host != r.Header.Get("Host") || r.Body == nil {
			t.Errorf("%q: path %q, host %q", data, r.URL.Path, r.Host)
		}
	})
}
