package engine

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/ref"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// Drafts make text that repeats itself come faster, and no other text come slower,
// whatever a row costs and however many run. A request that may say but one token
// repeats itself always, with two half of its guesses are wrong.
func TestDraftsNeverLose(t *testing.T) {
	if testing.Short() {
		t.Skip("tested without the race detector: it is arithmetic in virtual time")
	}
	const speculate = 8
	ms := time.Millisecond
	cheap := func(rows int) time.Duration { return 10*ms + time.Duration(rows)*ms/5 }
	dear := func(rows int) time.Duration { return time.Duration(rows) * 3 * ms }
	steps := func(rows int) time.Duration { return time.Duration((rows+3)/4) * 10 * ms } // a fourth row costs nothing, a fifth much
	for _, tt := range []struct {
		name    string
		tokens  int // that may come; 0: any
		streams int
		cost    func(rows int) time.Duration
		least   float64 // speed, relative to that without drafts
		state   bool    // it cannot go back
	}{
		{"repetition", 1, 1, cheap, 3, false},
		{"repetition, many", 1, 8, cheap, 1.5, false},
		{"repetition, rows cost as much as steps", 1, 1, dear, 0.98, false},
		{"repetition, some rows are free", 1, 1, steps, 3, false},
		{"repetition, some rows are free, many", 1, 3, steps, 1.2, false},
		{"half right", 2, 1, cheap, 1.2, false},
		{"half right, rows cost as much as steps", 2, 4, dear, 0.98, false},
		{"half right, some rows are free", 2, 1, steps, 1.3, false},
		{"no repetition", 0, 1, cheap, 0.98, false},
		{"no repetition, many", 0, 16, cheap, 0.98, false},
		{"no repetition, rows cost as much as steps", 0, 4, dear, 0.98, false},
		{"repetition, recurrent", 1, 1, cheap, 3, true},
		{"half right, recurrent", 2, 1, cheap, 1, true},
		{"half right, recurrent, many", 2, 8, cheap, 0.98, true},
		{"half right, recurrent, rows cost as much as steps", 2, 4, dear, 0.98, true},
		{"half right, recurrent, some rows are free", 2, 1, steps, 1.1, true},
		{"no repetition, recurrent", 0, 4, cheap, 0.98, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			model := testModel
			model.Recurrent = tt.state
			b := sim.Config{Model: model, Synchronous: true, Latency: tt.cost}
			var allowed []int32
			if tt.tokens > 0 {
				allowed = []int32{10, 11}[:tt.tokens]
			}
			draftSpeed(t, b, b, tt.streams, speculate, allowed, tt.least)
		})
	}
}

// draftSpeed compares how fast texts of tokens that are allowed come with drafts from a
// backend, and without from another, in virtual time.
func draftSpeed(t *testing.T, with, without sim.Config, streams, speculate int, allowed []int32, least float64) {
	t.Helper()
	took := func(b sim.Config, speculate int) time.Duration {
		limits := device.Limits{MaxTokens: 128, MaxRows: 128, MaxSlots: 16, MaxPagesPerSlot: 64}
		w := newWorld(t, Config{Device: limits, Pages: 16 * 64, States: 32, Speculate: speculate, MaxWaiting: 16}, b)
		for i := range streams {
			p := sample.Greedy()
			p.Sample, p.Seed = 1, uint64(i)
			r := &Request{Tokens: tokens(uint64(i), 20), MaxNewTokens: 300, Params: p, AllowedTokens: allowed}
			if _, err := w.submit(r); err != nil {
				t.Fatal(err)
			}
		}
		w.finish(t)
		return w.b.Now()
	}
	speed := float64(took(without, 0)) / float64(took(with, speculate))
	if speed < least {
		t.Errorf("%.3f times as fast with drafts, want %v", speed, least)
	}
	t.Logf("%.3f times as fast with drafts", speed)
}

