package chat

import (
	"bytes"
	"slices"
	"strings"
)

// Delta is a step of an answer: a piece of its content, of its reasoning, or of
// a call. Exactly one of the fields is set.
type Delta struct {
	Content   string
	Reasoning string
	Call      *CallDelta
}

// CallDelta is a piece of a call. The first of a call has its ID and Name and
// no arguments; the Arguments of the others, put together, are its JSON.
type CallDelta struct {
	Index     int // of the call in the answer
	ID, Name  string
	Arguments string
}

// Parser finds reasoning and calls in a model's text as it comes. It reads what
// the Format says, and calls that are JSON whatever that says: small models often
// drop a marker, or answer in the form that a prompt asks for.
//
// A text is a call if it has one of the forms of Format at a place where calls
// may be (after a marker, after another call, or first in the answer) and
// its name is that of a tool. All other text is content. What may yet become a
// call is held back; as soon as it cannot, it is content, so that nothing is
// lost but markers and the white space around calls. How the text is cut into
// pieces makes no difference to content and calls as a whole.
//
// A call whose arguments stop being JSON, or that the answer's end cuts off,
// ends there (see Cut); the text after it is content. As much as the client
// has seen of it cannot be taken back. A call that is cut off after its name
// has no arguments. Where the answer must be a call, what was to be its name is
// no content either.
type Parser struct {
	format   *Format
	thought  thought
	answer   thought // whose inside is the content
	channels channelScan
	regions  *templateScan   // of a response_template, nil if there is none
	known    map[string]bool // names of tools
	tools    map[string]*Tool
	markers  []string  // that announce calls
	closers  []string  // that end what a marker of JSON began
	first    [256]bool // first bytes of both
	form     *formScan // in inForm
	ids      map[string]bool
	required bool // the answer is a call
	cut      bool // the last call is not whole
	newID    func() string

	state parserState
	held  []byte    // text that is neither content nor certain to be a call
	from  int       // where in held the marker or call begins; before it is what is between calls
	mark  string    // the marker that announced the call
	list  bool      // calls are the elements of a list
	bare  bool      // a { may begin a call
	inked bool      // more than white space came before what may be a marker
	call  *callScan // in inCall
	calls int       // that have begun

	pending  []byte // of one kind, to be sent
	kind     deltaKind
	hasBegun bool // the call of inCall was sent
	out      []Delta
}

// deltaKind is the field of a Delta.
type deltaKind int

const (
	ofContent deltaKind = iota
	ofReasoning
	ofCall
)

type parserState int

const (
	inStart   parserState = iota // only white space came
	inText                       // content
	inMarker                     // what was held from `from` on begins a marker
	inOpening                    // after a marker
	inName                       // in the name of [TOOL_CALLS]name
	inArgs                       // in the [ARGS] after it
	inCall                       // in the JSON of a call
	inForm                       // in calls of the model's own form
	inBetween                    // after a call
)

// NewParser returns a Parser for one answer of a model that writes as f says.
// thinking is the prompt's Thinking. newID makes the ids of calls. Without
// tools all text that is not reasoning is content.
func NewParser(f *Format, s Selection, thinking bool, newID func() string) *Parser {
	p := &Parser{
		format: f, thought: newThought(f.Reasoning, thinking), answer: newThought(f.Answer, false),
		known: map[string]bool{}, tools: map[string]*Tool{}, required: s.Required, newID: newID, ids: map[string]bool{}, bare: true,
		markers: []string{hermesOpen, mistralOpen, pythonTag}, closers: []string{hermesClose},
	}
	for i := range s.Tools {
		p.known[s.Tools[i].Name] = true
		p.tools[s.Tools[i].Name] = &s.Tools[i]
	}
	if t := f.Template; t != nil {
		p.regions = &templateScan{regionScan: newRegionScan(t)}
		for _, field := range t.fields {
			if kind, ok := field.kind(); thinking && ok && kind == ofReasoning && field.open.exists() {
				p.regions.current, p.regions.explicit, p.regions.begun = field, true, true
			}
		}
	}
	c := &f.Calls
	if c.Marker != "" && c.Marker[0] != '{' && !slices.Contains(p.markers, c.Marker) {
		p.markers = append(p.markers, c.Marker)
	}
	if closer := strings.TrimLeft(unspaced(c.End+c.Close), "}]"); c.Object && closer != "" {
		p.closers = append(p.closers, closer)
	}
	for _, m := range slices.Concat(p.markers, p.closers) {
		p.first[m[0]] = p.first[m[0]] || m != c.Marker || !c.AtStart
	}
	if len(s.Tools) == 0 {
		p.state = inText
	}
	return p
}

