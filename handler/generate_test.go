package handler

import (
	"errors"
	"maps"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
)

var nan = float32(math.NaN())

// TestAnswers holds complete answers, as TGI writes them.
func TestAnswers(t *testing.T) {
	const event = `data: {"index":`
	id := func(text string) string {
		ids, _ := testTokenizer().Encode(text, false)
		if len(ids) != 1 {
			t.Fatalf("%q is %d tokens", text, len(ids))
		}
		return strconv.Itoa(int(ids[0]))
	}
	tk := func(text, special string) string {
		return `{"id":` + id(text) + `,"text":"` + text + `","logprob":-0.25,"special":` + special + `}`
	}
	for _, tt := range []struct {
		name, path, body, says, want string
	}{
		{"generate", "/generate", `{"inputs":"x"}`, " a b<|eot_id|>", `{"generated_text":" a b"}`},
		{"root answers an array with the prompt", "/", `{"inputs":"x"}`, " a b<|eot_id|>", `[{"generated_text":"x a b"}]`},
		{"root without the prompt", "/", `{"inputs":"x","parameters":{"return_full_text":false}}`, " a<|eot_id|>", `[{"generated_text":" a"}]`},
		{"invocations", "/invocations", `{"inputs":"x"}`, " a<|eot_id|>", `[{"generated_text":"x a"}]`},
		{"a body with messages too is generate", "/invocations", `{"inputs":"x","messages":[]}`, " a<|eot_id|>", `[{"generated_text":"x a"}]`},
		{"prompt wanted", "/generate", `{"inputs":"a\"b","parameters":{"return_full_text":true}}`, "\" a<|eot_id|>", `{"generated_text":"a\"b\" a"}`},
		{"stream is not a field of generate", "/generate", `{"inputs":"x","stream":true}`, " a<|eot_id|>", `{"generated_text":" a"}`},
		{"details", "/generate", `{"inputs":"x","parameters":{"details":true}}`, " a<|eot_id|>",
			`{"generated_text":" a","details":{"finish_reason":"eos_token","generated_tokens":2,"seed":null,"prefill":[],"tokens":[` + tk(" a", "false") + "," + tk("<|eot_id|>", "true") + `]}}`},
		{"length, seed echoed when sampling", "/generate", `{"inputs":"x","parameters":{"details":true,"max_new_tokens":1,"do_sample":true,"seed":18446744073709551615}}`, " a b",
			`{"generated_text":" a","details":{"finish_reason":"length","generated_tokens":1,"seed":18446744073709551615,"prefill":[],"tokens":[` + tk(" a", "false") + `]}}`},
		{"seed not echoed when greedy", "/generate", `{"inputs":"x","parameters":{"details":true,"max_new_tokens":1,"seed":7}}`, " a b",
			`{"generated_text":" a","details":{"finish_reason":"length","generated_tokens":1,"seed":null,"prefill":[],"tokens":[` + tk(" a", "false") + `]}}`},
		{"prefill, whose first has no log-probability", "/generate", `{"inputs":"x","parameters":{"decoder_input_details":true,"max_new_tokens":1}}`, " a",
			`{"generated_text":" a","details":{"finish_reason":"length","generated_tokens":1,"seed":null,"prefill":[{"id":` + id("<|begin_of_text|>") + `,"text":"<|begin_of_text|>","logprob":null},{"id":` + id("x") + `,"text":"x","logprob":-1.0}],"tokens":[` + tk(" a", "false") + `]}}`},
		{"a stop string keeps its place at the end", "/generate", `{"inputs":"x","parameters":{"details":true,"stop":["b"]}}`, " a b c",
			`{"generated_text":" a b","details":{"finish_reason":"stop_sequence","generated_tokens":2,"seed":null,"prefill":[],"tokens":[` + tk(" a", "false") + "," + tk(" b", "false") + `]}}`},
		{"a stop string inside a token cuts it", "/generate", `{"inputs":"x","parameters":{"stop":["el"]}}`, "hello", `{"generated_text":"hel"}`},
		{"a stop string across tokens", "/generate", `{"inputs":"x","parameters":{"stop":["lo w"]}}`, "hello world", `{"generated_text":"hello w"}`},
		{"an empty stop string is none (empty stop)", "/generate", `{"inputs":"x","parameters":{"stop":["",""]}}`, " a b", `{"generated_text":" a b"}`},
		{"the end token's text as a stop string is still the end", "/generate", `{"inputs":"x","parameters":{"details":true,"stop":["<|eot_id|>"]}}`, "<|eot_id|>",
			`{"generated_text":"","details":{"finish_reason":"eos_token","generated_tokens":1,"seed":null,"prefill":[],"tokens":[` + tk("<|eot_id|>", "true") + `]}}`},
		{"a special token as a stop string", "/generate", `{"inputs":"x","parameters":{"stop":["<|end_of_text|>"]}}`, " a<|end_of_text|> b", `{"generated_text":" a"}`},
		{"cut inside a character", "/generate", `{"inputs":"x","parameters":{"max_new_tokens":3}}`, "a 😀", `{"generated_text":"a "}`},
		{"stream", "/generate_stream", `{"inputs":"x","parameters":{"details":true}}`, " a<|eot_id|>",
			event + `1,"token":` + tk(" a", "false") + `,"generated_text":null,"details":null}` + "\n\n" +
				event + `2,"token":` + tk("<|eot_id|>", "true") + `,"generated_text":" a","details":{"finish_reason":"eos_token","generated_tokens":2,"seed":null,"input_length":2}}` + "\n\n"},
		{"stream without details", "/generate_stream", `{"inputs":"x","parameters":{"max_new_tokens":1}}`, " a",
			event + `1,"token":` + tk(" a", "false") + `,"generated_text":" a","details":null}` + "\n\n"},
		{"stream on root, prompt in the last event", "/", `{"inputs":"x","stream":true,"parameters":{"max_new_tokens":1}}`, " a",
			event + `1,"token":` + tk(" a", "false") + `,"generated_text":"x a","details":null}` + "\n\n"},
		{"stream stops inside a token", "/generate_stream", `{"inputs":"x","parameters":{"stop":["e"]}}`, "hello",
			event + `1,"token":{"id":` + id("he") + `,"text":"he","logprob":-0.25,"special":false},"generated_text":"he","details":null}` + "\n\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := post(t, newTestServer(&fake{script: says(tt.says)}), tt.path, tt.body)
			if got.status != 200 || got.body != tt.want {
				t.Errorf("%s %s\n got %d %s\nwant 200 %s", tt.path, tt.body, got.status, got.body, tt.want)
			}
		})
	}
}

