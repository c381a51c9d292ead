package engine

import (
	"sync/atomic"
	"time"
)

// Method says what a step was for, in TGI's words.
type Method int

// Methods.
const (
	Prefill Method = iota // computes part of a prompt, perhaps beside decodes
	Decode                // one token of each sequence
	numMethods
)

func (m Method) String() string { return [...]string{"prefill", "decode"}[m] }

// StepInfo describes a step that is over.
type StepInfo struct {
	Method    Method
	Sequences int   // that took part
	Admitted  int   // of these, for the first time since they waited
	Decodes   int   // of these, with a single token
	Tokens    int   // computed
	Accepted  []int // of each sequence with a draft, how much of it was right; valid during the call
	Err       error // the step failed; its sequences have ended

	Plan    time.Duration // choosing the work and filling the batch
	Forward time.Duration // from launch, or the end of the step before, to the results
	Apply   time.Duration // taking the results in, the reader's wake-ups excluded
}

// Observer hears of every step, on the loop's goroutine: it must return
// quickly and should not allocate. Where replicas share one, it hears of the steps of
// several at once.
type Observer interface {
	Step(StepInfo)
}

// Stats is a view of the engine. Numbers are of about the same moment, but not
// taken under a lock.
type Stats struct {
	Waiting   int // requests submitted and not admitted yet
	Preempted int // sequences that wait to be computed again
	Running   int // sequences with a slot
	Slots     int // sequences that may run at once
	MaxTokens int // prompt and output that the running may reach together

	BatchSequences int // of the step launched last; 0 when idle
	BatchTokens    int

	PagesTotal  int
	PagesUsed   int // by running sequences
	PagesCached int // that a prompt may find, used or not

	Groups      []CacheStats // of caches of keys and values, in the plan's order
	States      CacheStats   // of recurrent layers
	StatesTotal int          // 0 without any

	PromptTokens    int64 // of all admitted requests
	CachedTokens    int64 // of these, found in the prefix cache
	GeneratedTokens int64
	ForcedTokens    int64 // of these, given by a grammar and not sampled
	DraftedTokens   int64 // computed before they were known,
	AcceptedTokens  int64 // and of these, generated
	LateMasks       int64 // rows that sat out a step because their grammar was slow
	Preemptions     int64
	ImagesEncoded   int64 // by the vision tower
	ImagesCached    int64 // of admitted requests whose rows or pages were there already

	Steps [numMethods]MethodStats // by Method
}

// MethodStats sums up the steps of one Method.
type MethodStats struct {
	Steps    int64
	Failed   int64 // of these
	Forward  time.Duration
	Tokens   int64
	Sequence int64 // sequences summed over steps
}

// add adds the numbers of another engine with the same plan.
func (s *Stats) add(o *Stats) {
	s.Waiting += o.Waiting
	s.Preempted += o.Preempted
	s.Running += o.Running
	s.Slots += o.Slots
	s.MaxTokens += o.MaxTokens
	s.BatchSequences += o.BatchSequences
	s.BatchTokens += o.BatchTokens
	s.PagesTotal += o.PagesTotal
	s.PagesUsed += o.PagesUsed
	s.PagesCached += o.PagesCached
	for i := range s.Groups {
		s.Groups[i].add(&o.Groups[i])
	}
	s.States.add(&o.States)
	s.StatesTotal += o.StatesTotal
	s.PromptTokens += o.PromptTokens
	s.CachedTokens += o.CachedTokens
	s.GeneratedTokens += o.GeneratedTokens
	s.ForcedTokens += o.ForcedTokens
	s.DraftedTokens += o.DraftedTokens
	s.AcceptedTokens += o.AcceptedTokens
	s.LateMasks += o.LateMasks
	s.Preemptions += o.Preemptions
	s.ImagesEncoded += o.ImagesEncoded
	s.ImagesCached += o.ImagesCached
	for i := range s.Steps {
		m, n := &s.Steps[i], &o.Steps[i]
		m.Steps += n.Steps
		m.Failed += n.Failed
		m.Forward += n.Forward
		m.Tokens += n.Tokens
		m.Sequence += n.Sequence
	}
}

