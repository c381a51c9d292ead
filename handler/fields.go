package handler

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/handler/body"
)

// Fields of vLLM, LMI and OpenAI that TGI's contract does not have. One that
// would change the answer is honoured or refused by name. One that would not is
// ignored, and so is any name that is not listed, as serde ignores it.

// tokenRules say which tokens may be generated and when a text may end.
type tokenRules struct {
	minP       optional[float32]
	minTokens  uint32   // no end before so many tokens
	ignoreEOS  bool     // end tokens end nothing
	stopTokens []int32  // end the text, too
	allowed    []int32  // nil: all
	badWords   []string // are not written
	cacheSalt  string   // prompts are shared in the cache with requests of the same salt alone
	refused    *Error   // the first field that was refused
}

// ruleFields are the names of the rules. The generate routes also have LMI's
// names, and min_new_tokens beside max_new_tokens.
var (
	ruleFields         = []string{"min_p", "min_tokens", "ignore_eos", "stop_token_ids", "allowed_token_ids", "bad_words", "cache_salt"}
	generateRuleFields = append([]string{"min_new_tokens", "ignore_eos_token", "bad_sequences"}, ruleFields...)
)

// decode reads the value, which is not null, of a field that is one of
// generateRuleFields.
func (t *tokenRules) decode(r *body.Reader, field string) (err error) {
	switch field {
	case "min_p":
		return set(&t.minP, r.Float32)
	case "min_tokens", "min_new_tokens":
		t.minTokens, err = r.Uint32()
	case "ignore_eos", "ignore_eos_token":
		t.ignoreEOS, err = r.Bool()
	case "stop_token_ids":
		t.stopTokens, err = decodeIDs(r, engine.MaxStopTokens)
	case "allowed_token_ids":
		t.allowed, err = decodeIDs(r, engine.MaxAllowedTokens)
		if t.allowed == nil {
			t.refuse(invalid("`allowed_token_ids` must not be empty"))
		}
	case "bad_words", "bad_sequences":
		t.badWords, err = decodeStrings(r, maxBadWords)
	case "cache_salt":
		t.cacheSalt, err = r.String()
	}
	return err
}

// refuse keeps the first reason to refuse the request.
func (t *tokenRules) refuse(e *Error) {
	if t.refused == nil {
		t.refused = e
	}
}

// Bounds of bad_words: each word is two token sequences.
const (
	maxBadWords     = 256
	maxBadWordBytes = 256
	maxSaltBytes    = 1024
)

