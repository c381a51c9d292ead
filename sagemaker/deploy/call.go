package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"

	"github.com/millrace-ai/millrace/internal/awserr"
)

// Call is one call of an endpoint.
type Call struct {
	Endpoint   string
	Input      string         // the prompt; with Raw the body as it is
	Parameters map[string]any // of the generation
	Raw        bool           // send and print bytes as they are
	Chat       bool           // the prompt is a user's message
	Stream     bool
	Details    bool   // ask for what Result.Usage needs
	Session    string // a session's id, "" for none
}

// Result is what a call returned besides the text.
type Result struct {
	FinishReason string
	Usage        string // tokens, "" if the answer does not say
	Attributes   string // custom attributes that the container has set
}

const (
	jsonType   = "application/json"
	eventType  = "text/event-stream"
	mostInline = 128_000 // bytes of an asynchronous call's body

	mostCalls = 10 // of an endpoint that is not ready
)

// body writes the request's body.
func (call *Call) body() ([]byte, error) {
	if call.Raw {
		return []byte(call.Input), nil
	}
	if call.Chat {
		body := maps.Clone(call.Parameters)
		if body == nil {
			body = map[string]any{}
		}
		body["messages"] = []map[string]string{{"role": "user", "content": call.Input}}
		body["stream"] = call.Stream
		if call.Stream && call.Details {
			body["stream_options"] = map[string]bool{"include_usage": true}
		}
		return json.Marshal(body)
	}
	parameters := map[string]any{"return_full_text": false}
	if call.Details {
		parameters["details"] = true
	}
	maps.Copy(parameters, call.Parameters)
	return json.Marshal(map[string]any{"inputs": call.Input, "parameters": parameters, "stream": call.Stream})
}

