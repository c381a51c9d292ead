package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// value returns what a region says, as JSON: its text read by the field's
// parser, and put into the form that the transform has.
func (r *region) value() (json.RawMessage, error) {
	f := r.field
	v, err := f.args.parse(f.content, r.body)
	if err != nil || f.transform == nil {
		return v, err
	}
	scope := map[string]json.RawMessage{}
	for name, text := range r.captures {
		scope[name] = appendString(nil, text)
	}
	if !f.each {
		scope["content"] = v
		return transformed(f.transform, scope)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(v, &list); err != nil {
		return nil, err
	}
	out := []byte("[")
	for i, element := range list {
		with := map[string]json.RawMessage{}
		for name, value := range scope {
			with[name] = value
		}
		if bytes.TrimSpace(element)[0] != '{' {
			return nil, errors.New("an element is not an object")
		}
		for _, m := range objectMembers(element) {
			with[m.key] = m.value
		}
		one, err := transformed(f.transform, with)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, one...)
	}
	return append(out, ']'), nil
}

// transformed replaces the placeholders of a transform.
func transformed(raw json.RawMessage, scope map[string]json.RawMessage) (json.RawMessage, error) {
	raw = bytes.TrimSpace(raw)
	switch raw[0] {
	case '{':
		out := []byte("{")
		for i, m := range objectMembers(raw) {
			v, err := transformed(m.value, scope)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				out = append(out, ", "...)
			}
			out = append(append(appendString(out, m.key), ": "...), v...)
		}
		return append(out, '}'), nil
	case '[':
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, err
		}
		for i := range list {
			v, err := transformed(list[i], scope)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return slices.Concat([]byte("["), bytes.Join(rawBytes(list), []byte(", ")), []byte("]")), nil
	}
	m := placeholder.FindSubmatch(raw)
	if m == nil || len(m[0])+2 != len(raw) {
		return raw, nil
	}
	path := strings.Split(string(m[1]), ".")
	v, ok := scope[path[0]]
	for _, key := range path[1:] {
		if !ok {
			break
		}
		list := objectMembers(v)
		ok = false
		for _, m := range list { // the last of two of one name counts
			if m.key == key {
				v, ok = m.value, true
			}
		}
	}
	if !ok {
		return nil, fmt.Errorf("there is no %s", m[1])
	}
	return v, nil
}

func rawBytes(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}

func (a *contentArgs) strip(text string) string {
	if a.Strip != nil && !*a.Strip {
		return text
	}
	return strings.TrimSpace(text)
}

// parse reads text with a parser.
func (a *contentArgs) parse(parser, text string) (json.RawMessage, error) {
	switch parser {
	case "int":
		n, err := strconv.ParseInt(a.strip(text), 10, 64)
		return strconv.AppendInt(nil, n, 10), err
	case "float":
		n, err := strconv.ParseFloat(a.strip(text), 64)
		if err == nil && (math.IsInf(n, 0) || math.IsNaN(n)) {
			err = errors.New("no JSON number")
		}
		return strconv.AppendFloat(nil, n, 'g', -1, 64), err
	case "bool":
		word := strings.ToLower(a.strip(text))
		return strconv.AppendBool(nil, word == "true" || word == "1"), nil
	case "json":
		return a.json(text)
	case "xml-inline":
		return a.tags(text)
	case "kv-lines":
		return a.lines(text)
	case "python-call-list":
		return pythonCalls(text)
	}
	return appendString(nil, a.strip(text)), nil
}

func (a *contentArgs) sub(text string) (json.RawMessage, error) {
	if a.ValueParser == nil {
		return appendString(nil, text), nil
	}
	name := a.ValueParser.Name
	if name == "" {
		name = "text"
	}
	return a.ValueParser.Args.parse(name, text)
}

var bareKey = regexp.MustCompile(`"(?:\\.|[^"\\])*"|([{,])(\s*)([\p{L}\p{N}_]+)(\s*):`)

