package chat

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// GrammarKind is the language that a grammar is written in, by llguidance's name.
type GrammarKind string

// The languages.
const (
	JSONSchema GrammarKind = "json_schema"
	Regex      GrammarKind = "regex"
	Lark       GrammarKind = "lark" // llguidance's Lark, with %json for schemas
)

// Grammar describes the texts that are allowed.
type Grammar struct {
	Kind GrammarKind
	Text string
}

// Constraint is what holds the output of a request with tools to calls.
type Constraint struct {
	// Prefix stands behind the prompt, as if the model had begun its answer
	// with it; the Parser must read it first.
	Prefix string
	// Grammar holds for the whole answer behind Prefix; Kind "" if the model
	// may also answer in words, and then Triggers tell when it does not.
	Grammar  Grammar
	Triggers []Trigger
}

// Trigger starts a grammar in the middle of free text. The engine looks for
// Text in the output as for a stop string, special tokens spelled out. Behind
// its last byte the output must match Grammar. Bytes of the same token behind
// Text are given to the matcher first, in any tokenization; if it refuses
// them, or fails to compile, the text goes on free: the Parser copes. What is
// triggered first holds to the end of the answer.
type Trigger struct {
	Text    string
	AtStart bool // only where nothing but white space came before
	Grammar Grammar
}

// Format is how a model writes calls.
type Format int

// The formats, each with an example of a call of f with {"a": 1}.
const (
	FormatTGI         Format = iota // {"function": {"_name": "f", "a": 1}}, TGI's, or as Llama: for models with no form of their own
	FormatLlama                     // {"name": "f", "parameters": {"a": 1}}, sometimes behind <|python_tag|>
	FormatHermes                    // <tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>, also Qwen's
	FormatMistral                   // [TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]
	FormatMistralArgs               // [TOOL_CALLS]f[ARGS]{"a": 1}
)

// Texts that begin or end calls.
const (
	hermesOpen  = "<tool_call>"
	hermesClose = "</tool_call>"
	mistralOpen = "[TOOL_CALLS]"
	mistralArgs = "[ARGS]"
	pythonTag   = "<|python_tag|>"
)

// Constraint returns how to hold the answer to calls of the selected tools. A
// required call is constrained from its first byte, a voluntary one from where
// the model begins it. The error is for the client: a tool's schema is none
// for an object.
func (s Selection) Constraint(f Format) (Constraint, error) {
	if len(s.Tools) == 0 {
		return Constraint{}, nil
	}
	w := larkWriter{parallel: s.Parallel}
	for _, t := range s.Tools {
		schema, err := t.argumentSchema(false)
		if err != nil {
			return Constraint{}, err
		}
		inlined := ""
		if f == FormatTGI {
			if inlined, err = t.argumentSchema(true); err != nil {
				return Constraint{}, err
			}
		}
		w.tools = append(w.tools, larkTool{t.Name, schema, inlined})
	}
	if s.Required {
		prefix, start := w.required(f)
		return Constraint{Prefix: prefix, Grammar: w.grammar(start)}, nil
	}
	var c Constraint
	for _, t := range w.triggers(f) {
		c.Triggers = append(c.Triggers, Trigger{t.text, t.atStart, w.grammar(t.start)})
	}
	return c, nil
}

// larkTool is a tool as the grammars need it.
type larkTool struct {
	name    string
	schema  string // of the arguments
	inlined string // of TGI's object, which has the name and the arguments
}

// larkWriter writes the Lark grammars of a set of tools.
type larkWriter struct {
	tools    []larkTool
	parallel bool
}

// rules are the right sides of the rules that a grammar begins with.
type rules struct{ start, call string }

type triggerRules struct {
	text    string
	atStart bool
	start   rules
}

// required returns the rules for an answer that is nothing but calls.
func (w *larkWriter) required(f Format) (prefix string, r rules) {
	switch f {
	case FormatLlama:
		return "", w.bare(namedCall, "")
	case FormatHermes:
		return "", rules{w.several("call", `"\n" call`), hermesCall()}
	case FormatMistral:
		return mistralOpen, w.list()
	case FormatMistralArgs:
		return mistralOpen, w.args()
	}
	return "", w.bare(inlinedCall+" | "+namedCall, "")
}

// Calls in the forms that nothing announces.
const (
	namedCall   = `"{\"name\": " named_parameters "}"`
	inlinedCall = `"{\"function\": " inlined "}"`
)

// triggers returns the rules for what follows each beginning of a call.
func (w *larkWriter) triggers(f Format) []triggerRules {
	switch f {
	case FormatLlama:
		return []triggerRules{
			{pythonTag, false, w.bare(namedCall, "")},
			{`{"name":`, true, w.bare(namedCall, `" "? named_parameters "}"`)},
		}
	case FormatHermes:
		first := `"\n"? "{\"name\": " named_arguments "}\n` + hermesClose + `"`
		return []triggerRules{{hermesOpen, false, rules{w.several(first, `"\n" call`), hermesCall()}}}
	case FormatMistral:
		return []triggerRules{{mistralOpen, false, w.list()}}
	case FormatMistralArgs:
		return []triggerRules{{mistralOpen, false, w.args()}}
	}
	return []triggerRules{
		{`{"function":`, true, w.bare(inlinedCall+" | "+namedCall, `" "? inlined "}"`)},
		{`{"name":`, true, w.bare(inlinedCall+" | "+namedCall, `" "? named_parameters "}"`)},
	}
}

