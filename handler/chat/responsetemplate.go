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

// responseTemplate is the response_template of a tokenizer_config.json: where
// in an answer the fields of a message are, and how each is read. It means what
// it means in transformers (utils/chat_parsing), but that nothing is lost: a
// field that comes twice is joined, and a call that cannot be read is text.
type responseTemplate struct {
	fields   []*templateField
	implicit *templateField // what stands in no other field, nil: it is dropped
	start    anchor         // before the message in a prompt
}

// templateField is a field of a message.
type templateField struct {
	name        string
	open, close anchor
	content     string // its parser
	args        contentArgs
	repeats     bool
	join        *string
	transform   json.RawMessage // nil: none
	each        bool            // the transform is for the elements of a list
}

// contentArgs are the content_args of all parsers.
type contentArgs struct {
	Strip        *bool       `json:"strip"`
	UnquotedKeys bool        `json:"unquoted_keys"`
	StringDelims [][2]string `json:"string_delims"`
	AllowNonJSON bool        `json:"allow_non_json"`
	TagPattern   *string     `json:"tag_pattern"`
	Merge        bool        `json:"merge_duplicates"`
	LineSep      *string     `json:"line_sep"`
	KVSep        *string     `json:"kv_sep"`
	ValueParser  *struct {
		Name string      `json:"name"`
		Args contentArgs `json:"args"`
	} `json:"value_parser"`

	tag *regexp.Regexp
}

// kind says what a field is in an answer, and false if it is not part of it.
func (f *templateField) kind() (deltaKind, bool) {
	switch f.name {
	case "content":
		return ofContent, true
	case "thinking", "reasoning", "reasoning_content":
		return ofReasoning, true
	case "tool_calls":
		return ofCall, true
	}
	return 0, false
}

// readResponseTemplate reads a response_template, nil for null. The error names
// what is not valid or not supported.
func readResponseTemplate(raw json.RawMessage) (*responseTemplate, error) {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if len(raw) > maxTemplateBytes {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(raw), maxTemplateBytes)
	}
	var spec struct {
		Version      *json.Number    `json:"version"`
		Defaults     map[string]any  `json:"defaults"`
		Fields       json.RawMessage `json:"fields"`
		Start        json.RawMessage `json:"start_anchor"`
		StartPattern *string         `json:"start_anchor_pattern"`
	}
	if err := strictly(raw, &spec); err != nil {
		return nil, err
	}
	if spec.Version != nil && *spec.Version != "1" {
		return nil, fmt.Errorf("version %s is not supported", *spec.Version)
	}
	t := &responseTemplate{}
	var err error
	if t.start, err = newAnchor("start_anchor", spec.Start, spec.StartPattern); err != nil {
		return nil, err
	}
	if !t.start.exists() {
		return nil, errors.New("there is neither start_anchor nor start_anchor_pattern")
	}
	for _, m := range objectMembers(spec.Fields) {
		f, err := readTemplateField(m.key, m.value)
		if err != nil {
			return nil, fmt.Errorf("fields.%s: %w", m.key, err)
		}
		if !f.open.exists() {
			if t.implicit != nil {
				return nil, fmt.Errorf("fields.%s: only one field may be without open and open_pattern", m.key)
			}
			t.implicit = f
		}
		t.fields = append(t.fields, f)
	}
	if len(t.fields) == 0 {
		return nil, errors.New("fields is empty")
	}
	if t.implicit == nil && !slices.ContainsFunc(t.fields, func(f *templateField) bool { return f.name == "content" }) {
		t.implicit = &templateField{name: "content", content: "text"}
	}
	return t, nil
}

// maxTemplateBytes, maxPattern and maxProgram bound a response_template and its
// regular expressions.
const (
	maxTemplateBytes = 256 << 10
	maxPattern       = 1 << 10
	maxProgram       = 2000 // instructions
)

