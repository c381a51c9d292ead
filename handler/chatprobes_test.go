package handler

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// namesOfTGI are not what clients of OpenAI's routes send.
var namesOfTGI = regexp.MustCompile("\\binputs\\b|max_new_tokens|top_n_tokens|truncate`")

// TestChatProbes holds answers of TGI's own router to the same chats, or what
// the row of COMPAT.md in parentheses says instead; want "" is a 200.
func TestChatProbes(t *testing.T) {
	const (
		shape  = "Failed to deserialize the JSON body into the target type: "
		valid  = "Input validation error: "
		noTool = `"tools":[]`
		aTool  = `"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]`
		schema = `"response_format":{"type":"json_object","value":{"properties":{}}}`
		image  = `{"type":"image_url","image_url":{"url":"http://x/y.png"}}`
	)
	content := func(c string) string {
		return `{"messages":[{"role":"user","content":` + c + `}],"max_tokens":2}`
	}
	for _, tt := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"no messages", `{"messages":[],"max_tokens":2}`, 200, ""},
		{"content null (content null)", content(`null`), 200, ""},
		{"content absent", `{"messages":[{"role":"user"}],"max_tokens":2}`, 422, shape + "messages[0]: missing field `content` at line 1 column 28"},
		{"no chunks", content(`[]`), 200, ""},
		{"chunks", content(`[{"type":"text","text":"a"},{"type":"text","text":"b"}]`), 200, ""},
		{"an image (images)", content(`[{"type":"text","text":"a"},` + image + `]`), 422, valid + "messages[0].content[1] is an image, and the model MODEL reads no images"},
		{"an image's URL alone (images)", content(`[{"type":"image_url","image_url":"http://x"}]`), 422, valid + "messages[0].content[0] is an image, and the model MODEL reads no images"},
		{"calls and results", `{"messages":[{"role":"assistant","content":"a","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"r","tool_call_id":"1"}],"max_tokens":2}`, 200, ""},
		{"messages a string", `{"messages":"hi"}`, 422, shape + "messages: invalid type: string \"hi\", expected a sequence at line 1 column 16"},
		{"messages null", `{"messages":null}`, 422, shape + "messages: invalid type: null, expected a sequence at line 1 column 16"},
		{"messages absent", `{}`, 422, shape + "missing field `messages` at line 1 column 2"},
		{"top_p 1 (upper ends)", chatBody(`"top_p":1.0`), 200, ""},
		{"top_p 0 (greedy chat)", chatBody(`"top_p":0,"max_tokens":2`), 200, ""},
		{"top_p -1", chatBody(`"top_p":-1`), 422, valid + "`top_p` must be > 0.0 and < 1.0"},
		{"top_p is looked at though greedy", chatBody(`"top_p":2,"temperature":0`), 422, valid + "`top_p` must be > 0.0 and < 1.0"},
		{"temperature 0", chatBody(`"temperature":0,"max_tokens":2`), 200, ""},
		{"temperature -1", chatBody(`"temperature":-1`), 422, valid + "`temperature` must be strictly positive"},
		{"presence_penalty -2 (presence penalty)", chatBody(`"presence_penalty":-2,"max_tokens":2`), 200, ""},
		{"a model that is not here (model names)", chatBody(`"model":"gpt-4o"`), 422, valid + "there is no model \"gpt-4o\": this server serves \"MODEL\" (\"tgi\" is an alias)"},
		{"presence_penalty 2.1 (presence penalty)", chatBody(`"presence_penalty":2.1`), 422, valid + "`presence_penalty` must be >= -2.0 and <= 2.0"},
		{"frequency_penalty 2.1", chatBody(`"frequency_penalty":2.1`), 422, valid + "`frequency_penalty` must be >= -2.0 and <= 2.0"},
		{"max_completion_tokens (default max_tokens)", chatBody(`"max_completion_tokens":2`), 200, ""},
		{"logit_bias a map (logit bias)", chatBody(`"logit_bias":{"1":1},"max_tokens":1`), 200, ""},
		{"logit_bias a list", chatBody(`"logit_bias":[0.5,1],"max_tokens":1`), 200, ""},
		{"logit_bias a list of strings", chatBody(`"logit_bias":["x"]`), 422, shape + "logit_bias[0]: invalid type: string \"x\", expected f32 at line 1 column 61"},
		{"logit_bias of a word (logit bias)", chatBody(`"logit_bias":{"x":1}`), 422, shape + "logit_bias.x: invalid token id `x`, expected a whole number at line 1 column 62"},
		{"logit_bias of no token (logit bias)", chatBody(`"logit_bias":{"1000":1}`), 422, valid + "`logit_bias` must name tokens below 1000. Given: 1000"},
		{"logit_bias 101 (logit bias)", chatBody(`"logit_bias":{"7":101}`), 422, valid + "`logit_bias` must be >= -100 and <= 100. Given: 101 for token 7"},
		{"logit_bias twice (logit bias)", chatBody(`"logit_bias":{"7":1,"07":2}`), 422, valid + "`logit_bias` names token 7 twice"},
		{"top_logprobs 20 (top_logprobs)", chatBody(`"top_logprobs":20,"logprobs":true,"max_tokens":2`), 200, ""},
		{"top_logprobs 21 (top_logprobs)", chatBody(`"top_logprobs":21,"logprobs":true`), 422, valid + "`top_logprobs` must be >= 0 and <= 20. Given: 21"},
		{"stream_options empty (usage chunk)", chatBody(`"stream":true,"stream_options":{},"max_tokens":1`), 200, ""},
		{"no tools (no tools)", chatBody(noTool, `"max_tokens":2`), 200, ""},
		{"no tools, none of them", chatBody(noTool, `"tool_choice":"none","max_tokens":2`), 200, ""},
		{"a choice without tools", chatBody(`"tool_choice":"required","max_tokens":2`), 200, ""},
		{"no tools and a schema", chatBody(noTool, schema), 422, "Tool error: Grammar and tools are mutually exclusive"},
		{"an unknown tool", chatBody(aTool, `"tool_choice":{"type":"function","function":{"name":"g"}}`), 422, "Tool error: Tool with name g not found"},
		{"a tool without parameters (tool forms)", chatBody(`"tools":[{"type":"function","function":{"name":"f"}}],"max_tokens":2`), 200, ""},
		{"response_format text (response formats)", chatBody(`"response_format":{"type":"text"},"max_tokens":2`), 200, ""},
		{"response_format xml", chatBody(`"response_format":{"type":"xml"}`), 422, shape + "response_format.type: unknown variant `xml`, expected one of `json`, `json_object`, `json_schema`, `regex`, `text` at line 1 column 75"},
		{"the newer name of the limit", chatBody(`"max_completion_tokens":4096`), 422, valid + "`messages` tokens + `max_completion_tokens` must be <= 4096. Given: 20 `messages` tokens and 4096 `max_completion_tokens`"},
		{"max_tokens 0", chatBody(`"max_tokens":0`), 422, valid + "`max_tokens` must be strictly positive"},
		{"max_tokens 0, stream (true status)", chatBody(`"max_tokens":0,"stream":true`), 422, valid + "`max_tokens` must be strictly positive"},
		{"max_tokens too large", chatBody(`"max_tokens":4096`), 422, valid + "`messages` tokens + `max_tokens` must be <= 4096. Given: 20 `messages` tokens and 4096 `max_tokens`"},
		{"a long conversation", content(`"` + strings.Repeat(" a", 4050) + `"`), 422, valid + "`messages` must have less than 4000 tokens. Given: 4069"},
		{"five stop strings", chatBody(`"stop":["a","b","c","d","e"]`), 422, valid + "`stop` supports up to 4 stop sequences. Given: 5"},
		{"n 0 (n)", chatBody(`"n":0`), 422, valid + "`n` must be > 0 and <= 128. Given: 0"},
		{"n 129 (n)", chatBody(`"n":129`), 422, valid + "`n` must be > 0 and <= 128. Given: 129"},
		{"n a string", chatBody(`"n":"2"`), 422, shape + "n: invalid type: string \"2\", expected u32 at line 1 column 51"},
		{"variables no object", chatBody(`"chat_template_kwargs":[1]`), 422, shape + "chat_template_kwargs: invalid type: sequence, expected a map of variables at line 1 column 67"},
		{"a field twice", chatBody(`"n":1,"n":1`), 422, shape + "duplicate field `n` at line 1 column 53"},
		{"not JSON", `{"messages":[{"role":"user","content":"a"}`, 400, "Failed to parse the request body as JSON: messages: EOF while parsing a list at line 1 column 42"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newChatServer(t, plainTemplate, &fake{})
			got := post(t, s, "/v1/chat/completions", tt.body)
			if tt.want == "" {
				if got.status != tt.status {
					t.Errorf("got %d %.200s, want %d", got.status, got.body, tt.status)
				}
				return
			}
			if msg, _ := mustError(t, got); got.status != tt.status || msg != tt.want || namesOfTGI.MatchString(msg) {
				t.Errorf("%.100s\n got %d %s\nwant %d %s", tt.body, got.status, msg, tt.status, tt.want)
			}
			if n := s.permits.Load(); n != 0 {
				t.Errorf("%d permits are lost", n)
			}
		})
	}
}