// json reads JSON in the dialect of the arguments.
func (a *contentArgs) json(text string) (json.RawMessage, error) {
	working := text
	var captured []string
	for _, pair := range a.StringDelims {
		var b strings.Builder
		for {
			before, rest, ok := strings.Cut(working, pair[0])
			body, after, closed := strings.Cut(rest, pair[1])
			if !ok || !closed {
				break
			}
			// A string of its own, until names without quotes have been found.
			fmt.Fprintf(&b, "%s\"\x01%d\x01\"", before, len(captured))
			captured = append(captured, body)
			working = after
		}
		working = b.String() + working
	}
	if a.UnquotedKeys {
		working = bareKey.ReplaceAllStringFunc(working, func(m string) string {
			if m[0] == '"' {
				return m
			}
			parts := bareKey.FindStringSubmatch(m)
			return parts[1] + parts[2] + `"` + parts[3] + `"` + parts[4] + ":"
		})
	}
	for i, s := range captured {
		working = strings.ReplaceAll(working, fmt.Sprintf("\"\x01%d\x01\"", i), quoted(s))
	}
	if trimmed := []byte(strings.TrimSpace(working)); json.Valid(trimmed) {
		return trimmed, nil
	}
	if a.AllowNonJSON {
		return appendString(nil, a.strip(text)), nil
	}
	return nil, errors.New("not JSON")
}

// tags reads shallow tags into an object.
func (a *contentArgs) tags(text string) (json.RawMessage, error) {
	var order []string
	values := map[string][]json.RawMessage{}
	key, value := a.tag.SubexpIndex("key"), a.tag.SubexpIndex("value")
	for _, m := range a.tag.FindAllStringSubmatch(text, -1) {
		v, err := a.sub(m[value])
		if err != nil {
			return nil, err
		}
		name := m[key]
		if values[name] == nil {
			order = append(order, name)
		}
		if !a.Merge {
			values[name] = nil
		}
		values[name] = append(values[name], v)
	}
	return object(order, values), nil
}

// object returns an object of values by name: a list where there are several.
func object(order []string, values map[string][]json.RawMessage) json.RawMessage {
	out := []byte("{")
	for i, name := range order {
		if i > 0 {
			out = append(out, ", "...)
		}
		out = append(appendString(out, name), ": "...)
		if list := values[name]; len(list) == 1 {
			out = append(out, list[0]...)
		} else {
			out = append(append(append(out, '['), bytes.Join(rawBytes(list), []byte(", "))...), ']')
		}
	}
	return append(out, '}')
}

// lines reads lines of a key and a value.
func (a *contentArgs) lines(text string) (json.RawMessage, error) {
	line, separator := "\n", ":"
	if a.LineSep != nil {
		line = *a.LineSep
	}
	if a.KVSep != nil {
		separator = *a.KVSep
	}
	if line == "" || separator == "" {
		return nil, errors.New("an empty separator")
	}
	var order []string
	values := map[string][]json.RawMessage{}
	for l := range strings.SplitSeq(text, line) {
		k, v, ok := strings.Cut(a.strip(l), separator)
		if !ok {
			continue
		}
		value, err := a.sub(a.strip(v))
		if err != nil {
			return nil, err
		}
		k = a.strip(k)
		if values[k] == nil {
			order = append(order, k)
		}
		values[k] = []json.RawMessage{value}
	}
	return object(order, values), nil
}

// pythonCalls reads a list of calls in Python's notation.
func pythonCalls(text string) (json.RawMessage, error) {
	l := &literals{text: text}
	if !l.take("[") {
		return nil, errLiteral
	}
	l.out = append(l.out, '[')
	err := l.list("]", func() error {
		l.space()
		name := pythonName.FindString(l.text[l.at:])
		l.at += len(name)
		if name == "" || !l.take("(") {
			return errLiteral
		}
		l.out = append(appendString(append(l.out, `{"name": `...), name), `, "arguments": `...)
		err := l.arguments(")")
		l.out = append(l.out, '}')
		return err
	})
	if err == nil {
		err = l.end()
	}
	return append(l.out, ']'), err
}

