package handler

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
)

// TestChatGuides pins what a chat's answer is held to, by what its guide lets
// through and what not.
func TestChatGuides(t *testing.T) {
	const (
		object = `{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}`
		not    = `"tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{"a":{"not":{"type":"null"}}}}}}]`
		named  = `"tool_choice":{"type":"function","function":{"name":"weather"}}`
	)
	text, _ := json.Marshal(object)
	for _, tt := range []struct {
		name, template, fields string
		yes, no                string   // what the grammar of the whole answer lets through
		triggers               []string // without such a grammar
	}{
		{name: "nothing", fields: `"max_tokens":9`},
		{name: "text", fields: `"response_format":{"type":"text"}`},
		{name: "any object", fields: `"response_format":{"type":"json_object"}`, yes: `{"b":1}`, no: `[1]`},
		{name: "json with a schema", fields: `"response_format":{"type":"json","value":` + object + `}`, yes: `{"a":1}`, no: `{"b":1}`},
		{name: "json_object with a schema in a string", fields: `"response_format":{"type":"json_object","value":` + string(text) + `}`, yes: `{"a":1}`, no: `{"b":1}`},
		{name: "json_schema", fields: `"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":` + object + `}}`, yes: `{"a":1}`, no: `{"b":1}`},
		{name: "a list", fields: `"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"array","items":{"type":"integer"}}}}`, yes: `[1,2]`, no: `{}`},
		{name: "regex", fields: `"response_format":{"type":"regex","value":"a+b"}`, yes: `aab`, no: `ba`},
		{name: "tools, if it likes", template: hermesTemplate, fields: weather, triggers: []string{"<tool_call>"}},
		{name: "tools, one at a time", template: hermesTemplate, fields: weather + `,"parallel_tool_calls":false`, triggers: []string{"<tool_call>"}},
		{name: "tools in TGI's form, if it likes", fields: weather, triggers: []string{`{"function":`, `{"name":`}},
		{name: "tools hidden", template: hermesTemplate, fields: weather + `,"tool_choice":"none"`},
		{name: "tools, in any case", template: hermesTemplate, fields: weather + `,"tool_choice":"required"`, yes: "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\":\"x\"}}\n</tool_call>", no: "No"},
		{name: "a tool with many links in its description", fields: strings.Replace(weather, `"properties"`, `"description":"`+strings.Repeat("https://x.test/?a=1&b=2 ", 40)+`","properties"`, 1) + `,"tool_choice":"required"`, yes: `{"function": {"_name":"weather","city":"x"}}`, no: `{"function": {"_name":"weather","town":"x"}}`},
		{name: "a named tool", fields: weather + `,` + named, yes: `{"function": {"_name":"weather","city":"x"}}`, no: `{"function": {"_name":"f"}}`},
		{name: "a schema that cannot be held, if it likes (tool schemas)", fields: not, triggers: []string{`{"function":`, `{"name":`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.template == "" {
				tt.template = plainTemplate
			}
			gen := &fake{script: says("<|eot_id|>")}
			guided := false
			gen.guided = func(guide *engine.Constraint) {
				guided = true
				if tt.yes != "" {
					if guide.Triggers != nil || !accepts(t, guide, tt.yes) || accepts(t, guide, tt.no) {
						t.Errorf("%d triggers; takes %q: %v, %q: %v", len(guide.Triggers), tt.yes, accepts(t, guide, tt.yes), tt.no, accepts(t, guide, tt.no))
					}
					return
				}
				var triggers []string
				for _, trigger := range guide.Triggers {
					triggers = append(triggers, trigger.Text)
				}
				if guide.Grammar != nil || !slices.Equal(triggers, tt.triggers) || guide.NewDetokenizer() == nil {
					t.Errorf("triggers %q, want %q", triggers, tt.triggers)
				}
			}
			s := newTestServer(gen)
			s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Template: loadTemplate(t, tt.template), Compiler: testCompiler})
			if got := post(t, s, chatPath, chatBody(tt.fields, `"n":2`)); got.status != 200 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			if want := tt.yes != "" || tt.triggers != nil; guided != want {
				t.Errorf("guided: %v, want %v", guided, want)
			}
		})
	}
	for _, tt := range []struct{ name, fields, want string }{
		{"a schema that cannot be held", `"response_format":{"type":"json","value":{"not":{"type":"null"}}}`, "Input validation error: grammar is not valid: #/not: the keyword is not supported"},
		{"a regex that is none", `"response_format":{"type":"regex","value":"("}`, "Input validation error: grammar is not valid: regex: unclosed group"},
		{"a tool that cannot be held to", not + `,"tool_choice":"required"`, "Tool error: tools[0].function.parameters#/properties/a/not: the keyword is not supported"},
		{"a tool that costs too much", strings.Replace(not, `{"not":{"type":"null"}}`, `{"multipleOf":999999,"type":"integer"}`, 1) + `,"tool_choice":"required"`, "Tool error: tools[0].function.parameters#/properties/a/multipleOf: "},
		{"a tool that takes no object", `"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"string"}}}],"tool_choice":"required"`, "Tool error: tools[0].function.parameters#/type: the schema must be one of an object"},
		{"a tool with a wrong pattern", strings.Replace(not, `{"not":{"type":"null"}}`, `{"type":"string","pattern":"(x"}`, 1) + `,"tool_choice":"required"`, "Input validation error: grammar is not valid: tools[0].function.parameters#/properties/a/pattern: unclosed group"},
	} {
		gen := &fake{}
		s := newTestServer(gen)
		s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Template: loadTemplate(t, plainTemplate), Compiler: testCompiler})
		got := post(t, s, chatPath, chatBody(tt.fields))
		if msg, _ := mustError(t, got); got.status != 422 || !strings.HasPrefix(msg, tt.want) {
			t.Errorf("%s: %d %s, want %s", tt.name, got.status, got.body, tt.want)
		}
	}
}

