package engine

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestLengthBuckets(t *testing.T) {
	for b := range lengthBuckets {
		start, next := bucketStart(b), bucketStart(b+1)
		if next <= start || lengthBucket(start) != b || lengthBucket(next-1) != b {
			t.Errorf("bucket %d is %d to %d, whose buckets are %d and %d", b, start, next-1, lengthBucket(start), lengthBucket(next-1))
		}
	}
	if got := lengthBucket(math.MaxInt32); got != lengthBuckets-1 {
		t.Errorf("the greatest length is in bucket %d", got)
	}
}

// TestPredict compares predictions with the mean of what they were learned from.
func TestPredict(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	exponential := func(mean float64) func() int { return func() int { return 1 + int(rng.ExpFloat64()*mean) } }
	for _, tt := range []struct {
		name      string
		length    func() int // of a sequence
		limit     int        // cuts it; 0: none
		generated int
		want      float64 // mean of the lengths of those that have generated so many
	}{
		{"all alike", func() int { return 10 }, 0, 0, 10.5},
		{"from a memoryless spread", exponential(200), 0, 0, 200},
		{"and on the way", exponential(200), 0, 300, 500},
		{"two kinds, the short ones gone", func() int { return []int{20, 20, 20, 800}[rng.IntN(4)] }, 0, 100, 830},
		{"cut at their limit", exponential(200), 100, 0, 86}, // the limit holds for the predicted, too
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l lengths
			for range 2 * recentLengths {
				n := tt.length()
				if tt.limit > 0 && n > tt.limit {
					l.learn(tt.limit, true)
				} else {
					l.learn(n, false)
				}
			}
			l.update()
			mean, luck := 0.0, 0.0
			for range 1000 {
				_, luck = math.Modf(luck + golden)
				n := l.predict(tt.generated, luck)
				if n <= tt.generated {
					t.Fatalf("%d tokens predicted after %d", n, tt.generated)
				}
				if tt.limit > 0 {
					n = min(n, tt.limit)
				}
				mean += float64(min(n, 4096)) / 1000
			}
			if math.Abs(mean-tt.want) > tt.want/8 {
				t.Errorf("%.1f tokens on average, want about %.1f", mean, tt.want)
			}
		})
	}
}

// Before anything is known, and beyond all that is, a sequence is expected to
// go on for about as long as it has.
func TestPredictUnknown(t *testing.T) {
	for _, known := range []int{0, recentLengths} {
		var l lengths
		for range known {
			l.learn(10, false)
		}
		l.update()
		for _, generated := range []int{256, 1000, 5000} {
			got := float64(l.predict(generated, 0.5)) / float64(generated)
			if got < 1.7 || got > 2.3 {
				t.Errorf("after %d sequences of 10 tokens, one of %d is expected to end at %g times that", known, generated, got)
			}
		}
	}
}

// A wave of long answers shows while it runs, not only when it is over.
func TestPredictSeesWhoRuns(t *testing.T) {
	var l lengths
	for range 30 {
		l.learn(10, false)
	}
	expect := func() int {
		var ends []int
		luck := 0.0
		for range 99 {
			_, luck = math.Modf(luck + golden)
			ends = append(ends, l.predict(0, luck))
		}
		slices.Sort(ends)
		return ends[65]
	}
	l.update()
	before := expect()
	for range 60 {
		l.see(500)
	}
	l.update()
	if got := expect(); before > 20 || got < 500 {
		t.Errorf("two thirds end by %d before the wave and by %d in it", before, got)
	}
	l.update()
	if got := expect(); got != before {
		t.Errorf("two thirds end by %d after the wave, %d before it", got, before)
	}
}
