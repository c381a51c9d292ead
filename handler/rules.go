package handler

import (
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/engine"
)

// Bounds of bad_words: each word is two token sequences.
const (
	maxBadWords     = 256
	maxBadWordBytes = 256
	maxSaltBytes    = 1024
)

// applyRules puts the rules of p into req, whose other members are set.
func (s *Server) applyRules(x *exchange, m *model, req *engine.Request, p *parameters) error {
	names := p.names()
	switch {
	case int64(p.minTokens) > int64(req.MaxNewTokens):
		return invalid("`%s` must be <= `%s`. Given: %d and %d", names.minNew, names.maxNew, p.minTokens, req.MaxNewTokens)
	case len(p.cacheSalt) > maxSaltBytes:
		return invalid("`cache_salt` must have at most %d bytes. Given: %d", maxSaltBytes, len(p.cacheSalt))
	}
	for _, list := range []struct {
		field string
		ids   []int32
	}{{"stop_token_ids", p.stopTokens}, {"allowed_token_ids", p.allowed}} {
		if i := slices.IndexFunc(list.ids, func(id int32) bool { return int(id) >= m.limits.Vocab }); i >= 0 {
			return invalid("`%s` must name tokens below %d. Given: %d at %d", list.field, m.limits.Vocab, list.ids[i], i)
		}
	}
	req.MinNewTokens, req.IgnoreEOS, req.CacheSalt = int(p.minTokens), p.ignoreEOS, p.cacheSalt
	req.StopTokens, req.AllowedTokens = p.stopTokens, p.allowed
	req.Repetition = p.repetition.or(s.opt.Repetition)
	banned := 0 // tokens
	for _, word := range p.badWords {
		if word == "" || len(word) > maxBadWordBytes {
			return invalid("`bad_words` must have 1 to %d bytes each. Given: %d", maxBadWordBytes, len(word))
		}
		// In the middle of a text a word follows a space, at its beginning it
		// does not; the tokens differ.
		bare := strings.TrimLeft(word, " ")
		for _, text := range []string{bare, " " + bare} {
			ids, err := s.encode(x, m, text, 0, false, &parameters{})
			if err != nil {
				return err
			}
			if banned += len(ids); banned > engine.MaxBannedTokens {
				return invalid("`bad_words` must have at most %d tokens, half of them for the words after a space", engine.MaxBannedTokens)
			}
			if len(ids) > 0 {
				req.BannedTokens = append(req.BannedTokens, ids)
			}
		}
	}
	return nil
}
