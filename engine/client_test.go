package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sim"
)

// client is a request, what it must yield and what it has yielded.
type client struct {
	req      *Request
	stream   *Stream
	cancel   context.CancelFunc
	want     []sim.Choice
	eos      int32
	scores   []sim.Choice
	stuck    bool            // no token may come after those
	looped   bool            // they repeat themselves at the end
	spec     *constraintSpec // nil: free text
	followed followed
	family   []*client // of one prompt, this one too

	got     []Token
	gone    bool // cancelled or closed by the test
	over    bool
	err     error
	atEnd   int64 // Stream.state when it ended
	overAge int   // turns since it went
	passed  int   // clients that came later and had their first token earlier
}

// leave cancels the client, in one of the two ways there are.
func (c *client) leave(byClose bool) {
	if byClose {
		c.gone = true
		c.stream.Close()
		return
	}
	for _, c := range c.family { // of one context
		c.gone = true
	}
	c.cancel()
}

func (c *client) read() error {
	for {
		state := c.stream.state.Load()
		if c.over {
			if state != c.atEnd {
				return fmt.Errorf("touched after its end: state %d, then %d", c.atEnd, state)
			}
			return nil
		}
		if int(state>>1) == c.stream.read && state&1 == 0 {
			return nil
		}
		tokens, err := c.stream.Next(context.Background())
		if err != nil {
			c.over, c.err, c.atEnd = true, err, state
			return c.checkEnd()
		}
		for _, tok := range tokens {
			if err := c.checkToken(tok); err != nil {
				return err
			}
			c.got = append(c.got, tok)
		}
	}
}

func (c *client) checkToken(got Token) error {
	n := len(c.got)
	if n >= len(c.want) {
		return fmt.Errorf("token %d: got %d after the end", n, got.ID)
	}
	want := c.want[n]
	if got.ID != want.Token || got.Logprob != want.Logprob {
		return fmt.Errorf("token %d of prompt[%d]: got %d (%g), want %d (%g); %d preemptions, %d cached",
			n, len(c.req.Tokens), got.ID, got.Logprob, want.Token, want.Logprob, c.stream.preempted, c.stream.times.CachedTokens)
	}
	if err := sameTop(got.Top, want.Top); err != nil {
		return fmt.Errorf("token %d: %w", n, err)
	}
	if n == 0 {
		return c.checkScores()
	}
	return nil
}

func sameTop(got []Alternative, want []device.Alternative) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d alternatives, want %d", len(got), len(want))
	}
	for k, a := range want {
		if got[k] != (Alternative{a.Token, a.Logprob}) {
			return fmt.Errorf("alternative %d is %v, want %v", k, got[k], a)
		}
	}
	return nil
}

func (c *client) checkScores() error {
	prompt := c.stream.Prompt()
	if len(prompt) != len(c.scores) {
		return fmt.Errorf("%d prompt tokens scored, want %d", len(prompt), len(c.scores))
	}
	for i, got := range prompt {
		want := c.scores[i]
		same := got.Logprob == want.Logprob || math.IsNaN(float64(got.Logprob)) && math.IsNaN(float64(want.Logprob))
		if got.ID != want.Token || !same {
			return fmt.Errorf("prompt token %d: %d (%g), want %d (%g)", i, got.ID, got.Logprob, want.Token, want.Logprob)
		}
		if err := sameTop(got.Top, want.Top); err != nil {
			return fmt.Errorf("prompt token %d: %w", i, err)
		}
	}
	return nil
}

// checkEnd checks an ending that is not an error; errors are the test's business.
func (c *client) checkEnd() error {
	if c.err != io.EOF {
		var e *Error
		if !errors.As(c.err, &e) {
			return fmt.Errorf("ended with %T: %w", c.err, c.err)
		}
		if e.Kind == Cancelled && !c.gone {
			return fmt.Errorf("ended with kind %v, gone is %v", e.Kind, c.gone)
		}
		if (errors.Is(e, errExcluded) || errors.Is(e, errAfterReasoning)) && !(c.stuck && len(c.got) == len(c.want)) {
			return fmt.Errorf("no token may come after %d of %d: %w", len(c.got), len(c.want), e)
		}
		return nil
	}
	reason := FinishEOS
	switch {
	case len(c.want) == c.req.MaxNewTokens:
		reason = FinishLength
	case slices.Contains(c.req.StopTokens, c.want[len(c.want)-1].Token):
		reason = FinishStopToken
	case c.looped:
		reason = FinishRepetition
	}
	if len(c.want) == 0 {
		if err := c.checkScores(); err != nil {
			return err
		}
	}
	if c.stream.Finish() == FinishDeadline {
		if c.req.Deadline.IsZero() || len(c.got) == 0 || len(c.got) >= len(c.want) && !c.stuck {
			return fmt.Errorf("cut at a deadline %v after %d of %d tokens", c.req.Deadline, len(c.got), len(c.want))
		}
		return nil
	}
	if err := c.checkGrammar(); err != nil {
		return err
	}
	if c.stuck || len(c.got) != len(c.want) || c.stream.Finish() != reason {
		return fmt.Errorf("ended with %d tokens and reason %d, want %d, %d", len(c.got), c.stream.Finish(), len(c.want), reason)
	}
	return nil
}

// checkGrammar holds a text that ended by itself to its grammar, without any
// of the code that generated it.
func (c *client) checkGrammar() error {
	g := c.followed
	if c.spec == nil || g.from < 0 || g.grammar.whole == nil || c.stream.Finish() != FinishEOS {
		return nil
	}
	var ids []int32
	for _, t := range c.got[:len(c.got)-1] {
		ids = append(ids, t.ID)
	}
	if text := vocabulary.Text(ids...)[g.from:]; !g.grammar.whole.MatchString(text) {
		return fmt.Errorf("%q does not match %s", text, g.grammar.whole)
	}
	return nil
}
