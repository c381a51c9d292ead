package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"sort"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/vision"
)

// table is the pages of an active sequence in one group of caches. It belongs
// to the sequence's slot, which keeps its memory for the next one.
type table struct {
	pages []page.ID // by position
	first int       // those before it have left the group's window and are given back
}

// usualTable is how many pages a table has room for before it grows.
const usualTable = 256

// snapshotGrid is after how many tokens the states of recurrent layers are kept,
// beside the ends of prompts.
const snapshotGrid = 512

// shape is what page accounting needs to know of a model's caches.
type shape struct {
	windows   []int // by group, 0: all positions
	most      []int // by group, how many pages a sequence holds between steps; 0: as many as it has
	unbounded int   // groups that hold all
	recurrent bool
}

// PagesFor returns how many pages of all groups a sequence of so many tokens
// holds.
func PagesFor(groups []plan.Group, tokens int) int {
	s := newShape(groups, false)
	return s.pages(tokens)
}

func newShape(groups []plan.Group, recurrent bool) shape {
	windows := make([]int, len(groups))
	for g := range groups {
		windows[g] = int(groups[g].Window)
	}

	s := shape{windows: windows, most: make([]int, len(windows)), recurrent: recurrent}
	for g, w := range windows {
		if w == 0 {
			s.unbounded++
		} else {
			s.most[g] = pagesFor(w-1) + 1
		}
	}
	return s
}

// TokensFor returns how many tokens a sequence that is alone with so many pages
// of all groups has room for, at most as many as fill slot pages of one group.
func TokensFor(groups []plan.Group, pages, slot int) int {
	s := newShape(groups, false)
	return s.longest(pages, slot)
}

// windowed returns how many pages of groups with a window a sequence of n
// tokens holds.
func (s *shape) windowed(n int) (pages int) {
	for _, most := range s.most {
		if most > 0 {
			pages += min(most, pagesFor(n))
		}
	}
	return pages
}

// pages returns how many pages of all groups a sequence of n tokens holds.
func (s *shape) pages(n int) int { return s.unbounded*pagesFor(n) + s.windowed(n) }

// longest returns how many tokens a sequence that is alone with so many pages
// has room for, at most as many as fill slot pages of one group.
func (s *shape) longest(pages, slot int) int {
	return page.Tokens * sort.Search(slot, func(n int) bool {
		return s.pages((n+1)*page.Tokens) > pages
	})
}

// root is the parent of a request's first page: whatever keys and values depend
// on beside tokens.
func (e *Engine) root(r *Request, ropeLen int32) page.Key {
	whole := len(r.Images) > 0 && e.cfg.Vision.Bidirectional == vision.WholePrompt
	if r.Adapter == 0 && r.CacheSalt == "" && ropeLen == 0 && !whole {
		return e.cfg.Root
	}
	number := func(n int32) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
	fields := []page.Field{
		{Tag: page.TagModel, Value: e.cfg.Root[:]},
		{Tag: page.TagAdapter, Value: number(r.Adapter)},
		{Tag: page.TagSalt, Value: []byte(r.CacheSalt)},
		{Tag: page.TagRope, Value: number(ropeLen)},
	}
	if whole {
		h := sha256.New()
		binary.Write(h, binary.LittleEndian, r.Tokens) //nolint:errcheck // never fails
		for i := range r.Images {
			h.Write(r.Images[i].Hash[:])
		}
		fields = append(fields, page.Field{Tag: page.TagPrompt, Value: h.Sum(nil)})
	}
	return page.Root(fields...)
}

// ropeLen returns the length that rotations take a request with a prompt of n
// tokens for, 0 where that does not matter.
func (e *Engine) ropeLen(n int) int32 {
	p := e.cfg.Plan
	switch {
	case p.RopeOriginal == 0 || n <= p.RopeOriginal:
		return 0
	case p.RopeDynamic:
		return int32(n)
	}
	return int32(p.RopeOriginal) + 1
}

// lengthen makes sequences that grow beyond the length that rotations change at
// begin again as longer ones. This happens once to a sequence; others of its
// length may have left pages that it can start from.
func (e *Engine) lengthen(st *step) {
	p := e.cfg.Plan
	if p.RopeOriginal == 0 || p.RopeDynamic {
		return
	}
	for i := len(e.active) - 1; i >= 0; i-- { // the first is to be first in line
		s := e.active[i]
		if s.ropeLen > 0 || s.total <= p.RopeOriginal || s.total == s.limit {
			continue
		}
		e.release(s)
		e.requeue(s)
		s.ropeLen = e.ropeLen(s.total)
		s.root, s.keys = e.root(s.req, s.ropeLen), nil // forks share the old ones
		st.closed = st.closed || s.known() < s.total   // it cannot be back while a token of it is in flight
	}
	e.sweep()
}

