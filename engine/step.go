package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
)

// step is one forward pass: a Batch of the backend's ring, and the sequences that
// its parts belong to. seqs[i] is the sequence of batch.Seqs[i], rows[i] that of
// batch.Rows[i], nil once nobody wants its result. A sequence that is sampled again
// has a row and nothing else.
type step struct {
	index  int // in the ring
	batch  *device.Batch
	number int // counts steps

	seqs        []*sequence
	rows        []*sequence
	registered  []page.ID // cached pages that this step completes, as are
	snapshots   []page.ID // these states
	pinned      []page.ID // states that its sequences start from
	left        int       // tokens of the budget not used
	share       int       // of these, for one prompt among several
	closed      bool      // nothing more is admitted
	late        int       // sequences that wait for a mask and nothing else
	lacking     int       // sequences whose images the next turn asks for
	decodes     int       // sequences that compute one token
	pace        *pace     // that it follows
	admitted    int       // sequences new in this step
	awaitsMasks bool      // some rows depend on what the step before samples
	launchErr   error

	planned, launched time.Time
	drafting          time.Duration // that grammars took to follow drafts, before launched
}

func (st *step) init(index int, b *device.Batch, groups int) {
	*st = step{
		index:      index,
		batch:      b,
		seqs:       make([]*sequence, 0, cap(b.Seqs)),
		rows:       make([]*sequence, 0, cap(b.Rows)),
		registered: make([]page.ID, 0, groups*(2*cap(b.Seqs)+cap(b.Tokens)/page.Tokens)),
		snapshots:  make([]page.ID, 0, 2*cap(b.Seqs)),
		pinned:     make([]page.ID, 0, cap(b.Seqs)),
	}
}

// reset makes the step one with a new number, in which nothing is done yet.
func (st *step) reset(number, budget int, now time.Time) {
	st.batch.Clear()
	clear(st.seqs)
	clear(st.rows)
	*st = step{
		index:      st.index,
		batch:      st.batch,
		number:     number,
		seqs:       st.seqs[:0],
		rows:       st.rows[:0],
		registered: st.registered[:0],
		snapshots:  st.snapshots[:0],
		pinned:     st.pinned[:0],
		left:       budget,
		planned:    now,
	}
}

func (st *step) rowsLeft() int { return cap(st.batch.Rows) - len(st.batch.Rows) }

// row asks for logits on behalf of s.
func (st *step) row(s *sequence, r device.Row) {
	st.batch.Rows = append(st.batch.Rows, r)
	st.rows = append(st.rows, s)
}

// page appends a page to s in a group, here and on the device.
func (st *step) page(s *sequence, group int, id page.ID) {
	t := &s.tables[group]
	delta := device.PageDelta{Slot: s.slot, Group: int32(group), Index: int32(len(t.pages)), Page: int32(id)}
	st.batch.Pages = append(st.batch.Pages, delta)
	t.pages = append(t.pages, id)
}

// empty reports whether there is nothing to do.
func (st *step) empty() bool { return len(st.seqs) == 0 && len(st.rows) == 0 }

// tick is one turn of the loop, and reports whether there was work. An error
// means that the device is lost.
//
// On a device that is to be kept one step ahead, the next step is launched
// before the results of the last are waited for, so that it never waits for the
// host. On any other a step is launched, waited for and applied before the next is
// planned: nothing is computed in vain, and a request that arrives during a step is
// in the next one.
func (e *Engine) tick() (worked bool, err error) {
	e.receive()
	e.dropAbandoned()
	e.tendAdapters()
	e.fetchImages()

	next := &e.ring[e.launched%device.RingDepth]
	e.schedule(next)
	late := next.late+next.lacking > 0
	if next.empty() {
		next = nil
	} else {
		e.launch(next)
	}

	last := e.inFlight
	e.inFlight = next
	if last == nil && next == nil && !late && e.images.running == nil && !e.idle() {
		panic(fmt.Sprintf("no progress with %d active and %d waiting sequences", len(e.active), e.waiting.length))
	}
	if last != nil {
		err = e.retire(last)
	}
	if err == nil && next != nil {
		if next.awaitsMasks {
			e.mask(next)
			e.sample(next)
		}
		// Nothing is planned on a step that failed at once.
		if !e.ahead || next.launchErr != nil {
			err = e.retire(next)
		}
	}
	e.publish()
	return last != nil || next != nil || late, err
}