// TestChatTemplateErrors pins what a client hears of its model's template.
func TestChatTemplateErrors(t *testing.T) {
	for _, tt := range []struct{ name, template, body, want, kind string }{
		{"raised", `{{ raise_exception("roles must alternate") }}`, chatBody(), "Template error: roles must alternate", "template_error"},
		{"guideline missing", `{{ guideline }}{{ messages[0].content }}`, chatBody(), "Missing template vatiable: guideline", "missing_template_variable"},
		{"nothing rendered", `{{ '' }}`, chatBody(), "Input validation error: `messages` cannot be empty", "validation"},
		{"the last message is left out (continue)", `{{ messages[0].content }}`, `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`,
			"Template error: the template leaves out the last message, which is the assistant's and would be continued", "template_error"},
	} {
		for _, stream := range []string{"", `"stream":true,`} {
			t.Run(tt.name+" "+stream, func(t *testing.T) {
				s := newChatServer(t, tt.template, &fake{})
				got := post(t, s, "/v1/chat/completions", "{"+stream+tt.body[1:])
				if msg, kind := mustError(t, got); got.status != 422 || msg != tt.want || kind != tt.kind {
					t.Errorf("got %d %s", got.status, got.body)
				}
			})
		}
	}
	got := post(t, newTestServer(&fake{}), "/v1/chat/completions", chatBody())
	if msg, kind := mustError(t, got); got.status != 422 || msg != "Template error: template not found" || kind != "template_error" {
		t.Errorf("no template: %d %s", got.status, got.body)
	}
}

