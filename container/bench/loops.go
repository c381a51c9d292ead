package bench

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// run is one measurement. Requests begin until sending ends; those that have
// begun are waited for, so that slow ones count, too.
type run struct {
	opts    *Options
	http    *http.Client
	load    *workload
	sending context.Context
	done    func()

	clients []*client // all that were used
}

// more reports whether request i is still to be sent.
func (r *run) more(i int) bool {
	return r.sending.Err() == nil && (r.opts.Duration > 0 || i < r.opts.Requests)
}

// closedLoop keeps as many requests under way as there are clients. When ctx
// ends they are cut.
func (r *run) closedLoop(ctx context.Context) {
	prompts := make(chan prompt)
	go func() {
		defer close(prompts)
		for i := 0; r.more(i); i++ {
			select {
			case prompts <- r.load.next():
			case <-r.sending.Done():
			}
		}
	}()
	var wg sync.WaitGroup
	for range r.opts.Concurrency {
		c := newClient(r.opts, r.http)
		r.clients = append(r.clients, c)
		wg.Go(func() {
			for p := range prompts {
				c.do(ctx, p)
				r.done()
			}
		})
	}
	wg.Wait()
}

// openLoop starts requests at the times of a Poisson process. A client is
// taken from the idle ones, or made: the number under way has no bound.
func (r *run) openLoop(ctx context.Context) {
	var (
		arrivals = rand.New(rand.NewPCG(r.opts.Seed, 1))
		next     = time.Now()
		mu       sync.Mutex // guards idle
		idle     []*client
		wg       sync.WaitGroup
	)
	take := func() *client {
		mu.Lock()
		defer mu.Unlock()
		if n := len(idle); n > 0 {
			c := idle[n-1]
			idle = idle[:n-1]
			return c
		}
		c := newClient(r.opts, r.http)
		r.clients = append(r.clients, c)
		return c
	}
	for i := 0; r.more(i); i++ {
		next = next.Add(time.Duration(arrivals.ExpFloat64() / r.opts.Rate * float64(time.Second)))
		select {
		case <-time.After(time.Until(next)):
		case <-r.sending.Done():
			continue
		}
		c, p := take(), r.load.next()
		wg.Go(func() {
			c.do(ctx, p)
			r.done()
			mu.Lock()
			idle = append(idle, c)
			mu.Unlock()
		})
	}
	wg.Wait()
}
