package sample

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
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
			MinP              *float32 `json:"min_p"`
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
				{&p.MinP, tt.Params.MinP},
				{&p.RepetitionPenalty, tt.Params.RepetitionPenalty},
			} {
				if set.from != nil {
					*set.to = *set.from
				}
			}
			got := slices.Clone(tt.Logits)
			new(Sampler).process(got, &Input{Params: &p, Counts: countsOf(len(got), tt.Seen, nil)})

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
			new(Sampler).process(got, &Input{Params: &p, Counts: countsOf(4, tt.prompt, tt.generated)})
			if !slices.Equal(got, tt.want) {
				t.Errorf("scores %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPresencePenalty(t *testing.T) {
	p := Greedy()
	p.RepetitionPenalty, p.FrequencyPenalty, p.PresencePenalty = 2, 0.5, 0.25
	got := []float32{2, -2, 4, 0}
	new(Sampler).process(got, &Input{Params: &p, Counts: countsOf(4, []int32{0, 1}, []int32{1, 1, 2})})
	if want := []float32{1, -4 - 1 - 0.25, 2 - 0.5 - 0.25, 0}; !slices.Equal(got, want) {
		t.Errorf("scores %v, want %v: once for each id that was generated", got, want)
	}
}

func TestMasksAndBiases(t *testing.T) {
	for _, tt := range []struct {
		name    string
		logits  []float32
		mask    []uint32
		biases  []Bias
		invalid bool
		token   int32
		logprob float64
	}{
		{name: "no mask", logits: []float32{0, 2, 1}, token: 1, logprob: 2 - math.Log(1+math.E+math.E*math.E)},
		{name: "the best is masked", logits: []float32{0, 9, 1}, mask: []uint32{0b101}, token: 2, logprob: 1 - math.Log(1+math.E)},
		{name: "one is allowed", logits: []float32{0, 9, 1}, mask: []uint32{0b001}},
		{name: "bits beyond the row", logits: []float32{0, 9, 1}, mask: []uint32{0xfffffff9, 7}},
		{name: "none is allowed", logits: []float32{0, 9, 1}, mask: []uint32{0xfffffff8}, invalid: true},
		{name: "an empty mask allows none", logits: []float32{0, 9, 1}, mask: []uint32{}, invalid: true},
		{name: "only -Inf is allowed", logits: []float32{0, -inf32, 1}, mask: []uint32{0b010}, invalid: true},
		{name: "NaN behind the mask", logits: []float32{0, float32(math.NaN()), 1}, mask: []uint32{0b001}, invalid: true},
		{name: "biases add up", logits: []float32{0, 9, 1}, biases: []Bias{{0, 100}, {1, 100}, {0, 20}}, logprob: -math.Log1p(math.Exp(-11))},
		{name: "a bias opens no mask", logits: []float32{0, 9, 1}, mask: []uint32{0b101}, biases: []Bias{{1, 100}, {0, -3}}, token: 2,
			logprob: -math.Log1p(math.Exp(-4))},
	} {
		for _, sample := range []int32{0, 1} {
			t.Run(fmt.Sprintf("%s, sample %d", tt.name, sample), func(t *testing.T) {
				p := Greedy()
				p.Sample, p.TopK = sample, 3
				in := Input{Params: &p, Mask: tt.mask, Biases: tt.biases}
				for in.Index = range int32(50) {
					got, _, ok := new(Sampler).Sample(slices.Clone(tt.logits), &in, 0, nil)
					if ok == tt.invalid {
						t.Fatalf("ok = %v, want %v", ok, !tt.invalid)
					}
					if ok && got.Token == tt.token && math.Abs(float64(got.Logprob)-tt.logprob) > 1e-6 {
						t.Errorf("token %d has log-probability %v, want %v", got.Token, got.Logprob, tt.logprob)
					}
					if ok && sample == 0 && got.Token != tt.token {
						t.Errorf("token %d, want %d", got.Token, tt.token)
					}
					if ok && tt.mask != nil && !Allowed(tt.mask, got.Token) {
						t.Errorf("token %d is masked", got.Token)
					}
				}
			})
		}
	}
}

// Every filter meets a row of which nothing is left.
func TestFiltersOfAnEmptyRow(t *testing.T) {
	p := drawParams()
	p.Temperature, p.TopK, p.TopP, p.TypicalP = 0.5, 1, 0.5, 0.5
	if got, _, ok := new(Sampler).Sample([]float32{1, 2, 3}, &Input{Params: &p, Mask: []uint32{0}}, 0, nil); ok {
		t.Errorf("chose %+v of no token", got)
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
	new(Sampler).process(got, &Input{Params: &p, Counts: c})
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
		{name: "min_p of one keeps the best", logits: []float32{0, 3, 3}, params: with(func(p *Params) { p.MinP, p.Seed = 1, 2 }), token: 1, logprob: -math.Ln2},
		{name: "greedy reads no min_p", logits: []float32{0, 0}, params: func() Params { p := Greedy(); p.MinP = 1; return p }(), logprob: -math.Ln2},
		{name: "tiny typical_p keeps one", logits: []float32{0, 0, 0}, params: with(func(p *Params) { p.TypicalP = 1e-9 })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _, ok := new(Sampler).Sample(slices.Clone(tt.logits), &Input{Params: &tt.params}, 0, nil)
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

func TestSampleDoesNotAllocate(t *testing.T) {
	const vocab = 512
	rng := rand.New(rand.NewPCG(3, 4))
	logits, row := make([]float32, vocab), make([]float32, vocab)
	for i := range logits {
		logits[i] = float32(rng.NormFloat64())
	}
	p := drawParams()
	p.Temperature, p.TopK, p.TopP, p.TypicalP, p.MinP, p.RepetitionPenalty = 0.8, 100, 0.9, 0.9, 0.01, 1.1
	counts := countsOf(vocab, []int32{1, 2, 3}, []int32{4})
	top := make([]Alternative, 32)
	var s Sampler
	index := int32(0)
	if n := testing.AllocsPerRun(100, func() {
		copy(row, logits)
		s.Sample(row, &Input{Params: &p, Counts: counts, Index: index}, 5, top)
		index++
	}); n != 0 {
		t.Errorf("%v allocations a row, want 0", n)
	}
}
