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
	// Grammar holds for the whole answer; Kind "" if the model may also answer
	// in words, and then Triggers tell when it does not.
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
	if f.Calls.Begin == "" && f.Calls.Open == "" && !f.Reasoning.Channels && f.Name != formatTGI.Name {
		if !s.Required {
			return Constraint{}, nil
		}
		return Constraint{}, toolError("the model's response_template does not tell how a call is written, so that none can be required")
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
	w := &larkWriter{format: f, form: &f.Calls, parallel: s.Parallel}
	for i := range s.Tools {
		t := &s.Tools[i]
		tool, err := t.lark(f, s.OpenObjects)
		if form := w.add(tool); form != nil && err == nil {
			err = fmt.Errorf(": %w", form)
		}
		if err != nil && s.Required {
			return Constraint{}, toolError("tools[%d].function.parameters%v", t.Index, err)
		}
	}
	if s.Required {
		return w.required(), nil
	}
	return Constraint{Triggers: w.triggers()}, nil
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
	format   *Format
	form     *CallForm
	parallel bool

	tools   []string          // their names
	bodies  []string          // of the calls of each tool, without Begin
	inlined []string          // of TGI's objects
	rules   []string          // that all of them need, and
	names   map[string]string // theirs, by what they say
}

// rule returns the name of a rule that says body, or of a terminal if prefix is
// in capitals.
func (w *larkWriter) rule(prefix, body string) string {
	if name, ok := w.names[prefix+body]; ok {
		return name
	}
	if w.names == nil {
		w.names = map[string]string{}
	}
	name := fmt.Sprintf("%s_%d", prefix, len(w.rules))
	w.names[prefix+body] = name
	w.rules = append(w.rules, name+": "+body)
	return name
}

// add adds a tool. The error says that its arguments cannot be written in the
// model's form; they are any then.
func (w *larkWriter) add(t larkTool) error {
	w.tools = append(w.tools, t.name)
	if w.format.Name == formatTGI.Name || w.format.Name == formatLlama.Name {
		arguments := w.rule("arguments", "%json "+t.schema)
		w.bodies = append(w.bodies, w.text(t.name+`", "parameters": `)+" "+arguments+` "}"`)
		if t.inlined != "" {
			w.inlined = append(w.inlined, w.rule("inlined", "%json "+t.inlined))
		}
		return nil
	}
	arguments, err := w.arguments(t.schema)
	if err != nil {
		arguments, _ = w.arguments(anyObject)
	}
	if w.format.Reasoning.Channels {
		w.bodies = append(w.bodies, w.text(t.name)+" channel_middle "+arguments)
		return err
	}
	w.bodies = append(w.bodies, join(w.text(t.name+w.form.Middle), arguments, w.text(w.form.End)))
	return err
}

// arguments returns the rule for arguments of a schema in its normal form.
func (w *larkWriter) arguments(schema string) (string, error) {
	switch w.form.Arguments {
	case TagArguments:
		return w.tagArguments(schema)
	case PythonArguments:
		return w.pythonArguments(schema)
	case GemmaArguments:
		return w.gemmaArguments(schema)
	}
	return w.rule("arguments", "%json "+schema), nil
}

// join joins what is not empty.
func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " ")
}

// text returns an expression for a text. Special tokens, which no text spells,
// are named by their ids.
func (w *larkWriter) text(text string) string {
	var out []string
	for i, part := range strings.Split(text, "{id}") {
		if i > 0 {
			pattern := "[A-Za-z0-9]{1,24}"
			if w.form.IDs != "" {
				pattern = w.form.IDs
			}
			out = append(out, "/"+pattern+"/")
		}
		for part != "" {
			at, token := len(part), ""
			for special := range w.format.special {
				if n := strings.Index(part, special); n >= 0 && (n < at || n == at && len(special) > len(token)) {
					at, token = n, special
				}
			}
			if at > 0 {
				out = append(out, quoted(part[:at]))
			}
			if token != "" {
				out = append(out, fmt.Sprintf("<[%d]>", w.format.special[token]))
			}
			part = part[at+len(token):]
		}
	}
	return strings.Join(out, " ")
}

// several allows more after the first where a request allows several calls.
func (w *larkWriter) several(first, more string) string {
	if !w.parallel {
		return first
	}
	return first + " (" + more + ")*"
}

