package grammar

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine/native"
)

// ErrLate is a mask that is not ready at the deadline. The workers go on with it;
// the sequence sits this step out and asks again.
var ErrLate = errors.New("grammar mask is late")

// A Move is where a Matcher has moved to.
type Move struct {
	// Forced are the tokens that must come next, those that the model would have
	// read their text as. The matcher is past them.
	Forced  []int32
	End     bool // nothing but the end may follow
	Refused bool // the grammar does not allow the text; the matcher is where it was
}

// A Draft is a guess of how a text goes on, and what a Matcher makes of it.
type Draft struct {
	// Tokens are the guess; then as many of them as the grammar allows, with the
	// tokens that it forces after each. No more come than were guessed, and the last
	// one forces nothing.
	Tokens []int32
	Forced []bool   // which of them the grammar forces
	Masks  []uint32 // what may come in the place of each that is not forced and after the last, MaskWords words each
	Room   int      // how many tokens may follow at all
	Done   bool     // the rest is filled in
}

// A job is a Matcher to move, and its next mask to compute. It has what it needs
// of the Matcher, which may be closed meanwhile.
type job struct {
	native  *native.Matcher
	tokens  []int32 // to accept first
	text    []byte  // to accept first, all of it or nothing
	room    int     // how many forced tokens are useful
	move    Move    // so far
	draft   *Draft  // to fill in instead
	mask    []uint32
	results chan<- result
}

// A result is what a worker says of a job: first where the matcher has moved to, then
// that its mask is made, or is not needed. Of a draft there is one.
type result struct {
	native *native.Matcher
	move   *Move // nil: of the mask
	made   bool
	what   string // failed
	err    error
}

// Forced text is tokenized whole and once: cut into pieces it could become other
// tokens. If it is longer than longText bytes, that takes longer than a mask should,
// and so does finding it. One worker, at a lower priority, does what takes long for
// all matchers, and no mask waits for it.
const (
	longText = 2 << 10
	anyText  = math.MaxInt

	slowCall  = 5 * time.Millisecond // a matcher that takes longer goes to that worker the next time
	quickCall = time.Millisecond     // and comes back
	draftCall = time.Millisecond     // after which a draft grows no longer

	maxReplaced = 4 // workers that were replaced while in a slow call
)

// A worker moves matchers and computes their masks, one library call each. A call
// that computes a whole step's masks would use one core, and hold every row back
// for the slowest.
type worker struct {
	c        *Compiler
	tokenize native.Tokenize
	most     int     // bytes of forced text that it makes tokens of
	tooLong  bool    // the last text was longer
	count    int     // tokens of the last text
	forced   []int32 // room for them

	// A worker that does not return from a call is replaced by another.
	state atomic.Int32 // atWork while it has a job
	slow  *atomic.Bool // Slow of its matcher
	watch *time.Timer

	// The last texts of more than longText: sequences of one prompt have the same,
	// and the library may ask for one with and without the token before it.
	read [2]reading
}

// A reading is a text and its tokens.
type reading struct {
	text   string
	tokens []int32
}

// States of a worker.
const (
	free = iota
	atWork
	replaced
)

// work does jobs of other matchers than those that are slow.
func (c *Compiler) work() {
	w, thread := c.newWorker(longText)
	defer w.tokenize.Free()
	w.watch = time.AfterFunc(time.Hour, func() {
		switch {
		case c.replaced.Load() >= maxReplaced:
			w.watch.Reset(slowCall)
		case w.state.CompareAndSwap(atWork, replaced):
			c.replaced.Add(1)
			w.slow.Store(true)
			giveWay(thread)
			go c.work()
		}
	})
	defer w.watch.Stop()
	for j := range c.jobs {
		if j.native.Slow.Load() {
			c.long <- j
			continue
		}
		w.slow = j.native.Slow
		w.state.Store(atWork)
		w.watch.Reset(slowCall)
		w.run(j)
		w.watch.Stop()
		if !w.state.CompareAndSwap(atWork, free) {
			c.replaced.Add(-1)
			return
		}
	}
}

// workLong does the jobs that take long.
func (c *Compiler) workLong() {
	w, thread := c.newWorker(anyText)
	defer w.tokenize.Free()
	giveWay(thread)
	for j := range c.long {
		start, slow := time.Now(), j.native.Slow
		w.run(j)
		slow.Store(time.Since(start) > quickCall)
	}
}

// newWorker returns a worker and its thread, which is its own and ends with it.
func (c *Compiler) newWorker(most int) (w *worker, thread int) {
	runtime.LockOSThread()
	w = &worker{c: c, most: most, forced: make([]int32, longText)}
	w.tokenize = native.NewTokenize(w.encode)
	return w, threadID()
}