// accepts reports whether text is a whole answer under guide.
func accepts(t *testing.T, guide *engine.Constraint, text string) bool {
	t.Helper()
	m, err := guide.Grammar.Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ids, err := testTokenizer().Encode(text, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if m.Accept(id) != nil {
			return false
		}
	}
	return m.Accepting()
}

// TestObjectsOfSchemas pins what a schema without a type and without
// additionalProperties means, for everything that has a schema: what TGI's
// grammars write, or with --open-objects what JSON Schema says.
func TestObjectsOfSchemas(t *testing.T) {
	const schema = `{"properties":{"city":{"type":"string"}},"required":["city"]}`
	for _, tt := range []struct{ name, path, body, form string }{
		{"a grammar", "/generate", `{"inputs":"x","parameters":{"grammar":{"type":"json","value":` + schema + `}}}`, `%s`},
		{"a response format", chatPath, chatBody(`"response_format":{"type":"json_schema","json_schema":{"schema":` + schema + `}}`), `%s`},
		{"a tool", chatPath, chatBody(`"tools":[{"type":"function","function":{"name":"f","parameters":`+schema+`}}]`, `"tool_choice":"required"`), `{"name": "f", "parameters": %s}`},
	} {
		for _, open := range []bool{false, true} {
			gen := &fake{script: says("<|eot_id|>")}
			gen.guided = func(guide *engine.Constraint) {
				for text, want := range map[string]bool{
					`{"city":"x"}`:          true,
					`{"city":"x","more":1}`: open,
					`", "`:                  open && tt.name != "a tool",
					`{}`:                    false,
				} {
					if got := accepts(t, guide, strings.Replace(tt.form, "%s", text, 1)); got != want {
						t.Errorf("%s, open objects %v: takes %s: %v, want %v", tt.name, open, text, got, want)
					}
				}
			}
			s := newTestServer(gen, func(o *Options) { o.OpenObjects = open })
			s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Template: loadTemplate(t, plainTemplate), Compiler: testCompiler})
			if got := post(t, s, tt.path, tt.body); got.status != 200 {
				t.Errorf("%s: %d %s", tt.name, got.status, got.body)
			}
		}
	}
}
