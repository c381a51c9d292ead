package engine

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/vision"
)

// Variables of TestSimulated: how many runs, and the only seed to run.
const (
	simRuns = "MILLRACE_SIM_RUNS" // 2,000 unless set; a tenth under -short or -race
	simSeed = "MILLRACE_SIM_SEED"
)

// TestSimulated lets random crowds of requests loose on random small engines
// with faults, cancellations and too few pages. Whatever happens, everything
// that world checks holds, and everyone gets the tokens the model would give
// them alone, or an error for which there was a cause.
func TestSimulated(t *testing.T) {
	if seed := number(t, simSeed, 0); seed != 0 {
		if err := simulateInto(seed, t, new(tally)); err != nil {
			t.Fatal(err)
		}
		return
	}
	runs := number(t, simRuns, 2000)
	if testing.Short() || raceEnabled {
		runs /= 10
	}
	var sum tally
	for seed := uint64(1); seed <= runs; seed++ {
		if err := simulateInto(seed, t, &sum); err != nil {
			t.Fatalf("%v\nrepeat with %s=%d", err, simSeed, seed)
		}
	}
	t.Logf("%d runs: %+v", runs, sum)
	if used := sum.Used / float64(sum.Waits); used < 0.85 {
		t.Errorf("%.0f %% of slots, pages, states or steps are in use while someone waits, want 85", 100*used)
	}
	if sum.Computed > sum.Needed || sum.Passed > 30 {
		t.Errorf("%d tokens computed for %d; someone was passed by %d", sum.Computed, sum.Needed, sum.Passed)
	}
	for _, n := range []int{sum.Requests, sum.Complete, sum.Cut, sum.Expired, sum.Cancelled, sum.Failed, sum.Refused, sum.Lost, sum.Preemptions, sum.CachedTokens,
		sum.WithGrammar, sum.Constrained, sum.Forced, sum.Late, sum.Forks, sum.Windows, sum.Recurrent, sum.Resumed, sum.Adapters, sum.Lengthened,
		sum.Ruled, sum.Contradictory, sum.Stuck, sum.StopTokens, sum.Looped, sum.Scored, sum.Reasoned, sum.Drafted - sum.Accepted, sum.Accepted,
		sum.Images, sum.ImagesEncoded, sum.ImagesCached, sum.Unreadable, sum.ImagesScored,
		sum.Drafts.UnderGrammar, sum.Drafts.Forced, sum.Drafts.Before, sum.Drafts.Recurrent, sum.Drafts.ByHead} {
		if n == 0 {
			t.Errorf("something never happened in %d runs: %+v", runs, sum)
		}
	}
}

// tally counts what happened in all runs.
type tally struct {
	Requests, Complete, Cut, Expired, Cancelled, Failed, Refused, Lost        int
	Steps, Tokens, Preemptions, CachedTokens                                  int
	WithGrammar, Constrained, Forced, Late, Forks                             int
	Drafted, Accepted                                                         int
	Drafts                                                                    drafts
	Windows, Recurrent, Resumed, Adapters, Lengthened                         int
	Ruled, Contradictory, Stuck, StopTokens, Looped, Scored, Reasoned, Astray int
	Images, ImagesEncoded, ImagesCached, Unreadable, ImagesScored             int

	// Of runs in which nothing goes wrong and lengths are not misjudged on purpose:
	Waits            int     // engines in which someone waited
	Used             float64 // of these, what was in use meanwhile, on average, summed up
	Computed, Needed int     // tokens
	Passed           int     // the most requests that came later than another and had their first token earlier
}

