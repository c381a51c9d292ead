package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/millrace-ai/millrace/internal/call"
)

// endpoint answers calls one after the other; the last answer stays.
type endpoint struct {
	answers []http.HandlerFunc
	bodies  []string
	headers []http.Header
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.bodies, e.headers = append(e.bodies, string(body)), append(e.headers, r.Header)
	answer := e.answers[0]
	if len(e.answers) > 1 {
		e.answers = e.answers[1:]
	}
	answer(w, r)
}

func text(kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		fmt.Fprint(w, body)
	}
}

func fault(status int, code, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amzn-ErrorType", code)
		w.Header().Set("Content-Type", jsonType)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// modelError is the platform's answer when the container's had a bad status.
func modelError(status int, message string) http.HandlerFunc {
	body, _ := json.Marshal(map[string]any{"Message": "Received client error from primary", "OriginalStatusCode": status, "OriginalMessage": message})
	return fault(http.StatusFailedDependency, "ModelError", string(body))
}

// parts is a response stream of body, cut into parts of n bytes, and then an
// exception if one is named.
func parts(kind, body string, n int, exception ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
		w.Header().Set("X-Amzn-SageMaker-Content-Type", kind)
		encoder := eventstream.NewEncoder()
		message := func(kind, name string, payload []byte) {
			m := eventstream.Message{Payload: payload}
			m.Headers.Set(":message-type", eventstream.StringValue(kind))
			m.Headers.Set(":"+kind+"-type", eventstream.StringValue(name))
			m.Headers.Set(":content-type", eventstream.StringValue("application/octet-stream"))
			_ = encoder.Encode(w, m)
		}
		for b := []byte(body); len(b) > 0; {
			part := b[:min(n, len(b))]
			message("event", "PayloadPart", part)
			b = b[len(part):]
		}
		if len(exception) == 2 {
			message("exception", exception[0], []byte(exception[1]))
		}
	}
}

const tgiStart = ": keep-alive\n\n" +
	"data:{\"token\":{\"text\":\"Grüß\",\"special\":false},\"generated_text\":null}\r\n\r\n"

const tgiStream = tgiStart +
	"data:{\"token\":{\"text\":\" Gott\",\"special\":false},\"generated_text\":null}\n\n" +
	"data:{\"token\":{\"text\":\"</s>\",\"special\":true},\"generated_text\":\"Grüß Gott\",\"details\":{\"finish_reason\":\"eos_token\",\"generated_tokens\":3,\"input_length\":5}}\n\n"

const chatStream = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"Hi\"}}]}\n\n" +
	"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" +
	"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n"

