package engine

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
)

// While a large request waits for pages, small ones may pass it: those that are
// predicted to end before it can begin, and a bounded number of others for a bounded
// number of steps. A prediction that was wrong is made again, a bounded number of
// times. (Lifka, The ANL/IBM SP scheduling system, 1995: backfilling.)
const (
	passDepth    = 16 // how many of those after it are looked at
	maxDelays    = 8
	maxPasses    = 64
	maxPassSteps = 256
)

// A part of the pages is left free for sequences that run longer than predicted. It
// adapts: each preemption adds caution to it, each sequence that ends takes a
// preemptRate of that back, so that about that part of all sequences is preempted.
const (
	caution     = 1.0 / 64
	preemptRate = 1.0 / 128
	maxReserve  = 8 * caution
)

// While more wait than fit, at most a fourth of the pages is for sequences that end
// within an eighth of the time that one of them takes (crowded).
const (
	crowdSpan  = 8
	crowdShare = 4
	crowdLeast = 16 // if so many of its size fit: a few do not spread
)

// The luck that a waiting sequence is taken to have. Were it its own, the lucky would
// be admitted first, and those that run would not have the luck of those that wait.
const (
	usual   = 5.0 / 8
	unusual = 7.0 / 8 // to be sure
)

// admit makes a waiting sequence active if there is room for it, with the cached
// prefix of its tokens: the first in line, or one after it that may pass. It returns
// nil if none fits.
func (e *Engine) admit(st *step, now time.Time) *sequence {
	head := e.waiting.head
	for s, depth := head, 0; s != nil && depth <= passDepth && len(e.freeSlots) > 0; s, depth = s.next, depth+1 {
		if e.awaitsImages(s) { // others pass it as if it were not there
			if depth--; s.pictures.asked != e.images.changes+1 {
				st.lacking++
			}
			if s == head {
				head = s.next
			}
			continue
		}
		if s.refused == e.released {
			continue // nothing was given back since
		}
		hit := e.lookUp(s)
		if !s.hasImages(hit.Pages * page.Tokens) { // some of what it was to start from is gone
			s.pictures.asked = 0
			st.lacking++
			if s == head {
				head = s.next
			}
			continue
		}
		if !e.hasRoom(st, s, hit) {
			return nil // the next step's batch has
		}
		fits := e.fits(st, s, hit)
		if fits && e.crowded(s) {
			return nil
		}
		switch {
		case fits && s == head:
			e.activate(st, s, hit, now)
			return s
		case fits && e.passes(st, s, head):
			e.activate(st, s, hit, now)
			return s
		case s == head && s.delays < maxDelays && st.number >= s.due:
			if s.delays == 0 {
				s.blocked = st.number
			}
			s.delays++
			s.due = st.number + 1 + e.soonest(s)
		}
		s.refused = e.released
	}
	return nil
}

// mayAdmit reports whether admit looks at any sequence in this step. If not, none comes: what
// drafts take of the batch need not be there for one.
func (e *Engine) mayAdmit() bool {
	if len(e.freeSlots) == 0 {
		return false
	}
	for s, depth := e.waiting.head, 0; s != nil && depth <= passDepth; s = s.next {
		if e.awaitsImages(s) {
			continue
		}
		if s.refused != e.released {
			return true
		}
		depth++
	}
	return false
}

// passes reports whether s may be admitted before head, for which there is no room,
// and counts it if that may delay head. A head that was preempted is not delayed.
func (e *Engine) passes(st *step, s, head *sequence) bool {
	if st.number+e.future(s, unusual).steps < head.due {
		return true
	}
	if head.admitted || head.passed == maxPasses || st.number-head.blocked >= maxPassSteps {
		return false
	}
	head.passed++
	return true
}

// hasRoom reports whether what a new sequence needs goes into the batch.
func (e *Engine) hasRoom(st *step, s *sequence, hit page.Hit) bool {
	b := st.batch
	least := s.least(hit.Pages * page.Tokens)
	counts, pages := 0, len(e.shape.windows)*pagesFor(least) // one more of each group, at least
	if least > 1 && (len(b.Spans) == cap(b.Spans) || len(b.Tokens)+least > cap(b.Tokens)) {
		return false
	}
	if s.req.Params.Counts() {
		counts = s.total
	}
	for _, ids := range hit.Groups {
		pages += len(ids)
	}
	return len(b.Pages)+pages <= cap(b.Pages) && len(b.Params) < cap(b.Params) &&
		len(b.Counts)+counts <= cap(b.Counts) && len(b.Biases)+len(s.req.LogitBias) <= cap(b.Biases)
}

