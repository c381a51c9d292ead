package backendtest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
)

// states: what a recurrent model knows is its state and nothing else. Prompts
// cut anywhere, states saved and gone on from, slots and states handed on.
func (s *suite) states(t *testing.T) {
	for _, tt := range []namedModel{{"recurrent", recurrent}, {"recurrent and attention", hybrid}} {
		for _, format := range []plan.Format{plan.F32, plan.BF16} {
			m := tt.build(format)
			t.Run(fmt.Sprintf("%s/%v", tt.name, format), func(t *testing.T) {
				t.Run("random cuts", func(t *testing.T) { s.randomCuts(t, m, format) })
				t.Run("saved", func(t *testing.T) { s.saved(t, m, format) })
				t.Run("handed on", func(t *testing.T) { s.handedOn(t, m, format) })
				t.Run("moved", func(t *testing.T) { s.moved(t, m, format) })
			})
		}
	}
}

const statesLength = 61

// whole scores a prompt in one step.
func whole(h *host, seed uint64) []answer {
	x := h.start(prompt(seed, statesLength, h.plan.Vocab), sample.Greedy())
	defer h.finish(x)
	return h.step(chunk{seq: x, n: statesLength, score: true})
}

func (s *suite) randomCuts(t *testing.T, m *model, format plan.Format) {
	h := s.host(t, m, limits)
	want := whole(h, 5)
	near(t, want, whole(s.oracle(t, m, limits), 5), s.tolerance(format))
	rng := rand.New(rand.NewPCG(3, 3))
	for range 5 {
		x := h.start(prompt(5, statesLength, m.plan.Vocab), sample.Greedy())
		var got []answer
		for x.computed < statesLength {
			n := min(1+rng.IntN(20), statesLength-x.computed)
			got = append(got, h.step(chunk{seq: x, n: n, score: true})...)
		}
		h.finish(x)
		s.unchanged(t, got, want, format)
	}
}

// saved: sequences that go on from a state that was saved, several of them and
// side by side, get what the whole prompt got, and what was saved stays as it is.
func (s *suite) saved(t *testing.T, m *model, format plan.Format) {
	h := s.host(t, m, limits)
	want := whole(h, 6)
	tokens := prompt(6, statesLength, m.plan.Vocab)
	var at16, at32 snapshot
	x := h.start(tokens, sample.Greedy())
	got := h.step(chunk{seq: x, n: 16, score: true, save: &at16})
	got = append(got, h.step(chunk{seq: x, n: 16, score: true, save: &at32})...)
	got = append(got, h.step(chunk{seq: x, n: statesLength - 32, score: true})...)
	s.unchanged(t, got, want, format)

	y, z, w := h.resume(&at16, tokens, sample.Greedy()), h.resume(&at32, tokens, sample.Greedy()), h.resume(&at16, tokens, sample.Greedy())
	first := h.step(chunk{seq: y, n: 5, score: true}, chunk{seq: z, n: statesLength - 32, score: true})
	s.unchanged(t, first[:5], want[16:21], format)
	s.unchanged(t, first[5:], want[32:], format)
	second := h.step(chunk{seq: w, n: 20, score: true}, chunk{seq: y, n: statesLength - 21, score: true})
	s.unchanged(t, second[:20], want[16:36], format)
	s.unchanged(t, second[20:], want[21:], format)
}

// handedOn: slots and states begin from nothing with a new owner.
func (s *suite) handedOn(t *testing.T, m *model, format plan.Format) {
	one := device.Limits{MaxTokens: 96, MaxRows: 96, MaxSlots: 1, MaxPagesPerSlot: 8, Threads: 2}
	h := s.host(t, m, one)
	first := whole(h, 7)
	whole(h, 8)
	s.unchanged(t, whole(h, 7), first, format)
}

// moved: a slot whose sequence goes on in another state than before.
func (s *suite) moved(t *testing.T, m *model, format plan.Format) {
	h := s.host(t, m, limits)
	want := whole(h, 9)
	x := h.start(prompt(9, statesLength, m.plan.Vocab), sample.Greedy())
	got := h.step(chunk{seq: x, n: 23, score: true})
	i := h.prepare(chunk{seq: x, n: statesLength - 23, score: true})
	b := h.b.Batch(i)
	live := take(h, &h.freeStates, "states")
	b.States = append(b.States, device.StateDelta{Slot: x.slot, Live: live, From: x.state, Save: device.NoState})
	h.run(i)
	s.unchanged(t, append(got, h.wait(i)...), want, format)
}
