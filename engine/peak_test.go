package engine

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// peak is compared with a count of pages after every step.
func TestPeak(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var futures []future
		longest, groups := 0, rng.IntN(3)
		for range 1 + rng.IntN(6) {
			f := future{tokens: 1 + rng.IntN(100), steps: rng.IntN(60), windowed: rng.IntN(5)}
			f.shared = rng.IntN(groups*pagesFor(f.tokens) + f.windowed + 1)
			longest = max(longest, f.steps)
			futures = insert(futures, f)
		}
		if !slices.IsSortedFunc(futures, longestFirst) {
			t.Fatalf("not in order: %v", futures)
		}
		want := 0
		for step := range longest + 1 {
			pages := 0
			for _, f := range futures {
				if f.steps >= step {
					pages += groups*pagesFor(f.tokens+step) + f.windowed - f.shared
				}
			}
			want = max(want, pages)
		}
		if got := peak(futures, groups); got != want {
			t.Fatalf("%d pages at the peak of %v, want %d", got, futures, want)
		}
	}
}
