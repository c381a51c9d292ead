package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
)

// Replicas are engines that serve copies of one model, each on a backend of its own, as one
// engine would. A request goes to the one that is expected to answer first: the one with the
// fewest sequences, unless another has enough of the prompt in its cache. The same request
// gives the same tokens on each.
type Replicas struct {
	engines []*Engine

	mu      sync.Mutex
	pending []int        // sequences that are being submitted, by replica
	prompts []*page.Pool // pages of the prompts that a replica was given last: what its cache should have
	ids     []page.ID    // scratch of remember
	next    int          // the replica that is asked first

	adapters sync.Mutex // held while one is loaded, which so has the same number everywhere
}

// What a request is expected to wait for, in tokens of a prompt that could be computed
// meanwhile. One more sequence makes steps a little longer, for as long as it runs; a request
// without a slot waits until a sequence ends, and each request before it does as well.
const (
	sequenceCost = 64
	slotCost     = 8192
)

// NewReplicas returns the replicas that engines are, at least one. Their configurations differ
// in nothing but the backends.
func NewReplicas(engines []*Engine) *Replicas {
	r := &Replicas{engines: engines, pending: make([]int, len(engines))}
	if len(engines) == 1 || engines[0].cfg.NoPrefixCache {
		return r
	}
	for _, e := range engines {
		r.prompts = append(r.prompts, page.New(e.cfg.Pages/max(1, len(e.shape.windows))))
	}
	return r
}

// SubmitN is Engine.SubmitN of one replica.
func (r *Replicas) SubmitN(ctx context.Context, req *Request, seeds []uint64) ([]*Stream, error) {
	first := r.engines[0]
	if len(r.engines) == 1 {
		return first.SubmitN(ctx, req, seeds)
	}
	if err := first.check(req); err != nil {
		req.Constraint.Close()
		return nil, err
	}
	keys := first.promptKeys(req)
	i := r.choose(len(req.Tokens), keys, len(seeds))
	defer r.submitted(i, len(seeds))
	return r.engines[i].submit(ctx, req, seeds, keys)
}

// choose returns the replica that n sequences of a prompt go to: so many tokens, with these
// keys. submitted is to be called when its engine knows of them.
func (r *Replicas) choose(tokens int, keys []page.Key, n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	best, least := r.next, math.MaxInt
	for k := range r.engines {
		i := (r.next + k) % len(r.engines)
		e := r.engines[i]
		if e.ended() {
			continue
		}
		open := r.pending[i] + int(e.account.open.Load())
		cost := tokens - r.cached(i, keys)*page.Tokens + open*sequenceCost
		cost += max(0, open+n-e.slots) * slotCost
		if cost < least {
			best, least = i, cost
		}
	}
	r.next = (best + 1) % len(r.engines)
	r.pending[best] += n
	r.remember(best, keys)
	return best
}

// submitted ends what choose began.
func (r *Replicas) submitted(i, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending[i] -= n
}

// cached returns how many of the first pages with keys replica i should have in its cache.
func (r *Replicas) cached(i int, keys []page.Key) int {
	if r.prompts == nil {
		return 0
	}
	n := 0
	for n < len(keys) && r.prompts[i].Find(keys[n]) != page.None {
		n++
	}
	return n
}

// remember notes that replica i is given pages with keys. Those it was given longest ago are
// forgotten, as its cache does.
func (r *Replicas) remember(i int, keys []page.Key) {
	if r.prompts == nil {
		return
	}
	pool := r.prompts[i]
	r.ids = r.ids[:0]
	for _, k := range keys {
		id := pool.Find(k)
		if id != page.None {
			pool.Share(id)
		} else if id = pool.Alloc(0); id != page.None {
			pool.Register(id, k)
		} else {
			break // a prompt as long as the cache
		}
		r.ids = append(r.ids, id)
	}
	pool.Release(r.ids)
}

// ended reports whether Run has returned.
func (e *Engine) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// Limits returns what every replica accepts.
func (r *Replicas) Limits() Limits { return r.engines[0].limits }

// Stats returns the sums over all replicas.
func (r *Replicas) Stats() Stats {
	sum := r.engines[0].Stats()
	for _, e := range r.engines[1:] {
		s := e.Stats()
		sum.add(&s)
	}
	return sum
}

// Each returns the Stats of each replica.
func (r *Replicas) Each() []Stats {
	all := make([]Stats, len(r.engines))
	for i, e := range r.engines {
		all[i] = e.Stats()
	}
	return all
}

// Stalled is Engine.Stalled of the replica that has been silent for the longest.
func (r *Replicas) Stalled() time.Duration {
	var most time.Duration
	for _, e := range r.engines {
		most = max(most, e.Stalled())
	}
	return most
}

// Run runs all replicas, until ctx ends or Drain is done. If one fails it returns at once and
// says why; the others go on until Drain ends them.
func (r *Replicas) Run(ctx context.Context) error {
	n := len(r.engines)
	ended := make(chan error, n)
	for i, e := range r.engines {
		go func() {
			err := e.Run(ctx)
			if err != nil && n > 1 {
				err = fmt.Errorf("replica %d of %d: %w", i, n, err)
			}
			ended <- err
		}()
	}
	for range n {
		if err := <-ended; err != nil {
			return err
		}
	}
	return nil
}

// Drain is Engine.Drain of all replicas at once.
func (r *Replicas) Drain(ctx context.Context) error {
	return r.all(func(e *Engine) error { return e.Drain(ctx) })
}

// LoadAdapter is Engine.LoadAdapter: all replicas have the adapter, or none.
func (r *Replicas) LoadAdapter(a *device.Adapter) (int32, error) {
	r.adapters.Lock()
	defer r.adapters.Unlock()
	ids := make([]int32, len(r.engines))
	errs := make([]error, len(r.engines))
	var wg sync.WaitGroup
	for i, e := range r.engines {
		wg.Go(func() { ids[i], errs[i] = e.LoadAdapter(a) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	if err == nil {
		return ids[0], nil
	}
	for i, e := range r.engines {
		if errs[i] == nil {
			err = errors.Join(err, e.DropAdapter(ids[i]))
		}
	}
	return 0, err
}

// DropAdapter is Engine.DropAdapter.
func (r *Replicas) DropAdapter(id int32) error {
	return r.all(func(e *Engine) error { return e.DropAdapter(id) })
}

// all calls fn for all engines at once.
func (r *Replicas) all(fn func(e *Engine) error) error {
	errs := make([]error, len(r.engines))
	var wg sync.WaitGroup
	for i, e := range r.engines {
		wg.Go(func() { errs[i] = fn(e) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
