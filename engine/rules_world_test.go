package engine

import (
	"math/rand/v2"
	"slices"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/sim"
)

func ruled(r *Request) bool {
	return r.MinNewTokens > 0 || r.StopTokens != nil || r.AllowedTokens != nil || r.BannedTokens != nil
}

// admitted returns the mask of the token after out: those of mask, which is a
// grammar's, or nil for all, that the lists of a request admit. It asks of each
// token whether it may come.
func admitted(r *Request, m *sim.Model, mask []uint32, out []sim.Choice) []uint32 {
	if !ruled(r) {
		return mask
	}
	var text []int32
	for _, c := range out {
		text = append(text, c.Token)
	}
	listed := func(t int32) bool {
		text := append(slices.Clone(text), t)
		return (r.AllowedTokens == nil || slices.Contains(r.AllowedTokens, t)) &&
			!slices.ContainsFunc(r.BannedTokens, func(ban []int32) bool {
				return len(ban) <= len(text) && slices.Equal(ban, text[len(text)-len(ban):])
			})
	}
	constrained := mask != nil
	var free, early, end []int32
	for t := range int32(m.Vocab) {
		if constrained && !sample.Allowed(mask, t) {
			continue
		}
		ends := slices.Contains(r.StopTokens, t) || t == m.EOS && (constrained || !r.IgnoreEOS)
		switch {
		case listed(t) && len(out) < r.MinNewTokens && ends:
			early = append(early, t)
		case listed(t):
			free = append(free, t)
		case t == m.EOS:
			end = append(end, t)
		}
	}
	// Where a grammar has nothing else, what comes too early is better than nothing.
	if constrained && len(free) == 0 {
		free = early
	}
	if constrained && len(free) == 0 {
		free = end
	}
	words := make([]uint32, device.MaskWords(m.Vocab))
	for _, t := range free {
		words[t/32] |= 1 << (t % 32)
	}
	return words
}

// cutShort ends what c wants at a stop token or a repetition, and notes if it ends
// for want of a token that may come.
func (c *client) cutShort() {
	n := len(c.want)
	ended := c.spec == nil && n > 0 && c.want[n-1].Token == c.eos && !c.req.IgnoreEOS || c.followed.ended || n == c.req.MaxNewTokens
	for i, w := range c.want {
		switch {
		case i >= c.req.MinNewTokens && slices.Contains(c.req.StopTokens, w.Token):
			c.want = c.want[:i+1]
			return
		case i == n-1 && ended || i+1 < c.req.MinNewTokens:
		case repeated(c.want[:i+1], c.req.Repetition):
			c.want, c.looped = c.want[:i+1], true
			return
		}
	}
	c.stuck = !ended
}

// repeated reports whether text ends with the same tokens several times over. It
// compares them all.
func repeated(text []sim.Choice, r Repetition) bool {
	same := func(x, y sim.Choice) bool { return x.Token == y.Token }
	for size := r.Min; r.Count > 0 && size <= r.Max && size*r.Count <= len(text); size++ {
		pattern, times := text[len(text)-size:], 1
		for times < r.Count && slices.EqualFunc(text[len(text)-(times+1)*size:][:size], pattern, same) {
			times++
		}
		if times == r.Count {
			return true
		}
	}
	return false
}

// addRules gives r some lists of a vocabulary.
func addRules(rng *rand.Rand, r *Request, m *sim.Model) {
	some := func(most int) (list []int32) {
		for range 1 + rng.IntN(most) {
			list = append(list, m.First+int32(rng.IntN(m.Vocab-int(m.First))))
		}
		return list
	}
	if rng.IntN(2) == 0 {
		r.MinNewTokens = rng.IntN(r.MaxNewTokens + 1)
	}
	if rng.IntN(2) == 0 {
		r.StopTokens = slices.DeleteFunc(some(4), func(t int32) bool { return t == m.EOS })
	}
	if rng.IntN(3) == 0 {
		r.AllowedTokens = some([]int{2, 2 * m.Vocab}[rng.IntN(2)])
	}
	for range rng.IntN(4) {
		r.BannedTokens = append(r.BannedTokens, some(2))
	}
	if rng.IntN(3) == 0 {
		least := 1 + rng.IntN(3)
		r.Repetition = Repetition{Min: least, Max: least + rng.IntN(4), Count: 2 + rng.IntN(2)}
	}
}
