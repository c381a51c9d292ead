package handler

import (
	"math"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/openapi"
)

// parameterFields are all fields of parameters, on every route: TGI's, and those
// of vLLM, LMI and OpenAI that TGI's contract does not have. One that would change
// the answer is honoured or refused by name. One that would not is ignored, and
// so is any name that is not listed, as serde ignores it.
//
// A new parameter has its entry here and its member in parameters, goes to the
// engine in parameters.sampling or Server.applyRules, and has its range in
// checkParameters.
var parameterFields = append([]field{
	{name: "max_new_tokens", routes: onGenerate,
		set:  func(p *parameters, r *body.Reader) error { return set(&p.maxNewTokens, r.Uint32) },
		null: func(p *parameters) { p.maxNewTokens = optional[uint32]{} }},
	{name: "max_tokens", routes: onOpenAI, set: func(p *parameters, r *body.Reader) error { return set(&p.maxNewTokens, r.Uint32) }},
	{name: "do_sample", routes: onGenerate, set: func(p *parameters, r *body.Reader) (err error) {
		p.doSample, err = r.Bool()
		return err
	}},
	{name: "temperature", routes: onAll, set: func(p *parameters, r *body.Reader) error { return set(&p.temperature, r.Float32) }},
	{name: "top_p", routes: onAll, set: func(p *parameters, r *body.Reader) error { return set(&p.topP, r.Float32) }},
	{name: "top_k", routes: onAll, set: func(p *parameters, r *body.Reader) error { return set(&p.topK, r.Int32) },
		doc: openapi.Object{"type": "integer", "format": "int32", "minimum": -1, "description": "Only so many of the likeliest tokens are drawn; -1 and 0: all"}},
	{name: "typical_p", routes: onAll, set: func(p *parameters, r *body.Reader) error { return set(&p.typicalP, r.Float32) },
		doc: openapi.Number(0, 1, "Typical sampling; 1 is off")},
	{name: "min_p", routes: onAll, set: func(p *parameters, r *body.Reader) error { return set(&p.minP, r.Float32) },
		doc: openapi.Number(0, 1, "Only tokens of at least this share of the likeliest one's probability are drawn")},
	{name: "repetition_penalty", routes: onAll, set: func(p *parameters, r *body.Reader) error { return set(&p.repetitionPenalty, r.Float32) },
		doc: openapi.Number(0, 1000, "1 is off")},
	{name: "frequency_penalty", routes: onAll, set: func(p *parameters, r *body.Reader) error { return set(&p.frequencyPenalty, r.Float32) }},
	{name: "presence_penalty", routes: onAll, set: func(p *parameters, r *body.Reader) error { return set(&p.presencePenalty, r.Float32) },
		doc: openapi.Number(-2, 2, "Subtracted from the scores of tokens generated before")},
	{name: "logit_bias", routes: onOpenAI, set: func(p *parameters, r *body.Reader) (err error) {
		p.logitBias, err = decodeLogitBias(r)
		return err
	}},
	{name: "watermark", routes: onGenerate, set: func(p *parameters, r *body.Reader) (err error) {
		p.watermark, err = r.Bool()
		return err
	}},
	{name: "seed", routes: onGenerate, set: func(p *parameters, r *body.Reader) error { return set(&p.seed, r.Uint64) }},
	{name: "seed", routes: onOpenAI, set: func(p *parameters, r *body.Reader) error {
		seed, negative, err := r.Seed()
		if !negative || seed != math.MaxUint64 { // -1: none
			p.seed = some(seed)
		}
		return err
	}},

	{name: "stop", routes: onAll, set: setStop},
	{name: "stop_sequences", routes: onGenerate, set: setStop, doc: openapi.Strings("More of stop")}, // LMI's name
	{name: "include_stop_str_in_output", routes: onGenerate, set: setKeepStop,
		doc: openapi.Bool(true, "Refused with false where there are stop strings")},
	{name: "include_stop_str_in_output", routes: onOpenAI, set: setKeepStop,
		doc: openapi.Bool(false, "Whether the text has what ended it")},
	{name: "min_tokens", routes: onAll, set: setMinTokens, doc: openapi.Count("No end token or stop string counts before so many tokens")},
	{name: "min_new_tokens", routes: onGenerate, set: setMinTokens, doc: openapi.Count("Another name of min_tokens")},
	{name: "ignore_eos", routes: onAll, set: setIgnoreEOS, doc: openapi.Bool(false, "End tokens end nothing")},
	{name: "ignore_eos_token", routes: onGenerate, set: setIgnoreEOS, doc: openapi.Bool(false, "Another name of ignore_eos")}, // LMI's
	{name: "stop_token_ids", routes: onAll, set: func(p *parameters, r *body.Reader) (err error) {
		p.stopTokens, err = decodeIDs(r, engine.MaxStopTokens)
		return err
	}, doc: openapi.TokenIDs("These tokens end the text, too")},
	{name: "allowed_token_ids", routes: onAll, set: func(p *parameters, r *body.Reader) (err error) {
		p.allowed, err = decodeIDs(r, engine.MaxAllowedTokens)
		if p.allowed == nil {
			p.refuse(invalid("`allowed_token_ids` must not be empty"))
		}
		return err
	}, doc: openapi.TokenIDs("No other tokens are generated")},
	{name: "bad_words", routes: onAll, set: setBadWords, doc: openapi.Strings("These words are not written, with or without a space before them")},
	{name: "bad_sequences", routes: onGenerate, set: setBadWords, doc: openapi.Strings("Another name of bad_words")}, // LMI's
	{name: "cache_salt", routes: onAll, set: func(p *parameters, r *body.Reader) (err error) {
		if p.cacheSalt, err = r.String(); err == nil && p.cacheSalt == "" {
			p.refuse(invalid("`cache_salt` must not be empty"))
		}
		return err
	}, doc: openapi.Object{"type": "string", "minLength": 1, "maxLength": maxSaltBytes, "description": "The cache of prompts is shared with requests of the same salt alone"}},

	{name: "repetition_detection", routes: onAll, set: func(p *parameters, r *body.Reader) error {
		rep, fault, err := decodeRepetition(r)
		if fault != "" {
			p.refuse(invalid("`repetition_detection`: %s", fault))
		}
		p.repetition = some(rep)
		return err
	}, doc: repetitionSchema},

	{name: "truncate", routes: onGenerate, set: func(p *parameters, r *body.Reader) error { return set(&p.truncate, r.Usize) }},
	{name: "truncate_prompt_tokens", routes: onOpenAI, set: func(p *parameters, r *body.Reader) error {
		n, err := r.Int32()
		if n != -1 { // -1: what the model takes
			p.truncate = some(uint64(max(n, 0)))
		}
		return err
	}, doc: openapi.Object{"type": "integer", "format": "int32", "minimum": -1, "description": "So many tokens of the prompt are kept, the last ones; -1: as many as fit"}},
	{name: "add_special_tokens", routes: onOpenAI, set: func(p *parameters, r *body.Reader) error { return set(&p.addSpecial, r.Bool) },
		doc: openapi.Object{"type": "boolean", "description": "Whether the tokenizer adds its special tokens; by default to completions alone"}},
	{name: "adapter_id", routes: onGenerate, set: func(p *parameters, r *body.Reader) error { return set(&p.adapterID, r.String) }},
	{name: "model", routes: onOpenAI, set: func(p *parameters, r *body.Reader) (err error) {
		p.model, err = r.String()
		return err
	}},

	{name: "stream", routes: onOpenAI, set: func(p *parameters, r *body.Reader) (err error) {
		p.stream, err = r.Bool()
		return err
	}},
	{name: "stream_options", routes: onOpenAI, set: setStreamOptions},
	{name: "n", routes: onOpenAI, set: func(p *parameters, r *body.Reader) error { return set(&p.n, r.Uint32) }},
	{name: "best_of", routes: onGenerate, set: func(p *parameters, r *body.Reader) error { return set(&p.bestOf, r.Usize) }},
	{name: "details", routes: onGenerate, set: func(p *parameters, r *body.Reader) (err error) {
		p.details, err = r.Bool()
		return err
	}},
	{name: "decoder_input_details", routes: onGenerate, set: func(p *parameters, r *body.Reader) (err error) {
		p.decoderInputDetails, err = r.Bool()
		return err
	}},
	{name: "return_full_text", routes: onGenerate, set: func(p *parameters, r *body.Reader) error { return set(&p.returnFullText, r.Bool) }},
	{name: "top_n_tokens", routes: onGenerate, set: func(p *parameters, r *body.Reader) error { return set(&p.topNTokens, r.Uint32) }},
	{name: "prompt_logprobs", routes: onOpenAI, set: func(p *parameters, r *body.Reader) error { return set(&p.promptLogprobs, r.Uint32) },
		doc: openapi.Count("Show the log-probabilities of the prompt's tokens, and of so many likelier ones")},
	{name: "skip_special_tokens", routes: onOpenAI, set: func(p *parameters, r *body.Reader) error {
		skip, err := r.Bool()
		p.showSpecial = !skip
		return err
	}, doc: openapi.Bool(true, "Whether the text is without special tokens")},
	{name: "spaces_between_special_tokens", routes: onOpenAI, set: func(p *parameters, r *body.Reader) (err error) {
		p.spaces, err = r.Bool()
		return err
	}, doc: openapi.Bool(false, "Refused with true where special tokens are shown")},

	{name: "grammar", routes: onGenerate, set: func(p *parameters, r *body.Reader) error {
		return set(&p.grammar, func() (grammarType, error) { return decodeGrammar(r) })
	}},
	// The form of an answer, by the names that servers have given to it: OpenAI's,
	// vLLM's older ones and its newer one, TGI's and llama.cpp's.
	format("response_format", openapi.Object{"allOf": []openapi.Object{openapi.Ref("ResponseFormat")}}),
	format("guided_json", openapi.JSONSchema("A JSON schema that the text follows")),
	format("json_schema", openapi.JSONSchema("Another name of guided_json")),
	format("guided_regex", openapi.Object{"type": "string", "description": "A regular expression that the whole text matches"}),
	format("guided_choice", openapi.Strings("The text is one of these")),
	format("grammar", openapi.Object{"allOf": []openapi.Object{openapi.Ref("GrammarType")}}),
	format("structured_outputs", openapi.Object{"type": "object", "description": "One of json, regex, choice and json_object", "properties": openapi.Object{
		"json": openapi.JSONSchema(""), "regex": openapi.Object{"type": "string"}, "choice": openapi.Strings(""), "json_object": openapi.Object{"type": "boolean"}}}),
}, append(reasoningFields, refusals()...)...)

