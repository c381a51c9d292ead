package engine

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/millrace-ai/millrace/engine/device"
)

// adapters are those that requests may name, and what is to be done about others:
// the loop alone calls the backend.
type adapters struct {
	mu     sync.Mutex
	loaded map[int32]bool
	last   int32 // number that was given out
	todo   []*adapterWork
}

// adapterWork loads an adapter, or drops the one called id.
type adapterWork struct {
	load *device.Adapter // nil: drop
	id   int32
	done chan error
}

func newAdapters(loaded int) *adapters {
	a := &adapters{loaded: map[int32]bool{}, last: int32(loaded)}
	for id := range int32(loaded) {
		a.loaded[id+1] = true
	}
	return a
}

func (a *adapters) has(id int32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.loaded[id]
}

// LoadAdapter gives an adapter to the backend, between two steps, and returns the number
// by which requests name it. No other adapter of this engine ever has that number, so
// that nothing cached for one is found by another. Run must be running.
func (e *Engine) LoadAdapter(a *device.Adapter) (int32, error) {
	e.adapters.mu.Lock()
	if e.adapters.last == math.MaxInt32 {
		e.adapters.mu.Unlock()
		return 0, fmt.Errorf("%d adapters have been loaded, a new one needs a restart", e.adapters.last)
	}
	e.adapters.last++
	w := &adapterWork{load: a, id: e.adapters.last, done: make(chan error, 1)}
	e.adapters.mu.Unlock()
	return w.id, e.workOn(w)
}

// DropAdapter takes an adapter from the backend as soon as no sequence uses it, and
// then returns. Requests that name it are refused at once.
func (e *Engine) DropAdapter(id int32) error {
	e.adapters.mu.Lock()
	was := e.adapters.loaded[id]
	delete(e.adapters.loaded, id)
	e.adapters.mu.Unlock()
	if !was {
		return fmt.Errorf("there is no adapter %d", id)
	}
	return e.workOn(&adapterWork{id: id, done: make(chan error, 1)})
}

// workOn has the loop do w.
func (e *Engine) workOn(w *adapterWork) error {
	e.adapters.mu.Lock()
	e.adapters.todo = append(e.adapters.todo, w)
	e.adapters.mu.Unlock()
	e.wakeLoop()
	select {
	case err := <-w.done:
		return err
	case <-e.done:
		return errStopping
	}
}

// tendAdapters loads and drops adapters, those that are still used later.
func (e *Engine) tendAdapters() {
	e.adapters.mu.Lock()
	todo := e.adapters.todo
	e.adapters.todo = nil
	e.adapters.mu.Unlock()
	for _, w := range todo {
		switch {
		case w.load != nil:
			err := e.backend.LoadAdapter(w.id, w.load)
			if err == nil {
				e.adapters.mu.Lock()
				e.adapters.loaded[w.id] = true
				e.adapters.mu.Unlock()
			}
			w.done <- err
		case e.usesAdapter(w.id):
			e.adapters.mu.Lock()
			e.adapters.todo = append(e.adapters.todo, w)
			e.adapters.mu.Unlock()
		default:
			w.done <- e.backend.DropAdapter(w.id)
		}
	}
}

// usesAdapter reports whether a sequence, or the step in flight, uses an adapter.
func (e *Engine) usesAdapter(id int32) bool {
	for s := e.waiting.head; s != nil; s = s.next {
		if s.req.Adapter == id { // and so its forks
			return true
		}
	}
	uses := func(s *sequence) bool { return s.req.Adapter == id }
	return slices.ContainsFunc(e.active, uses) ||
		e.inFlight != nil && slices.ContainsFunc(e.inFlight.batch.Seqs, func(q device.Seq) bool { return q.Adapter == id })
}
