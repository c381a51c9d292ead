package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// objectMember is a member of a JSON object, in its order.
type objectMember struct {
	key   string
	value json.RawMessage
}

// objectMembers reads a JSON object. Anything else has none.
func objectMembers(raw json.RawMessage) (list []objectMember) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for d.More() {
		var m objectMember
		t, err := d.Token()
		if err != nil || d.Decode(&m.value) != nil {
			return list
		}
		m.key, _ = t.(string)
		list = append(list, m)
	}
	return list
}

// argumentSchema is a schema in the normal form of package grammar.
type argumentSchema struct {
	raw        json.RawMessage
	Ref        string                     `json:"$ref"`
	Type       typeList                   `json:"type"`
	AnyOf      []json.RawMessage          `json:"anyOf"`
	Enum       []json.RawMessage          `json:"enum"`
	Properties json.RawMessage            `json:"properties"`
	Patterns   json.RawMessage            `json:"patternProperties"`
	Required   []string                   `json:"required"`
	Additional json.RawMessage            `json:"additionalProperties"`
	MinMembers int                        `json:"minProperties"`
	MaxMembers *int                       `json:"maxProperties"`
	Prefix     []json.RawMessage          `json:"prefixItems"`
	Items      json.RawMessage            `json:"items"`
	MinItems   int                        `json:"minItems"`
	MaxItems   *int                       `json:"maxItems"`
	MinLength  int                        `json:"minLength"`
	MaxLength  *int                       `json:"maxLength"`
	Pattern    string                     `json:"pattern"`
	Format     string                     `json:"format"`
	AllOf      []json.RawMessage          `json:"allOf"`
	Defs       map[string]json.RawMessage `json:"$defs"`
}

// typeList is the keyword type: a name or a list of them.
type typeList []string

func (t *typeList) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		*t = []string{""}
		return json.Unmarshal(data, &(*t)[0])
	}
	return json.Unmarshal(data, (*[]string)(t))
}

func readSchema(raw json.RawMessage) (*argumentSchema, error) {
	s := &argumentSchema{raw: raw}
	if len(raw) == 0 || raw[0] != '{' { // true
		s.raw = json.RawMessage("{}")
		return s, nil
	}
	return s, json.Unmarshal(raw, s)
}

// schemaWriter writes values of a schema in a notation other than JSON.
type schemaWriter struct {
	*larkWriter
	defs  map[string]json.RawMessage
	known map[string]string // rules of definitions, by their names
	words [3]string         // null, true, false
	comma string            // between two elements
	quote string            // around strings; "" for JSON's
}

func (w *larkWriter) schemaWriter(schema string) (*schemaWriter, *argumentSchema, error) {
	s, err := readSchema(json.RawMessage(schema))
	if err != nil {
		return nil, nil, err
	}
	sw := &schemaWriter{larkWriter: w, defs: s.Defs, known: map[string]string{}, words: [3]string{"null", "true", "false"}, comma: ",", quote: gemmaQuote}
	if w.form.Arguments == PythonArguments {
		sw.words, sw.comma, sw.quote = [3]string{"None", "True", "False"}, ", ", ""
	}
	return sw, s, nil
}

// resolve follows a reference.
func (w *schemaWriter) resolve(s *argumentSchema) (*argumentSchema, error) {
	for range maxReferred {
		name, ok := strings.CutPrefix(s.Ref, "#/$defs/")
		if !ok {
			return s, nil
		}
		var err error
		if s, err = readSchema(w.defs[name]); err != nil {
			return nil, err
		}
	}
	return nil, errNotWritten
}

var errNotWritten = errors.New("the schema cannot be written in the form of the model's calls")

