package abuse

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/container/bench"
)

// Options say which server to abuse, and how.
type Options struct {
	URL      string
	Duration time.Duration // of all phases together
	Phase    time.Duration // one with hostile clients, or one without
	Good     int           // clients that wait for each answer before they ask again
	Hostile  int           // clients that attack
	Deck     int           // different good requests
	Seed     uint64
	Log      io.Writer // gets a line per phase, and the report
}

// The kinds of phases. What begins in the settling time at the start of a phase
// counts in neither.
const (
	settling = iota - 1
	quiet
	attacked
)

// run is one run. mu guards what is below it.
type run struct {
	opt  Options
	deck []request
	want []answer // of the deck, when each request is alone
	http *http.Client

	mu       sync.Mutex
	kind     int // of the phase
	phases   [2]phase
	statuses map[string]map[int]int // of hostile requests, by attack
	failures []string
}

// phase is what was seen in all phases of a kind.
type phase struct {
	good, gaps, pings bench.Histogram
	refused           int // good requests that were told to come again
}

// failf notes what the server did wrong.
func (r *run) failf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// Run abuses a server that is ready and has nothing else to do. The report says
// what went wrong; an error means that there is no server to abuse.
func Run(ctx context.Context, o Options) (*Report, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: o.Good + 4}
	r := &run{opt: o, deck: newDeck(o.Seed, o.Deck), http: &http.Client{Transport: transport}, kind: settling, statuses: map[string]map[int]int{}}
	for _, one := range r.deck {
		a, err := send(ctx, r.http, o.URL, one)
		if err != nil || a.status != http.StatusOK {
			return nil, fmt.Errorf("%s %s: %d %s: %w", one.path, one.body, a.status, a.shown, err)
		}
		r.want = append(r.want, a)
	}
	transport.CloseIdleConnections()
	before, err := sample(ctx, r.http, o.URL)
	if err != nil {
		return nil, err
	}

	report := &Report{Before: before}
	r.phasesOf(ctx, report)
	transport.CloseIdleConnections()

	report.After, report.Leaked = r.afterwards(ctx, before)
	for i := range r.deck {
		r.replay(ctx, i, "afterwards")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	report.phases, report.Statuses, report.Failures = r.phases, r.statuses, r.failures
	report.write(o.Log)
	return report, nil
}

// phasesOf runs the phases, one with hostile clients after one without.
func (r *run) phasesOf(ctx context.Context, report *Report) {
	ctx, stop := context.WithTimeout(ctx, r.opt.Duration)
	defer stop()
	var clients sync.WaitGroup
	for i := range r.opt.Good {
		clients.Go(func() { r.good(ctx, rand.New(rand.NewPCG(r.opt.Seed, uint64(i)+1))) })
	}
	clients.Go(func() { r.ping(ctx) })
	start := time.Now()
	for kind := quiet; ctx.Err() == nil; kind = (kind + 1) % len(r.phases) {
		during, end := context.WithTimeout(ctx, r.opt.Phase)
		var attackers sync.WaitGroup
		if kind == attacked {
			for i := range r.opt.Hostile {
				attackers.Go(func() {
					r.attack(during, rand.New(rand.NewPCG(r.opt.Seed+uint64(time.Since(start)/r.opt.Phase), uint64(i)+1000)))
				})
			}
		}
		var last Sample
		r.settle(during, kind)
		for tick := time.NewTicker(250 * time.Millisecond); during.Err() == nil; {
			select {
			case <-during.Done():
				tick.Stop()
			case <-tick.C:
				if s, err := sample(during, r.http, r.opt.URL); err == nil {
					s.At, s.Attacked, last = time.Since(start), kind == attacked, s
					report.Samples = append(report.Samples, s)
				} else if during.Err() == nil {
					r.failf("metrics: %v", err)
				}
			}
		}
		end()
		r.settle(context.Background(), settling)
		attackers.Wait()
		fmt.Fprintf(r.opt.Log, "%7s  %-8s %s\n", time.Since(start).Round(time.Second), [...]string{"quiet", "attacked"}[kind], last)
	}
	clients.Wait()
}

