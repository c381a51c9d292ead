package handler

import "strings"

// documentFields adds the fields of other servers that are honoured, and what
// answers have for them.
func documentFields(doc object) {
	schemas := at(doc, "components", "schemas")
	number := func(low, high float64, text string) object {
		return object{"type": "number", "format": "float", "minimum": low, "maximum": high, "description": text}
	}
	count := func(text string) object {
		return object{"type": "integer", "format": "int32", "minimum": 0, "description": text}
	}
	yesNo := func(def bool, text string) object {
		return object{"type": "boolean", "default": def, "description": text}
	}
	ids := func(text string) object {
		return object{"type": "array", "items": object{"type": "integer", "minimum": 0}, "description": text}
	}
	words := func(text string) object {
		return object{"type": "array", "items": object{"type": "string"}, "description": text}
	}
	schema := func(text string) object {
		return object{"anyOf": []object{{"type": "object"}, {"type": "string"}}, "description": text}
	}
	rules := map[string]object{
		"min_p":             number(0, 1, "Only tokens of at least this share of the likeliest one's probability are drawn"),
		"allowed_token_ids": ids("No other tokens are generated"),
		"stop_token_ids":    ids("These tokens end the text, too"),
		"bad_words":         words("These words are not written, with or without a space before them"),
		"cache_salt":        {"type": "string", "maxLength": maxSaltBytes, "description": "The cache of prompts is shared with requests of the same salt alone"},
	}
	openAI := map[string]object{
		"top_k":                         {"type": "integer", "format": "int32", "minimum": -1, "description": "Only so many of the likeliest tokens are drawn; -1 and 0: all"},
		"typical_p":                     number(0, 1, "Typical sampling; 1 is off"),
		"repetition_penalty":            number(0, 1000, "1 is off"),
		"min_tokens":                    count("No end token or stop string counts before so many tokens"),
		"ignore_eos":                    yesNo(false, "End tokens end nothing"),
		"include_stop_str_in_output":    yesNo(false, "Whether the text has what ended it"),
		"skip_special_tokens":           yesNo(true, "Whether the text is without special tokens"),
		"spaces_between_special_tokens": yesNo(false, "Refused with true where special tokens are shown"),
		"prompt_logprobs":               count("Show the log-probabilities of the prompt's tokens, and of so many likelier ones"),
		"truncate_prompt_tokens":        {"type": "integer", "format": "int32", "minimum": -1, "description": "So many tokens of the prompt are kept, the last ones; -1: as many as fit"},
		"add_special_tokens":            {"type": "boolean", "description": "Whether the tokenizer adds its special tokens; by default to completions alone"},
		"response_format":               {"allOf": []object{ref("ResponseFormat")}},
		"guided_json":                   schema("A JSON schema that the text follows"),
		"json_schema":                   schema("Another name of guided_json"),
		"guided_regex":                  {"type": "string", "description": "A regular expression that the whole text matches"},
		"guided_choice":                 words("The text is one of these"),
		"grammar":                       {"allOf": []object{ref("GrammarType")}},
		"structured_outputs": {"type": "object", "description": "One of json, regex, choice and json_object", "properties": object{
			"json": schema(""), "regex": object{"type": "string"}, "choice": words(""), "json_object": object{"type": "boolean"}}},
	}
	chat := map[string]object{
		"documents":              {"type": "array", "items": object{"type": "object"}, "description": "What the model is to draw on, if its chat template shows documents"},
		"reasoning_effort":       {"type": "string", "enum": efforts, "description": "For chat templates that read it"},
		"add_generation_prompt":  yesNo(true, "Whether the prompt ends with the beginning of an answer"),
		"continue_final_message": {"type": "boolean", "description": "Whether the answer continues the last message; by default, if it is the assistant's"},
	}
	generate := map[string]object{
		"min_new_tokens":             openAI["min_tokens"],
		"ignore_eos_token":           openAI["ignore_eos"],
		"stop_sequences":             words("More of stop"),
		"bad_sequences":              words("Another name of bad_words"),
		"presence_penalty":           number(-2, 2, "Subtracted from the scores of tokens generated before"),
		"include_stop_str_in_output": yesNo(true, "Refused with false where there are stop strings"),
	}
	for name, fields := range map[string][]map[string]object{
		"ChatRequest": {rules, openAI, chat}, "CompletionRequest": {rules, openAI}, "GenerateParameters": {rules, generate},
	} {
		properties := at(schemas, name, "properties")
		for _, group := range fields {
			for field, schema := range group {
				if properties[field] == nil {
					schema = clone(schema)
					schema["nullable"] = true
					properties[field] = schema
				}
			}
		}
	}
	for _, name := range []string{"ChatRequest", "CompletionRequest"} {
		delete(at(schemas, name, "properties", "seed"), "minimum")
	}
	at(schemas, "ChatRequest", "properties", "top_logprobs")["description"] = "How many alternatives to each token to show, with logprobs; at most 20, or --max-top-n-tokens"

	at(schemas, "StreamOptions", "properties")["continuous_usage_stats"] = object{
		"type": "boolean", "nullable": true, "description": "Whether every chunk tells the usage of its choice so far"}

	schemas["PromptLogprobs"] = object{
		"type": "array", "nullable": true, "description": "For each token of the prompt but the first, by their ids, it and its alternatives",
		"items": object{"type": "object", "nullable": true, "additionalProperties": object{
			"type": "object", "required": []string{"logprob", "decoded_token"}, "properties": object{
				"logprob": object{"type": "number"}, "rank": object{"type": "integer", "nullable": true, "minimum": 1}, "decoded_token": object{"type": "string"}}}}}
	for _, name := range []string{"ChatCompletion", "CompletionComplete"} {
		at(schemas, name, "properties")["prompt_logprobs"] = ref("PromptLogprobs")
	}

	at(schemas, "ModelInfo", "properties")["max_model_len"] = object{"type": "integer", "description": "Most tokens of prompt and answer together, once the model is loaded"}
	at(schemas, "Info", "properties")["sampling_defaults"] = object{
		"type": "object", "description": "What the OpenAI routes take for fields that a request leaves out, from the model's generation_config.json; absent if there is nothing",
		"additionalProperties": object{"type": "number"}}
	paths := at(doc, "paths")
	one := clone(at(paths, "/v1/models"))
	at(one, "get")["operationId"] = "openai_get_model"
	at(one, "get")["parameters"] = []object{{"name": "model", "in": "path", "required": true, "schema": object{"type": "string"}, "example": "tgi"}}
	at(one, "get", "responses", "200", "content", "application/json")["schema"] = ref("ModelInfo")
	paths[modelsPath+"{model}"] = one
}

// documentErrorObjects says that the /v1 routes answer errors in OpenAI's form.
func documentErrorObjects(doc object) {
	text := object{"type": "string"}
	at(doc, "components", "schemas")["ErrorObject"] = object{
		"type": "object", "required": []string{"error"}, "properties": object{"error": object{
			"type": "object", "required": []string{"message", "type", "param", "code"}, "properties": object{
				"message": text, "type": text, "param": object{"type": "string", "nullable": true}, "code": text}}}}
	paths := at(doc, "paths")
	for path := range paths {
		if !strings.HasPrefix(path, "/v1/") {
			continue
		}
		for _, op := range at(paths, path) {
			for code, r := range at(op.(object), "responses") {
				if code != "200" {
					r.(object)["content"] = jsonBody(ref("ErrorObject"))
				}
			}
		}
	}
}
