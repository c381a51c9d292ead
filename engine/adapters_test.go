package engine

import (
	"runtime"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// during does what waits for the loop, which turns until it is done.
func during[T any](t *testing.T, w *world, do func() T) T {
	t.Helper()
	done := make(chan T)
	go func() { done <- do() }()
	for {
		select {
		case got := <-done:
			return got
		default:
			if _, err := w.turn(); err != nil {
				t.Fatal(err)
			}
			runtime.Gosched()
		}
	}
}

// load loads the adapter of a seed.
func (w *world) load(t *testing.T, seed uint64) int32 {
	t.Helper()
	a := testModel.Adapter(seed)
	return during(t, w, func() int32 {
		id, err := w.e.LoadAdapter(a)
		if err != nil {
			t.Error(err)
		}
		for len(w.adapters) < int(id) {
			w.adapters = append(w.adapters, nil)
		}
		w.adapters[id-1] = a
		return id
	})
}

// An adapter is loaded and dropped while others generate; one that is in use stays
// until it is not. A new load, even of the same adapter, has another number, and finds
// nothing in the cache.
func TestAdaptersComeAndGo(t *testing.T) {
	for _, synchronous := range []bool{false, true} {
		w := newWorld(t, Config{Device: small, Pages: 80}, sim.Config{Model: testModel, Synchronous: synchronous})
		ask := func(adapter int32, n int) *client {
			t.Helper()
			c, err := w.submit(&Request{Tokens: tokens(1, 40), MaxNewTokens: n, Params: sample.Greedy(), Adapter: adapter})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		ask(0, 20)
		first := w.load(t, 7)
		ask(first, 20)
		for range 3 {
			w.turn()
		}
		dropped := make(chan error, 1)
		go func() { dropped <- w.e.DropAdapter(first) }()
		for w.e.adapters.has(first) {
			runtime.Gosched()
		}
		if _, err := w.submit(&Request{Tokens: tokens(1, 4), MaxNewTokens: 1, Adapter: first}); kind(err) != Invalid {
			t.Errorf("a request for an adapter that is being dropped: %v, want it refused as invalid", err)
		}
		for w.e.Stats().Running > 0 {
			if len(dropped) > 0 {
				t.Fatal("an adapter is dropped while a sequence uses it")
			}
			w.turn()
		}
		w.finish(t) // compares what both were given with the model's
		if err := during(t, w, func() error { return <-dropped }); err != nil {
			t.Error(err)
		}
		second := w.load(t, 7)
		if second == first {
			t.Errorf("two loads have the number %d", first)
		}
		again := ask(second, 3)
		w.finish(t)
		if got := again.stream.Times().CachedTokens; got != 0 {
			t.Errorf("%d tokens from the cache of a load before", got)
		}
		third := ask(second, 3)
		w.finish(t)
		if got := third.stream.Times().CachedTokens; got == 0 {
			t.Error("a request with the same load finds nothing in the cache")
		}
		if err := w.e.DropAdapter(99); err == nil {
			t.Error("an adapter that is not there was dropped")
		}
	}
}

// A backend that refuses an adapter leaves the engine as it was.
func TestAdapterRefused(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 80}, sim.Config{Model: testModel})
	err := during(t, w, func() error {
		_, err := w.e.LoadAdapter(&device.Adapter{Rank: -1})
		return err
	})
	if err == nil {
		t.Error("an adapter of rank -1 was loaded")
	}
	if _, err := w.submit(&Request{Tokens: tokens(1, 4), MaxNewTokens: 1, Adapter: 1}); kind(err) != Invalid {
		t.Errorf("a request for an adapter that was refused: %v, want it refused as invalid", err)
	}
	id := w.load(t, 1)
	if _, err := w.submit(&Request{Tokens: tokens(1, 40), MaxNewTokens: 3, Params: sample.Greedy(), Adapter: id}); err != nil {
		t.Fatal(err)
	}
	w.finish(t)
}
