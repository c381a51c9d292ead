package handler

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler/telemetry"
	"github.com/millrace-ai/millrace/internal/thread"
)

// memory bounds the bytes that all requests together hold in this package.
//
// One half is for what lasts as long as its request: the body, what is decoded
// from it, the prompt, its tokens and the answer. Whatever finds no room there
// is refused at once.
//
// The other half is for the work of a moment, rendering and tokenizing, which
// takes many times the size of its text. It waits for its turn; because such
// work waits for nothing while it runs, the turn comes.
type memory struct {
	most  atomic.Int64 // bytes that may last
	held  atomic.Int64 // of these, those that requests hold
	turns turns
}

// defaultRequestMemory is what requests may hold if nobody has planned it.
const defaultRequestMemory = 256 << 20

// RequestMemory returns the bytes that requests should be able to hold together
// for a model of sequences of so many tokens: a few of the largest bodies and
// two of the longest prompts.
func RequestMemory(tokens int, payloadLimit int64) int64 {
	const bytesPerWord = 5 // of a token, on average, in English
	prompt := int64(tokens) * bytesPerWord * token.MinCost
	return max(defaultRequestMemory, 4*payloadLimit, 2*prompt*shareForShort/(shareForShort-1))
}

// setSize divides size bytes. Nothing may be held for work at the time.
func (m *memory) setSize(size int64, workers int) {
	m.most.Store(size / 2)
	m.turns.reset(size/2, workers)
}

// observe exports what is held.
func (m *memory) observe(metrics *telemetry.Metrics) {
	metrics.Gauge("millrace_request_memory_bytes", "Bytes that requests may hold together for as long as they last", func() float64 { return float64(m.most.Load()) })
	metrics.Gauge("millrace_request_memory_held_bytes", "Bytes that requests hold: bodies, prompts, tokens, answers", func() float64 { return float64(m.held.Load()) })
	metrics.Gauge("millrace_validations_waiting", "Prompts that wait to be rendered or tokenized", func() float64 {
		m.turns.mu.Lock()
		defer m.turns.mu.Unlock()
		return float64(len(m.turns.waiting))
	})
}

// hold takes n more bytes for as long as x lasts. A request that could never
// have so many is refused as a whole, one that would have to wait as overload.
func (x *exchange) hold(n int64) error {
	switch most := x.memory.most.Load(); {
	case x.held.Load()+n > most:
		return invalid("the request takes more memory than the %d bytes that all requests together may hold: make it shorter", most)
	case !x.memory.take(n):
		return overloaded(nil)
	}
	x.held.Add(n)
	return nil
}

// take takes n bytes that last, if there are so many.
func (m *memory) take(n int64) bool {
	if m.held.Add(n) > m.most.Load() {
		m.held.Add(-n)
		return false
	}
	return true
}

// Hold takes n bytes of what requests may hold, for a caller that keeps a body
// around requests of its own, and reports whether there were so many. Release
// gives them back.
func (s *Server) Hold(n int64) bool { return s.memory.take(n) }

// Release gives back what Hold has taken.
func (s *Server) Release(n int64) { s.memory.held.Add(-n) }

// work runs f when it is its turn, with so many bytes for it that are given
// back when f returns. What is the field that f works on, for a client that
// wants too much.
func (s *Server) work(x *exchange, what string, bytes int64, f func() error) error {
	t := &s.memory.turns
	if most := t.longest(); bytes > most {
		return invalid("`%s` is too long: it takes %d bytes of memory to read, and %d are there for that", what, bytes, most)
	}
	if err := t.take(x.r.Context(), bytes); err != nil {
		return errClientGone
	}
	return t.run(bytes, f)
}

// do runs f when it is its turn, or returns the error of ctx if that ends before.
func (t *turns) do(ctx context.Context, bytes int64, f func() error) error {
	if err := cmp.Or(ctx.Err(), t.take(ctx, bytes)); err != nil {
		return err
	}
	return t.run(bytes, f)
}

// run runs f, for which so many bytes were taken, and gives them back.
func (t *turns) run(bytes int64, f func() error) error {
	defer t.give(bytes)
	if bytes > shortWork {
		return thread.Nice(longNice, f)
	}
	return f()
}

