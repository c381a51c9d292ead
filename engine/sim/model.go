package sim

import (
	"math"
	"math/bits"
	"slices"

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

	// Windows are those of its groups of caches: how many positions, the current
	// included, are seen back, 0 for all. nil is one group that sees all; a model
	// without any cache of positions has an empty slice.
	Windows   []int
	Recurrent bool // it has a state

	// Hidden is the width of rows that stand for tokens, 0 if there are none. A model that
	// has them also has spans and positions of three axes.
	Hidden int

	// Draft says that it has a head that drafts tokens, three of four times the right one,
	// if it is not recurrent.
	Draft bool

	// RopeOriginal and RopeDynamic are as in plan.Plan.
	RopeOriginal int
	RopeDynamic  bool
}

var oneGroup = []int{0}

func (m *Model) windows() []int {
	if m.Windows == nil {
		return oneGroup
	}
	return m.Windows
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
	return m.ContinueUnder(prompt, p, Conditions{}, topN, n, stopAtEOS)
}

// Conditions are what a sequence depends on besides its tokens and parameters. The zero
// value has no effect.
type Conditions struct {
	Biases []sample.Bias
	// Mask returns the mask of the token that follows the prompt and out, nil
	// for none.
	Mask func(out []Choice) []uint32

	Adapter *device.Adapter
	RopeLen int32     // Seq.RopeLen; without effect if RopeOriginal is 0
	Embeds  []float32 // rows of Hidden; device.EmbedRow(i) in the prompt is row i

	// Axes are the three axes of the position of each token of the prompt; those of
	// later ones follow the last. Nil: places in the sequence.
	Axes  []int32
	Spans []device.Span // of the prompt
}

// ContinueUnder is Continue under conditions. It stops before a token whose
// mask allows none. A token that its mask forbids gives way to one that it
// allows; one that is alone has log-probability 0.
func (m Model) ContinueUnder(prompt []int32, p sample.Params, by Conditions, topN, n int, stopAtEOS bool) []Choice {
	r := m.start(&by)
	var counts, biases uint64
	for _, bias := range by.Biases {
		biases += biasOf(bias)
	}
	for _, t := range prompt {
		r.feed(t, prompt)
		if t >= 0 {
			counts += countOf(t, 0)
		}
	}
	var out []Choice
	for i := range n {
		made := choice{x: m.draw(r.sum(), counts, biases, &p, int32(i))}
		if by.Mask != nil {
			made.mask = by.Mask(out)
		}
		if !made.make(&m) {
			break
		}
		c := Choice{Token: made.token, Logprob: made.logprob}
		for k := range made.tops(topN) {
			c.Top = append(c.Top, made.alternative(&m, k))
		}
		out = append(out, c)
		if stopAtEOS && c.Token == m.EOS {
			break
		}
		r.feed(c.Token, prompt)
		counts += countOf(c.Token, 1)
	}
	return out
}

// Score returns the prompt's tokens with their log-probabilities, NaN for the first,
// and topN alternatives for each but that.
func (m Model) Score(prompt []int32, by Conditions, topN int) []Choice {
	out := []Choice{{Token: prompt[0], Logprob: float32(math.NaN())}}
	r := m.start(&by)
	for i := 1; i < len(prompt); i++ {
		r.feed(prompt[i-1], prompt)
		made := score(r.sum(), prompt[i])
		c := Choice{Token: made.token, Logprob: made.logprob}
		for k := range topN {
			c.Top = append(c.Top, made.alternative(&m, k))
		}
		out = append(out, c)
	}
	return out
}

// reader computes a sequence without pages: it keeps all values.
type reader struct {
	history
	by     *Conditions
	class  class
	values []uint64 // by position
}

func (m *Model) start(by *Conditions) *reader {
	return &reader{
		history: history{model: m, sums: make([]uint64, len(m.windows()))},
		by:      by,
		class:   class{adapter: adapterHash(by.Adapter), ropeLen: by.RopeLen},
	}
}