// encode makes tokens of forced text, none if it is too long for this worker.
func (w *worker) encode(text []byte) []int32 {
	var tokens []int32
	switch {
	case len(text) > w.most:
		w.tooLong = true
	case len(text) <= longText:
		tokens = w.c.vocabulary.encode(text)
	case w.read[0].text == string(text):
		tokens = w.read[0].tokens
	case w.read[1].text == string(text):
		tokens = w.read[1].tokens
	default:
		tokens = w.c.vocabulary.encode(text)
		w.read[0], w.read[1] = reading{string(text), tokens}, w.read[0]
	}
	w.count = len(tokens)
	return tokens
}

// run does a job, or hands it on.
func (w *worker) run(j job) {
	if j.draft != nil {
		w.look(&j)
		j.results <- result{native: j.native, made: true}
		return
	}
	what, err := w.enter(&j)
	if err == nil && !j.move.Refused {
		what, err = w.follow(&j)
	}
	if w.tooLong {
		w.tooLong = false
		w.c.long <- j
		return
	}
	j.results <- result{native: j.native, move: &j.move, what: what, err: err}
	// A sequence whose forced tokens fill all the room ends with them.
	made := err == nil && !j.move.Refused && (j.room > 0 || len(j.move.Forced) == 0)
	if made {
		what, err = "mask", j.native.Mask(j.mask)
	}
	j.results <- result{native: j.native, made: made && err == nil, what: what, err: err}
}

// enter moves the matcher past the token or the text that a job begins with. It
// says what failed.
func (w *worker) enter(j *job) (what string, err error) {
	for ; len(j.tokens) > 0; j.tokens = j.tokens[1:] {
		if err := j.native.Accept(j.tokens[0]); err != nil {
			return fmt.Sprintf("does not allow token %d", j.tokens[0]), err
		}
	}
	if len(j.text) == 0 {
		return "", nil
	}
	before := w.c.adopt(j.native.Clone())
	tokens := w.c.vocabulary.encode(j.text)
	j.move.Refused = w.c.vocabulary.text(tokens) != string(j.text)
	for i := 0; i < len(tokens) && !j.move.Refused; i++ {
		j.move.Refused = j.native.Accept(tokens[i]) != nil
	}
	if j.move.Refused {
		before, j.native = j.native, before
	}
	w.c.free(before)
	j.text = nil
	return "", nil
}

// follow moves the matcher past all that can only come next.
func (w *worker) follow(j *job) (what string, err error) {
	for j.room > 0 {
		if j.move.End = j.native.Stopped(); j.move.End {
			return "", nil
		}
		w.count = 0
		n, err := j.native.Forced(w.forced, w.tokenize)
		if err == nil && len(w.forced) < min(w.count, j.room) {
			w.forced = make([]int32, w.count)
			n, err = j.native.Forced(w.forced, w.tokenize)
		}
		if err != nil {
			return "forced tokens", err
		}
		if n == 0 || w.tooLong {
			return "", nil
		}
		n = min(n, j.room)
		j.room -= n
		j.move.Forced = append(j.move.Forced, w.forced[:n]...)
		for _, token := range w.forced[:n] {
			if err := j.native.Accept(token); err != nil {
				return fmt.Sprintf("does not allow token %d", token), err
			}
		}
	}
	return "", nil
}

// look follows a draft with a clone of the matcher: one that has failed cannot go back,
// and what is wrong with a guess is not wrong with the sequence.
func (w *worker) look(j *job) {
	start, d, words := time.Now(), j.draft, w.c.MaskWords()
	guess, n := d.Tokens, 0
	ahead := job{native: w.c.adopt(j.native.Clone())}
	defer w.c.free(ahead.native)
	d.Forced = d.Forced[:0]
	d.Masks = append(slices.Grow(d.Masks[:0], (len(guess)+1)*words), j.mask...)
	for n < len(guess) && time.Since(start) < draftCall && d.Masks[n*words+int(guess[n]/32)]>>(guess[n]%32)&1 == 1 {
		if ahead.native.Accept(guess[n]) != nil {
			break
		}
		ahead.room, ahead.move = d.Room-n-1, Move{}
		_, err := w.follow(&ahead)
		forced := ahead.move.Forced
		next := n + 1 + len(forced)
		if err != nil || w.tooLong || ahead.move.End || next > len(guess) {
			break
		}
		d.Masks = d.Masks[:(next+1)*words]
		if ahead.native.Mask(d.Masks[next*words:]) != nil {
			break
		}
		d.Forced = append(d.Forced, false)
		for range forced {
			d.Forced = append(d.Forced, true)
		}
		wrong := !slices.Equal(guess[n+1:next], forced)
		copy(guess[n+1:], forced)
		if n = next; wrong {
			break
		}
	}
	w.tooLong = false
	d.Tokens, d.Masks = guess[:n], d.Masks[:(n+1)*words]
}

