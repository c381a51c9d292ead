package engine

// The mistakes of TRAPS.md that a story of testdata/scenarios does not tell in
// full.

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// TestTraps holds TRAPS.md to the tests and scenarios that exist.
func TestTraps(t *testing.T) {
	text, err := os.ReadFile("TRAPS.md")
	if err != nil {
		t.Fatal(err)
	}
	scenarios, _ := filepath.Glob("testdata/scenarios/*.txt")
	for _, file := range scenarios {
		if name := filepath.Base(file); !strings.Contains(string(text), "| "+name+" |") {
			t.Errorf("TRAPS.md does not tell of %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`[a-z-]+\.txt`).FindAllString(string(text), -1) {
		if _, err := os.Stat(filepath.Join("testdata/scenarios", m)); err != nil {
			t.Error(err)
		}
	}
	for _, m := range regexp.MustCompile(`(?:(\w+): )?(Test\w+)`).FindAllStringSubmatch(string(text), -1) {
		if !hasTest(t, m[1], m[2]) {
			t.Errorf("TRAPS.md names %s, which does not exist", m[0])
		}
	}
}

// hasTest reports whether the package in dir has a test called name.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no tests (%v)", dir, err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == name {
				return true
			}
		}
	}
	return false
}

// crowd is an engine with few pages whose estimate of output is too low, so
// that sequences admitted late lose their pages.
func crowd(t *testing.T, bc sim.Config) *world {
	w := newWorld(t, Config{Device: small, Pages: 9}, bc)
	w.e.expectShort()
	return w
}

// preemptions returns how many of the clients were preempted.
func (w *world) preemptions() (n int) {
	for _, c := range w.clients {
		if c.stream.preempted > 0 {
			n++
		}
	}
	return n
}

// A sequence is preempted while a token of it is in flight: the token is
// delivered once and the sequence goes on after it.
func TestPreemptedInFlight(t *testing.T) {
	w := crowd(t, sim.Config{Model: testModel})
	inFlight := 0
	w.onWait = func() {
		if s := w.e.waiting.head; s != nil && s.known() < s.total {
			inFlight++
		}
	}
	for i := range 3 {
		w.ask(t, tokens(uint64(i), 20), 60)
	}
	w.finish(t) // compares every token
	if inFlight == 0 || w.preemptions() == 0 {
		t.Errorf("%d preemptions in flight, %d sequences preempted; want some", inFlight, w.preemptions())
	}
}

// A request is aborted while its step is in flight: its pages are free at the
// next turn and used at once by another, whom the late writes do not disturb.
func TestAbortedInFlight(t *testing.T) {
	limits := small
	limits.MaxTokens = 128
	w := newWorld(t, Config{Device: limits, Pages: 8, MaxBatchTokens: 120}, sim.Config{Model: testModel})
	first := w.ask(t, tokens(1, 110), 8)
	second := w.ask(t, tokens(2, 110), 8) // needs the pages of the first
	for i := 0; !first.over; i++ {
		if i == 3 {
			w.onWait = func() { first.leave(true); w.onWait = nil }
		}
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
		if i > 5 {
			t.Fatal("the first has not ended")
		}
	}
	if second.stream.times.Admitted.IsZero() {
		t.Error("the second was not admitted in the turn in which the first left")
	}
	w.finish(t)
	if len(second.got) != 8 {
		t.Errorf("second got %d tokens (%v), want 8", len(second.got), second.err)
	}
}

// One step is launched before the end token of the step before is seen. Its
// token is dropped, not counted, and not part of any cached page.
func TestTokenAfterTheEnd(t *testing.T) {
	model := sim.Model{Seed: 5, Vocab: 100, First: 3, EOS: 2, EOSRate: 0.1}
	prompt := tokens(3, 5)
	for i := range prompt {
		prompt[i] %= 100
	}
	// A prompt after which the end token fills a page but for one place,
	// which the dropped token would take.
	for ; ; prompt[0]++ {
		want := model.Continue(prompt, sample.Greedy(), 0, 40, true)
		if n := len(want); n < 40 && (len(prompt)+n)%page.Tokens == page.Tokens-1 {
			break
		}
	}
	w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: model})
	c := w.ask(t, prompt, 60)
	w.finish(t)
	known := len(prompt) + len(c.got)
	if c.stream.Finish() != FinishEOS {
		t.Fatalf("finish %d, want EOS", c.stream.Finish())
	}
	if computed := sum(w.steps); computed != known {
		t.Errorf("%d tokens computed, want the %d known ones: the end token's step is launched early", computed, known)
	}
	if got := w.e.Stats().GeneratedTokens; got != int64(len(c.got)) {
		t.Errorf("%d tokens counted, %d delivered", got, len(c.got))
	}
	if got := w.e.cache.Pages.Cached(); got != known/page.Tokens {
		t.Errorf("%d pages cached, want %d", got, known/page.Tokens)
	}
}