// Write reads a piece of text, which must not end inside a character, and
// returns what is known by it. The deltas are the caller's until the next call.
func (p *Parser) Write(piece string) []Delta {
	p.out = nil
	if p.regions != nil {
		p.region(piece, false)
		p.flush()
		return p.out
	}
	for i := range len(piece) {
		if p.format.Reasoning.Channels {
			p.channel(piece[i])
			continue
		}
		if p.thought.state == noThought && p.answer.state == noThought {
			p.read([]byte(piece[i:]))
			break
		}
		reasoning, rest := p.thought.next(piece[i])
		p.put(ofReasoning, reasoning...)
		p.unwrap(rest)
	}
	p.flush()
	return p.out
}

// unwrap reads text that is not reasoning, perhaps with marks around the answer.
func (p *Parser) unwrap(text []byte) {
	for _, c := range text {
		inside, rest := p.answer.next(c)
		p.read(inside)
		p.read(rest)
	}
}

// read reads text that is not reasoning.
func (p *Parser) read(text []byte) {
	if len(p.known) == 0 {
		p.put(ofContent, text...)
		return
	}
	for _, c := range text {
		p.step(c)
	}
}

// Close reads the end of the text.
func (p *Parser) Close() []Delta {
	p.out = nil
	if p.regions != nil {
		p.region("", true)
		p.flush()
		return p.out
	}
	if p.format.Reasoning.Channels {
		p.closeChannels()
		p.flush()
		return p.out
	}
	reasoning, rest := p.thought.close()
	p.put(ofReasoning, reasoning...)
	p.unwrap(rest)
	inside, rest := p.answer.close()
	p.read(inside)
	p.read(rest)
	switch {
	case p.state == inCall && p.hasBegun:
		p.cut = !p.call.whole()
	case p.state == inForm && p.hasBegun:
		p.cut = !p.form.arguments.done()
	case p.state == inBetween || p.state == inForm && p.form.between():
	case p.state != inText && p.cutCall():
	case p.state == inMarker && p.mark != "" && p.closes(string(p.held[p.from:])):
		// The end of the call that was read, cut off.
	default:
		p.put(ofContent, p.held...)
	}
	p.held, p.state = nil, inText
	p.flush()
	return p.out
}

// cutCall begins a call whose arguments did not begin, and reports whether the
// held text is not content.
func (p *Parser) cutCall() bool {
	name, begun := "", ""
	switch p.state {
	case inCall:
		name, begun = p.call.name, p.call.partialName()
	case inName, inArgs:
		name, begun = p.call.name, p.call.name
	case inForm:
		name = string(p.form.name)
		begun = name
	}
	if !p.known[name] && p.required && p.calls == 0 && len(p.held) > 0 {
		name = p.onlyName(begun)
	}
	if !p.known[name] {
		return p.required
	}
	p.begun(name, "")
	p.cut = true
	return true
}

// onlyName returns the one name that begins so, "" if there are several.
func (p *Parser) onlyName(begun string) (name string) {
	for known := range p.known {
		switch {
		case !strings.HasPrefix(known, begun):
		case name != "":
			return ""
		default:
			name = known
		}
	}
	return name
}

// Calls returns how many calls the answer has so far.
func (p *Parser) Calls() int { return p.calls }

// Cut reports whether the last call is not whole: its end, or that of the
// answer, came before that of its arguments.
func (p *Parser) Cut() bool { return p.cut }

// maxHeld bounds what is held back, maxSpace the white space of it and maxName
// a name outside of JSON: a text that goes on like that is content.
const (
	maxHeld  = 32 << 10
	maxSpace = 64
	maxName  = 256
)

