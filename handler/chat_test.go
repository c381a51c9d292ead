package handler

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/handler/chat"
)

// Templates of the tests: one that knows nothing of tools, and one in the
// manner of Hermes.
const (
	plainTemplate = `{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`

	hermesTemplate = `{% for t in tools or [] %}{{ t | tojson }}
{% endfor %}{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`
	tagsTemplate = `{% for t in tools or [] %}{{ t | tojson }}
{% endfor %}{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>
<function={{ c.function.name }}>
{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>
{{ v }}
</parameter>
{% endfor %}</function>
</tool_call>{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`
)

// newChatServer returns a ready Server whose model has a chat template.
func newChatServer(t testing.TB, template string, gen *fake, edit ...func(*Options)) *Server {
	t.Helper()
	s := newTestServer(gen, edit...)
	s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Template: loadTemplate(t, template), Compiler: testCompiler})
	return s
}

func loadTemplate(t testing.TB, template string) *chat.Template {
	t.Helper()
	config, err := json.Marshal(map[string]string{"chat_template": template, "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"})
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := chat.Load(fstest.MapFS{"tokenizer_config.json": {Data: config}}, chat.Override{})
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// chatBody is the body of a chat with one message and more fields.
func chatBody(more ...string) string {
	return `{"messages":[{"role":"user","content":"a"}]` + strings.Join(append([]string{""}, more...), ",") + `}`
}

const weather = `"tools":[{"type":"function","function":{"name":"weather","description":"d","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}]`

var variable = []struct {
	form *regexp.Regexp
	text string
}{
	{regexp.MustCompile(`"(chatcmpl|cmpl)-[A-Z2-7]{26}"`), `"ID"`},
	{regexp.MustCompile(`"created":[0-9]{10}\b`), `"created":0`},
	{regexp.MustCompile(`"call_[0-9A-Za-z]{24}"`), `"CALL"`},
	{regexp.MustCompile(`,"model":"MODEL","system_fingerprint":"2.4.1-native"`), ``},
}

var usageForm = regexp.MustCompile(`"usage":\{"prompt_tokens":([0-9]+),"completion_tokens":([0-9]+),"total_tokens":([0-9]+),"prompt_tokens_details":\{"cached_tokens":[0-9]+\}(,"completion_tokens_details":\{"reasoning_tokens":[0-9]+\})?\}`)

// fixed replaces what differs from one answer to the next, and takes out what
// is always the same.
func fixed(body string) string {
	for _, v := range variable {
		body = v.form.ReplaceAllString(body, v.text)
	}
	return usageForm.ReplaceAllString(body, `"usage":{}`)
}

// entry is a token of logprobs.
func entry(token, bytes string) string {
	return `{"token":"` + token + `","logprob":-0.25,"bytes":[` + bytes + `],"top_logprobs":[]}`
}

// TestChatAnswers holds complete answers: TGI's members in TGI's order, with
// what COMPAT.md says of them.
func TestChatAnswers(t *testing.T) {
	whole := func(choices string) string {
		return `{"object":"chat.completion","id":"ID","created":0,"choices":[` + choices + `],"usage":{}}`
	}
	says1 := func(content, why string) string {
		return `{"index":0,"message":{"role":"assistant","content":"` + content + `"},"logprobs":null,"finish_reason":"` + why + `"}`
	}
	calls := func(content, calls, why string) string {
		return `{"index":0,"message":{"role":"assistant","content":` + content + `,"tool_calls":[` + calls + `]},"logprobs":null,"finish_reason":"` + why + `"}`
	}
	const call = `{"id":"CALL","type":"function","function":{"name":"weather","arguments":"{\"city\": \"Rome\"}"}}`
	const hermesCall = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>"
	for _, tt := range []struct {
		name, template, body, says, want string
		edit                             func(*Options)
	}{
		{name: "text", body: chatBody(), says: " b c<|eot_id|>", want: whole(says1(" b c", "stop"))},
		{name: "length", body: chatBody(`"max_tokens":1`), says: " b c", want: whole(says1(" b", "length"))},
		{name: "the newer name of the limit wins", body: chatBody(`"max_tokens":9,"max_completion_tokens":1`), says: " b c", want: whole(says1(" b", "length"))},
		{name: "default limit (default max_tokens)", body: chatBody(), says: " b c", want: whole(says1(" b", "length")), edit: func(o *Options) { o.DefaultMaxTokens = 1 }},
		{name: "an empty answer", body: chatBody(), says: "<|eot_id|>", want: whole(says1("", "stop"))},
		{name: "a stop string is left out", body: chatBody(`"stop":["c"]`), says: " b c d", want: whole(says1(" b ", "stop"))},
		{name: "a stop string inside a token", body: chatBody(`"stop":"el"`), says: "hello", want: whole(says1("h", "stop"))},
		{name: "what began a stop string is not lost", body: chatBody(`"stop":["bx"],"max_tokens":2`), says: " b", want: whole(says1(" b", "length"))},
		{name: "special tokens are not text", body: chatBody(), says: " b<|begin_of_text|> c<|eot_id|>", want: whole(says1(" b c", "stop"))},
		{name: "log-probabilities, with the end's", body: chatBody(`"logprobs":true`), says: "é<|eot_id|>",
			want: whole(`{"index":0,"message":{"role":"assistant","content":"é"},"logprobs":{"content":[` + entry("é", "195,169") + `,` + entry("<|eot_id|>", "60,124,101,111,116,95,105,100,124,62") + `]},"finish_reason":"stop"}`)},
		{name: "the bytes of a cut character", body: chatBody(`"logprobs":true,"max_tokens":1`), says: "😀",
			want: whole(`{"index":0,"message":{"role":"assistant","content":""},"logprobs":{"content":[` + entry("", "240,159") + `]},"finish_reason":"length"}`)},
		{name: "choices", body: chatBody(`"n":2,"max_tokens":1`), says: " b", want: whole(says1(" b", "length") + `,` + strings.Replace(says1(" b", "length"), ":0", ":1", 1))},
		{name: "a call", template: hermesTemplate, body: chatBody(weather), says: hermesCall + "<|eot_id|>", want: whole(calls("null", call, "tool_calls"))},
		{name: "content before a call", template: hermesTemplate, body: chatBody(weather), says: "hello " + hermesCall + "<|eot_id|>", want: whole(calls(`"hello "`, call, "tool_calls"))},
		{name: "two calls", template: hermesTemplate, body: chatBody(weather), says: hermesCall + "\n" + hermesCall + "<|eot_id|>", want: whole(calls("null", call+","+call, "tool_calls"))},
		{name: "a call in tags", template: tagsTemplate, body: chatBody(weather), says: "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call><|eot_id|>",
			want: whole(calls("null", call, "tool_calls"))},
		{name: "a call cut off keeps its arguments", template: hermesTemplate, body: chatBody(weather, `"max_tokens":38`), says: hermesCall,
			want: whole(calls("null", `{"id":"CALL","type":"function","function":{"name":"weather","arguments":"{\"city\": \"R"}}`, "length"))},
		{name: "a required call, cut off in its name", template: hermesTemplate, body: chatBody(weather, `"tool_choice":"required","max_tokens":20`), says: hermesCall,
			want: whole(calls("null", `{"id":"CALL","type":"function","function":{"name":"weather","arguments":""}}`, "length"))},
		{name: "a stop string inside a call", template: hermesTemplate, body: chatBody(weather, `"stop":["ci"]`), says: hermesCall + "<|eot_id|>",
			want: whole(calls("null", `{"id":"CALL","type":"function","function":{"name":"weather","arguments":"{\""}}`, "stop"))},
		{name: "an unknown tool is text", template: hermesTemplate, body: chatBody(weather), says: "<tool_call>x<|eot_id|>", want: whole(says1("<tool_call>x", "stop"))},
		{name: "tools hidden", template: hermesTemplate, body: chatBody(weather, `"tool_choice":"none"`), says: hermesCall + "<|eot_id|>",
			want: whole(says1(`<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>`, "stop"))},
		{name: "TGI's form of a call", template: hermesTemplate, body: chatBody(weather), says: hermesCall + "<|eot_id|>", edit: func(o *Options) { o.ToolCallObject = true },
			want: whole(calls("null", `{"id":"CALL","type":"function","function":{"description":null,"name":"weather","arguments":{"city": "Rome"}}}`, "tool_calls"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.template == "" {
				tt.template = plainTemplate
			}
			edit := func(o *Options) {
				if tt.edit != nil {
					tt.edit(o)
				}
			}
			got := post(t, newChatServer(t, tt.template, &fake{script: says(tt.says)}, edit), "/v1/chat/completions", tt.body)
			if got.status != 200 || fixed(got.body) != tt.want {
				t.Errorf("%s\n got %d %s\nwant 200 %s", tt.body, got.status, fixed(got.body), tt.want)
			}
		})
	}
}

// TestChatEvents holds complete streams.
func TestChatEvents(t *testing.T) {
	event := func(delta, why string) string {
		if why != "null" {
			why = `"` + why + `"`
		}
		return `data: {"object":"chat.completion.chunk","id":"ID","created":0,"choices":[{"index":0,"delta":{"role":"assistant",` + delta + `},"logprobs":null,"finish_reason":` + why + `}],"usage":null}` + "\n\n"
	}
	text := func(content, why string) string { return event(`"content":"`+content+`"`, why) }
	call := func(s string) string { return event(`"tool_calls":[`+s+`]`, "null") }
	arguments := func(pieces ...string) (events string) {
		for _, p := range pieces {
			events += call(`{"index":0,"function":{"arguments":"` + p + `"}}`)
		}
		return events
	}
	const hermesCall = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>"
	object := func(o *Options) { o.ToolCallObject = true }
	for _, tt := range []struct {
		name, template, body, says, want string
		edit                             func(*Options)
	}{
		{name: "text, the reason with the end token", body: chatBody(`"stream":true`), says: " b c<|eot_id|>",
			want: text(" b", "null") + text(" c", "null") + text("", "stop") + done},
		{name: "length, the reason with the last text", body: chatBody(`"stream":true,"max_tokens":2`), says: " b c",
			want: text(" b", "null") + text(" c", "length") + done},
		{name: "usage in a chunk of its own", body: chatBody(`"stream":true,"max_tokens":1,"stream_options":{"include_usage":true}`), says: " b",
			want: text(" b", "length") + `data: {"object":"chat.completion.chunk","id":"ID","created":0,"choices":[],"usage":{}}` + "\n\n" + done},
		{name: "no usage", body: chatBody(`"stream":true,"max_tokens":1,"stream_options":{}`), says: " b", want: text(" b", "length") + done},
		{name: "what may begin a stop string is held", body: chatBody(`"stream":true,"stop":["b c"]`), says: " b d b c e",
			want: text(" ", "null") + text("b d", "null") + text(" ", "null") + text("", "stop") + done},
		{name: "a character in pieces", body: chatBody(`"stream":true`), says: "😀<|eot_id|>",
			want: text("", "null") + text("", "null") + text("😀", "null") + text("", "stop") + done},
		{name: "a call", template: hermesTemplate, body: chatBody(weather, `"stream":true`), says: " b" + hermesCall + "<|eot_id|>",
			want: text(" b", "null") +
				call(`{"index":0,"id":"CALL","type":"function","function":{"name":"weather","arguments":""}}`) +
				arguments("{\\\"", "c", "i", "t", "y", "\\\":", " \\\"", "R", "o", "me", "\\\"", "}") +
				text("", "tool_calls") + done},
		{name: "TGI's form of a call", template: hermesTemplate, body: chatBody(weather, `"stream":true,"stop":["ci"]`), says: hermesCall, edit: object,
			want: event(`"tool_calls":{"index":0,"id":"CALL","type":"function","function":{"name":"weather","arguments":""}}`, "null") +
				event(`"tool_calls":{"index":0,"id":"CALL","type":"function","function":{"name":null,"arguments":"{\""}}`, "null") +
				text("", "stop") + done},
		{name: "a required call, cut off in its name", template: hermesTemplate, body: chatBody(weather, `"stream":true,"tool_choice":"required","max_tokens":20`), says: hermesCall,
			want: call(`{"index":0,"id":"CALL","type":"function","function":{"name":"weather","arguments":""}}`) + text("", "length") + done},
		{name: "log-probabilities wait for the text they belong to", template: hermesTemplate, body: chatBody(weather, `"stream":true,"logprobs":true`), says: "<t b<|eot_id|>",
			want: strings.Replace(text("<t b", "null"), `"logprobs":null`, `"logprobs":{"content":[`+entry("<", "60")+","+entry("t", "116")+","+entry(" b", "32,98")+`]}`, 1) +
				strings.Replace(text("", "stop"), `"logprobs":null`, `"logprobs":{"content":[`+entry("<|eot_id|>", "60,124,101,111,116,95,105,100,124,62")+`]}`, 1) + done},
		{name: "no call is text", template: hermesTemplate, body: chatBody(weather, `"stream":true`), says: "<tool_call> b<|eot_id|>",
			want: text("<tool_call> b", "null") + text("", "stop") + done},
		{name: "the beginning of a call is text", template: hermesTemplate, body: chatBody(weather, `"stream":true,"max_tokens":2`), says: "<tool_call>",
			want: text("<to", "null") + text("", "length") + done},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.template == "" {
				tt.template = plainTemplate
			}
			edit := func(*Options) {}
			if tt.edit != nil {
				edit = tt.edit
			}
			got := post(t, newChatServer(t, tt.template, &fake{script: says(tt.says)}, edit), "/v1/chat/completions", tt.body)
			if got.status != 200 || fixed(got.body) != tt.want {
				t.Errorf("%s\n got %d %s\nwant 200 %s", tt.body, got.status, fixed(got.body), tt.want)
			}
			if ct := got.header.Get("Content-Type"); ct != "text/event-stream" {
				t.Errorf("content type %q", ct)
			}
		})
	}
}

