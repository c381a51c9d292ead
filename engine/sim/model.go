package sim

import (
	"math"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
)

// Model is the function a Backend computes. Sampled tokens are ids from First
// to Vocab-1; EOSRate of them are EOS.
type Model struct {
	Seed    uint64 // another seed is another model
	Vocab   int
	First   int32
	EOS     int32
	EOSRate float64
}

// Choice is a generated token as the backend returns it.
type Choice struct {
	Token   int32
	Logprob float32
	Top     []device.Alternative
}

// Continue returns the n tokens that follow a prompt, or fewer if stopAtEOS
// and the model ends the text, with topN alternatives each. It is what any
// engine must produce, however it cuts, orders or repeats the work.
func (m Model) Continue(prompt []int32, p sample.Params, topN, n int, stopAtEOS bool) []Choice {
	var h history
	var counts uint64
	for _, t := range prompt {
		h.add(m.Seed, t)
		counts += countOf(t, 0)
	}
	var out []Choice
	for i := range n {
		x := m.draw(h.sum, counts, &p, int32(i))
		c := Choice{Token: m.token(x), Logprob: logprob(x)}
		for k := range topN {
			c.Top = append(c.Top, m.alternative(x, k))
		}
		out = append(out, c)
		if stopAtEOS && c.Token == m.EOS {
			break
		}
		h.add(m.Seed, c.Token)
		counts += countOf(c.Token, 1)
	}
	return out
}

// Score returns the log-probability of each prompt token but the first, whose
// entry is NaN.
func (m Model) Score(prompt []int32) []float32 {
	out := []float32{float32(math.NaN())}
	var h history
	for i := 1; i < len(prompt); i++ {
		h.add(m.Seed, prompt[i-1])
		out = append(out, score(h.sum, prompt[i]))
	}
	return out
}

// history is what the positions of a sequence add up to.
type history struct {
	length int
	sum    uint64
}

// add appends a token and returns the value to store for it.
func (h *history) add(seed uint64, token int32) uint64 {
	v := mix(mix(seed, uint64(uint32(token))), h.sum+uint64(h.length))
	h.read(v)
	return v
}

// read appends a position whose stored value is v.
func (h *history) read(v uint64) {
	h.sum += mix(v, uint64(h.length))
	h.length++
}

// draw is the randomness behind one sampled token.
func (m *Model) draw(sum, counts uint64, p *sample.Params, index int32) uint64 {
	x := mix(sum, m.Seed)
	x = mix(x, uint64(math.Float32bits(p.Temperature))<<32|uint64(math.Float32bits(p.TopP)))
	x = mix(x, uint64(math.Float32bits(p.TypicalP))<<32|uint64(uint32(p.TopK)))
	if p.Counts() {
		x = mix(x, uint64(math.Float32bits(p.RepetitionPenalty))<<32|uint64(math.Float32bits(p.FrequencyPenalty)))
		x = mix(x, counts)
	}
	if p.Sample == 1 {
		x = mix(x, p.Seed+uint64(index))
	}
	return x
}

func (m *Model) token(x uint64) int32 {
	if m.EOSRate > 0 && float64(mix(x, 1)>>11)/(1<<53) < m.EOSRate {
		return m.EOS
	}
	n := uint64(m.Vocab) - uint64(m.First)
	t := m.First + int32(x%n)
	if t == m.EOS && n > 1 {
		t = m.First + int32((x+1)%n)
	}
	return t
}

// alternative is the k-th entry of a top list, the first being the choice.
func (m *Model) alternative(x uint64, k int) device.Alternative {
	if k == 0 {
		return device.Alternative{Token: m.token(x), Logprob: logprob(x)}
	}
	return device.Alternative{
		Token:   m.First + int32(mix(x, uint64(k))%(uint64(m.Vocab)-uint64(m.First))),
		Logprob: logprob(x) - float32(k),
	}
}

func score(sum uint64, target int32) float32 { return logprob(mix(sum, uint64(uint32(target)))) }

func logprob(x uint64) float32 { return -8 * float32(x>>40) / (1 << 24) }

// countOf is what a token adds to its slot's counts.
func countOf(token, generated int32) uint64 {
	return mix(uint64(uint32(token)), uint64(generated)+1)
}

// mix is the finaliser of SplitMix64 over both arguments.
func mix(a, b uint64) uint64 {
	x := a ^ (b+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