// step reads one byte.
func (p *Parser) step(c byte) {
	if p.state == inText && !p.first[c] {
		p.put(ofContent, c)
		return
	}
	if p.state == inCall {
		p.inCall(c)
		return
	}
	if p.state == inForm {
		p.inForm(c)
		return
	}
	p.held = append(p.held, c)
	switch p.state {
	case inText:
		p.candidate()
	case inStart, inBetween:
		p.outside(c)
	case inMarker:
		p.inMarker()
	case inOpening:
		p.inOpening(c)
	case inName:
		p.inName(c)
	case inArgs:
		p.inArgs(c)
	}
}

// candidate begins a marker with the byte that was held last.
func (p *Parser) candidate() {
	p.from = len(p.held) - 1
	p.state = inMarker
}

// outside reads a byte before the first call or after one.
func (p *Parser) outside(c byte) {
	between := p.state == inBetween
	switch {
	case p.first[c] || p.state == inStart && p.announces(c):
		p.inked = len(bytes.TrimSpace(p.held[:len(p.held)-1])) > 0 || between
		p.candidate()
	case c == '{' && p.bare:
		p.from = len(p.held) - 1
		p.begin()
	case isSpace(c) && len(p.held) <= maxSpace:
	case between && p.list && c == ',', between && !p.list && p.bare && c == ';':
	case between && p.list && c == ']':
		p.list, p.bare = false, false
		p.held = p.held[:0]
	default:
		p.release(len(p.held))
	}
}

// release makes the first n held bytes content and reads the others again.
func (p *Parser) release(n int) {
	held := p.held
	p.held, p.state = nil, inText
	p.list, p.bare, p.mark = false, false, ""
	p.put(ofContent, held[:n]...)
	for _, c := range held[n:] {
		p.step(c)
	}
}

// reject finds that the text from p.from on is not a call.
func (p *Parser) reject() { p.release(p.from + 1) }

func (p *Parser) inMarker() {
	text := string(p.held[p.from:])
	if p.mark != "" && slices.Contains(p.closers, text) {
		p.held, p.mark, p.bare, p.list = p.held[:0], "", false, false
		p.state = inBetween
		return
	}
	if slices.Contains(p.markers, text) {
		p.mark, p.list, p.bare = text, false, true
		p.state = inOpening
		return
	}
	for _, marker := range p.markers {
		if strings.HasPrefix(marker, text) {
			return
		}
	}
	switch {
	case p.mark != "" && p.closes(text):
	case p.format.Calls.Marker == "" && p.format.Calls.Open == "[" && text[0] == '[' && !p.inked:
		p.enterForm(p.from)
	default:
		p.reject()
	}
}

// announces reports whether c may begin a marker that counts only here.
func (p *Parser) announces(c byte) bool {
	f := &p.format.Calls
	return f.AtStart && f.Marker[0] == c && c != '{' || f.Marker == "" && f.Open == "[" && c == '['
}

// closes reports whether text begins what ends the calls of a marker.
func (p *Parser) closes(text string) bool {
	return slices.ContainsFunc(p.closers, func(c string) bool { return strings.HasPrefix(c, text) })
}

// enterForm reads the held text from n on as calls of the model's own form.
func (p *Parser) enterForm(n int) {
	rest := bytes.Clone(p.held[n:])
	p.held = p.held[:n]
	p.form, p.state, p.hasBegun = newFormScan(&p.format.Calls, p.tools), inForm, false
	for i, c := range rest {
		if p.state != inForm {
			p.step(rest[i])
			continue
		}
		p.inForm(c)
	}
}

// inForm reads a byte of calls in the model's own form.
func (p *Parser) inForm(c byte) {
	ok := p.form.next(c)
	if !ok && p.hasBegun {
		p.cut = !p.form.arguments.done()
		p.hasBegun = false
		p.release(0)
		p.step(c)
		return
	}
	p.held = append(p.held, c)
	if !ok {
		switch {
		case p.form.ended: // c is not part of the calls
			p.held = p.held[:0]
			p.state = inBetween
			p.bare, p.mark = false, ""
			p.step(c)
		case p.form.begunCalls > 1 || p.form.between() || p.calls > 0 && p.mark == "":
			p.release(len(p.held))
		default:
			p.reject()
		}
		return
	}
	if p.form.fresh && p.form.called() {
		p.begun(string(p.form.name), p.form.callID())
		p.form.fresh, p.hasBegun = false, true
	}
	if p.hasBegun {
		p.held = p.held[:0]
		p.put(ofCall, p.form.arguments.take()...)
		if p.form.between() {
			p.hasBegun = false
		}
	}
}