// receive takes in what was submitted.
func (e *Engine) receive() {
	for s := e.inbox.take(); s != nil; {
		next := s.next
		e.welcome(s)
		e.waiting.pushBack(s)
		if s.scoredAll() { // of one token, or of one and images
			e.end(s, FinishLength, nil)
		}
		s.released = !e.shares(s)
		s = next
	}
}

// golden is the fraction of the golden ratio: its multiples, less their whole
// parts, lie spread evenly however many they are.
const golden = 0.6180339887498949

// welcome gives a sequence and its forks their luck.
func (e *Engine) welcome(s *sequence) {
	_, e.luck = math.Modf(e.luck + golden)
	s.luck = e.luck
	for _, f := range s.forks {
		e.welcome(f)
	}
}

// dropAbandoned ends sequences whose caller has gone or whose deadline has
// passed, before more work or pages are spent on them. One that will get a token is
// left to end with it.
func (e *Engine) dropAbandoned() {
	for s := e.waiting.head; s != nil; {
		next := s.next
		e.dropForks(s)
		e.drop(s)
		s = next
	}
	for _, s := range e.active {
		e.dropForks(s)
		e.drop(s)
	}
	e.sweep()
}

func (e *Engine) drop(s *sequence) {
	switch {
	case s.cancelled():
		e.end(s, NotFinished, cancelled(s.ctx))
	case e.overdue(s) && (s.state != active || s.generated == 0):
		e.end(s, FinishDeadline, expired(s))
	}
}

// overdue reports whether the deadline of s has passed.
func (e *Engine) overdue(s *sequence) bool {
	return !s.req.Deadline.IsZero() && e.now().After(s.req.Deadline)
}

// launch enqueues the step on the device. If that fails, the step fails when its
// results are due.
func (e *Engine) launch(st *step) {
	e.launched++
	st.launched = e.now()
	e.progress.CompareAndSwap(0, st.launched.UnixNano())
	st.launchErr = e.backend.Forward(st.index)
	if !st.awaitsMasks {
		e.sample(st)
	}
}

func (e *Engine) sample(st *step) {
	if st.launchErr == nil {
		st.launchErr = e.backend.Sample(st.index)
	}
}

// retire waits for a step and applies its results. Results for sequences that
// have ended meanwhile are dropped; one that was preempted gets its token.
func (e *Engine) retire(st *step) error {
	err := st.launchErr
	if err == nil {
		err = e.backend.Wait(st.index)
	}
	if e.inFlight == st {
		e.inFlight = nil
	}
	waited := e.now()
	if err != nil {
		e.fail(st, err)
	}
	b := st.batch
	results, tops := b.Results[:len(b.Rows)], b.Top[:len(b.Rows)*device.MaxTopN]
	for i, s := range st.rows {
		if s == nil || s.state == ended {
			continue
		}
		r := results[i]
		verified := b.Rows[i].Kind == device.RowVerify
		if verified && r.Void != 0 {
			continue
		}
		switch {
		case r.Invalid != 0:
			e.failInvalid(s)
		case b.Rows[i].Kind == device.RowScore:
			e.addScore(s, s.made(r, tops[i*device.MaxTopN:][:r.TopCount]))
			if s.scoredAll() {
				e.end(s, FinishLength, nil)
			}
		case verified:
			e.expect(s, r)
			e.verified(s, r, tops[i*device.MaxTopN:][:r.TopCount], b.Rows[i].Target, waited)
		default:
			e.expect(s, r)
			s.commit(r, tops[i*device.MaxTopN:][:r.TopCount])
			e.committed(s, waited, false)
		}
	}
	drafted := e.settleDrafts(st)
	e.sweep()
	info := e.measure(st, waited, err)
	if err == nil {
		if !drafted {
			st.pace.observe(info.Forward, st.decodes, info.Tokens-st.decodes)
		}
		if st.decodes == len(st.seqs) && len(b.Tokens) <= len(b.Rows) {
			e.speculation.costs.observe(len(b.Rows), st.number, st.drafting+info.Forward-b.DraftTime)
			if b.Draft {
				e.speculation.head.observe(b, st.number)
			}
		}
	}
	if errors.Is(err, device.ErrLost) {
		return err
	}
	return nil
}