func TestInvoke(t *testing.T) {
	for _, tt := range []struct {
		name     string
		call     Call
		answers  []http.HandlerFunc
		want     string // the text
		usage    string
		wantErr  string
		wantOut  string // in the progress
		wantBody string
	}{
		{
			name: "generation", call: Call{Call: call.Call{Input: "Hello", Parameters: map[string]any{"max_new_tokens": 5}, Details: true}},
			answers:  []http.HandlerFunc{text(jsonType, `[{"generated_text":"there\n","details":{"finish_reason":"length","generated_tokens":2,"prefill":[{},{}]}}]`)},
			want:     "there\n",
			usage:    "2 tokens in the prompt, 2 tokens generated",
			wantBody: `{"inputs":"Hello","parameters":{"details":true,"max_new_tokens":5,"return_full_text":false},"stream":false}`,
		},
		{
			name: "chat", call: Call{Call: call.Call{Input: "Hello", Chat: true, Parameters: map[string]any{"max_tokens": 5}}},
			answers:  []http.HandlerFunc{text(jsonType, `{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":1}}`)},
			want:     "Hi\n",
			usage:    "4 tokens in the prompt, 1 tokens generated",
			wantBody: `{"max_tokens":5,"messages":[{"content":"Hello","role":"user"}],"stream":false}`,
		},
		{name: "an answer of another shape", call: Call{Call: call.Call{Input: "x"}}, answers: []http.HandlerFunc{text(jsonType, `{"label":1}`)}, want: "{\"label\":1}\n"},
		{name: "raw", call: Call{Call: call.Call{Input: `{"a":1}`, Raw: true}}, answers: []http.HandlerFunc{text(jsonType, `{"b":2}`)}, want: `{"b":2}`, wantBody: `{"a":1}`},
		{
			name: "stream, cut anywhere", call: Call{Call: call.Call{Input: "x", Stream: true}}, answers: []http.HandlerFunc{parts(eventType, tgiStream, 1)},
			want: "Grüß Gott\n", usage: "5 tokens in the prompt, 3 tokens generated",
			wantBody: `{"inputs":"x","parameters":{"return_full_text":false},"stream":true}`,
		},
		{
			name: "stream in one part", call: Call{Call: call.Call{Input: "x", Stream: true}}, answers: []http.HandlerFunc{parts(eventType, tgiStream, 1<<20)},
			want: "Grüß Gott\n", usage: "5 tokens in the prompt, 3 tokens generated",
		},
		{
			name: "chat stream", call: Call{Call: call.Call{Input: "x", Stream: true, Chat: true, Details: true}}, answers: []http.HandlerFunc{parts(eventType, chatStream, 7)},
			want: "Hi\n", usage: "4 tokens in the prompt, 1 tokens generated",
			wantBody: `{"messages":[{"content":"x","role":"user"}],"stream":true,"stream_options":{"include_usage":true}}`,
		},
		{
			name: "raw stream", call: Call{Call: call.Call{Input: "{}", Raw: true, Stream: true}}, answers: []http.HandlerFunc{parts(eventType, tgiStream, 100)}, want: tgiStream,
		},
		{
			name: "a container that does not stream", call: Call{Call: call.Call{Input: "x", Stream: true}},
			answers: []http.HandlerFunc{parts(jsonType, `[{"generated_text":"all"}]`, 5)}, want: "all\n",
		},
		{
			name: "the container's error is shown, not the platform's", call: Call{Call: call.Call{Input: "x"}},
			answers: []http.HandlerFunc{modelError(422, `{"error":"Input validation error: x","error_type":"validation"}`)},
			wantErr: "endpoint chat: the container answered 422 (validation): Input validation error: x",
		},
		{
			name: "OpenAI's error before a stream", call: Call{Call: call.Call{Input: "x", Stream: true}},
			answers: []http.HandlerFunc{modelError(404, `{"error":{"message":"no such model","type":"not_found"}}`)},
			wantErr: "endpoint chat: the container answered 404 (not_found): no such model",
		},
		{
			name: "no answer in time", call: Call{Call: call.Call{Input: "x"}}, answers: []http.HandlerFunc{modelError(0, "")},
			wantErr: "did not answer within the platform's 60 seconds",
		},
		{
			name: "not ready, then throttled, then there", call: Call{Call: call.Call{Input: "x"}},
			answers: []http.HandlerFunc{
				fault(429, "ModelNotReadyException", `{"Message":"is being loaded"}`), fault(400, "ThrottlingException", `{"Message":"Rate exceeded"}`),
				text(jsonType, `[{"generated_text":"now"}]`),
			},
			want: "now\n", wantOut: "endpoint chat: ModelNotReadyException: is being loaded; again in",
		},
		{
			name: "never ready", call: Call{Call: call.Call{Input: "x", Stream: true}}, answers: []http.HandlerFunc{fault(503, "ServiceUnavailable", `{"Message":"no instances"}`)},
			wantErr: "endpoint chat: ServiceUnavailable: no instances", wantOut: "again in",
		},
		{
			name: "no such endpoint", call: Call{Call: call.Call{Input: "x"}}, answers: []http.HandlerFunc{fault(400, "ValidationError", `{"Message":"Endpoint chat of account 1 not found."}`)},
			wantErr: "there is no endpoint chat in service in eu-west-1",
		},
		{
			name: "no such session", call: Call{Call: call.Call{Input: "x"}, Session: "s"}, answers: []http.HandlerFunc{fault(400, "ValidationError", `{"Message":"Session s of endpoint chat not found."}`)},
			wantErr: "Session s of endpoint chat not found.",
		},
		{
			name: "an error within the stream", call: Call{Call: call.Call{Input: "x", Stream: true}},
			answers: []http.HandlerFunc{parts(eventType, tgiStart+"data:{\"error\":\"device lost\",\"error_type\":\"generation\"}\n\n", 9)},
			want:    "Grüß", wantErr: "the container ended the generation: device lost",
		},
		{
			name: "the platform ends the stream", call: Call{Call: call.Call{Input: "x", Stream: true}},
			answers: []http.HandlerFunc{parts(eventType, tgiStart, 9, "ModelStreamError", `{"Message":"took too long","ErrorCode":"ModelInvocationTimeExceeded"}`)},
			want:    "Grüß", wantErr: "the stream ended early: ModelInvocationTimeExceeded: took too long",
		},
		{
			name: "the stream breaks off", call: Call{Call: call.Call{Input: "x", Stream: true}}, answers: []http.HandlerFunc{parts(eventType, tgiStart, 9)},
			want: "Grüß", wantErr: "the stream broke off before its last event",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, e := newFake(t), &endpoint{answers: tt.answers}
			server := httptest.NewServer(e)
			defer server.Close()
			f.url = server.URL
			c, progress := f.dial(false)
			tt.call.Endpoint = "chat"
			var out bytes.Buffer
			r, err := c.Invoke(context.Background(), &tt.call, &out)
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if out.String() != tt.want {
				t.Errorf("printed %q, want %q", out.String(), tt.want)
			}
			if err == nil && r.Usage != tt.usage {
				t.Errorf("usage %q, want %q", r.Usage, tt.usage)
			}
			if !strings.Contains(progress.String(), tt.wantOut) || tt.wantOut == "" && progress.Len() > 0 {
				t.Errorf("progress %q, want %q in it", progress, tt.wantOut)
			}
			if tt.wantBody != "" && e.bodies[0] != tt.wantBody {
				t.Errorf("body %s, want %s", e.bodies[0], tt.wantBody)
			}
		})
	}
}

func TestSession(t *testing.T) {
	f, e := newFake(t), &endpoint{}
	server := httptest.NewServer(e)
	defer server.Close()
	f.url = server.URL
	c, _ := f.dial(false)
	ctx := context.Background()
	e.answers = []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amzn-SageMaker-New-Session-Id", "s-1; Expires=2026-11-24T12:00:00Z")
	}}
	id, err := c.OpenSession(ctx, "chat")
	if err != nil || id != "s-1" {
		t.Fatalf("session %q, %v", id, err)
	}
	e.answers = []http.HandlerFunc{text(jsonType, "{}")}
	if err := c.CloseSession(ctx, "chat", id); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"NEW_SESSION", "CLOSE"} {
		if got := fmt.Sprintf(`{"requestType":%q}`, want); e.bodies[i] != got {
			t.Errorf("body %s, want %s", e.bodies[i], got)
		}
	}
	if got := e.headers[1].Get("X-Amzn-SageMaker-Session-Id"); got != "s-1" {
		t.Errorf("closed session %q", got)
	}
	if _, err := c.OpenSession(ctx, "chat"); err == nil || !strings.Contains(err.Error(), "switched off") {
		t.Errorf("a container without sessions: %v", err)
	}
}
