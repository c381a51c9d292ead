package handler

import (
	"cmp"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
)

// job is a request that has passed every check.
type job struct {
	req      engine.Request
	inputs   string
	chars    int      // of inputs
	stops    []string // where generation ends
	details  bool     // answer with details
	fullText bool     // answer with the prompt before the generated text
	special  bool     // show special tokens in the text (OpenAI routes)
	stopText bool     // show what ended the text, too (OpenAI routes)
	seeds    []uint64 // one for each sequence to generate
	adapter  string   // by name; "": the model itself
}

// checkMode refuses what the way of answering rules out. TGI looks at it
// before it looks for room.
func (s *Server) checkMode(p *parameters, stream bool) error {
	best := p.bestOf.or(1)
	switch {
	case stream && best != 1:
		return invalid("`best_of` != 1 is not supported when streaming tokens")
	case stream && p.decoderInputDetails:
		return invalid("`decoder_input_details` == true is not supported when streaming tokens")
	case best > 1 && s.opt.MaxBestOf == 1:
		return invalid("`best_of` != 1 is not allowed for this endpoint")
	case best > uint64(s.opt.MaxBestOf):
		return invalid("`best_of` must be > 0 and <= %d. Given: %d", s.opt.MaxBestOf, best)
	}
	return nil
}

// checkParameters refuses values out of range, in TGI's order and words. The
// upper ends of top_p and typical_p are in: the contract says so.
func (s *Server) checkParameters(p *parameters) error {
	sampling := p.doSample || p.temperature.set || p.topK.set || p.topP.set || p.typicalP.set
	freq, presence, minP := p.frequencyPenalty.or(0), p.presencePenalty.or(0), p.minP.or(0)
	names := p.names()
	topN := s.opt.MaxTopNTokens
	if names.openAI {
		topN = max(topN, maxTopLogprobs)
	}
	switch {
	case p.refused != nil:
		return p.refused
	case p.bestOf.or(1) > 1 && !sampling:
		return invalid("you must use sampling when `best_of` is > 1")
	case p.temperature.or(1) <= 0:
		return invalid("`temperature` must be strictly positive")
	case p.repetitionPenalty.or(1) <= 0:
		return invalid("`repetition_penalty` must be strictly positive")
	case freq < -2 || freq > 2:
		return invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
	case presence < -2 || presence > 2:
		return invalid("`presence_penalty` must be >= -2.0 and <= 2.0")
	case minP < 0 || minP > 1:
		return invalid("`min_p` must be >= 0.0 and <= 1.0")
	case p.topP.or(1) <= 0 || p.topP.or(1) > 1:
		return invalid("`top_p` must be > 0.0 and < 1.0")
	case p.typicalP.or(1) <= 0 || p.typicalP.or(1) > 1:
		return invalid("`typical_p` must be > 0.0 and < 1.0")
	case p.topK.or(1) <= 0:
		return invalid("`top_k` must be strictly positive")
	case p.maxNewTokens.or(1) == 0 && !p.scoring:
		return invalid("`%s` must be strictly positive", names.maxNew)
	case !names.openAI && len(p.stop) > 0 && !p.keepStop.or(true):
		return unsupported("include_stop_str_in_output", "is not supported, except for true: send the request to /v1/completions")
	case len(p.stop) > s.opt.MaxStopSequences:
		return invalid("`stop` supports up to %d stop sequences. Given: %d", s.opt.MaxStopSequences, len(p.stop))
	case p.seed.set && p.bestOf.or(1) > 1:
		return invalid("`seed` must not be set when `best_of` > 1")
	case int64(p.topNTokens.or(0)) > int64(topN):
		return invalid("`%s` must be >= 0 and <= %d. Given: %d", names.topN, topN, p.topNTokens.v)
	}
	return nil
}

// checkInputs is the check that follows those of the parameters.
func checkInputs(inputs string, p *parameters) error {
	if inputs == "" {
		return invalid("`%s` cannot be empty", p.names().inputs)
	}
	return nil
}

// prepare checks req and makes of it what the engine needs, to be submitted.
func (s *Server) prepare(x *exchange, m *model, req *generateRequest) (*job, error) {
	p := &req.parameters
	if err := cmp.Or(s.checkParameters(p), checkInputs(req.inputs, p), m.checkTruncate(p)); err != nil {
		return nil, err
	}
	text, seen, err := s.readImages(x, m, req.inputs)
	if err != nil {
		return nil, err
	}
	ids, err := s.encode(x, m, text, 0, m.addSpecial(true, seen), p)
	if err != nil {
		return nil, err
	}
	j, err := s.newImageJob(x, m, p, req.inputs, ids, seen, int(max(1, p.bestOf.or(1))))
	if err != nil {
		return nil, err
	}
	x.shown = j.details
	if p.grammar.set {
		if j.req.Constraint, err = s.guide(x.r.Context(), p.grammar.v); err != nil {
			return nil, err
		}
	}
	j.seeds = make([]uint64, max(1, p.bestOf.or(1)))
	for i := range j.seeds {
		switch {
		case j.req.Params.Sample == 0: // nothing is drawn
		case p.seed.set:
			j.seeds[i] = p.seed.v
		default:
			j.seeds[i] = randomSeed()
		}
	}
	return j, nil
}

