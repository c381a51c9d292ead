package handler

import (
	"cmp"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/chat"
	"github.com/millrace-ai/millrace/handler/openapi"
)

// optional is a field that may be absent or null.
type optional[T any] struct {
	v   T
	set bool
}

func some[T any](v T) optional[T] { return optional[T]{v, true} }

// or returns the value, or def without one.
func (o optional[T]) or(def T) T {
	if o.set {
		return o.v
	}
	return def
}

// set stores what read returns.
func set[T any](o *optional[T], read func() (T, error)) error {
	v, err := read()
	*o = some(v)
	return err
}

// parameters are the fields of requests, whatever their route, that say what to
// generate and how to show it. parameterFields reads them. Fields that are null
// count as absent.
type parameters struct {
	// How tokens are chosen.
	doSample          bool
	greedy            bool              // the likeliest, whatever else is asked for
	temperature       optional[float32] // on OpenAI's routes 0: greedy
	topK              optional[int32]
	topP              optional[float32]
	typicalP          optional[float32]
	minP              optional[float32]
	repetitionPenalty optional[float32]
	frequencyPenalty  optional[float32]
	presencePenalty   optional[float32]
	logitBias         []sample.Bias
	watermark         bool
	seed              optional[uint64]

	// Which may be chosen.
	allowed     []int32  // nil: all
	badWords    []string // are not written
	grammar     optional[grammarType]
	format      chat.ResponseFormat // OpenAI's grammar
	formatField string              // that format came from, "" for none

	// When a text ends.
	maxNewTokens optional[uint32] // generate: absent is 100, and null, here unset, what max_total_tokens leaves
	minTokens    uint32           // no end before so many tokens
	stop         []string         // one string counts as a list of one
	stopTokens   []int32          // end the text, too
	ignoreEOS    bool             // end tokens end nothing
	repetition   optional[engine.Repetition]

	reasoning reasoningParameters

	// The prompt.
	truncate   optional[uint64] // tokens of it that are kept
	addSpecial optional[bool]   // whether the tokenizer adds its special tokens
	adapterID  optional[string]
	model      string // see isBaseModel and isFiller
	cacheSalt  string // prompts are shared in the cache with requests of the same salt alone

	// What is shown.
	stream              bool // on the generate routes it is beside the parameters
	bestOf              optional[uint64]
	n                   optional[uint32]
	details             bool
	decoderInputDetails bool
	returnFullText      optional[bool]
	topNTokens          optional[uint32]
	promptLogprobs      optional[uint32] // show those of the prompt, and that many alternatives
	keepStop            optional[bool]   // whether the text has the stop string that ends it
	showSpecial         bool             // show special tokens
	spaces              bool             // put spaces between special tokens
	includeUsage        bool             // one more chunk, which tells the usage
	usageEach           bool             // every chunk tells the usage so far

	scoring bool        // the prompt is scored, so that no new token is needed
	refused *Error      // the first field that was refused
	route   *fieldNames // nil: generateNames
}

// names returns what the request's route calls its fields.
func (p *parameters) names() *fieldNames { return cmp.Or(p.route, &generateNames) }

// refuse keeps the first reason to refuse the request.
func (p *parameters) refuse(e *Error) {
	if p.refused == nil {
		p.refused = e
	}
}

// settle gives what a request leaves out, and values that ask for nothing, the
// meaning that they have on OpenAI's routes. As in TGI a request without a
// temperature draws at 1; at 0 this and top_p mean the limit that they go to,
// the likeliest token.
func (p *parameters) settle(route *fieldNames) {
	p.route = route
	p.greedy = p.temperature.set && p.temperature.v == 0 || p.topP.set && p.topP.v == 0
	p.doSample = !p.greedy
	if p.greedy {
		p.temperature = optional[float32]{}
	}
	if p.topP.or(1) == 0 {
		p.topP = optional[float32]{}
	}
	if k := p.topK.or(0); k == -1 || k == 0 {
		p.topK = optional[int32]{}
	}
}

// sampling returns the engine's parameters. Any that only make sense when
// drawing switch drawing on, except a temperature of 1.
func (p *parameters) sampling() sample.Params {
	out := sample.Greedy()
	out.RepetitionPenalty = p.repetitionPenalty.or(out.RepetitionPenalty)
	out.FrequencyPenalty = p.frequencyPenalty.or(out.FrequencyPenalty)
	out.PresencePenalty = p.presencePenalty.or(out.PresencePenalty)
	if p.watermark {
		out.Watermark = 1
	}
	if p.greedy {
		return out
	}
	out.Temperature = p.temperature.or(out.Temperature)
	out.TopK = p.topK.or(out.TopK)
	out.TopP = p.topP.or(out.TopP)
	out.TypicalP = p.typicalP.or(out.TypicalP)
	out.MinP = p.minP.or(out.MinP)
	if p.doSample || out.Temperature != 1 || out.TopK != 0 || out.TopP < 1 || out.TypicalP < 1 || out.MinP > 0 {
		out.Sample = 1
	}
	return out
}

// fieldNames are what a route calls the fields that all of them have, for
// errors.
type fieldNames struct {
	inputs, maxNew, minNew, topN, truncate string
	openAI                                 bool // limits are OpenAI's
}

var (
	generateNames   = fieldNames{"inputs", "max_new_tokens", "min_new_tokens", "top_n_tokens", "truncate", false}
	chatNames       = fieldNames{"messages", "max_tokens", "min_tokens", "top_logprobs", "truncate_prompt_tokens", true}
	newerChatNames  = fieldNames{"messages", "max_completion_tokens", "min_tokens", "top_logprobs", "truncate_prompt_tokens", true}
	completionNames = fieldNames{"prompt", "max_tokens", "min_tokens", "logprobs", "truncate_prompt_tokens", true}
)

// maxTopLogprobs is the most alternatives that OpenAI's routes show for a
// token, as at OpenAI, unless --max-top-n-tokens is more.
const maxTopLogprobs = 20

// defaultMaxNewTokens is used when max_new_tokens is absent, or max_tokens of a
// completion.
const defaultMaxNewTokens = 100

// routes are kinds of requests.
type routes int

const (
	onChat routes = 1 << iota
	onCompletion
	onGenerate // parameters of the generate routes
	onOpenAI   = onChat | onCompletion
	onAll      = onOpenAI | onGenerate
)

// field is one that requests may have.
type field struct {
	name   string
	routes routes
	set    func(p *parameters, r *body.Reader) error // reads the value, which is not null
	doc    openapi.Object                            // the schema of its value; nil: it is the contract's
	null   func(p *parameters)                       // for a null; nil: it counts as absent
}

// fieldSet are the fields of a kind of request: some of its own, then those of
// parameters.
type fieldSet struct {
	names  []string
	own    int
	fields []*field
}

func fieldsOn(route routes, own ...string) fieldSet {
	s := fieldSet{names: own, own: len(own)}
	for i := range parameterFields {
		if f := &parameterFields[i]; f.routes&route != 0 {
			s.names, s.fields = append(s.names, f.name), append(s.fields, f)
		}
	}
	return s
}

// set reads the value of the i-th field, one of parameters, into p.
func (s *fieldSet) set(p *parameters, r *body.Reader, i int) error {
	f := s.fields[i-s.own]
	if null, err := r.Null(); null {
		if f.null != nil {
			f.null(p)
		}
		return err
	}
	return f.set(p, r)
}
