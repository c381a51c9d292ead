package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/internal/sse"
	"github.com/millrace-ai/millrace/internal/web"
)

// dialect is how one API asks for tokens and shows them.
type dialect struct {
	path    func(stream bool) string
	body    func(o *Options, p prompt) any
	isToken func(event []byte) bool // whether an event carries text
	count   func(last []byte) int   // tokens according to the answer, or to a stream's last event; 0: unknown
}

type object = map[string]any

var dialects = map[string]dialect{
	"tgi": {
		path: func(stream bool) string {
			if stream {
				return "/generate_stream"
			}
			return "/generate"
		},
		body: func(o *Options, p prompt) any {
			params := object{"max_new_tokens": p.tokens, "details": true}
			if o.IgnoreEOS {
				params["ignore_eos"] = true
			}
			if o.Temperature > 0 {
				params["do_sample"], params["temperature"] = true, o.Temperature
			}
			return object{"inputs": p.text, "parameters": params}
		},
		isToken: func(e []byte) bool { return bytes.Contains(e, []byte(`"token":`)) },
		count: func(last []byte) int {
			var v struct {
				Details struct {
					Generated int `json:"generated_tokens"`
				}
			}
			_ = json.Unmarshal(last, &v) // no details: unknown
			return v.Details.Generated
		},
	},
	"chat": {
		path: func(bool) string { return "/v1/chat/completions" },
		body: func(o *Options, p prompt) any {
			b := openAIBody(o, p)
			b["messages"] = []object{{"role": "user", "content": p.text}}
			return b
		},
		isToken: func(e []byte) bool { return bytes.Contains(e, []byte(`"content":"`)) },
		count:   openAICount,
	},
	"completions": {
		path: func(bool) string { return "/v1/completions" },
		body: func(o *Options, p prompt) any {
			b := openAIBody(o, p)
			b["prompt"] = p.text
			return b
		},
		isToken: func(e []byte) bool { return bytes.Contains(e, []byte(`"text":"`)) },
		count:   openAICount,
	},
}

func openAIBody(o *Options, p prompt) object {
	b := object{"model": o.Model, "max_tokens": p.tokens, "temperature": o.Temperature, "stream": o.Stream}
	if o.IgnoreEOS {
		b["ignore_eos"] = true
	}
	if o.Stream {
		b["stream_options"] = object{"include_usage": true}
	}
	return b
}

func openAICount(last []byte) int {
	var v struct {
		Usage struct {
			Completion int `json:"completion_tokens"`
		}
	}
	_ = json.Unmarshal(last, &v) // no usage: unknown
	return v.Usage.Completion
}

// client sends requests one after the other and counts into its own
// histograms; one goroutine uses it.
type client struct {
	opts *Options
	dial dialect
	http *http.Client
	buf  []byte // for the reads of a stream

	firstToken, perToken, interToken, total Histogram
	requests, tokens, good                  int64
	errors                                  map[string]int64
	reasons                                 map[string]string // by kind of error, what the server said first
}

func newClient(o *Options, h *http.Client) *client {
	return &client{opts: o, dial: dialects[o.API], http: h, buf: make([]byte, 32<<10), errors: map[string]int64{}, reasons: map[string]string{}}
}

// failure is a request that got no complete answer; kind groups it in the
// report, reason is what the server said.
type failure struct{ kind, reason string }

func (f *failure) Error() string { return f.kind }

// do sends p and counts what comes back. A request that ctx ends is not
// counted.
func (c *client) do(ctx context.Context, p prompt) {
	start := time.Now()
	reply, err := c.exchange(ctx, p)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		var f *failure
		if !errors.As(err, &f) {
			f = &failure{kind: transportKind(err)}
		}
		c.errors[f.kind]++
		if c.reasons[f.kind] == "" {
			c.reasons[f.kind] = f.reason
		}
		return
	}
	c.requests++
	c.tokens += int64(reply.tokens)
	c.firstToken.Add(reply.first.Sub(start))
	c.total.Add(reply.last.Sub(start))
	perToken := reply.last.Sub(reply.first) / time.Duration(max(1, reply.tokens-1))
	if c.opts.Stream && reply.tokens > 1 {
		c.perToken.Add(perToken)
	}
	if c.opts.SLO.met(reply.first.Sub(start), reply.longest, perToken, reply.last.Sub(start)) {
		c.good++
	}
}

// reply is a complete answer.
type reply struct {
	tokens      int
	first, last time.Time
	longest     time.Duration // between two tokens
}

func (c *client) exchange(ctx context.Context, p prompt) (reply, error) {
	body, err := json.Marshal(c.dial.body(c.opts, p))
	if err != nil {
		return reply{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.opts.URL, "/")+c.dial.path(c.opts.Stream), bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if c.opts.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.opts.APIKey)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // the status says enough without it
		return reply{}, &failure{fmt.Sprintf("%d %s", resp.StatusCode, errorType(text)), web.ErrorText(text)}
	}
	if c.opts.Stream {
		return c.readStream(resp.Body)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	now := time.Now()
	return reply{tokens: c.dial.count(text), first: now, last: now}, nil
}

// readStream takes server-sent events until the body ends. What one read of
// the socket brings has come at the same moment.
func (c *client) readStream(body io.Reader) (reply, error) {
	var (
		rep  reply
		last []byte // event
	)
	if err := sse.Read(body, c.buf, func(event []byte, at time.Time) error {
		switch {
		case bytes.HasPrefix(event, []byte(`{"error"`)):
			return &failure{"error event: " + errorType(event), web.ErrorText(event)}
		case bytes.Equal(event, []byte("[DONE]")):
			return nil
		case c.dial.isToken(event):
			if rep.tokens == 0 {
				rep.first = at
			} else {
				c.interToken.Add(at.Sub(rep.last))
				rep.longest = max(rep.longest, at.Sub(rep.last))
			}
			rep.tokens++
			rep.last = at
		}
		last = append(last[:0], event...)
		return nil
	}); err != nil {
		return reply{}, err
	}
	if rep.tokens == 0 {
		return reply{}, &failure{kind: "a stream without tokens"}
	}
	if n := c.dial.count(last); n > 0 {
		rep.tokens = n // an event may carry several
	}
	return rep, nil
}

// errorType is the error_type of an error body, or what its beginning says.
func errorType(body []byte) string {
	var v struct {
		Type  string          `json:"error_type"`
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(body, &v) == nil && v.Type != "" {
		return v.Type
	}
	text := strings.Join(strings.Fields(string(body)), " ")
	if len(text) > 60 {
		text = text[:60] + "…"
	}
	return text
}

// withReason is a kind of error and what the server said, for people.
func withReason(kind, reason string) string {
	if reason == "" {
		return kind
	}
	return kind + ": " + reason
}

// transportKind shortens an error of the connection, without addresses and
// ports, so that equal ones count together.
func transportKind(err error) string {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "connection: cut inside an answer"
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return "connection: " + err.Error()
		}
		err = inner
	}
}