// feed appends a token of the prompt or of what follows it.
func (r *reader) feed(token int32, prompt []int32) {
	for g := range r.sums {
		if q := r.left(g); q >= 0 {
			r.drop(g, q, inGroup(r.values[q], g))
		}
	}
	p := r.length
	c := r.class
	c.axes = axesHash(r.by.axes(p), p)
	for _, s := range r.by.Spans {
		if p >= int(s.Start) && p < int(s.Start+s.Count) {
			for i := s.Start; i < s.Start+s.Count; i++ {
				c.span = mix(c.span, r.token(prompt[i]))
			}
		}
	}
	r.values = append(r.values, r.add(r.token(token), c))
}

// token is what stands for a token, or for a row.
func (r *reader) token(token int32) uint64 {
	if token < 0 {
		row := int(-1 - token)
		return rowHash(r.by.Embeds[row*r.model.Hidden:][:r.model.Hidden])
	}
	return uint64(uint32(token))
}

// axes are those of a place, nil: the place itself.
func (c *Conditions) axes(place int) []int32 {
	n := len(c.Axes) / 3
	switch {
	case n == 0:
		return nil
	case place < n:
		return c.Axes[3*place:][:3]
	}
	next := slices.Max(c.Axes[3*(n-1):]) + int32(place-n) + 1
	return []int32{next, next, next}
}

// axesHash is 0 if all axes are the place.
func axesHash(axes []int32, place int) (h uint64) {
	for _, a := range axes {
		h = mix(h, uint64(uint32(a))-uint64(place))
	}
	if p := int32(place); len(axes) == 3 && axes[0] == p && axes[1] == p && axes[2] == p {
		return 0
	}
	return h
}

// class is what changes the values of a sequence beside its tokens.
type class struct {
	adapter uint64 // its hash
	ropeLen int32
	axes    uint64 // axesHash of its position
	span    uint64 // hash of all tokens that attend to each other with it
}

// rope is what rotations depend on at a position beside the position.
func (m *Model) rope(ropeLen int32, position int) uint64 {
	length := max(int(ropeLen), position+1)
	switch {
	case m.RopeOriginal == 0 || length <= m.RopeOriginal:
		return 0
	case m.RopeDynamic:
		return uint64(length)
	}
	return 1
}

// history is what a sequence knows after some positions: of each group the sum
// over the positions that its window sees, and the state.
type history struct {
	model  *Model
	length int
	sums   []uint64 // by group
	state  uint64
}

// add appends a token and returns the value to store for it, of which each
// group stores its own (inGroup). What the windows leave has been dropped.
func (h *history) add(token uint64, c class) uint64 {
	v := mix(mix(h.model.Seed, token), h.sum()+uint64(h.length))
	if c.adapter != 0 {
		v = mix(v, c.adapter)
	}
	if c.axes != 0 {
		v = mix(v, c.axes)
	}
	if c.span != 0 {
		v = mix(v, c.span)
	}
	if rope := h.model.rope(c.ropeLen, h.length); rope != 0 {
		v = mix(v, rope)
	}
	for g := range h.sums {
		h.read(g, h.length, inGroup(v, g))
	}
	if h.model.Recurrent {
		h.state = mix(h.state, v)
	}
	h.length++
	return v
}

// read counts in the value that a group stores for a position, drop out again.
func (h *history) read(group, position int, v uint64) { h.sums[group] += mix(v, uint64(position)) }
func (h *history) drop(group, position int, v uint64) { h.sums[group] -= mix(v, uint64(position)) }

// left returns the position that a group's window leaves when the next token
// comes, negative if none.
func (h *history) left(group int) int {
	if w := h.model.windows()[group]; w > 0 {
		return h.length - w
	}
	return -1
}

// sum is all that counts.
func (h *history) sum() uint64 {
	x := h.state
	for _, s := range h.sums {
		x = mix(x, s)
	}
	return x
}

// inGroup is what a group stores where another stores something else.
func inGroup(v uint64, group int) uint64 { return v + uint64(group) }

// adapterHash is 0 for none.
func adapterHash(a *device.Adapter) uint64 {
	if a == nil {
		return 0
	}
	h := mix(uint64(a.Rank), uint64(len(a.Targets)))
	for _, t := range a.Targets {
		h = mix(mix(h, uint64(t.Tensor)), uint64(t.First)<<32|uint64(t.Rows))
		h = mix(mix(h, rowHash(t.A)), rowHash(t.B))
	}
	return h | 1
}

func rowHash(row []float32) uint64 {
	h := mix(uint64(len(row)), ^uint64(0))
	for _, x := range row {
		h = mix(h, uint64(math.Float32bits(x)))
	}
	return h
}

