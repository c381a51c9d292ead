package engine

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

func encoded(t testing.TB, text string) []int32 {
	t.Helper()
	ids, err := vocabulary.Encode(text, false)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// Reasoning that has used up its budget ends as it is to end, and what follows is
// the answer, held to its grammar. The world compares every token.
func TestReasoningBudget(t *testing.T) {
	thought := func(r Reasoning) *Reasoning {
		r.Open, r.OpenTokens, r.Close, r.Ending = "<call>", []int32{grammartest.Call}, "9<9", encoded(t, "12, 9<9")
		return &r
	}
	for _, tt := range []struct {
		name   string
		spec   constraintSpec
		change func(r *Request)
		tokens int // before the ending
		rest   string
		finish FinishReason
	}{
		{name: "and a grammar", spec: constraintSpec{reasoning: thought(Reasoning{Opened: true, Budget: 5}), grammar: regex(`abcxy`)}, tokens: 5, rest: "abcxy</s>", finish: FinishEOS},
		{name: "none at all", spec: constraintSpec{reasoning: thought(Reasoning{Opened: true}), grammar: regex(`abcxy`)}, rest: "abcxy</s>", finish: FinishEOS},
		{name: "alone", spec: constraintSpec{reasoning: thought(Reasoning{Opened: true, Budget: 9})}, tokens: 9, finish: FinishLength},
		{name: "that the limit cuts", spec: constraintSpec{reasoning: thought(Reasoning{Opened: true, Budget: 40}), grammar: regex(`abcxy`)}, tokens: 40, finish: FinishLength},
		{name: "in spite of lists", spec: constraintSpec{reasoning: thought(Reasoning{Opened: true, Budget: 2})}, tokens: 2, finish: FinishLength,
			change: func(r *Request) { r.AllowedTokens = encoded(t, "xy") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: grammarModel})
			r := constrainedRequest(40)
			if tt.change != nil {
				tt.change(r)
			}
			cs, err := w.submitN(t, r, &tt.spec, []uint64{1, 2})
			if err != nil {
				t.Fatal(err)
			}
			w.finish(t)
			for _, c := range cs {
				var ids []int32
				for _, tok := range c.got {
					ids = append(ids, tok.ID)
				}
				ending := "12, 9<9" + tt.rest
				text := vocabulary.Text(ids[tt.tokens:]...)
				if tt.tokens == 40 {
					ending = ""
				}
				if c.err != io.EOF || c.stream.Finish() != tt.finish || !strings.HasPrefix(text, ending) || tt.rest != "" && tt.tokens < 40 && text != ending {
					t.Errorf("%q after %q, finish %d (%v)", text, vocabulary.Text(ids[:tt.tokens]...), c.stream.Finish(), c.err)
				}
			}
		})
	}
}

// What comes with the last token of the reasoning belongs to the answer: white space
// does not matter, what the grammar does not allow fails the request.
func TestReasoningRest(t *testing.T) {
	for pattern, want := range map[string]string{`\{"true`: `l>{"true</s>`, `abc`: ""} {
		w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: grammarModel})
		r := constrainedRequest(40)
		r.LogitBias = []sample.Bias{{Token: tokenOf(t, `l>{"`), Bias: 100}} // with another seed <call> would come first
		spec := &constraintSpec{grammar: regex(pattern), reasoning: &Reasoning{Opened: true, Close: "l>", Budget: -1}}
		cs, err := w.submitN(t, r, spec, []uint64{1})
		if err != nil {
			t.Fatal(err)
		}
		w.finish(t)
		text, c := "", cs[0]
		for _, tok := range c.got {
			text += vocabulary.Text(tok.ID)
		}
		if fails := want == ""; fails != errors.Is(c.err, errAfterReasoning) || !fails && !strings.HasSuffix(text, want) {
			t.Errorf("%s: %q, %v", pattern, text, c.err)
		}
	}
}

// What cannot work is refused, and its grammars are closed.
func TestReasoningChecked(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: grammarModel})
	open := compiler(t).Open()
	for _, r := range []Reasoning{
		{Close: "x", Budget: -1},
		{Open: "a", Budget: -1},
		{Open: "a", Close: "x", Budget: -1},
		{Opened: true, Close: "x"},
	} {
		if _, err := w.submitN(t, constrainedRequest(5), &constraintSpec{reasoning: &r, grammar: regex(`abc`)}, []uint64{1}); kind(err) != Internal {
			t.Errorf("%+v: %v, want Internal", r, err)
		}
	}
	grammartest.CheckClosed(t, compiler(t), open+1) // the grammar stays in the compiler's cache
}