// applyRules puts the rules of p into req, whose other members are set.
func (s *Server) applyRules(x *exchange, m *model, req *engine.Request, p *parameters) error {
	t, names := &p.tokenRules, p.names()
	switch {
	case int64(t.minTokens) > int64(req.MaxNewTokens):
		return invalid("`%s` must be <= `%s`. Given: %d and %d", names.minNew, names.maxNew, t.minTokens, req.MaxNewTokens)
	case len(t.cacheSalt) > maxSaltBytes:
		return invalid("`cache_salt` must have at most %d bytes. Given: %d", maxSaltBytes, len(t.cacheSalt))
	}
	for _, list := range []struct {
		field string
		ids   []int32
	}{{"stop_token_ids", t.stopTokens}, {"allowed_token_ids", t.allowed}} {
		if i := slices.IndexFunc(list.ids, func(id int32) bool { return int(id) >= m.limits.Vocab }); i >= 0 {
			return invalid("`%s` must name tokens below %d. Given: %d at %d", list.field, m.limits.Vocab, list.ids[i], i)
		}
	}
	req.MinNewTokens, req.IgnoreEOS, req.CacheSalt = int(t.minTokens), t.ignoreEOS, t.cacheSalt
	req.StopTokens, req.AllowedTokens = t.stopTokens, t.allowed
	banned := 0 // tokens
	for _, word := range t.badWords {
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

// routes are kinds of requests.
type routes int

const (
	onChat routes = 1 << iota
	onCompletion
	onGenerate // parameters of the generate routes
	onOpenAI   = onChat | onCompletion
	onAll      = onOpenAI | onGenerate
)

// refusedField is a field that would change the answer and cannot.
type refusedField struct {
	name    string
	routes  routes
	neutral string // JSON values that ask for nothing, separated by spaces
	instead string // what to send instead, "" for nothing
}

// refusedFields are all that are refused by name.
var refusedFields = []refusedField{
	// Beam search, and other ways to several sequences.
	{"use_beam_search", onAll, "false", ""},
	{"num_beams", onAll, "1", ""},
	{"num_beam_groups", onGenerate, "1", ""},
	{"length_penalty", onAll, "1", ""},
	{"early_stopping", onAll, "false", ""},
	{"diversity_penalty", onGenerate, "0", ""},
	{"penalty_alpha", onGenerate, "0", ""},
	{"best_of", onChat, "1", "`n`"},
	{"n", onGenerate, "1", "`best_of`"},
	{"num_return_sequences", onGenerate, "1", "`best_of`"},

	// Names that fields have elsewhere.
	{"max_new_tokens", onOpenAI, "", "`max_tokens`"},
	{"max_tokens", onGenerate, "", "`max_new_tokens`"},
	{"max_completion_tokens", onGenerate, "", "`max_new_tokens`"},
	{"max_completion_tokens", onCompletion, "", "`max_tokens`"},
	{"max_length", onGenerate, "", "`max_new_tokens`"},
	{"min_length", onGenerate, "0 1", "`min_new_tokens`"},
	{"min_new_tokens", onOpenAI, "0", "`min_tokens`"},
	{"stop_sequences", onOpenAI, "[]", "`stop`"},
	{"eos_token_id", onAll, "", "`stop_token_ids`"},
	{"ignore_eos_token", onOpenAI, "false", "`ignore_eos`"},
	{"bad_words_ids", onAll, "[]", "`bad_words`"},
	{"truncate", onOpenAI, "", "`truncate_prompt_tokens`"},
	{"truncate_prompt_tokens", onGenerate, "-1", "`truncate`"},
	{"top_n_tokens", onChat, "0", "`top_logprobs`"},
	{"top_n_tokens", onCompletion, "0", "`logprobs`"},
	{"top_logprobs", onCompletion, "0", "`logprobs`"},
	{"top_logprobs", onGenerate, "0", "`top_n_tokens`"},
	{"logprobs", onGenerate, "0 false", "`details` and `top_n_tokens`"},
	{"decoder_input_details", onOpenAI, "false", "`prompt_logprobs`"},
	{"prompt_logprobs", onGenerate, "0", "`decoder_input_details`"},
	{"do_sample", onOpenAI, "true", "`temperature`, of which 0 chooses the likeliest token"},
	{"return_full_text", onChat, "false", ""},
	{"return_full_text", onCompletion, "false", "`echo`"},
	{"echo", onChat, "false", "a last message of the assistant, which the answer continues"},
	{"echo", onGenerate, "false", "`return_full_text`"},
	{"skip_special_tokens", onGenerate, "true", "/v1/completions"},
	{"adapter_id", onOpenAI, `"" "tgi"`, "`model`"},

	// Grammars in languages that are not bounded here; on the generate routes, those beside TGI's.
	{"guided_grammar", onOpenAI, "", "`guided_json` or `guided_regex`"},
	{"guided_whitespace_pattern", onOpenAI, "", ""},
	{"structural_tag", onOpenAI, "", "`tools`"},
	{"guided_json", onGenerate, "", "`grammar`"},
	{"guided_regex", onGenerate, "", "`grammar`"},
	{"guided_choice", onGenerate, "", "`grammar`"},
	{"guided_grammar", onGenerate, "", "`grammar`"},
	{"structured_outputs", onGenerate, "", "`grammar`"},
	{"response_format", onGenerate, "", "`grammar`"},

	// Changes to the distribution, or to where the text ends.
	{"logit_bias", onGenerate, "{}", ""},
	{"logits_processors", onAll, "[]", ""},
	{"no_repeat_ngram_size", onAll, "0", "`frequency_penalty`"},
	{"encoder_no_repeat_ngram_size", onGenerate, "0", ""},
	{"encoder_repetition_penalty", onGenerate, "1", ""},
	{"exponential_decay_length_penalty", onGenerate, "", ""},
	{"force_words_ids", onGenerate, "[]", ""},
	{"guidance_scale", onGenerate, "1", ""},
	{"max_time", onGenerate, "", ""},
	{"repetition_detection", onAll, "", ""},
	{"thinking_token_budget", onOpenAI, "-1", ""},
	{"watermarking", onOpenAI, "false", ""},
	{"watermark", onOpenAI, "false", ""},
	{"vllm_xargs", onOpenAI, "{}", ""},

	// Changes to the prompt.
	{"chat_template", onChat, `""`, "`chat_template_kwargs`"},
	{"prompt_embeds", onCompletion, "[]", "`prompt`"},
	{"truncation_side", onOpenAI, `"left"`, ""},
	{"web_search_options", onChat, "", ""},

	// Changes to the form of the answer.
	{"functions", onChat, "[]", "`tools`"},
	{"function_call", onChat, `"none" "auto"`, "`tool_choice`"},
	{"modalities", onChat, `["text"] []`, ""},
	{"include_reasoning", onChat, "true", ""},
	{"logprob_token_ids", onOpenAI, "[]", "`top_logprobs`"},
	{"return_token_ids", onOpenAI, "false", ""},
	{"return_tokens_as_token_ids", onOpenAI, "false", ""},
	{"return_prompt_text", onChat, "false", "/chat_tokenize"},
}

// refusedOn returns the names of what is refused on a route.
func refusedOn(where routes) (names []string) {
	for i := range refusedFields {
		if refusedFields[i].routes&where != 0 {
			names = append(names, refusedFields[i].name)
		}
	}
	return names
}

// decodeRefused reads the value, which is not null, of a field that is refused
// on a route unless its value asks for nothing.
func (t *tokenRules) decodeRefused(r *body.Reader, where routes, field string) error {
	value, err := r.Raw()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(refusedFields, func(f refusedField) bool { return f.routes&where != 0 && f.name == field })
	if f := &refusedFields[i]; !f.accepts(value) {
		reason := "is not supported"
		if f.neutral != "" {
			reason += ", except for " + strings.ReplaceAll(f.neutral, " ", " or ")
		}
		if f.instead != "" {
			reason += ": send " + f.instead
		}
		t.refuse(unsupported(field, reason))
	}
	return nil
}

// accepts reports whether a value asks for nothing.
func (f *refusedField) accepts(value []byte) bool {
	var text bytes.Buffer
	if len(value) > 64 || json.Compact(&text, value) != nil {
		return false
	}
	for neutral := range strings.FieldsSeq(f.neutral) {
		want, err := strconv.ParseFloat(neutral, 64)
		got, wrong := strconv.ParseFloat(text.String(), 64)
		if text.String() == neutral || err == nil && wrong == nil && got == want {
			return true
		}
	}
	return false
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
