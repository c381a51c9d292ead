package handler

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine"
)

// Templates of models that reason: one opens the block itself, of the other the
// model does.
const (
	reasoningTemplate = plainTemplate + `{% if not enable_thinking | default(true) %}<think>

</think>

{% endif %}`
	harmonyTemplate = `{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content or '' }}{% for c in m.tool_calls or [] %}<|start|>assistant<|channel|>commentary to=functions.{{ c.function.name }} <|constrain|>json<|message|>{{ c.function.arguments | tojson }}<|call|>{% endfor %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}`
	openedTemplate  = plainTemplate + `{% if '</think>' %}<think>
{% endif %}`
)

// reasoned is what a client makes of an answer.
type reasoned struct {
	content, reasoning string
	calls              int
	finish             string
	tokens             int // of reasoning
}

// readReasoned reads an answer, whole or streamed, and checks that both names have
// the same text and every object the contract's members.
func readReasoned(t *testing.T, body string, stream bool) (r reasoned) {
	t.Helper()
	type part struct {
		Content   *string           `json:"content"`
		Old       string            `json:"reasoning_content"`
		New       string            `json:"reasoning"`
		ToolCalls []json.RawMessage `json:"tool_calls"`
	}
	objects := []string{body}
	if stream {
		objects = strings.Split(strings.TrimSuffix(body, done), "\n\n")
	}
	for _, object := range objects {
		var answer struct {
			Choices []struct {
				Message, Delta part
				Finish         *string `json:"finish_reason"`
			}
			Usage *struct {
				Details struct {
					Tokens int `json:"reasoning_tokens"`
				} `json:"completion_tokens_details"`
			}
		}
		if object = strings.TrimPrefix(object, "data: "); object == "" {
			continue
		}
		if err := json.Unmarshal([]byte(object), &answer); err != nil {
			t.Fatalf("%v in %s", err, object)
		}
		if answer.Usage != nil {
			r.tokens = answer.Usage.Details.Tokens
		}
		for _, c := range answer.Choices {
			p := c.Message
			if stream {
				p = c.Delta
			}
			if p.Old != p.New || p.Content == nil && len(p.ToolCalls) == 0 {
				t.Errorf("reasoning %q and %q, content %v in %s", p.Old, p.New, p.Content, object)
			}
			if p.Content != nil {
				r.content += *p.Content
			}
			r.reasoning += p.New
			if r.calls += len(p.ToolCalls); stream && len(p.ToolCalls) > 0 && !strings.Contains(object, `"name"`) {
				r.calls-- // more of the one before
			}
			if c.Finish != nil {
				r.finish = *c.Finish
			}
		}
	}
	return r
}