// FuzzChat checks that no body ends in anything but an answer or an error that
// is the client's.
func FuzzChat(f *testing.F) {
	for _, body := range []string{
		chatBody(), chatBody(`"stream":true,"n":2,"stop":"a"`), chatBody(weather, `"tool_choice":"weather","logprobs":true,"top_logprobs":2`),
		chatBody(`"response_format":{"type":"json_schema","json_schema":{"schema":{}}}`, `"logit_bias":{"1":2}`, `"chat_template_kwargs":{"x":[1]}`),
		`{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":{}}}]},{"role":"tool","content":[{"type":"text","text":"a"}]}]}`,
		chatBody(`"top_k":-1,"min_p":0.5,"min_tokens":1,"ignore_eos":true,"stop_token_ids":[7],"bad_words":["a b"],"allowed_token_ids":[1,2],"skip_special_tokens":false,"include_stop_str_in_output":true,"stop":"a"`),
		chatBody(`"prompt_logprobs":2,"max_tokens":0,"truncate_prompt_tokens":3,"add_special_tokens":true,"seed":-7,"cache_salt":"s"`),
		chatBody(`"documents":[{"a":1}],"reasoning_effort":"low","chat_template_kwargs":{"a":{}},"add_generation_prompt":false,"use_beam_search":true`),
		chatBody(`"guided_choice":["a","("],"structured_outputs":{"json":{},"regex":"a"},"grammar":{"type":"json","value":"{}"}`), chatBody(`"continue_final_message":true,"functions":[]`),
		chatBody(`"thinking_token_budget":3,"reasoning_budget_message":"so","include_reasoning":false,"reasoning_format":"auto","stream":true`),
		chatBody(`"thinking_budget_tokens":0,"separate_reasoning":false,"reasoning_effort":"none","repetition_detection":{"max_pattern_size":3,"min_count":2}`, weather, `"tool_choice":"required"`),
		chatBody(`"reasoning_budget_tokens":-2,"repetition_detection":{"min_pattern_size":4}`), `{"messages":[{"role":"assistant","content":"<think>a","reasoning":"b"}],"thinking_token_budget":1}`,
		`{"instances":[{"inputs":"a"},{"messages":[]}]}`, `{"messages":[{"role":"\ud83d\ude00","content":"\u0000"}]}`, `{"messages":[`,
	} {
		f.Add([]byte(body))
	}
	s := newChatServer(f, hermesTemplate+`{% if '</think>' %}{% endif %}`, &fake{script: says(`<think>a</think><tool_call>{"name":"weather","arguments":{}}`)}, func(o *Options) { o.DefaultMaxTokens = 30 })
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 {
			return
		}
		for _, path := range []string{chatPath, "/chat_tokenize", "/vertex"} {
			switch got := post(t, s, path, string(body)); got.status {
			case 400, 422:
				mustError(t, got)
			case 200:
				if got.header.Get("Content-Type") == "application/json" && !json.Valid([]byte(got.body)) {
					t.Errorf("%s %q: %s", path, body, got.body)
				}
			default:
				t.Errorf("%s %q: %d %s", path, body, got.status, got.body)
			}
		}
		if n := s.permits.Load(); n != 0 {
			t.Errorf("%q: %d permits are lost", body, n)
		}
	})
}

// Where the client is told the platform's name of the model and the server is not,
// any name means the model.
func TestAnyModel(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.AnyModel = true })
	got := post(t, s, "/v1/completions", `{"prompt":"a","model":"my-endpoint","max_tokens":1}`)
	if got.status != 200 || !strings.Contains(got.body, `"model":"MODEL"`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := post(t, s, "/generate", `{"inputs":"a","parameters":{"adapter_id":"my-endpoint"}}`); got.status != 422 {
		t.Errorf("an adapter that is not there: %d %s", got.status, got.body)
	}
}
