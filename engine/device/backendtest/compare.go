package backendtest

import (
	"math"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// near reports answers that differ by more than tolerance in log-probability.
// A choice may differ, and the alternatives change places, only between tokens
// that are that close.
func near(t *testing.T, got, want []answer, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d answers, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.invalid != w.invalid {
			t.Errorf("%s: invalid %v, want %v", w.what, g.invalid, w.invalid)
			continue
		}
		if g.void != w.void {
			t.Errorf("%s: void %v, want %v", w.what, g.void, w.void)
			continue
		}
		if w.invalid || w.void {
			continue
		}
		if w.output != nil {
			nearOutput(t, g, w, tolerance)
			continue
		}
		if !within(g.logprob, w.logprob, tolerance) {
			t.Errorf("%s: token %d, log-probability %v; want token %d, %v ± %v", w.what, g.token, g.logprob, w.token, w.logprob, tolerance)
		}
		if g.token != w.token && !within(find(w.top, g.token), w.logprob, 2*tolerance) {
			t.Errorf("%s: token %d, want %d", w.what, g.token, w.token)
		}
		nearTop(t, g, w, tolerance)
	}
}

// nearOutput compares rows of an encoder: differences relative to the length of the
// row, as its numbers have no scale of their own.
func nearOutput(t *testing.T, g, w answer, tolerance float64) {
	t.Helper()
	squares := 0.0
	for _, v := range w.output {
		squares += float64(v) * float64(v) / float64(len(w.output))
	}
	for i, v := range w.output {
		if !within(g.output[i], v, tolerance*math.Sqrt(squares)) {
			t.Errorf("%s: column %d is %v, want %v ± %v", w.what, i, g.output[i], v, tolerance*math.Sqrt(squares))
			return
		}
	}
}

func nearTop(t *testing.T, g, w answer, tolerance float64) {
	t.Helper()
	if len(g.top) != len(w.top) {
		t.Errorf("%s: %d alternatives, want %d", w.what, len(g.top), len(w.top))
		return
	}
	for j, a := range g.top {
		if j > 0 && a.Logprob > g.top[j-1].Logprob {
			t.Errorf("%s: alternatives %v are not best first", w.what, g.top)
			return
		}
		wanted := find(w.top, a.Token)
		if wanted != wanted { // fell off the end: it must be as good as the last
			wanted = w.top[len(w.top)-1].Logprob
		}
		if !within(a.Logprob, wanted, tolerance) {
			t.Errorf("%s: alternative %d has log-probability %v, want %v ± %v", w.what, a.Token, a.Logprob, wanted, tolerance)
			return
		}
	}
}

// find returns the log-probability of a token among alternatives, or NaN.
func find(top []device.Alternative, token int32) float32 {
	for _, a := range top {
		if a.Token == token {
			return a.Logprob
		}
	}
	return float32(math.NaN())
}

func within(a, b float32, tolerance float64) bool {
	return math.Abs(float64(a)-float64(b)) <= tolerance // false for NaN
}

// same reports answers that differ in any bit.
func same(t *testing.T, got, want []answer) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d answers, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		equal := g.invalid == w.invalid && g.void == w.void && len(g.top) == len(w.top) && slices.Equal(g.output, w.output)
		if equal && !w.invalid && !w.void {
			equal = g.token == w.token && g.logprob == w.logprob
			for j := range g.top {
				equal = equal && g.top[j] == w.top[j]
			}
		}
		if !equal {
			t.Errorf("%s:\n got %+v\nwant %+v, to the bit", w.what, g, w)
			return
		}
	}
}

// unchanged compares runs of one backend that must not differ: to the bit if
// it promises that.
func (s *suite) unchanged(t *testing.T, got, want []answer, format plan.Format) {
	t.Helper()
	if s.opt.BitExact {
		same(t, got, want)
	} else {
		near(t, got, want, s.tolerance(format))
	}
}
