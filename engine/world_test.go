package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// world drives an engine on the simulated backend turn by turn, in one
// goroutine, and checks after every turn what must always hold.
type world struct {
	e        *Engine
	b        *sim.Backend
	model    sim.Model
	clients  []*client
	painter  *painter // nil: the model reads no images
	adapters []*device.Adapter
	onWait   func()      // while a step is in flight
	onStep   func(*step) // when it is planned
	checked  int         // number of the step checked last, plus one
	steps    []int       // tokens of each step
	err      error       // of a check that failed where it could not be returned
	drafts   drafts      // tokens of them
	waits    int         // turns after which someone waited
	used     float64     // of these, the parts of slots, pages, states or the step's budget in use, summed up
}

// drafts counts tokens of drafts: of sequences under a grammar, those that it forces, of
// sequences before one, of recurrent ones, and those of the model's head.
type drafts struct{ UnderGrammar, Forced, Before, Recurrent, ByHead int }

// count takes in the draft of a step.
func (d *drafts) count(s *sequence) {
	if s.spare != page.None {
		d.Recurrent += s.drafted
	}
	switch {
	case s.drafted == 0 || s.constraint == nil:
	case s.constrained():
		d.UnderGrammar += s.drafted
		for place := range s.drafted {
			if s.forces(place) {
				d.Forced++
			}
		}
	default:
		d.Before += s.drafted
	}
}