func (p *Parser) inOpening(c byte) {
	mistral := p.mark == mistralOpen
	if f := &p.format.Calls; p.mark == f.Marker && !f.Object && !isSpace(c) {
		// Some write the call in JSON all the same.
		if own := unspaced(f.Open + f.Begin)[len(unspaced(f.Marker)):]; c != '{' || own != "" && own[0] == '{' {
			p.enterForm(p.from + len(p.mark))
			return
		}
	}
	switch {
	case len(p.held)-p.from > len(p.mark)+maxSpace:
		p.reject()
	case isSpace(c):
	case c == '{':
		p.begin()
	case c == '[' && !p.list:
		p.list = true
	case !mistral || p.list || isAny(c, "<["):
		p.reject()
	default:
		p.call = newArgumentScan(string([]byte{c}))
		p.state = inName
	}
}

// inName reads the name of [TOOL_CALLS]name{…} or [TOOL_CALLS]name[ARGS]{…}.
func (p *Parser) inName(c byte) {
	switch name := p.call.name; {
	case c == '[' && p.known[name]:
		p.state = inArgs
	case c == '{' && p.known[name]:
		p.arguments()
	case c == '[' || c == '{' || isSpace(c) || len(name) > maxName:
		p.reject()
	default:
		p.call.name += string([]byte{c})
	}
}

func (p *Parser) inArgs(c byte) {
	text := string(p.held)
	for n := 1; n < len(mistralArgs); n++ {
		if strings.HasSuffix(text, p.call.name+mistralArgs[:n+1]) {
			return
		}
	}
	if c == '{' && strings.HasSuffix(text, mistralArgs+"{") {
		p.arguments()
		return
	}
	p.reject()
}

// begin reads the { of a call.
func (p *Parser) begin() {
	p.call = newCallScan(p.known)
	p.state, p.hasBegun = inCall, false
	p.call.next('{')
}

// arguments reads the { of the arguments of the call that p.call names.
func (p *Parser) arguments() {
	p.call = newArgumentScan(p.call.name)
	p.state, p.hasBegun = inCall, false
	p.bare = false
	p.call.next('{')
	p.progress()
}

func (p *Parser) inCall(c byte) {
	if !p.hasBegun {
		p.held = append(p.held, c)
	}
	switch ok := p.call.next(c); {
	case !ok && p.hasBegun:
		p.cut = true
		p.release(0)
		p.step(c)
	case !ok || len(p.held) > maxHeld:
		p.reject()
	default:
		p.progress()
	}
}

// progress sends what the call's last byte made certain.
func (p *Parser) progress() {
	if !p.call.ready() {
		if p.call.done() {
			p.reject()
		}
		return
	}
	if !p.hasBegun {
		p.begun(p.call.name, "")
		p.hasBegun = true
		p.held = p.held[:0]
	}
	p.put(ofCall, p.call.take()...)
	if p.call.done() {
		p.state = inBetween
	}
}

// begun sends that a call has begun. Its id is the model's if it gave one that
// no other call of the answer has.
func (p *Parser) begun(name, id string) {
	p.flush()
	if id == "" || p.ids[id] {
		id = p.newID()
	}
	p.ids[id] = true
	p.out = append(p.out, Delta{Call: &CallDelta{Index: p.calls, ID: id, Name: name}})
	p.calls++
	p.cut = false
}

// put adds bytes to what is to be sent.
func (p *Parser) put(kind deltaKind, b ...byte) {
	if kind != p.kind && len(b) > 0 {
		p.flush()
		p.kind = kind
	}
	p.pending = append(p.pending, b...)
}

// flush makes a delta of what is to be sent.
func (p *Parser) flush() {
	if len(p.pending) == 0 {
		return
	}
	var d Delta
	switch text := string(p.pending); p.kind {
	case ofContent:
		d.Content = text
	case ofReasoning:
		d.Reasoning = text
	case ofCall:
		d.Call = &CallDelta{Index: p.calls - 1, Arguments: text}
	}
	p.out = append(p.out, d)
	p.pending = p.pending[:0]
}
