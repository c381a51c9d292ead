package engine

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// grammarModel samples any token but the padding.
var grammarModel = sim.Model{Seed: 4, Vocab: int(vocabulary), First: 1, EOS: grammartest.EOS}

func regex(pattern string) *testGrammar {
	return &testGrammar{grammar.Regex, pattern, matching(pattern)}
}

// matcher compiles a regular expression that is closed with the test.
func matcher(t testing.TB, pattern string) *grammar.Matcher {
	m := grammartest.Compile(t, compiler(t), grammar.Regex, pattern)
	t.Cleanup(m.Close)
	return m
}

func constrainedRequest(n int) *Request {
	p := sample.Greedy()
	p.FrequencyPenalty = 0.5
	return &Request{Tokens: []int32{5, 6, 7}, MaxNewTokens: n, Params: p, TopN: 2}
}

// What a grammar forces comes at once, without a draw, and counts; where
// nothing but the end may follow, the end follows.
func TestForcedTokens(t *testing.T) {
	for _, tt := range []struct {
		name    string
		grammar *testGrammar
		n       int
		text    string
		finish  FinishReason
		steps   int
		ignore  bool
	}{
		{name: "to the end", grammar: regex(`abcxytrue`), n: 50, text: "abcxytrue</s>", finish: FinishEOS, steps: 2},
		{name: "to the end, ignoring it", grammar: regex(`abcxytrue`), n: 50, text: "abcxytrue</s>", finish: FinishEOS, steps: 2, ignore: true},
		{name: "to the length", grammar: regex(`true, abc[0-9]{2}, xy`), n: 3, text: "true, ", finish: FinishLength, steps: 2},
		{name: "the end is one too many", grammar: regex(`1`), n: 1, text: "1", finish: FinishLength, steps: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: grammarModel})
			r := constrainedRequest(tt.n)
			r.IgnoreEOS = tt.ignore
			cs, err := w.submitN(t, r, &constraintSpec{grammar: tt.grammar}, []uint64{1})
			if err != nil {
				t.Fatal(err)
			}
			w.finish(t)
			var ids []int32
			for i, tok := range cs[0].got {
				ids = append(ids, tok.ID)
				if tok.Logprob != 0 || !slices.Equal(tok.Top, []Alternative{{ID: tok.ID}}) {
					t.Errorf("token %d is forced: %+v", i, tok)
				}
			}
			if got := vocabulary.Text(ids...); got != tt.text || cs[0].stream.Finish() != tt.finish {
				t.Errorf("%q, finish %d; want %q, %d", got, cs[0].stream.Finish(), tt.text, tt.finish)
			}
			// A row whose grammar is late is sampled again by one more step.
			if most := tt.steps + int(w.e.Stats().LateMasks); len(w.steps) < tt.steps || len(w.steps) > most {
				t.Errorf("%d steps, want %d, at most %d", len(w.steps), tt.steps, most)
			}
			if s := w.e.Stats(); s.GeneratedTokens != int64(len(ids)) || s.ForcedTokens != int64(len(ids)-1) {
				t.Errorf("%d generated, %d forced; want %d, %d", s.GeneratedTokens, s.ForcedTokens, len(ids), len(ids)-1)
			}
		})
	}
}

// A forced text is computed in one step, like a prompt.
func TestForcedTokensAreOneChunk(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: grammarModel})
	if _, err := w.submitN(t, constrainedRequest(50), &constraintSpec{grammar: regex(`[ab], true, abcxy, 1234567[0-9]`)}, []uint64{1}); err != nil {
		t.Fatal(err)
	}
	w.finish(t)
	// The prompt; the row that was launched too early; what is forced; a digit
	// and what was launched after it; one more for each row whose grammar was late.
	if got, late := w.steps, int(w.e.Stats().LateMasks); len(got) > 5+late || slices.Max(got[1:]) < 10 {
		t.Errorf("steps of %v tokens, %d rows late", got, late)
	}
}