// lookUp returns the cached pages that s can start from. The last token is always
// computed, since its logits are wanted, and so is what is scored.
func (e *Engine) lookUp(s *sequence) page.Hit {
	if e.cfg.NoPrefixCache || s.scoring() {
		return page.Hit{State: page.None}
	}
	keys := s.fullPages((s.total - 1) / page.Tokens)
	hit := e.cache.Prefix(keys)
	for span := s.spanAcross(hit.Pages * page.Tokens); span != nil; span = s.spanAcross(hit.Pages * page.Tokens) {
		hit = e.cache.Prefix(keys[:int(span.Start)/page.Tokens])
	}
	return hit
}

// share gives a new sequence the pages it was found, and a state of its own that
// starts from the one it was found.
func (e *Engine) share(st *step, s *sequence, hit page.Hit) {
	s.tables = e.tables[s.slot]
	s.computed = hit.Pages * page.Tokens
	s.registered = hit.Pages
	for g, ids := range hit.Groups {
		t := &s.tables[g]
		t.first = hit.Pages - len(ids)
		t.pages = slices.Grow(t.pages[:0], t.first)[:t.first]
		for _, id := range ids {
			e.cache.Pages.Share(id)
			st.page(s, g, id)
		}
	}
	if !e.shape.recurrent {
		return
	}
	s.from = device.ZeroState
	if hit.State != page.None {
		s.from = int32(hit.State)
		e.cache.States.Share(hit.State) // until the step is planned
		st.pinned = append(st.pinned, hit.State)
	}
	s.live = e.cache.States.Alloc(0)
	if s.live == page.None { // nothing else is free: take that one over
		s.live = hit.State
		st.pinned = st.pinned[:len(st.pinned)-1]
		e.cache.States.Forget(hit.State)
	}
}

// release gives back the slot, pages and states of an active sequence. The device
// works in order, so what it still does for the sequence comes before anything
// their next owner will ask of it.
func (e *Engine) release(s *sequence) {
	for g := range s.tables {
		t := &s.tables[g]
		e.cache.Pages.Release(t.pages[t.first:])
		t.pages, t.first = t.pages[:0], 0
	}
	s.tables = nil
	for _, id := range []*page.ID{&s.live, &s.spare, &s.saved} {
		if *id != page.None {
			e.cache.States.Release([]page.ID{*id})
			*id = page.None
		}
	}
	e.freeSlots = append(e.freeSlots, s.slot)
	e.released++
}

// extend gives s pages for n tokens and returns how many tokens it then has
// pages for. To get those for least tokens it preempts later sequences that are not
// in this step; if there is none it takes nothing.
func (e *Engine) extend(st *step, s *sequence, n, least int) int {
	b := st.batch
	before := len(b.Pages)
	have := math.MaxInt
	for g := range s.tables {
		have = min(have, len(s.tables[g].pages)*page.Tokens)
	}
	for have < n {
		index := have / page.Tokens
		for g := range s.tables {
			for len(s.tables[g].pages) <= index {
				if len(b.Pages) == cap(b.Pages) { // the next step has room
					if have < least {
						e.retract(st, s, before)
					}
					return have
				}
				id := e.cache.Pages.Alloc(g)
				if id != page.None {
					st.page(s, g, id)
					continue
				}
				st.closed = true
				last := e.active[len(e.active)-1]
				switch {
				case have >= least:
					return have
				case last == s || last.batch == st.number:
					e.retract(st, s, before)
					return have
				}
				e.preempt(last)
			}
		}
		have = (index + 1) * page.Tokens
	}
	return have
}

// retract gives back the pages that s was given by the last deltas of the batch,
// all but the first so many.
func (e *Engine) retract(st *step, s *sequence, deltas int) {
	b := st.batch
	for len(b.Pages) > deltas {
		last := len(b.Pages) - 1
		t := &s.tables[b.Pages[last].Group]
		e.cache.Pages.Release(t.pages[len(t.pages)-1:])
		t.pages = t.pages[:len(t.pages)-1]
		b.Pages = b.Pages[:last]
	}
}