// activate gives s a slot and what was found of it in the cache.
func (e *Engine) activate(st *step, s *sequence, hit page.Hit, now time.Time) {
	b := st.batch
	e.active = append(e.active, s)
	e.waiting.remove(s)
	s.state, s.gap = active, false
	s.slot = e.freeSlots[len(e.freeSlots)-1]
	e.freeSlots = e.freeSlots[:len(e.freeSlots)-1]
	b.Params = append(b.Params, device.ParamDelta{Slot: s.slot, Params: s.req.Params})
	for _, bias := range s.req.LogitBias {
		b.Biases = append(b.Biases, device.BiasDelta{Slot: s.slot, Token: bias.Token, Bias: bias.Bias})
	}
	if e.cfg.Speculate > 0 {
		e.speculation.drafters[s.slot].reset()
	}
	s.counted = s.total
	for i := range s.total {
		if !s.req.Params.Counts() {
			break
		}
		if e.isImageToken(s, i) {
			continue
		}
		count := device.CountDelta{Slot: s.slot, Token: s.token(i)}
		if i >= len(s.req.Tokens) {
			count.Generated = 1
		}
		b.Counts = append(b.Counts, count)
	}
	if !s.admitted {
		e.countLookUp(s, hit)
	}
	e.share(st, s, hit)
	s.due, s.delays, s.passed = 0, 0, 0
	if s.admitted {
		e.preempted--
	} else {
		s.admitted = true
		s.stream.times.Admitted = now
		s.stream.times.CachedTokens = s.computed
		e.stats.cachedTokens.Add(int64(s.computed))
		e.stats.promptTokens.Add(int64(len(s.req.Tokens)))
		e.stats.imagesCached.Add(s.cachedImages())
		e.queued.Add(-1)
	}
	st.admitted++
	if s.released {
		e.releaseForks(s)
	}
	if g := s.constraint; s.constrained() && !g.started && s.generated == 0 {
		room := s.limit - s.known()
		if g.reasoning != nil {
			room = 0 // the grammar may begin later: it stays where it is
		}
		g.compiler.Start(g.matcher, room)
		g.started, g.moving, g.patient = true, g.matcher, true
	}
}

// future is what admission expects of a sequence: in each group that holds all
// it has pages for so many tokens now, and for one more after each step, until it
// ends; in the others windowed pages in all, as at its end. Of shared ones it is
// not the only user.
type future struct {
	tokens, steps    int
	windowed, shared int
	active           int // its place in Engine.active
}

// outlook is the futures of the sequences that run, those that run longest
// first.
type outlook struct {
	running []future
	list    []future // scratch
	peak    int      // pages at the peak, with the candidate looked at last
	// What it was made in: the step, and how many sequences had come and gone.
	number, released, active int
}

// fits predicts whether s can run to its end beside those who run. Memory is
// fullest just before one of them ends: at each of those moments the pages of
// all who are left, at the length they then have, must be there. This is the
// admission of Past-Future (arXiv 2507.10150), with ends spread evenly over what
// lengths predicts where that draws at random. The prediction may be wrong;
// preemption makes up for it. A lone sequence always fits, by Submit's limits.
func (e *Engine) fits(st *step, s *sequence, hit page.Hit) bool {
	if len(e.active) == 0 {
		return true
	}
	e.predict(st)
	candidate := e.future(s, usual)
	unused := 0 // of the hit
	for _, ids := range hit.Groups {
		for _, id := range ids {
			if e.cache.Pages.Used(id) {
				candidate.shared++
			} else {
				unused++
			}
		}
	}
	least := s.least(hit.Pages * page.Tokens)
	if e.cache.Pages.Free()-unused < len(e.shape.windows)*pagesFor(least) || e.shape.recurrent && e.cache.States.Free() == 0 {
		return false // not even for one token, or one span
	}
	o := &e.outlook
	o.list = o.list[:0]
	common := e.cache.Pages.Total() - e.cache.Pages.Free() // pages of several sequences
	for _, f := range o.running {
		if hit.Pages > 0 {
			f.shared = e.sharedPages(e.active[f.active], hit)
		}
		common -= e.active[f.active].held() - f.shared
		o.list = append(o.list, f)
	}
	o.peak = common + peak(insert(o.list, candidate), e.shape.unbounded)
	return o.peak <= e.admissible()
}

// crowded reports whether s, which fits, had better wait a little: not all that wait
// fit, and many sequences would end at about the same time as s. Sequences that begin
// together and generate about as much end together; they fill the pages only for a
// moment, and so do those that follow. Admitted one after the other, more of them fit.
func (e *Engine) crowded(s *sequence) bool {
	o := &e.outlook
	if len(e.active) == 0 {
		return false
	}
	candidate := e.future(s, usual)
	size := e.shape.pages(candidate.tokens + candidate.steps)
	total := e.cache.Pages.Total()
	if o.peak+(e.waiting.length-1)*size <= total || size*crowdLeast > total {
		return false
	}
	near := size
	for _, f := range o.running {
		if d := f.steps - candidate.steps; max(d, -d) <= candidate.steps/crowdSpan {
			near += e.shape.pages(f.tokens + f.steps)
		}
	}
	return near > total/crowdShare
}