// A stop by length is known ahead: nothing is computed past it.
func TestNothingPastTheLength(t *testing.T) {
	for _, n := range []int{1, 2, 17} {
		w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: testModel})
		w.ask(t, tokens(1, 20), n)
		w.finish(t)
		if got, want := sum(w.steps), 20+n-1; got != want {
			t.Errorf("%d new tokens: %d tokens computed, want %d", n, got, want)
		}
	}
}

// "The last token" is a mark in one step's batch: only for a token that is in
// flight then, never for one that the host knows, also after a preemption.
func TestPlaceholderIsForOneStep(t *testing.T) {
	w := crowd(t, sim.Config{Model: testModel})
	flags := 0
	w.onWait = func() {
		st := w.e.inFlight
		if st == nil {
			return
		}
		for i, s := range st.seqs {
			q := st.batch.Seqs[i]
			for j := q.Start; j < q.Start+q.Count; j++ {
				last, unseen := st.batch.Tokens[j] == device.LastToken, int(st.batch.Pos[j]) >= s.known()
				if last != unseen {
					t.Fatalf("position %d of %d known tokens: flag %v", st.batch.Pos[j], s.known(), last)
				}
				if last {
					flags++
				}
			}
		}
	}
	for i := range 3 {
		w.ask(t, tokens(uint64(i), 20), 60)
	}
	w.finish(t)
	if flags == 0 || w.preemptions() == 0 {
		t.Errorf("%d flags, %d preemptions; want some", flags, w.preemptions())
	}
}

// Scores of a prompt need its logits: such a request reads no cached page. It
// may write some.
func TestScoresSkipTheCache(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 16, MaxBatchTokens: 24}, sim.Config{Model: testModel})
	prompt := tokens(1, 50)
	for _, tt := range []struct {
		name   string
		score  bool
		cached int
	}{{"first, scored", true, 0}, {"not scored", false, 48}, {"scored again", true, 0}} {
		c, err := w.submit(&Request{Tokens: prompt, MaxNewTokens: 3, Params: sample.Greedy(), PromptLogprobs: tt.score})
		if err != nil {
			t.Fatal(err)
		}
		w.finish(t) // compares the scores
		if got := c.stream.Times().CachedTokens; got != tt.cached {
			t.Errorf("%s: %d tokens cached, want %d", tt.name, got, tt.cached)
		}
	}
}

// Of a prompt that is cached in full, the last token is computed nevertheless.
func TestWholePromptCached(t *testing.T) {
	for _, n := range []int{1, 15, 16, 17, 31, 32, 33, 64} {
		w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: testModel})
		w.ask(t, tokens(1, n), 20)
		w.finish(t)
		c := w.ask(t, tokens(1, n), 20)
		w.finish(t)
		if got, want := c.stream.Times().CachedTokens, (n-1)/16*16; got != want {
			t.Errorf("prompt of %d: %d tokens cached, want %d", n, got, want)
		}
	}
}

// What changes keys and values without being a token is in the root of all
// keys: under another root nothing is found.
func TestRootSeparatesCaches(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: testModel})
	prompt := tokens(1, 40)
	for _, tt := range []struct {
		kv     string
		cached int
	}{{"bf16", 0}, {"f32", 0}, {"bf16", 32}} {
		w.e.cfg.Root = page.Root(page.Field{Tag: page.TagKVType, Value: []byte(tt.kv)})
		c := w.ask(t, prompt, 3)
		w.finish(t)
		if got := c.stream.Times().CachedTokens; got != tt.cached {
			t.Errorf("%s: %d tokens cached, want %d", tt.kv, got, tt.cached)
		}
	}
}

// A preempted sequence computes what it generated like a prompt, but penalties
// still tell the two apart.
func TestPenaltiesAfterPreemption(t *testing.T) {
	w := crowd(t, sim.Config{Model: testModel})
	p := sample.Greedy()
	p.RepetitionPenalty, p.FrequencyPenalty = 1.3, 0.2
	for i := range 3 {
		if _, err := w.submit(&Request{Tokens: tokens(uint64(i), 20), MaxNewTokens: 60, Params: p}); err != nil {
			t.Fatal(err)
		}
	}
	w.finish(t)
	if w.preemptions() == 0 {
		t.Error("nothing was preempted")
	}
}