// settle lets what the phase before has left behind pass, and begins another.
func (r *run) settle(ctx context.Context, kind int) {
	if kind != settling {
		select {
		case <-ctx.Done():
		case <-time.After(r.opt.Phase / 4):
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kind = kind
}

// now returns what counts for a request that begins now, nil if nothing does.
func (r *run) now() *phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kind == settling {
		return nil
	}
	return &r.phases[r.kind]
}

// good sends requests of the deck, one after the other. A refusal for want of
// room is the server's right: then it comes again a little later.
func (r *run) good(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		i := random.IntN(len(r.deck))
		for {
			p, start := r.now(), time.Now()
			a, err := send(ctx, r.http, r.opt.URL, r.deck[i])
			if ctx.Err() != nil {
				return
			}
			if err == nil && a.status == http.StatusTooManyRequests {
				r.count(p, func(p *phase) { p.refused++ })
				time.Sleep(20 * time.Millisecond)
				continue
			}
			took := time.Since(start)
			r.check(i, a, err, "under load")
			r.count(p, func(p *phase) {
				p.good.Add(took)
				for _, gap := range a.gaps {
					p.gaps.Add(gap)
				}
			})
			break
		}
	}
}

func (r *run) count(p *phase, add func(*phase)) {
	if p != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		add(p)
	}
}

// check compares an answer with the one that the request has when it is alone.
func (r *run) check(i int, got answer, err error, when string) {
	switch {
	case err != nil:
		r.failf("%s: %s %s: %v", when, r.deck[i].path, r.deck[i].body, err)
	case got.status != http.StatusOK:
		r.failf("%s: %s %s: %d %s", when, r.deck[i].path, r.deck[i].body, got.status, got.shown)
	case got.text != r.want[i].text:
		r.failf("%s: %s %s: another text than alone:\n%s\n%s", when, r.deck[i].path, r.deck[i].body, got.shown, r.want[i].shown)
	}
}

func (r *run) replay(ctx context.Context, i int, when string) {
	a, err := send(ctx, r.http, r.opt.URL, r.deck[i])
	r.check(i, a, err, when)
}

// ping asks for the server's health all the time.
func (r *run) ping(ctx context.Context) {
	for ctx.Err() == nil {
		p, start := r.now(), time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.opt.URL+"/ping", nil)
		if err != nil {
			return
		}
		resp, err := r.http.Do(req)
		took := time.Since(start)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.failf("ping: %v", err)
		} else {
			io.Copy(io.Discard, resp.Body) //nolint:errcheck // it has none
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				r.failf("ping: %d", resp.StatusCode)
			}
			r.count(p, func(p *phase) { p.pings.Add(took) })
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// attack makes attacks until ctx ends, each kind as often as any other.
func (r *run) attack(ctx context.Context, random *rand.Rand) {
	transport := &http.Transport{MaxIdleConnsPerHost: 2}
	defer transport.CloseIdleConnections()
	h := &hostile{hold: min(10*time.Second, r.opt.Phase/2), url: r.opt.URL, host: strings.TrimPrefix(r.opt.URL, "http://"), rand: random, http: &http.Client{Transport: transport}}
	for ctx.Err() == nil {
		for _, i := range random.Perm(len(attacks)) {
			if ctx.Err() != nil {
				return
			}
			a := attacks[i]
			h.answered = func(status int) {
				r.mu.Lock()
				if r.statuses[a.name] == nil {
					r.statuses[a.name] = map[int]int{}
				}
				r.statuses[a.name][status]++
				r.mu.Unlock()
				if status >= http.StatusInternalServerError {
					r.failf("%s: %d", a.name, status)
				}
			}
			if err := a.run(h, ctx); err != nil {
				r.failf("%s: %v", a.name, err)
			}
		}
	}
}

// afterwards waits until all is given back that the clients held. What has not
// come back within patience has leaked.
func (r *run) afterwards(ctx context.Context, before Sample) (after Sample, leaked bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		s, err := sample(ctx, r.http, r.opt.URL)
		if err == nil {
			after = s
		}
		// A few may be new: the connection that asks, what is kept for the next
		// grammar. What leaks does so with each of hundreds of attacks.
		const few = 5
		back := err == nil && s.Goroutines <= before.Goroutines+few && s.Descriptors <= before.Descriptors+few && s.PagesUsed == 0
		if back {
			return after, false
		}
		select {
		case <-ctx.Done():
			r.failf("not given back: before %s; after %s", before, after)
			return after, true
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// steadiness is how much memory in use grew between two parts of the time
// without attacks, as a share of the first: the second quarter, when caches are
// warm, and the last.
func steadiness(samples []Sample) float64 {
	var idle []float64
	for _, s := range samples {
		if !s.Attacked {
			idle = append(idle, float64(s.Memory))
		}
	}
	if len(idle) < 4 {
		return 0
	}
	median := func(of []float64) float64 { return slices.Sorted(slices.Values(of))[len(of)/2] }
	quarter := len(idle) / 4
	return median(idle[len(idle)-quarter:])/median(idle[quarter:2*quarter]) - 1
}