// templateCall returns the call that a value is, as tool_calls have it.
func templateCall(v json.RawMessage, tools map[string]*Tool) (c Call, ok bool) {
	var call struct {
		ID       string          `json:"id"`
		Function json.RawMessage `json:"function"`
	}
	var function struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	}
	if json.Unmarshal(v, &call) != nil {
		return c, false
	}
	if call.Function == nil {
		call.Function = v
	}
	if json.Unmarshal(call.Function, &function) != nil || tools[function.Name] == nil {
		return c, false
	}
	args := "{}"
	if len(function.Arguments) > 0 && string(function.Arguments) != "null" {
		if args, ok = asObject(string(function.Arguments)); !ok {
			return c, false
		}
	}
	return Call{ID: call.ID, Name: function.Name, Arguments: tools[function.Name].coerce(args)}, true
}

// coerce casts arguments that are strings to the types that the tool's schema
// has for them, as transformers does.
func (t *Tool) coerce(args string) string {
	var root schemaNode
	if json.Unmarshal(t.Parameters, &root) != nil {
		return args
	}
	types := map[string][]string{}
	root.properties(&root, 0, func(name string, s *schemaNode) { types[name] = append(types[name], s.names(&root, 0)...) })
	changed := false
	out := []byte("{")
	for i, m := range objectMembers(json.RawMessage(args)) {
		if i > 0 {
			out = append(out, ", "...)
		}
		v := m.value
		if text, isString := scalar(v); isString && types[m.key] != nil {
			if cast, ok := cast(text, types[m.key]); ok {
				v, changed = cast, true
			}
		}
		out = append(append(appendString(out, m.key), ": "...), v...)
	}
	if !changed {
		return args
	}
	return string(append(out, '}'))
}

// names returns the types that s names, in order.
func (s *schemaNode) names(root *schemaNode, depth int) (all []string) {
	switch t := s.Type.(type) {
	case string:
		all = append(all, t)
	case []any:
		for _, name := range t {
			if name, ok := name.(string); ok {
				all = append(all, name)
			}
		}
	}
	if depth < maxReferred {
		s.parts(root, func(part *schemaNode) { all = append(all, part.names(root, depth+1)...) })
	}
	if s.Nullable && !slices.Contains(all, "null") {
		all = append(all, "null")
	}
	return all
}

// cast returns text as the first of some types that it can be, in JSON.
func cast(text string, types []string) (json.RawMessage, bool) {
	trimmed := strings.TrimSpace(text)
	for _, name := range types {
		switch name {
		case "integer":
			if n, err := strconv.ParseInt(trimmed, 10, 64); err == nil {
				return strconv.AppendInt(nil, n, 10), true
			}
			if f, err := strconv.ParseFloat(trimmed, 64); err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<62 {
				return strconv.AppendInt(nil, int64(f), 10), true
			}
		case "number":
			f, err := strconv.ParseFloat(trimmed, 64)
			if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
				continue
			}
			if f == math.Trunc(f) && !strings.Contains(text, ".") && math.Abs(f) < 1<<62 {
				return strconv.AppendInt(nil, int64(f), 10), true
			}
			return strconv.AppendFloat(nil, f, 'g', -1, 64), true
		case "boolean":
			switch strings.ToLower(trimmed) {
			case "true", "1":
				return json.RawMessage("true"), true
			case "false", "0":
				return json.RawMessage("false"), true
			}
		case "null":
			if trimmed == "null" || trimmed == "None" {
				return json.RawMessage("null"), true
			}
		case "object", "array":
			if json.Valid([]byte(trimmed)) && trimmed[0] == map[string]byte{"object": '{', "array": '['}[name] {
				return json.RawMessage(trimmed), true
			}
		}
	}
	return nil, false
}
