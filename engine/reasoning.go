package engine

import (
	"bytes"
	"errors"
	"slices"
)

// Reasoning is what a model may write before its answer, between two marks. A
// Constraint holds only what comes after it. The slices are not changed.
type Reasoning struct {
	Open       string  // begins it: the first of the text but for white space
	OpenTokens []int32 // the same; needed with Grammar, unless Opened
	Opened     bool    // the prompt has Open: the text begins inside
	Close      string  // ends it

	// Budget is after how many tokens inside the reasoning is ended, unless it
	// has ended by then. Negative: never.
	Budget int
	Ending []int32 // the tokens that end it then; their text has Close
	// Answer are tokens that come between Close and what Grammar holds. An
	// Ending before a Grammar has them already.
	Answer []int32
}

// check refuses what cannot work.
func (r *Reasoning) check(g *Constraint) error {
	switch {
	case r == nil:
	case r.Close == "" || r.Open == "" && !r.Opened:
		return errors.New("reasoning without marks")
	case g.NewDetokenizer == nil:
		return errors.New("reasoning without a detokenizer")
	case g.Grammar != nil && !r.Opened && len(r.OpenTokens) == 0:
		return errors.New("reasoning before a grammar without the tokens of its mark")
	case r.Budget >= 0 && len(r.Ending) == 0:
		return errors.New("a budget of reasoning without an ending")
	}
	return nil
}

const whiteSpace = " \t\r\n"

// tokens is how many tokens r has.
func (r *Reasoning) tokens() int {
	if r == nil {
		return 0
	}
	return len(r.OpenTokens) + len(r.Ending) + len(r.Answer)
}

// reasoning is how far a sequence is in what comes before its answer.
type reasoning struct {
	*Reasoning
	inside bool
	count  int    // tokens inside
	text   []byte // the end of what was read, as much as a mark may begin in
	ending bool   // pending tokens are the last before the answer
	choice bool   // the first token may be that of Open, and the grammar does not allow it
}

// read takes in what a token completes. When the block has ended, or there is
// none, it returns what of the text comes after it.
func (r *reasoning) read(text []byte) (rest []byte, over bool) {
	r.text = append(r.text, text...)
	if r.inside {
		r.count++
	} else {
		r.text = bytes.TrimLeft(r.text, whiteSpace)
		mark := []byte(r.Open)
		switch {
		case bytes.HasPrefix(r.text, mark):
			r.text, r.inside = r.text[len(mark):], true
		case !bytes.HasPrefix(mark, r.text):
			return r.text, true
		default:
			return nil, false
		}
	}
	if at := bytes.Index(r.text, []byte(r.Close)); at >= 0 {
		return r.text[at+len(r.Close):], true
	}
	r.text = r.text[:copy(r.text, r.text[max(0, len(r.text)-len(r.Close)+1):])]
	return nil, false
}

// spent reports whether the budget is used up.
func (r *reasoning) spent() bool { return r.inside && r.Budget >= 0 && r.count >= r.Budget }

// mayOpen adds to a grammar's mask of the first token that which opens the
// block, and notes that it does.
func (r *reasoning) mayOpen(mask []uint32) {
	if r.choice = !has(mask, r.OpenTokens[0]); r.choice {
		allow(mask, r.OpenTokens[:1])
	}
}

// reason takes in a token that was sampled before the answer.
func (e *Engine) reason(s *sequence, token int32) {
	g := s.constraint
	r := g.reasoning
	switch {
	case g.matcher == nil:
		g.text = g.dec.Append(g.text[:0], token)
		if len(g.pending) > 0 { // it was the only choice for the first one
			g.pending = g.pending[1:]
		} else if rest, over := r.read(g.text); over {
			e.answer(s, rest)
			return
		}
	case !r.choice || token != r.OpenTokens[0]:
		g.reasoning = nil
		g.compiler.Advance(g.matcher, []int32{token}, s.limit-s.known())
		g.moving, g.patient = g.matcher, true
		return
	default:
		g.text = g.dec.Append(g.text[:0], token)
		g.next, g.matcher = g.matcher, nil
		g.pending, r.inside = r.OpenTokens[1:], true
	}
	if r.spent() && !r.ending {
		g.pending, r.ending = slices.Concat(g.pending, r.Ending), true
	}
	if r.ending && len(g.pending) == 0 {
		e.answer(s, nil)
	}
}

// answer begins what comes after the reasoning with the rest of its last token.
func (e *Engine) answer(s *sequence, rest []byte) {
	g := s.constraint
	r := g.reasoning
	if g.next == nil {
		g.reasoning = nil
		if g.watch == nil {
			s.dropConstraint()
			return
		}
		g.watch.read(rest)
		e.look(s)
		return
	}
	rest = bytes.TrimLeft(rest, whiteSpace)
	if len(rest) == 0 && len(r.Answer) > 0 && !r.ending {
		g.pending, r.ending = r.Answer, true
		return
	}
	g.reasoning = nil
	g.compiler.Enter(g.next, rest, s.limit-s.known())
	g.moving, g.patient = g.next, true
}

var errAfterReasoning = errors.New("the text after the reasoning is not its beginning")