// Invoke calls the endpoint and writes the text to out, as it comes if the call
// streams. A call that the platform puts off is repeated, which the progress
// says.
func (c *Client) Invoke(ctx context.Context, call *Call, out io.Writer) (*Result, error) {
	body, err := call.body()
	if err != nil {
		return nil, fmt.Errorf("the request: %w", err)
	}
	if call.Stream {
		return c.stream(ctx, call, body, out)
	}
	var answer *sagemakerruntime.InvokeEndpointOutput
	err = c.patiently(ctx, call.Endpoint, func() (err error) {
		answer, err = c.runtime.InvokeEndpoint(ctx, &sagemakerruntime.InvokeEndpointInput{
			EndpointName: &call.Endpoint, Body: body, ContentType: aws.String(jsonType), Accept: aws.String(jsonType), SessionId: optional(call.Session),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &Result{Attributes: aws.ToString(answer.CustomAttributes)}
	p := &printer{out: out, raw: call.Raw, result: r}
	if err := p.whole(answer.Body); err != nil {
		return r, fmt.Errorf("endpoint %s: %w", call.Endpoint, err)
	}
	return r, nil
}

func (c *Client) stream(ctx context.Context, call *Call, body []byte, out io.Writer) (*Result, error) {
	var answer *sagemakerruntime.InvokeEndpointWithResponseStreamOutput
	err := c.patiently(ctx, call.Endpoint, func() (err error) {
		answer, err = c.runtime.InvokeEndpointWithResponseStream(ctx, &sagemakerruntime.InvokeEndpointWithResponseStreamInput{
			EndpointName: &call.Endpoint, Body: body, ContentType: aws.String(jsonType), Accept: aws.String(eventType), SessionId: optional(call.Session),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	parts := answer.GetStream()
	defer parts.Close()
	r := &Result{Attributes: aws.ToString(answer.CustomAttributes)}
	p := &printer{out: out, raw: call.Raw, result: r}
	feed := p.part
	var unary []byte
	if !call.Raw && !strings.HasPrefix(aws.ToString(answer.ContentType), eventType) {
		// A container that knows no streams answers in one piece.
		feed = func(part []byte) error { unary = append(unary, part...); return nil }
	}
	for event := range parts.Events() {
		if part, ok := event.(*types.ResponseStreamMemberPayloadPart); ok {
			if err := feed(part.Value.Bytes); err != nil {
				return r, fmt.Errorf("endpoint %s: %w", call.Endpoint, err)
			}
		}
	}
	if err := parts.Err(); err != nil {
		return r, c.streamFault(ctx, call.Endpoint, err)
	}
	if unary != nil {
		err = p.whole(unary)
	} else {
		err = p.end()
	}
	if err != nil {
		return r, fmt.Errorf("endpoint %s: %w", call.Endpoint, err)
	}
	return r, nil
}

// OpenSession opens a stateful session and returns its id, which sends calls
// to the same instance.
func (c *Client) OpenSession(ctx context.Context, endpoint string) (string, error) {
	answer, err := c.session(ctx, endpoint, "NEW_SESSION", "NEW_SESSION")
	if err != nil {
		return "", err
	}
	id, _, _ := strings.Cut(aws.ToString(answer.NewSessionId), ";")
	if id == "" {
		return "", fmt.Errorf("endpoint %s: opened no session: the container has sessions switched off", endpoint)
	}
	return id, nil
}

// CloseSession closes a session.
func (c *Client) CloseSession(ctx context.Context, endpoint, id string) error {
	_, err := c.session(ctx, endpoint, id, "CLOSE")
	return err
}

func (c *Client) session(ctx context.Context, endpoint, id, request string) (answer *sagemakerruntime.InvokeEndpointOutput, err error) {
	body := fmt.Sprintf(`{"requestType":%q}`, request)
	err = c.patiently(ctx, endpoint, func() (err error) {
		answer, err = c.runtime.InvokeEndpoint(ctx, &sagemakerruntime.InvokeEndpointInput{
			EndpointName: &endpoint, SessionId: &id, Body: []byte(body), ContentType: aws.String(jsonType),
		})
		return err
	})
	return answer, err
}

// InvokeAsync hands the call to an asynchronous endpoint and returns where in
// S3 the answer will be, or else the error.
func (c *Client) InvokeAsync(ctx context.Context, call *Call) (output, failure string, err error) {
	body, err := call.body()
	if err != nil {
		return "", "", fmt.Errorf("the request: %w", err)
	}
	if len(body) > mostInline {
		return "", "", fmt.Errorf("the request has %d bytes, an asynchronous call takes %d", len(body), mostInline)
	}
	var answer *sagemakerruntime.InvokeEndpointAsyncOutput
	err = c.patiently(ctx, call.Endpoint, func() (err error) {
		answer, err = c.runtime.InvokeEndpointAsync(ctx, &sagemakerruntime.InvokeEndpointAsyncInput{
			EndpointName: &call.Endpoint, Body: body, ContentType: aws.String(jsonType), Accept: aws.String(jsonType),
		})
		return err
	})
	if err != nil {
		return "", "", err
	}
	return aws.ToString(answer.OutputLocation), aws.ToString(answer.FailureLocation), nil
}

// patiently calls try until the platform does not ask to try later.
func (c *Client) patiently(ctx context.Context, endpoint string, try func() error) error {
	for calls := 1; ; calls++ {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !isPutOff(err) || calls == mostCalls {
			return c.callFault(endpoint, err)
		}
		wait := min(c.poll, time.Second<<(calls-1))
		c.say("endpoint %s: %s; again in %v", endpoint, awserr.Detail(awserr.Code(err), awserr.Message(err)), wait)
		if !sleep(ctx, wait) {
			return c.callFault(endpoint, ctx.Err())
		}
	}
}

// isPutOff reports whether err says that the same call can do later. What the
// container answers is never repeated.
func isPutOff(err error) bool {
	switch awserr.Code(err) {
	case "ModelNotReadyException", "ServiceUnavailable", "ServiceUnavailableException", "InternalFailure", "InternalDependencyException":
		return true
	}
	return awserr.KindOf(err) == awserr.Throttled
}

// callFault makes the one line about a failed call: what the container itself
// answered, not the platform's 424 around it.
func (c *Client) callFault(endpoint string, err error) error {
	var model *types.ModelError
	if !errors.As(err, &model) {
		if m := awserr.Message(err); awserr.Code(err) == "ValidationError" && strings.HasPrefix(m, "Endpoint "+endpoint) && strings.Contains(m, "not found") {
			return &Error{fmt.Sprintf("there is no endpoint %s in service in %s: `millrace sagemaker status %[1]s` shows one that is still being created; another region: --region", endpoint, c.region), err}
		}
		return c.explain(err, "endpoint "+endpoint)
	}
	status := aws.ToInt32(model.OriginalStatusCode)
	if status == 0 {
		return &Error{fmt.Sprintf("endpoint %s: the container did not answer within the platform's 60 seconds, or closed the connection; --stream has 8 minutes (%s)", endpoint, awserr.Detail("", awserr.Message(err))), err}
	}
	text := aws.ToString(model.OriginalMessage)
	if text == "" {
		text = awserr.Message(err)
	}
	message, kind := containerError([]byte(text))
	if kind != "" {
		kind = " (" + kind + ")"
	}
	return &Error{fmt.Sprintf("endpoint %s: the container answered %d%s: %s", endpoint, status, kind, message), err}
}

// streamFault is about a stream that the platform ended.
func (c *Client) streamFault(ctx context.Context, endpoint string, err error) error {
	var model *types.ModelStreamError
	switch {
	case ctx.Err() != nil:
		return &Error{"interrupted", ctx.Err()}
	case errors.As(err, &model):
		return &Error{fmt.Sprintf("endpoint %s: the stream ended early: %s", endpoint, awserr.Detail(aws.ToString(model.ErrorCode_), aws.ToString(model.Message))), err}
	}
	return c.explain(err, "endpoint "+endpoint+": the stream ended early")
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
