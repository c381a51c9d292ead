package engine

import (
	"slices"

	"github.com/millrace-ai/millrace/engine/device"
)

// rules are what a request asks of its tokens besides its grammar: they narrow the mask
// of a row. Sequences of one prompt share them.
type rules struct {
	base        []uint32  // a mask of the tokens that may come at all; nil: all
	banned      [][]int32 // sequences of two tokens or more
	least       int       // so many tokens must come before one of
	stops       []int32   // or of
	eos         []int32   // the model's, unless
	ignore      bool      // they end nothing; those of a grammar end it nevertheless
	constrained bool      // what a grammar leaves of them is not known before
	kept        []int32   // scratch of narrow
}

// newRules returns the rules of a request, nil if it has none, or what is wrong with its
// lists.
func (e *Engine) newRules(req *Request) (*rules, error) {
	if req.MinNewTokens == 0 && len(req.StopTokens) == 0 && req.AllowedTokens == nil && len(req.BannedTokens) == 0 {
		return nil, nil
	}
	if err := e.checkLists(req); err != nil {
		return nil, err
	}
	r := &rules{least: req.MinNewTokens, stops: req.StopTokens, eos: e.cfg.EOS, ignore: req.IgnoreEOS, constrained: req.Constraint != nil}
	if req.AllowedTokens != nil {
		r.base = make([]uint32, device.MaskWords(e.limits.Vocab))
		allow(r.base, req.AllowedTokens)
	}
	for _, ban := range req.BannedTokens {
		if len(ban) > 1 {
			r.banned = append(r.banned, ban)
			continue
		}
		if r.base == nil {
			r.base = make([]uint32, device.MaskWords(e.limits.Vocab))
			fill(r.base, e.limits.Vocab)
		}
		forbid(r.base, ban[0])
	}
	if r.base != nil {
		first := slices.Clone(r.base)
		if r.least > 0 {
			forbid(first, r.stops...)
			if !r.ignore {
				forbid(first, r.eos...)
			}
		}
		if empty(first) && !r.constrained {
			return nil, &Error{Kind: Invalid, Msg: "the token lists leave no token to begin with: all allowed tokens are banned, or would end the text too early"}
		}
	}
	return r, nil
}

// checkLists refuses lists that are too long or name tokens that do not exist.
func (e *Engine) checkLists(req *Request) error {
	lists := []struct {
		name   string
		tokens []int32
		most   int
	}{
		{"stop tokens", req.StopTokens, MaxStopTokens},
		{"allowed tokens", req.AllowedTokens, MaxAllowedTokens},
		{"banned tokens", slices.Concat(req.BannedTokens...), MaxBannedTokens},
	}
	switch n := len(req.BannedTokens); {
	case req.MinNewTokens < 0 || req.MinNewTokens > req.MaxNewTokens:
		return invalid("min_new_tokens is %d, must be 0 to max_new_tokens, which is %d", req.MinNewTokens, req.MaxNewTokens)
	case req.AllowedTokens != nil && len(req.AllowedTokens) == 0:
		return invalid("the list of allowed tokens is empty")
	case n > MaxBannedSequences:
		return invalid("%d token sequences are banned, the limit is %d", n, MaxBannedSequences)
	case slices.ContainsFunc(req.BannedTokens, func(ban []int32) bool { return len(ban) == 0 }):
		return invalid("a banned token sequence is empty")
	}
	for _, l := range lists {
		if len(l.tokens) > l.most {
			return invalid("%d %s, the limit is %d", len(l.tokens), l.name, l.most)
		}
		for _, t := range l.tokens {
			if t < 0 || int(t) >= e.limits.Vocab {
				return invalid("%s: there is no token %d, the vocabulary has %d", l.name, t, e.limits.Vocab)
			}
		}
	}
	return nil
}

// wait reports whether the rules depend on the token before, which a step that is
// launched ahead does not know yet, or may leave none.
func (r *rules) wait() bool { return r != nil && (len(r.banned) > 0 || r.constrained) }

// hold reports whether a mask is needed for the token with an index among those
// generated.
func (r *rules) hold(index int) bool {
	return r != nil && (r.base != nil || index < r.least || len(r.banned) > 0)
}

// begin makes a mask of all that the rules admit at any time.
func (r *rules) begin(mask []uint32, vocab int) {
	if r != nil && r.base != nil {
		copy(mask, r.base)
	} else {
		fill(mask, vocab)
	}
}

// narrow removes from a mask what the rules do not admit as the token with an index
// among those that s generates; the tokens before it must be known if they matter. It
// reports whether anything is left. Where a grammar allows nothing but its end, it may
// end, whatever the rules say.
func (r *rules) narrow(mask []uint32, s *sequence, index int) bool {
	constrained := s.constrained()
	ends := 0 // of kept
	if constrained {
		r.kept = appendSet(r.kept[:0], mask, r.eos)
		ends = len(r.kept)
	}
	if r.base != nil {
		for i := range mask {
			mask[i] &= r.base[i]
		}
	}
	for _, ban := range r.banned {
		if r.completes(ban, s, index) {
			forbid(mask, ban[len(ban)-1])
		}
	}
	if index < r.least {
		if constrained {
			r.kept = appendSet(appendSet(r.kept, mask, r.stops), mask, r.eos)
		}
		forbid(mask, r.stops...)
		if constrained || !r.ignore {
			forbid(mask, r.eos...)
		}
		if constrained && empty(mask) {
			allow(mask, r.kept[ends:])
		}
	}
	if constrained && empty(mask) {
		allow(mask, r.kept[:ends])
	}
	return !empty(mask)
}

// admits reports whether the rules let the only possible token be the next one of s.
func (r *rules) admits(s *sequence, token int32) bool {
	if r == nil || slices.Contains(r.eos, token) {
		return true
	}
	return (r.base == nil || has(r.base, token)) && !slices.ContainsFunc(r.banned, func(ban []int32) bool {
		return ban[len(ban)-1] == token && r.completes(ban, s, s.generated)
	})
}

// completes reports whether the tokens before an index are all but the last of ban.
func (r *rules) completes(ban []int32, s *sequence, index int) bool {
	from := index - len(ban) + 1
	if from < 0 {
		return false
	}
	for i := len(ban) - 2; i >= 0; i-- {
		if s.drawn(from+i) != ban[i] {
			return false
		}
	}
	return true
}

func has(mask []uint32, token int32) bool { return mask[token/32]>>(token%32)&1 == 1 }

// appendSet appends those of tokens that a mask has.
func appendSet(dst []int32, mask []uint32, tokens []int32) []int32 {
	for _, t := range tokens {
		if has(mask, t) {
			dst = append(dst, t)
		}
	}
	return dst
}

func allow(mask []uint32, tokens []int32) {
	for _, t := range tokens {
		mask[t/32] |= 1 << (t % 32)
	}
}

func forbid(mask []uint32, tokens ...int32) {
	for _, t := range tokens {
		mask[t/32] &^= 1 << (t % 32)
	}
}

// fill sets the bits of a vocabulary.
func fill(mask []uint32, vocab int) {
	for i := range mask {
		mask[i] = ^uint32(0)
	}
	if rest := vocab % 32; rest > 0 {
		mask[len(mask)-1] = 1<<rest - 1
	}
}

func empty(mask []uint32) bool {
	return !slices.ContainsFunc(mask, func(w uint32) bool { return w != 0 })
}