// strictly reads JSON into a struct that has all its keys.
func strictly(raw json.RawMessage, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

var templateParsers = []string{"text", "int", "float", "bool", "json", "xml-inline", "kv-lines", "python-call-list"}

func readTemplateField(name string, raw json.RawMessage) (*templateField, error) {
	var spec struct {
		Open         json.RawMessage `json:"open"`
		OpenPattern  *string         `json:"open_pattern"`
		Close        json.RawMessage `json:"close"`
		ClosePattern *string         `json:"close_pattern"`
		Content      string          `json:"content"`
		Args         contentArgs     `json:"content_args"`
		Repeats      bool            `json:"repeats"`
		Join         *string         `json:"join"`
		Optional     *bool           `json:"optional"`
		Transform    json.RawMessage `json:"transform"`
		Each         bool            `json:"transform_each"`
	}
	if err := strictly(raw, &spec); err != nil {
		return nil, err
	}
	f := &templateField{name: name, content: "text", args: spec.Args, repeats: spec.Repeats, join: spec.Join, transform: spec.Transform, each: spec.Each}
	if spec.Content != "" {
		f.content = spec.Content
	}
	if string(f.transform) == "null" {
		f.transform = nil
	}
	var err error
	if f.open, err = newAnchor("open", spec.Open, spec.OpenPattern); err != nil {
		return nil, err
	}
	if f.close, err = newAnchor("close", spec.Close, spec.ClosePattern); err != nil {
		return nil, err
	}
	groups := append(f.open.groups(), f.close.groups()...)
	switch {
	case f.join != nil && !f.repeats:
		return nil, errors.New("join needs repeats")
	case f.each && f.transform == nil:
		return nil, errors.New("transform_each needs a transform")
	case f.transform == nil && len(groups) > 0:
		return nil, fmt.Errorf("the pattern has the group %s, and there is no transform that uses it", groups[0])
	}
	if err := f.args.compile(f.content, 0); err != nil {
		return nil, err
	}
	return f, checkTransform(f.transform)
}

// compile checks the arguments of a parser.
func (a *contentArgs) compile(parser string, depth int) (err error) {
	switch {
	case !slices.Contains(templateParsers, parser):
		return fmt.Errorf("the content parser %.40q is not known", parser)
	case depth > 8:
		return errors.New("value_parser is nested too deeply")
	case parser == "xml-inline":
		if a.TagPattern == nil {
			return errors.New("content_args.tag_pattern is missing")
		}
		if a.tag, err = compilePattern(*a.TagPattern); err != nil {
			return fmt.Errorf("content_args.tag_pattern: %w", err)
		}
		if a.tag.SubexpIndex("key") < 0 || a.tag.SubexpIndex("value") < 0 {
			return errors.New("content_args.tag_pattern needs the groups key and value")
		}
	}
	if a.ValueParser == nil {
		return nil
	}
	return a.ValueParser.Args.compile(a.ValueParser.Name, depth+1)
}

// placeholder is {name}, or {name.key} for what is inside.
var placeholder = regexp.MustCompile(`\{(\w+(?:\.\w+)*)\}`)

// checkTransform refuses placeholders that are parts of a text.
func checkTransform(raw json.RawMessage) error {
	for _, m := range placeholder.FindAllIndex(raw, -1) {
		if raw[m[0]-1] != '"' || m[1] >= len(raw) || raw[m[1]] != '"' {
			return fmt.Errorf("transform: %.60q mixes a placeholder with text", raw[m[0]-1:min(len(raw), m[1]+1)])
		}
	}
	return nil
}

// anchor is where a field begins or ends: one of some texts, or a pattern.
type anchor struct {
	literals []string // the longest first
	pattern  *regexp.Regexp
	inside   *regexp.Regexp // pattern, but not at the beginning of the answer
	program  *syntax.Prog
	source   *syntax.Regexp
}

func (a *anchor) exists() bool { return a.literals != nil || a.pattern != nil }

func newAnchor(key string, literal json.RawMessage, pattern *string) (a anchor, err error) {
	if literal = bytes.TrimSpace(literal); string(literal) == "null" {
		literal = nil
	}
	switch {
	case literal != nil && pattern != nil:
		return a, fmt.Errorf("both %s and %s_pattern", key, key)
	case literal != nil && literal[0] == '"':
		a.literals = make([]string, 1)
		err = json.Unmarshal(literal, &a.literals[0])
	case literal != nil:
		err = json.Unmarshal(literal, &a.literals)
		if err == nil && len(a.literals) == 0 {
			err = errors.New("the list is empty")
		}
	case pattern != nil:
		key += "_pattern"
		err = a.compile(*pattern)
	}
	if err == nil && slices.Contains(a.literals, "") {
		err = errors.New("a text is empty")
	}
	if err != nil {
		return a, fmt.Errorf("%s: %w", key, err)
	}
	slices.SortStableFunc(a.literals, func(x, y string) int { return len(y) - len(x) })
	return a, nil
}

func (a *anchor) compile(pattern string) (err error) {
	// Clients give functions names with hyphens and dots too.
	pattern = strings.ReplaceAll(pattern, `(?P<name>\w+)`, `(?P<name>[\w.-]+)`)
	if a.pattern, err = compilePattern(pattern); err != nil {
		return err
	}
	if a.source, err = syntax.Parse(a.pattern.String(), syntax.Perl); err != nil {
		return err
	}
	if a.inside, err = regexp.Compile(notAtBeginning(a.source).String()); err != nil {
		return err
	}
	a.program, err = syntax.Compile(a.source.Simplify())
	return err
}

// notAtBeginning returns re without what matches at the beginning of a text only.
func notAtBeginning(re *syntax.Regexp) *syntax.Regexp {
	if re.Op == syntax.OpBeginText {
		return &syntax.Regexp{Op: syntax.OpNoMatch}
	}
	out := *re
	out.Sub = make([]*syntax.Regexp, len(re.Sub))
	for i, sub := range re.Sub {
		out.Sub[i] = notAtBeginning(sub)
	}
	return &out
}

// compilePattern compiles a regular expression in Python's notation, where \w
// and its like are for all scripts and . for all characters. Patterns that look
// around or back cannot be followed in bounded time, and are refused.
func compilePattern(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(pattern), maxPattern)
	}
	var b strings.Builder
	b.WriteString("(?s)")
	class := false
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		if c != '\\' || i+1 == len(pattern) {
			switch c {
			case '[':
				class = true
			case ']':
				class = false
			case '$':
				if !class {
					b.WriteString(`\z`)
					continue
				}
			}
			b.WriteByte(c)
			continue
		}
		i++
		set := map[byte]string{'w': `\p{L}\p{N}_`, 'd': `\p{Nd}`, 's': `\s\p{Z}\v`}[pattern[i]|0x20]
		switch {
		case set != "" && class && pattern[i] >= 'a':
			b.WriteString(set)
		case set != "" && !class && pattern[i] >= 'a':
			b.WriteString("[" + set + "]")
		case set != "" && !class:
			b.WriteString("[^" + set + "]")
		case pattern[i] == 'Z':
			b.WriteString(`\z`)
		default:
			b.WriteString(pattern[i-1 : i+1])
		}
	}
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("%.100q is not supported: %w", pattern, err)
	}
	parsed, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err == nil && len(program.Inst) > maxProgram {
		err = fmt.Errorf("%.100q is too large", pattern)
	}
	return re, err
}

