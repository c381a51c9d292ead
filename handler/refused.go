package handler

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/millrace-ai/millrace/handler/body"
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
	{"thinking_token_budget", onCompletion | onGenerate, "-1", "/v1/chat/completions"},
	{"thinking_budget_tokens", onCompletion | onGenerate, "-1", "/v1/chat/completions"},
	{"reasoning_budget_tokens", onCompletion | onGenerate, "-1", "/v1/chat/completions"},
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
	{"logprob_token_ids", onOpenAI, "[]", "`top_logprobs`"},
	{"return_token_ids", onOpenAI, "false", ""},
	{"return_tokens_as_token_ids", onOpenAI, "false", ""},
	{"return_prompt_text", onChat, "false", "/chat_tokenize"},
}

// field returns what reads f: its value is refused unless it asks for nothing.
func (f *refusedField) field() field {
	reason := "is not supported"
	if f.neutral != "" {
		reason += ", except for " + strings.ReplaceAll(f.neutral, " ", " or ")
	}
	if f.instead != "" {
		reason += ": send " + f.instead
	}
	return field{name: f.name, routes: f.routes, set: func(p *parameters, r *body.Reader) error {
		value, err := r.Raw()
		if err == nil && !f.accepts(value) {
			p.refuse(unsupported(f.name, reason))
		}
		return err
	}}
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