// newJob makes of a prompt of ids, the tokens of inputs, what the engine needs.
// So many sequences show those of the prompt if they are scored.
func (s *Server) newJob(x *exchange, m *model, p *parameters, inputs string, ids []int32, sequences int) (*job, error) {
	maxNew, err := m.room(len(ids), p)
	if err != nil {
		return nil, err
	}
	j := &job{
		inputs:   inputs,
		chars:    utf8.RuneCountInString(inputs),
		stops:    p.stop,
		details:  p.details || p.decoderInputDetails,
		fullText: p.returnFullText.or(false),
		special:  p.showSpecial,
		stopText: p.keepStop.or(false),
		req: engine.Request{
			ID:             strconv.FormatInt(s.requests.Add(1), 10),
			Tokens:         ids,
			MaxNewTokens:   maxNew,
			Params:         p.sampling(),
			TopN:           int(max(p.topNTokens.or(0), p.promptLogprobs.or(0))),
			PromptLogprobs: p.scoring || p.decoderInputDetails || maxNew == 0,
			LogitBias:      p.logitBias,
		},
	}
	if j.adapter, err = s.adapterOf(x.r.Context(), m, p); err != nil {
		return nil, err
	}
	if err := x.holdScores(&j.req, sequences); err != nil {
		return nil, err
	}
	return j, s.applyRules(x, m, &j.req, p)
}

// isBaseModel reports whether the name of an adapter or model means the model
// that is served.
func (s *Server) isBaseModel(name string) bool {
	return name == "" || name == "tgi" || name == s.opt.ModelID || name == s.opt.ModelAlias
}

// checkTruncate checks how much of a prompt is to be kept.
func (m *model) checkTruncate(p *parameters) error {
	maxInput := uint64(m.limits.MaxInput)
	if p.truncate.set && (p.truncate.v == 0 || p.truncate.v > maxInput) {
		return invalid("`%s` must be strictly positive and less than %d. Given: %d", p.names().truncate, maxInput, p.truncate.v)
	}
	return nil
}

// truncate returns the tokens of a prompt that `truncate` leaves, the last ones.
func (m *model) truncate(ids []int32, p *parameters) []int32 {
	if !p.truncate.set {
		return ids
	}
	return token.TruncateLeft(ids, int(p.truncate.v), m.tok.LeadingSpecial())
}

// room checks the length of a prompt and returns how many tokens may follow
// it: what is asked for, or what the limit of both together leaves.
func (m *model) room(prompt int, p *parameters) (int, error) {
	maxNew := int(p.maxNewTokens.or(uint32(max(0, m.limits.MaxTotal-prompt))))
	return maxNew, m.checkLength(prompt, maxNew, "", p)
}

// checkLength refuses a prompt that is too long, or too long for what shall
// follow it. least is "" or says that it may have more tokens.
func (m *model) checkLength(prompt, maxNew int, least string, p *parameters) error {
	names := p.names()
	switch {
	case prompt+maxNew > m.limits.MaxTotal:
		return tooLong("`%s` tokens + `%s` must be <= %d. Given: %s%d `%[1]s` tokens and %[6]d `%[2]s`", names.inputs, names.maxNew, m.limits.MaxTotal, least, prompt, maxNew)
	case prompt > m.limits.MaxInput:
		return tooLong("`%s` must have less than %d tokens. Given: %s%d", names.inputs, m.limits.MaxInput, least, prompt)
	}
	return nil
}

// shortText is how many bytes are tokenized in a moment.
const shortText = 4 << 10

// checkBytes refuses a prompt of so many bytes that has too many tokens however
// they are cut, unless it is to be truncated. The tokens of a short one are
// counted instead: that is quick, and the error has the number.
func (m *model) checkBytes(bytes int, p *parameters) error {
	if p.truncate.set || bytes <= shortText {
		return nil
	}
	return m.checkLength(m.tok.MinTokens(bytes), int(p.maxNewTokens.or(0)), "at least ", p)
}

// tooLong is a request that does not fit the model's context.
func tooLong(format string, args ...any) *Error {
	e := invalid(format, args...)
	e.code = "context_length_exceeded"
	return e
}

// tokenizable is how many bytes of text there is memory to tokenize at most.
func (s *Server) tokenizable() int { return int(s.memory.turns.longest() / token.MinCost) }

// tokenizing runs f, which tokenizes text, when it is its turn; name is the
// field that the text comes from.
func (s *Server) tokenizing(x *exchange, m *model, name, text string, f func() error) error {
	cost := m.tok.Cost(text)
	if most := s.memory.turns.longest(); cost > most {
		return tooLong("`%s` has %d bytes, which take %d bytes of memory to tokenize; there are %d", name, len(text), cost, most)
	}
	return s.work(x, name, cost, f)
}

// encode tokenizes text when it is its turn. With addSpecial the tokenizer adds
// its special tokens; a chat's template has them. mark is as in chat.Prompt, 0
// for none. A prompt with parameters p is refused before that if it is too long
// for them in any case.
func (s *Server) encode(x *exchange, m *model, text string, mark rune, addSpecial bool, p *parameters) (ids []int32, err error) {
	n := len(text)
	if mark != 0 {
		n -= strings.Count(text, string(mark)) * utf8.RuneLen(mark)
	}
	if err := m.checkBytes(n, p); err != nil {
		return nil, err
	}
	err = s.tokenizing(x, m, p.names().inputs, text, func() error {
		if ids, err = m.tok.EncodeMarked(text, addSpecial, mark); err != nil {
			return invalid("tokenizer error %v", err)
		}
		return x.hold(4 * int64(len(ids)))
	})
	return ids, err
}

// encodeSpans is encode with the places of the tokens, for a text of any length.
func (s *Server) encodeSpans(x *exchange, m *model, text string, mark rune, addSpecial bool) (spans []token.Span, err error) {
	if text == "" {
		return nil, nil
	}
	err = s.tokenizing(x, m, "inputs", text, func() error {
		if spans, err = m.tok.EncodeSpansMarked(text, addSpecial, mark); err != nil {
			return invalid("tokenizer error %v", err)
		}
		return x.hold(int64(len(spans)) * int64(unsafe.Sizeof(token.Span{})))
	})
	return spans, err
}