// groups are the names of a pattern's groups.
func (a *anchor) groups() (names []string) {
	if a.pattern == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(a.pattern.SubexpNames()), func(name string) bool { return name == "" })
}

// found is a place of an anchor in a text.
type found struct {
	start, end int
	captures   map[string]string
}

// find looks for an anchor in text; begun says that text does not begin the
// answer. hold is where what may yet become one begins, len(text) if nothing
// may; at the end of the answer nothing may.
func (a *anchor) find(text string, begun, end bool) (m found, ok bool, hold int) {
	hold = len(text)
	if a.pattern != nil {
		re := a.pattern
		if begun {
			re = a.inside
		}
		if !end {
			hold = a.live(text, begun)
		}
		at := re.FindStringSubmatchIndex(text)
		if at == nil {
			return m, false, hold
		}
		m = found{start: at[0], end: at[1], captures: map[string]string{}}
		for i, name := range re.SubexpNames() {
			if name != "" && at[2*i] >= 0 {
				m.captures[name] = text[at[2*i]:at[2*i+1]]
			}
		}
		return m, end || m.start < hold, hold
	}
	m.start = len(text)
	for _, l := range a.literals {
		if at := strings.Index(text, l); at >= 0 && (!ok || at < m.start) {
			m, ok = found{start: at, end: at + len(l)}, true
		}
		if end {
			continue
		}
		for n := min(len(l)-1, len(text)); n > 0; n-- {
			if strings.HasSuffix(text, l[:n]) {
				hold = min(hold, len(text)-n)
				break
			}
		}
	}
	return m, ok && (end || m.start < hold), hold
}

