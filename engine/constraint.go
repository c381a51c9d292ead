package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
)

// Constraint makes the output of a request follow a grammar, from its beginning or
// after a trigger, and bounds the reasoning before it. Submit takes it over, even if
// it fails: the engine closes its matchers.
type Constraint struct {
	Grammar   *grammar.Matcher // from the first token on; nil: none
	Triggers  []Trigger        // only when Grammar is nil
	Reasoning *Reasoning       // comes before what these hold; nil: none

	// NewDetokenizer returns a Detokenizer that spells special tokens out. It is
	// needed with Triggers or Reasoning.
	NewDetokenizer func() Detokenizer
}

// check refuses what cannot work. Such faults are the handler's, not a client's.
func (g *Constraint) check() error {
	if g.Grammar != nil && len(g.Triggers) > 0 {
		return errors.New("both a grammar and triggers")
	}
	if len(g.Triggers) > 0 && g.NewDetokenizer == nil {
		return errors.New("triggers without a detokenizer")
	}
	for _, t := range g.Triggers {
		if t.Text == "" || t.Grammar == nil {
			return fmt.Errorf("trigger %q without a text or a grammar", t.Text)
		}
	}
	return g.Reasoning.check(g)
}

// Close closes the grammars of one that no engine gets. g may be nil.
func (g *Constraint) Close() {
	if g == nil {
		return
	}
	if g.Grammar != nil {
		g.Grammar.Close()
	}
	for _, t := range g.Triggers {
		if t.Grammar != nil {
			t.Grammar.Close()
		}
	}
}

// clone returns a Constraint for another sequence.
func (g *Constraint) clone() (*Constraint, error) {
	if g == nil {
		return nil, nil
	}
	c := &Constraint{Reasoning: g.Reasoning, NewDetokenizer: g.NewDetokenizer}
	var err error
	if g.Grammar != nil {
		c.Grammar, err = g.Grammar.Clone()
	}
	for i := 0; i < len(g.Triggers) && err == nil; i++ {
		t := g.Triggers[i]
		if t.Grammar, err = t.Grammar.Clone(); err == nil {
			c.Triggers = append(c.Triggers, t)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Compiler is what the engine asks of the compiler that its requests' matchers
// come from. A *grammar.Compiler is one.
type Compiler interface {
	EOS() []int32
	MaskWords() int
	Start(m *grammar.Matcher, room int)
	Advance(m *grammar.Matcher, tokens []int32, room int)
	Enter(m *grammar.Matcher, text []byte, room int)
	Moves(ms []*grammar.Matcher, deadline time.Time)
	Moved(m *grammar.Matcher) (move grammar.Move, ok bool, err error)
	Masks(ms []*grammar.Matcher, rows [][]uint32, errs []error, deadline time.Time)
	Drafts(ms []*grammar.Matcher, ds []*grammar.Draft, deadline time.Time)
}

// constraintState is how far a sequence has followed its Constraint. The matcher has
// seen every token that is committed, and those in pending, but none that is in
// flight, which may still be dropped, and while the results of a step are applied none
// in unread. The compiler's workers move it.
type constraintState struct {
	compiler   Compiler         // nil without a grammar
	matcher    *grammar.Matcher // the grammar that holds; nil while there is none
	watch      *watch           // for triggers, while there is none
	entering   *Trigger         // one whose grammar holds if it takes the text after Text
	reasoning  *reasoning       // before the answer; nil after it
	next       *grammar.Matcher // the grammar that holds after it
	started    bool             // the first mask has been asked for
	moving     *grammar.Matcher // being moved by the workers, as far as the loop knows
	patient    bool             // moving has not been waited for yet
	pending    []int32          // forced tokens to commit, the next first
	end        bool             // nothing but the end may come after them
	unread     []int32          // committed tokens of a draft, for the matcher to move past
	draft      *grammar.Draft   // that of the sequence, under the grammar; nil: the workers may have one
	lateDrafts int              // that they had

	dec  Detokenizer // of what reasoning and watch read
	text []byte      // scratch: of the last token
}

// newConstraintState returns the state of a new sequence, nil for free text.
func (e *Engine) newConstraintState(g *Constraint) (*constraintState, error) {
	if g == nil || g.Grammar == nil && len(g.Triggers) == 0 && g.Reasoning == nil {
		return nil, nil
	}
	if err := g.check(); err != nil {
		return nil, &Error{Kind: Internal, Msg: "the request's constraint is invalid", Err: err}
	}
	made := &constraintState{matcher: g.Grammar}
	if g.NewDetokenizer != nil {
		made.dec = g.NewDetokenizer()
	}
	if len(g.Triggers) > 0 {
		made.watch = newWatch(g.Triggers)
	}
	if r := g.Reasoning; r != nil {
		made.reasoning = &reasoning{Reasoning: r, inside: r.Opened}
		if r.Opened {
			made.next, made.matcher = g.Grammar, nil
		}
		if made.reasoning.spent() {
			made.pending, made.reasoning.ending = r.Ending, true
		}
	}
	if g.Grammar == nil && len(g.Triggers) == 0 {
		return made, nil
	}
	if e.cfg.Compiler == nil {
		return nil, &Error{Kind: Internal, Msg: "this engine has no grammars"}
	}
	c, err := e.cfg.Compiler()
	if err != nil {
		return nil, &Error{Kind: Internal, Msg: "this model has no grammars", Err: err}
	}
	if got, want := c.MaskWords(), device.MaskWords(e.cfg.Plan.Vocab); got != want {
		return nil, &Error{Kind: Internal, Msg: fmt.Sprintf("the grammar's masks have %d words, the model's %d", got, want)}
	}
	made.compiler = c
	return made, nil
}

// constrained reports whether the sequence follows a grammar now.
func (s *sequence) constrained() bool { return s.constraint != nil && s.constraint.matcher != nil }

// undecided reports whether it is not known yet which grammar s follows, or where it is
// in it.
func (s *sequence) undecided() bool { return s.constraint != nil && s.constraint.moving != nil }

// forcing reports whether the token after all known ones is known to a grammar. The
// first token of a sequence is sampled, even where there is no choice.
func (s *sequence) forcing() bool {
	g := s.constraint
	return g != nil && s.generated > 0 && (len(g.pending) > 0 || g.end)
}

// masked reports whether the token after all known ones needs a mask. The end must
// not come before the answer that a grammar holds.
func (s *sequence) masked() bool {
	g := s.constraint
	return g != nil && (g.matcher != nil || g.next != nil || len(g.pending) > 0) || s.rules.hold(s.generated)
}

// dropConstraint closes the grammars of s, which goes on, or ends, without them.
func (s *sequence) dropConstraint() {
	g := s.constraint
	if g == nil {
		return
	}
	s.constraint = nil
	for _, m := range []*grammar.Matcher{g.matcher, g.next} {
		if m != nil {
			discard(m)
		}
	}
	if g.watch != nil {
		g.watch.close(nil)
	}
}

// discard closes a matcher on another goroutine: freeing a large one takes time.
func discard(m *grammar.Matcher) { go m.Close() }
