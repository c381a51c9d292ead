package chat

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// tools makes tools without parameters.
func tools(names ...string) (list []Tool) {
	for _, name := range names {
		list = append(list, Tool{Name: name, Parameters: []byte(noParameters)})
	}
	return list
}

// countingIDs makes ids that a test can know.
func countingIDs() func() string {
	n := -1
	return func() string {
		n++
		return fmt.Sprint("call_", n)
	}
}

// parse feeds the pieces to a Parser and checks the order of its deltas.
func parse(t testing.TB, tools []Tool, pieces ...string) Answer {
	t.Helper()
	p := NewParser(formatTGI, Selection{Tools: tools}, false, countingIDs())
	var a Answer
	begun := 0
	for i := 0; i <= len(pieces); i++ {
		deltas := p.Close
		if i < len(pieces) {
			deltas = func() []Delta { return p.Write(pieces[i]) }
		}
		for _, d := range deltas() {
			switch {
			case d.Call == nil && d.Content == "":
				t.Errorf("%q: an empty delta", pieces)
			case d.Call == nil:
			case d.Call.Name != "":
				if d.Call.Index != begun || d.Call.ID == "" || d.Call.Arguments != "" {
					t.Errorf("%q: call %d begins with %+v", pieces, begun, d.Call)
				}
				begun++
			case d.Call.Index != begun-1 || d.Call.Arguments == "" || d.Call.ID != "":
				t.Errorf("%q: call %d goes on with %+v", pieces, begun-1, d.Call)
			}
			a.Add(d)
		}
	}
	if begun != p.Calls() || begun != len(a.Calls) {
		t.Errorf("%q: %d calls began, Calls() = %d, the answer has %d", pieces, begun, p.Calls(), len(a.Calls))
	}
	return a
}

// String prints an answer: the content, then f(arguments) for each call.
func (a Answer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q", a.Content)
	for _, c := range a.Calls {
		fmt.Fprintf(&b, " %s(%s)", c.Name, c.Arguments)
	}
	return b.String()
}