// A grammar that fails ends its own sequence, and no other.
func TestGrammarFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail func(s *sequence)
	}{
		{"mask", func(s *sequence) { s.constraint.matcher.Close() }},
		{"token", func(s *sequence) {
			if err := s.constraint.matcher.Accept(grammartest.Pad); err == nil {
				t.Error("the grammar takes padding")
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			open := compiler(t).Open()
			w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: grammarModel})
			spec := &constraintSpec{grammar: &testGrammars[1]}
			var cs []*client
			for range 2 {
				c, err := w.submitN(t, constrainedRequest(30), spec, []uint64{3})
				if err != nil {
					t.Fatal(err)
				}
				cs = append(cs, c...)
			}
			free := w.ask(t, []int32{9}, 30)
			tt.fail(w.e.inbox.top.Load().next.next)
			w.finish(t)
			if kind(cs[0].err) != Failed || !strings.Contains(cs[0].err.Error(), "grammar") {
				t.Errorf("the first ended with %v, want Failed and a word on the grammar", cs[0].err)
			}
			if cs[1].err != io.EOF || free.err != io.EOF {
				t.Errorf("the others ended with %v and %v", cs[1].err, free.err)
			}
			grammartest.CheckClosed(t, compiler(t), open)
		})
	}
}

// Submit takes the matchers over, whatever comes of it.
func TestMatchersAreClosed(t *testing.T) {
	open := compiler(t).Open()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	spec := &constraintSpec{grammar: &testGrammars[0]}
	triggers := &constraintSpec{triggers: []triggerSpec{{"a", false, &testGrammars[0]}, {"b", true, &testGrammars[1]}}}
	for _, tt := range []struct {
		name   string
		spec   *constraintSpec
		ctx    context.Context
		change func(e *Engine, r *Request)
		seeds  int
		want   Kind
	}{
		{name: "invalid", spec: spec, change: func(_ *Engine, r *Request) { r.MaxNewTokens = 0 }, seeds: 2, want: Invalid},
		{name: "cancelled", spec: spec, ctx: ctx, seeds: 2, want: Cancelled},
		{name: "overloaded", spec: triggers, seeds: 30, want: Overloaded},
		{name: "draining", spec: triggers, change: func(e *Engine, _ *Request) { e.draining.Store(true) }, seeds: 3, want: Stopping},
		{name: "stopped", spec: triggers, change: func(e *Engine, _ *Request) { e.inbox.close() }, seeds: 3, want: Stopping},
		{name: "no grammars", spec: spec, change: func(e *Engine, _ *Request) { e.cfg.Compiler = nil }, seeds: 3, want: Internal},
		{name: "a model of another size", spec: spec, change: func(e *Engine, _ *Request) { e.cfg.Plan = sim.Model{Vocab: 2 * e.cfg.Plan.Vocab}.Plan() }, seeds: 3, want: Internal},
		{name: "both", spec: spec, change: func(_ *Engine, r *Request) {
			r.Constraint.Triggers = triggers.compile(t).Triggers
		}, seeds: 1, want: Internal},
		{name: "a trigger without text", spec: triggers, change: func(_ *Engine, r *Request) { r.Constraint.Triggers[0].Text = "" }, seeds: 2, want: Internal},
		{name: "triggers without text to watch", spec: triggers, change: func(_ *Engine, r *Request) { r.Constraint.NewDetokenizer = nil }, seeds: 2, want: Internal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Device: small, Pages: 40, MaxWaiting: 20}, sim.Config{Model: grammarModel})
			r := constrainedRequest(10)
			r.Constraint = tt.spec.compile(t)
			if tt.change != nil {
				tt.change(w.e, r)
			}
			if tt.ctx == nil {
				tt.ctx = t.Context()
			}
			if _, err := w.e.SubmitN(tt.ctx, r, make([]uint64, tt.seeds)); kind(err) != tt.want {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if n := w.e.queued.Load(); n != 0 {
				t.Errorf("%d count as waiting", n)
			}
			grammartest.CheckClosed(t, compiler(t), open)
		})
	}
	t.Run("at the engine's end", func(t *testing.T) {
		w := newWorld(t, Config{Device: small, Pages: 40, MaxBatchTokens: 2}, sim.Config{Model: grammarModel})
		for range 3 { // running and waiting, with forks held, and in the inbox
			for _, spec := range []*constraintSpec{spec, triggers, spec} {
				r := constrainedRequest(30)
				r.Tokens = make([]int32, 40)
				if _, err := w.submitN(t, r, spec, make([]uint64, 3)); err != nil {
					t.Fatal(err)
				}
			}
			w.e.tick()
		}
		w.e.shutDown(nil)
		grammartest.CheckClosed(t, compiler(t), open)
	})
}