// newWorld makes an engine of cfg, whose Backend, Root and Plan it sets.
func newWorld(t testing.TB, cfg Config, bc sim.Config) *world {
	t.Helper()
	w := &world{model: bc.Model}
	bc.OnWait = func() {
		w.checkStep()
		if w.onWait != nil {
			w.onWait()
		}
	}
	w.b = sim.New(cfg.Device, bc)
	cfg.Compiler = func() (Compiler, error) { return sharedCompiler() }
	cfg.Backend, cfg.Plan, cfg.EOS, cfg.Root = w.b.Checked(), bc.Model.Plan(), []int32{bc.Model.EOS}, page.Root()
	for id := 1; id <= cfg.Adapters; id++ {
		w.adapters = append(w.adapters, bc.Model.Adapter(uint64(id)))
		if err := cfg.Backend.LoadAdapter(int32(id), w.adapters[id-1]); err != nil {
			t.Fatal(err)
		}
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.e = e
	if v := cfg.Vision; v != nil {
		w.paints(v.Encoder.(*painter))
	}
	e.now = func() time.Time { return time.Unix(1, 0).Add(w.b.Now()) }
	return w
}

// testModel is the model of most tests: no sequence ends before its length.
var testModel = sim.Model{Seed: 1, Vocab: 500, First: 3, EOS: 2}

// small is a device on which little happens at once.
var small = device.Limits{MaxTokens: 64, MaxRows: 64, MaxSlots: 4, MaxPagesPerSlot: 8}

// submit hands a request in and returns its client, nil if it was refused.
func (w *world) submit(req *Request) (*client, error) {
	cs, err := w.submitN(nil, req, nil, []uint64{req.Params.Seed})
	if err != nil {
		return nil, err
	}
	return cs[0], nil
}

// submitN hands in a request with as many sequences as there are seeds, held
// to the grammars of spec, if any.
func (w *world) submitN(t testing.TB, req *Request, spec *constraintSpec, seeds []uint64) ([]*client, error) {
	ctx, cancel := context.WithCancel(context.Background())
	req.Constraint = spec.compile(t)
	streams, err := w.e.SubmitN(ctx, req, seeds)
	if err != nil {
		cancel()
		return nil, err
	}
	family := make([]*client, len(seeds))
	leave := sync.OnceFunc(cancel)
	for i, s := range streams {
		p := req.Params
		p.Seed = seeds[i]
		c := &client{req: req, stream: s, cancel: leave, spec: spec, family: family, eos: w.model.EOS}
		if spec != nil {
			c.want, c.followed = spec.expect(t, w.model, req, p, w.conditions(req))
		} else {
			c.want = w.expect(req, p)
		}
		c.cutShort()
		if req.PromptLogprobs && i == 0 {
			prompt, _ := shown(req, w.model.Hidden)
			c.scores = w.model.Score(prompt, w.conditions(req), req.TopN)
			for at, token := range req.Tokens {
				if prompt[at] != token {
					c.scores[at] = sim.Choice{Token: token, Logprob: nan}
				}
			}
		}
		family[i] = c
	}
	w.clients = append(w.clients, family...)
	return family, nil
}

// conditions are what a request's answer depends on beside its prompt and
// parameters.
func (w *world) conditions(req *Request) sim.Conditions {
	by := sim.Conditions{Biases: req.LogitBias, RopeLen: w.e.ropeLen(len(req.Tokens))}
	if req.Adapter > 0 {
		by.Adapter = w.adapters[req.Adapter-1]
	}
	w.seen(req, &by)
	return by
}

// growsLonger reports whether a request may grow beyond the length at which
// rotations change, and must then be computed again.
func (w *world) growsLonger(req *Request) bool {
	before := w.model.RopeOriginal - len(req.Tokens) + 1
	return w.model.RopeOriginal > 0 && !w.model.RopeDynamic && before >= 1 && before < req.MaxNewTokens
}

// expect returns what a request must yield. One that grows beyond the length at
// which rotations change goes on from what it has said so far as a longer one.
func (w *world) expect(req *Request, p sample.Params) []sim.Choice {
	by := w.conditions(req)
	prompt, _ := shown(req, w.model.Hidden)
	before := w.model.RopeOriginal - len(req.Tokens) + 1
	if ruled(req) {
		by.Mask = func(out []sim.Choice) []uint32 { return admitted(req, &w.model, nil, out) }
	}
	if !w.growsLonger(req) {
		return w.model.ContinueUnder(prompt, p, by, req.TopN, req.MaxNewTokens, !req.IgnoreEOS)
	}
	want := w.model.ContinueUnder(prompt, p, by, req.TopN, before, !req.IgnoreEOS)
	if len(want) < before || want[before-1].Token == w.model.EOS && !req.IgnoreEOS {
		return want
	}
	longer := slices.Clone(prompt)
	for _, c := range want {
		longer = append(longer, c.Token)
	}
	by.RopeLen = int32(w.model.RopeOriginal) + 1
	return append(want, w.model.ContinueUnder(longer, p, by, req.TopN, req.MaxNewTokens-before, !req.IgnoreEOS)...)
}

// ask submits a greedy request that must be taken.
func (w *world) ask(t testing.TB, prompt []int32, n int) *client {
	t.Helper()
	c, err := w.submit(&Request{Tokens: prompt, MaxNewTokens: n, Params: sample.Greedy()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// turn runs the loop once, reads all streams and checks everything.
func (w *world) turn() (worked bool, err error) {
	encoded := w.encode(false)
	worked, lost := w.e.tick()
	worked = worked || encoded || w.encode(true)
	if lost != nil {
		w.e.shutDown(lost)
	}
	if w.e.inFlight != nil && w.checked <= w.e.inFlight.number {
		w.checkStep() // a first step: there was no Wait to check in
	}
	if err := w.read(); err != nil {
		return worked, err
	}
	if w.err != nil {
		return worked, w.err
	}
	if lost != nil {
		return false, lost
	}
	w.measure()
	return worked, errors.Join(w.checkEngine(), w.checkImages())
}

// measure notes how well the engine is used while someone waits.
func (w *world) measure() {
	e := w.e
	if e.waiting.length == 0 || !e.ahead || e.inFlight == nil {
		return
	}
	w.waits++
	memory := 0.0 // a draft of a recurrent model holds two states
	for _, pool := range []*page.Pool{e.cache.Pages, e.cache.States} {
		if total := pool.Total(); total > 0 {
			memory = max(memory, 1-float64(pool.Free())/float64(total))
		}
	}
	w.used += max(memory, float64(len(e.active))/float64(e.slots), 1-float64(e.inFlight.left)/float64(e.budget))
}

// settle runs turns until there is no more work.
func (w *world) settle() error {
	for range 100_000 {
		worked, err := w.turn()
		if err != nil || !worked {
			return err
		}
	}
	return errors.New("still at work after 100,000 turns")
}

// finish settles, and checks that everyone is done and all pages are free.
func (w *world) finish(t testing.TB) {
	t.Helper()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if err := w.checkDone(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) checkDone() error {
	for i, c := range w.clients {
		if !c.over {
			return fmt.Errorf("client %d has not ended: %d of %d tokens", i, len(c.got), c.req.MaxNewTokens)
		}
	}
	if free, total := w.e.cache.Pages.Free(), w.e.cache.Pages.Total(); free != total {
		return fmt.Errorf("%d of %d pages are free at the end", free, total)
	}
	for _, x := range w.e.images.entries {
		if x.holds != 0 {
			return fmt.Errorf("rows of an image are held by %d at the end", x.holds)
		}
	}
	if n := w.e.queued.Load(); n != 0 {
		return fmt.Errorf("%d requests counted as waiting at the end", n)
	}
	return nil
}

// read takes what the streams offer and compares it with the model.
func (w *world) read() error {
	for i, c := range w.clients {
		silent := len(c.got) == 0
		if err := c.read(); err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
		if silent && len(c.got) > 0 {
			for _, earlier := range w.clients[:i] {
				if len(earlier.got) == 0 && !earlier.over {
					earlier.passed++
				}
			}
		}
		if c.gone && !c.over {
			if c.overAge++; c.overAge > 2 {
				return fmt.Errorf("client %d is gone for %d turns and still open", i, c.overAge)
			}
		}
	}
	return nil
}

// checkStep checks the step just planned: the budget, and that each page it
// writes has one user and no one could reach it before.
func (w *world) checkStep() {
	st := w.e.inFlight
	if st == nil || w.err != nil {
		return
	}
	w.checked = st.number + 1
	if w.onStep != nil {
		w.onStep(st)
	}
	w.steps = append(w.steps, len(st.batch.Tokens))
	spans := 0
	for _, span := range st.batch.Spans {
		spans = max(spans, int(span.Count))
	}
	if n := len(st.batch.Tokens); n > w.e.budget+spans {
		w.err = fmt.Errorf("step of %d tokens, the budget is %d, a span has up to %d", n, w.e.budget, spans)
	}
	users, _ := w.users()
	fresh := map[page.ID]bool{}
	for _, id := range st.registered {
		fresh[id] = true
	}
	for i, s := range st.seqs {
		if s.state != active {
			continue // the step before failed and was not waited for
		}
		q := st.batch.Seqs[i]
		w.drafts.count(s)
		if next := int(q.KVLen); st.batch.Draft && next < len(s.req.Tokens) && q.Next != s.req.Tokens[next] {
			w.err = fmt.Errorf("the token at position %d is said to be %d, and is %d", next, q.Next, s.req.Tokens[next])
		}
		for j := q.Start; j < q.Start+q.Count && s.constraint != nil; j++ {
			if last, unseen := st.batch.Tokens[j] == device.LastToken, int(st.batch.Pos[j]) >= s.known(); last && !unseen {
				w.err = fmt.Errorf("position %d of %d known tokens is taken from the device", st.batch.Pos[j], s.known())
			}
		}
		for p := int(q.KVLen - q.Count); p < int(q.KVLen); p++ {
			for g := range s.tables {
				t := &s.tables[g]
				if p/page.Tokens < t.first {
					continue // written, read by the last tokens of the step, and given back since
				}
				id := t.pages[p/page.Tokens]
				if users[id] != 1 {
					w.err = fmt.Errorf("position %d is written to page %d, which %d sequences use", p, id, users[id])
				}
				if !fresh[id] && !w.e.cache.Pages.Writable(id) {
					w.err = fmt.Errorf("position %d is written to cached page %d", p, id)
				}
			}
		}
	}
}

// users counts how many active sequences use each page and each state.
func (w *world) users() (pages, states []int32) {
	pages, states = make([]int32, w.e.cache.Pages.Total()), make([]int32, w.e.cache.States.Total())
	for _, s := range w.e.active {
		for g := range s.tables {
			for _, id := range s.tables[g].pages[s.tables[g].first:] {
				pages[id]++
			}
		}
		for _, id := range []page.ID{s.live, s.spare, s.saved} {
			if id != page.None {
				states[id]++
			}
		}
	}
	return pages, states
}

// checkEngine checks the engine between turns.
func (w *world) checkEngine() error {
	e := w.e
	pages, states := w.users()
	if err := e.cache.Check(pages, states); err != nil {
		return err
	}
	held, stats := 0, e.Stats()
	for g, s := range append(stats.Groups, stats.States) {
		if s.Hits > s.Queries {
			return fmt.Errorf("group %d: %d hits of %d queries", g, s.Hits, s.Queries)
		}
		if g < len(stats.Groups) {
			held += s.Used
		}
	}
	if held != stats.PagesUsed {
		return fmt.Errorf("groups hold %d pages, counted %d", held, stats.PagesUsed)
	}
	slots := map[int32]bool{}
	for _, slot := range e.freeSlots {
		slots[slot] = true
	}
	for i, s := range e.active {
		if s.state != active || slots[s.slot] {
			return fmt.Errorf("active sequence %d has state %d and slot %d", i, s.state, s.slot)
		}
		slots[s.slot] = true
		unseen := s.total - s.known()
		switch {
		case unseen < 0 || unseen > 1 || unseen == 1 && e.inFlight == nil:
			return fmt.Errorf("active sequence %d: %d tokens unseen between turns", i, unseen)
		case s.computed > s.total || s.total > s.limit:
			return fmt.Errorf("active sequence %d: computed %d, total %d, limit %d", i, s.computed, s.total, s.limit)
		case !e.cfg.NoPrefixCache && s.registered > min(s.known(), s.computed)/page.Tokens:
			return fmt.Errorf("active sequence %d: %d pages registered with %d tokens computed", i, s.registered, s.computed)
		}
		if err := w.checkTables(s); err != nil {
			return fmt.Errorf("active sequence %d: %w", i, err)
		}
	}
	if len(slots) != e.slots {
		return fmt.Errorf("%d of %d slots are free or taken", len(slots), e.slots)
	}
	n, preempted, queued := 0, 0, 0
	for _, s := range e.active {
		queued += len(s.forks)
		if len(s.forks) > 0 && s.computed >= len(s.req.Tokens) {
			return fmt.Errorf("%d forks held with the prompt computed", len(s.forks))
		}
	}
	for s := e.waiting.head; s != nil; s = s.next {
		n++
		queued += len(s.forks)
		if s.admitted {
			preempted++
		} else {
			queued++
		}
		if s.state != waiting || s.tables != nil || s.live != page.None || s.saved != page.None || s.computed != 0 || s.known() != s.total {
			return fmt.Errorf("waiting sequence: state %d, %d tables, computed %d, known %d, total %d", s.state, len(s.tables), s.computed, s.known(), s.total)
		}
	}
	for s := e.inbox.top.Load(); s != nil && s != closedInbox; s = s.next {
		queued += 1 + len(s.forks)
	}
	if head := e.waiting.head; head != nil && (head.passed > maxPasses || head.delays > maxDelays) {
		return fmt.Errorf("%d passed the first in line, which was put off %d times", head.passed, head.delays)
	}
	if preempted != e.preempted || int64(queued) != e.queued.Load() {
		return fmt.Errorf("%d sequences preempted and %d queued, counted %d and %d", preempted, queued, e.preempted, e.queued.Load())
	}
	if n != e.waiting.length || len(e.unpublished) != 0 {
		return fmt.Errorf("%d sequences wait, counted %d; %d not published", n, e.waiting.length, len(e.unpublished))
	}
	return nil
}

// checkTables checks that an active sequence has the pages that its next token
// sees, no more than a window needs, and a state if the model has any.
func (w *world) checkTables(s *sequence) error {
	if (s.live != page.None) != w.e.shape.recurrent {
		return fmt.Errorf("state %d", s.live)
	}
	for g := range s.tables {
		t := &s.tables[g]
		window := w.e.shape.windows[g]

		// One more where a page was taken and there was none for another group.
		if n := len(t.pages); n != pagesFor(s.computed) && n != pagesFor(s.computed)+1 {
			return fmt.Errorf("%d pages of group %d for %d tokens", n, g, s.computed)
		}
		if first := page.First(window, s.computed); t.first != min(first, len(t.pages)) {
			return fmt.Errorf("pages of group %d from %d on, want them from %d on", g, t.first, first)
		}
		if most := w.e.shape.most[g]; most > 0 && len(t.pages)-t.first > most+1 {
			return fmt.Errorf("%d pages of group %d, whose window needs %d", len(t.pages)-t.first, g, most)
		}
	}
	return nil
}

// guess makes the engine draft what each sequence will say, with mistakes, instead of
// what paid before.
func (w *world) guess(rng *rand.Rand, mistakes float64) {
	w.e.speculation.choose = func(st *step, _, most int) {
		w.e.speculation.head.length = 1 + st.number%device.MaxDrafts
		for _, s := range w.e.speculation.open {
			for n := min(rng.IntN(w.e.cfg.Speculate+1), w.e.mostDrafts(s), most); n > 0; n, most = n-1, most-1 {
				token := int32(rng.IntN(w.model.Vocab))
				want := w.client(s).want
				if i := s.generated + len(s.draft); i < len(want) && rng.Float64() >= mistakes {
					token = want[i].Token
				}
				s.draft = append(s.draft, token)
			}
			if s.expects() && st.number%3 > 0 {
				s.draft = slices.Clone(s.expected[:min(len(s.expected), len(s.draft))])
				w.drafts.ByHead += len(s.draft)
			}
		}
	}
}

// client returns the one that s is for.
func (w *world) client(s *sequence) *client {
	i := slices.IndexFunc(w.clients, func(c *client) bool { return c.stream == s.stream })
	return w.clients[i]
}

// expectShort makes the engine believe that sequences end at once, so that it
// admits too many.
func (e *Engine) expectShort() {
	e.lengths = lengths{}
	for range recentLengths {
		e.lengths.learn(1, false)
	}
	e.outlook.number = -1
}

// tokens returns n token ids that depend on a seed.
func tokens(seed uint64, n int) []int32 {
	rng := rand.New(rand.NewPCG(seed, 0))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(3 + rng.IntN(400))
	}
	return out
}

// virtual makes a step take up to max, drawn from rng.
func virtual(rng *rand.Rand, max time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return time.Duration(rng.Int64N(int64(max))) }
}
