package handler

import (
	"strings"

	"github.com/millrace-ai/millrace/engine/sample"
)

// maxChoices is the largest n, as at OpenAI.
const maxChoices = 128

// checkOpenAI refuses values out of range that generate requests do not have.
func (s *Server) checkOpenAI(x *exchange, m *model, p *parameters) error {
	if _, err := s.adapterOf(x.r.Context(), m, p); err != nil {
		return err
	}
	switch {
	case p.maxNewTokens.set && p.maxNewTokens.v == 0 && p.n.or(1) > 1:
		return invalid("`n` must be 1 where no tokens are generated. Given: %d", p.n.v)
	case p.promptLogprobs.set && p.stream:
		return invalid("`prompt_logprobs` is not supported with `stream`")
	case p.promptLogprobs.or(0) > uint32(max(maxTopLogprobs, s.opt.MaxTopNTokens)):
		return invalid("`prompt_logprobs` must be >= 0 and <= %d. Given: %d", max(maxTopLogprobs, s.opt.MaxTopNTokens), p.promptLogprobs.v)
	case p.spaces && p.showSpecial:
		return unsupported("spaces_between_special_tokens", "is not supported with `skip_special_tokens` false, except for false")
	}
	return checkLogitBias(p.logitBias, m.limits.Vocab)
}

// choices returns how many choices p asks for. More than can ever run are
// refused, whatever else runs.
func (s *Server) choices(p *parameters) (int, error) {
	n, limit, why := p.n.or(1), maxChoices, ""
	if s.opt.MaxConcurrentRequests < limit {
		limit, why = s.opt.MaxConcurrentRequests, ", the sequences that may run at once"
	}
	if n < 1 || int64(n) > int64(limit) {
		return 0, invalid("`n` must be > 0 and <= %d%s. Given: %d", limit, why, n)
	}
	return int(n), nil
}

// isFiller reports whether a client has put the name in where its user gave
// none: huggingface_hub sends "dummy", or else the address it calls, as do
// LangChain and @huggingface/inference.
func isFiller(model string) bool {
	return model == "dummy" || strings.HasPrefix(model, "http://") || strings.HasPrefix(model, "https://")
}

func checkLogitBias(all []sample.Bias, vocab int) error {
	if len(all) > sample.MaxBiases {
		return invalid("`logit_bias` supports up to %d tokens. Given: %d", sample.MaxBiases, len(all))
	}
	seen := make(map[int32]bool, len(all))
	for _, b := range all {
		switch {
		case int(b.Token) >= vocab:
			return invalid("`logit_bias` must name tokens below %d. Given: %d", vocab, b.Token)
		case b.Bias < -sample.MaxBias || b.Bias > sample.MaxBias:
			return invalid("`logit_bias` must be >= -100 and <= 100. Given: %g for token %d", b.Bias, b.Token)
		case seen[b.Token]:
			return invalid("`logit_bias` names token %d twice", b.Token)
		}
		seen[b.Token] = true
	}
	return nil
}