// TestReasoningAnswers pins how reasoning is shown, and that a stream adds up to
// the whole answer.
func TestReasoningAnswers(t *testing.T) {
	const call = `<tool_call>` + "\n" + `{"name": "weather", "arguments": {"city": "Rome"}}` + "\n" + `</tool_call>`
	inText := func(o *Options) { o.ReasoningInText = true }
	for _, tt := range []struct {
		name, template, text, fields string
		edit                         func(*Options)
		want                         reasoned // tokens: those of its reasoning
	}{
		{name: "of the model", text: "<think>\nhm, a\n</think>\n\nb c<|eot_id|>", want: reasoned{content: "b c", reasoning: "hm, a", finish: "stop"}},
		{name: "of the prompt", template: openedTemplate, text: "hm, a\n</think>\n\nb c<|eot_id|>", want: reasoned{content: "b c", reasoning: "hm, a", finish: "stop"}},
		{name: "none", text: "b c<|eot_id|>", want: reasoned{content: "b c", finish: "stop"}},
		{name: "cut by the limit", template: openedTemplate, text: "hm, a b c d e f g h", fields: `"max_tokens":4`, want: reasoned{reasoning: "hm, a", finish: "length"}},
		{name: "ended by the model", template: openedTemplate, text: "hm, a<|eot_id|>", want: reasoned{reasoning: "hm, a", finish: "stop"}},
		{name: "not shown", text: "<think>hm, a</think>b c<|eot_id|>", fields: `"include_reasoning":false`, want: reasoned{content: "b c", finish: "stop"}},
		{name: "not apart", text: "<think>hm, a</think>b c<|eot_id|>", fields: `"separate_reasoning":false`, want: reasoned{content: "<think>hm, a</think>b c", finish: "stop"}},
		{name: "in llama.cpp's words", text: "<think>hm, a</think>b c<|eot_id|>", fields: `"reasoning_format":"none"`, want: reasoned{content: "<think>hm, a</think>b c", finish: "stop"}},
		{name: "the operator's way", text: "<think>hm, a</think>b c<|eot_id|>", edit: inText, want: reasoned{content: "<think>hm, a</think>b c", finish: "stop"}},
		{name: "another way than the operator's", text: "<think>hm, a</think>b c<|eot_id|>", edit: inText, fields: `"reasoning_format":"auto"`, want: reasoned{content: "b c", reasoning: "hm, a", finish: "stop"}},
		{name: "before a call", template: hermesTemplate + `{% if '</think>' %}{% endif %}`, text: "<think>" + call + "</think>\n\n" + call + "<|eot_id|>", fields: weather,
			want: reasoned{reasoning: call, calls: 1, finish: "tool_calls"}},
		{name: "in channels", template: harmonyTemplate, text: "<|channel|>analysis<|message|>hm, a<|end|><|start|>assistant<|channel|>final<|message|>b c<|eot_id|>", want: reasoned{content: "b c", reasoning: "hm, a", finish: "stop"}},
		{name: "in channels, not apart", template: harmonyTemplate, text: "<|channel|>analysis<|message|>hm, a<|end|><|start|>assistant<|channel|>final<|message|>b c<|eot_id|>", fields: `"reasoning_format":"none"`,
			want: reasoned{content: "hm, ab c", finish: "stop"}},
		{name: "without the marks in the template", template: plainTemplate, text: "<think>hm</think>b<|eot_id|>", want: reasoned{content: "<think>hm</think>b", finish: "stop"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.template == "" {
				tt.template = reasoningTemplate
			}
			if tt.edit == nil {
				tt.edit = func(*Options) {}
			}
			s := newChatServer(t, tt.template, &fake{script: says(tt.text)}, tt.edit)
			fields := cmp.Or(tt.fields, `"n":1`)
			whole := readReasoned(t, post(t, s, chatPath, chatBody(fields)).body, false)
			streamed := readReasoned(t, post(t, s, chatPath, chatBody(fields, `"stream":true,"stream_options":{"include_usage":true}`)).body, true)
			if streamed != whole {
				t.Errorf("streamed %+v, whole %+v", streamed, whole)
			}
			counts := strings.HasPrefix(tt.text, "<") && !strings.Contains(whole.content, "think") || tt.template == openedTemplate
			if (whole.tokens > 0) != counts {
				t.Errorf("%d tokens of reasoning", whole.tokens)
			}
			if whole.tokens = 0; whole != tt.want {
				t.Errorf("got %+v, want %+v", whole, tt.want)
			}
		})
	}
}