// TestStreamOfCharacters pins one event per token, the character on the last.
func TestStreamOfCharacters(t *testing.T) {
	got := post(t, newTestServer(&fake{script: says("a 😀b<|eot_id|>")}), "/generate_stream", `{"inputs":"x"}`)
	var texts []string
	for _, m := range regexp.MustCompile(`"token":\{"id":\d+,"text":"([^"]*)"`).FindAllStringSubmatch(got.body, -1) {
		texts = append(texts, m[1])
	}
	if strings.Join(texts, "|") != "a|||| 😀|b|<|eot_id|>" && strings.Join(texts, "") != "a 😀b<|eot_id|>" {
		t.Errorf("pieces %q", texts)
	}
	if !strings.Contains(got.body, `"generated_text":"a 😀b"`) {
		t.Errorf("answer %s", got.body)
	}
}

func TestTopTokens(t *testing.T) {
	s := newTestServer(&fake{script: says(" a b")})
	got := post(t, s, "/generate", `{"inputs":"x","parameters":{"details":true,"max_new_tokens":2,"top_n_tokens":2}}`)
	want := regexp.MustCompile(`"top_tokens":\[\[\{"id":276,"text":" a","logprob":-0.25,"special":false\},\{"id":277,"text":"[^"]*","logprob":-1.25,"special":false\}\],\[\{[^\]]*\]\]\}\}$`)
	if !want.MatchString(got.body) {
		t.Errorf("answer %s", got.body)
	}
	got = post(t, s, "/generate_stream", `{"inputs":"x","parameters":{"max_new_tokens":2,"top_n_tokens":1}}`)
	if !strings.HasPrefix(got.body, `data: {"index":1,"token":{"id":276,"text":" a","logprob":-0.25,"special":false},"top_tokens":[{"id":276,"text":" a","logprob":-0.25,"special":false}],"generated_text":null,`) {
		t.Errorf("stream %s", got.body)
	}
}

