package chat

import (
	"reflect"
	"strings"
	"testing"
)

// The reasoning at the beginning of an answer is split off, however the answer
// is cut into pieces.
func TestReasoning(t *testing.T) {
	f := &Format{Reasoning: Reasoning{Open: "<think>", Close: "</think>"}}
	for _, tt := range []struct {
		name, text      string
		thinking        bool
		reasoning, want string
	}{
		{name: "none", text: "Hello.", want: "Hello."},
		{name: "opened by the model", text: "<think>\nA b.\n</think>\n\nHello.\n", reasoning: "A b.", want: "Hello.\n"},
		{name: "opened by the prompt", text: "\nA b.\n</think>\n\nHello.", thinking: true, reasoning: "A b.", want: "Hello."},
		{name: "opened by both", text: "<think>\nA b.</think>Hello.", thinking: true, reasoning: "A b.", want: "Hello."},
		{name: "empty", text: "<think>\n\n</think>\n\nHello.", want: "Hello."},
		{name: "empty, opened by the prompt", text: "</think>Hello.", thinking: true, want: "Hello."},
		{name: "cut", text: "<think>A b. ", reasoning: "A b."},
		{name: "cut in its end", text: "<think>A b.\n</thi", reasoning: "A b.\n</thi"},
		{name: "paragraphs", text: "<think>A\n\n< b>\n\n\nc</think> <think>x", reasoning: "A\n\n< b>\n\n\nc", want: "<think>x"},
		{name: "not at the beginning", text: "See <think>A</think>", want: "See <think>A</think>"},
		{name: "nearly", text: "\n <thinker>", want: "\n <thinker>"},
		{name: "only white space", text: " \n", want: " \n"},
		{name: "nothing after it", text: "<think>é 😀</think>\n", reasoning: "é 😀"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, s := range []Selection{{}, {Tools: tools("f")}} {
				for n := 1; n <= max(1, len(tt.text)); n++ {
					var a Answer
					p := NewParser(f, s, tt.thinking, countingIDs())
					for rest := tt.text; rest != ""; {
						k := min(n, len(rest))
						for k < len(rest) && rest[k]&0xc0 == 0x80 {
							k++
						}
						for _, d := range p.Write(rest[:k]) {
							a.Add(d)
						}
						rest = rest[k:]
					}
					for _, d := range p.Close() {
						a.Add(d)
					}
					if a.Reasoning != tt.reasoning || a.Content != tt.want {
						t.Fatalf("in pieces of %d: %q and %q, want %q and %q", n, a.Reasoning, a.Content, tt.reasoning, tt.want)
					}
				}
			}
		})
	}
}

// Marks around the answer are not part of it.
func TestAnswerMarks(t *testing.T) {
	f := &Format{Reasoning: reasonings[0], Answer: answers[0], Calls: formatHermes.Calls}
	for text, want := range map[string]Answer{
		"<think>\nA\n</think>\n<answer>\nHello\n you.\n</answer>": {Reasoning: "A", Content: "Hello\n you."},
		"<answer>Hello</answ":      {Content: "Hello</answ"},
		"Hello <answer>x</answer>": {Content: "Hello <answer>x</answer>"},
		"<think>A</think>Hello\n":  {Reasoning: "A", Content: "Hello\n"},
		"\n<answ>":                 {Content: "\n<answ>"},
		"<answer>See:\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n</answer>": {Content: "See:\n", Calls: []Call{{ID: "call_0", Name: "now", Arguments: "{}"}}},
	} {
		for n := 1; n <= len(text); n++ {
			if a := answerOfText(f, Selection{Tools: formatTools}, text, n); !reflect.DeepEqual(a, want) {
				t.Fatalf("%q in pieces of %d is %q, %s; want %q, %s", text, n, a.Reasoning, a, want.Reasoning, want)
			}
		}
	}
}

// A template says whether the model reasons, and whether its prompt begins it.
func TestReasoningOfTemplates(t *testing.T) {
	hi := []Message{{Role: "user", Content: Content{Text: "<think>"}}}
	for _, tt := range []struct {
		name, template string
		request        Request
		want           bool // there is a mark
		thinking       bool
	}{
		{name: "none", template: "{{ messages[0].content }}"},
		{name: "the model's own", template: "{{ '</think>' in messages[0].content }}A:", want: true},
		{name: "the prompt's", template: "{% if '</think>' in messages[0].content %}{% endif %}A:<think>\n", want: true, thinking: true},
		{name: "switched off", template: "A:<think>\n\n</think>\n\n", want: true},
		{name: "a continued answer", template: "{% for m in messages %}{{ m.content }}{% endfor %}{{ '</think>'[:0] }}", want: true, thinking: true,
			request: Request{Messages: []Message{{Role: "assistant", Content: Content{Text: "<think>\nSo far"}}}}},
		{name: "a continued answer after it", template: "{% for m in messages %}{{ m.content }}{% endfor %}{{ '</think>'[:0] }}", want: true,
			request: Request{Messages: []Message{{Role: "assistant", Content: Content{Text: "<think>\nSo far</think>"}}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tmpl := load(t, tt.template)
			if tt.request.Messages == nil {
				tt.request.Messages = hi
			}
			p, err := tmpl.Render(tt.request)
			if err != nil {
				t.Fatal(err)
			}
			if r := tmpl.Format().Reasoning; r.Exists() != tt.want || p.Thinking != tt.thinking {
				t.Errorf("marks %+v, thinking %v after %q", r, p.Thinking, p.Text[max(0, strings.LastIndex(p.Text, "\n")):])
			}
		})
	}
}
