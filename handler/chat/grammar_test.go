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
	m, err := trie.NewMatcher(string(g.Kind), g.Text, native.MatcherLimits{})
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
		format Format
		text   string // behind the prefix
		single bool
		want   bool
	}{
		{name: "llama", format: FormatLlama, text: `{"name": "get_weather", "parameters": ` + args + `}`, want: true},
		{name: "llama, two", format: FormatLlama, text: `{"name": "f", "parameters": {}}` + "\n" + `{"name": "get_weather", "parameters": ` + args + `}`, want: true},
		{name: "llama, two where one may be", format: FormatLlama, single: true, text: `{"name": "f", "parameters": {}}` + "\n" + `{"name": "f", "parameters": {}}`},
		{name: "llama, unknown tool", format: FormatLlama, text: `{"name": "g", "parameters": {}}`},
		{name: "llama, words", format: FormatLlama, text: "It is warm."},
		{name: "llama, cut", format: FormatLlama, text: `{"name": "f", "parameters": {}`},
		{name: "wrong argument", format: FormatLlama, text: `{"name": "get_weather", "parameters": {"z": "Rom"}}`},
		{name: "missing argument", format: FormatLlama, text: `{"name": "get_weather", "parameters": {"a": 3}}`},
		{name: "hermes", format: FormatHermes, text: "<tool_call>\n" + `{"name": "get_weather", "arguments": ` + args + "}\n</tool_call>", want: true},
		{name: "hermes, two", format: FormatHermes, text: "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>", want: true},
		{name: "mistral", format: FormatMistral, text: ` [{"name": "get_weather", "arguments": ` + args + `}, {"name": "f", "arguments": {}}]`, want: true},
		{name: "mistral, arguments", format: FormatMistralArgs, text: `get_weather[ARGS]` + args, want: true},
		{name: "mistral, arguments twice", format: FormatMistralArgs, text: `f[ARGS]{}[TOOL_CALLS]f[ARGS]{}`, want: true},
		{name: "tgi", format: FormatTGI, text: `{"function": {"_name": "get_weather", "z": "Bern", "a": 1}}`, want: true},
		{name: "tgi, no arguments", format: FormatTGI, text: `{"function": {"_name": "f"}}`, want: true},
		{name: "tgi, arguments of another tool", format: FormatTGI, text: `{"function": {"_name": "f", "z": "Bern"}}`},
		{name: "tgi, as its prompt asks", format: FormatTGI, text: `{"name": "get_weather", "parameters": {"z": "Bern"}}`, want: true},
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
			if tt.want && len(parse(t, weather, c.Prefix+tt.text).Calls) == 0 {
				t.Errorf("%q: the Parser sees no call", c.Prefix+tt.text)
			}
		})
	}
}

// Behind its trigger each grammar allows the rest of a call, which the Parser
// takes.
func TestTriggeredCalls(t *testing.T) {
	trie := byteTrie(t)
	for _, tt := range []struct {
		name   string
		format Format
		text   string
	}{
		{"llama", FormatLlama, `{"name": "get_weather", "parameters": {"z": "Bern"}}`},
		{"llama, tight", FormatLlama, `{"name":"f", "parameters": {}}`},
		{"llama, tag", FormatLlama, `<|python_tag|>{"name": "f", "parameters": {}}`},
		{"llama, two", FormatLlama, `{"name": "f", "parameters": {}}` + "\n" + `{"name": "f", "parameters": {}}`},
		{"hermes", FormatHermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"},
		{"mistral", FormatMistral, `[TOOL_CALLS] [{"name": "f", "arguments": {}}]`},
		{"mistral, arguments", FormatMistralArgs, `[TOOL_CALLS]f[ARGS]{}`},
		{"tgi", FormatTGI, `{"function": {"_name": "get_weather", "z": "Bern"}}`},
		{"tgi, as its prompt asks", FormatTGI, `{"name": "f", "parameters": {}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Selection{Tools: weather, Parallel: true}.Constraint(tt.format)
			if err != nil || c.Grammar.Kind != "" || c.Prefix != "" {
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
			if _, err := s.Constraint(FormatTGI); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	if c, err := (Selection{}).Constraint(FormatLlama); err != nil || c.Grammar.Kind != "" || len(c.Triggers) > 0 {
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
			if got := strings.Join(names, " "); got != tt.want || s.Required != tt.required || text != tt.err {
				t.Errorf("got %q, required %v, %v", got, s.Required, err)
			}
		})
	}
}