// afterMarker returns an expression for a text whose beginning was read; white
// space right after it may be any.
func (w *larkWriter) afterMarker(text, marker string) string {
	rest := strings.TrimPrefix(text, marker)
	inked := strings.TrimLeft(rest, " \n")
	if len(inked) < len(rest) {
		return join(`/[ \n]{0,2}/`, w.text(inked))
	}
	return w.text(rest)
}

// required returns the constraint of an answer that is nothing but calls.
func (w *larkWriter) required() Constraint {
	f := w.form
	switch {
	case w.format.Reasoning.Channels:
		return Constraint{Grammar: w.grammar(`channel_analysis? (` + w.text("<|channel|>commentary to=functions.") + ` | " to=functions.") body`)}
	case w.format.Name == formatTGI.Name:
		return Constraint{Grammar: w.grammar(w.several("call", `/\n|; ?/ call`))}
	}
	open := ""
	if f.Open != "" {
		open = join(w.text(f.Marker), w.afterMarker(f.Open, f.Marker))
	}
	return Constraint{Grammar: w.grammar(join(open, w.several("call", join(w.text(f.Between+f.Begin), "body")), w.text(f.Close)))}
}

// triggers returns what a voluntary call is recognized by.
func (w *larkWriter) triggers() (all []Trigger) {
	f := w.form
	add := func(text string, atStart bool, start string) {
		all = append(all, Trigger{text, atStart, w.grammar(start)})
	}
	switch {
	case w.format.Reasoning.Channels:
		add("<|channel|>commentary to=functions.", false, "body")
		add("<|start|>assistant to=functions.", false, "body")
		add("to=functions.", true, "body")
	case w.format.Name == formatTGI.Name:
		if len(w.inlined) > 0 {
			add(`{"function":`, true, w.several(`" "? inlined "}"`, `/\n|; ?/ call`))
		}
		fallthrough
	case w.format.Name == formatLlama.Name:
		if w.format.Name == formatLlama.Name {
			add(pythonTag, false, w.several("call", `/\n|; ?/ call`))
		}
		add(`{"name":`, true, w.several(`" "? "\"" body`, `/\n|; ?/ call`))
	case f.Marker == "": // a list of Python: the first name tells
		for i, body := range w.bodies {
			name := w.tools[i] + f.Middle
			arguments := strings.TrimPrefix(body, quoted(name))
			add(f.Open+name, true, join(w.several(arguments, w.text(f.Between)+" body"), w.text(f.Close)))
		}
	default:
		first := "call"
		if f.Open == "" {
			first = join(w.afterMarker(f.Begin, f.Marker), "body")
		}
		open := ""
		if f.Open != "" {
			open = w.afterMarker(f.Open, f.Marker)
		}
		add(f.Marker, f.AtStart, join(open, w.several(first, join(w.text(f.Between+f.Begin), "body")), w.text(f.Close)))
	}
	return all
}

// grammar writes a grammar that begins with start.
func (w *larkWriter) grammar(start string) Grammar {
	var b strings.Builder
	fmt.Fprintf(&b, "start: %s\n", start)
	used := strings.FieldsFunc(start, func(c rune) bool { return strings.ContainsRune(" ()?*|", c) })
	uses := func(name string) bool { return slices.Contains(used, name) }
	if uses("call") {
		call := join(w.text(w.form.Begin), "body")
		if w.format.Name == formatTGI.Name {
			call = `"{\"name\": \"" body`
			if len(w.inlined) > 0 {
				call = `"{\"function\": " inlined "}" | ` + call
			}
		}
		fmt.Fprintf(&b, "call: %s\n", call)
	}
	if len(w.inlined) > 0 && (uses("inlined") || uses("call")) {
		fmt.Fprintf(&b, "inlined: %s\n", strings.Join(w.inlined, " | "))
	}
	fmt.Fprintf(&b, "body: %s\n", strings.Join(w.bodies, " | "))
	if w.format.Reasoning.Channels {
		var middles []string
		for _, middle := range []string{" <|constrain|>json<|message|>", "<|channel|>commentary json<|message|>", "<|channel|>commentary <|constrain|>json<|message|>", "<|message|>"} {
			middles = append(middles, w.text(middle))
		}
		fmt.Fprintf(&b, "channel_middle: %s\n", strings.Join(middles, " | "))
		if uses("channel_analysis") {
			fmt.Fprintf(&b, "channel_analysis: %s\n", join(w.text("<|channel|>analysis<|message|>"), w.until("<|end|>"), w.text("<|start|>assistant")))
		}
	}
	for _, r := range w.rules {
		b.WriteString(r + "\n")
	}
	return Grammar{Kind: Lark, Text: b.String()}
}