// trim gives back the pages that s was given by the last deltas of the batch, all but
// the first so many, as far as they are for places from n on.
func (e *Engine) trim(st *step, s *sequence, deltas, n int) {
	b := st.batch
	last := len(b.Pages)
	for last > deltas && int(b.Pages[last-1].Index) >= pagesFor(n) {
		last--
	}
	e.retract(st, s, last)
}

// slide gives back the pages of s that its next token does not see. What the
// device still reads of them it reads before their next owner writes. A draft may be
// wrong.
func (e *Engine) slide(s *sequence) {
	computed := s.final(s.computed - s.drafted)
	for g := range s.tables {
		t := &s.tables[g]
		if first := min(page.First(e.shape.windows[g], computed), len(t.pages)); first > t.first {
			e.cache.Pages.Release(t.pages[t.first:first])
			t.first = first
		}
	}
}

// register offers to the prefix cache what is computed of s, or will be with the steps
// launched and st, as far as its tokens are known. st is the last step that writes it.
func (e *Engine) register(s *sequence, st *step) {
	full := s.final(min(s.known(), s.computed)) / page.Tokens
	if e.cfg.NoPrefixCache || full == s.registered && s.saved == page.None {
		return
	}
	keys := s.fullPages(full)
	for ; s.registered < full; s.registered++ {
		for g := range s.tables {
			t := &s.tables[g]
			if s.registered < t.first {
				continue // it has left the window before its last token was known
			}
			id := t.pages[s.registered]
			if e.cache.Pages.Register(id, keys[s.registered].In(g)) && st != nil {
				st.registered = append(st.registered, id)
			}
		}
	}
	if s.saved == page.None || s.savedPages > full {
		return
	}
	if e.cache.States.Register(s.saved, keys[s.savedPages-1]) && st != nil {
		st.snapshots = append(st.snapshots, s.saved)
	}
	e.cache.States.Release([]page.ID{s.saved})
	s.saved = page.None
}

// snapshotAfter returns the next length of s, beyond that computed, at which its
// state is kept: where others may go on from a full page.
func (e *Engine) snapshotAfter(s *sequence) int {
	next := (s.computed/e.grid + 1) * e.grid
	if prompt := (len(s.req.Tokens) - 1) / page.Tokens * page.Tokens; prompt > s.computed {
		next = min(next, prompt)
	}
	return next
}

// state says how the step's tokens of s change states; from is the length at
// which they begin.
func (e *Engine) state(st *step, s *sequence, end int) {
	if !e.shape.recurrent {
		return
	}
	save := device.NoState
	if e.snapshots && end == e.snapshotAfter(s) {
		save = e.snapshot(s, end/page.Tokens)
	}
	if s.from != device.NoState || save != device.NoState {
		delta := device.StateDelta{Slot: s.slot, Live: int32(s.live), From: s.from, Save: save}
		st.batch.States = append(st.batch.States, delta)
		s.from = device.NoState
	}
}

// final returns how many of n computed tokens are never computed again.
func (s *sequence) final(n int) int {
	if s.spare != page.None {
		n = min(n, s.back)
	}
	return n
}

// branch has the step's draft of s change a copy of its state, and reports whether there
// is room for one.
func (e *Engine) branch(st *step, s *sequence) bool {
	id := e.cache.States.Alloc(0)
	if id == page.None {
		return false
	}
	st.batch.States = append(st.batch.States, device.StateDelta{Slot: s.slot, Live: int32(id), From: int32(s.live), Save: device.NoState})
	s.spare, s.live, s.back = s.live, id, s.computed
	return true
}

// rejoin makes the state with the draft that of s if all of it was right, else that
// without: what was accepted is computed again.
func (e *Engine) rejoin(s *sequence, right bool) {
	if !right {
		s.spare, s.live = s.live, s.spare
		s.from, s.computed = int32(s.live), s.back
	}
	e.cache.States.Release([]page.ID{s.spare})
	s.spare = page.None
}

// snapshot returns a buffer for the state of s after so many pages, or NoState
// if there is none or the state is cached already.
func (e *Engine) snapshot(s *sequence, pages int) int32 {
	if pages*page.Tokens <= s.known() {
		if id := e.cache.States.Find(s.fullPages(pages)[pages-1]); id != page.None {
			e.cache.States.Share(id) // and let go, which makes it young
			e.cache.States.Release([]page.ID{id})
			return device.NoState
		}
	}
	if s.saved != page.None {
		return device.NoState // the one before is not registered yet
	}
	id := e.cache.States.Alloc(0)
	if id == page.None {
		return device.NoState
	}
	s.saved, s.savedPages = id, pages
	return int32(id)
}