func hermesCall() string {
	return quoted(hermesOpen+"\n") + ` "{\"name\": " named_arguments ` + quoted("}\n"+hermesClose)
}

// bare is for objects that nothing announces: one a line. first is the rule
// of a first object whose beginning was read, "" if it is like the others.
func (w *larkWriter) bare(call, first string) rules {
	if first == "" {
		first = "call"
	}
	return rules{w.several(first, `/\n|; ?/ call`), call}
}

func (w *larkWriter) list() rules {
	call := `"{\"name\": " named_arguments "}"`
	return rules{`" "? "[" ` + w.several("call", `", " call`) + ` "]"`, call}
}

func (w *larkWriter) args() rules {
	return rules{w.several("call", quoted(mistralOpen)+" call"), "named"}
}

// several allows more after the first where a request allows several calls.
func (w *larkWriter) several(first, more string) string {
	if !w.parallel {
		return first
	}
	return first + " (" + more + ")*"
}

// grammar writes the rules that r leads to.
func (w *larkWriter) grammar(r rules) Grammar {
	var b strings.Builder
	fmt.Fprintf(&b, "start: %s\n", r.start)
	used := r.start + " " + r.call
	if strings.Contains(used, "call") {
		fmt.Fprintf(&b, "call: %s\n", r.call)
	}
	for _, form := range []struct{ rule, before, between string }{
		{"named_parameters", "", `, "parameters": `},
		{"named_arguments", "", `, "arguments": `},
		{"named", "", mistralArgs},
		{"inlined", "", ""},
	} {
		if !slices.Contains(strings.Fields(used), form.rule) {
			continue
		}
		var alternatives []string
		for i, t := range w.tools {
			arguments := fmt.Sprintf("arguments_%d", i)
			switch form.rule {
			case "inlined": // the name is inside the schema
				alternatives = append(alternatives, fmt.Sprintf("inlined_%d", i))
			case "named":
				alternatives = append(alternatives, quoted(t.name+form.between)+" "+arguments)
			default:
				alternatives = append(alternatives, quoted(quoted(t.name)+form.between)+" "+arguments)
			}
		}
		fmt.Fprintf(&b, "%s: %s\n", form.rule, strings.Join(alternatives, " | "))
	}
	for i, t := range w.tools {
		fmt.Fprintf(&b, "arguments_%d: %%json %s\n", i, t.schema)
		if t.inlined != "" {
			fmt.Fprintf(&b, "inlined_%d: %%json %s\n", i, t.inlined)
		}
	}
	return Grammar{Kind: Lark, Text: b.String()}
}

// whiteSpace lets JSON have one space where it may have any: a weak model
// would go on with blanks for ever. TGI's grammars allow the same.
const whiteSpace = `"x-guidance": {"whitespace_pattern": " ?"}`

// argumentSchema returns the JSON schema of a call's arguments. With inlineName
// it is that of TGI's object, which has the tool's name as `_name` before them.
func (t *Tool) argumentSchema(inlineName bool) (string, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(t.Parameters, &top); err != nil {
		return "", toolError("parameters of %s: %v", t.Name, err)
	}
	if kind, ok := top["type"]; ok && string(kind) != `"object"` {
		return "", toolError("parameters of %s: type is %s, expected \"object\"", t.Name, kind)
	}
	delete(top, "x-guidance") // settings of the grammar engine, not a client's to make
	top["type"] = json.RawMessage(`"object"`)
	if inlineName {
		if err := t.inlineName(top); err != nil {
			return "", err
		}
	}
	var b strings.Builder
	b.WriteString("{" + whiteSpace)
	keys := make([]string, 0, len(top))
	for key := range top {
		keys = append(keys, key)
	}
	slices.Sort(keys) // the order of a schema's keywords has no meaning
	for _, key := range keys {
		b.WriteString(", " + quoted(key) + ": ")
		b.Write(top[key])
	}
	b.WriteString("}")
	return b.String(), nil
}

// inlineName adds the member `_name` to an object's schema, before all others.
func (t *Tool) inlineName(schema map[string]json.RawMessage) error {
	name := `"_name": {"const": ` + quoted(t.Name) + `}`
	members, ok := strings.CutPrefix(strings.TrimSpace(string(schema["properties"])), "{")
	switch {
	case !ok && len(schema["properties"]) > 0:
		return toolError("parameters of %s: properties is not an object", t.Name)
	case !ok || strings.TrimSpace(members) == "}":
		members = name + "}"
	default:
		members = name + ", " + members
	}
	schema["properties"] = json.RawMessage("{" + members)
	required := []string{"_name"}
	if r, ok := schema["required"]; ok {
		var more []string
		if err := json.Unmarshal(r, &more); err != nil {
			return toolError("parameters of %s: required is not a list of names", t.Name)
		}
		required = append(required, more...)
	}
	list, err := json.Marshal(required)
	schema["required"] = list
	// TGI's own default; otherwise whatever follows the name would be allowed.
	if _, ok := schema["additionalProperties"]; !ok {
		schema["additionalProperties"] = json.RawMessage("false")
	}
	return err
}