// Begin has the workers compute the next mask of m, which does not move.
func (c *Compiler) Begin(m *Matcher) {
	if !m.ready && m.due == 0 {
		c.begin(m, job{})
	}
}

// Start has the workers move m past what must come next, as far as room tokens,
// and compute the mask of what may come then. Moves and Masks collect that; any
// other method of m waits for it.
func (c *Compiler) Start(m *Matcher, room int) { c.begin(m, job{room: room}) }

// Advance is Start from after tokens, which the grammar must allow. It does not keep
// them.
func (c *Compiler) Advance(m *Matcher, tokens []int32, room int) {
	c.begin(m, job{tokens: tokens, room: room})
}

// Enter is Start from after a text, however that is cut into tokens. If the
// grammar does not allow it, or no tokens spell it, Move.Refused says so.
func (c *Compiler) Enter(m *Matcher, text []byte, room int) {
	c.begin(m, job{text: slices.Clone(text), room: room})
}

func (c *Compiler) begin(m *Matcher, j job) {
	if m.settle() != nil {
		return
	}
	if m.mask == nil {
		m.mask = make([]uint32, c.MaskWords())
	}
	m.ready, m.move, m.due = false, nil, 2
	m.tokens = append(m.tokens[:0], j.tokens...)
	j.tokens = m.tokens
	j.native, j.mask, j.results = m.native, m.mask, m.results
	c.jobs <- j
}

// Moves waits until the workers have moved ms, each of them a different one, or
// the deadline has come (never, if it is zero). Moved has the results.
func (c *Compiler) Moves(ms []*Matcher, deadline time.Time) {
	c.wait(ms, 1, deadline)
}

// Moved returns where the last Start, Advance or Enter brought m; ok is false if
// that is not known yet. It does not wait: Moves does.
func (c *Compiler) Moved(m *Matcher) (move Move, ok bool, err error) {
	if m.due > 0 && m.move == nil {
		select {
		case r := <-m.results:
			m.take(r)
		default:
		}
	}
	switch {
	case m.err != nil || m.native == nil:
		return Move{}, true, cmp.Or(m.err, errClosed)
	case m.move == nil:
		return Move{}, false, nil
	}
	return *m.move, true, nil
}

// Masks collects the masks of a step, those not begun too: rows[i] becomes the
// mask of ms[i], each of them a different one, or errs[i] says why not. ErrLate
// where the deadline came first (never, if it is zero).
func (c *Compiler) Masks(ms []*Matcher, rows [][]uint32, errs []error, deadline time.Time) {
	for _, m := range ms {
		c.Begin(m)
	}
	c.wait(ms, 0, deadline)
	for i, m := range ms {
		if errs[i] = ErrLate; m.due == 0 {
			errs[i] = m.Mask(rows[i])
		}
	}
}

// Drafts fills in ds[i] for ms[i], each of them a different one; no Matcher moves. Until
// the deadline it waits for their masks and for that. Where the former are late, or always
// slow, no token is left of the guess. A Draft that is not Done is the workers'.
func (c *Compiler) Drafts(ms []*Matcher, ds []*Draft, deadline time.Time) {
	c.wait(ms, 0, deadline)
	for i, m := range ms {
		if ds[i].Done = m.due > 0 || !m.ready || m.native.Slow.Load(); ds[i].Done {
			ds[i].Tokens = ds[i].Tokens[:0]
			continue
		}
		m.due = 1
		c.jobs <- job{native: m.native, mask: m.mask, draft: ds[i], results: m.results}
	}
	c.wait(ms, 0, deadline)
	for i, m := range ms {
		ds[i].Done = ds[i].Done || m.due == 0
	}
}

// timers are those of wait, one for each call: engines share a Compiler.
var timers = sync.Pool{New: func() any { return time.NewTimer(time.Hour) }}

// wait takes in results until no more than due are to come of each matcher, or the
// deadline has come.
func (c *Compiler) wait(ms []*Matcher, due int, deadline time.Time) {
	var late <-chan time.Time
	if !deadline.IsZero() {
		timer := timers.Get().(*time.Timer)
		defer timers.Put(timer)
		timer.Reset(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	expired := false
	for _, m := range ms {
		for m.due > due {
			if !expired {
				select {
				case r := <-m.results:
					m.take(r)
				case <-late:
					expired = true
				}
				continue
			}
			select {
			case r := <-m.results:
				m.take(r)
				continue
			default:
			}
			break
		}
	}
}