// The model's own head makes texts come faster that do not repeat themselves, where it
// takes less time than it saves; where it does not, they come no slower. It is right
// three of four times, or never, of a recurrent model.
func TestDraftHeadNeverLoses(t *testing.T) {
	ms := time.Millisecond
	cheap := func(rows int) time.Duration { return 10*ms + time.Duration(rows)*ms/5 }
	dear := func(rows int) time.Duration { return time.Duration(rows) * 3 * ms }
	for _, tt := range []struct {
		name    string
		streams int
		cost    func(rows int) time.Duration
		head    time.Duration
		least   float64
		state   bool
	}{
		{"little beside a step", 1, cheap, ms, 1.9, false}, // with one token 1.5
		{"little beside a step, many", 8, cheap, ms, 1.4, false},
		{"half as much as a step", 1, cheap, 5 * ms, 1.05, false},
		{"as much as a step", 1, cheap, 10 * ms, 0.97, false},
		{"as much as a step, many", 8, cheap, 10 * ms, 0.97, false},
		{"rows cost as much as steps", 4, dear, 2 * ms, 0.97, false},
		{"never right", 1, cheap, 3 * ms, 0.97, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			without := sim.Config{Model: testModel, Synchronous: true, Latency: tt.cost}
			without.Model.Recurrent = tt.state
			with := without
			with.Model.Draft, with.DraftLatency = true, tt.head
			draftSpeed(t, with, without, tt.streams, 4, nil, tt.least)
		})
	}
}

// An engine does not take what cannot work.
func TestSpeculationIsRefused(t *testing.T) {
	for _, tt := range []struct {
		model sim.Model
		n     int
		want  string
	}{
		{testModel, MaxSpeculate, ""},
		{testModel, MaxSpeculate + 1, "Speculate is 65"},
		{testModel, -1, "Speculate is -1"},
		{sim.Model{Vocab: 10, Recurrent: true}, 1, ""},
	} {
		b := sim.New(small, sim.Config{Model: tt.model})
		_, err := New(Config{Backend: b.Checked(), Device: small, Plan: tt.model.Plan(), Pages: 16, States: 8, Speculate: tt.n})
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Speculate %d: %v, want %q", tt.n, err, tt.want)
		}
	}
	w := newWorld(t, Config{Device: small, Pages: 16, Speculate: 2}, sim.Config{Model: testModel})
	for _, id := range []int32{-1, int32(testModel.Vocab)} {
		_, err := w.submit(&Request{Tokens: []int32{5}, MaxNewTokens: 1, Params: sample.Greedy(), Prediction: []int32{4, id}})
		if kind(err) != Invalid {
			t.Errorf("a prediction with token %d: %v", id, err)
		}
	}
}

// acceptance is an Observer that sums up how many tokens of drafts were accepted.
type acceptance int

func (a *acceptance) Step(s StepInfo) {
	for _, n := range s.Accepted {
		*a += acceptance(n)
	}
}

// What is accepted and what is rejected of drafts is told to the Observer and in Stats,
// and of predictions in Times.
func TestDraftsAreCounted(t *testing.T) {
	var observed acceptance
	w := newWorld(t, Config{Device: small, Pages: 32, Speculate: 4, Observer: &observed}, sim.Config{
		Model: testModel, Latency: func(int) time.Duration { return time.Millisecond },
	})
	const n = 100
	r := &Request{Tokens: tokens(1, 20), MaxNewTokens: n, Params: sample.Greedy()}
	for i, c := range w.expect(r, r.Params) {
		if i%20 == 10 { // the client is wrong about some
			c.Token = 3
		}
		r.Prediction = append(r.Prediction, c.Token)
	}
	c, err := w.submit(r)
	if err != nil {
		t.Fatal(err)
	}
	w.finish(t)
	accepted, st, times := int(observed), w.e.Stats(), c.stream.Times()
	if accepted == 0 || st.AcceptedTokens != int64(accepted) || st.DraftedTokens == st.AcceptedTokens || st.GeneratedTokens != n {
		t.Errorf("%d tokens accepted, Stats has %d of %d drafted and %d generated", accepted, st.AcceptedTokens, st.DraftedTokens, st.GeneratedTokens)
	}
	if times.PredictedTokens < n/3 || times.PredictedTokens > accepted || times.RejectedTokens == 0 || times.RejectedTokens > n/3 {
		t.Errorf("of a prediction of %d tokens %d were accepted, %d rejected; %d were accepted in all", n, times.PredictedTokens, times.RejectedTokens, accepted)
	}
}