// Random draws depend on the request's seed and the token's index, whatever
// the slot, the step and the neighbours.
func TestDrawsIgnoreTheBatch(t *testing.T) {
	p := sample.Greedy()
	p.Sample, p.Seed = 1, 99
	req := &Request{Tokens: tokens(1, 20), MaxNewTokens: 40, Params: p}
	run := func(neighbours int, preempt bool) []Token {
		w := newWorld(t, Config{Device: small, Pages: 12}, sim.Config{Model: testModel})
		if preempt {
			w.e.expectShort()
		}
		for i := range neighbours {
			w.ask(t, tokens(uint64(10+i), 10), 60)
		}
		c, err := w.submit(req)
		if err != nil {
			t.Fatal(err)
		}
		w.finish(t)
		if got := c.stream.preempted > 0; got != preempt {
			t.Errorf("preempted %v, want %v", got, preempt)
		}
		return c.got
	}
	alone := run(0, false)
	for name, got := range map[string][]Token{"second": run(1, false), "preempted": run(3, true)} {
		if fmt.Sprint(got) != fmt.Sprint(alone) {
			t.Errorf("%s: got %v\nalone: %v", name, got, alone)
		}
	}
}

// Sequences that share a cached prefix write to pages of their own.
func TestCachedPagesAreReadOnly(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: testModel})
	w.ask(t, tokens(1, 40), 1)
	w.finish(t)
	for range 3 {
		w.ask(t, tokens(1, 40), 20)
	}
	if _, err := w.turn(); err != nil {
		t.Fatal(err)
	}
	shared := w.e.active[0].tables[0].pages[:2]
	for _, s := range w.e.active {
		if pages := s.tables[0].pages; pages[0] != shared[0] || pages[1] != shared[1] {
			t.Errorf("pages %v, want to share %v", pages, shared)
		}
	}
	for _, id := range shared {
		if w.e.cache.Pages.Writable(id) {
			t.Errorf("shared page %d is writable", id)
		}
	}
	w.finish(t) // checkStep looks at every page that is written
}

// The pages of a long prompt leave the cache from its end.
func TestTailIsEvictedFirst(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 8}, sim.Config{Model: testModel})
	w.ask(t, tokens(1, 97), 1) // six full pages
	w.finish(t)
	w.ask(t, tokens(2, 64), 1) // the two free ones, and two of those
	w.finish(t)
	c := w.ask(t, tokens(1, 97), 1)
	w.finish(t)
	if got := c.stream.Times().CachedTokens; got != 64 {
		t.Errorf("%d tokens of the first prompt are cached, want 64", got)
	}
}

// Two equal prompts in one step do not share: neither has written yet.
func TestEqualPromptsInOneStep(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: testModel})
	var cached []int
	for i, n := range []int{2, 1} { // two at once, one more later
		for range n {
			w.ask(t, tokens(1, 33), 30)
		}
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
		if i == 0 && len(w.e.inFlight.seqs) != 2 {
			t.Fatalf("%d sequences in the first step, want 2", len(w.e.inFlight.seqs))
		}
	}
	w.finish(t)
	for _, c := range w.clients {
		cached = append(cached, c.stream.Times().CachedTokens)
	}
	if fmt.Sprint(cached) != "[0 0 32]" {
		t.Errorf("tokens cached: %v, want [0 0 32]", cached)
	}
}

// Requests that may generate far more than they do, in too few pages, do not
// spend the time on pushing each other out.
func TestNoPreemptionStorm(t *testing.T) {
	limits := device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 32, MaxPagesPerSlot: 32}
	for _, tt := range []struct {
		name    string
		eosRate float64 // outputs of 1/eosRate tokens on average
		short   bool    // the engine thinks that outputs are
	}{{"short outputs, no idea", 0.05, false}, {"longer than thought", 0.01, true}, {"never an end", 0, true}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Device: limits, Pages: 64, MaxWaiting: 200}, sim.Config{Model: sim.Model{Vocab: 500, First: 3, EOS: 2, EOSRate: tt.eosRate}})
			if tt.short {
				w.e.expectShort()
			}
			for i := range 100 {
				w.ask(t, tokens(uint64(i), 50), 300)
			}
			w.finish(t)
			useful := 0
			for _, c := range w.clients {
				useful += len(c.req.Tokens) + len(c.got)
			}
			stats := w.e.Stats()
			t.Logf("%d preemptions, %d tokens computed for %d", stats.Preemptions, sum(w.steps), useful)
			if waste := float64(sum(w.steps))/float64(useful) - 1; waste > 0.25 {
				t.Errorf("%.0f %% of the tokens were computed again", 100*waste)
			}
		})
	}
}

