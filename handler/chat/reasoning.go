package chat

import (
	"strings"
)

// Reasoning is how a model marks what it thinks before it answers. The zero
// value is of a model that does not, or not visibly.
type Reasoning struct {
	Open, Close string // around the text
	// Channels: Open begins any message, and the name of its channel says
	// whether it is reasoning, an answer or a call, as in OpenAI's harmony.
	Channels bool
}

// Exists reports whether there are marks to split reasoning off by.
func (r Reasoning) Exists() bool { return r.Close != "" }

// opened reports whether a text of the assistant ends inside its reasoning.
func (r Reasoning) opened(text string) bool {
	return r.Exists() && !r.Channels && strings.LastIndex(text, strings.TrimSpace(r.Open)) > strings.LastIndex(text, r.Close)
}

// reasonings are the marks in use, found in the templates that write or cut them.
var reasonings = []Reasoning{
	{Open: "<think>", Close: "</think>"},
	{Open: "<seed:think>", Close: "</seed:think>"},
	{Open: "[THINK]", Close: "[/THINK]"},
	{Open: "<|START_THINKING|>", Close: "<|END_THINKING|>"},
	{Open: "<|channel>thought\n", Close: "<channel|>"},
	{Open: "<|inner_prefix|>", Close: "<|inner_suffix|>"},
	{Open: "<think:opensource>", Close: "</think:opensource>"},
	{Open: "Here is my thought process:", Close: "Here is my response:"},
}

// answers are the marks around answers in use.
var answers = []Reasoning{{Open: "<answer>", Close: "</answer>"}, {Open: "<response>", Close: "</response>"}}

// answerOf returns the marks around answers that the source of a template names.
func answerOf(source string) Reasoning {
	for _, a := range answers {
		if strings.Contains(source, a.Open) && strings.Contains(source, a.Close) {
			return a
		}
	}
	return Reasoning{}
}

// reasoningOf returns the marks that the source of a template names.
func reasoningOf(source string) Reasoning {
	for _, r := range reasonings {
		if strings.Contains(source, r.Close) {
			return r
		}
	}
	return Reasoning{}
}

// Reasoning reports whether what was written last is reasoning, and whether no more
// of it can come.
func (p *Parser) Reasoning() (inside, over bool) {
	if p.format.Reasoning.Channels {
		return p.channels.inside && p.channels.kind == ofReasoning, false
	}
	if p.regions != nil {
		return p.regions.inReasoning(), false
	}
	state := p.thought.state
	return state == beginThought || state == inThought, state == afterThought || state == noThought
}

// thought splits the reasoning off the beginning of an answer. White space
// around the marks belongs to neither side, as transformers has it.
type thought struct {
	marks Reasoning
	state thoughtState
	held  []byte // white space, or what may be a mark
}

type thoughtState int

const (
	beforeThought thoughtState = iota // only white space came
	beginThought                      // after the mark that opens it
	inThought
	afterThought // only white space came after its end
	noThought
)

func newThought(marks Reasoning, opened bool) thought {
	t := thought{marks: marks}
	switch {
	case !marks.Exists() || marks.Channels:
		t.state = noThought
	case opened:
		t.state = beginThought
	}
	return t
}

// next takes a byte. What it returns is reasoning or not reasoning for certain.
func (t *thought) next(c byte) (reasoning, rest []byte) {
	t.held = append(t.held, c)
	ink := strings.TrimLeft(string(t.held), " \t\r\n")
	switch t.state {
	case beforeThought, beginThought:
		open := strings.TrimSpace(t.marks.Open)
		switch {
		case ink == open:
			t.state, t.held = beginThought, t.held[:0]
		case strings.HasPrefix(open, ink) && len(t.held) <= maxSpace+len(open):
		case t.state == beginThought:
			t.state = inThought
			return t.inside([]byte(ink)), nil
		default:
			t.state = noThought
			return nil, t.all()
		}
	case inThought:
		return t.inside(nil), nil
	case afterThought:
		if ink != "" {
			t.state, t.held = noThought, t.held[:0]
			return nil, []byte(ink)
		}
	case noThought:
		return nil, t.all()
	}
	return nil, nil
}

// inside returns what of the held text is reasoning. text replaces it, if it is not nil.
func (t *thought) inside(text []byte) []byte {
	if text != nil {
		t.held = text
	}
	mark := t.marks.Close
	if cut, ok := strings.CutSuffix(string(t.held), mark); ok {
		t.state, t.held = afterThought, nil
		return []byte(strings.TrimRight(cut, " \t\r\n"))
	}
	// White space at the end, and a part of the mark after it, may not be reasoning.
	keep := len(t.held)
	for n := min(len(mark)-1, keep); n > 0; n-- {
		if strings.HasSuffix(string(t.held), mark[:n]) {
			keep -= n
			break
		}
	}
	for keep > 0 && isSpace(t.held[keep-1]) && len(t.held)-keep < maxSpace+len(mark) {
		keep--
	}
	text = t.held[:keep:keep]
	t.held = t.held[keep:]
	return text
}

// close ends the answer.
func (t *thought) close() (reasoning, rest []byte) {
	state := t.state
	held := t.all()
	t.state = noThought
	switch state {
	case beginThought, inThought:
		return []byte(strings.TrimRight(string(held), " \t\r\n")), nil
	case afterThought:
		return nil, nil
	}
	return nil, held
}

func (t *thought) all() []byte {
	held := t.held
	t.held = nil
	return held
}
