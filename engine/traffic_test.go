package engine

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

// traffic drives an engine whose answers have given lengths: their reader
// closes a Stream once it has that many tokens.
type traffic struct {
	e      *Engine
	target map[*Stream]int
	seed   uint64
	usage  []usage // after each turn
}

// usage is how well an engine is used in a moment.
type usage struct {
	slots, pages float64 // the part in use
	waiting      int
	preemptions  int64 // so far
}

func newTraffic(t *testing.T, slots, pages, longest int) *traffic {
	t.Helper()
	limits := device.Limits{MaxTokens: 2048, MaxRows: 2048, MaxSlots: slots, MaxPagesPerSlot: pagesFor(longest)}
	b := sim.New(limits, sim.Config{Model: sim.Model{Vocab: 32000}, Fast: true, Latency: func(n int) time.Duration {
		return 10*time.Millisecond + time.Duration(n)*100*time.Microsecond
	}})
	e, err := New(Config{
		Backend: b, Device: limits, Pages: pages, Plan: sim.Model{Vocab: 32000}.Plan(), Root: page.Root(), MaxWaiting: 1 << 20, MaxTotal: longest,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.now = func() time.Time { return time.Unix(1, 0).Add(b.Now()) }
	return &traffic{e: e, target: map[*Stream]int{}}
}

// ask submits n requests that could go on to the greatest length.
func (f *traffic) ask(t *testing.T, n, prompt int, answer func() int) {
	t.Helper()
	for range n {
		f.seed++
		r := &Request{Tokens: tokens(f.seed, prompt), MaxNewTokens: f.e.limits.MaxTotal - prompt, Params: sample.Greedy()}
		f.target[mustSubmit(t, f.e, r)] = answer()
	}
}

func always(n int) func() int { return func() int { return n } }

// turn runs the loop once.
func (f *traffic) turn(t *testing.T) {
	t.Helper()
	if _, err := f.e.tick(); err != nil {
		t.Fatal(err)
	}
	e := f.e
	for _, s := range e.active {
		if s.generated >= f.target[s.stream] {
			s.stream.Close()
			delete(f.target, s.stream)
		}
	}
	f.usage = append(f.usage, usage{
		slots:       float64(len(e.active)) / float64(e.slots),
		pages:       1 - float64(e.cache.Pages.Free())/float64(e.cache.Pages.Total()),
		waiting:     e.waiting.length,
		preemptions: e.stats.preemptions.Load(),
	})
}

// A shortage leaves no trace: after 300 short answers, 64 long ones that do not
// fit together and 600 short ones, slots or pages are in use while anyone waits.
func TestShortageHeals(t *testing.T) {
	for _, long := range []int{500, 1000} {
		f := newTraffic(t, 64, 2048, 32769)
		f.ask(t, 300, 40, always(20))
		f.ask(t, 64, 40, always(long))
		f.ask(t, 600, 40, always(20))
		for len(f.target) > 0 {
			f.turn(t)
		}
		end := 0 // of the shortage
		for i, u := range f.usage {
			if i > 0 && u.preemptions > f.usage[i-1].preemptions {
				end = i
			}
		}
		if end == 0 {
			t.Errorf("answers of %d: no shortage", long)
		}
		for i := end + 100; i < len(f.usage); i++ {
			if u := f.usage[i]; u.waiting > 0 && max(u.slots, u.pages) < 0.9 {
				t.Fatalf("answers of %d: %d steps after the shortage %+v", long, i-end, u)
			}
		}
	}
}

// While requests wait, pages are in use and few sequences lose theirs.
func TestSteadyState(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct {
		name   string
		prompt int
		answer func() int
	}{
		{"exponential", 200, func() int { return 1 + int(rng.ExpFloat64()*300) }},
		{"lognormal", 100, func() int { return 1 + int(200*math.Exp(rng.NormFloat64())) }},
		{"uniform", 100, func() int { return 1 + rng.IntN(800) }},
		{"two kinds", 100, func() int { return []int{20, 20, 20, 600}[rng.IntN(4)] * (50 + rng.IntN(101)) / 100 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newTraffic(t, 128, 2048, 8193)
			var pages float64
			const warm, steps = 6000, 12000
			var before int64
			ended := 0
			for i := range warm + steps {
				for f.e.waiting.length < 20 {
					f.ask(t, 1, tt.prompt, tt.answer)
					f.e.receive()
				}
				if i == warm {
					before, ended = f.e.stats.preemptions.Load(), len(f.target)-int(f.seed)
				}
				f.turn(t)
				if i >= warm {
					pages += f.usage[i].pages / steps
				}
			}
			ended += int(f.seed) - len(f.target)
			preempted := float64(f.e.stats.preemptions.Load()-before) / float64(ended)
			t.Logf("%.1f %% of pages in use, %.1f %% of %d sequences preempted", 100*pages, 100*preempted, ended)
			if pages < 0.85 || preempted > 0.02 {
				t.Errorf("%.1f %% of pages in use, want 85; %.1f %% of sequences preempted, want at most 2", 100*pages, 100*preempted)
			}
		})
	}
}

// Answers that are all as long as they may be are admitted one after the other,
// rather than together, to fill the pages for a moment only.
func TestEqualAnswers(t *testing.T) {
	f := newTraffic(t, 128, 2048, 8193)
	rng := rand.New(rand.NewPCG(1, 2))
	var pages float64
	const warm, steps = 4000, 4000
	for i := range warm + steps {
		for f.e.waiting.length < 20 {
			f.seed++
			r := &Request{Tokens: tokens(f.seed, 50+rng.IntN(400)), MaxNewTokens: 500, Params: sample.Greedy()}
			f.target[mustSubmit(t, f.e, r)] = r.MaxNewTokens + 1
			f.e.receive()
		}
		f.turn(t)
		if i >= warm {
			pages += f.usage[i].pages / steps
		}
	}
	if pages < 0.7 {
		t.Errorf("%.0f %% of pages in use, want 70", 100*pages)
	}
}
