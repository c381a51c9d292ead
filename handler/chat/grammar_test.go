package chat

import (
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/native"
)

// byteTrie is a vocabulary of one token for each byte, and an end.
func byteTrie(t *testing.T) *native.TokenTrie {
	t.Helper()
	var tokens [][]byte
	for i := range 256 {
		tokens = append(tokens, []byte{byte(i)})
	}
	tokens[255] = nil
	tokens = append(tokens, []byte("\xff<end>"))
	trie, err := native.NewTokenTrie(tokens, []int32{256}, func(text []byte) (ids []int32) {
		for _, b := range text {
			ids = append(ids, int32(b))
		}
		return ids
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trie.Free)
	return trie
}

// matches reports whether text is a whole text of the grammar, and how much of
// it is allowed.
func matches(t *testing.T, trie *native.TokenTrie, g Grammar, text string) (bool, string) {
	t.Helper()
	m, err := trie.NewMatcher(string(g.Kind), g.Text, native.MatcherLimits{}, 0)
	if err != nil {
		t.Fatalf("%v in\n%s", err, g.Text)
	}
	defer m.Free()
	mask := make([]uint32, trie.Words())
	for i := range len(text) {
		if err := m.Mask(mask); err != nil {
			t.Fatal(err)
		}
		if b := text[i]; mask[b/32]>>(b%32)&1 == 0 {
			return false, text[:i]
		}
		if err := m.Accept(int32(text[i])); err != nil {
			t.Fatal(err)
		}
	}
	return m.Accepting(), text
}

var weather = []Tool{
	{Name: "get_weather", Parameters: []byte(`{"type": "object", "$defs": {"c": {"type": "string", "enum": ["Zürich", "Bern"]}}, "properties": {"z": {"$ref": "#/$defs/c"}, "a": {"type": "integer"}}, "required": ["z"], "additionalProperties": false}`)},
	{Name: "f", Parameters: []byte(noParameters)},
}

func TestRequiredCalls(t *testing.T) {
	trie := byteTrie(t)
	const args = `{"z": "Zürich", "a": 3}`
	for _, tt := range []struct {
		name   string
		format *Format
		text   string
		single bool
		want   bool
	}{
		{name: "llama", format: formatLlama, text: `{"name": "get_weather", "parameters": ` + args + `}`, want: true},
		{name: "llama, two", format: formatLlama, text: `{"name": "f", "parameters": {}}` + "\n" + `{"name": "get_weather", "parameters": ` + args + `}`, want: true},
		{name: "llama, two where one may be", format: formatLlama, single: true, text: `{"name": "f", "parameters": {}}` + "\n" + `{"name": "f", "parameters": {}}`},
		{name: "llama, unknown tool", format: formatLlama, text: `{"name": "g", "parameters": {}}`},
		{name: "llama, words", format: formatLlama, text: "It is warm."},
		{name: "llama, cut", format: formatLlama, text: `{"name": "f", "parameters": {}`},
		{name: "wrong argument", format: formatLlama, text: `{"name": "get_weather", "parameters": {"z": "Rom"}}`},
		{name: "missing argument", format: formatLlama, text: `{"name": "get_weather", "parameters": {"a": 3}}`},
		{name: "hermes", format: formatHermes, text: "<tool_call>\n" + `{"name": "get_weather", "arguments": ` + args + "}\n</tool_call>", want: true},
		{name: "hermes, two", format: formatHermes, text: "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>", want: true},
		{name: "mistral", format: formatMistral, text: `[TOOL_CALLS] [{"name": "get_weather", "arguments": ` + args + `}, {"name": "f", "arguments": {}}]`, want: true},
		{name: "mistral, arguments", format: formatMistralArgs, text: `[TOOL_CALLS]get_weather[ARGS]` + args, want: true},
		{name: "mistral, arguments twice", format: formatMistralArgs, text: `[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]f[ARGS]{}`, want: true},
		{name: "tgi", format: formatTGI, text: `{"function": {"_name": "get_weather", "z": "Bern", "a": 1}}`, want: true},
		{name: "tgi, no arguments", format: formatTGI, text: `{"function": {"_name": "f"}}`, want: true},
		{name: "tgi, arguments of another tool", format: formatTGI, text: `{"function": {"_name": "f", "z": "Bern"}}`},
		{name: "tgi, as its prompt asks", format: formatTGI, text: `{"name": "get_weather", "parameters": {"z": "Bern"}}`, want: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Selection{Tools: weather, Required: true, Parallel: !tt.single}.Constraint(tt.format)
			if err != nil {
				t.Fatal(err)
			}
			got, allowed := matches(t, trie, c.Grammar, tt.text)
			if got != tt.want {
				t.Errorf("%q: %v (allowed %q), want %v by\n%s", tt.text, got, allowed, tt.want, c.Grammar.Text)
			}
			if tt.want && len(parse(t, weather, tt.text).Calls) == 0 {
				t.Errorf("%q: the Parser sees no call", tt.text)
			}
		})
	}
}