// alternatives calls f for each branch of s, references followed.
func (w *schemaWriter) alternatives(s *argumentSchema, depth int, f func(*argumentSchema) error) error {
	s, err := w.resolve(s)
	switch {
	case err != nil:
		return err
	case depth > maxReferred:
		return errNotWritten
	case s.AnyOf == nil:
		return f(s)
	}
	for _, raw := range s.AnyOf {
		branch, err := readSchema(raw)
		if err == nil {
			err = w.alternatives(branch, depth+1, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// json returns a rule for the JSON of a schema.
func (w *schemaWriter) json(raw json.RawMessage) string {
	body := bytes.TrimSpace(raw)
	inner := strings.TrimSuffix(strings.TrimPrefix(string(body), "{"), "}")
	text := `{"x-guidance":{"whitespace_pattern":" ?"}`
	if inner != "" {
		text += "," + inner
	}
	if strings.Contains(inner, `"$ref"`) {
		defs, _ := json.Marshal(w.defs)
		text += `,"$defs":` + string(defs)
	}
	return w.rule("value", "%json "+text+"}")
}

// hasType reports whether s allows a type; a schema without any allows all.
func (s *argumentSchema) hasType(name string) bool {
	return s.Type == nil && s.Enum == nil || slices.Contains(s.Type, name) || name == "integer" && slices.Contains(s.Type, "number")
}

// withoutTypes returns s without some types, nil if no other is left.
func (s *argumentSchema) withoutTypes(names ...string) json.RawMessage {
	if s.Type == nil {
		return nil
	}
	var rest []string
	for _, t := range s.Type {
		if !slices.Contains(names, t) {
			rest = append(rest, t)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	out := []byte("{")
	for _, m := range objectMembers(s.raw) {
		if m.key == "x-guidance" || m.key == "$defs" {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(appendString(out, m.key), ':')
		if m.key == "type" {
			out = append(out, stringList(rest)...)
		} else {
			out = append(out, m.value...)
		}
	}
	return append(out, '}')
}

// object returns the members that s names, and those that it does not: by the
// pattern of their names, "" for any.
func (s *argumentSchema) object() (named []objectMember, extra []objectMember) {
	named = objectMembers(s.Properties)
	extra = objectMembers(s.Patterns)
	if string(s.Additional) != "false" {
		extra = append(extra, objectMember{value: s.Additional})
	}
	return named, extra
}

// keyPattern returns the terminal of names that are not named: an expression,
// and the pattern that they match.
func (w *schemaWriter) keyPattern(pattern, set string, named []objectMember) string {
	body := "/" + slashes(set) + "/"
	if pattern != "" {
		body += " & /" + slashes(whole(pattern)) + "/"
	}
	if len(named) > 0 {
		var names []string
		for _, m := range named {
			names = append(names, regexp.QuoteMeta(m.key))
		}
		body += " & ~/" + slashes(strings.Join(names, "|")) + "/"
	}
	return w.rule("KEY", body)
}

// slashes escapes what ends a regular expression of Lark.
func slashes(pattern string) string {
	var b strings.Builder
	escaped := false
	for _, c := range pattern {
		switch {
		case c == '\n':
			b.WriteString(`\n`)
		case c == '/' && !escaped:
			b.WriteString(`\/`)
		default:
			b.WriteRune(c)
		}
		escaped = c == '\\' && !escaped
	}
	return b.String()
}

// whole makes a pattern that is searched for one that a text matches as a
// whole, without anchors: the library knows none.
func whole(pattern string) string {
	const any = `(?s:.*)`
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return any + "(?:" + pattern + ")" + any
	}
	for re.Op == syntax.OpCapture {
		re = re.Sub[0]
	}
	branches := []*syntax.Regexp{re}
	if re.Op == syntax.OpAlternate {
		branches = re.Sub
	}
	var out []string
	for _, branch := range branches {
		before, after := any, any
		parts := []*syntax.Regexp{branch}
		if branch.Op == syntax.OpConcat {
			parts = branch.Sub
		}
		for len(parts) > 0 && parts[0].Op == syntax.OpBeginText {
			parts, before = parts[1:], ""
		}
		for len(parts) > 0 && parts[len(parts)-1].Op == syntax.OpEndText {
			parts, after = parts[:len(parts)-1], ""
		}
		var b strings.Builder
		for _, part := range parts {
			b.WriteString("(?:" + part.String() + ")")
		}
		out = append(out, before+b.String()+after)
	}
	return "(?:" + strings.Join(out, "|") + ")"
}

// stringFormats are what texts of a format look like. Others are any text, as
// annotations are.
var stringFormats = map[string]string{
	"date":      `[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])`,
	"time":      `([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])`,
	"date-time": `[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])`,
	"uuid":      `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,
	"ipv4":      `((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`,
	"email":     `[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,24}`,
	"hostname":  `[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*`,
	"uri":       `[a-z][a-z0-9+.-]*://[A-Za-z0-9._~%/?#@!$&'()*+,;=:-]+`,
	"ipv6":      `([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}`,
	"duration":  `P([0-9]+D(T[0-9]+H)?|T[0-9]+[HMS]|[0-9]+W)`,
}

// until returns an expression for any text and the mark that ends it.
func (w *larkWriter) until(end string) string { return w.string(&argumentSchema{}, end) }

// string returns an expression for a string of s as it is, and the mark that
// ends it.
func (w *larkWriter) string(s *argumentSchema, end string) string {
	text := []string{`(?s:.*)`}
	if s.MinLength > 0 || s.MaxLength != nil {
		most := ""
		if s.MaxLength != nil {
			most = fmt.Sprint(*s.MaxLength)
		}
		text = append(text, fmt.Sprintf(`(?s:.{%d,%s})`, s.MinLength, most))
	}
	if s.Pattern != "" {
		text = append(text, whole(s.Pattern))
	}
	for _, raw := range s.AllOf {
		if more, err := readSchema(raw); err == nil && more.Pattern != "" {
			text = append(text, whole(more.Pattern))
		}
	}
	if format := stringFormats[s.Format]; format != "" {
		text = append(text, "(?:"+format+")")
	}
	if len(text) > 1 {
		text = text[1:]
	}
	mark := strings.TrimSpace(end)
	lead, _, _ := strings.Cut(end, mark)
	suffix := ""
	for special := range w.format.special {
		if strings.HasPrefix(mark, special) {
			suffix = w.text(end[len(lead):])
		}
	}
	if suffix != "" {
		for i := range text {
			text[i] = "/" + slashes(text[i]+regexp.QuoteMeta(lead)) + "/"
		}
		return w.rule("TEXT", strings.Join(text, " & ")) + " " + suffix
	}
	stop := regexp.QuoteMeta(lead + mark)
	for i := range text {
		text[i] = "/" + slashes(text[i]+stop) + "/"
	}
	body := strings.Join(text, " & ") + " & ~/" + slashes(`(?s:.*)`+regexp.QuoteMeta(mark)+`(?s:.+)`) + "/"
	return join(w.rule("TEXT", body), w.text(end[len(lead)+len(mark):]))
}

// scalar returns how a value of an enumeration stands as text: a string as it
// is, others as JSON.
func scalar(raw json.RawMessage) (text string, isString bool) {
	if raw[0] == '"' && json.Unmarshal(raw, &text) == nil {
		return text, true
	}
	return string(raw), false
}

// alternation returns an expression for one of several.
func alternation(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return "(" + strings.Join(list, " | ") + ")"
}

// tagArguments returns the rule for arguments that are written one by one.
func (w *larkWriter) tagArguments(schema string) (string, error) {
	sw, root, err := w.schemaWriter(schema)
	if err != nil {
		return "", err
	}
	var all []string
	err = sw.alternatives(root, 0, func(s *argumentSchema) error {
		named, extra := s.object()
		var parts []string
		for _, m := range named {
			item, err := sw.tag(w.text(w.form.Tags.Begin+m.key), m.value)
			if err != nil {
				return err
			}
			if !slices.Contains(s.Required, m.key) {
				item = "(" + item + ")?"
			}
			parts = append(parts, item)
		}
		for _, m := range extra {
			item, err := sw.tag(w.text(w.form.Tags.Begin)+" "+sw.keyPattern(m.key, `[A-Za-z0-9_-]{1,64}`, named), m.value)
			if err != nil {
				return err
			}
			parts = append(parts, "("+item+")"+s.times(len(named)))
		}
		all = append(all, join(append(parts, `""`)...))
		return nil
	})
	return w.rule("arguments", alternation(all)), err
}

// times returns how often a member may come that s does not name.
func (s *argumentSchema) times(named int) string {
	least, most := max(0, s.MinMembers-len(s.Required)), ""
	if s.MaxMembers != nil {
		most = fmt.Sprint(max(0, *s.MaxMembers-named))
	}
	return fmt.Sprintf("{%d,%s}", least, most)
}

// tag returns an expression for an argument after its name.
func (w *schemaWriter) tag(begin string, raw json.RawMessage) (string, error) {
	s, err := readSchema(raw)
	if err != nil {
		return "", err
	}
	t := w.form.Tags
	text := t.Middle
	if t.String != "" {
		text = t.String
	}
	var all []string
	err = w.alternatives(s, 0, func(s *argumentSchema) error {
		for _, value := range s.Enum {
			v, isString := scalar(value)
			if isString && strings.Contains(v, strings.TrimSpace(t.End)) {
				continue
			}
			middle := t.Middle
			if isString {
				middle = text
			}
			all = append(all, w.text(middle+v+t.End))
		}
		if s.Enum != nil {
			return nil
		}
		if s.hasType("string") {
			all = append(all, w.larkWriter.text(text)+" "+w.string(s, t.End))
		}
		if rest := s.withoutTypes("string"); rest != nil {
			all = append(all, w.larkWriter.text(t.Middle)+" "+w.json(rest)+" "+w.larkWriter.text(t.End))
		}
		return nil
	})
	if err == nil && len(all) == 0 {
		err = errNotWritten
	}
	return begin + " " + alternation(all), err
}

// pythonArguments returns the rule for keyword arguments and the parenthesis
// after them.
func (w *larkWriter) pythonArguments(schema string) (string, error) {
	sw, root, err := w.schemaWriter(schema)
	if err != nil {
		return "", err
	}
	var all []string
	err = sw.alternatives(root, 0, func(s *argumentSchema) error {
		list, err := sw.list(s, ", ", "=", func(key string) (string, bool) {
			return w.text(key), pythonName.FindString(key) == key
		}, `[A-Za-z_]{1,64}`, sw.valueOf)
		all = append(all, list)
		return err
	})
	return w.rule("arguments", alternation(all)+` ")"`), err
}

// list returns an expression for the members of an object with separators in
// between. key writes a name, or tells that it cannot be written.
func (w *schemaWriter) list(s *argumentSchema, separator, colon string, key func(string) (string, bool), set string, value func(json.RawMessage) (string, error)) (string, error) {
	named, extra := s.object()
	var more []string
	for _, m := range extra {
		v, err := value(m.value)
		if err != nil {
			return "", err
		}
		more = append(more, w.keyPattern(m.key, set, named)+" "+w.text(colon)+" "+v)
	}
	first, tail := `""`, `""` // what may come where nothing, and where something came before
	if len(more) > 0 {
		item := w.rule("extra", alternation(more))
		times := s.times(len(named))
		tail = "(" + w.text(separator) + " " + item + ")" + times
		first = `("" | ` + item + " (" + w.text(separator) + " " + item + ")*)"
		if s.MinMembers > 0 && len(named) == 0 {
			first = item + " (" + w.text(separator) + " " + item + ")*"
		}
	}
	for i := len(named) - 1; i >= 0; i-- {
		m := named[i]
		name, ok := key(m.key)
		required := slices.Contains(s.Required, m.key)
		if !ok && required {
			return "", fmt.Errorf("/%s: %w", m.key, errNotWritten)
		}
		if !ok {
			continue
		}
		v, err := value(m.value)
		if err != nil {
			return "", err
		}
		item := w.rule("member", name+" "+w.text(colon)+" "+v)
		nowFirst, nowTail := item+" "+tail, w.text(separator)+" "+item+" "+tail
		if !required {
			nowFirst, nowTail = nowFirst+" | "+first, nowTail+" | "+tail
		}
		first, tail = w.rule("first", nowFirst), w.rule("tail", nowTail)
	}
	return first, nil
}

// gemmaArguments returns the rule for an object in Gemma's notation.
func (w *larkWriter) gemmaArguments(schema string) (string, error) {
	sw, root, err := w.schemaWriter(schema)
	if err != nil {
		return "", err
	}
	value, err := sw.literal(root, 0)
	return w.rule("arguments", value), err
}

func (w *schemaWriter) valueOf(raw json.RawMessage) (string, error) {
	s, err := readSchema(raw)
	if err != nil {
		return "", err
	}
	return w.literal(s, 0)
}

// literal returns an expression for a value of s in Python's or Gemma's notation.
func (w *schemaWriter) literal(s *argumentSchema, depth int) (string, error) {
	if depth > maxOpen {
		return "", errNotWritten
	}
	if s.Ref != "" {
		if rule, ok := w.known[s.Ref]; ok {
			return rule, nil
		}
		target, err := w.resolve(s)
		if err != nil {
			return "", err
		}
		name := fmt.Sprintf("shared_%d", len(w.rules))
		w.known[s.Ref] = name
		at := len(w.rules)
		w.rules = append(w.rules, "")
		body, err := w.literal(target, depth+1)
		w.rules[at] = name + ": " + body
		return name, err
	}
	var all []string
	for _, raw := range s.AnyOf {
		branch, err := readSchema(raw)
		if err != nil {
			return "", err
		}
		v, err := w.literal(branch, depth+1)
		if err != nil {
			return "", err
		}
		all = append(all, v)
	}
	for _, value := range s.Enum {
		var b strings.Builder
		writeLiteral(&b, value, w.quote != "")
		all = append(all, w.text(b.String()))
	}
	if s.AnyOf != nil || s.Enum != nil {
		return alternation(all), nil
	}
	types := s.Type
	if types == nil {
		if name, ok := w.known[""]; ok {
			return name, nil
		}
		name := fmt.Sprintf("anything_%d", len(w.rules))
		w.known[""] = name
		at := len(w.rules)
		w.rules = append(w.rules, "")
		body, err := w.literal(&argumentSchema{Type: typeList{"null", "boolean", "number", "string", "array", "object"}}, depth+1)
		w.rules[at] = name + ": " + body
		return name, err
	}
	for _, t := range types {
		switch t {
		case "null":
			all = append(all, quoted(w.words[0]))
		case "boolean":
			all = append(all, quoted(w.words[1]), quoted(w.words[2]))
		case "string":
			if w.quote != "" {
				all = append(all, w.text(w.quote)+" "+w.string(s, w.quote))
			} else {
				all = append(all, w.leaf(s, t))
			}
		case "array":
			v, err := w.literalList(s, depth)
			if err != nil {
				return "", err
			}
			all = append(all, v)
		case "object":
			colon := ":"
			if w.quote == "" {
				colon = ": "
			}
			list, err := w.list(s, w.comma, colon, w.key, w.keySet(), func(raw json.RawMessage) (string, error) {
				s, err := readSchema(raw)
				if err != nil {
					return "", err
				}
				return w.literal(s, depth+1)
			})
			if err != nil {
				return "", err
			}
			all = append(all, `"{" `+list+` "}"`)
		default:
			all = append(all, w.leaf(s, t))
		}
	}
	return alternation(all), nil
}

// key writes the name of a member.
func (w *schemaWriter) key(name string) (string, bool) {
	if w.quote == "" {
		return w.text(quoted(name)), true
	}
	return w.text(gemmaKey(name)), true
}

// keySet is the expression of a name that the schema does not name.
func (w *schemaWriter) keySet() string {
	if w.quote == "" {
		return `"[A-Za-z0-9_-]{1,64}"`
	}
	return `[A-Za-z_]{1,64}`
}

// leaf returns the rule for what of s is of one type, in JSON.
func (w *schemaWriter) leaf(s *argumentSchema, t string) string {
	if s.raw == nil {
		return w.json(json.RawMessage(`{"type":"` + t + `"}`))
	}
	others := slices.DeleteFunc([]string{"null", "boolean", "number", "integer", "string", "array", "object"}, func(other string) bool { return other == t })
	return w.json(s.withoutTypes(others...))
}

// literalList returns an expression for a list.
func (w *schemaWriter) literalList(s *argumentSchema, depth int) (string, error) {
	var parts []string
	for _, raw := range s.Prefix {
		p, err := readSchema(raw)
		if err != nil {
			return "", err
		}
		v, err := w.literal(p, depth+1)
		if err != nil {
			return "", err
		}
		parts = append(parts, v)
	}
	list := strings.Join(parts, " "+quoted(w.comma)+" ")
	if string(s.Items) == "false" || s.MaxItems != nil && *s.MaxItems <= len(parts) {
		return `"[" ` + list + ` "]"`, nil
	}
	items, err := readSchema(s.Items)
	if err != nil {
		return "", err
	}
	item, err := w.literal(items, depth+1)
	if err != nil {
		return "", err
	}
	item = w.rule("item", item)
	least, most := max(0, s.MinItems-len(parts)), ""
	if s.MaxItems != nil {
		most = fmt.Sprint(*s.MaxItems - len(parts))
	}
	if len(parts) > 0 {
		return fmt.Sprintf(`"[" %s (%s %s){%d,%s} "]"`, list, quoted(w.comma), item, least, most), nil
	}
	if most != "" {
		most = fmt.Sprint(*s.MaxItems - 1)
	}
	list = fmt.Sprintf(`%s (%s %s){%d,%s}`, item, quoted(w.comma), item, max(0, least-1), most)
	if least == 0 {
		list = "(" + list + ")?"
	}
	return `"[" ` + list + ` "]"`, nil
}