// TestDraftsUnderConstraints has sequences with grammars, triggers, reasoning, rules,
// penalties and adapters drafted, each of them with some mistakes: world compares what
// they say with what they should.
func TestDraftsUnderConstraints(t *testing.T) {
	var sum drafts
	forced, accepted := int64(0), int64(0)
	records := &testGrammar{kind: grammar.JSONSchema, text: `{"type":"array","items":` + testGrammars[4].text + `}`}
	grammartest.Compile(t, compiler(t), records.kind, records.text).Close() // now the cache has it
	open := compiler(t).Open()
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 5))
		model := sim.Model{Seed: seed, Vocab: int(vocabulary), First: 1, EOS: grammartest.EOS, EOSRate: 0.01}
		if seed%2 == 1 {
			model.Windows, model.Recurrent = []int{0, 20}, true
		}
		limits := device.Limits{MaxTokens: 100, MaxRows: 100, MaxSlots: 60, MaxPagesPerSlot: 8}
		w := newWorld(t, Config{Device: limits, Pages: 60 * 16, States: 20, Speculate: 1 + rng.IntN(20), Adapters: 2}, sim.Config{
			Model: model, Latency: virtual(rng, time.Millisecond),
		})
		late := []float64{0, 0, 0.1}[rng.IntN(3)]
		w.e.cfg.Compiler = lateIf(func() bool { return rng.Float64() < late })
		w.guess(rng, []float64{0, 0.1, 0.5}[rng.IntN(3)])
		for range 4 {
			p := sample.Params{Sample: int32(rng.IntN(2)), Temperature: 1, TopP: 1, TypicalP: 1, RepetitionPenalty: 1 + float32(rng.IntN(2))/4}
			r := &Request{
				Tokens: tokens(rng.Uint64(), 1+rng.IntN(30)), MaxNewTokens: 80, Params: p, TopN: rng.IntN(3), Adapter: int32(rng.IntN(3)),
				LogitBias: []sample.Bias{{Token: int32(rng.IntN(model.Vocab)), Bias: 2}},
			}
			for i := range r.Tokens {
				r.Tokens[i] %= int32(model.Vocab)
			}
			if rng.IntN(4) == 0 {
				addRules(rng, r, &model)
			}
			spec := randomConstraint(rng)
			if rng.IntN(2) == 0 {
				spec = &constraintSpec{grammar: records}
			}
			if _, err := w.submitN(t, r, spec, []uint64{rng.Uint64(), rng.Uint64()}); err != nil && kind(err) != Invalid {
				t.Fatal(err)
			}
		}
		if err := w.settle(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := w.checkDone(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		sum.UnderGrammar += w.drafts.UnderGrammar
		sum.Forced += w.drafts.Forced
		sum.Before += w.drafts.Before
		sum.Recurrent += w.drafts.Recurrent
		forced += w.e.stats.forcedTokens.Load()
		accepted += w.e.stats.acceptedTokens.Load()
	}
	grammartest.CheckClosed(t, compiler(t), open)
	t.Logf("%+v, %d tokens forced, %d of drafts accepted", sum, forced, accepted)
	if sum.UnderGrammar < 500 || sum.Forced < 100 || sum.Before < 500 || sum.Recurrent < 500 || accepted < 500 {
		t.Errorf("too few drafts: %+v, %d tokens accepted", sum, accepted)
	}
}

// TestSpeculationOnBackends compares answers with drafts, right and wrong ones, with
// those without, to the bit, in company.
func TestSpeculationOnBackends(t *testing.T) {
	for _, name := range []string{"llama", "gemma3", "deepseek-v3", "falcon-alibi", "dbrx", "qwen3_5", "mamba", "mamba2", "jamba", "lfm2", "kimi-linear", "nemotron-h"} {
		for backend, open := range draftBackends() {
			t.Run(name+"/"+backend, func(t *testing.T) { speculateOn(t, filepath.Join("testdata", name), open) })
		}
	}
}

// TestDraftHeadOnBackends does so with drafts of the model's own head among them.
func TestDraftHeadOnBackends(t *testing.T) {
	for _, name := range []string{"qwen3_5", "deepseek-v3", "glm4-moe", "nemotron-h"} {
		for backend, open := range draftBackends() {
			t.Run(name+"/"+backend, func(t *testing.T) {
				dir, _ := weightstest.WithDraft(t, "testdata", name)
				if used := speculateOn(t, dir, open); used < 20 {
					t.Errorf("%d drafts of the head", used)
				}
			})
		}
	}
}

func draftBackends() map[string]func(device.Limits) (device.Backend, error) {
	backends := map[string]func(device.Limits) (device.Backend, error){
		"cpu": func(l device.Limits) (device.Backend, error) { return cpu.Open(l) },
		"ref": func(l device.Limits) (device.Backend, error) { return ref.Open(l) },
	}
	if testing.Short() {
		delete(backends, "ref") // the race detector makes it ten times slower and sees one goroutine
	}
	return backends
}