// parserCases are answers of models that may call f, g and get_weather.
var parserCases = []struct{ name, text, want string }{
	{"empty", "", `""`},
	{"words", "Hello, world.", `"Hello, world."`},
	{"only white space", " \n ", `" \n "`},
	{"white space before words", "\n\n Hi", `"\n\n Hi"`},

	{"llama", `{"name": "f", "parameters": {"a": 1}}`, `"" f({"a": 1})`},
	{"llama, line before", "\n\n" + `{"name": "f", "parameters": {"a": 1}}`, `"" f({"a": 1})`},
	{"llama, python tag", `<|python_tag|>{"name": "f", "parameters": {}}`, `"" f({})`},
	{"llama, python tag behind words", `Well. <|python_tag|>{"name": "f", "parameters": {}}`, `"Well. " f({})`},
	{"llama, two calls", `{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {"b": [1, {}]}}`, `"" f({"a": 1}) g({"b": [1, {}]})`},
	{"llama, a line each", `{"name": "f", "parameters": {"a": 1}}` + "\n" + `{"name": "f", "parameters": {"a": 2}}` + "\n", `"" f({"a": 1}) f({"a": 2})`},
	{"llama, code for the interpreter", `<|python_tag|>print(1)`, `"<|python_tag|>print(1)"`},
	{"llama, words behind", `{"name": "f", "parameters": {}}` + "\n\nDone.", `"\n\nDone." f({})`},

	{"hermes", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\"}}\n</tool_call>", `"" get_weather({"city": "Zürich"})`},
	{"hermes, tight", `<tool_call>{"name":"f","arguments":{"a":"}\"{"}}</tool_call>`, `"" f({"a":"}\"{"})`},
	{"hermes, two", "Let me look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {\"x\": null}}\n</tool_call>", `"Let me look.\n" f({}) g({"x": null})`},
	{"hermes, two in one", "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>", `"" f({}) g({})`},
	{"hermes, no end", "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n", `"" f({})`},
	{"hermes, words behind", "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call> ok", `" ok" f({})`},
	{"hermes, twice opened", "<tool_call><tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>", `"<tool_call>" f({})`},
	{"hermes, only talked about", "Write <tool_call> and </tool_call> around it.", `"Write <tool_call> and </tool_call> around it."`},
	{"no marker, arguments", `{"name": "f", "arguments": {"a": 1}}`, `"" f({"a": 1})`},

	{"mistral", `[TOOL_CALLS] [{"name": "f", "arguments": {"a": [1]}}]`, `"" f({"a": [1]})`},
	{"mistral, two with ids", `[TOOL_CALLS][{"name": "f", "arguments": {}, "id": "abcdefghi"}, {"name": "g", "arguments": {}, "id": "123456789"}]`, `"" f({}) g({})`},
	{"mistral, no list", `[TOOL_CALLS]{"name": "f", "arguments": {}}`, `"" f({})`},
	{"mistral, empty list", `[TOOL_CALLS] []`, `"[TOOL_CALLS] []"`},
	{"mistral, cut list", `[TOOL_CALLS] [{"name": "f", "arguments": {}},`, `"" f({})`},
	{"mistral, words behind", `[TOOL_CALLS] [{"name": "f", "arguments": {}}] ok`, `" ok" f({})`},
	{"mistral, name and arguments", `[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]get_weather[ARGS]{}`, `"" f({"a": 1}) get_weather({})`},
	{"mistral, name then arguments", `ok[TOOL_CALLS]f{"a": 1}`, `"ok" f({"a": 1})`},
	{"mistral, unknown name", `[TOOL_CALLS]h[ARGS]{"a": 1}`, `"[TOOL_CALLS]h[ARGS]{\"a\": 1}"`},
	{"mistral, broken [ARGS]", `[TOOL_CALLS]f[ARX]{"a": 1}`, `"[TOOL_CALLS]f[ARX]{\"a\": 1}"`},

	{"tgi", `{"function": {"_name": "f", "a": 1, "b": {"c": "}"}}}`, `"" f({"a": 1, "b": {"c": "}"}})`},
	{"tgi, tight", `{"function":{"_name":"f","a":1}}`, `"" f({"a":1})`},
	{"tgi, no arguments", `{"function": {"_name": "f"}}`, `"" f({})`},
	{"tgi, without the wrapper", `{"_name": "f", "a": 1}`, `"" f({"a": 1})`},
	{"tgi, name not first", `{"function": {"a": 1, "_name": "f"}}`, `"{\"function\": {\"a\": 1, \"_name\": \"f\"}}"`},
	{"tgi, empty object", `{}`, `"{}"`},
	{"openai", `{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": \"é\\n\"}"}}`, `"" f({"a": "é\n"})`},

	{"arguments before the name", `{"arguments": {"a": {}}, "name": "f"}`, `"" f({"a": {}})`},
	{"no arguments", `{"name": "f"}`, `"" f({})`},
	{"null arguments", `{"name": "f", "arguments": null}`, `"" f({})`},
	{"empty string for arguments", `{"name": "f", "arguments": ""}`, `"" f({})`},
	{"string that is not an object", `{"name": "f", "arguments": "[1]"}`, `"{\"name\": \"f\", \"arguments\": \"[1]\"}"`},
	{"name under function", `{"type": "function", "function": "f", "parameters": {}}`, `"" f({})`},
	{"name with an escape", `{"name": "get\u005fweather", "parameters": {}}`, `"" get_weather({})`},
	{"line break inside an argument", "{\"name\": \"f\", \"parameters\": {\"a\": \"x\ny\tz\"}}", `"" f({"a": "x\ny\tz"})`},

	{"other function", `{"name": "h", "parameters": {"a": 1}}`, `"{\"name\": \"h\", \"parameters\": {\"a\": 1}}"`},
	{"other JSON", `{"answer": 42, "name": "f"}`, `"{\"answer\": 42, \"name\": \"f\"}"`},
	{"JSON behind words", `See {"name": "f", "parameters": {}}`, `"See {\"name\": \"f\", \"parameters\": {}}"`},
	{"name is not a string", `{"name": 1}`, `"{\"name\": 1}"`},
	{"name twice", `{"name": "f", "name": "g"}`, `"{\"name\": \"f\", \"name\": \"g\"}"`},
	{"arguments are a list", `{"name": "f", "arguments": [1]}`, `"{\"name\": \"f\", \"arguments\": [1]}"`},
	{"key with an escape", `{"name": "f", "\u0061": {}}`, `"{\"name\": \"f\", \"\\u0061\": {}}"`},
	{"cut in the name", `{"name": "f`, `"{\"name\": \"f"`},
	{"cut before the arguments", `<tool_call>{"name": "f", "argu`, `"" f()`},
	{"cut behind the name", `{"name": "f"`, `"" f()`},
	{"mistral, cut behind the name", `[TOOL_CALLS]f[AR`, `"" f()`},
	{"tgi, cut behind the name", `{"function": {"_name": "f"`, `"" f()`},
	{"a second call, cut before its arguments", `{"name": "f", "parameters": {}}` + "\n" + `{"name": "g", "par`, `"" f({}) g()`},
	{"cut in the arguments", `{"name": "f", "parameters": {"a": "x`, `"" f({"a": "x)`},
	{"arguments that stop being JSON", `{"name": "f", "parameters": {"a": oops}} and more`, `"oops}} and more" f({"a": )`},
	{"a bracket too many", `{"name": "f", "parameters": {}}}`, `"}" f({})`},
	{"markers cut", "a <tool_ca", `"a <tool_ca"`},
	{"nearly a marker", "a <<tool_calls> [TOOL] <|python|>", `"a <<tool_calls> [TOOL] <|python|>"`},
	{"emoji around a marker", "😀<tool_call>{\"name\": \"f\"}</tool_call>😀", `"😀😀" f({})`},
}