// A bias that makes no sense is refused by its token.
func TestLogitBiasChecked(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: testModel})
	for _, tt := range []struct {
		biases []sample.Bias
		says   string
	}{
		{make([]sample.Bias, sample.MaxBiases+1), "1025 tokens"},
		{[]sample.Bias{{Token: 500}}, "token 500"},
		{[]sample.Bias{{Token: -1}}, "token -1"},
		{[]sample.Bias{{Token: 1, Bias: 101}}, "token 1 is 101"},
		{[]sample.Bias{{Token: 2, Bias: nan}}, "token 2 is NaN"},
	} {
		r := greedy(1, 5, 5)
		r.LogitBias = tt.biases
		if _, err := w.submit(r); kind(err) != Invalid || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v, want Invalid and %q", err, tt.says)
		}
	}
}

// Biases come with their sequence, as many as a step has room for, and again
// after a preemption.
func TestLogitBiases(t *testing.T) {
	w := crowd(t, sim.Config{Model: testModel})
	biases := make([]sample.Bias, 700)
	for i := range biases {
		biases[i] = sample.Bias{Token: int32(i % 500), Bias: float32(i%100) - 50}
	}
	for i := range 3 {
		r := greedy(uint64(i), 20, 60)
		r.LogitBias = biases[:700-i]
		if _, err := w.submit(r); err != nil {
			t.Fatal(err)
		}
	}
	w.finish(t) // compares every token
	if w.preemptions() == 0 {
		t.Error("none was preempted")
	}
}

// Every step of constrained sequences is sampled after the one before is applied;
// others are not delayed.
func TestSampleAtOnceUnconstrained(t *testing.T) {
	limits := device.Limits{MaxTokens: 64, MaxRows: 64, MaxSlots: 4, MaxPagesPerSlot: 8}
	for _, constrained := range []bool{false, true} {
		b := &order{Backend: sim.New(limits, sim.Config{Model: grammarModel}).Checked()}
		e, err := New(Config{Backend: b, Device: limits, Pages: 16, Plan: grammarModel.Plan(), Compiler: lateIf(onTime)})
		if err != nil {
			t.Fatal(err)
		}
		r := constrainedRequest(5)
		if constrained {
			r.Constraint = (&constraintSpec{grammar: &testGrammars[1]}).compile(t)
		}
		mustSubmit(t, e, r)
		for range 8 {
			if _, err := e.tick(); err != nil {
				t.Fatal(err)
			}
		}
		want := "FSFSWFSW"
		if constrained {
			want = "FSFWSFWS"
		}
		if got := string(b.calls); !strings.HasPrefix(got, want) {
			t.Errorf("constrained %v: calls %s, want %s...", constrained, got, want)
		}
		e.shutDown(nil)
	}
}

// order notes the order in which a backend is called.
type order struct {
	device.Backend
	calls []byte
}

func (o *order) Forward(i int) error { o.calls = append(o.calls, 'F'); return o.Backend.Forward(i) }
func (o *order) Sample(i int) error  { o.calls = append(o.calls, 'S'); return o.Backend.Sample(i) }
func (o *order) Wait(i int) error    { o.calls = append(o.calls, 'W'); return o.Backend.Wait(i) }
