package handler

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

// Every route gives its generations the deadline of its kind of answer, and
// says of a text that it was cut there.
func TestDeadlines(t *testing.T) {
	d := Deadlines{Answer: time.Unix(1000, 0), Stream: time.Unix(2000, 0)}
	cut := &fake{script: func(req *engine.Request, out *engine.StreamWriter) {
		tokens, _ := spell(" a b", 2)
		out.End(engine.FinishDeadline, nil, tokens...)
	}}
	const length = `"finish_reason":"length","cut":"deadline"`
	for _, tt := range []struct {
		name, path, body string
		deadline         time.Time
		want             string
	}{
		{"generate", "/generate", `{"inputs":"x","parameters":{"details":true}}`, d.Answer, length},
		{"best_of", "/generate", `{"inputs":"x","parameters":{"details":true,"do_sample":true,"best_of":2}}`, d.Answer, length},
		{"stream", "/generate_stream", `{"inputs":"x","parameters":{"details":true}}`, d.Stream, length},
		{"compat", "/", `{"inputs":"x","stream":true,"parameters":{"details":true}}`, d.Stream, length},
		{"chat", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}]}`, d.Answer, length},
		{"chat stream", "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"stream":true}`, d.Stream, length},
		{"completion", "/v1/completions", `{"prompt":["x","y"]}`, d.Answer, length},
		{"completion stream", "/v1/completions", `{"prompt":"x","stream":true}`, d.Stream, length},
		{"invocations", "/invocations", `{"inputs":"x"}`, d.Answer, `"x a b"`},
		{"vertex", "/vertex", `{"instances":[{"inputs":"x"}]}`, d.Answer, `" a b"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newChatServer(t, plainTemplate, cut)
			r := httptest.NewRequest(http.MethodPost, tt.path, strings.NewReader(tt.body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r.WithContext(WithDeadlines(r.Context(), d)))
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("%d %s; want %s in it", w.Code, w.Body, tt.want)
			}
			if got := cut.request().Deadline; !got.Equal(tt.deadline) {
				t.Errorf("deadline %v, want %v", got, tt.deadline)
			}
			if post(t, s, tt.path, tt.body); !cut.request().Deadline.IsZero() {
				t.Errorf("deadline %v without one from the host", cut.request().Deadline)
			}
		})
	}
}

// What has no token at its deadline is an error with a status of its own, in
// a stream too.
func TestExpired(t *testing.T) {
	s := newTestServer(&fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		out.End(engine.NotFinished, &engine.Error{Kind: engine.Expired, Msg: "too late"})
	}})
	for _, path := range []string{"/generate", "/generate_stream"} {
		a := post(t, s, path, `{"inputs":"x"}`)
		if msg, kind := mustError(t, a); a.status != http.StatusGatewayTimeout || kind != "timeout" {
			t.Errorf("%s: %d %s %q", path, a.status, kind, msg)
		}
	}
}

// A host within a host cannot give more time.
func TestDeadlinesWithinDeadlines(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	ctx := WithDeadlines(t.Context(), Deadlines{Answer: early})
	ctx = WithDeadlines(ctx, Deadlines{Answer: late, Stream: late})
	if got, want := ctx.Value(deadlinesKey{}), (Deadlines{Answer: early, Stream: late}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// What waits at the deadline ends as an empty or a short text beside those that
// have tokens, and behind them in a stream.
func TestExpiredChoice(t *testing.T) {
	const (
		chat    = `{"messages":[{"role":"user","content":"x"}],`
		cut     = `"finish_reason":"length","cut":"deadline"`
		nothing = `"content":""},"logprobs":null,` + cut
	)
	late := &engine.Error{Kind: engine.Expired, Msg: "too late"}
	a, _ := spell(" a", 1)
	for _, tt := range []struct {
		name, path, body string
		tokens           []int // that each sequence has, further ones none; -1: one, and then it has waited
		want             string
	}{
		{"chat", chatPath, chat + `"n":2}`, []int{1, 0}, `"index":1,"message":{"role":"assistant",` + nothing},
		{"chat stream", chatPath, chat + `"n":2,"stream":true}`, []int{0, 1}, `"index":0,"delta":{"role":"assistant",` + nothing + "}],\"usage\":null}\n\ndata: [DONE]"},
		{"completion", "/v1/completions", `{"prompt":"x","n":2}`, []int{1, 0}, `{"index":1,"text":"","logprobs":null,` + cut},
		{"completion stream", "/v1/completions", `{"prompt":["x","y"],"stream":true,"stream_options":{"include_usage":true}}`, []int{0, 1},
			`{"index":0,"text":"","logprobs":null,` + cut},
		{"the best completion", "/v1/completions", `{"prompt":"x","best_of":2}`, []int{0, 1}, `{"index":0,"text":" a"`},
		{"the best text", "/generate", `{"inputs":"x","parameters":{"details":true,"do_sample":true,"best_of":2}}`, []int{0, 1},
			`{"generated_text":" a","details":{` + cut + `,"generated_tokens":1`},
		{"for memory", "/generate", `{"inputs":"x","parameters":{"details":true}}`, []int{-1}, `{"generated_text":" a","details":{` + cut},
		{"for memory, a chat", chatPath, chat + `"stop":" ab"}`, []int{-1}, `"content":" a"},"logprobs":null,` + cut},
		{"for memory, a stream", chatPath, chat + `"stop":" ab","stream":true}`, []int{-1}, `"content":" a"},"logprobs":null,` + cut},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gen := &fake{}
			gen.script = func(req *engine.Request, out *engine.StreamWriter) {
				i := gen.submitted(req)
				switch {
				case i >= len(tt.tokens) || tt.tokens[i] == 0:
					out.End(engine.FinishDeadline, late)
				case tt.tokens[i] == 1:
					out.End(engine.FinishDeadline, nil, a...)
				default:
					out.End(engine.FinishDeadline, late, a...)
				}
			}
			s := newChatServer(t, plainTemplate, gen)
			got := post(t, s, tt.path, tt.body)
			if got.status != http.StatusOK || !strings.Contains(got.body, tt.want) || strings.Contains(got.body, `"error"`) {
				t.Errorf("%d %s; want %s", got.status, got.body, tt.want)
			}
			if got := post(t, s, tt.path, tt.body); got.status != http.StatusGatewayTimeout {
				t.Errorf("without a token at all: %d %s", got.status, got.body)
			}
		})
	}
}
