// Package enginetest holds what any backend must show under the engine, as
// opposed to device/backendtest, which tests a backend by itself.
package enginetest

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// Open opens a backend within limits and gives it a model, the same each time.
// It returns the model's plan too. Identical closes the backend.
type Open func(t testing.TB, limits device.Limits) (device.Backend, *plan.Plan)

// limits leave room for a prompt of Identical in one step.
var limits = device.Limits{MaxTokens: 160, MaxRows: 160, MaxSlots: 32, MaxPagesPerSlot: 10}

const (
	promptLen = 75 // neither whole pages nor whole chunks
	newTokens = 40
)

// Options say what of Identical is run.
type Options struct {
	Adapters int      // that open has loaded, under ids from 1 on: the request has the first, its company any or none
	Kinds    []string // of requests; nil: all
}

// Identical tests that a request's answer depends on nothing but the request:
// bit for bit the same tokens and log-probabilities alone and in company, with
// any chunking, after a preemption and from the prefix cache.
func Identical(t *testing.T, open Open, o Options) {
	for _, kind := range []struct {
		name      string
		params    func(p *sample.Params)
		topN      int
		score     bool
		bias      []sample.Bias
		constrain func(t testing.TB, c *grammar.Compiler) *engine.Constraint
		rules     func(r *engine.Request, vocab int)
	}{
		{name: "greedy", params: func(p *sample.Params) {}, topN: 4},
		{name: "scored prompt", params: func(p *sample.Params) {}, score: true, topN: 3},
		{name: "penalties", params: func(p *sample.Params) { p.RepetitionPenalty, p.FrequencyPenalty = 1.2, 0.3 }},
		{name: "sampled", params: func(p *sample.Params) {
			p.Sample, p.Seed, p.Temperature, p.TopK, p.TopP, p.RepetitionPenalty = 1, 17, 0.9, 50, 0.95, 1.1
		}},
		{name: "min_p", params: func(p *sample.Params) { p.Sample, p.Seed, p.Temperature, p.MinP = 1, 2, 1.5, 0.05 }, topN: 2},
		{name: "ruled", params: func(p *sample.Params) { p.Sample, p.Seed = 1, 11 }, topN: 2, rules: lists},
		{name: "ruled, scored", params: func(p *sample.Params) { p.RepetitionPenalty = 1.2 }, score: true, rules: func(r *engine.Request, vocab int) {
			lists(r, vocab)
			r.BannedTokens = r.BannedTokens[:1] // none that depend on the text
		}},
		{name: "ruled, under a grammar", params: func(p *sample.Params) { p.Sample, p.Seed = 1, 4 }, constrain: schema, rules: func(r *engine.Request, _ int) {
			r.MinNewTokens, r.BannedTokens = 20, [][]int32{{31, 32}, {32, 31}, {33, 33}}
		}},
		{name: "biased, present", params: func(p *sample.Params) { p.PresencePenalty = 0.7 }, bias: []sample.Bias{{Token: 5, Bias: 3}, {Token: 100, Bias: -100}}},
		{name: "under a grammar", params: func(p *sample.Params) { p.FrequencyPenalty = 0.1 }, topN: 2, constrain: schema},
		{name: "under a grammar, sampled", params: func(p *sample.Params) { p.Sample, p.Seed, p.RepetitionPenalty = 1, 5, 1.2 }, constrain: schema},
		{name: "triggered", params: func(p *sample.Params) { p.Sample, p.Seed, p.Temperature = 1, 3, 2 }, constrain: triggered},
		{name: "reasoning within a budget", params: func(p *sample.Params) { p.Sample, p.Seed, p.RepetitionPenalty = 1, 6, 1.2 }, topN: 2, constrain: reasoned},
	} {
		if o.Kinds != nil && !slices.Contains(o.Kinds, kind.name) {
			continue
		}
		t.Run(kind.name, func(t *testing.T) {
			request := func(vocab int) *engine.Request {
				r := random(rand.New(rand.NewPCG(1, 1)), vocab, promptLen, newTokens)
				kind.params(&r.Params)
				r.TopN, r.PromptLogprobs, r.LogitBias, r.Adapter = kind.topN, kind.score, kind.bias, int32(min(o.Adapters, 1))
				if kind.rules != nil {
					kind.rules(r, vocab)
				}
				return r
			}
			var want *answer
			for _, s := range situations {
				t.Run(s.name, func(t *testing.T) {
					b, p := open(t, limits)
					if s.pages > 0 && len(p.Groups) == 0 {
						b.Close() //nolint:errcheck // nothing was asked of it
						t.Skip("nobody runs out of pages where there are none")
					}
					got := s.run(t, b, p, request(p.Vocab), kind.constrain, o.Adapters)
					// How steps are cut depends on time, so once in a while it gets by.
					for range 8 {
						if s.pages == 0 || got.times.Preempted > 0 {
							break
						}
						b, p = open(t, limits)
						got = s.run(t, b, p, request(p.Vocab), kind.constrain, o.Adapters)
					}
					if want == nil {
						want = got
					}
					if diff := want.differs(got); diff != "" {
						t.Errorf("differs from the answer alone: %s", diff)
					}
					if (s.pages > 0) != (got.times.Preempted > 0) {
						t.Errorf("preempted %d times", got.times.Preempted)
					}
					if hit := got.times.CachedTokens > 0; hit != ((s.cached || s.fork > 0) && !kind.score) {
						t.Errorf("%d tokens came from the cache", got.times.CachedTokens)
					}
				})
			}
		})
	}
}