// TestReasoningRequests pins what the engine is asked for: where an answer's
// grammar begins, and which tokens end reasoning that has used up its budget.
func TestReasoningRequests(t *testing.T) {
	budget := int32(7)
	usual := func(o *Options) { o.ReasoningBudget, o.ReasoningBudgetMessage = &budget, "\nenough\n" }
	const form = `"response_format":{"type":"json_object"}`
	for _, tt := range []struct {
		template, fields string
		edit             func(*Options)
		want             string // opened, budget and ending; "" for no reasoning
	}{
		{template: reasoningTemplate},
		{template: plainTemplate, fields: `"thinking_token_budget":5`},
		{template: plainTemplate, fields: form, edit: usual},
		{template: reasoningTemplate, fields: `"thinking_token_budget":5`, want: "false 5 </think>"},
		{template: reasoningTemplate, fields: `"thinking_budget_tokens":0`, want: "false 0 </think>"},
		{template: reasoningTemplate, fields: `"thinking_token_budget":-1`},
		{template: reasoningTemplate, fields: `"thinking_token_budget":null,` + form, want: "false -1 </think>"},
		{template: openedTemplate, fields: `"reasoning_budget_tokens":5,"reasoning_budget_message":"so:"`, want: "true 5 so:</think>"},
		{template: openedTemplate, edit: usual, want: "true 7 \nenough\n</think>"},
		{template: openedTemplate, edit: usual, fields: `"thinking_token_budget":-1`},
		{template: reasoningTemplate, edit: usual, fields: `"chat_template_kwargs":{"enable_thinking":false},` + form},
		{template: reasoningTemplate, edit: usual, fields: `"reasoning_effort":"none"`},
		{template: harmonyTemplate, edit: usual, want: "false 7 \nenough\n<|end|>"},
		{template: harmonyTemplate, fields: form, want: "false -1 <|end|><|start|>assistant<|channel|>final<|message|>"},
		{template: openedTemplate, fields: weather + `,"tool_choice":"required"`, want: "true -1 </think>"},
	} {
		t.Run(tt.fields, func(t *testing.T) {
			gen := &fake{script: says("<|eot_id|>")}
			if tt.edit == nil {
				tt.edit = func(*Options) {}
			}
			s := newChatServer(t, tt.template, gen, tt.edit)
			if got := post(t, s, chatPath, chatBody(cmp.Or(tt.fields, `"n":1`))); got.status != 200 {
				t.Fatal(got.body)
			}
			got, g := "", gen.request().Constraint
			if g != nil && g.Reasoning != nil {
				r := g.Reasoning
				got = fmt.Sprintf("%v %d %s", r.Opened, r.Budget, testTokenizer().Decode(r.Ending, false))
				marks := r.Open + r.Close
				if marks != "<think></think>" && marks != "<|channel|>analysis<|message|><|end|>" || testTokenizer().Decode(r.OpenTokens, false) != r.Open || g.NewDetokenizer == nil {
					t.Errorf("%+v", r)
				}
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	s := newChatServer(t, reasoningTemplate, &fake{})
	for fields, want := range map[string]string{
		`"thinking_token_budget":-2`:                                     "a budget of reasoning must be >= 0, or -1 for none. Given: -2",
		`"reasoning_budget_message":"` + strings.Repeat("a", 1025) + `"`: "`reasoning_budget_message` must have at most 1024 bytes. Given: 1025",
		`"reasoning_format":"deepseek-legacy"`:                           "`reasoning_format` is not supported, except for none, auto or deepseek",
		`"chat_template_kwargs":{"messages":[]}`:                         "`chat_template_kwargs` cannot set `messages`",
		`"chat_template_kwargs":{"enable_thinking":true,"tools":[]}`:     "`chat_template_kwargs` cannot set `tools`",
	} {
		if msg, _ := mustError(t, post(t, s, chatPath, chatBody(fields))); msg != "Input validation error: "+want {
			t.Errorf("%s: %s", fields, msg)
		}
	}
}

// TestHiddenReasoning pins that a stream whose reasoning is not shown is silent
// until the answer, and counts all the same.
func TestHiddenReasoning(t *testing.T) {
	s := newChatServer(t, openedTemplate, &fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		tokens, _ := spell("hm, a</think>b<|eot_id|>", 100)
		out.End(engine.FinishEOS, nil, tokens...)
	}})
	got := post(t, s, chatPath, chatBody(`"stream":true,"include_reasoning":false,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`))
	if r := readReasoned(t, got.body, true); r.reasoning != "" || r.content != "b" || r.tokens == 0 || strings.Contains(got.body, "hm") {
		t.Errorf("%+v in %s", r, got.body)
	}
}

// FuzzReasoning checks that a stream adds up to the whole answer, wherever the
// marks, the limit and a stop string are.
func FuzzReasoning(f *testing.F) {
	f.Add("<think>hm, a</think>b c<|eot_id|>", "", uint8(40), false)
	f.Add("hm, a</think>b c<|eot_id|>", "c", uint8(40), true)
	f.Add("\n<think>\n\n</think></think>b<think>", "</", uint8(9), false)
	f.Add("hm </thin é😀</think> \n b", "\n", uint8(7), true)
	f.Fuzz(func(t *testing.T, text, stop string, limit uint8, opened bool) {
		if !utf8.ValidString(text) || !utf8.ValidString(stop) {
			return
		}
		template := reasoningTemplate
		if opened {
			template = openedTemplate
		}
		s := newChatServer(t, template, &fake{script: says(text)})
		body := chatBody(`"stop":`+string(appendString(nil, stop)), fmt.Sprintf(`"max_tokens":%d`, limit%60+1))
		whole := post(t, s, chatPath, body)
		streamed := post(t, s, chatPath, `{"stream":true,"stream_options":{"include_usage":true},`+body[1:])
		if whole.status != 200 || streamed.status != 200 {
			t.Fatalf("%s: %d %s, %d %s", body, whole.status, whole.body, streamed.status, streamed.body)
		}
		if want, got := readReasoned(t, whole.body, false), readReasoned(t, streamed.body, true); got != want {
			t.Errorf("%q: streamed %+v, whole %+v", text, got, want)
		}
	})
}