// draw is the randomness of one sampled token.
func (m *Model) draw(sum, counts, biases uint64, p *sample.Params, index int32) uint64 {
	x := mix(sum, m.Seed)
	x = mix(x, uint64(math.Float32bits(p.Temperature))<<32|uint64(math.Float32bits(p.TopP)))
	x = mix(x, uint64(math.Float32bits(p.TypicalP))<<32|uint64(uint32(p.TopK)))
	if p.Counts() {
		x = mix(x, uint64(math.Float32bits(p.RepetitionPenalty))<<32|uint64(math.Float32bits(p.FrequencyPenalty)))
		x = mix(x, counts)
	}
	if p.MinP != 0 {
		x = mix(x, uint64(math.Float32bits(p.MinP)))
	}
	if p.PresencePenalty != 0 || p.Watermark != 0 {
		x = mix(x, uint64(math.Float32bits(p.PresencePenalty))<<32|uint64(p.Watermark))
	}
	if biases != 0 {
		x = mix(x, biases)
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

// choice is a sampled token that is being chosen.
type choice struct {
	x       uint64
	mask    []uint32 // nil: none
	allowed int      // by the mask, if there is one
	token   int32
	logprob float32
}

// make chooses the token, and reports whether the mask allows any.
func (c *choice) make(m *Model) bool {
	c.token, c.logprob = m.token(c.x), logprob(c.x)
	if c.mask == nil {
		return true
	}
	c.allowed = 0
	for word := range c.mask {
		c.allowed += bits.OnesCount32(c.bits(m, word))
	}
	switch c.allowed {
	case 0:
		return false
	case m.Vocab: // which is as if there were no mask
		c.mask = nil
		return true
	}
	if c.allowed == 1 {
		c.logprob = 0
	}
	if !sample.Allowed(c.mask, c.token) {
		c.token = c.nth(m, mix(c.x, 2))
	}
	return true
}

// bits returns a word of the mask without what lies beyond the vocabulary.
func (c *choice) bits(m *Model, word int) uint32 {
	if beyond := (word+1)*32 - m.Vocab; beyond > 0 {
		return c.mask[word] << beyond >> beyond
	}
	return c.mask[word]
}

// nth returns the token at n modulo their number among those that are allowed.
func (c *choice) nth(m *Model, n uint64) int32 {
	left := int(n % uint64(c.allowed))
	for word := 0; ; word++ {
		set := c.bits(m, word)
		if n := bits.OnesCount32(set); left >= n {
			left -= n
			continue
		}
		for ; left > 0; left-- {
			set &= set - 1 // drops the lowest
		}
		return int32(word*32 + bits.TrailingZeros32(set))
	}
}

// tops is how many alternatives there are if n are asked for.
func (c *choice) tops(n int) int {
	if c.mask == nil {
		return n
	}
	return min(n, c.allowed)
}

// alternative is the k-th entry of a top list, the first being the choice.
func (c *choice) alternative(m *Model, k int) device.Alternative {
	if k == 0 {
		return device.Alternative{Token: c.token, Logprob: c.logprob}
	}
	id := m.First + int32(mix(c.x, uint64(k))%(uint64(m.Vocab)-uint64(m.First)))
	if c.mask != nil {
		id = c.nth(m, mix(c.x, uint64(k)))
	}
	return device.Alternative{Token: id, Logprob: c.logprob - float32(k)}
}

// score is what stands for a choice of target.
func score(sum uint64, target int32) choice {
	x := mix(sum, uint64(uint32(target)))
	return choice{x: x, token: target, logprob: logprob(x)}
}

func logprob(x uint64) float32 { return -8 * float32(x>>40) / (1 << 24) }

// countOf is what a token adds to its slot's counts.
func countOf(token, generated int32) uint64 {
	return mix(uint64(uint32(token)), uint64(generated)+1)
}

// biasOf is what a bias adds to its slot's biases.
func biasOf(b sample.Bias) uint64 {
	return mix(uint64(uint32(b.Token)), uint64(math.Float32bits(b.Bias))+1)
}

// mix is the finaliser of SplitMix64 over both arguments.
func mix(a, b uint64) uint64 {
	x := a ^ (b+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
