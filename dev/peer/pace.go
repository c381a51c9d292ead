package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/sample"
)

// The loads that show how requests wait for each other.
const (
	pacedStreams = 8  // answered while a long prompt arrives
	arrivals     = 12 // short requests beside one stream
)

// pace measures what running streams and new requests wait for, and says it beside
// what they have to wait for.
func (s *server) pace() (lines []string, err error) {
	step, gap, err := s.longestGap()
	if err != nil {
		return nil, err
	}
	bound := max(2*step, 100*time.Millisecond)
	lines = append(lines, fmt.Sprintf("longest gap of %d streams while %d tokens arrive: %v; a decode step takes %v, the bound is %v: %.2f",
		pacedStreams, longPrompt, round(gap), round(step), round(bound), float64(gap)/float64(bound)))
	alone, beside, step, err := s.firstTokens()
	if err != nil {
		return nil, err
	}
	return append(lines, fmt.Sprintf("first token of %d tokens: %v alone, %v beside one stream (median; at most %v), whose step takes %v: %.2f of step and own prefill",
		shortPrompt, round(alone), round(median(beside)), round(slices.Max(beside)), round(step),
		float64(median(beside))/float64(step+alone))), nil
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

func median(list []time.Duration) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// stream is a running answer and when its tokens came.
type stream struct {
	mu    sync.Mutex
	times []time.Time
	err   error
	done  chan struct{}
	close func()
}

// open begins an answer to a random prompt.
func (s *server) open(prompt, tokens int) (*stream, error) {
	ids := make([]int32, prompt)
	for i := range ids {
		ids[i] = s.random.Int32N(int32(s.engine.Plan.Vocab))
	}
	ctx := context.Background()
	st, err := s.engine.Submit(ctx, &engine.Request{Tokens: ids, MaxNewTokens: tokens, Params: sample.Greedy(), IgnoreEOS: true})
	if err != nil {
		return nil, err
	}
	r := &stream{done: make(chan struct{}), close: st.Close}
	go func() {
		defer close(r.done)
		for {
			list, err := st.Next(ctx)
			r.mu.Lock()
			for range list {
				r.times = append(r.times, time.Now())
			}
			if err != nil && err != io.EOF {
				r.err = err
			}
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return r, nil
}

// arrived returns when the tokens came, once there are n or there will be no
// more.
func (r *stream) arrived(n int) []time.Time {
	for ended := false; ; {
		r.mu.Lock()
		times := slices.Clone(r.times)
		r.mu.Unlock()
		if len(times) >= n || ended {
			return times
		}
		select {
		case <-r.done:
			ended = true
		case <-time.After(time.Millisecond):
		}
	}
}

// longestGap returns the time of a decode step of all streams, and the longest
// time that one of them waits for a token while a long prompt is computed.
func (s *server) longestGap() (step, gap time.Duration, err error) {
	var running []*stream
	for range pacedStreams {
		r, err := s.open(shortPrompt, longPrompt)
		if err != nil {
			return 0, 0, err
		}
		defer r.close()
		running = append(running, r)
	}
	const warm = 40
	var steps []time.Duration
	for _, r := range running {
		times := r.arrived(warm)
		for i := 10; i < len(times); i++ {
			steps = append(steps, times[i].Sub(times[i-1]))
		}
	}
	before := time.Now()
	long, err := s.open(longPrompt, 1)
	if err != nil {
		return 0, 0, err
	}
	times := long.arrived(1)
	if len(times) == 0 {
		return 0, 0, fmt.Errorf("the long prompt got no token: %w", long.err)
	}
	for _, r := range running {
		last := before
		for _, at := range r.arrived(0) {
			if at.After(before) && last.Before(times[0]) {
				gap = max(gap, at.Sub(last))
			}
			last = at
		}
	}
	return median(steps), gap, nil
}

// firstTokens returns the time to the first token of a short request alone, and
// of several beside one stream, each arriving at any point of a step.
func (s *server) firstTokens() (alone time.Duration, beside []time.Duration, step time.Duration, err error) {
	first := func() (time.Duration, error) {
		begin := time.Now()
		r, err := s.open(shortPrompt, 1)
		if err != nil {
			return 0, err
		}
		defer r.close()
		times := r.arrived(1)
		if len(times) == 0 {
			return 0, fmt.Errorf("no first token: %w", r.err)
		}
		return times[0].Sub(begin), nil
	}
	var list []time.Duration
	for range arrivals {
		d, err := first()
		if err != nil {
			return 0, nil, 0, err
		}
		list = append(list, d)
	}
	alone = median(list)
	r, err := s.open(shortPrompt, longPrompt)
	if err != nil {
		return 0, nil, 0, err
	}
	defer r.close()
	r.arrived(20)
	for range arrivals {
		time.Sleep(time.Duration(rand.Int64N(int64(100 * time.Millisecond))))
		d, err := first()
		if err != nil {
			return 0, nil, 0, err
		}
		beside = append(beside, d)
	}
	var steps []time.Duration
	times := r.arrived(0)
	for i := 2; i < 20; i++ {
		steps = append(steps, times[i].Sub(times[i-1]))
	}
	return alone, beside, median(steps), nil
}