// admissible is how many pages sequences may be predicted to fill.
func (e *Engine) admissible() int {
	total := e.cache.Pages.Total()
	return total - int(e.reserve*float64(total))
}

// soonest predicts after how many steps so many sequences have ended that s
// fits beside the rest.
func (e *Engine) soonest(s *sequence) int {
	o := &e.outlook
	common := e.cache.Pages.Total() - e.cache.Pages.Free()
	for _, f := range o.running {
		common -= e.active[f.active].held() - f.shared
	}
	last := len(o.running) - 1
	ended := sort.Search(last, func(i int) bool {
		after := o.running[last-i].steps
		o.list = o.list[:0]
		for _, f := range o.running[:last-i] {
			f.tokens, f.steps = f.tokens+after, f.steps-after
			o.list = append(o.list, f)
		}
		return common+peak(insert(o.list, e.future(s, usual)), e.shape.unbounded) <= e.admissible()
	})
	return o.running[last-ended].steps
}

// predict brings the expected lengths and the outlook up to date.
func (e *Engine) predict(st *step) {
	o := &e.outlook
	if o.number == st.number && o.released == e.released && o.active == len(e.active) {
		return
	}
	o.number, o.released, o.active = st.number, e.released, len(e.active)
	for _, s := range e.active {
		e.lengths.see(s.generated)
	}
	left := e.preempted
	for s := e.waiting.head; s != nil && left > 0; s = s.next {
		if s.admitted {
			e.lengths.see(s.generated)
			left--
		}
	}
	e.lengths.update()
	o.running = o.running[:0]
	for i, s := range e.active {
		f := e.future(s, s.luck)
		f.shared, f.active = e.sharedPages(s, page.Hit{}), i
		o.running = append(o.running, f)
	}
	slices.SortFunc(o.running, longestFirst)
}

func longestFirst(a, b future) int { return cmp.Compare(b.steps, a.steps) }

// insert puts f where it belongs among futures in order.
func insert(futures []future, f future) []future {
	i, _ := slices.BinarySearchFunc(futures, f, longestFirst)
	return slices.Insert(futures, i, f)
}

// future predicts how s goes on. The last token of a sequence takes no place.
func (e *Engine) future(s *sequence, luck float64) future {
	end := min(s.limit, len(s.req.Tokens)+e.lengths.predict(s.generated, luck)) - 1
	tokens := min(s.total, s.limit-1)
	steps := max(0, end-tokens)
	return future{tokens: tokens, steps: steps, windowed: e.shape.windowed(tokens + steps)}
}

// held returns how many pages an active sequence has.
func (s *sequence) held() (n int) {
	for g := range s.tables {
		n += len(s.tables[g].pages) - s.tables[g].first
	}
	return n
}

// sharedPages returns how many of the pages of r others use too, or will once a
// sequence has started from hit. Whoever shares a page shares all before it.
func (e *Engine) sharedPages(r *sequence, hit page.Hit) (n int) {
	for g := range r.tables {
		t := &r.tables[g]
		var ids []page.ID
		if hit.Pages > 0 {
			ids = hit.Groups[g]
		}
		first := hit.Pages - len(ids)
		n += sort.Search(len(t.pages)-t.first, func(i int) bool {
			i += t.first
			return !e.cache.Pages.Shared(t.pages[i]) && (i < first || i >= hit.Pages || ids[i-first] != t.pages[i])
		})
	}
	return n
}

// peak returns the greatest number of pages that sequences will have together,
// beside those they share, with so many groups that hold all; those that run
// longest come first.
func peak(futures []future, groups int) int {
	// A sequence of n tokens has ceil(n/16) pages in a group. Their sum, after any
	// number of steps, follows from the sum of quotients and how often each
	// remainder occurs.
	pages, rest, most := 0, 0, 0
	var remainders [page.Tokens]int
	for i, f := range futures {
		up := f.tokens + page.Tokens - 1
		pages += up / page.Tokens
		rest += f.windowed - f.shared
		remainders[up%page.Tokens]++
		then := pages + (i+1)*(f.steps/page.Tokens)
		for r := page.Tokens - f.steps%page.Tokens; r < page.Tokens; r++ {
			then += remainders[r]
		}
		most = max(most, groups*then+rest)
	}
	return most
}
