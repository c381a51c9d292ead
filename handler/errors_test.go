package handler

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
)

// errorObject is OpenAI's.
type errorObject struct {
	Message, Type, Code string
	Param               *string
}

// mustErrorObject checks that a is OpenAI's error and returns it.
func mustErrorObject(t testing.TB, a response) errorObject {
	t.Helper()
	var e struct{ Error *errorObject }
	dec := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil || e.Error == nil || e.Error.Message == "" || e.Error.Type == "" || e.Error.Code == "" {
		t.Fatalf("no error object: %d %q (%v)", a.status, a.body, err)
	}
	if len(a.body) > 1500 {
		t.Errorf("an error of %d bytes", len(a.body))
	}
	if e.Error.Param == nil {
		e.Error.Param = new(string)
	}
	return *e.Error
}

// TestErrorObjects walks the refusals of the OpenAI routes: with --error-format
// openai they have OpenAI's object, and without it the contract's body.
func TestErrorObjects(t *testing.T) {
	fails := func(kind engine.Kind) *fake { return &fake{refuse: &engine.Error{Kind: kind, Msg: "why"}} }
	for _, tt := range []struct {
		name, method, path, body string
		gen                      *fake
		status                   int
		kind, param, code        string
	}{
		{"no such route", "POST", "/v1/nope", `{}`, nil, 404, "invalid_request_error", "", "not_found"},
		{"no such model", "GET", "/v1/models/a/b", "", nil, 404, "invalid_request_error", "model", "model_not_found"},
		{"a wrong method", "GET", chatPath, "", nil, 405, "invalid_request_error", "", "method_not_allowed"},
		{"a wrong key", "KEY", chatPath, `{}`, nil, 401, "invalid_request_error", "", "invalid_api_key"},
		{"no JSON", "POST", chatPath, `{"messages":`, nil, 400, "invalid_request_error", "", "bad_request"},
		{"another content type", "TEXT", completionsPath, `{}`, nil, 415, "invalid_request_error", "", "unsupported_media_type"},
		{"too long", "POST", completionsPath, `{"prompt":"` + strings.Repeat("a", 3000) + `"}`, nil, 413, "invalid_request_error", "", "payload_too_large"},
		{"a field is missing", "POST", completionsPath, `{}`, nil, 422, "invalid_request_error", "", "validation"},
		{"a field of the wrong type", "POST", chatPath, `{"messages":[{"role":1}]}`, nil, 422, "invalid_request_error", "messages[0].role", "validation"},
		{"a value out of range", "POST", chatPath, chatBody(`"temperature":-1`), nil, 422, "invalid_request_error", "temperature", "validation"},
		{"another model", "POST", chatPath, chatBody(`"model":"gpt-4o"`), nil, 422, "invalid_request_error", "model", "model_not_found"},
		{"a long prompt", "POST", completionsPath, `{"prompt":"a","max_tokens":5000}`, nil, 422, "invalid_request_error", "prompt", "context_length_exceeded"},
		{"an unsupported field", "POST", completionsPath, `{"prompt":"a","use_beam_search":true}`, nil, 422, "invalid_request_error", "use_beam_search", "unsupported_parameter"},
		{"a grammar that is none", "POST", completionsPath, `{"prompt":"a","guided_regex":"("}`, nil, 422, "invalid_request_error", "guided_regex", "validation"},
		{"a batch", "POST", completionsPath, `{"prompt":["a","a","a","a","a"]}`, nil, 422, "invalid_request_error", "prompt", "batch size exceeded"},
		{"a tool", "POST", chatPath, chatBody(weather, `"tool_choice":"nope"`), nil, 422, "invalid_request_error", "", "tool_error"},
		{"a failure", "POST", chatPath, chatBody(), fails(engine.Failed), 424, "server_error", "", "generation"},
		{"overload", "POST", chatPath, chatBody(), fails(engine.Overloaded), 429, "rate_limit_error", "", "rate_limit_exceeded"},
		{"a bug", "POST", chatPath, chatBody(), &fake{refuse: errors.New("a bug")}, 500, "server_error", "", "internal"},
		{"the end", "POST", chatPath, chatBody(), fails(engine.Stopping), 503, "server_error", "", "unavailable"},
		{"too late", "POST", chatPath, chatBody(), fails(engine.Expired), 504, "server_error", "", "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.gen == nil {
				tt.gen = &fake{}
			}
			for _, object := range []bool{false, true} {
				s := newTestServer(tt.gen, func(o *Options) {
					o.ErrorObject, o.PayloadLimit = object, 2000
					if tt.method == "KEY" {
						o.APIKey = "k"
					}
				})
				s.SetReady(Model{Generator: tt.gen, Tokenizer: testTokenizer(), Template: loadTemplate(t, plainTemplate), Compiler: testCompiler})
				method, headers := tt.method, []string(nil)
				if method == "TEXT" {
					headers = append(headers, "Content-Type: text/plain")
				}
				if method == "TEXT" || method == "KEY" {
					method = "POST"
				}
				got := ask(t, s, method, tt.path, tt.body, headers...)
				if got.status != tt.status {
					t.Fatalf("%d %s, want %d", got.status, got.body, tt.status)
				}
				if !object {
					mustError(t, got)
					continue
				}
				if e := mustErrorObject(t, got); e.Type != tt.kind || *e.Param != tt.param || e.Code != tt.code {
					t.Errorf("%s\nwant type %q, param %q, code %q", got.body, tt.kind, tt.param, tt.code)
				}
			}
		})
	}
	s := New(Options{ModelID: "MODEL", ErrorObject: true})
	mustErrorObject(t, post(t, s, chatPath, chatBody())) // loading
	for _, path := range []string{"/generate", "/invocations", "/v1", "/tokenize"} {
		mustError(t, post(t, s, path, `{}`)) // other routes keep the contract's
	}
	// After the first token it is an event, of one choice or of all.
	late := func(_ *engine.Request, out *engine.StreamWriter) {
		out.Emit(engine.Token{ID: 276})
		out.End(engine.NotFinished, &engine.Error{Kind: engine.Failed, Msg: "device lost"})
	}
	const event = `data: {"error":{"message":"Request failed during generation: device lost","type":"server_error","param":null,"code":"generation"}}` + "\n\n"
	for _, n := range []string{`"n":1`, `"n":2`} {
		for _, b := range []struct{ path, body string }{{chatPath, chatBody(`"stream":true`, n)}, {completionsPath, `{"prompt":"x","stream":true,` + n + `}`}} {
			got := post(t, newChatServer(t, plainTemplate, &fake{script: late}, func(o *Options) { o.ErrorObject = true }), b.path, b.body)
			if got.status != 200 || !strings.HasSuffix(got.body, event+done) {
				t.Errorf("%s: %d %s", b.body, got.status, got.body)
			}
		}
	}
}