// Whatever the schema's root is, every model's form holds calls to it.
func TestArgumentsOfAllForms(t *testing.T) {
	trie := byteTrie(t)
	for _, tt := range []struct{ name, parameters, good, bad string }{
		{"properties", `{"type":"object","properties":{"a":{"type":"integer"}}}`, `"a": 1`, `"b": 1`},
		{"without a type", `{"properties":{"a":{"type":"integer"}},"required":["a"]}`, `"a": 1`, ``},
		{"a reference", `{"$ref":"#/$defs/x","$defs":{"x":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}}}`, `"a": 1`, `"a": "x"`},
		{"a recursive reference", `{"$ref":"#/$defs/x","$defs":{"x":{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}}}}}`, `"a": {"a": {}}`, `"a": {"_name": "f"}`},
		{"itself inside", `{"type":"object","properties":{"a":{"$ref":"#"}}}`, `"a": {"a": {}}`, `"a": {"_name": "f"}`},
		{"anyOf", `{"anyOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"type":"object","properties":{"b":{"type":"integer"}},"required":["b"]}]}`, `"b": 1`, `"a": 1, "b": 1`},
		{"oneOf", `{"oneOf":[{"$ref":"#/$defs/x"},{"$ref":"#/$defs/y"}],"$defs":{"x":{"properties":{"k":{"const":"x"}},"required":["k"]},"y":{"properties":{"k":{"const":"y"},"n":{"type":"integer"}},"required":["k"]}}}`, `"k": "y", "n": 2`, `"k": "x", "n": 2`},
		{"oneOf inside", `{"properties":{"a":{"oneOf":[{"type":"integer"},{"type":"string","maxLength":1}]}},"required":["a"]}`, `"a": "x"`, `"a": null`},
		{"allOf", `{"allOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{"type":"integer"}},"required":["b"]}]}`, `"a": 1, "b": 2`, `"a": 1`},
		{"maxProperties", `{"type":"object","additionalProperties":{"type":"integer"},"maxProperties":1}`, `"x": 1`, `"x": 1, "y": 2`},
		{"minProperties", `{"type":"object","additionalProperties":{"type":"integer"},"minProperties":2}`, `"x": 1, "y": 2`, `"x": 1`},
		{"open", `{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":true}`, `"a": 1, "x": [2]`, `"a": "x"`},
		{"anything", `{}`, `"x": [2]`, `1`},
		{"names of a set", `{"type":"object","propertyNames":{"enum":["a"]}}`, `"a": 1`, `"b": 1`},
		{"many links in a description", `{"type":"object","description":"` + strings.Repeat(`https://x.test/?a=1&b=2 `, 40) + `","properties":{"a":{"type":"integer","description":"a & b & c"}}}`, `"a": 1`, `"b": 1`},
		{"many ampersands in a name", `{"type":"object","properties":{"` + strings.Repeat("&", 40) + `":{"type":"integer"}}}`, `"` + strings.Repeat("&", 40) + `": 1`, `"b": 1`},
		{"formats and sets", `{"type":"object","properties":{"a":{"type":"string","format":"path"},"b":{"type":"array","items":{"type":"integer"},"uniqueItems":true}}}`, `"a": "/", "b": [1]`, `"b": ["x"]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tools := []Tool{{Name: "f", Parameters: []byte(tt.parameters)}}
			for format, forms := range map[*Format][]string{
				formatTGI:         {`{"function": {"_name": "f", %s}}`, `{"name": "f", "parameters": {%s}}`},
				formatLlama:       {`{"name": "f", "parameters": {%s}}`},
				formatHermes:      {"<tool_call>\n{\"name\": \"f\", \"arguments\": {%s}}\n</tool_call>"},
				formatMistral:     {`[TOOL_CALLS] [{"name": "f", "arguments": {%s}}]`},
				formatMistralArgs: {`[TOOL_CALLS]f[ARGS]{%s}`},
			} {
				c, err := Selection{Tools: tools, Required: true, Parallel: true}.Constraint(format)
				if err != nil {
					t.Fatal(err)
				}
				for _, form := range forms {
					text := strings.Replace(form, "%s", tt.good, 1)
					if whole, allowed := matches(t, trie, c.Grammar, text); !whole {
						t.Errorf("%q: only %q is allowed by\n%s", text, allowed, c.Grammar.Text)
					}
					if calls := parse(t, tools, text).Calls; len(calls) != 1 || calls[0].Arguments != "{"+tt.good+"}" {
						t.Errorf("%q: the Parser sees %v", text, calls)
					}
					text = strings.Replace(form, "%s", tt.bad, 1)
					if whole, _ := matches(t, trie, c.Grammar, text); whole {
						t.Errorf("%q is allowed by\n%s", text, c.Grammar.Text)
					}
				}
			}
		})
	}
}

// A property of the name that TGI's form has for the tool's is not lost: the
// call is written in the other form.
func TestPropertyNamedLikeTheTool(t *testing.T) {
	trie := byteTrie(t)
	tools := []Tool{
		{Name: "f", Parameters: []byte(`{"properties":{"_name":{"type":"string"},"a":{"type":"integer"}},"required":["_name"]}`)},
		{Name: "g", Parameters: []byte(`{"properties":{"a":{"type":"integer"}}}`)},
	}
	for n := 1; n <= 2; n++ {
		s := Selection{Tools: tools[:n], Required: true}
		c, err := s.Constraint(formatTGI)
		if err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]string{
			`{"name": "f", "parameters": {"_name": "x", "a": 1}}`: `"" f({"_name": "x", "a": 1})`,
			`{"function": {"_name": "f", "_name": "x", "a": 1}}`:  "",
			`{"function": {"_name": "g", "a": 1}}`:                map[int]string{2: `"" g({"a": 1})`}[n],
		} {
			whole, _ := matches(t, trie, c.Grammar, text)
			if whole != (want != "") {
				t.Errorf("%d tools: %q: allowed %v by\n%s", n, text, whole, c.Grammar.Text)
			}
			if got := parse(t, s.Tools, text).String(); want != "" && got != want {
				t.Errorf("%d tools: %q: the Parser sees %s", n, text, got)
			}
		}
		s.Required = false
		c, err = s.Constraint(formatTGI)
		if err != nil || len(c.Triggers) != n {
			t.Errorf("%d tools: %d triggers, %v", n, len(c.Triggers), err)
		}
	}
}

// A tool whose schema cannot be held is written freely where nobody asked for
// a grammar, and the others are held to theirs.
func TestVoluntaryCallsOfUnheldTools(t *testing.T) {
	trie := byteTrie(t)
	tools := []Tool{
		{Name: "f", Parameters: []byte(`{"type":"object","properties":{"a":{"not":{"type":"null"}}}}`)},
		{Index: 1, Name: "g", Parameters: []byte(`{"properties":{"a":{"type":"integer"}}}`)},
	}
	for _, format := range []*Format{formatTGI, formatLlama, formatHermes} {
		c, err := Selection{Tools: tools, Parallel: true}.Constraint(format)
		if err != nil {
			t.Fatal(err)
		}
		g := c.Triggers[len(c.Triggers)-1].Grammar
		begin, end := ` "f", "parameters": `, `}`
		if format == formatHermes {
			begin, end = "\n"+`{"name": "f", "arguments": `, "}\n</tool_call>"
		}
		for text, want := range map[string]bool{
			begin + `{"x": [1]}` + end:                              true,
			strings.Replace(begin, "f", "g", 1) + `{"a": 1}` + end:  true,
			strings.Replace(begin, "f", "g", 1) + `{"x": []}` + end: false,
		} {
			if got, allowed := matches(t, trie, g, text); got != want {
				t.Errorf("%q: %v (allowed %q) by\n%s", text, got, allowed, g.Text)
			}
		}
	}
	_, err := Selection{Tools: tools[1:], Required: true}.Constraint(formatTGI)
	if err != nil {
		t.Error(err)
	}
	tools[1].Parameters = tools[0].Parameters
	if _, err = (Selection{Tools: tools[1:], Required: true}).Constraint(formatTGI); err == nil || !strings.Contains(err.Error(), "tools[1].function.parameters#/properties/a/not: ") {
		t.Error(err)
	}
}

// Behind its trigger each grammar allows the rest of a call, which the Parser
// takes.
func TestTriggeredCalls(t *testing.T) {
	trie := byteTrie(t)
	for _, tt := range []struct {
		name   string
		format *Format
		text   string
	}{
		{"llama", formatLlama, `{"name": "get_weather", "parameters": {"z": "Bern"}}`},
		{"llama, tight", formatLlama, `{"name":"f", "parameters": {}}`},
		{"llama, tag", formatLlama, `<|python_tag|>{"name": "f", "parameters": {}}`},
		{"llama, two", formatLlama, `{"name": "f", "parameters": {}}` + "\n" + `{"name": "f", "parameters": {}}`},
		{"hermes", formatHermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"},
		{"mistral", formatMistral, `[TOOL_CALLS] [{"name": "f", "arguments": {}}]`},
		{"mistral, arguments", formatMistralArgs, `[TOOL_CALLS]f[ARGS]{}`},
		{"tgi", formatTGI, `{"function": {"_name": "get_weather", "z": "Bern"}}`},
		{"tgi, as its prompt asks", formatTGI, `{"name": "f", "parameters": {}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Selection{Tools: weather, Parallel: true}.Constraint(tt.format)
			if err != nil || c.Grammar.Kind != "" {
				t.Fatalf("%+v, %v", c, err)
			}
			for _, trigger := range c.Triggers {
				rest, ok := strings.CutPrefix(tt.text, trigger.Text)
				if !ok {
					continue
				}
				if whole, allowed := matches(t, trie, trigger.Grammar, rest); !whole {
					t.Errorf("%q: only %q is allowed by\n%s", rest, allowed, trigger.Grammar.Text)
				}
				if len(parse(t, weather, tt.text).Calls) == 0 {
					t.Errorf("%q: the Parser sees no call", tt.text)
				}
				return
			}
			t.Errorf("%q: no trigger of %+v", tt.text, c.Triggers)
		})
	}
}

