package bench

import (
	"math"
	"time"
)

const (
	histBase    = float64(time.Microsecond) // upper edge of the first bucket
	histBuckets = 2300                      // up to about two hours
)

var (
	histGrowth    = 1.01
	histLogGrowth = math.Log(histGrowth)
)

// Histogram counts durations in buckets that grow by 1 %, which is the error
// of a quantile. The zero value is empty.
type Histogram struct {
	counts [histBuckets]uint32
	n      int64
	sum    time.Duration
	max    time.Duration
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	h.n++
	h.sum += d
	h.max = max(h.max, d)
	i := 0
	if f := float64(d) / histBase; f > 1 {
		i = min(int(math.Ceil(math.Log(f)/histLogGrowth)), histBuckets-1)
	}
	h.counts[i]++
}

func (h *Histogram) merge(o *Histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// quantile returns a duration that a share q of the counted ones does not
// exceed, 0 if there are none.
func (h *Histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := max(1, int64(math.Ceil(q*float64(h.n))))
	var seen int64
	for i, c := range h.counts {
		if seen += int64(c); seen >= rank {
			return min(h.max, time.Duration(histBase*math.Pow(histGrowth, float64(i))))
		}
	}
	return h.max
}

// Latency summarises durations, in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`

	curve []float64 // the quantiles of curveAt
}

// curveAt are the quantiles of a plot of a distribution.
var curveAt = func() (list []float64) {
	for i := range 99 {
		list = append(list, float64(i+1)/100)
	}
	return append(list, 0.995, 0.999, 1)
}()

// Latency sums up what was counted.
func (h *Histogram) Latency() Latency {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	l := Latency{Count: h.n, P50: ms(h.quantile(0.5)), P90: ms(h.quantile(0.9)), P95: ms(h.quantile(0.95)), P99: ms(h.quantile(0.99)), Max: ms(h.max)}
	if h.n > 0 {
		l.Mean = ms(h.sum) / float64(h.n)
		for _, q := range curveAt {
			l.curve = append(l.curve, ms(h.quantile(q)))
		}
	}
	return l
}
