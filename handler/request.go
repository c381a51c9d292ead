package handler

import (
	"cmp"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/handler/body"
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

// generateRequest is the body of the generate routes, as sent. Fields that
// are null count as absent, except where a comment says otherwise.
type generateRequest struct {
	inputs     string // required, null refused
	parameters parameters
	stream     bool // only on / and /invocations
}

// parameters is the contract's GenerateParameters, and what others have beside
// them.
type parameters struct {
	tokenRules
	presencePenalty optional[float32]
	keepStop        optional[bool] // whether the text has the stop string that ends it
	scoring         bool           // the prompt is scored, so that no new token is needed
	route           *fieldNames    // nil: generateNames

	adapterID           optional[string]
	bestOf              optional[uint64]
	decoderInputDetails bool
	details             bool
	doSample            bool
	frequencyPenalty    optional[float32]
	grammar             optional[grammarType]
	maxNewTokens        optional[uint32] // absent: 100; null, here unset: what max_total_tokens leaves
	repetitionPenalty   optional[float32]
	returnFullText      optional[bool]
	seed                optional[uint64]
	stop                []string // one string counts as a list of one
	temperature         optional[float32]
	topK                optional[int32]
	topNTokens          optional[uint32]
	topP                optional[float32]
	truncate            optional[uint64]
	typicalP            optional[float32]
	watermark           bool
}

// grammarType is the contract's GrammarType: what the output must match.
type grammarType struct {
	kind  string // json, json_object, json_schema or regex
	value []byte // JSON, part of the body: the schema, a string that holds it, or the regular expression
}

// names returns what the request's route calls its fields.
func (p *parameters) names() *fieldNames { return cmp.Or(p.route, &generateNames) }

// defaultMaxNewTokens is used when max_new_tokens is absent.
const defaultMaxNewTokens = 100

var (
	generateFields = []string{"inputs", "parameters", "adapters"}
	compatFields   = []string{"inputs", "parameters", "adapters", "stream"}
	grammarFields  = []string{"type", "value"}
)

const (
	fieldInputs = iota
	fieldParameters
	fieldAdapters // LMI's place of adapter_id
	fieldStream
)

// decodeGenerate reads the body of /generate and /generate_stream, where
// stream is one of the fields that nobody knows.
func decodeGenerate(data []byte) (generateRequest, error) {
	return decodeShape(data, "struct GenerateRequest", generateFields)
}

// decodeCompat reads the body of / and of /invocations' generate shape.
func decodeCompat(data []byte) (generateRequest, error) {
	return decodeShape(data, "struct CompatGenerateRequest", compatFields)
}

func decodeShape(data []byte, want string, fields []string) (generateRequest, error) {
	req := generateRequest{parameters: parameters{maxNewTokens: some[uint32](defaultMaxNewTokens)}}
	hasInputs := false
	r := body.NewReader(data)
	err := r.Object(want, fields, func(field int) (err error) {
		if field == fieldInputs {
			hasInputs = true
			req.inputs, err = r.String()
			return err
		}
		if null, err := r.Null(); null {
			return err
		}
		switch field {
		case fieldStream:
			req.stream, err = r.Bool()
			return err
		case fieldAdapters:
			names, err := decodeStop(r)
			if len(names) > 0 {
				req.parameters.adapterID = some(strings.Join(names, ","))
			}
			return err
		}
		return req.parameters.decode(r)
	})
	if err == nil && !hasInputs {
		err = r.Missing("inputs")
	}
	return req, err
}

// parameterFields are in the order of the constants below; then come fields of
// other servers.
var parameterFields = slices.Concat([]string{
	"max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "stop", "seed", "details", "return_full_text",
	"repetition_penalty", "frequency_penalty", "typical_p", "truncate", "top_n_tokens", "decoder_input_details",
	"best_of", "watermark", "grammar", "adapter_id",
	"stop_sequences", "presence_penalty", "include_stop_str_in_output",
}, generateRuleFields, refusedOn(onGenerate))

const (
	paramMaxNewTokens = iota
	paramDoSample
	paramTemperature
	paramTopP
	paramTopK
	paramStop
	paramSeed
	paramDetails
	paramReturnFullText
	paramRepetitionPenalty
	paramFrequencyPenalty
	paramTypicalP
	paramTruncate
	paramTopNTokens
	paramDecoderInputDetails
	paramBestOf
	paramWatermark
	paramGrammar
	paramAdapterID
	paramStopSequences
	paramPresencePenalty
	paramIncludeStop
	paramRules // the first of generateRuleFields
)

func (p *parameters) decode(r *body.Reader) error {
	return r.Object("struct GenerateParameters", parameterFields, func(field int) (err error) {
		if null, err := r.Null(); null {
			if field == paramMaxNewTokens {
				p.maxNewTokens = optional[uint32]{}
			}
			return err
		}
		switch field {
		case paramMaxNewTokens:
			return set(&p.maxNewTokens, r.Uint32)
		case paramDoSample:
			p.doSample, err = r.Bool()
		case paramTemperature:
			return set(&p.temperature, r.Float32)
		case paramTopP:
			return set(&p.topP, r.Float32)
		case paramTopK:
			return set(&p.topK, r.Int32)
		case paramStop, paramStopSequences: // the second is LMI's name
			var stop []string
			stop, err = decodeStop(r)
			p.stop = append(p.stop, stop...)
		case paramSeed:
			return set(&p.seed, r.Uint64)
		case paramDetails:
			p.details, err = r.Bool()
		case paramReturnFullText:
			return set(&p.returnFullText, r.Bool)
		case paramRepetitionPenalty:
			return set(&p.repetitionPenalty, r.Float32)
		case paramFrequencyPenalty:
			return set(&p.frequencyPenalty, r.Float32)
		case paramTypicalP:
			return set(&p.typicalP, r.Float32)
		case paramTruncate:
			return set(&p.truncate, r.Usize)
		case paramTopNTokens:
			return set(&p.topNTokens, r.Uint32)
		case paramDecoderInputDetails:
			p.decoderInputDetails, err = r.Bool()
		case paramBestOf:
			return set(&p.bestOf, r.Usize)
		case paramWatermark:
			p.watermark, err = r.Bool()
		case paramGrammar:
			var g grammarType
			g, err = decodeGrammar(r)
			p.grammar = some(g)
		case paramAdapterID:
			return set(&p.adapterID, r.String)
		case paramPresencePenalty:
			return set(&p.presencePenalty, r.Float32)
		case paramIncludeStop:
			return set(&p.keepStop, r.Bool)
		default:
			if field >= paramRules+len(generateRuleFields) {
				return p.decodeRefused(r, onGenerate, parameterFields[field])
			}
			return p.tokenRules.decode(r, parameterFields[field])
		}
		return err
	})
}

// set stores what read returns.
func set[T any](o *optional[T], read func() (T, error)) error {
	v, err := read()
	*o = some(v)
	return err
}

// decodeStop reads a string or a list of them. An empty one asks for nothing.
func decodeStop(r *body.Reader) (stop []string, err error) {
	if r.IsString() {
		s, err := r.String()
		if s == "" {
			return nil, err
		}
		return []string{s}, err
	}
	const most = 100_000 // far beyond any limit: a few bytes of a body are many here
	stop, err = decodeStrings(r, most)
	return slices.DeleteFunc(stop, func(s string) bool { return s == "" }), err
}

// decodeStrings reads a list of at most so many strings.
func decodeStrings(r *body.Reader, most int) (all []string, err error) {
	err = r.Array("a sequence", func(i int) error {
		if i == most {
			return r.Errorf("more than %d strings", most)
		}
		s, err := r.String()
		all = append(all, s)
		return err
	})
	return all, err
}

// decodeGrammar reads TGI's forms of a grammar. What a value must be depends on
// the type, which may stand behind it.
func decodeGrammar(r *body.Reader) (g grammarType, err error) {
	var value body.Reader // before the value
	err = r.Object("adjacently tagged enum GrammarType", grammarFields, func(field int) (err error) {
		if field == 0 {
			if g.kind, err = r.String(); err != nil {
				return err
			}
			switch g.kind {
			case "json", "json_object", "json_schema", "regex":
				return nil
			}
			return r.Errorf("unknown variant `%s`, expected one of `json`, `json_object`, `json_schema`, `regex`", body.Cut(g.kind))
		}
		value = *r
		g.value, err = r.Raw()
		return err
	})
	switch {
	case err != nil:
		return g, err
	case g.kind == "":
		return g, r.Missing("type")
	case g.value == nil:
		return g, r.Missing("value")
	case g.kind == "regex":
		_, err = value.String()
	case g.kind == "json_schema":
		g.value, err = decodeNamedSchema(&value)
	}
	return g, body.Within(err, "value")
}

// decodeNamedSchema reads the value of a json_schema: a schema and a name for
// it, which has no use.
func decodeNamedSchema(r *body.Reader) (schema []byte, err error) {
	err = r.Object("struct JsonSchemaConfig", []string{"schema"}, func(int) (err error) {
		schema, err = r.Raw()
		return err
	})
	if err == nil && schema == nil {
		err = r.Missing("schema")
	}
	return schema, err
}