// counters is Stats as the loop keeps it.
type counters struct {
	preempted, running, maxTokens        atomic.Int64
	batchSequences, batchTokens          atomic.Int64
	pagesUsed, pagesCached               atomic.Int64
	promptTokens, cachedTokens           atomic.Int64
	generatedTokens, preemptions         atomic.Int64
	forcedTokens, lateMasks              atomic.Int64
	draftedTokens, acceptedTokens        atomic.Int64
	imagesEncoded, imagesCached          atomic.Int64
	steps, failed, forward, tokens, seqs [numMethods]atomic.Int64
	pagesTotal, statesTotal              int
	groups                               []cacheCounters
	states                               cacheCounters
	lastWaited                           time.Time // the loop's own
}

// Stats returns a view of the engine. It may be called from any goroutine.
func (e *Engine) Stats() Stats {
	c := &e.stats
	s := Stats{
		Waiting:         int(e.queued.Load()),
		Preempted:       int(c.preempted.Load()),
		Running:         int(c.running.Load()),
		Slots:           e.slots,
		MaxTokens:       int(c.maxTokens.Load()),
		BatchSequences:  int(c.batchSequences.Load()),
		BatchTokens:     int(c.batchTokens.Load()),
		PagesTotal:      c.pagesTotal,
		PagesUsed:       int(c.pagesUsed.Load()),
		PagesCached:     int(c.pagesCached.Load()),
		States:          c.states.stats(0),
		StatesTotal:     c.statesTotal,
		PromptTokens:    c.promptTokens.Load(),
		CachedTokens:    c.cachedTokens.Load(),
		GeneratedTokens: c.generatedTokens.Load(),
		ForcedTokens:    c.forcedTokens.Load(),
		DraftedTokens:   c.draftedTokens.Load(),
		AcceptedTokens:  c.acceptedTokens.Load(),
		LateMasks:       c.lateMasks.Load(),
		Preemptions:     c.preemptions.Load(),
		ImagesEncoded:   c.imagesEncoded.Load(),
		ImagesCached:    c.imagesCached.Load(),
	}
	for g := range c.groups {
		s.Groups = append(s.Groups, c.groups[g].stats(e.shape.windows[g]))
	}
	for m := range s.Steps {
		s.Steps[m] = MethodStats{
			Steps:    c.steps[m].Load(),
			Failed:   c.failed[m].Load(),
			Forward:  time.Duration(c.forward[m].Load()),
			Tokens:   c.tokens[m].Load(),
			Sequence: c.seqs[m].Load(),
		}
	}
	return s
}

// measure records a step whose results were there at waited and are applied.
func (e *Engine) measure(st *step, waited time.Time, err error) StepInfo {
	c := &e.stats
	begun := st.launched
	if c.lastWaited.After(begun) {
		begun = c.lastWaited // it ran only when the step before was done
	}
	c.lastWaited = waited
	now := e.now()
	e.progress.Store(now.UnixNano())

	info := StepInfo{
		Method:    Decode,
		Sequences: len(st.seqs),
		Admitted:  st.admitted,
		Decodes:   st.decodes,
		Tokens:    len(st.batch.Tokens),
		Accepted:  e.speculation.accepted,
		Err:       err,
		Plan:      st.launched.Sub(st.planned),
		Forward:   waited.Sub(begun),
		Apply:     now.Sub(waited),
	}
	if st.decodes < len(st.seqs) {
		info.Method = Prefill
	}
	m := info.Method
	c.steps[m].Add(1)
	if err != nil {
		c.failed[m].Add(1)
	}
	c.forward[m].Add(int64(info.Forward))
	c.tokens[m].Add(int64(info.Tokens))
	c.seqs[m].Add(int64(info.Sequences))
	if e.cfg.Observer != nil {
		e.cfg.Observer.Step(info)
	}
	return info
}

// publishStats makes what has changed in this turn of the loop visible.
func (e *Engine) publishStats() {
	c := &e.stats
	reach := 0
	for _, s := range e.active {
		reach += s.limit
	}
	sequences, tokens := 0, 0
	if e.inFlight != nil {
		sequences, tokens = len(e.inFlight.seqs), len(e.inFlight.batch.Tokens)
	}
	c.preempted.Store(int64(e.preempted))
	c.running.Store(int64(len(e.active)))
	c.maxTokens.Store(int64(reach))
	c.batchSequences.Store(int64(sequences))
	c.batchTokens.Store(int64(tokens))
	c.pagesUsed.Store(int64(e.cache.Pages.Total() - e.cache.Pages.Free()))
	c.pagesCached.Store(int64(e.cache.Pages.Cached()))
	for g := range c.groups {
		c.groups[g].publish(e.cache.Pages.Count(g))
	}
	c.states.publish(e.cache.States.Count(0))
}
