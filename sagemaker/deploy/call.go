package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"

	"github.com/millrace-ai/millrace/internal/account"
	"github.com/millrace-ai/millrace/internal/awserr"
	"github.com/millrace-ai/millrace/internal/call"
)

// Call is one call of an endpoint.
type Call struct {
	call.Call
	Endpoint string
	Session  string // a session's id, "" for none
}

const (
	jsonType   = "application/json"
	eventType  = "text/event-stream"
	mostInline = 128_000 // bytes of an asynchronous call's body

	mostCalls = 10 // of an endpoint that is not ready
)

// Invoke calls the endpoint and writes the text to out, as it comes if the call
// streams. A call that the platform puts off is repeated, which the progress
// says.
func (c *Client) Invoke(ctx context.Context, in *Call, out io.Writer) (*call.Result, error) {
	body, err := in.Body()
	if err != nil {
		return nil, fmt.Errorf("the request: %w", err)
	}
	if in.Stream {
		return c.stream(ctx, in, body, out)
	}
	var answer *sagemakerruntime.InvokeEndpointOutput
	err = c.patiently(ctx, in.Endpoint, func() (err error) {
		answer, err = c.runtime.InvokeEndpoint(ctx, &sagemakerruntime.InvokeEndpointInput{
			EndpointName: &in.Endpoint, Body: body, ContentType: aws.String(jsonType), Accept: aws.String(jsonType), SessionId: optional(in.Session),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &call.Result{Attributes: aws.ToString(answer.CustomAttributes)}
	p := &call.Printer{Out: out, Raw: in.Raw, Result: r}
	if err := p.Whole(answer.Body); err != nil {
		return r, fmt.Errorf("endpoint %s: %w", in.Endpoint, err)
	}
	return r, nil
}

func (c *Client) stream(ctx context.Context, in *Call, body []byte, out io.Writer) (*call.Result, error) {
	var answer *sagemakerruntime.InvokeEndpointWithResponseStreamOutput
	err := c.patiently(ctx, in.Endpoint, func() (err error) {
		answer, err = c.runtime.InvokeEndpointWithResponseStream(ctx, &sagemakerruntime.InvokeEndpointWithResponseStreamInput{
			EndpointName: &in.Endpoint, Body: body, ContentType: aws.String(jsonType), Accept: aws.String(eventType), SessionId: optional(in.Session),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	parts := answer.GetStream()
	defer parts.Close()
	r := &call.Result{Attributes: aws.ToString(answer.CustomAttributes)}
	p := &call.Printer{Out: out, Raw: in.Raw, Result: r}
	feed := p.Part
	var unary []byte
	if !in.Raw && !strings.HasPrefix(aws.ToString(answer.ContentType), eventType) {
		// A container that knows no streams answers in one piece.
		feed = func(part []byte) error { unary = append(unary, part...); return nil }
	}
	for event := range parts.Events() {
		if part, ok := event.(*types.ResponseStreamMemberPayloadPart); ok {
			if err := feed(part.Value.Bytes); err != nil {
				return r, fmt.Errorf("endpoint %s: %w", in.Endpoint, err)
			}
		}
	}
	if err := parts.Err(); err != nil {
		return r, c.streamFault(ctx, in.Endpoint, err)
	}
	if unary != nil {
		err = p.Whole(unary)
	} else {
		err = p.End()
	}
	if err != nil {
		return r, fmt.Errorf("endpoint %s: %w", in.Endpoint, err)
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
func (c *Client) InvokeAsync(ctx context.Context, in *Call) (output, failure string, err error) {
	body, err := in.Body()
	if err != nil {
		return "", "", fmt.Errorf("the request: %w", err)
	}
	if len(body) > mostInline {
		return "", "", fmt.Errorf("the request has %d bytes, an asynchronous call takes %d", len(body), mostInline)
	}
	var answer *sagemakerruntime.InvokeEndpointAsyncOutput
	err = c.patiently(ctx, in.Endpoint, func() (err error) {
		answer, err = c.runtime.InvokeEndpointAsync(ctx, &sagemakerruntime.InvokeEndpointAsyncInput{
			EndpointName: &in.Endpoint, Body: body, ContentType: aws.String(jsonType), Accept: aws.String(jsonType),
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
		wait := min(c.Poll, time.Second<<(calls-1))
		c.Say("endpoint %s: %s; again in %v", endpoint, awserr.Detail(awserr.Code(err), awserr.Message(err)), wait)
		if !account.Sleep(ctx, wait) {
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
			return account.Errorf(err, "there is no endpoint %s in service in %s: `millrace sagemaker status %[1]s` shows one that is still being created; another region: --region", endpoint, c.Region())
		}
		return c.explain(err, "endpoint "+endpoint)
	}
	status := aws.ToInt32(model.OriginalStatusCode)
	if status == 0 {
		return account.Errorf(err, "endpoint %s: the container did not answer within the platform's 60 seconds, or closed the connection; --stream has 8 minutes (%s)", endpoint, awserr.Detail("", awserr.Message(err)))
	}
	text := aws.ToString(model.OriginalMessage)
	if text == "" {
		text = awserr.Message(err)
	}
	message, kind := call.ContainerError([]byte(text))
	if kind != "" {
		kind = " (" + kind + ")"
	}
	return account.Errorf(err, "endpoint %s: the container answered %d%s: %s", endpoint, status, kind, message)
}

// streamFault is about a stream that the platform ended.
func (c *Client) streamFault(ctx context.Context, endpoint string, err error) error {
	var model *types.ModelStreamError
	switch {
	case ctx.Err() != nil:
		return account.Errorf(ctx.Err(), "interrupted")
	case errors.As(err, &model):
		return account.Errorf(err, "endpoint %s: the stream ended early: %s", endpoint, awserr.Detail(aws.ToString(model.ErrorCode_), aws.ToString(model.Message)))
	}
	return c.explain(err, "endpoint "+endpoint+": the stream ended early")
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