// situation is a way for a request to be served. The zero value is alone, in
// one piece.
type situation struct {
	name   string
	budget int  // tokens of a step; 0: any number
	before int  // others submitted before, and
	after  int  // after it
	cached bool // its prompt has been seen
	fork   int  // it is one of so many of its prompt
	pages  int  // so few, and so low an estimate, that it is preempted
}

var situations = []situation{
	{name: "alone"},
	{name: "among 31 others, first", after: 31},
	{name: "among 31 others, last", before: 31},
	{name: "among 31 others", before: 15, after: 16},
	{name: "in chunks of 1", budget: 1},
	{name: "in chunks of 7", budget: 7},
	{name: "in chunks of 16", budget: 16},
	{name: "in chunks beside others", budget: 33, before: 6, after: 6},
	{name: "cached", cached: true},
	{name: "cached, among others", cached: true, before: 8, after: 8},
	{name: "forked", fork: 4, after: 5},
	{name: "preempted", pages: 20, before: 3},
	{name: "preempted, in chunks", pages: 20, before: 3, budget: 19},
}

// lists are rules of half of the vocabulary and some bans.
func lists(r *engine.Request, vocab int) {
	r.IgnoreEOS, r.MinNewTokens = true, newTokens
	r.BannedTokens = [][]int32{{6}}
	for t := int32(4); int(t) < vocab; t += 2 {
		r.AllowedTokens = append(r.AllowedTokens, t)
		r.BannedTokens = append(r.BannedTokens, []int32{t, t}, []int32{t, 6 + t%10, t})
		if t%16 == 0 && len(r.StopTokens) < 20 {
			r.StopTokens = append(r.StopTokens, t)
		}
	}
	r.BannedTokens = r.BannedTokens[:min(len(r.BannedTokens), 1000)]
}

// schema constraints a sequence from its first token on.
func schema(t testing.TB, c *grammar.Compiler) *engine.Constraint {
	return &engine.Constraint{Grammar: grammartest.Compile(t, c, grammar.JSONSchema,
		`{"type":"object","properties":{"abc":{"enum":["true","abc"]},"xy":{"type":"array","items":{"type":"integer"},"minItems":8}},"required":["abc","xy"],"additionalProperties":false}`)}
}

// triggered constraints it from what it is soon to say on: one of several letters.
func triggered(t testing.TB, c *grammar.Compiler) *engine.Constraint {
	v := grammartest.Vocabulary(32 * c.MaskWords())
	g := &engine.Constraint{NewDetokenizer: func() engine.Detokenizer { return v }}
	for _, text := range []string{"1", "2", "w"} {
		g.Triggers = append(g.Triggers, engine.Trigger{Text: text, Grammar: grammartest.Compile(t, c, grammar.Regex, `[0-9]{0,3}([abc]{4}[0-9]|xy){60}`)})
	}
	return g
}

// reasoned constrains it to a schema after 26 tokens of reasoning.
func reasoned(t testing.TB, c *grammar.Compiler) *engine.Constraint {
	g := schema(t, c)
	v := grammartest.Vocabulary(32 * c.MaskWords())
	ending, err := v.Encode("12, 9<9", false)
	if err != nil {
		t.Fatal(err)
	}
	g.NewDetokenizer = func() engine.Detokenizer { return v }
	g.Reasoning = &engine.Reasoning{Opened: true, Close: "9<9", Budget: 26, Ending: ending}
	return g
}

// answer is all that came of a request.
type answer struct {
	prompt, tokens []engine.Token
	times          engine.Times
}