// live returns where the first match begins that is not decided at the end of
// text: more of it may still change what it is.
func (a *anchor) live(text string, begun bool) int {
	// The first place where each instruction's thread began; the machine of the
	// regular expression, without its captures.
	const none = 1 << 30
	now, next := make([]int, len(a.program.Inst)), make([]int, len(a.program.Inst))
	for i := range now {
		now[i] = none
	}
	var add func(threads []int, pc uint32, start int, atBegin bool)
	add = func(threads []int, pc uint32, start int, atBegin bool) {
		if threads[pc] <= start {
			return
		}
		threads[pc] = start
		switch inst := &a.program.Inst[pc]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			add(threads, inst.Out, start, atBegin)
			add(threads, inst.Arg, start, atBegin)
		case syntax.InstCapture, syntax.InstNop:
			add(threads, inst.Out, start, atBegin)
		case syntax.InstEmptyWidth:
			if op := syntax.EmptyOp(inst.Arg); op&syntax.EmptyBeginText == 0 || atBegin {
				add(threads, inst.Out, start, atBegin)
			}
		}
	}
	for at, c := range text {
		add(now, uint32(a.program.Start), at, at == 0 && !begun)
		for i := range next {
			next[i] = none
		}
		for pc, start := range now {
			switch inst := &a.program.Inst[pc]; {
			case start == none:
			case inst.Op == syntax.InstRune, inst.Op == syntax.InstRune1, inst.Op == syntax.InstRuneAny, inst.Op == syntax.InstRuneAnyNotNL:
				if inst.MatchRune(c) {
					add(next, inst.Out, start, false)
				}
			}
		}
		now, next = next, now
	}
	first := len(text)
	for pc, start := range now {
		switch a.program.Inst[pc].Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL, syntax.InstEmptyWidth:
			first = min(first, start)
		}
	}
	return first
}

// texts are those of anchors that are texts.
func (t *responseTemplate) texts() (all []string) {
	for _, f := range t.fields {
		for _, a := range []*anchor{&f.open, &f.close} {
			all = append(all, a.literals...)
			if a.source != nil {
				all = append(all, literalsOf(a.source)...)
			}
		}
		for _, pair := range f.args.StringDelims {
			all = append(all, pair[:]...)
		}
		if f.args.tag != nil {
			if re, err := syntax.Parse(f.args.tag.String(), syntax.Perl); err == nil {
				all = append(all, literalsOf(re)...)
			}
		}
	}
	return all
}

// literalsOf returns the texts in an expression.
func literalsOf(re *syntax.Regexp) (all []string) {
	if re.Op == syntax.OpLiteral {
		all = append(all, string(re.Rune))
	}
	for _, sub := range re.Sub {
		all = append(all, literalsOf(sub)...)
	}
	return all
}

// thinks reports whether a prompt ends inside the model's reasoning.
func (t *responseTemplate) thinks(prompt string) bool {
	for {
		m, ok, _ := t.start.find(prompt, true, true)
		if !ok || m.end == 0 {
			break
		}
		prompt = prompt[m.end:]
	}
	if prompt == "" { // the answer may begin with reasoning that nothing marks
		for _, f := range t.fields {
			if kind, ok := f.kind(); ok && kind == ofReasoning && f.open.pattern != nil && f.open.pattern.MatchString("") {
				return true
			}
		}
		return false
	}
	s := templateScan{regionScan: newRegionScan(t)}
	s.text = prompt
	s.process(false, func(region) {}, func(*templateField, string) {})
	return s.inReasoning()
}