func TestConstraintErrors(t *testing.T) {
	for _, tt := range []struct{ name, parameters, want string }{
		{"not an object", `{"type": "string"}`, "Tool error: tools[0].function.parameters#/type: the schema must be one of an object"},
		{"properties", `{"properties": 1}`, "Tool error: tools[0].function.parameters#/properties: not an object"},
		{"required", `{"required": "a"}`, "Tool error: tools[0].function.parameters#/required: not a list of names"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Selection{Tools: []Tool{{Name: "f", Parameters: []byte(tt.parameters)}}, Required: true}
			if _, err := s.Constraint(formatTGI); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	large := Selection{Tools: []Tool{{Name: "f", Parameters: []byte(`{"description":"` + strings.Repeat("x", maxSchemas) + `"}`)}}}
	if c, err := large.Constraint(formatHermes); err != nil || c.Triggers != nil {
		t.Errorf("large schemas: %d triggers, %v", len(c.Triggers), err)
	}
	large.Required = true
	if _, err := large.Constraint(formatHermes); err == nil {
		t.Error("large schemas are held")
	}
	if c, err := (Selection{}).Constraint(formatLlama); err != nil || c.Grammar.Kind != "" || len(c.Triggers) > 0 {
		t.Errorf("without tools: %+v, %v", c, err)
	}
}

func TestSelect(t *testing.T) {
	f, g := Tool{Name: "f"}, Tool{Name: "g"}
	both := []Tool{f, g}
	for _, tt := range []struct {
		name     string
		request  SelectRequest
		want     string // names of the tools
		required bool
		err      string
	}{
		{name: "auto", request: SelectRequest{Tools: both, Present: true}, want: "f g"},
		{name: "none", request: SelectRequest{Tools: both, Present: true, Choice: ToolChoice{Mode: ToolNone}}},
		{name: "required", request: SelectRequest{Tools: both, Present: true, Choice: ToolChoice{Mode: ToolRequired}}, want: "f g", required: true},
		{name: "named", request: SelectRequest{Tools: both, Present: true, Choice: ToolChoice{ToolNamed, "g"}}, want: "g", required: true},
		{name: "unknown name", request: SelectRequest{Tools: both, Present: true, Choice: ToolChoice{ToolNamed, "h"}}, err: "Tool error: Tool with name h not found"},
		{name: "empty list", request: SelectRequest{Present: true}},
		{name: "empty list, required", request: SelectRequest{Present: true, Choice: ToolChoice{Mode: ToolRequired}}},
		{name: "choice without tools", request: SelectRequest{Choice: ToolChoice{ToolNamed, "f"}}},
		{name: "with a format", request: SelectRequest{Present: true, Format: ResponseFormat{Kind: JSONSchema}}, err: "Tool error: Grammar and tools are mutually exclusive"},
		{name: "format alone", request: SelectRequest{Format: ResponseFormat{Kind: JSONSchema}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Select(tt.request)
			var names []string
			for _, tool := range s.Tools {
				names = append(names, tool.Name)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if named := tt.request.Choice.Mode == ToolNamed; err == nil && len(names) > 0 && s.Parallel == named {
				t.Errorf("parallel %v, named %v", s.Parallel, named)
			}
			if got := strings.Join(names, " "); got != tt.want || s.Required != tt.required || text != tt.err {
				t.Errorf("got %q, required %v, %v", got, s.Required, err)
			}
		})
	}
}