// run serves req and its company, all of them with a constraint of their own.
func (s *situation) run(t *testing.T, b device.Backend, p *plan.Plan, req *engine.Request, constrain func(testing.TB, *grammar.Compiler) *engine.Constraint, adapters int) *answer {
	vocab := p.Vocab
	cfg := engine.Config{
		Backend: b, Device: limits, Plan: p, Pages: 32 * limits.MaxPagesPerSlot * max(1, len(p.Groups)), States: 2 * limits.MaxSlots, Root: page.Root(),
		MaxBatchTokens: limits.MaxTokens, MaxWaiting: 200, Adapters: adapters,
	}
	if s.pages > 0 {
		longest := limits.MaxPagesPerSlot * page.Tokens
		cfg.Pages = s.pages * engine.PagesFor(p.Groups, longest) / limits.MaxPagesPerSlot
	}
	if s.budget > 0 {
		cfg.MaxBatchTokens = s.budget
	}
	var compiler *grammar.Compiler
	if constrain != nil || s.pages > 0 {
		compiler = grammartest.Vocabulary(vocab).Compiler(t)
		cfg.Compiler, cfg.EOS = func() (engine.Compiler, error) { return compiler, nil }, compiler.EOS()
	}
	if constrain != nil {
		req.Constraint = constrain(t, compiler)
	}
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(2, 2))
	var others []*engine.Stream
	crowd := func(n int) {
		for range n {
			r := random(rng, vocab, 5+rng.IntN(60), 60)
			r.Adapter = rng.Int32N(int32(adapters) + 1)
			if s.cached && rng.IntN(2) == 0 {
				copy(r.Tokens, req.Tokens)
			}
			if constrain != nil && s.pages == 0 && rng.IntN(3) > 0 { // a grammar may end early, pages must run out
				r.Constraint = constrain(t, compiler)
			}
			others = append(others, submit(t, e, r))
		}
	}
	run := func() {
		result := make(chan error, 1)
		go func() { result <- e.Run(context.Background()) }()
		t.Cleanup(func() {
			if err := e.Drain(context.Background()); err != nil {
				t.Error(err)
			}
			if err := <-result; err != nil {
				t.Error(err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}

	if s.cached {
		run()
		first := *req
		first.PromptLogprobs, first.MaxNewTokens, first.MinNewTokens, first.Constraint = false, 1, 0, nil
		read(t, submit(t, e, &first))
	}
	if s.pages > 0 {
		// Answers that can say but one word teach the engine to expect no more.
		for range 100 {
			r := random(rng, vocab, 1, 60)
			r.Constraint = &engine.Constraint{Grammar: grammartest.Compile(t, compiler, grammar.Regex, "a")}
			others = append(others, submit(t, e, r))
		}
	}
	crowd(s.before)
	seeds := []uint64{req.Params.Seed}
	for i := range s.fork - 1 { // it is the last one, or the only one that scores
		seeds = append(seeds, uint64(100+i))
	}
	if !req.PromptLogprobs {
		slices.Reverse(seeds)
	}
	family, err := e.SubmitN(t.Context(), req, seeds)
	if err != nil {
		t.Fatal(err)
	}
	stream := family[slices.Index(seeds, req.Params.Seed)]
	for _, other := range family {
		if other != stream {
			others = append(others, other)
		}
	}
	crowd(s.after)
	if !s.cached {
		run() // only now, so that who shares steps does not depend on the time
	}
	got := read(t, stream)
	for _, o := range others {
		read(t, o)
	}
	return got
}

// random returns a greedy request with a prompt of its own, which shares no
// prefix with another's.
func random(rng *rand.Rand, vocab, prompt, n int) *engine.Request {
	r := &engine.Request{Tokens: make([]int32, prompt), MaxNewTokens: n, Params: sample.Greedy(), IgnoreEOS: true}
	for i := range r.Tokens {
		r.Tokens[i] = int32(rng.IntN(vocab))
	}
	return r
}

func submit(t *testing.T, e *engine.Engine, r *engine.Request) *engine.Stream {
	t.Helper()
	s, err := e.Submit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, s *engine.Stream) *answer {
	t.Helper()
	defer s.Close()
	a := &answer{}
	for {
		tokens, err := s.Next(t.Context())
		if err == io.EOF {
			a.prompt, a.times = s.Prompt(), s.Times()
			return a
		}
		if err != nil {
			t.Fatal(err)
		}
		a.tokens = append(a.tokens, tokens...)
	}
}

// differs says where b is not bit for bit a, or nothing.
func (a *answer) differs(b *answer) string {
	if d := differ(a.prompt, b.prompt); d != "" {
		return "prompt: " + d
	}
	return differ(a.tokens, b.tokens)
}

func differ(a, b []engine.Token) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d tokens and %d", len(a), len(b))
	}
	for i := range a {
		same := a[i].ID == b[i].ID && equal(a[i].Logprob, b[i].Logprob) && len(a[i].Top) == len(b[i].Top)
		for k := 0; same && k < len(a[i].Top); k++ {
			same = a[i].Top[k].ID == b[i].Top[k].ID && equal(a[i].Top[k].Logprob, b[i].Top[k].Logprob)
		}
		if !same {
			return fmt.Sprintf("token %d is %+v and %+v", i, a[i], b[i])
		}
	}
	return ""
}

func equal(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