// number reads an environment variable.
func number(t *testing.T, name string, unset uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return unset
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func simulateInto(seed uint64, t testing.TB, sum *tally) error {
	rng := rand.New(rand.NewPCG(seed, 7))
	chance := func(p float64) bool { return rng.Float64() < p }
	between := func(lo, hi int) int { return lo + rng.IntN(hi-lo+1) }

	limits := device.Limits{
		MaxTokens:       between(1, []int{8, 80}[rng.IntN(2)]),
		MaxSlots:        between(1, 8),
		MaxPagesPerSlot: between(2, 10),
	}
	limits.MaxRows = between(1, limits.MaxTokens)
	cfg := Config{
		Device:         limits,
		Pages:          between(1, 2*limits.MaxPagesPerSlot),
		MaxBatchTokens: between(1, limits.MaxTokens),
		MaxWaiting:     between(1, 20),
		NoPrefixCache:  chance(0.1),
	}
	model := sim.Model{Seed: seed, Vocab: between(4, 60), First: 1, EOS: 2, EOSRate: []float64{0, 0.02, 0.2}[rng.IntN(3)]}
	if chance(0.5) {
		model.Windows = [][]int{{0, 20}, {33, 0, 33}, {5}, {1, 64}, {}}[rng.IntN(5)]
		model.Recurrent = model.Windows != nil && len(model.Windows) == 0 || chance(0.5)
	}
	if chance(0.2) {
		model.RopeOriginal, model.RopeDynamic = between(1, 60), chance(0.5)
	}
	model.Draft = seed%3 == 0
	var art *gallery // for images draws of their own
	if seed%4 == 1 {
		own := rand.New(rand.NewPCG(seed, 8))
		art = newGallery(own, limits.MaxPagesPerSlot*page.Tokens/2)
		model.Hidden = paintingWidth
		p := &painter{}
		delay := []float64{0, 0.5, 0.95}[own.IntN(3)]
		p.late = func() bool { return own.Float64() < delay }
		if own.IntN(3) == 0 {
			p.fault = func() paintingFault { return paintingFault(own.IntN(30)) } // most are none
		}
		cfg.Vision = p.vision(art.memory, []vision.Bidirectional{vision.Causal, vision.WithinImage, vision.WholePrompt}[own.IntN(3)])
	}
	if model.Recurrent {
		cfg.States = between(1, 3*limits.MaxSlots)
	}
	if chance(0.3) {
		cfg.Adapters = between(1, 3)
	}
	cfg.Pages = max(cfg.Pages, len(model.Windows)) // a sequence has a page in each group
	constrained := chance(0.4)
	if constrained {
		model.Vocab, model.First, model.EOS = int(vocabulary), 1, grammartest.EOS
	}
	faults := 0.0
	if chance(0.3) {
		faults = 0.05
	}
	if chance(0.4) {
		cfg.Speculate = between(1, 20)
	}
	lost := false
	w := newWorld(t, cfg, sim.Config{
		Model:       model,
		Latency:     virtual(rng, time.Millisecond),
		Synchronous: chance(0.5),
		Fault: func(int) sim.Fault {
			switch {
			case !chance(faults):
				return sim.NoFault
			case chance(0.02):
				lost = true
				return sim.Lose
			}
			return []sim.Fault{sim.FailStep, sim.FailLaunch, sim.Invalid}[rng.IntN(3)]
		},
	})
	open := compiler(t).Open()
	if constrained {
		late := []float64{0, 0.1, 0.6}[rng.IntN(3)]
		w.e.cfg.Compiler = lateIf(func() bool { return chance(late) })
	}
	if cfg.Speculate > 0 && chance(0.9) {
		w.guess(rng, []float64{0, 0.1, 0.5, 1}[rng.IntN(4)])
	}
	w.e.grid = []int{16, 32, 80}[rng.IntN(3)]
	patience := []time.Duration{time.Hour, 100 * time.Millisecond, 10 * time.Millisecond}[rng.IntN(3)]
	crowded := chance(0.5)
	longest := w.e.limits.MaxInput
	if crowded {
		longest = max(1, longest/6)
	}
	spacing := []time.Duration{1, time.Millisecond, 20 * time.Millisecond}[rng.IntN(3)]
	aborts := []float64{0, 0.02}[rng.IntN(2)]

	bases := [][]int32{}
	for range 3 {
		base := make([]int32, w.e.limits.MaxInput)
		for i := range base {
			base[i] = int32(rng.IntN(model.Vocab))
		}
		bases = append(bases, base)
	}
	for i := range bases[0] { // one whose pages differ in what precedes them alone
		bases[0][i] = bases[0][i%page.Tokens]
	}
	request := func() *Request {
		base := bases[rng.IntN(len(bases))]
		prompt := append([]int32(nil), base[:between(1, longest)]...)
		for i := len(prompt) - between(0, len(prompt)-1); i < len(prompt) && chance(0.7); i++ {
			prompt[i] = int32(rng.IntN(model.Vocab))
		}
		p := sample.Greedy()
		if chance(0.5) {
			p.Sample, p.Seed, p.Temperature = 1, rng.Uint64(), rng.Float32()+0.1
		}
		if chance(0.3) {
			p.RepetitionPenalty = 1.2
		}
		if chance(0.2) {
			p.MinP = rng.Float32()
		}
		var biases []sample.Bias
		for i := range max(0, between(-3, 3)) {
			biases = append(biases, sample.Bias{Token: int32(i), Bias: rng.Float32()})
		}
		var until time.Time
		if chance(0.5) {
			until = w.e.now().Add(time.Duration(rng.Int64N(int64(patience))))
		}
		var prediction []int32
		if chance(0.1) {
			prediction = base[:between(0, len(base))]
		}
		r := &Request{
			Prediction:     prediction,
			Deadline:       until,
			LogitBias:      biases,
			Adapter:        int32(rng.IntN(cfg.Adapters + 1)),
			CacheSalt:      []string{"", "", "", "a", "b"}[rng.IntN(5)],
			Tokens:         prompt,
			MaxNewTokens:   between(1, min(w.e.limits.MaxTotal-len(prompt), 60)),
			Params:         p,
			TopN:           max(0, between(-3, 3)),
			PromptLogprobs: chance(0.15),
			IgnoreEOS:      chance(0.1),
		}
		if art != nil && art.rng.IntN(3) > 0 {
			art.hang(r, w.e)
			sum.Images += len(r.Images)
		}
		return r
	}
	submit := func() error {
		sum.Requests++
		r := request()
		var spec *constraintSpec
		grows := w.growsLonger(r)
		if grows {
			r.Params = sample.Greedy() // what the model is asked for then has no memory of indices and counts
			sum.Lengthened++
		}
		if constrained && !grows && chance(0.6) {
			spec = randomConstraint(rng)
			sum.WithGrammar++
		}
		seeds := make([]uint64, 1+max(0, between(-6, 4)))
		for i := range seeds {
			seeds[i] = rng.Uint64()
		}
		sum.Forks += len(seeds) - 1
		switch {
		case grows:
		case chance(0.2):
			addRules(rng, r, &model)
			sum.Ruled++
		case chance(0.04) && spec == nil:
			r.MaxNewTokens, r.PromptLogprobs, seeds = 0, true, seeds[:1]
			if art != nil && w.e.cfg.Vision.Bidirectional == vision.WholePrompt {
				r.Images = nil
			}
			sum.Scored++
		}
		if r.PromptLogprobs {
			sum.ImagesScored += len(r.Images)
		}
		_, err := w.submitN(t, r, spec, seeds)
		var e *Error
		if errors.As(err, &e) && e.Kind == Overloaded {
			sum.Refused++
			return nil
		}
		if errors.As(err, &e) && e.Kind == Invalid && spec == nil && empty(admitted(r, &model, nil, nil)) {
			sum.Contradictory++
			return nil
		}
		return err
	}
	abort := func() {
		if c := w.clients[rng.IntN(len(w.clients))]; !c.over && !c.gone {
			c.leave(chance(0.5))
		}
	}
	left := between(1, 25)
	w.onWait = func() { // while a step is in flight
		if len(w.clients) > 0 && chance(aborts) {
			abort()
		}
		if left > 0 && chance(0.1) {
			left--
			if err := submit(); err != nil && w.err == nil {
				w.err = err
			}
		}
	}

	arrival := time.Duration(0)
	for turns := 0; ; turns++ {
		for left > 0 && arrival <= w.b.Now() {
			left--
			if err := submit(); err != nil {
				return err
			}
			arrival += time.Duration(rng.Int64N(int64(spacing)))
		}
		if len(w.clients) > 0 && chance(aborts) {
			abort()
		}
		if crowded {
			w.e.expectShort() // admits too many, and never learns
		}
		worked, err := w.turn()
		if errors.Is(err, device.ErrLost) && lost {
			sum.Lost++
			break
		}
		if err != nil {
			return fmt.Errorf("turn %d: %w", turns, err)
		}
		if !worked {
			if left == 0 {
				break
			}
			arrival = w.b.Now() // nothing to wait for
		}
		if turns > 100_000 {
			return errors.New("still at work after 100,000 turns")
		}
	}
	for i, c := range w.clients {
		if !c.over {
			return fmt.Errorf("client %d has not ended", i)
		}
		var e *Error
		switch errors.As(c.err, &e); {
		case c.err == io.EOF && c.stream.Finish() == FinishDeadline:
			sum.Cut++
		case c.err == io.EOF:
			sum.Complete++
			if c.stream.Finish() == FinishStopToken {
				sum.StopTokens++
			}
			if c.looped {
				sum.Looped++
			}
			if c.followed.from >= 0 && c.spec != nil {
				sum.Constrained++
				if c.spec.reasoning != nil && c.followed.from > 0 {
					sum.Reasoned++
				}
			}
		case errors.Is(e, errExcluded):
			sum.Stuck++
		case errors.Is(e, errAfterReasoning):
			sum.Astray++
		case e.Kind == Cancelled && c.gone:
			sum.Cancelled++
		case e.Kind == Expired && !c.req.Deadline.IsZero():
			sum.Expired++
		case e.Kind == Failed && (errors.Is(e, errPainting) || errors.Is(e, errInvalidRows) || strings.Contains(e.Error(), "no paint")) && w.painter.bad > 0:
			sum.Unreadable++
		case e.Kind == Failed && faults > 0:
			sum.Failed++
		default:
			return fmt.Errorf("client %d ended with %v, for which there was no cause", i, c.err)
		}
	}
	if constrained {
		grammartest.CheckClosed(t, compiler(t), open)
	}
	sum.Forced += int(w.e.stats.forcedTokens.Load())
	sum.Drafted += int(w.e.stats.draftedTokens.Load())
	sum.Accepted += int(w.e.stats.acceptedTokens.Load())
	sum.Drafts.UnderGrammar += w.drafts.UnderGrammar
	sum.Drafts.Forced += w.drafts.Forced
	sum.Drafts.Before += w.drafts.Before
	sum.Drafts.Recurrent += w.drafts.Recurrent
	sum.Drafts.ByHead += w.drafts.ByHead
	sum.Late += int(w.e.stats.lateMasks.Load())
	sum.Steps += w.e.launched
	for _, n := range w.steps {
		sum.Tokens += n
	}
	sum.Preemptions += int(w.e.stats.preemptions.Load())
	sum.CachedTokens += int(w.e.stats.cachedTokens.Load())
	if faults == 0 && !crowded && aborts == 0 {
		if w.waits > 0 { // each engine counts once, however long someone waited there
			sum.Waits++
			sum.Used += w.used / float64(w.waits)
		}
		for _, c := range w.clients {
			sum.Passed = max(sum.Passed, c.passed)
			sum.Needed += len(c.req.Tokens) - c.stream.times.CachedTokens + len(c.got)
			if w.growsLonger(c.req) {
				sum.Needed += w.model.RopeOriginal
			}
		}
		for _, n := range w.steps {
			sum.Computed += n
		}
		sum.Computed -= int(w.e.stats.draftedTokens.Load() - w.e.stats.acceptedTokens.Load())
	}
	sum.ImagesEncoded += int(w.e.stats.imagesEncoded.Load())
	sum.ImagesCached += int(w.e.stats.imagesCached.Load())
	sum.Windows += len(model.Windows)
	sum.Adapters += cfg.Adapters
	if model.Recurrent {
		sum.Recurrent++
		sum.Resumed += int(w.e.stats.cachedTokens.Load())
	}
	if lost {
		return nil // pages are not given back: nobody needs them
	}
	return w.checkDone()
}