func TestHeaders(t *testing.T) {
	integer, seconds := regexp.MustCompile(`^\d+$`), regexp.MustCompile(`^\d+(\.\d+)?$`)
	once := map[string]*regexp.Regexp{
		"X-Compute-Type": regexp.MustCompile(`^1-cpu$`), "X-Compute-Characters": regexp.MustCompile(`^4$`), "X-Compute-Time": seconds,
		"X-Total-Time": integer, "X-Validation-Time": integer, "X-Queue-Time": integer, "X-Inference-Time": integer, "X-Time-Per-Token": integer,
		"X-Prompt-Tokens": regexp.MustCompile(`^[3-9]$`), "X-Generated-Tokens": regexp.MustCompile(`^2$`), "Content-Type": regexp.MustCompile(`^application/json$`),
	}
	stream := map[string]*regexp.Regexp{
		"X-Compute-Type": once["X-Compute-Type"], "X-Compute-Characters": once["X-Compute-Characters"], "X-Accel-Buffering": regexp.MustCompile("^no$"),
		"Content-Type": regexp.MustCompile("^text/event-stream$"), "Cache-Control": regexp.MustCompile("^no-cache$"),
	}
	// The template puts 34 characters around the content.
	chat := func(of map[string]*regexp.Regexp) map[string]*regexp.Regexp {
		of = maps.Clone(of)
		of["X-Compute-Characters"] = regexp.MustCompile("^37$")
		if of["X-Prompt-Tokens"] != nil {
			of["X-Prompt-Tokens"] = regexp.MustCompile(`^\d\d$`)
		}
		return of
	}
	for _, tt := range []struct {
		name, path, body string
		want             map[string]*regexp.Regexp
	}{
		{"generate", "/generate", `{"inputs":"é 😀x","parameters":{"max_new_tokens":2}}`, once},
		{"root", "/", `{"inputs":"é 😀x","parameters":{"max_new_tokens":2}}`, once},
		{"invocations", "/invocations", `{"inputs":"é 😀x","parameters":{"max_new_tokens":2}}`, once},
		{"generate_stream", "/generate_stream", `{"inputs":"é 😀x","parameters":{"max_new_tokens":2}}`, stream},
		{"root stream", "/", `{"inputs":"é 😀x","stream":true,"parameters":{"max_new_tokens":2}}`, stream},
		{"completions (completion headers)", "/v1/completions", `{"prompt":"é 😀x","max_tokens":2}`, once},
		{"completions on invocations", "/invocations", `{"prompt":"é 😀x","max_tokens":2}`, once},
		{"completions stream", "/v1/completions", `{"prompt":"é 😀x","max_tokens":2,"stream":true}`, stream},
		{"chat", "/v1/chat/completions", `{"messages":[{"role":"","content":"é 😀"}],"max_tokens":2}`, chat(once)},
		{"chat stream", "/v1/chat/completions", `{"messages":[{"role":"","content":"é 😀"}],"max_tokens":2,"stream":true}`, chat(stream)},
		{"chat on invocations", "/invocations", `{"messages":[{"role":"","content":"é 😀"}],"max_tokens":2,"stream":true}`, chat(stream)},
		{"best_of, the best one's", "/generate", `{"inputs":"é 😀x","parameters":{"max_new_tokens":2,"best_of":2,"do_sample":true}}`, once},
		{"vertex", "/vertex", `{"instances":[{"inputs":"x","parameters":{"max_new_tokens":1}}]}`, map[string]*regexp.Regexp{"Content-Type": once["Content-Type"]}},
		{"chat_tokenize", "/chat_tokenize", `{"messages":[]}`, map[string]*regexp.Regexp{"Content-Type": once["Content-Type"]}},
		{"stream error before a token", "/generate_stream", `{"inputs":""}`, map[string]*regexp.Regexp{"Content-Type": once["Content-Type"]}},
		{"tokenize", "/tokenize", `{"inputs":"x"}`, map[string]*regexp.Regexp{"Content-Type": once["Content-Type"]}},
		{"error", "/generate", `{"inputs":""}`, map[string]*regexp.Regexp{"Content-Type": once["Content-Type"]}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := post(t, newChatServer(t, plainTemplate, &fake{}), tt.path, tt.body).header
			for name, want := range tt.want {
				if got := h.Get(name); !want.MatchString(got) {
					t.Errorf("%s is %q, want %s", name, got, want)
				}
			}
			if !requestID.MatchString(h.Get("X-Request-Id")) {
				t.Errorf("X-Request-Id is %q", h.Get("X-Request-Id"))
			}
			for name := range h {
				if _, ok := tt.want[name]; !ok && name != "X-Request-Id" && (strings.HasPrefix(name, "X-") || name == "Cache-Control") {
					t.Errorf("unexpected %s: %s", name, h.Get(name))
				}
			}
		})
	}
}

