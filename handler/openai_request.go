package handler

import (
	"strconv"
	"strings"

	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/handler/body"
)

// openAIParameters are the fields that the requests of both OpenAI routes
// have. Fields that are null count as absent.
type openAIParameters struct {
	model            string // see isBaseModel and isFiller
	maxTokens        optional[uint32]
	temperature      optional[float32] // 0: greedy
	topP             optional[float32]
	frequencyPenalty optional[float32]
	presencePenalty  optional[float32]
	seed             optional[uint64]
	stop             []string // one string counts as a list of one
	n                optional[uint32]
	logitBias        []sample.Bias
	stream           bool
	includeUsage     bool // one more chunk, which tells the usage
}

var (
	openAIFields = []string{
		"model", "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop", "n",
		"logit_bias", "stream", "stream_options",
	}
	streamOptionsFields = []string{"include_usage"}
)

// decode reads the value, which is not null, of a field that is one of
// openAIFields.
func (p *openAIParameters) decode(r *body.Reader, field string) (err error) {
	switch field {
	case "model":
		p.model, err = r.String()
	case "max_tokens":
		return set(&p.maxTokens, r.Uint32)
	case "temperature":
		return set(&p.temperature, r.Float32)
	case "top_p":
		return set(&p.topP, r.Float32)
	case "frequency_penalty":
		return set(&p.frequencyPenalty, r.Float32)
	case "presence_penalty":
		return set(&p.presencePenalty, r.Float32)
	case "seed":
		return set(&p.seed, r.Uint64)
	case "stop":
		p.stop, err = decodeStop(r)
	case "n":
		return set(&p.n, r.Uint32)
	case "logit_bias":
		p.logitBias, err = decodeLogitBias(r)
	case "stream":
		p.stream, err = r.Bool()
	case "stream_options":
		err = r.Object("struct StreamOptions", streamOptionsFields, func(int) error {
			if null, err := r.Null(); null {
				return err
			}
			p.includeUsage, err = r.Bool()
			return err
		})
	}
	return err
}

// decodeLogitBias reads OpenAI's object from token ids to numbers. TGI's
// contract has a list of numbers instead, which has no effect there, nor here.
func decodeLogitBias(r *body.Reader) (all []sample.Bias, err error) {
	if r.IsArray() {
		return nil, r.Array("a sequence", func(int) error {
			_, err := r.Float32()
			return err
		})
	}
	err = r.Map("a map from token ids to numbers", func(name string) error {
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil || id < 0 {
			return r.Errorf("invalid token id `%s`, expected a whole number", body.Cut(name))
		}
		value, err := r.Float32()
		all = append(all, sample.Bias{Token: int32(id), Bias: value})
		return err
	})
	return all, err
}

// parameters returns what p says in the terms of a generate request, whose
// checks it shares. As in TGI a request without a temperature draws at 1.
func (p *openAIParameters) parameters() parameters {
	g := parameters{
		doSample:         true,
		temperature:      p.temperature,
		topP:             p.topP,
		frequencyPenalty: p.frequencyPenalty,
		maxNewTokens:     p.maxTokens,
		seed:             p.seed,
		stop:             p.stop,
	}
	if p.greedy() {
		g.doSample, g.temperature = false, optional[float32]{}
	}
	return g
}

func (p *openAIParameters) greedy() bool { return p.temperature.set && p.temperature.v == 0 }

// maxChoices is the largest n, as at OpenAI.
const maxChoices = 128

// checkOpenAI refuses values out of range that generate requests do not have.
// vocab is the number of token ids.
func (s *Server) checkOpenAI(p *openAIParameters, vocab int) error {
	presence := p.presencePenalty.or(0)
	limit := min(maxChoices, s.opt.MaxConcurrentRequests)
	switch n := p.n.or(1); {
	case !s.isBaseModel(p.model) && !isFiller(p.model):
		return invalid("there is no model %q: this server has %q, which \"tgi\" means, too", body.Cut(p.model), s.opt.ModelID)
	case presence < -2 || presence > 2:
		return invalid("`presence_penalty` must be >= -2.0 and <= 2.0")
	case n < 1 || int64(n) > int64(limit):
		return invalid("`n` must be > 0 and <= %d. Given: %d", limit, n)
	}
	return checkLogitBias(p.logitBias, vocab)
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

// sampling returns the engine's parameters; g are those of p that were checked.
func (p *openAIParameters) sampling(g *parameters) sample.Params {
	if p.greedy() {
		g.topP = optional[float32]{} // it would draw
	}
	params := sampling(g)
	params.PresencePenalty = p.presencePenalty.or(0)
	return params
}
