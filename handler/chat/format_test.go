package chat

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// formatTools are tools with arguments of all kinds.
var formatTools = []Tool{
	{Name: "get_weather", Parameters: []byte(`{"type": "object", "properties": {
		"city": {"type": "string"},
		"days": {"type": "integer", "minimum": 1, "maximum": 14},
		"unit": {"enum": ["c", "f"]},
		"exact": {"type": "boolean"},
		"note": {"type": ["string", "null"]},
		"at": {"type": "array", "items": {"type": "number"}},
		"where": {"type": "object", "properties": {"x": {"type": "number"}, "name": {"type": "string"}, "ok": {"type": ["boolean", "null"]}}, "required": ["x"]}
	}, "required": ["city"]}`)},
	{Index: 1, Name: "now", Parameters: []byte(noParameters)},
	{Index: 2, Name: "say-it", Parameters: []byte(`{"$ref": "#/$defs/s", "$defs": {"s": {"properties": {"text": {"$ref": "#/$defs/t"}, "more": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/t"}, "minItems": 1}, {"type": "null"}]}}, "required": ["text"]}, "t": {"type": "string", "maxLength": 30}}}`)},
}

// formatCalls are answers of calls to them, allowed or not.
var formatCalls = []struct {
	name    string
	calls   []Call
	refused bool
}{
	{name: "one argument", calls: []Call{{Name: "get_weather", Arguments: `{"city": "Zürich"}`}}},
	{name: "no arguments", calls: []Call{{Name: "now", Arguments: `{}`}}},
	{name: "all types", calls: []Call{{Name: "get_weather", Arguments: `{"city": "Rom, 'a'", "days": 3, "unit": "f", "exact": true, "note": null, "at": [1, -2.5], "where": {"x": 1.5, "name": "b", "ok": null}}`}}},
	{name: "two", calls: []Call{{Name: "get_weather", Arguments: `{"city": "a b\nc  d"}`}, {Name: "now", Arguments: `{}`}}},
	{name: "three", calls: []Call{{Name: "now", Arguments: `{}`}, {Name: "say-it", Arguments: `{"text": "<b> & \"q\" \\ 😀", "more": ["x", "y"]}`}, {Name: "now", Arguments: `{}`}}},
	{name: "empty text", calls: []Call{{Name: "say-it", Arguments: `{"text": ""}`}}},
	{name: "missing argument", calls: []Call{{Name: "get_weather", Arguments: `{"days": 3}`}}, refused: true},
	{name: "wrong type", calls: []Call{{Name: "get_weather", Arguments: `{"city": "a", "days": "three"}`}}, refused: true},
	{name: "out of range", calls: []Call{{Name: "get_weather", Arguments: `{"city": "a", "days": 15}`}}, refused: true},
	{name: "not in the list", calls: []Call{{Name: "get_weather", Arguments: `{"city": "a", "unit": "k"}`}}, refused: true},
	{name: "wrong type inside", calls: []Call{{Name: "get_weather", Arguments: `{"city": "a", "where": {"x": "b"}}`}}, refused: true},
	{name: "too long", calls: []Call{{Name: "say-it", Arguments: `{"text": "0123456789012345678901234567891"}`}}, refused: true},
	{name: "unknown argument", calls: []Call{{Name: "now", Arguments: `{"x": 1}`}}, refused: true},
	{name: "unknown function", calls: []Call{{Name: "never", Arguments: `{}`}}, refused: true},
}

// writeCalls writes calls in a format, also where write leaves it to templates.
func writeCalls(t testing.TB, f *Format, calls []Call) string {
	t.Helper()
	switch f.Name {
	case "tgi":
		return callText(calls)
	case "harmony":
		return "<|channel|>commentary to=functions." + calls[0].Name + " <|constrain|>json<|message|>" + calls[0].Arguments
	}
	text, ok := f.write(calls)
	if !ok {
		t.Fatalf("%s does not write %v", f.Name, calls)
	}
	return text
}

// sameCalls reports whether got are calls of want.
func sameCalls(got, want []Call) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		var a, b any
		if json.Unmarshal([]byte(got[i].Arguments), &a) != nil || json.Unmarshal([]byte(want[i].Arguments), &b) != nil {
			return false
		}
		if got[i].Name != want[i].Name || !reflect.DeepEqual(a, b) {
			return false
		}
	}
	return true
}

