package engine

import (
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/sim"
)

// perStep has the virtual clock count steps.
func perStep(int) time.Duration { return time.Millisecond }

// However many answers one request asks for, others take turns with it.
func TestForksTakeTurns(t *testing.T) {
	for _, prompt := range []int{50, 5} { // with a cached prompt, and with none
		w := newWorld(t, Config{Device: small, Pages: 60, MaxWaiting: 100}, sim.Config{Model: testModel, Latency: perStep})
		forks := w.fork(t, prompt, 30)
		var others []*client
		for i := range 10 {
			others = append(others, w.ask(t, tokens(uint64(200+i), 30), 5))
		}
		w.finish(t)
		between := 0
		for _, o := range others {
			if o.stream.times.Admitted.Before(forks[20].stream.times.Admitted) {
				between++
			}
		}
		if between < 9 {
			t.Errorf("prompt of %d: %d of 10 other requests were admitted before the 21st of 30 forks", prompt, between)
		}
	}
}

// A short prompt waits for one step of each long one at most, not for its end.
func TestShortPromptsPassLongOnes(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 60}, sim.Config{Model: testModel, Latency: perStep})
	var long []*client
	for i := range 3 {
		long = append(long, w.ask(t, tokens(uint64(i+1), 120), 2))
	}
	short := w.ask(t, tokens(9, 10), 2)
	w.finish(t)
	first := short.stream.times.FirstToken
	for i, c := range long {
		if !first.Before(c.stream.times.FirstToken) {
			t.Errorf("the short prompt had its first token at %v, long one %d at %v", first, i, c.stream.times.FirstToken)
		}
	}
	if !long[0].stream.times.FirstToken.Before(long[2].stream.times.FirstToken) {
		t.Error("the oldest long prompt was not the first of the long ones")
	}
}