// committed deals with a new token of s, which will be published and may be the
// last. After it may come more of a draft.
func (e *Engine) committed(s *sequence, now time.Time, more bool) {
	if s.generated == 1 {
		s.stream.times.FirstToken = now
		s.stream.prompt = s.score
	}
	e.stats.generatedTokens.Add(1)
	switch reason := e.finished(s); {
	case reason != NotFinished:
		e.end(s, reason, nil)
	case s.constraint != nil:
		e.advance(s, more)
	default:
		e.publishLater(s)
	}
}

// finished says whether the newest token of s is its last one, and why. A
// grammar that has ended cannot be ignored.
func (e *Engine) finished(s *sequence) FinishReason {
	repeats := s.repeats()
	switch {
	case s.known() == s.limit:
		return FinishLength
	case e.endsSequence(s.token(s.known()-1)) && (!s.req.IgnoreEOS || s.constrained()):
		return FinishEOS
	case len(s.req.StopTokens) > 0 && s.generated > s.req.MinNewTokens && slices.Contains(s.req.StopTokens, s.token(s.known()-1)):
		return FinishStopToken
	case repeats && s.generated >= s.req.MinNewTokens:
		return FinishRepetition
	case e.overdue(s):
		return FinishDeadline
	}
	return NotFinished
}

// publishLater notes that publish is to tell the reader of s.
func (e *Engine) publishLater(s *sequence) {
	if !s.unpublished {
		s.unpublished = true
		e.unpublished = append(e.unpublished, s)
	}
}

func (e *Engine) endsSequence(token int32) bool {
	for _, eos := range e.cfg.EOS {
		if token == eos {
			return true
		}
	}
	return false
}

// end takes a sequence out of the engine; publish tells its reader. Those it
// takes from active leave a gap for sweep.
func (e *Engine) end(s *sequence, reason FinishReason, err error) {
	switch s.state {
	case active:
		if err == nil {
			e.register(s, e.inFlight)
		}
		e.release(s)
	case waiting:
		e.waiting.remove(s)
		if s.admitted {
			e.preempted--
		} else {
			e.queued.Add(-1)
		}
	case held:
		e.queued.Add(-1)
	}
	if s.generated > 0 {
		e.reserve = max(e.reserve-caution*preemptRate, caution)
		// A caller that closes its Stream has had enough: the text was complete.
		said := reason == FinishEOS || reason == FinishStopToken
		e.lengths.learn(s.generated, !said && !s.stream.closed.Load())
	}
	s.state = ended
	e.releaseImages(s)
	e.promoteFork(s)
	s.dropConstraint()
	if s.scoreOnly() {
		s.stream.prompt = s.score
	}
	s.stream.finish, s.stream.err = reason, err
	s.stream.finished, s.stream.preempted = e.now(), s.preempted
	e.publishLater(s)
}

// sweep closes the gaps that ended sequences left in active.
func (e *Engine) sweep() {
	kept := e.active[:0]
	for _, s := range e.active {
		if s.state == active {
			kept = append(kept, s)
		}
	}
	clear(e.active[len(kept):])
	e.active = kept
}

// publish tells readers what has happened to their sequences, each once, when
// all results have been applied.
func (e *Engine) publish() {
	for _, s := range e.unpublished {
		s.unpublished = false
		if s.state == ended {
			s.stream.hold.letGo()
		}
		s.stream.publish(s.generated, s.state == ended)
	}
	clear(e.unpublished)
	e.unpublished = e.unpublished[:0]
	e.publishStats()
}