// requestID is one that the server makes.
var requestID = regexp.MustCompile(`^[a-z2-7]{20}$`)

// TestEngineErrors pins what each failure of the engine becomes.
func TestEngineErrors(t *testing.T) {
	fail := func(kind engine.Kind, after ...engine.Token) func(*engine.Request, *engine.StreamWriter) {
		return func(_ *engine.Request, out *engine.StreamWriter) {
			if len(after) > 0 {
				out.Emit(after...)
			}
			out.End(engine.NotFinished, &engine.Error{Kind: kind, Msg: "logits are NaN", Err: errors.New("secret")})
		}
	}
	word := engine.Token{ID: 276, Logprob: -1}
	const failed = "Request failed during generation: logits are NaN"
	for _, tt := range []struct {
		name      string
		gen       *fake
		status    int
		msg, kind string
		after     string // how a stream ends that had a token before, if it did
	}{
		{"refused, too many", &fake{refuse: &engine.Error{Kind: engine.Overloaded, Msg: "128 wait"}}, 429, "Model is overloaded", "overloaded", ""},
		{"refused, invalid", &fake{refuse: &engine.Error{Kind: engine.Invalid, Msg: "no"}}, 422, "Input validation error: no", "validation", ""},
		{"refused, stopping", &fake{refuse: &engine.Error{Kind: engine.Stopping, Msg: "bye"}}, 503, "The server is shutting down", "unavailable", ""},
		{"refused, unknown", &fake{refuse: errors.New("secret")}, 500, "Internal error", "internal", ""},
		{"failed at once", &fake{script: fail(engine.Failed)}, 424, failed, "generation", ""},
		{"failed after a token", &fake{script: fail(engine.Failed, word)}, 424, failed, "generation", failed},
		{"stopping after a token", &fake{script: fail(engine.Stopping, word)}, 503, "The server is shutting down", "unavailable", "The server is shutting down"},
		{"cancelled by the engine", &fake{script: fail(engine.Cancelled, word)}, 500, "Incomplete generation", "incomplete_generation", "Incomplete generation"},
		{"ended without a token", &fake{script: func(_ *engine.Request, out *engine.StreamWriter) { out.End(engine.FinishLength, nil) }}, 500, "Incomplete generation", "incomplete_generation", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTestServer(tt.gen)
			got := post(t, s, "/generate", `{"inputs":"x"}`)
			if msg, kind := mustError(t, got); got.status != tt.status || msg != tt.msg || kind != tt.kind {
				t.Errorf("once: %d %s, want %d %s %s", got.status, got.body, tt.status, tt.msg, tt.kind)
			}
			got = post(t, s, "/generate_stream", `{"inputs":"x"}`)
			if tt.after != "" {
				events := strings.Split(strings.TrimSuffix(got.body, "\n\n"), "\n\n")
				want := `data: {"error":"` + tt.after + `","error_type":"` + tt.kind + `"}`
				if got.status != 200 || events[len(events)-1] != want {
					t.Errorf("stream: %d %s, want the last event %s", got.status, got.body, want)
				}
				return
			}
			if msg, _ := mustError(t, got); got.status != tt.status || !strings.HasPrefix(msg, tt.msg) {
				t.Errorf("stream: %d %s, want %d %s", got.status, got.body, tt.status, tt.msg)
			}
			if strings.Contains(got.body, "secret") {
				t.Errorf("the cause reached the client: %s", got.body)
			}
			if n := s.permits.Load(); n != 0 {
				t.Errorf("%d permits are lost", n)
			}
		})
	}
}
