// Package contract holds the server to its OpenAPI document.
package contract

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/handler/chat"
)

// serve runs a Server over the engine with the simulated backend, after edit.
func serve(t *testing.T, edit ...func(*handler.Options, *handler.Model)) (url string) {
	t.Helper()
	tok, err := token.Load("../../engine/token/testdata/llama3")
	if err != nil {
		t.Fatal(err)
	}
	limits := device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 8, MaxPagesPerSlot: 32}
	eos, _ := tok.EOS()
	compiler := sync.OnceValues(func() (*grammar.Compiler, error) { return grammar.NewCompiler(tok, tok.VocabSize(), []int32{eos}) })
	simulated := sim.Model{Vocab: tok.VocabSize(), EOS: eos, EOSRate: 0.01}
	e, err := engine.New(engine.Config{
		Backend: sim.New(limits, sim.Config{Model: simulated}).Checked(),
		Device:  limits, Plan: simulated.Plan(), Pages: 64, EOS: []int32{eos}, Compiler: func() (engine.Compiler, error) { return compiler() },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- e.Run(ctx) }()
	template, err := chat.Load(fstest.MapFS{"tokenizer_config.json": {Data: []byte(`{"chat_template":` +
		`"{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"}`)}}, chat.Override{})
	if err != nil {
		t.Fatal(err)
	}
	options := handler.Options{ModelID: "sim", Logger: slog.New(slog.DiscardHandler)}
	model := handler.Model{Generator: e, Tokenizer: tok, Template: template, Compiler: compiler}
	for _, change := range edit {
		change(&options, &model)
	}
	s := handler.New(options)
	if model.Generator != nil {
		s.SetReady(model)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(func() {
		srv.Close()
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	return srv.URL
}

// document returns the document that a server serves, after edit.
func document(t *testing.T, url string, edit func(text string) string) *contract {
	t.Helper()
	resp, err := http.Get(url + "/api-doc/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, []byte(edit(string(text))))
}

// A conversation with everything that a message may have.
const messages = `"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a"}],"name":"u"},` +
	`{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},` +
	`{"role":"tool","content":"r","tool_call_id":"1"}]`

const tools = `"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{}}}},` +
	`{"type":"function","function":{"name":"g","arguments":{"type":"object"}}}]`

// response is an answer, read to its end.
type response struct {
	status      int
	contentType string
	body        []byte
}

// do sends a request whose body, if it has one, is JSON.
func do(t *testing.T, method, url, body string) response {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return read(t, func() (*http.Response, error) { return http.DefaultClient.Do(req) })
}

func read(t *testing.T, send func() (*http.Response, error)) response {
	t.Helper()
	resp, err := send()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp.StatusCode, resp.Header.Get("Content-Type"), body}
}

// TestContract validates real requests and answers against the document that
// the server serves.
func TestContract(t *testing.T) {
	url := serve(t)
	v := document(t, url, func(text string) string { return text })
	for _, tt := range []struct{ method, path, body string }{
		{"POST", "/generate", `{"inputs":"x","parameters":{"details":true,"decoder_input_details":true,"top_n_tokens":2}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"do_sample":true,"seed":3,"details":true,"stop":["b"]}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"stop":"b","temperature":0.5,"top_k":3,"top_p":0.5,"typical_p":0.9,"max_new_tokens":2}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"best_of":2,"do_sample":true,"details":true,"top_n_tokens":1,"max_new_tokens":3,"watermark":true}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"best_of":2,"do_sample":true,"decoder_input_details":true,"max_new_tokens":2}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"grammar":{"type":"json","value":{"properties":{"a":{"type":"integer"}}}}}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"grammar":{"type":"json_schema","value":{"name":"n","schema":{"type":"object"}}}}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"grammar":{"type":"regex","value":"a+"},"adapter_id":"nope"}}`},
		{"POST", "/", `{"inputs":"x"}`},
		{"POST", "/invocations", `{"inputs":"x","parameters":{"details":true}}`},
		{"POST", "/generate", `{"inputs":""}`},
		{"POST", "/tokenize", `{"inputs":"é x"}`},
		{"POST", "/v1/chat/completions", `{` + messages + `}`},
		{"POST", "/v1/chat/completions", `{` + messages + `,"max_tokens":3,"n":2,"logprobs":true,"top_logprobs":2,"stop":"b","seed":1,"temperature":0.5,"top_p":1}`},
		{"POST", "/v1/chat/completions", `{` + messages + `,"max_completion_tokens":2,"logit_bias":{"7":-100},"stop":["b"],"presence_penalty":1,"frequency_penalty":1,"user":"u"}`},
		{"POST", "/v1/chat/completions", `{` + messages + `,"max_tokens":2,` + tools + `,"tool_choice":"auto","parallel_tool_calls":false,"tool_prompt":"p"}`},
		{"POST", "/v1/chat/completions", `{` + messages + `,"max_tokens":2,"logit_bias":[1],"chat_template_kwargs":{"x":1},"guideline":"g"}`},
		{"POST", "/v1/chat/completions", `{"messages":[],"max_tokens":0}`},
		{"POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}]}`},
		{"POST", "/v1/completions", `{"prompt":"x"}`},
		{"POST", "/v1/completions", `{"prompt":["x","y"],"max_tokens":3,"n":2,"logprobs":2,"echo":false,"stop":"b","seed":1,"temperature":0.5,"top_p":1}`},
		{"POST", "/v1/completions", `{"prompt":[1,2],"max_tokens":3,"logprobs":0,"echo":true,"repetition_penalty":1.1,"frequency_penalty":1,"presence_penalty":1}`},
		{"POST", "/v1/completions", `{"prompt":[[1],[2]],"max_tokens":3,"best_of":2,"logit_bias":{"7":-100},"stop":["b"]}`},
		{"POST", "/v1/completions", `{"prompt":""}`},
		{"POST", "/invocations", `{"prompt":"x","max_tokens":2}`},
		{"POST", "/invocations", `{` + messages + `,"max_tokens":2}`},
		{"POST", "/invocations", `{` + messages + `,"max_tokens":2,"inputs":"x","prompt":"x"}`},
		{"POST", "/chat_tokenize", `{` + messages + `}`},
		{"POST", "/vertex", `{"instances":[{"inputs":"a","parameters":{"max_new_tokens":2}},{` + messages + `,"max_tokens":2}]}`},
		{"POST", "/vertex", `{"instances":[]}`},
		{"POST", "/v1/chat/completions", `{` + messages + `,"max_tokens":2,"prompt_logprobs":2,"logprobs":true,"top_logprobs":20,"top_k":-1,"typical_p":0.9,"repetition_penalty":1.1,"cache_salt":"s","seed":-1,"skip_special_tokens":false}`},
		{"POST", "/v1/chat/completions", `{` + messages + `,"max_tokens":2,"reasoning_effort":"low","add_generation_prompt":true,"continue_final_message":false,"add_special_tokens":false,"truncate_prompt_tokens":5,"documents":[]}`},
		{"POST", "/v1/chat/completions", `{` + messages + `,"max_tokens":2,"guided_json":{"type":"object"},"guided_choice":["a"]}`},
		{"POST", "/v1/completions", `{"prompt":"x","max_tokens":2,"prompt_logprobs":1,"structured_outputs":{},"include_stop_str_in_output":true,"spaces_between_special_tokens":true}`},
		{"POST", "/v1/completions", `{"prompt":"x","max_tokens":2,"guided_regex":"a","use_beam_search":false,"top_k":5}`},
		{"POST", "/v1/completions", `{"prompt":"x","use_beam_search":true,"grammar":{"type":"regex","value":"a"}}`},
		{"POST", "/v1/completions", `{"prompt":[1,2],"max_tokens":1,"logprobs":1,"echo":true}`},
		{"POST", "/v1/completions", `{"prompt":[[1,2],[3,4,5]],"max_tokens":0,"logprobs":2,"echo":true}`},
		{"POST", "/v1/completions", `{"prompt":"x","max_tokens":5,"min_p":0.1,"min_tokens":3,"ignore_eos":true,"stop_token_ids":[7],"allowed_token_ids":[5,6,7,8],"bad_words":["b"]}`},
		{"POST", "/v1/chat/completions", `{` + messages + `,"max_tokens":5,"min_p":0.1,"min_tokens":3,"ignore_eos":true,"stop_token_ids":[7],"allowed_token_ids":[5,6,7,8],"bad_words":["b"]}`},
		{"POST", "/v1/chat/completions", `{` + messages + `,"max_tokens":0,"prompt_logprobs":20}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"max_new_tokens":5,"min_p":0.1,"min_new_tokens":3,"ignore_eos_token":true,"stop_token_ids":[7],"allowed_token_ids":[5,6,7,8],"bad_words":["b"],"details":true}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"stop_sequences":["b"],"presence_penalty":1,"include_stop_str_in_output":true,"max_new_tokens":2}}`},
		{"GET", "/info", ""},
		{"GET", "/health", ""},
		{"GET", "/ping", ""},
		{"GET", "/v1/models", ""},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			resp := do(t, tt.method, url+tt.path, tt.body)
			if err := v.request(tt.method, tt.path, "application/json", []byte(tt.body)); err != nil {
				t.Errorf("request %s: %v", tt.body, err)
			}
			if err := v.answer(tt.method, tt.path, resp.status, resp.contentType, resp.body); err != nil {
				t.Errorf("answer to %s: %v", tt.body, err)
			}
		})
	}
}

// TestStreamContract validates the events of streams.
func TestStreamContract(t *testing.T) {
	url := serve(t)
	// An event is validated as an answer in JSON.
	v := document(t, url, func(text string) string {
		text = strings.ReplaceAll(text, "#/components/schemas/ChatCompletion\"", "#/components/schemas/ChatCompletionChunk\"")
		text = strings.ReplaceAll(text, "#/components/schemas/CompletionFinal\"", "#/components/schemas/Chunk\"")
		return strings.ReplaceAll(text, "#/components/schemas/GenerateResponse\"", "#/components/schemas/StreamResponse\"")
	})
	for _, tt := range []struct{ path, body string }{
		{"/v1/chat/completions", messages + `,"max_tokens":3,"temperature":0`},
		{"/v1/chat/completions", messages + `,"max_tokens":3,"temperature":0,"n":2,"logprobs":true,"top_logprobs":1`},
		{"/v1/chat/completions", messages + `,"max_tokens":3,"temperature":0,"stream_options":{"include_usage":true},` + tools},
		{"/v1/chat/completions", messages + `,"max_tokens":3,"temperature":0,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`},
		{"/v1/completions", `"prompt":"x","max_tokens":3,"min_tokens":3,"stream_options":{"continuous_usage_stats":true}`},
		{"/v1/completions", `"prompt":["x","y"],"max_tokens":3`},
		{"/v1/completions", `"prompt":"x","max_tokens":3,"n":2,"logprobs":2,"stream_options":{"include_usage":true}`},
		{"/generate", `"inputs":"x","parameters":{"max_new_tokens":3,"details":true,"top_n_tokens":2}`},
	} {
		body, path := `{"stream":true,`+tt.body+`}`, tt.path
		if path == "/generate" {
			path = "/generate_stream"
		}
		resp, err := http.Post(url+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		events := strings.Split(strings.TrimSuffix(string(text), "\n\n"), "\n\n")
		if path != "/generate_stream" {
			last := len(events) - 1
			if events[last] != "data: [DONE]" {
				t.Errorf("%s: no end: %s", tt.body, text)
			}
			events = events[:last]
		}
		if err != nil || len(events) < 3 {
			t.Fatalf("%s: %s, %v", tt.body, text, err)
		}
		for _, event := range events {
			if err := v.answer("POST", tt.path, http.StatusOK, "application/json", []byte(strings.TrimPrefix(event, "data: "))); err != nil {
				t.Errorf("%s: %v", event, err)
			}
		}
	}
}

// refusing is a Generator whose requests all fail.
type refusing struct {
	handler.Generator
	err error
}

func (r refusing) Submit(context.Context, *engine.Request) (*engine.Stream, error) { return nil, r.err }
func (r refusing) SubmitN(context.Context, *engine.Request, []uint64) ([]*engine.Stream, error) {
	return nil, r.err
}

// TestErrorContract validates an answer of each documented error status, on
// every route that documents it.
func TestErrorContract(t *testing.T) {
	fails := func(err error) func(*handler.Options, *handler.Model) {
		return func(_ *handler.Options, m *handler.Model) { m.Generator = refusing{m.Generator, err} }
	}
	const body = `{"inputs":"x","messages":[],"prompt":"x","instances":[{"inputs":"x"}],"parameters":{"max_new_tokens":1},"max_tokens":1}`
	same := func(text string) string { return text }
	v := document(t, serve(t), same)
	objects := document(t, serve(t, func(o *handler.Options, _ *handler.Model) { o.ErrorObject = true }), same)
	for _, tt := range []struct {
		status            int
		contentType, body string
		edit              func(*handler.Options, *handler.Model)
	}{
		{400, "application/json", `{`, nil},
		{401, "application/json", body, func(o *handler.Options, _ *handler.Model) { o.APIKey = "key" }},
		{413, "application/json", body, func(o *handler.Options, _ *handler.Model) { o.PayloadLimit = 10 }},
		{415, "text/plain", body, nil},
		{422, "application/json", `{}`, nil},
		{424, "application/json", body, fails(&engine.Error{Kind: engine.Failed, Msg: "device lost"})},
		{429, "application/json", body, fails(&engine.Error{Kind: engine.Overloaded})},
		{500, "application/json", body, fails(errors.New("a bug"))},
		{503, "application/json", body, func(_ *handler.Options, m *handler.Model) { m.Generator = nil }},
	} {
		change := tt.edit
		if change == nil {
			change = func(*handler.Options, *handler.Model) {}
		}
		url := serve(t, change)
		object := serve(t, change, func(o *handler.Options, _ *handler.Model) { o.ErrorObject = true })
		for _, path := range []string{"/v1/chat/completions", "/v1/completions"} {
			resp := read(t, func() (*http.Response, error) {
				return http.Post(object+path, tt.contentType, strings.NewReader(tt.body))
			})
			if err := objects.answer("POST", path, resp.status, resp.contentType, resp.body); err != nil {
				t.Errorf("%s: %d: %v", path, tt.status, err)
			}
		}
		for _, path := range []string{"/", "/generate", "/generate_stream", "/invocations", "/v1/chat/completions", "/v1/completions", "/vertex", "/tokenize", "/chat_tokenize"} {
			if strings.HasSuffix(path, "tokenize") && (tt.status == 424 || tt.status == 429 || tt.status == 500) {
				continue // they generate nothing
			}
			resp := read(t, func() (*http.Response, error) { return http.Post(url+path, tt.contentType, strings.NewReader(tt.body)) })
			if resp.status != tt.status {
				t.Errorf("%s: %d, want %d", path, resp.status, tt.status)
			} else if err := v.answer("POST", path, resp.status, resp.contentType, resp.body); err != nil {
				t.Errorf("%s: %d: %v", path, tt.status, err)
			}
		}
	}
}

// TestUnchangedContract validates answers against TGI's own document, where
// we have not departed from it.
func TestUnchangedContract(t *testing.T) {
	text, err := os.ReadFile("../openapi/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	v, url := parse(t, text), serve(t, func(o *handler.Options, _ *handler.Model) { o.ToolCallObject = true })
	for _, tt := range []struct{ method, path, body string }{
		{"POST", "/generate", `{"inputs":"x","parameters":{"details":true,"decoder_input_details":true,"top_n_tokens":2,"max_new_tokens":3}}`},
		{"POST", "/generate", `{"inputs":"x","parameters":{"best_of":2,"do_sample":true,"details":true,"max_new_tokens":3}}`},
		{"POST", "/generate", `{"inputs":""}`},
		{"POST", "/tokenize", `{"inputs":"x"}`},
		{"POST", "/v1/completions", `{"prompt":["x","y"],"max_tokens":3}`},
		{"POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"a"}],"max_tokens":3,"logprobs":true,"top_logprobs":2}`},
		{"POST", "/invocations", `{"messages":[{"role":"user","content":"a"}],"max_tokens":3}`},
		{"POST", "/invocations", `{"prompt":["x"],"max_tokens":3}`},
		{"GET", "/info", ""},
		{"GET", "/health", ""},
	} {
		resp := do(t, tt.method, url+tt.path, tt.body)
		if err := v.answer(tt.method, tt.path, resp.status, resp.contentType, resp.body); err != nil {
			t.Errorf("%s %s: %v", tt.path, tt.body, err)
		}
	}
}
