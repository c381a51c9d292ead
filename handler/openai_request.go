package handler

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/chat"
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
	usageEach        bool // every chunk tells the usage so far

	// What vLLM has beyond OpenAI.
	tokenRules
	topK              optional[int32] // -1 and 0: off
	typicalP          optional[float32]
	repetitionPenalty optional[float32]
	keepStop          bool             // show what ended the text
	showSpecial       bool             // show special tokens
	spaces            bool             // put spaces between special tokens
	promptLogprobs    optional[uint32] // show those of the prompt, and that many alternatives
	truncate          optional[uint64] // tokens of the prompt that are kept
	addSpecial        optional[bool]   // whether the tokenizer adds its special tokens to the prompt
	format            chat.ResponseFormat
	formatField       string // that format came from, "" for none
}

var (
	openAIFields = slices.Concat([]string{
		"model", "max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop", "n",
		"logit_bias", "stream", "stream_options",
		"top_k", "typical_p", "repetition_penalty", "include_stop_str_in_output", "skip_special_tokens",
		"spaces_between_special_tokens", "prompt_logprobs", "truncate_prompt_tokens", "add_special_tokens",
	}, formatFields, ruleFields)
	streamOptionsFields = []string{"include_usage", "continuous_usage_stats"}
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
		seed, negative, err := r.Seed()
		if !negative || seed != math.MaxUint64 { // -1: none
			p.seed = some(seed)
		}
		return err
	case "stop":
		p.stop, err = decodeStop(r)
	case "n":
		return set(&p.n, r.Uint32)
	case "logit_bias":
		p.logitBias, err = decodeLogitBias(r)
	case "stream":
		p.stream, err = r.Bool()
	case "stream_options":
		err = r.Object("struct StreamOptions", streamOptionsFields, func(field int) error {
			if null, err := r.Null(); null {
				return err
			}
			if field == 0 {
				p.includeUsage, err = r.Bool()
			} else {
				p.usageEach, err = r.Bool()
			}
			return err
		})
	case "top_k":
		return set(&p.topK, r.Int32)
	case "typical_p":
		return set(&p.typicalP, r.Float32)
	case "repetition_penalty":
		return set(&p.repetitionPenalty, r.Float32)
	case "include_stop_str_in_output":
		p.keepStop, err = r.Bool()
	case "skip_special_tokens":
		var skip bool
		skip, err = r.Bool()
		p.showSpecial = !skip
	case "spaces_between_special_tokens":
		p.spaces, err = r.Bool()
	case "prompt_logprobs":
		return set(&p.promptLogprobs, r.Uint32)
	case "truncate_prompt_tokens":
		var n int32
		if n, err = r.Int32(); n != -1 { // -1: what the model takes
			p.truncate = some(uint64(max(n, 0)))
		}
	case "add_special_tokens":
		return set(&p.addSpecial, r.Bool)
	default:
		if slices.Contains(formatFields, field) {
			return p.decodeFormat(r, field)
		}
		return p.tokenRules.decode(r, field)
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
func (p *openAIParameters) parameters(route *fieldNames) parameters {
	g := parameters{
		tokenRules:        p.tokenRules,
		doSample:          true,
		temperature:       p.temperature,
		topK:              p.topK,
		topP:              p.topP,
		typicalP:          p.typicalP,
		frequencyPenalty:  p.frequencyPenalty,
		presencePenalty:   p.presencePenalty,
		repetitionPenalty: p.repetitionPenalty,
		maxNewTokens:      p.maxTokens,
		seed:              p.seed,
		stop:              p.stop,
		truncate:          p.truncate,
		route:             route,
	}
	if k := p.topK.or(0); k == -1 || k == 0 {
		g.topK = optional[int32]{}
	}
	if p.greedy() {
		g.doSample, g.temperature = false, optional[float32]{}
	}
	if g.topP.set && g.topP.v == 0 {
		g.topP = optional[float32]{} // greedy
	}
	return g
}

// greedy reports whether the likeliest token is to be chosen: the limit that
// OpenAI gives both fields at 0.
func (p *openAIParameters) greedy() bool {
	return p.temperature.set && p.temperature.v == 0 || p.topP.set && p.topP.v == 0
}

// maxChoices is the largest n, as at OpenAI.
const maxChoices = 128

// checkOpenAI refuses values out of range that generate requests do not have.
// vocab is the number of token ids.
func (s *Server) checkOpenAI(p *openAIParameters, vocab int) error {
	switch {
	case !s.isBaseModel(p.model) && !isFiller(p.model):
		e := invalid("there is no model %q: this server has %q, which \"tgi\" means, too", body.Cut(p.model), s.opt.ModelID)
		e.param, e.code = "model", "model_not_found"
		return e
	case p.maxTokens.set && p.maxTokens.v == 0 && p.n.or(1) > 1:
		return invalid("`n` must be 1 where no tokens are generated. Given: %d", p.n.v)
	case p.promptLogprobs.set && p.stream:
		return invalid("`prompt_logprobs` is not supported with `stream`")
	case p.promptLogprobs.or(0) > uint32(max(maxTopLogprobs, s.opt.MaxTopNTokens)):
		return invalid("`prompt_logprobs` must be >= 0 and <= %d. Given: %d", max(maxTopLogprobs, s.opt.MaxTopNTokens), p.promptLogprobs.v)
	case p.spaces && p.showSpecial:
		return unsupported("spaces_between_special_tokens", "is not supported with `skip_special_tokens` false, except for false")
	}
	return checkLogitBias(p.logitBias, vocab)
}

// choices returns how many choices p asks for. More than can ever run are
// refused, whatever else runs.
func (s *Server) choices(p *openAIParameters) (int, error) {
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

// sampling returns the engine's parameters; g are those of p that were checked.
func (p *openAIParameters) sampling(g *parameters) sample.Params {
	if p.greedy() { // these would draw
		g.topP, g.topK, g.typicalP, g.minP = optional[float32]{}, optional[int32]{}, optional[float32]{}, optional[float32]{}
	}
	return sampling(g)
}

// openAIJob returns the members of a job that are the same on both routes; ids
// are the tokens of inputs. So many choices show those of the prompt if they
// are scored.
func (s *Server) openAIJob(x *exchange, m *model, p *openAIParameters, g *parameters, inputs string, ids []int32, choices int) (*job, error) {
	maxNew, err := m.room(len(ids), g)
	if err != nil {
		return nil, err
	}
	j := &job{
		inputs:   inputs,
		chars:    utf8.RuneCountInString(inputs),
		stops:    g.stop,
		special:  p.showSpecial,
		stopText: p.keepStop,
		req: engine.Request{
			ID:             strconv.FormatInt(s.requests.Add(1), 10),
			Tokens:         ids,
			MaxNewTokens:   maxNew,
			Params:         p.sampling(g),
			TopN:           int(max(g.topNTokens.or(0), p.promptLogprobs.or(0))),
			PromptLogprobs: g.scoring || maxNew == 0,
			LogitBias:      p.logitBias,
		},
	}
	if err := x.holdScores(&j.req, choices); err != nil {
		return nil, err
	}
	return j, s.applyRules(x, m, &j.req, g)
}
