package sample

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"testing"
)

// drawParams returns sampling parameters with everything off.
func drawParams() Params {
	p := Greedy()
	p.Sample = 1
	return p
}

func countsOf(vocab int, prompt, generated []int32) *Counts {
	c := NewCounts(vocab)
	for _, id := range prompt {
		c.Add(id, false)
	}
	for _, id := range generated {
		c.Add(id, true)
	}
	return c
}

func TestProcessMatchesTransformers(t *testing.T) {
	data, err := os.ReadFile("testdata/warpers.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name   string
		Params struct {
			Temperature       *float32
			TopK              int32    `json:"top_k"`
			TopP              *float32 `json:"top_p"`
			TypicalP          *float32 `json:"typical_p"`
			RepetitionPenalty *float32 `json:"repetition_penalty"`
		}
		Seen   []int32
		Logits []float32
		Scores []*float32
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, tt := range cases {
		t.Run(tt.Name, func(t *testing.T) {
			p := drawParams()
			p.TopK = tt.Params.TopK
			for _, set := range []struct {
				to   *float32
				from *float32
			}{
				{&p.Temperature, tt.Params.Temperature},
				{&p.TopP, tt.Params.TopP},
				{&p.TypicalP, tt.Params.TypicalP},
				{&p.RepetitionPenalty, tt.Params.RepetitionPenalty},
			} {
				if set.from != nil {
					*set.to = *set.from
				}
			}
			got := slices.Clone(tt.Logits)
			new(Sampler).process(got, &p, countsOf(len(got), tt.Seen, nil))

			// Scores are equal up to a shift: align them at the largest.
			peak, at := largest(got)
			if tt.Scores[at] == nil {
				t.Fatalf("the best score, token %d, is filtered out in transformers", at)
			}
			shift := *tt.Scores[at] - peak
			for id, want := range tt.Scores {
				switch {
				case (want == nil) != (got[id] == -inf32):
					t.Errorf("token %d: score %v, want %v (nil is filtered out)", id, got[id], want)
				case want != nil && math.Abs(float64(got[id]+shift-*want)) > 1e-5*max(1, math.Abs(float64(*want))):
					t.Errorf("token %d: score %v, want %v", id, got[id]+shift, *want)
				}
			}
		})
	}
}

func TestPenalties(t *testing.T) {
	for _, tt := range []struct {
		name       string
		repetition float32
		frequency  float32
		prompt     []int32
		generated  []int32
		want       []float32
	}{
		{"off", 1, 0, []int32{0}, []int32{1}, []float32{2, -2, 4, 0}},
		{"repetition covers prompt and generated, once each", 2, 0, []int32{0, 0}, []int32{1, 1}, []float32{1, -4, 4, 0}},
		{"frequency counts generated only", 1, 0.5, []int32{0, 0, 2}, []int32{2, 2, 3}, []float32{2, -2, 3, -0.5}},
		{"both, repetition first", 2, 1, nil, []int32{2, 1}, []float32{2, -5, 1, 0}},
		{"reward", 0.5, -1, nil, []int32{0}, []float32{5, -2, 4, 0}},
		{"overflow is the largest float", 1e-40, 0, []int32{2}, nil, []float32{2, -2, math.MaxFloat32, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Greedy()
			p.RepetitionPenalty, p.FrequencyPenalty = tt.repetition, tt.frequency
			got := []float32{2, -2, 4, 0}
			new(Sampler).process(got, &p, countsOf(4, tt.prompt, tt.generated))
			if !slices.Equal(got, tt.want) {
				t.Errorf("scores %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCountsReset(t *testing.T) {
	c := countsOf(4, []int32{1}, []int32{2, 2})
	if got := c.Generated(2); got != 2 {
		t.Errorf("token 2 was generated %d times, want 2", got)
	}
	c.Reset()
	c.Add(3, true)
	p := Greedy()
	p.RepetitionPenalty = 2
	got := []float32{2, 2, 2, 2}
	new(Sampler).process(got, &p, c)
	if want := []float32{2, 2, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("scores %v, want %v: only what was seen since the reset", got, want)
	}
}

func TestSample(t *testing.T) {
	nan := float32(math.NaN())
	with := func(change func(*Params)) Params {
		p := drawParams()
		change(&p)
		return p
	}
	for _, tt := range []struct {
		name    string
		logits  []float32
		params  Params
		invalid bool
		token   int32
		logprob float64
	}{
		{name: "greedy takes the lowest id of a tie", logits: []float32{0, 1, 1, 0}, params: Greedy(), token: 1,
			logprob: -math.Log(2 + 2/math.E)},
		{name: "greedy reads no filter", logits: []float32{0, 0}, params: Params{Temperature: 9, TopK: 1, TopP: 0.1, TypicalP: 0.1, RepetitionPenalty: 1},
			logprob: -math.Ln2},
		{name: "-Inf is never chosen", logits: []float32{-inf32, -3, -inf32}, params: Greedy(), token: 1},
		{name: "NaN", logits: []float32{0, nan}, params: Greedy(), invalid: true},
		{name: "+Inf", logits: []float32{0, inf32}, params: Greedy(), invalid: true},
		{name: "nothing finite", logits: []float32{-inf32, -inf32}, params: Greedy(), invalid: true},
		{name: "top_k of one is certain", logits: []float32{1, 3, 2}, params: with(func(p *Params) { p.TopK = 1 }), token: 1},
		{name: "tiny temperature does not overflow", logits: []float32{50, 80, 79.9}, token: 1,
			params: with(func(p *Params) { p.Temperature = 1e-40 })},
		{name: "tiny top_p keeps one", logits: []float32{0, 0, 0}, params: with(func(p *Params) { p.TopP = 1e-9 })},
		{name: "tiny typical_p keeps one", logits: []float32{0, 0, 0}, params: with(func(p *Params) { p.TypicalP = 1e-9 })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, ok := new(Sampler).Sample(slices.Clone(tt.logits), &tt.params, nil, 0, 0, nil)
			if ok == tt.invalid {
				t.Fatalf("ok = %v, want %v", ok, !tt.invalid)
			}
			if ok && (got.Token != tt.token || math.Abs(float64(got.Logprob)-tt.logprob) > 1e-6) {
				t.Errorf("token %d, log-probability %v; want %d, %v", got.Token, got.Logprob, tt.token, tt.logprob)
			}
		})
	}
}

func TestAlternatives(t *testing.T) {
	logits := []float32{1, 3, -inf32, 3, 2, 3, 1}
	ids := func(top []Alternative) (ids []int32) {
		for _, a := range top {
			ids = append(ids, a.Token)
		}
		return ids
	}
	for _, tt := range []struct {
		name string
		n    int
		room int
		want []int32
	}{
		{"none", 0, 8, nil},
		{"ties with the last follow", 1, 8, []int32{1, 3, 5}},
		{"ties stop at the room there is", 1, 2, []int32{1, 3}},
		{"no tie at the end", 4, 8, []int32{1, 3, 5, 4}},
		{"-Inf is left out", 8, 8, []int32{1, 3, 5, 4, 0, 6}},
		{"more than there is room for", 8, 4, []int32{1, 3, 5, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := make([]Alternative, tt.room)
			_, n, ok := new(Sampler).Score(logits, 4, tt.n, top)
			if got := ids(top[:n]); !ok || !slices.Equal(got, tt.want) {
				t.Errorf("ids %v, want %v", got, tt.want)
			}
		})
	}
}

func TestScore(t *testing.T) {
	top := make([]Alternative, 4)
	got, n, ok := new(Sampler).Score([]float32{0, float32(math.Log(3)), -inf32}, 0, 2, top)
	if !ok || n != 2 || math.Abs(float64(got.Logprob)-math.Log(0.25)) > 1e-6 || math.Abs(float64(top[0].Logprob)-math.Log(0.75)) > 1e-6 {
		t.Errorf("score %v, alternatives %v; want ln 1/4, best ln 3/4", got, top[:n])
	}
	if _, _, ok := new(Sampler).Score([]float32{float32(math.NaN())}, 0, 0, nil); ok {
		t.Error("a NaN row was scored")
	}
}

// distribution computes steps 4 to 7 by sorting, as the definition reads.
func distribution(logits []float32, p *Params) []float64 {
	type token struct {
		id int
		p  float64
	}
	var kept []token
	for id, l := range logits {
		kept = append(kept, token{id, math.Exp(float64(l) / float64(p.Temperature))})
	}
	renormalise := func() {
		sum := 0.0
		for _, k := range kept {
			sum += k.p
		}
		for i := range kept {
			kept[i].p /= sum
		}
	}
	prefix := func(mass float64) {
		sum := 0.0
		for i, k := range kept {
			if i > 0 && sum >= mass {
				kept = kept[:i]
				break
			}
			sum += k.p
		}
		renormalise()
	}
	renormalise()
	sort.SliceStable(kept, func(i, j int) bool { return kept[i].p > kept[j].p })
	if k := int(p.TopK); k > 0 && k < len(kept) {
		end := k
		for end < len(kept) && kept[end].p == kept[k-1].p {
			end++
		}
		kept = kept[:end]
		renormalise()
	}
	if p.TopP < 1 {
		prefix(float64(p.TopP))
	}
	if p.TypicalP < 1 {
		h := 0.0
		for _, k := range kept {
			h -= k.p * math.Log(k.p)
		}
		sort.SliceStable(kept, func(i, j int) bool { return kept[i].id < kept[j].id })
		sort.SliceStable(kept, func(i, j int) bool {
			return math.Abs(-math.Log(kept[i].p)-h) < math.Abs(-math.Log(kept[j].p)-h)
		})
		prefix(float64(p.TypicalP))
	}
	out := make([]float64, len(logits))
	for _, k := range kept {
		out[k.id] = k.p
	}
	return out
}

// filters are the parameter sets that the two distribution tests share.
var filters = []struct {
	name   string
	change func(*Params)
}{
	{"none", func(p *Params) {}},
	{"temperature", func(p *Params) { p.Temperature = 0.6 }},
	{"top_k", func(p *Params) { p.TopK = 4 }},
	{"top_p", func(p *Params) { p.TopP = 0.83 }},
	{"typical_p", func(p *Params) { p.TypicalP = 0.47 }},
	{"all", func(p *Params) { p.Temperature, p.TopK, p.TopP, p.TypicalP = 1.7, 9, 0.93, 0.71 }},
}

func TestFiltersMatchSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s Sampler
	for _, f := range filters {
		t.Run(f.name, func(t *testing.T) {
			p := drawParams()
			f.change(&p)
			for range 200 {
				logits := make([]float32, 1+rng.IntN(60))
				for i := range logits {
					// Multiples of a quarter make ties and exact sums.
					logits[i] = float32(math.Round(rng.NormFloat64()*8)) / 4
				}
				want := distribution(logits, &p)
				got := slices.Clone(logits)
				s.process(got, &p, nil)
				peak, _ := largest(got)
				sum := expSum(got, peak)
				for id := range want {
					if w := weight(got[id], peak) / sum; math.Abs(w-want[id]) > 1e-6 {
						t.Fatalf("logits %v: token %d has probability %v, want %v", logits, id, w, want[id])
					}
				}
			}
		})
	}
}

func TestDrawsFollowTheDistribution(t *testing.T) {
	logits := []float32{1.5, 0.2, -1, 2.1, 0.9, -0.4, 1.1, 0.6, -2, 1.8, 0.1, -0.7}
	const draws = 60_000
	for _, f := range filters {
		for _, vary := range []string{"index", "seed"} {
			t.Run(f.name+" by "+vary, func(t *testing.T) {
				p := drawParams()
				p.Seed = 7
				f.change(&p)
				var s Sampler
				row := make([]float32, len(logits))
				hits := make([]int, len(logits))
				for i := range int32(draws) {
					index := i
					if vary == "seed" {
						p.Seed, index = uint64(i), 3
					}
					copy(row, logits)
					got, _, _ := s.Sample(row, &p, nil, index, 0, nil)
					hits[got.Token]++
				}
				chi, freedom := 0.0, -1.0
				for id, want := range distribution(logits, &p) {
					if want == 0 {
						if hits[id] > 0 {
							t.Errorf("token %d is filtered out and was drawn %d times", id, hits[id])
						}
						continue
					}
					d := float64(hits[id]) - want*draws
					chi += d * d / (want * draws)
					freedom++
				}
				if limit := chiSquareLimit(freedom); chi > limit {
					t.Errorf("χ² = %.1f over %.0f degrees of freedom, want ≤ %.1f; draws %v", chi, freedom, limit, hits)
				}
			})
		}
	}
}

// chiSquareLimit is the 99.9 % quantile by Wilson and Hilferty's approximation.
func chiSquareLimit(freedom float64) float64 {
	const z = 3.0902
	a := 2 / (9 * freedom)
	return freedom * math.Pow(1-a+z*math.Sqrt(a), 3)
}

func TestSampleDoesNotAllocate(t *testing.T) {
	const vocab = 512
	rng := rand.New(rand.NewPCG(3, 4))
	logits, row := make([]float32, vocab), make([]float32, vocab)
	for i := range logits {
		logits[i] = float32(rng.NormFloat64())
	}
	p := drawParams()
	p.Temperature, p.TopK, p.TopP, p.TypicalP, p.RepetitionPenalty = 0.8, 100, 0.9, 0.9, 1.1
	counts := countsOf(vocab, []int32{1, 2, 3}, []int32{4})
	top := make([]Alternative, 32)
	var s Sampler
	index := int32(0)
	if n := testing.AllocsPerRun(100, func() {
		copy(row, logits)
		s.Sample(row, &p, counts, index, 5, top)
		index++
	}); n != 0 {
		t.Errorf("%v allocations a row, want 0", n)
	}
}

func BenchmarkSample(b *testing.B) {
	const vocab = 128_000
	rng := rand.New(rand.NewPCG(5, 6))
	logits, row := make([]float32, vocab), make([]float32, vocab)
	for i := range logits {
		logits[i] = float32(rng.NormFloat64() * 3)
	}
	type filter = struct {
		name   string
		change func(*Params)
	}
	greedy := filter{"greedy", func(p *Params) { p.Sample = 0 }}
	for _, f := range slices.Concat(filters, []filter{greedy}) {
		b.Run(f.name, func(b *testing.B) {
			p := drawParams()
			f.change(&p)
			top := make([]Alternative, 32)
			var s Sampler
			for i := 0; b.Loop(); i++ {
				copy(row, logits)
				s.Sample(row, &p, nil, int32(i), 5, top)
			}
		})
	}
}
