package chat

import (
	"strings"
)

// formScan follows the calls of a CallForm, byte by byte, from after its marker
// on. White space between its parts may be any.
type formScan struct {
	form  *CallForm
	tools map[string]*Tool

	parts []part // of a call, after what begins it
	at    int    // in parts; beyond them: after a call
	want  []string
	got   string // of one of want, without white space
	skip  int    // white space in a row

	name, id   []byte
	arguments  argumentScan
	ended      bool // Close came
	begunCalls int
	fresh      bool // the call was not sent
}

// part is a piece of a call: a text, or one of the others.
type part struct {
	text string // without white space
	kind partKind
}

type partKind int

const (
	partText partKind = iota
	partID
	partName
	partArguments
)

// argumentScan follows the arguments of a call.
type argumentScan interface {
	next(c byte) bool // false: this is not an argument
	begun() bool
	done() bool
	take() []byte // JSON that came since the last take
}

func newFormScan(form *CallForm, tools map[string]*Tool) *formScan {
	s := &formScan{form: form, tools: tools}
	begin := splitPart(form.Begin)
	s.parts = append(append(begin[1:], part{kind: partName}), splitPart(form.Middle)...)
	s.parts = append(append(s.parts, part{kind: partArguments}), splitPart(form.End)...)
	first := strings.TrimPrefix(unspaced(form.Open)+begin[0].text, unspaced(form.Marker))
	if first == "" {
		s.begin()
	} else {
		s.expect(first)
	}
	return s
}

// splitPart cuts a text at its ids. The first part is a text, perhaps an empty one.
func splitPart(text string) (parts []part) {
	for i, t := range strings.Split(text, "{id}") {
		if i > 0 {
			parts = append(parts, part{kind: partID})
		}
		parts = append(parts, part{text: unspaced(t)})
	}
	return parts
}

func unspaced(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && isSpace(byte(r)) {
			return -1
		}
		return r
	}, text)
}

// anyName in want stands for the name of a function, which nothing announces.
const anyName = "\x00"

// expect waits for one of some texts; the first is that which leads to a call.
func (s *formScan) expect(texts ...string) {
	s.want, s.got, s.skip = texts, "", 0
}

// next takes a byte, and reports whether the text is still that of calls.
func (s *formScan) next(c byte) bool {
	if s.ended {
		return false
	}
	if s.want != nil {
		return s.literal(c)
	}
	if isSpace(c) && s.skip < maxSpace && s.leading() {
		s.skip++
		return true
	}
	return s.part(c)
}

// leading reports whether nothing of the part has come.
func (s *formScan) leading() bool {
	switch p := s.parts[s.at]; p.kind {
	case partName:
		return len(s.name) == 0
	case partID:
		return len(s.id) == 0
	case partArguments:
		return s.arguments == nil
	}
	return true
}

// literal takes a byte of one of the texts in want.
func (s *formScan) literal(c byte) bool {
	if isSpace(c) {
		s.skip++
		return s.skip <= maxSpace
	}
	if s.want[0] == anyName && s.got == "" && (len(s.want) == 1 || c != s.want[1][0]) {
		s.want = nil
		s.begin()
		return s.part(c)
	}
	s.got += string([]byte{c})
	s.skip = 0
	partly := false
	for i, text := range s.want {
		if text == s.got {
			s.found(i)
			return true
		}
		partly = partly || strings.HasPrefix(text, s.got)
	}
	return partly
}

// found has read one of want.
func (s *formScan) found(i int) {
	after := s.at == len(s.parts)
	s.want, s.skip = nil, 0
	switch {
	case after && i > 0:
		s.ended = true
	case after:
		s.begin()
	case s.begunCalls == 0 && s.at == 0:
		s.begin()
	default:
		s.advance()
	}
}

// begin starts a call whose Begin was read, up to its first id.
func (s *formScan) begin() {
	s.begunCalls++
	s.fresh = true
	s.name, s.id, s.arguments = nil, nil, nil
	s.at = -1
	s.advance()
}