// reasoning returns the marks of the reasoning, as far as they are texts.
func (t *responseTemplate) reasoning() (r Reasoning) {
	for _, f := range t.fields {
		if kind, ok := f.kind(); ok && kind == ofReasoning {
			if f.open.literals != nil {
				r.Open = f.open.literals[len(f.open.literals)-1]
			}
			if f.close.literals != nil {
				r.Close = f.close.literals[len(f.close.literals)-1]
			}
		}
	}
	return r
}

// region is a part of an answer that has ended.
type region struct {
	field    *templateField
	raw      string // with its anchors
	body     string
	captures map[string]string
	whole    bool // its end came
}

// regionScan follows the regions of an answer.
type regionScan struct {
	template *responseTemplate
	text     string // not decided yet
	begun    bool   // text does not begin the answer
	current  *templateField
	explicit bool // current was opened
	opening  string
	body     strings.Builder
	captures map[string]string
}

// maxUndecided bounds the text that waits for a pattern to be decided.
const maxUndecided = 8 << 10

func newRegionScan(t *responseTemplate) *regionScan {
	return &regionScan{template: t, current: t.implicit}
}

// process reads what can be read of text. closed gets regions that have ended,
// and more the text of the one that is open.
func (s *regionScan) process(end bool, closed func(region), more func(*templateField, string)) {
	for {
		type candidate struct {
			found
			field *templateField
			opens bool
		}
		var best *candidate
		hold := len(s.text)
		try := func(f *templateField, a *anchor, opens bool) {
			if !a.exists() {
				return
			}
			m, ok, h := a.find(s.text, s.begun, end)
			hold = min(hold, h)
			if !ok {
				return
			}
			c := &candidate{m, f, opens}
			if best == nil || c.start < best.start || c.start == best.start && (c.end > best.end || c.end == best.end && c.opens && !best.opens) {
				best = c
			}
		}
		if s.explicit {
			try(s.current, &s.current.close, false)
		} else {
			for _, f := range s.template.fields {
				try(f, &f.open, true)
			}
			if s.current != nil {
				try(s.current, &s.current.close, false)
			}
		}
		if best != nil && !end && best.start >= hold {
			best = nil
		}
		if best == nil {
			n := hold
			if end || len(s.text) > maxUndecided {
				n = len(s.text)
			}
			s.take(n, more)
			if end {
				s.close("", false, closed)
			}
			return
		}
		empty := best.start == 0 && s.body.Len() == 0
		s.take(best.start, more)
		mark := s.text[:best.end-best.start]
		s.take(len(mark), nil)
		if !best.opens {
			for name, value := range best.captures {
				if s.captures == nil {
					s.captures = map[string]string{}
				}
				s.captures[name] = value
			}
			s.close(mark, true, closed)
			if empty && mark == "" {
				return // it would be found again
			}
			continue
		}
		s.close("", true, closed)
		s.current, s.explicit, s.opening, s.captures = best.field, true, mark, best.captures
	}
}

// take takes n bytes of the text: into the open region, or away if more is nil.
func (s *regionScan) take(n int, more func(*templateField, string)) {
	if n > 0 {
		s.begun = true
	}
	if n > 0 && more != nil && s.current != nil {
		s.body.WriteString(s.text[:n])
		more(s.current, s.text[:n])
	}
	s.text = s.text[n:]
}

// close ends the open region.
func (s *regionScan) close(mark string, whole bool, closed func(region)) {
	if s.current != nil && (s.explicit || s.body.Len() > 0) {
		closed(region{s.current, s.opening + s.body.String() + mark, s.body.String(), s.captures, whole})
	}
	s.current, s.explicit, s.opening, s.captures = s.template.implicit, false, "", nil
	s.body.Reset()
}
