package grammar

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/token/tokentest"
)

var benchSizes = []int{32_000, 128_000}

func BenchmarkNewCompiler(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			v := tokentest.Llama3(b, size)
			for b.Loop() {
				c, err := NewCompiler(v, size+1, []int32{v.EOS()})
				if err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, size := range benchSizes {
		c := realCompiler(b, size)
		for _, cached := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/cached=%v", size, cached), func(b *testing.B) {
				var all []time.Duration
				for b.Loop() {
					if !cached {
						c.cache.clear()
					}
					start := time.Now()
					m, err := c.Compile(b.Context(), Spec{Kind: JSONSchema, Text: walkSchemas[0]})
					if err != nil {
						b.Fatal(err)
					}
					all = append(all, time.Since(start))
					m.Close()
				}
				report(b, "compile", all)
			})
		}
	}
}

// Rows of different schemas at different places, as the steps of a batch see
// them: the time of a step's masks one after the other, and by the workers.
func BenchmarkMasks(b *testing.B) {
	const rows = 32
	for _, size := range benchSizes {
		c := realCompiler(b, size)
		v := newVocabulary(tokentest.Llama3(b, size), size+1, []int32{int32(size)})
		for _, mode := range []string{"workers", "in turn"} {
			b.Run(fmt.Sprintf("%d/%s", size, mode), func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 2))
				ms, masks, errs := make([]*Matcher, rows), make([][]uint32, rows), make([]error, rows)
				for i := range ms {
					ms[i] = mustCompile(b, c, Spec{Kind: JSONSchema, Text: walkSchemas[i%len(walkSchemas)]})
					masks[i] = make([]uint32, c.MaskWords())
				}
				var steps, singles []time.Duration
				for b.Loop() {
					start := time.Now()
					if mode == "workers" {
						c.Masks(ms, masks, errs, time.Time{})
					} else {
						for i, m := range ms {
							one := time.Now()
							errs[i] = m.Mask(masks[i])
							singles = append(singles, time.Since(one))
						}
					}
					steps = append(steps, time.Since(start))
					for i, m := range ms {
						if errs[i] != nil {
							b.Fatal(errs[i])
						}
						id := draw(masks[i], v, r, r.IntN(20) == 0)
						if id < 0 {
							m.Reset()
						} else if err := m.Accept(id); err != nil {
							b.Fatal(err)
						}
					}
				}
				report(b, "step", steps)
				report(b, "mask", singles)
			})
		}
	}
}

func report(b *testing.B, what string, ds []time.Duration) {
	if len(ds) == 0 {
		return
	}
	slices.Sort(ds)
	var sum time.Duration
	for _, d := range ds {
		sum += d
	}
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	b.ReportMetric(us(sum)/float64(len(ds)), what+"-mean-µs")
	b.ReportMetric(us(ds[len(ds)/2]), what+"-p50-µs")
	b.ReportMetric(us(ds[len(ds)*99/100]), what+"-p99-µs")
}