// advance goes on to the next part.
func (s *formScan) advance() {
	s.at++
	s.skip = 0
	for s.at < len(s.parts) && s.parts[s.at] == (part{}) {
		s.at++
	}
	switch {
	case s.at < len(s.parts) && s.parts[s.at].kind == partText:
		s.expect(s.parts[s.at].text)
	case s.at == len(s.parts):
		next := unspaced(s.form.Between) + splitPart(s.form.Begin)[0].text
		if next == "" {
			next = anyName
		}
		if s.form.Close != "" {
			s.expect(next, unspaced(s.form.Close))
		} else {
			s.expect(next)
		}
	}
}

// terminator is the byte that ends the name or id that is being read.
func (s *formScan) terminator() byte {
	for _, p := range s.parts[s.at+1:] {
		switch {
		case p.text != "":
			return p.text[0]
		case p.kind == partArguments && s.form.Arguments == TagArguments:
			return s.form.Tags.Begin[0]
		case p.kind == partArguments:
			return '{'
		}
	}
	return '<'
}

// part takes a byte of an id, a name or the arguments.
func (s *formScan) part(c byte) bool {
	switch s.parts[s.at].kind {
	case partID:
		if c != s.terminator() {
			s.id = append(s.id, c)
			return !isSpace(c) && len(s.id) <= maxName
		}
		s.advance()
		return s.next(c)
	case partName:
		if c != s.terminator() && !isSpace(c) {
			s.name = append(s.name, c)
			return len(s.name) <= maxName
		}
		if s.tools[string(s.name)] == nil {
			return false
		}
		s.advance()
		return isSpace(c) || s.next(c)
	}
	if s.arguments == nil {
		s.arguments = s.newArguments()
	}
	if !s.arguments.next(c) {
		return false
	}
	if s.arguments.done() {
		s.advance()
		if t, ok := s.arguments.(*tagScan); ok && t.over != "" {
			// What follows the last argument has been read with it.
			s.got = t.over
			s.found(0)
		}
	}
	return true
}

func (s *formScan) newArguments() argumentScan {
	switch s.form.Arguments {
	case TagArguments:
		end := ""
		for _, p := range s.parts[s.at+1:] {
			end += p.text
		}
		return &tagScan{tags: s.form.Tags, end: end, types: s.tools[string(s.name)].types()}
	case PythonArguments:
		return &literalScan{convert: pythonArguments}
	case GemmaArguments:
		return &literalScan{convert: gemmaArguments, gemma: true}
	}
	return &jsonScan{*newArgumentScan(string(s.name))}
}

// called reports whether the call that is being read is one for certain.
func (s *formScan) called() bool { return s.arguments != nil && s.arguments.begun() }

// between reports whether a call has ended.
func (s *formScan) between() bool { return s.at == len(s.parts) || s.ended }

// callID returns the id of the call in the text, "" if it has none.
func (s *formScan) callID() string {
	if s.form.ID == "" || strings.Contains(s.form.ID, "{id}") && len(s.id) == 0 {
		return ""
	}
	return strings.NewReplacer("{name}", string(s.name), "{id}", string(s.id)).Replace(s.form.ID)
}

// jsonScan follows arguments that are a JSON object.
type jsonScan struct{ callScan }

func (s *jsonScan) begun() bool { return s.callScan.begun }

// literalScan follows arguments in another notation; they are known when they
// have ended.
type literalScan struct {
	convert func(string) (string, error)
	gemma   bool

	text   []byte
	open   []byte // brackets
	quote  byte   // of the string that is being read
	escape bool
	out    []byte
	whole  bool
}

func (s *literalScan) begun() bool { return s.whole }
func (s *literalScan) done() bool  { return s.whole }

func (s *literalScan) take() []byte {
	out := s.out
	s.out = nil
	return out
}

// maxLiteral bounds arguments that are read as a whole.
const maxLiteral = 4 << 20