// speculateOn compares answers with and without drafts on a backend, and returns how many
// drafts were of the model's head.
func speculateOn(t *testing.T, dir string, open func(device.Limits) (device.Backend, error)) (used int) {
	t.Helper()
	limits := device.Limits{MaxTokens: 128, MaxRows: 128, MaxSlots: 16, MaxPagesPerSlot: 16, Threads: 2}
	serve := func(speculate int, known [][]Token) [][]Token {
		b, err := open(limits)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}()
		checked := device.Checked(b, limits)
		p := load(t, dir, checked, speculate > 0)
		e, err := New(Config{Backend: checked, Device: limits, Plan: p, Pages: 256 * len(p.Groups), States: 40, Root: page.Root(), Speculate: speculate})
		if err != nil {
			t.Fatal(err)
		}
		out, n := converse(t, e, p.Vocab, known)
		used += n
		return out
	}
	plain := serve(0, nil)
	if got := serve(4, nil); !reflect.DeepEqual(got, plain) { // what pays, if anything
		t.Errorf("answers differ:\n%v\nwant\n%v", got, plain)
	}
	if got := serve(6, plain); !reflect.DeepEqual(got, plain) {
		t.Errorf("answers differ:\n%v\nwant\n%v", got, plain)
	}
	return used
}

func load(t *testing.T, dir string, b device.Backend, draft bool) *plan.Plan {
	t.Helper()
	c, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, p, err := loader.Plan(c, draft)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := loader.Load(b, p, c, nil); err != nil {
		t.Fatal(err)
	}
	return p
}

// converse returns the answers of requests of many kinds that are served together. If
// they are known, they are drafted, with mistakes, among which are drafts of the model's
// head, if it has one: it returns how many.
func converse(t *testing.T, e *Engine, vocab int, known [][]Token) (out [][]Token, used int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(9, 9))
	prompt := func(n int) []int32 {
		out := make([]int32, n)
		for i := range out {
			out[i] = int32(rng.IntN(vocab))
		}
		return out
	}
	sampled := sample.Params{Sample: 1, Seed: 5, Temperature: 0.9, TopK: 40, TopP: 0.95, TypicalP: 1, RepetitionPenalty: 1.1}
	penalised := sample.Greedy()
	penalised.FrequencyPenalty, penalised.PresencePenalty = 0.5, 0.2
	var even []int32
	for i := int32(0); int(i) < vocab; i += 2 {
		even = append(even, i)
	}
	requests := []*Request{
		{Params: sample.Greedy(), TopN: 3},
		{Params: sampled, TopN: 2},
		{Params: penalised},
		{Params: sampled, AllowedTokens: even, MinNewTokens: 10, StopTokens: even[:len(even)/8], BannedTokens: [][]int32{{4}, {6, 8}, {8, 8}}},
		{Params: sample.Greedy(), LogitBias: []sample.Bias{{Token: 3, Bias: 2}}, PromptLogprobs: true},
		{Params: sample.Greedy(), Repetition: Repetition{Min: 1, Max: 4, Count: 3}},
	}
	for i, r := range requests {
		r.Tokens, r.MaxNewTokens, r.IgnoreEOS = prompt(10+13*i), 60, true
	}
	var streams []*Stream
	if known != nil {
		rng := rand.New(rand.NewPCG(3, 3))
		e.speculation.choose = func(st *step, _, most int) {
			e.speculation.head.length = 1 + st.number%device.MaxDrafts
			for _, s := range e.speculation.open {
				answer := known[slices.Index(streams, s.stream)]
				for n := min(rng.IntN(e.cfg.Speculate+1), e.mostDrafts(s), most); n > 0; n, most = n-1, most-1 {
					token := int32(rng.IntN(vocab))
					if i := s.generated + len(s.draft); i < len(answer) && rng.IntN(5) > 0 {
						token = answer[i].ID
					}
					if place := len(s.draft); s.expects() && place < len(s.expected) && rng.IntN(2) == 0 {
						token = s.expected[place]
						used++
					}
					s.draft = append(s.draft, token)
				}
			}
		}
	}
	for _, r := range requests {
		s, err := e.SubmitN(context.Background(), r, []uint64{r.Params.Seed, 77})
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s...)
	}
	out = make([][]Token, len(streams))
	for {
		worked, err := e.tick()
		if err != nil {
			t.Fatal(err)
		}
		if !worked {
			break
		}
	}
	for i, s := range streams {
		for !s.Done() {
			tokens, err := s.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			out[i] = append(out[i], tokens...)
		}
	}
	if st := e.Stats(); known != nil && (st.AcceptedTokens == 0 || st.AcceptedTokens == st.DraftedTokens) {
		t.Errorf("%d of %d drafted tokens were right", st.AcceptedTokens, st.DraftedTokens)
	}
	return out, used
}