// answerOfText parses a text in pieces of n bytes, or more where a character is longer.
func answerOfText(f *Format, s Selection, text string, n int) Answer {
	var a Answer
	p := NewParser(f, s, false, countingIDs())
	for text != "" {
		k := min(n, len(text))
		for k < len(text) && !utf8.RuneStart(text[k]) {
			k++
		}
		for _, d := range p.Write(text[:k]) {
			a.Add(d)
		}
		text = text[k:]
	}
	for _, d := range p.Close() {
		a.Add(d)
	}
	return a
}

// testedFormats are all formats, and those that response_templates describe.
func testedFormats(t *testing.T) []*Format {
	t.Helper()
	all := append([]*Format{formatTGI}, formats...)
	for name, text := range readResponseGolden(t).Templates {
		template, err := readResponseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		f := formatTGI.withTemplate(template)
		if _, ok := f.write([]Call{{Name: "f", Arguments: "{}"}}); ok != (name != "lines") {
			t.Errorf("response_template %s: its form is known: %v", name, ok)
		} else if ok {
			f.Name = "response_template " + name
			all = append(all, f)
		}
	}
	return all
}

// What a model writes in its format is what its grammar allows and what the
// Parser finds, however the text is cut and whatever stands before the calls.
func TestFormats(t *testing.T) {
	trie := byteTrie(t)
	for _, f := range testedFormats(t) {
		t.Run(f.Name, func(t *testing.T) {
			s := Selection{Tools: formatTools, Parallel: true}
			free, err := s.Constraint(f)
			if err != nil || len(free.Triggers) == 0 {
				t.Fatalf("%d triggers, %v", len(free.Triggers), err)
			}
			s.Required = true
			required, err := s.Constraint(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, tt := range formatCalls {
				if f.Name == "harmony" && len(tt.calls) > 1 { // a call ends the answer
					continue
				}
				text := writeCalls(t, f, tt.calls)
				if whole, allowed := matches(t, trie, required.Grammar, text); whole == tt.refused {
					t.Errorf("%s: %q: allowed %v (%q) by\n%s", tt.name, text, whole, allowed, required.Grammar.Text)
				}
				triggered := false
				for _, trigger := range free.Triggers {
					rest, ok := strings.CutPrefix(text, trigger.Text)
					if !ok || triggered {
						continue
					}
					triggered = true
					if whole, allowed := matches(t, trie, trigger.Grammar, rest); whole == tt.refused {
						t.Errorf("%s: after %q, %q: allowed %v (%q) by\n%s", tt.name, trigger.Text, rest, whole, allowed, trigger.Grammar.Text)
					}
				}
				if !triggered && tt.calls[0].Name != "never" {
					t.Errorf("%s: nothing in %q is a trigger", tt.name, text)
				}
				if tt.refused {
					continue
				}
				for _, before := range []string{"", "Let me see.\n"} {
					if before != "" && (f.Calls.AtStart || f.Calls.Marker == "" || f.Template != nil && f.Template.implicit == nil) {
						continue
					}
					whole := answerOfText(f, s, before+text, len(before+text))
					if !sameCalls(whole.Calls, tt.calls) || strings.TrimSpace(whole.Content) != strings.TrimSpace(before) {
						t.Errorf("%s: %q is %s", tt.name, before+text, whole)
					}
					for n := 1; n < 9; n++ {
						if a := answerOfText(f, s, before+text, n); !reflect.DeepEqual(a, whole) {
							t.Errorf("%s: %q in pieces of %d bytes is %s, whole %s", tt.name, before+text, n, a, whole)
						}
					}
				}
			}
		})
	}
}

// Cut anywhere, an answer that must be a call has no text, and arguments that
// are the beginning of its own.
func TestCutFormats(t *testing.T) {
	s := Selection{Tools: formatTools, Parallel: true, Required: true}
	for _, f := range append([]*Format{formatTGI}, formats...) {
		t.Run(f.Name, func(t *testing.T) {
			const arguments = `{"city": "Rom", "days": 3}`
			text := writeCalls(t, f, []Call{{Name: "get_weather", Arguments: arguments}})
			for n := 1; n < len(text); n++ {
				if !utf8.ValidString(text[:n]) {
					continue
				}
				p := NewParser(f, s, false, countingIDs())
				var a Answer
				for _, d := range append(p.Write(text[:n]), p.Close()...) {
					a.Add(d)
				}
				if a.Content != "" || len(a.Calls) > 1 {
					t.Errorf("%q is %s", text[:n], a)
				}
				for _, c := range a.Calls {
					_, begins := strings.CutPrefix(arguments, c.Arguments)
					if c.Name != "get_weather" || p.Cut() == json.Valid([]byte(c.Arguments)) || !begins {
						t.Errorf("%q is %s, cut: %v", text[:n], a, p.Cut())
					}
				}
			}
		})
	}
}

// Whatever a model writes, in any format, a stream of it is the whole, and
// nothing is lost of an answer without calls.
func FuzzFormats(f *testing.F) {
	var all []*Format
	for name, text := range readResponseGolden(f).Templates {
		template, err := readResponseTemplate(text)
		if err != nil {
			f.Fatal(name, err)
		}
		all = append(all, formatTGI.withTemplate(template))
	}
	slices.SortFunc(all, func(a, b *Format) int { return strings.Compare(fmt.Sprint(a.texts()), fmt.Sprint(b.texts())) })
	for _, format := range append(formats, formatTGI) {
		with := *format
		if !with.Reasoning.Channels {
			with.Reasoning = reasonings[0]
		}
		all = append(all, &with)
	}
	for i, format := range all {
		for _, tt := range formatCalls {
			if text, ok := format.write(tt.calls); ok {
				f.Add("<think>a</think>Well.\n"+text+" ok", uint8(i), uint8(i))
			}
		}
	}
	for _, row := range readResponseGolden(f).Rows {
		f.Add(row.Text, uint8(len(row.Text)), uint8(1))
	}
	f.Add("<|channel|>analysis<|message|>a<|end|><|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>", uint8(len(all)-2), uint8(1))
	f.Fuzz(func(t *testing.T, text string, which, cut uint8) {
		if !utf8.ValidString(text) || len(text) > 2000 {
			return
		}
		format := all[int(which)%len(all)]
		for _, s := range []Selection{{}, {Tools: formatTools}, {Tools: formatTools, Required: true}} {
			whole := answerOfText(format, s, text, max(1, len(text)))
			if a := answerOfText(format, s, text, 1+int(cut)%8); !reflect.DeepEqual(a, whole) {
				t.Errorf("%s: %q in pieces is %q, %s; whole %q, %s", format.Name, text, a.Reasoning, a, whole.Reasoning, whole)
			}
			plain := format.Template == nil && !format.Reasoning.Channels
			if plain && !s.Required && len(whole.Calls) == 0 && !strings.Contains(text, "<think>") && whole.Content != text {
				t.Errorf("%s: %q without a call is %s", format.Name, text, whole)
			}
			for _, c := range whole.Calls {
				if !slices.Contains([]string{"get_weather", "now", "say-it"}, c.Name) || c.Arguments != "" && c.Arguments[0] != '{' {
					t.Errorf("%s: %q calls %s(%s)", format.Name, text, c.Name, c.Arguments)
				}
			}
		}
	})
}

// The format of calls and reasoning is found in the template, whether it shows
// calls or only explains them.
func TestFormatOfTemplates(t *testing.T) {
	for template, want := range map[string]struct{ format, reasoning string }{
		"llama31": {"llama", ""}, "qwen3": {"hermes", "<think>"}, "mistral": {"mistral", ""}, "mistralargs": {"mistral-args", ""},
		"gemma2": {"tgi", ""}, "phi4mini": {"phi-4", ""}, "deepseek": {"deepseek-v3", "<think>"}, "commandr_tools": {"command-r", ""},
		"qwen3coder": {"qwen3-coder", ""}, "glm45": {"glm-4.5", "<think>"}, "deepseekv31": {"deepseek-v3.1", "<think>"},
		"kimik2": {"kimi-k2", ""}, "minimaxm2": {"minimax-m2", "<think>"}, "gptoss": {"harmony", "<|channel|>analysis<|message|>"},
		"gemma4": {"gemma4", "<|channel>thought\n"}, "granite33": {"granite", "<think>"}, "nemotronv2": {"nemotron", "<think>"},
		"lfm2": {"lfm2", ""}, "llama4": {"llama4", ""}, "seedoss": {"seed", "<seed:think>"}, "commandr7b": {"command-r7b", "<|START_THINKING|>"},
	} {
		f := loadFile(t, template).Format()
		if f.Name != want.format || f.Reasoning.Open != want.reasoning {
			t.Errorf("%s: %s, reasoning %q; want %s, %q", template, f.Name, f.Reasoning.Open, want.format, want.reasoning)
		}
	}
}
