// Package backendtest is the conformance suite that every backend runs: the
// calls of device.Backend, each operation of package plan, caches in pages and
// states, sampling, and independence of the batch, compared with engine/ref. The
// backend is behind device.Checked, which refuses for it.
//
//	func TestConformance(t *testing.T) {
//		backendtest.Run(t, open, backendtest.Options{BitExact: true})
//	}
//
// Plans here are small and odd on purpose: widths that fill no SIMD register,
// one row, no row, shuffled pages. What a test sees of a backend is what the
// engine sees: log-probabilities, alternatives and choices.
package backendtest

import (
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

// Open returns a backend without a model; the suite closes it.
type Open func(t *testing.T, limits device.Limits) device.Backend

// Options say what a backend promises.
type Options struct {
	// Tolerance bounds the difference from ref in log-probability with
	// float32 weights, HalfTolerance with 16-bit ones. Zero means 1e-4 and
	// 2e-2. A KV cache in float16 stays within half of the latter; one in
	// bfloat16 was seen to reach 0.1 on small random models.
	Tolerance, HalfTolerance float64

	// Cache is the format of the caches in pages.
	Cache plan.Format

	// BitExact: a sequence's results do not depend on what shares its
	// batches or how its prompt was cut, to the bit.
	BitExact bool

	// NoNumerics runs only the tests that need no arithmetic.
	NoNumerics bool

	// Brief leaves out most of what is repeated with other numbers, for a device that
	// is emulated or differs little from one that is tested in full.
	Brief bool
}

// Run runs the suite as subtests of t.
func Run(t *testing.T, open Open, opt Options) {
	if opt.Tolerance == 0 {
		opt.Tolerance = 1e-4
	}
	if opt.HalfTolerance == 0 {
		opt.HalfTolerance = 2e-2
	}
	s := &suite{open: open, opt: opt}
	t.Run("calls", s.calls)
	t.Run("descriptors", s.descriptors)
	t.Run("refused choices", s.refusedChoices)
	if opt.NoNumerics {
		return
	}
	t.Run("plans", s.plans)
	t.Run("attention", s.attention)
	if opt.Brief && opt.Cache != 0 {
		return
	}
	t.Run("layers", s.layers)
	t.Run("cache", s.cache)
	t.Run("states", s.states)
	t.Run("inputs", s.inputs)
	t.Run("rows", s.rowKinds)
	t.Run("invariance", s.invariance)
	t.Run("ring", s.ring)
	t.Run("warm up", s.warmUp)
	if opt.Cache != 0 {
		return // the rest has nothing to do with caches
	}
	t.Run("operations", s.operations)
	t.Run("encoders", s.encoders)
	t.Run("sampling", s.sampling)
	t.Run("masks and biases", s.masksAndBiases)
	t.Run("draws", s.draws)
	t.Run("adopted", s.adopted)
	t.Run("invalid rows", s.invalidRows)
	t.Run("drafts", s.drafts)
}

type suite struct {
	open Open
	opt  Options
}

// tolerance is the allowed difference from ref for weights of a type. Where values are
// rounded to integers, a difference in the last bit of one can become one of 1 in 127.
func (s *suite) tolerance(format plan.Format) float64 {
	if format.Integer() {
		return 3 * s.opt.HalfTolerance
	}
	if format == plan.F32 {
		return s.opt.Tolerance
	}
	return s.opt.HalfTolerance
}

// limits are what most tests open a backend with.
var limits = device.Limits{MaxTokens: 96, MaxRows: 96, MaxSlots: 6, MaxPagesPerSlot: 8, Threads: 2}

// formats are those of weights that every backend takes, quantized those that a
// backend takes if its caps say so.
var (
	formats   = []plan.Format{plan.F32, plan.F16, plan.BF16}
	quantized = []plan.Format{
		plan.W8, plan.W8.Grouped(128), plan.W8.Grouped(32), plan.W8.Grouped(32) | plan.WithMinimum,
		plan.W4.Grouped(128), plan.W4.Grouped(32), plan.W4.Grouped(32) | plan.WithMinimum,
		plan.W4.Grouped(32) | plan.CodesE2M1, plan.W4.Grouped(16) | plan.CodesE2M1, plan.W4.Grouped(32) | plan.CodesIQ4NL, plan.W4.Grouped(64) | plan.CodesNF4,
		plan.F8.Grouped(128),
	}
)

// formats returns all that the backend takes.
func (s *suite) formats(t *testing.T) []plan.Format {
	b := s.open(t, limits)
	defer b.Close()
	all := slices.Clone(formats)
	for _, f := range quantized {
		if b.Caps().Formats>>f.Kind()&1 == 1 {
			all = append(all, f)
		}
	}
	return all
}
