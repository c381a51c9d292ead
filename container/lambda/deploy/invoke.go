package deploy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/millrace-ai/millrace/internal/account"
	"github.com/millrace-ai/millrace/internal/call"
)

// Call is one call of a function.
type Call struct {
	call.Call
	Function  string
	Qualifier string // an alias or a version; "": the function as it is last configured
}

// Invoke calls the function and writes the text to out, as it comes if the call
// streams. If the function fails, the end of its log goes to the progress. A call
// is not repeated: it would be billed again.
func (c *Client) Invoke(ctx context.Context, in *Call, out io.Writer) (*call.Result, error) {
	body, err := in.Body()
	if err != nil {
		return nil, fmt.Errorf("the request: %w", err)
	}
	var qualifier *string
	if in.Qualifier != "" {
		qualifier = &in.Qualifier
	}
	once := func(o *lambda.Options) { o.Retryer = aws.NopRetryer{} }
	r := &call.Result{}
	p := &call.Printer{Out: out, Raw: in.Raw, Result: r}
	if in.Stream {
		answer, err := c.lambda.InvokeWithResponseStream(ctx, &lambda.InvokeWithResponseStreamInput{
			FunctionName: &in.Function, Qualifier: qualifier, Payload: body, LogType: types.LogTypeTail,
		}, once)
		if err != nil {
			return nil, c.callFault(in, err)
		}
		return r, c.stream(ctx, in, answer, p)
	}
	answer, err := c.lambda.Invoke(ctx, &lambda.InvokeInput{
		FunctionName: &in.Function, Qualifier: qualifier, Payload: body, LogType: types.LogTypeTail,
	}, once)
	if err != nil {
		return nil, c.callFault(in, err)
	}
	if answer.FunctionError != nil {
		return r, c.functionFault(in, string(answer.Payload), aws.ToString(answer.LogResult))
	}
	if err := p.Whole(answer.Payload); err != nil {
		return r, fmt.Errorf("function %s: %w", in.Function, err)
	}
	return r, nil
}

// stream prints a streamed answer.
func (c *Client) stream(ctx context.Context, in *Call, answer *lambda.InvokeWithResponseStreamOutput, p *call.Printer) error {
	parts := answer.GetStream()
	defer parts.Close()
	// Lambda does not always say what kind of stream it is; one of events shows
	// by its first bytes. Any other answer comes in one piece.
	events, first := in.Raw, true
	var whole []byte
	feed := func(part []byte) error {
		if first {
			first = false
			events = events || bytes.HasPrefix(part, []byte("data:")) || bytes.HasPrefix(part, []byte(":")) || bytes.HasPrefix(part, []byte("event:"))
		}
		if events {
			return p.Part(part)
		}
		whole = append(whole, part...)
		return nil
	}
	for event := range parts.Events() {
		switch event := event.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			if err := feed(event.Value.Payload); err != nil {
				return fmt.Errorf("function %s: %w", in.Function, err)
			}
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			if code := aws.ToString(event.Value.ErrorCode); code != "" {
				return c.functionFault(in, aws.ToString(event.Value.ErrorDetails), aws.ToString(event.Value.LogResult))
			}
		}
	}
	err := parts.Err()
	switch {
	case ctx.Err() != nil:
		return account.Errorf(ctx.Err(), "interrupted")
	case err != nil:
		return c.explain(err, "function "+in.Function+": the stream ended early")
	case events:
		err = p.End()
	default:
		err = p.Whole(whole)
	}
	if err != nil {
		return fmt.Errorf("function %s: %w", in.Function, err)
	}
	return nil
}

// callFault makes the one line about a call that Lambda refused.
func (c *Client) callFault(in *Call, err error) error {
	what := "function " + in.Function
	if in.Qualifier != "" {
		what += ":" + in.Qualifier
	}
	if account.IsMissing(err) {
		return account.Errorf(err, "there is no %s in %s; another region: --region, another alias or version: --qualifier", what, c.Region())
	}
	return c.explain(err, what)
}

// functionFault makes the one line about a call that the function failed, and
// shows the end of its log.
func (c *Client) functionFault(in *Call, payload, log string) error {
	if text, err := base64.StdEncoding.DecodeString(log); err == nil && len(text) > 0 {
		c.Say("the end of the function's log:")
		for line := range strings.Lines(string(text)) {
			c.Say("  %s", strings.TrimRight(line, "\r\n"))
		}
	}
	var fault struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
	}
	if json.Unmarshal([]byte(payload), &fault) != nil || fault.Message == "" {
		if payload == "" {
			payload = "no reason given"
		}
		return errors.New("function " + in.Function + " failed: " + payload)
	}
	kind := ""
	if fault.Type != "" {
		kind = " (" + fault.Type + ")"
	}
	return fmt.Errorf("function %s failed%s: %s", in.Function, kind, fault.Message)
}
