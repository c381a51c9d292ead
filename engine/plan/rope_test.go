package plan

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"
)

// TestRopeAgainstTransformers compares frequency tables with those that
// testdata/rope.py wrote down. Both compute in float32, so they may differ by
// a rounding or two.
func TestRopeAgainstTransformers(t *testing.T) {
	text, err := os.ReadFile("testdata/rope.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name   string
		Config json.RawMessage
		Ropes  map[string]struct {
			Freqs []float64
			Scale float64
		}
	}
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, tt := range cases {
		t.Run(tt.Name, func(t *testing.T) {
			c, err := ParseConfig(tt.Config, nil)
			if err != nil {
				t.Fatal(err)
			}
			for kind, want := range tt.Ropes {
				got := c.Rope
				if kind == slidingAttention {
					got = c.Ropes[slices.IndexFunc(c.Windows, func(window int) bool { return window > 0 })]
				}
				if len(got.Freqs) != len(want.Freqs) || !near(float64(got.Scale), want.Scale) {
					t.Fatalf("%q: %d frequencies, scale %g; want %d, %g", kind, len(got.Freqs), got.Scale, len(want.Freqs), want.Scale)
				}
				for i, f := range got.Freqs {
					if !near(float64(f), want.Freqs[i]) {
						t.Errorf("%q: frequency %d is %.9g, want %.9g", kind, i, f, want.Freqs[i])
					}
				}
			}
		})
	}
}

// near allows four units in the last place of a float32.
func near(a, b float64) bool { return math.Abs(a-b) <= 4*0x1p-24*math.Abs(b) }
