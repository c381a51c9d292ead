package chat

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/engine/grammar"
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
	// Prefix follows the prompt, as if the model had begun its answer
	// with it; the Parser must read it first.
	Prefix string
	// Grammar holds for the whole answer after Prefix; Kind "" if the model
	// may also answer in words, and then Triggers tell when it does not.
	Grammar  Grammar
	Triggers []Trigger
}

// Trigger starts a grammar in the middle of free text. The engine looks for
// Text in the output as for a stop string, special tokens spelled out. Behind
// its last byte the output must match Grammar. Bytes of the same token after
// Text are given to the matcher first, in any tokenization; if it refuses
// them, or fails to compile, the text goes on free: the Parser copes. What is
// triggered first holds to the end of the answer.
type Trigger struct {
	Text    string
	AtStart bool // only where nothing but white space came before
	Grammar Grammar
}

// Format is how a model writes its answers.
type Format struct {
	Name      string // of the form of its calls
	Reasoning Reasoning
}

// The formats, each with an example of a call of f with {"a": 1}.
var (
	formatTGI         = &Format{Name: "tgi"}          // {"function": {"_name": "f", "a": 1}}, TGI's, or as Llama: for models with no form of their own
	formatLlama       = &Format{Name: "llama"}        // {"name": "f", "parameters": {"a": 1}}, sometimes after <|python_tag|>
	formatHermes      = &Format{Name: "hermes"}       // <tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>, also Qwen's
	formatMistral     = &Format{Name: "mistral"}      // [TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]
	formatMistralArgs = &Format{Name: "mistral-args"} // [TOOL_CALLS]f[ARGS]{"a": 1}
)

// Texts that begin or end calls.
const (
	hermesOpen  = "<tool_call>"
	hermesClose = "</tool_call>"
	mistralOpen = "[TOOL_CALLS]"
	mistralArgs = "[ARGS]"
	pythonTag   = "<|python_tag|>"
)

// maxSchemas bounds the bytes of the schemas of all tools. Beyond it calls
// cannot be held to them.
const maxSchemas = 1 << 20

// Constraint returns how to hold the answer to calls of the selected tools. A
// required call is constrained from its first byte, a voluntary one from where
// the model begins it. The error is for the client: a tool's schema cannot be
// enforced. The arguments of a voluntary call may be any then.
func (s Selection) Constraint(f *Format) (Constraint, error) {
	if len(s.Tools) == 0 {
		return Constraint{}, nil
	}
	bytes := 0
	for _, t := range s.Tools {
		bytes += len(t.Parameters)
	}
	if bytes > maxSchemas {
		if !s.Required {
			return Constraint{}, nil
		}
		return Constraint{}, toolError("tools: their parameters have %d bytes, the limit is %d", bytes, maxSchemas)
	}
	w := larkWriter{parallel: s.Parallel}
	for i := range s.Tools {
		t := &s.Tools[i]
		tool, err := t.lark(f, s.OpenObjects)
		if err != nil && s.Required {
			return Constraint{}, toolError("tools[%d].function.parameters%v", t.Index, err)
		}
		w.tools = append(w.tools, tool)
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
	inlined string // of TGI's object, which has the name and the arguments; "": the form is not for this tool
}

// anyObject is the schema of any arguments.
const anyObject = `{"type":"object"}`

// lark returns the schemas of a tool's calls, in their normal form. With an
// error they are those of any arguments.
func (t *Tool) lark(f *Format, open bool) (larkTool, error) {
	tool := larkTool{name: t.Name}
	o := grammar.SchemaOptions{Open: open, Object: true}
	var err error
	parameters := string(t.Parameters)
	if tool.schema, err = grammar.NormalizeSchema(parameters, o); err != nil {
		parameters = anyObject
		tool.schema = anyObject
	}
	if f.Name != formatTGI.Name {
		return tool, err
	}
	// The member that has the name stands among the arguments. Where one of
	// these is called like it, only the other form can tell them apart.
	o.Member, o.Value = inlineName, t.Name
	inlined, fault := grammar.NormalizeSchema(parameters, o)
	if fault == nil {
		tool.inlined = inlined
	} else if !errors.Is(fault, grammar.ErrMemberTaken) && err == nil {
		err = fault
	}
	return tool, err
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

// calls are the forms in which nothing announces a call of formatTGI.
func (w *larkWriter) calls() string {
	if !w.hasInlined() {
		return namedCall
	}
	return inlinedCall + " | " + namedCall
}

func (w *larkWriter) hasInlined() bool {
	return slices.ContainsFunc(w.tools, func(t larkTool) bool { return t.inlined != "" })
}

// required returns the rules for an answer that is nothing but calls.
func (w *larkWriter) required(f *Format) (prefix string, r rules) {
	switch f.Name {
	case formatLlama.Name:
		return "", w.bare(namedCall, "")
	case formatHermes.Name:
		return "", rules{w.several("call", `"\n" call`), hermesCall()}
	case formatMistral.Name:
		return mistralOpen, w.list()
	case formatMistralArgs.Name:
		return mistralOpen, w.args()
	}
	return "", w.bare(w.calls(), "")
}

// Calls in the forms that nothing announces.
const (
	namedCall   = `"{\"name\": " named_parameters "}"`
	inlinedCall = `"{\"function\": " inlined "}"`
)

// triggers returns the rules for what follows each beginning of a call.
func (w *larkWriter) triggers(f *Format) []triggerRules {
	switch f.Name {
	case formatLlama.Name:
		return []triggerRules{
			{pythonTag, false, w.bare(namedCall, "")},
			{`{"name":`, true, w.bare(namedCall, `" "? named_parameters "}"`)},
		}
	case formatHermes.Name:
		first := `"\n"? "{\"name\": " named_arguments "}\n` + hermesClose + `"`
		return []triggerRules{{hermesOpen, false, rules{w.several(first, `"\n" call`), hermesCall()}}}
	case formatMistral.Name:
		return []triggerRules{{mistralOpen, false, w.list()}}
	case formatMistralArgs.Name:
		return []triggerRules{{mistralOpen, false, w.args()}}
	}
	named := triggerRules{`{"name":`, true, w.bare(w.calls(), `" "? named_parameters "}"`)}
	if !w.hasInlined() {
		return []triggerRules{named}
	}
	return []triggerRules{{`{"function":`, true, w.bare(w.calls(), `" "? inlined "}"`)}, named}
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
				if t.inlined != "" {
					alternatives = append(alternatives, fmt.Sprintf("inlined_%d", i))
				}
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