// TestChatFailures pins errors before and after the first event.
func TestChatFailures(t *testing.T) {
	broken := &engine.Error{Kind: engine.Failed, Msg: "device lost"}
	early := func(_ *engine.Request, out *engine.StreamWriter) { out.End(engine.NotFinished, broken) }
	late := func(_ *engine.Request, out *engine.StreamWriter) {
		out.Emit(engine.Token{ID: 276})
		out.End(engine.NotFinished, broken)
	}
	const message = "Request failed during generation: device lost"
	for _, body := range []string{chatBody(), chatBody(`"stream":true`), chatBody(`"n":2`), chatBody(`"stream":true,"n":3`)} {
		s := newChatServer(t, plainTemplate, &fake{script: early})
		got := post(t, s, "/v1/chat/completions", body)
		if msg, kind := mustError(t, got); got.status != 424 || msg != message || kind != "generation" {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
		if n := s.permits.Load(); n != 0 {
			t.Errorf("%s: %d permits are lost", body, n)
		}
	}
	const event = `data: {"error":{"message":"` + message + `","http_status_code":424,"type":"generation"}}` + "\n\n"
	for body, want := range map[string]int{chatBody(`"stream":true`): 1, chatBody(`"stream":true,"n":3`): 3} {
		got := post(t, newChatServer(t, plainTemplate, &fake{script: late}), "/v1/chat/completions", body)
		if got.status != 200 || strings.Count(got.body, event) != want || !strings.HasSuffix(got.body, event+done) {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
}

// TestChatUsage pins that a prompt counts once, and how long it is.
func TestChatUsage(t *testing.T) {
	gen := &fake{script: cached(2, says(" b c<|eot_id|>"))}
	s := newChatServer(t, plainTemplate, gen)
	for body, completion := range map[string]int{chatBody(): 3, chatBody(`"n":4`): 12, chatBody(`"stop":["b"]`): 1} {
		got := post(t, s, "/v1/chat/completions", body)
		prompt := len(gen.request().Tokens)
		want := fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":0}}}`, prompt, completion, prompt+completion)
		if !strings.HasSuffix(got.body, want) {
			t.Errorf("%s: %s, want %s", body, got.body, want)
		}
		for name, want := range map[string]int{"X-Prompt-Tokens": prompt, "X-Generated-Tokens": completion, "X-Compute-Characters": len(`<|begin_of_text|><|user|>a<|assistant|>`)} {
			if v := got.header.Get(name); v != fmt.Sprint(want) {
				t.Errorf("%s: %s: %s, want %d", body, name, v, want)
			}
		}
	}
}

// TestPrediction pins what becomes of OpenAI's prediction: drafts, where the engine takes
// some, and two counts in the usage.
func TestPrediction(t *testing.T) {
	gen := &fake{script: func(req *engine.Request, out *engine.StreamWriter) {
		out.Predicted(2, 1)
		says(" b c<|eot_id|>")(req, out)
	}}
	off := newChatServer(t, plainTemplate, gen)
	on := newChatServer(t, plainTemplate, gen, func(o *Options) { o.Speculate = true })
	want, err := testTokenizer().Encode(" b c d", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{`" b c d"`, `[{"type":"text","text":" b"},{"type":"text","text":" c d"}]`} {
		body := chatBody(`"n":2,"prediction":{"type":"content","content":` + content + `}`)
		got := post(t, on, "/v1/chat/completions", body)
		if got.status != 200 || !slices.Equal(gen.request().Prediction, want) ||
			!strings.Contains(got.body, `"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":4,"rejected_prediction_tokens":2}`) {
			t.Errorf("%s: %d %s, prediction %v", body, got.status, got.body, gen.request().Prediction)
		}
		if got := post(t, off, "/v1/chat/completions", body); got.status != 200 || gen.request().Prediction != nil {
			t.Errorf("%s without speculation: %d %s, prediction %v", body, got.status, got.body, gen.request().Prediction)
		}
	}
	for prediction, status := range map[string]int{
		`{"type":"content","content":""}`: 200, `{"type":"content"}`: 200, `{}`: 200, `null`: 200,
		`"b"`: 422, `{"type":"tokens","content":"b"}`: 422, `{"content":5}`: 422,
	} {
		got := post(t, on, "/v1/chat/completions", chatBody(`"prediction":`+prediction))
		if got.status != status || status == 200 && (gen.request().Prediction != nil || strings.Contains(got.body, "prediction")) {
			t.Errorf("%s: %d %s, want %d", prediction, got.status, got.body, status)
		}
	}
}

// TestUsageSoFar pins vLLM's continuous_usage_stats.
func TestUsageSoFar(t *testing.T) {
	for _, b := range routeBodies[:2] {
		gen := &fake{script: says(" b c<|eot_id|>")}
		got := post(t, newChatServer(t, plainTemplate, gen), b.path, fmt.Sprintf(b.body, `"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`))
		prompt := len(gen.request().Tokens)
		events := strings.Split(got.body, "\n\n")
		for i, completion := range []int{1, 2, 3, 3} {
			if want := fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,`, prompt, completion); i >= len(events) || !strings.Contains(events[i], want) {
				t.Errorf("%s: event %d of %s, want %s", b.path, i, got.body, want)
			}
		}
	}
}

// TestChatSeeds pins that the choices of a request draw differently, and the
// same again the next time.
func TestChatSeeds(t *testing.T) {
	var mu sync.Mutex
	seeds := map[uint64]int{}
	gen := &fake{script: func(req *engine.Request, out *engine.StreamWriter) {
		mu.Lock()
		seeds[req.Params.Seed]++
		mu.Unlock()
		says("<|eot_id|>")(req, out)
	}}
	s := newChatServer(t, plainTemplate, gen)
	for range 2 {
		post(t, s, chatPath, chatBody(`"n":3,"seed":7`))
	}
	if len(seeds) != 3 || seeds[7] != 2 {
		t.Errorf("seeds %v, want 7 and two others, each twice", seeds)
	}
	post(t, s, chatPath, chatBody())
	post(t, s, chatPath, chatBody())
	if len(seeds) != 5 {
		t.Errorf("seeds %v, want two more", seeds)
	}
}

// TestChatParameters pins what reaches the engine.
func TestChatParameters(t *testing.T) {
	gen := &fake{script: says("<|eot_id|>")}
	s := newChatServer(t, plainTemplate, gen)
	for _, tt := range []struct {
		name, fields string
		check        func(*engine.Request) bool
	}{
		{"draws unless told otherwise", ``, func(r *engine.Request) bool { return r.Params.Sample == 1 && r.Params.Temperature == 1 }},
		{"temperature 0 is greedy", `"temperature":0`, func(r *engine.Request) bool { return r.Params.Sample == 0 }},
		{"whatever top_p says", `"temperature":0,"top_p":0.5`, func(r *engine.Request) bool { return r.Params.Sample == 0 && r.Params.TopP == 1 }},
		{"temperature", `"temperature":0.5,"top_p":0.5`, func(r *engine.Request) bool {
			return r.Params.Sample == 1 && r.Params.Temperature == 0.5 && r.Params.TopP == 0.5
		}},
		{"seed", `"seed":7`, func(r *engine.Request) bool { return r.Params.Seed == 7 }},
		{"frequency_penalty", `"frequency_penalty":0.5`, func(r *engine.Request) bool {
			return r.Params.FrequencyPenalty == 0.5 && r.Params.RepetitionPenalty == 1
		}},
		{"presence_penalty (presence penalty)", `"presence_penalty":-1.5`, func(r *engine.Request) bool {
			return r.Params.PresencePenalty == -1.5 && r.Params.RepetitionPenalty == 1
		}},
		{"logit_bias (logit bias)", `"logit_bias":{"7":-100,"8":0.5}`, func(r *engine.Request) bool {
			return slices.Equal(r.LogitBias, []sample.Bias{{Token: 7, Bias: -100}, {Token: 8, Bias: 0.5}})
		}},
		{"what the prompt leaves", ``, func(r *engine.Request) bool { return r.MaxNewTokens == 4096-len(r.Tokens) }},
		{"max_tokens", `"max_tokens":5`, func(r *engine.Request) bool { return r.MaxNewTokens == 5 }},
		{"one special token before the text", ``, func(r *engine.Request) bool { return r.Tokens[0] == 640 && r.Tokens[1] != 640 }},
		{"top_logprobs", `"logprobs":true,"top_logprobs":3`, func(r *engine.Request) bool { return r.TopN == 3 }},
		{"nothing without logprobs", `"top_logprobs":3`, func(r *engine.Request) bool { return r.TopN == 0 }},
		{"nulls", `"temperature":null,"stop":null,"n":null,"tools":null,"stream":null,"response_format":null,"logit_bias":null,"max_tokens":null,"seed":null,"user":null,"tool_choice":null,"logprobs":null`,
			func(r *engine.Request) bool { return r.Params.Sample == 1 }},
		{"unknown fields", `"model":"dummy","user":"u","store":true,"x":{"y":[1]}`, func(r *engine.Request) bool { return r.Params.Sample == 1 }},
	} {
		var more []string
		if tt.fields != "" {
			more = append(more, tt.fields)
		}
		if got := post(t, s, "/v1/chat/completions", chatBody(more...)); got.status != 200 || !tt.check(gen.request()) {
			t.Errorf("%s: %d %s, %+v", tt.name, got.status, got.body, gen.request())
		}
	}
}

// TestChatPrompts pins what the model reads of a conversation.
func TestChatPrompts(t *testing.T) {
	for _, tt := range []struct{ name, template, body, want string }{
		{"nothing", plainTemplate, `{"messages":[]}`, `<|begin_of_text|><|assistant|>`},
		{"no chunks", plainTemplate, `{"messages":[{"role":"user","content":[]}]}`, `<|begin_of_text|><|user|><|assistant|>`},
		{"chunks are joined", plainTemplate, `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}`, `<|begin_of_text|><|user|>ab<|assistant|>`},
		{"the assistant's last message goes on (continue)", plainTemplate, `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"I am"}]}`, `<|begin_of_text|><|user|>a<|assistant|>I am`},
		{"calls and results", hermesTemplate, `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},{"role":"tool","content":"r","tool_call_id":"1"}]}`,
			"<|user|>a<|assistant|><tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call><|tool|>r<|assistant|>"},
		{"variables", `{{ x }}{{ messages[0].content }}`, `{"messages":[{"role":"user","content":"a"}],"chat_template_kwargs":{"x":"y"}}`, `ya`},
		{"a new turn behind the assistant's", plainTemplate, `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"I am"}],"continue_final_message":false}`, `<|begin_of_text|><|user|>a<|assistant|>I am<|assistant|>`},
		{"the assistant's last message goes on, as asked", plainTemplate, `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"I am"}],"continue_final_message":true,"add_generation_prompt":false}`, `<|begin_of_text|><|user|>a<|assistant|>I am`},
		{"no generation prompt", plainTemplate, `{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":false}`, `<|begin_of_text|><|user|>a`},
		{"developer, where templates do not know it", plainTemplate, `{"messages":[{"role":"developer","content":"a"}]}`, `<|begin_of_text|><|system|>a<|assistant|>`},
		{"developer, where they do", `{% for m in messages %}{% if m.role == 'developer' %}D{% endif %}{{ m.content }}{% endfor %}`, `{"messages":[{"role":"developer","content":"a"}]}`, `Da`},
		{"documents", `{% for d in documents or [] %}{{ d.text }},{% endfor %}{{ messages[0].content }}`, `{"messages":[{"role":"user","content":"a"}],"documents":[{"text":"x"},{"text":"y"}],"chat_template_kwargs":{"z":1}}`, `x,y,a`},
		{"no documents", `{% for d in documents or [] %}{{ d.text }},{% endfor %}{{ messages[0].content }}`, `{"messages":[{"role":"user","content":"a"}],"documents":[]}`, `a`},
		{"effort", `{{ reasoning_effort }}{{ enable_thinking }}{{ messages[0].content }}`, `{"messages":[{"role":"user","content":"a"}],"reasoning_effort":"low"}`, `lowTruea`},
		{"no effort", `{{ reasoning_effort }}{{ enable_thinking }}{{ messages[0].content }}`, `{"messages":[{"role":"user","content":"a"}],"reasoning_effort":"none","chat_template_kwargs":{ }}`, `noneFalsea`},
		{"effort, but no thinking", `{{ reasoning_effort }}{{ enable_thinking }}{{ messages[0].content }}`, `{"messages":[{"role":"user","content":"a"}],"reasoning_effort":"high","chat_template_kwargs":{"enable_thinking":false}}`, `highFalsea`},
		{"guideline", `{{ guideline }}{{ messages[0].content }}`, `{"messages":[{"role":"user","content":"a"}],"guideline":"g"}`, `ga`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gen := &fake{script: says("<|eot_id|>")}
			got := post(t, newChatServer(t, tt.template, gen), "/v1/chat/completions", tt.body)
			if got.status != 200 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			if text := testTokenizer().Decode(gen.request().Tokens, false); text != tt.want {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
}

func TestChatTokenize(t *testing.T) {
	s := newChatServer(t, `{{ bos_token }}{{ messages[0].content }}`, &fake{})
	got := post(t, s, "/chat_tokenize", `{"messages":[{"role":"user","content":"é<|eot_id|>x"}]}`)
	const want = `{"tokenize_response":[{"id":640,"text":"<|begin_of_text|>","start":0,"stop":17},{"id":337,"text":"é","start":17,"stop":18},{"id":642,"text":"<|eot_id|>","start":18,"stop":28},{"id":87,"text":"x","start":28,"stop":29}],"templated_text":"<|begin_of_text|>é<|eot_id|>x"}`
	if got.status != 200 || got.body != want {
		t.Errorf("got %d %s\nwant 200 %s", got.status, got.body, want)
	}
}

func TestVertex(t *testing.T) {
	for _, tt := range []struct {
		name, body, want string
		status           int
	}{
		{"prompt and chat", `{"instances":[{"inputs":"a","parameters":{"max_new_tokens":2,"temperature":null}},{"messages":[{"role":"user","content":"a"}],"max_tokens":1}]}`, `{"predictions":[" b c"," b"]}`, 200},
		{"both: a prompt", `{"instances":[{"messages":5,"inputs":"a","parameters":{"max_new_tokens":1}}]}`, `{"predictions":[" b"]}`, 200},
		{"to the end", `{"instances":[{"inputs":"a"}]}`, `{"predictions":[" b c d"]}`, 200},
		{"none", `{"instances":[]}`, `{"error":"Input validation error","error_type":"Input validation error"}`, 422},
		{"an empty one (vertex errors)", `{"instances":[{"inputs":""}]}`, `{"error":"Input validation error: ` + "`inputs`" + ` cannot be empty","error_type":"validation"}`, 422},
		{"nothing", `{}`, `{"error":"Failed to deserialize the JSON body into the target type: missing field ` + "`instances`" + ` at line 1 column 2","error_type":"validation"}`, 422},
		{"a wrong field", `{"instances":[{"inputs":"a"},{"inputs":1}]}`, `{"error":"Failed to deserialize the JSON body into the target type: instances[1].inputs: invalid type: integer ` + "`1`" + `, expected a string at line 1 column 40","error_type":"validation"}`, 422},
		{"no object", `{"instances":[1]}`, `{"error":"Failed to deserialize the JSON body into the target type: instances[0]: invalid type: integer ` + "`1`" + `, expected struct ChatRequest at line 1 column 15","error_type":"validation"}`, 422},
		{"not JSON", `{"instances":[{]}`, `{"error":"Failed to parse the request body as JSON: instances[0]: key must be a string at line 1 column 16","error_type":"bad_request"}`, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gen := &fake{script: says(" b c d<|eot_id|>")}
			s := newChatServer(t, plainTemplate, gen)
			got := post(t, s, "/vertex", tt.body)
			if got.status != tt.status || got.body != tt.want {
				t.Errorf("got %d %s\nwant %d %s", got.status, got.body, tt.status, tt.want)
			}
			if tt.status == 200 && gen.request().Params.Sample != 1 {
				t.Error("does not draw")
			}
			if n := s.permits.Load(); n != 0 {
				t.Errorf("%d permits are lost", n)
			}
		})
	}
}