// turns gives out workers and the memory for what they do. Work is short or
// long, by its bytes. Long work never has all workers, if there are several,
// nor all of the memory, so that short work never waits for it. Who waits is
// served by the time of arrival plus a time for the size, so that small
// requests pass large ones, and large ones still get their share.
type turns struct {
	mu      sync.Mutex
	workers int     // that are idle
	long    int     // of these, how many may take long work
	free    int64   // bytes
	reserve int64   // of these, what long work leaves
	size    int64   // bytes in all
	waiting []*turn // by due
}

// turn is work that waits.
type turn struct {
	bytes int64
	due   time.Time
	ready chan struct{} // closed when it has what it needs
}

const (
	shortWork     = 1 << 20  // bytes that short work takes at most
	longNice      = 5        // of long work, so that streams go on at their pace
	bytesPerTurn  = 64 << 20 // bytes of work that count as a second of waiting
	shareForShort = 4        // the part of the memory that long work leaves, at most, is one in so many
)

// reset makes all workers idle and all memory free.
func (t *turns) reset(size int64, workers int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.workers, t.long = workers, max(1, workers-1)
	t.size, t.free = size, size
	t.reserve = min(int64(workers)*shortWork, size/shareForShort)
}

// longest returns the bytes of the largest work that is possible.
func (t *turns) longest() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size - t.reserve
}

// take waits for a worker and so many bytes; its only error is ctx's.
func (t *turns) take(ctx context.Context, bytes int64) error {
	w := &turn{bytes: bytes, due: time.Now().Add(time.Duration(bytes) * (time.Second / bytesPerTurn)), ready: make(chan struct{})}
	t.mu.Lock()
	at, _ := slices.BinarySearchFunc(t.waiting, w, func(a, b *turn) int {
		if c := a.due.Compare(b.due); c != 0 {
			return c
		}
		return -1 // after those of the same time
	})
	t.waiting = slices.Insert(t.waiting, at, w)
	t.start()
	t.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.waiting, w); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	} else {
		t.put(bytes)
	}
	t.start() // what waited after it may be possible now
	return ctx.Err()
}

// give gives back what take has waited for.
func (t *turns) give(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put(bytes)
	t.start()
}

// put makes a worker idle; the caller holds mu.
func (t *turns) put(bytes int64) {
	t.workers++
	t.free += bytes
	if bytes > shortWork {
		t.long++
	}
}

// start begins what is possible, in order. Long work that waits for memory is
// not passed by other long work, which could keep it waiting for ever. The
// caller holds mu.
func (t *turns) start() {
	stopped := false // by long work that waits
	t.waiting = slices.DeleteFunc(t.waiting, func(w *turn) bool {
		long := w.bytes > shortWork
		switch {
		case t.workers == 0:
			return false
		case long && (stopped || t.long == 0 || w.bytes > t.free-t.reserve):
			stopped = true
			return false
		case !long && w.bytes > t.free:
			return false
		}
		t.workers--
		t.free -= w.bytes
		if long {
			t.long--
		}
		close(w.ready)
		return true
	})
}

// bytesPerToken is what a token takes in an answer, beside its text, that shows
// its log-probability, and what each alternative takes: as JSON, twice while
// the answer is put together.
const bytesPerToken = 200

// holdScores takes the memory for the log-probabilities of a prompt, if req asks
// for them; so many sequences show them.
func (x *exchange) holdScores(req *engine.Request, shown int) error {
	if !req.PromptLogprobs {
		return nil
	}
	return x.hold(int64(len(req.Tokens)) * bytesPerToken * int64(1+req.TopN) * int64(shown))
}

// holdPieces takes the memory for pieces of an answer that is sent whole.
func (x *exchange) holdPieces(pieces []engine.Piece) error {
	n := 0
	for i := range pieces {
		n += 2 * len(pieces[i].Text)
		if x.shown {
			n += bytesPerToken * (1 + len(pieces[i].Top))
		}
	}
	return x.hold(int64(n))
}