func TestParser(t *testing.T) {
	list := tools("f", "g", "get_weather")
	for _, tt := range parserCases {
		t.Run(tt.name, func(t *testing.T) {
			whole := parse(t, list, tt.text)
			if got := whole.String(); got != tt.want {
				t.Fatalf("%q\n got %s\nwant %s", tt.text, got, tt.want)
			}
			if got := parse(t, list, strings.Split(tt.text, "")...); got.String() != tt.want {
				t.Errorf("%q, a character at a time\n got %s\nwant %s", tt.text, got, tt.want)
			}
			for i := range tt.text {
				if got := parse(t, list, tt.text[:i], tt.text[i:]); got.String() != tt.want {
					t.Errorf("%q | %q\n got %s\nwant %s", tt.text[:i], tt.text[i:], got, tt.want)
				}
			}
		})
	}
}

// Content and arguments go out as soon as they are certain.
func TestParserIsPrompt(t *testing.T) {
	p := NewParser(formatTGI, Selection{Tools: tools("f")}, false, countingIDs())
	for _, step := range []struct{ piece, want string }{
		{"Let", `"Let"`},
		{" me <", `" me "`},
		{"b> <tool", `"<b> "`},
		{"_call>\n{\"na", ``},
		{"me\": \"f\", \"arguments\": ", ``},
		{"{\"a", `f call_0; 0 {"a`},
		{"\": 1}", `0 ": 1}`},
		{"}\n</tool_call>", ``},
		{"\nOK", `"\nOK"`},
	} {
		var got []string
		for _, d := range p.Write(step.piece) {
			switch {
			case d.Call == nil:
				got = append(got, fmt.Sprintf("%q", d.Content))
			case d.Call.Name != "":
				got = append(got, d.Call.Name+" "+d.Call.ID)
			default:
				got = append(got, fmt.Sprint(d.Call.Index, " ", d.Call.Arguments))
			}
		}
		if s := strings.Join(got, "; "); s != step.want {
			t.Errorf("%q gives %s, want %s", step.piece, s, step.want)
		}
	}
}