// NaN logits end their request alone, and what it computed is
// not offered to others.
func TestNaNEndsOneRequest(t *testing.T) {
	nan := -1
	w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: testModel, Fault: func(n int) sim.Fault {
		if n == nan {
			return sim.Invalid
		}
		return sim.NoFault
	}})
	clients := []*client{w.ask(t, tokens(1, 40), 20), w.ask(t, tokens(2, 40), 20), w.ask(t, tokens(3, 40), 20)}
	nan = 9 // of three rows, the first
	w.finish(t)
	failed := 0
	for i, c := range clients {
		var e *Error
		switch {
		case errors.As(c.err, &e) && e.Kind == Failed:
			failed++
			again := w.ask(t, c.req.Tokens, 1)
			w.finish(t)
			if got := again.stream.Times().CachedTokens; got != 0 {
				t.Errorf("%d tokens of the failed request are cached", got)
			}
		case c.err != io.EOF:
			t.Errorf("client %d: %v", i, c.err)
		}
	}
	if failed != 1 {
		t.Errorf("%d requests failed, want 1", failed)
	}
}

// A client that has gone costs nothing from the next turn on, wherever its request
// is.
func TestClientGone(t *testing.T) {
	for _, tt := range []struct {
		name    string
		turns   int // before the client leaves
		byClose bool
	}{
		{"before it was seen", 0, false},
		{"in the middle of its prompt", 2, true},
		{"while it generates", 12, false},
		{"while it generates, closed", 12, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Device: small, Pages: 16, MaxBatchTokens: 16}, sim.Config{Model: testModel})
			c := w.ask(t, tokens(1, 100), 20)
			for range tt.turns {
				if _, err := w.turn(); err != nil {
					t.Fatal(err)
				}
			}
			c.leave(tt.byClose)
			if _, err := w.turn(); err != nil {
				t.Fatal(err)
			}
			if !c.over || w.e.cache.Pages.Free() != 16 || len(w.e.active) != 0 {
				t.Errorf("a turn later: ended %v, %d pages free, %d active", c.over, w.e.cache.Pages.Free(), len(w.e.active))
			}
			w.finish(t)
		})
	}
	t.Run("while it waits", func(t *testing.T) {
		w := newWorld(t, Config{Device: small, Pages: 8, MaxWaiting: 2}, sim.Config{Model: testModel})
		w.ask(t, tokens(1, 100), 20)
		w.ask(t, tokens(2, 100), 20).leave(false)
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
		w.ask(t, tokens(3, 100), 20)
		w.ask(t, tokens(4, 100), 20) // takes the place of the one that left
		w.finish(t)
	})
}

// A reader that does not read holds up nobody, and a full queue refuses at once.
func TestSlowReaderFullQueue(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 16, MaxWaiting: 5}, sim.Config{Model: testModel})
	for range 5 {
		w.ask(t, tokens(1, 20), 50)
	}
	_, err := w.submit(&Request{Tokens: tokens(1, 20), MaxNewTokens: 1, Params: sample.Greedy()})
	var e *Error
	if !errors.As(err, &e) || e.Kind != Overloaded {
		t.Errorf("sixth request: %v, want Overloaded", err)
	}
	for worked := true; worked; { // ticks alone: nobody reads
		if worked, err = w.e.tick(); err != nil {
			t.Fatal(err)
		}
	}
	w.finish(t)
}

// A device that hangs shows as time without a step.
func TestHangingDevice(t *testing.T) {
	hang, entered := make(chan struct{}), make(chan struct{})
	b := sim.New(small, sim.Config{Model: testModel, OnWait: func() { entered <- struct{}{}; <-hang }})
	r := start(t, Config{Backend: b.Checked(), Device: small, Pages: 16, Plan: testModel.Plan()})
	if got := r.e.Stalled(); got != 0 {
		t.Errorf("idle, stalled for %v", got)
	}
	s := mustSubmit(t, r.e, &Request{Tokens: tokens(1, 20), MaxNewTokens: 1, Params: sample.Greedy()})
	<-entered
	time.Sleep(time.Millisecond)
	if got := r.e.Stalled(); got < time.Millisecond {
		t.Errorf("hanging, stalled for %v", got)
	}
	close(hang)
	drainStream(t, s)
	r.stop(t)
	if got := r.e.Stalled(); got != 0 {
		t.Errorf("stopped, stalled for %v", got)
	}
}

func sum(ns []int) (total int) {
	for _, n := range ns {
		total += n
	}
	return total
}