func setStop(p *parameters, r *body.Reader) error {
	stop, err := decodeStop(r)
	p.stop = append(p.stop, stop...)
	return err
}

func setKeepStop(p *parameters, r *body.Reader) error { return set(&p.keepStop, r.Bool) }

func setMinTokens(p *parameters, r *body.Reader) (err error) {
	p.minTokens, err = r.Uint32()
	return err
}

func setIgnoreEOS(p *parameters, r *body.Reader) (err error) {
	p.ignoreEOS, err = r.Bool()
	return err
}

func setBadWords(p *parameters, r *body.Reader) (err error) {
	p.badWords, err = decodeStrings(r, maxBadWords)
	return err
}

var streamOptionsFields = []string{"include_usage", "continuous_usage_stats"}

func setStreamOptions(p *parameters, r *body.Reader) error {
	return r.Object("struct StreamOptions", streamOptionsFields, func(field int) error {
		if null, err := r.Null(); null {
			return err
		}
		var err error
		if field == 0 {
			p.includeUsage, err = r.Bool()
		} else {
			p.usageEach, err = r.Bool()
		}
		return err
	})
}

// format is a field of OpenAI's routes that holds an answer to a form.
func format(name string, doc openapi.Object) field {
	return field{name: name, routes: onOpenAI, doc: doc, set: func(p *parameters, r *body.Reader) error { return p.decodeFormat(r, name) }}
}

// refusals are the fields that are refused.
func refusals() (all []field) {
	for i := range refusedFields {
		all = append(all, refusedFields[i].field())
	}
	return all
}