// An answer that must be a call, cut anywhere, is a call with what there is of
// it, and nothing of its JSON is content.
func TestCutRequiredCalls(t *testing.T) {
	for _, tt := range []struct{ name, text string }{
		{"llama", `{"name": "get_weather", "parameters": {"city": "Bern"}}`},
		{"hermes", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Bern\"}}\n</tool_call>"},
		{"mistral", `[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Bern"}}]`},
		{"mistral, arguments", `[TOOL_CALLS]get_weather[ARGS]{"city": "Bern"}`},
		{"tgi", `{"function": {"_name": "get_weather", "city": "Bern"}}`},
		{"tgi, two", `{"function": {"_name": "get_weather", "city": "Bern"}}` + "\n" + `{"name": "get_weather", "parameters": {"city": "Rom"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, names := range [][]string{{"get_weather"}, {"get_weather", "get_time"}} {
				for n := 1; n <= len(tt.text); n++ {
					p := NewParser(formatTGI, Selection{Tools: tools(names...), Required: true}, false, countingIDs())
					var whole Answer
					for _, d := range append(p.Write(tt.text[:n]), p.Close()...) {
						whole.Add(d)
					}
					named := len(names) == 1 || strings.Contains(tt.text[:n], "get_w")
					if whole.Content != "" || named && len(whole.Calls) == 0 || !named && len(whole.Calls) > 0 {
						t.Errorf("%d tools, %q: %s", len(names), tt.text[:n], whole)
					}
					for i, c := range whole.Calls {
						last := i == len(whole.Calls)-1
						want := `{"city": "Bern"}`
						if i > 0 {
							want = `{"city": "Rom"}`
						}
						if rest, ok := strings.CutPrefix(want, c.Arguments); c.Name != "get_weather" || !ok || !last && rest != "" {
							t.Errorf("%q: %s", tt.text[:n], whole)
						}
						if isWhole := strings.HasSuffix(c.Arguments, "}"); last && isWhole == p.Cut() {
							t.Errorf("%q: cut %v, but %s", tt.text[:n], p.Cut(), whole)
						}
					}
				}
			}
		})
	}
}

func TestParserWithoutTools(t *testing.T) {
	text := `<tool_call>{"name": "f", "arguments": {}}`
	if got := parse(t, nil, text); got.Content != text || len(got.Calls) > 0 {
		t.Errorf("%q gives %s", text, got)
	}
}

// A text that never ends is not kept for ever.
func TestParserHoldsLittle(t *testing.T) {
	for _, tt := range []struct{ name, begin, more string }{
		{"white space", "", " \n"},
		{"white space behind a marker", "<tool_call>", " "},
		{"arguments without a name", `{"arguments": {"a": "`, "x"},
		{"an id", `{"id": "`, "x"},
		{"a name", `{"name": "`, "f"},
		{"a bare name", "[TOOL_CALLS]f", "f"},
		{"brackets", `{"id": `, "["},
		{"a number", `{"id": `, "1"},
		{"white space behind a call", `{"name": "f"}`, " "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := NewParser(formatTGI, Selection{Tools: tools("f")}, false, countingIDs())
			p.Write(tt.begin)
			for range 2 * maxHeld {
				p.Write(tt.more)
			}
			if len(p.held)+len(p.pending) > 2*maxSpace {
				t.Errorf("holds %d bytes", len(p.held))
			}
			if tt.name != "white space behind a call" && p.Calls() > 0 {
				t.Errorf("%d calls", p.Calls())
			}
		})
	}
}

// Whatever a model writes and however it is cut, no word is lost and the
// result is the same.
func FuzzParser(f *testing.F) {
	for _, tt := range parserCases {
		f.Add(tt.text, uint64(7))
	}
	f.Fuzz(func(t *testing.T, text string, cuts uint64) {
		if !utf8.ValidString(text) || len(text) > 2000 {
			return
		}
		list := tools("f", "g", "get_weather")
		whole := parse(t, list, text)
		var pieces []string
		rest := text
		for i := range text {
			if cuts>>(i%64)&1 == 1 {
				n := i - (len(text) - len(rest))
				pieces = append(pieces, rest[:n])
				rest = rest[n:]
			}
		}
		if got := parse(t, list, append(pieces, rest)...); got.String() != whole.String() {
			t.Errorf("%q\n whole %s\nin %q %s", text, whole, pieces, got)
		}
		if len(whole.Calls) == 0 && whole.Content != text {
			t.Errorf("%q without a call gives %q", text, whole.Content)
		}
		if !isSubsequence(whole.Content, text) {
			t.Errorf("%q gives the content %q", text, whole.Content)
		}
		for _, c := range whole.Calls {
			if !slices.Contains([]string{"f", "g", "get_weather"}, c.Name) {
				t.Errorf("%q gives a call of %q", text, c.Name)
			}
			if c.Arguments != "" && !strings.HasPrefix(c.Arguments, "{") {
				t.Errorf("%q gives the arguments %q", text, c.Arguments)
			}
		}
	})
}

// isSubsequence reports whether the bytes of part are in whole, in order.
func isSubsequence(part, whole string) bool {
	for i := range len(part) {
		at := strings.IndexByte(whole, part[i])
		if at < 0 {
			return false
		}
		whole = whole[at+1:]
	}
	return true
}

func BenchmarkParser(b *testing.B) {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 20) +
		"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"" + strings.Repeat("x", 500) + "\"}}\n</tool_call>"
	list := tools("f")
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		p := NewParser(formatTGI, Selection{Tools: list}, false, func() string { return "call" })
		for i := 0; i < len(text); i += 4 {
			p.Write(text[i:min(i+4, len(text))])
		}
		p.Close()
	}
}
