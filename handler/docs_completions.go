package handler

// documentCompletions makes the document's completions ours: all forms of a
// prompt, OpenAI's fields, and its form of log-probabilities.
func documentCompletions(doc object) {
	schemas := at(doc, "components", "schemas")
	id := object{"type": "integer", "minimum": 0}
	schemas["Prompt"] = object{
		"description": "A text, or token ids, or several of either",
		"anyOf": []object{
			{"type": "string"},
			{"type": "array", "minItems": 1, "items": object{"type": "string"}},
			{"type": "array", "minItems": 1, "items": id},
			{"type": "array", "minItems": 1, "items": object{"type": "array", "minItems": 1, "items": id}},
		}}

	p := at(schemas, "CompletionRequest", "properties")
	chat := at(schemas, "ChatRequest", "properties")
	for _, name := range []string{"logit_bias", "presence_penalty", "stream_options", "n"} {
		p[name] = chat[name]
	}
	p["stop"] = stringOrList(at(p, "stop")["description"])
	at(p, "stream")["nullable"] = true
	for name, schema := range map[string]object{
		"echo":     {"type": "boolean", "description": "Answer with the prompt before the generated text"},
		"logprobs": {"type": "integer", "minimum": 0, "description": "Show the log-probabilities of the tokens, and of so many alternatives to each"},
		"best_of":  {"type": "integer", "minimum": 1, "description": "How many answers to generate for each prompt; the likeliest n are answered"},
	} {
		schema["nullable"] = true
		p[name] = schema
	}
	at(p, "max_tokens")["default"] = defaultMaxNewTokens

	number := object{"type": "number", "format": "float", "nullable": true}
	at(schemas, "CompletionComplete", "properties")["logprobs"] = object{
		"type": "object", "nullable": true, "required": []string{"tokens", "token_logprobs", "text_offset"},
		"properties": object{
			"tokens":         listOf(object{"type": "string"}),
			"token_logprobs": listOf(number),
			"top_logprobs":   object{"type": "array", "nullable": true, "items": object{"type": "object", "nullable": true, "additionalProperties": number}},
			"text_offset":    listOf(object{"type": "integer", "description": "Characters of the text before the token"}),
		}}
	grammar := at(schemas, "GrammarType")
	grammar["anyOf"] = []object{
		{"type": "object", "required": []string{"type", "value"}, "properties": object{
			"type":  object{"type": "string", "enum": []string{"json", "json_object"}},
			"value": object{"description": "A JSON schema that has properties, as an object or as a string"}}},
		{"type": "object", "required": []string{"type", "value"}, "properties": object{
			"type": object{"type": "string", "enum": []string{"json_schema"}},
			"value": object{"type": "object", "required": []string{"schema"}, "properties": object{
				"name": object{"type": "string", "nullable": true}, "schema": object{"description": "Any JSON schema"}}}}},
		{"type": "object", "required": []string{"type", "value"}, "properties": object{
			"type":  object{"type": "string", "enum": []string{"regex"}},
			"value": object{"type": "string", "description": "A regular expression that the whole text matches"}}},
	}
	delete(grammar, "oneOf")
	delete(grammar, "discriminator")
}

// documentInvocations says that a body may have several shapes at once, and
// that a generation is answered as on /.
func documentInvocations(doc object, generation object) {
	schemas := at(doc, "components", "schemas")
	eitherOrBoth(schemas, "SagemakerRequest")
	schemas["SagemakerResponse"] = object{"anyOf": []object{generation, ref("ChatCompletion"), ref("CompletionFinal")}}
	eitherOrBoth(schemas, "SagemakerStreamResponse")
}
