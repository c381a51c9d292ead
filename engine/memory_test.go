package engine

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// Requests that wait take memory for what they are, not for what they may say.
func TestQueuedChatsTakeLittle(t *testing.T) {
	const chats, context = 1000, 128 << 10
	limits := device.Limits{MaxTokens: 512, MaxRows: 64, MaxSlots: 64, MaxPagesPerSlot: context / page.Tokens}
	e, err := New(Config{
		Backend: sim.New(limits, sim.Config{Model: sim.Model{Vocab: 500}, Fast: true}),
		Device:  limits, Pages: 16384, Plan: sim.Model{Vocab: 500}.Plan(), Root: page.Root(), MaxWaiting: chats,
	})
	if err != nil {
		t.Fatal(err)
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var streams []*Stream
	for i := range chats {
		prompt := tokens(uint64(i), 50)
		streams = append(streams, mustSubmit(t, e, &Request{Tokens: prompt, MaxNewTokens: context - len(prompt), Params: sample.Greedy()}))
	}
	queued := heap() - before
	for range 2000 { // 64 of them run
		if _, err := e.tick(); err != nil {
			t.Fatal(err)
		}
	}
	grown := heap() - before
	t.Logf("queued: %d KiB, accounted %d KiB; with %d running: %d KiB", queued>>10, e.account.used.Load()>>10, len(e.active), grown>>10)
	if queued > 32<<20 || grown > 32<<20 {
		t.Errorf("%d chats take %d KiB when queued, %d KiB when some run; want at most 32 MiB", chats, queued>>10, grown>>10)
	}
	if used := e.account.used.Load(); used < grown/2 || used > 2*grown {
		t.Errorf("%d KiB are accounted for, %d KiB taken", used>>10, grown>>10)
	}
	runtime.KeepAlive(streams)
}

// Whatever becomes of requests, nothing of the account is left when they are
// over and read.
func TestAccountIsSettled(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 16}, sim.Config{Model: testModel})
	var want int64
	for i := range 20 {
		r := &Request{Tokens: tokens(uint64(i), 20), MaxNewTokens: 100, Params: sample.Greedy(), TopN: i % 3, PromptLogprobs: i%4 == 0}
		if _, err := w.submitN(t, r, nil, make([]uint64, 1+i%3)); err != nil {
			t.Fatal(err)
		}
		want += requestBytes(r, testModel.Vocab, false) + int64(i%3)*requestBytes(r, testModel.Vocab, true)
	}
	if got := w.e.account.used.Load(); got != want {
		t.Errorf("%d bytes accounted for at first, want %d", got, want)
	}
	for i, c := range w.clients {
		if i%5 == 0 {
			c.leave(true)
		}
		if i%3 == 0 {
			if _, err := w.turn(); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.finish(t)
	if got := w.e.account.used.Load(); got != 0 {
		t.Errorf("%d bytes are still accounted for", got)
	}
	if _, err := w.e.Submit(context.Background(), greedy(1, 2, 0)); kind(err) != Invalid || w.e.account.used.Load() != 0 {
		t.Errorf("a refused request: %v, %d bytes accounted for", err, w.e.account.used.Load())
	}
}

// Beyond the budget requests are refused at once.
func TestMemoryBudget(t *testing.T) {
	cfg := simConfig(sim.Config{Model: testModel})
	cfg.Memory = 5 * requestBytes(greedy(1, 100, 20), testModel.Vocab, false) / 2
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Kind{-1, -1, Overloaded} {
		if _, err := e.Submit(t.Context(), greedy(uint64(i), 100, 20)); kind(err) != want {
			t.Errorf("request %d: %v, want kind %v", i, err, want)
		}
	}
	r := greedy(1, 100, 20)
	if _, err := e.SubmitN(t.Context(), r, make([]uint64, 9)); kind(err) != Invalid || !strings.Contains(err.Error(), "bytes of memory") {
		t.Errorf("a request that can never be taken: %v", err)
	}
	if n := e.queued.Load(); n != 2 {
		t.Errorf("%d requests are counted as waiting, want 2", n)
	}
}

// What Next returned stays as it was, however much comes after it.
func TestTokensStayValid(t *testing.T) {
	limits := small
	limits.MaxPagesPerSlot = 100
	w := newWorld(t, Config{Device: limits, Pages: 100}, sim.Config{Model: testModel})
	c := w.ask(t, tokens(1, 5), 1500)
	var parts [][]Token
	var all []Token
	for range 1600 {
		if _, err := w.e.tick(); err != nil {
			t.Fatal(err)
		}
		if c.stream.state.Load()&1 == 0 && int(c.stream.state.Load()>>1)-c.stream.read < 100 {
			continue // let some come together
		}
		if part, err := c.stream.Next(t.Context()); err == nil {
			parts = append(parts, part)
			all = append(all, part...)
		}
	}
	if len(all) != 1500 {
		t.Fatalf("%d tokens, want 1500", len(all))
	}
	i := 0
	for _, part := range parts {
		for _, got := range part {
			if got.ID != c.want[i].Token || got.ID != all[i].ID {
				t.Fatalf("token %d is %d, was %d, want %d", i, got.ID, all[i].ID, c.want[i].Token)
			}
			i++
		}
	}
}