func (s *literalScan) next(c byte) bool {
	s.text = append(s.text, c)
	if len(s.text) > maxLiteral {
		return false
	}
	switch {
	case s.gemma && c == '>' && strings.HasSuffix(string(s.text[max(0, len(s.text)-len(gemmaQuote)):]), gemmaQuote):
		s.quote ^= '<'
	case s.escape:
		s.escape = false
	case s.quote != 0 && !s.gemma && c == '\\':
		s.escape = true
	case s.quote != 0:
		if !s.gemma && c == s.quote {
			s.quote = 0
		}
	case !s.gemma && (c == '"' || c == '\''):
		s.quote = c
	case c == '{' || c == '[':
		s.open = append(s.open, c)
		return len(s.open) <= maxOpen
	case c == '}' || c == ']':
		n := len(s.open) - 1
		if n < 0 || s.open[n] != c-2 {
			return false
		}
		if s.open = s.open[:n]; n == 0 && s.gemma {
			return s.finish(string(s.text))
		}
	case c == ')' && !s.gemma && len(s.open) == 0:
		return s.finish(string(s.text[:len(s.text)-1]))
	case s.gemma && len(s.open) == 0 && !isSpace(c):
		return false
	}
	return true
}

func (s *literalScan) finish(text string) bool {
	object, err := s.convert(text)
	s.out, s.whole = []byte(object), err == nil
	return s.whole
}

// tagScan follows arguments that are written one by one.
type tagScan struct {
	tags  Tags
	end   string // what follows the last one, without white space
	types map[string]valueType

	state tagState
	got   string // of a mark, without white space
	key   []byte
	text  []byte // of a value
	is    valueType

	out     []byte
	started bool
	whole   bool
	over    string // end, if it was read
}

type tagState int

const (
	tagBegin tagState = iota // a mark that begins an argument, or the end
	tagKey
	tagMiddle
	tagValue
)

func (s *tagScan) begun() bool { return s.started }
func (s *tagScan) done() bool  { return s.whole }

func (s *tagScan) take() []byte {
	out := s.out
	s.out = nil
	return out
}

func (s *tagScan) next(c byte) bool {
	switch s.state {
	case tagBegin:
		if isSpace(c) {
			return true
		}
		s.got += string([]byte{c})
		begin := unspaced(s.tags.Begin)
		switch s.got {
		case begin:
			s.state, s.key, s.got = tagKey, nil, ""
		case s.end:
			if !s.started {
				s.started = true
				s.out = append(s.out, '{')
			}
			s.out = append(s.out, '}')
			s.whole, s.over = true, s.end
		default:
			return strings.HasPrefix(begin, s.got) || strings.HasPrefix(s.end, s.got)
		}
	case tagKey:
		if c != s.tags.Middle[0] {
			s.key = append(s.key, c)
			return len(s.key) <= maxName
		}
		s.state = tagMiddle
		return s.next(c)
	case tagMiddle:
		if isSpace(c) {
			return true
		}
		s.got += string([]byte{c})
		middle, text := unspaced(s.tags.Middle), unspaced(s.tags.String)
		if s.got != middle && (text == "" || s.got != text) {
			return strings.HasPrefix(middle, s.got) || strings.HasPrefix(text, s.got)
		}
		s.is = s.types[strings.TrimSpace(string(s.key))]
		if text != "" {
			s.is = valueType{known: true, text: s.got == text, other: s.got != text}
		}
		s.state, s.text, s.got = tagValue, nil, ""
	case tagValue:
		s.text = append(s.text, c)
		if len(s.text) > maxLiteral {
			return false
		}
		end := strings.TrimSpace(s.tags.End)
		if c == end[len(end)-1] && strings.HasSuffix(string(s.text[max(0, len(s.text)-len(end)):]), end) {
			if text := string(s.text[:len(s.text)-len(end)]); s.is.ends(text) {
				return s.value(text)
			}
		}
	}
	return true
}

// value writes an argument.
func (s *tagScan) value(text string) bool {
	if strings.HasSuffix(s.tags.Middle, "\n") {
		text = strings.TrimPrefix(text, "\n")
	}
	if strings.HasPrefix(s.tags.End, "\n") {
		text = strings.TrimSuffix(text, "\n")
	}
	key := strings.TrimSpace(string(s.key))
	if s.started {
		s.out = append(s.out, ", "...)
	} else {
		s.out = append(s.out, '{')
		s.started = true
	}
	s.out = append(appendString(s.out, key), ": "...)
	s.out = append(s.out, s.is.json(text)...)
	s.state = tagBegin
	return true
}
