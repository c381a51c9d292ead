package openapi

// documentCompletions makes the document's completions ours: all forms of a
// prompt, OpenAI's fields, and its form of log-probabilities.
func documentCompletions(doc Object, maxTokens int) {
	schemas := at(doc, "components", "schemas")
	id := Object{"type": "integer", "minimum": 0}
	schemas["Prompt"] = Object{
		"description": "A text, or token ids, or several of either",
		"anyOf": []Object{
			{"type": "string"},
			{"type": "array", "minItems": 1, "items": Object{"type": "string"}},
			{"type": "array", "minItems": 1, "items": id},
			{"type": "array", "minItems": 1, "items": Object{"type": "array", "minItems": 1, "items": id}},
		}}

	p := at(schemas, "CompletionRequest", "properties")
	chat := at(schemas, "ChatRequest", "properties")
	for _, name := range []string{"logit_bias", "presence_penalty", "stream_options", "n"} {
		p[name] = chat[name]
	}
	p["stop"] = stringOrList(at(p, "stop")["description"])
	at(p, "stream")["nullable"] = true
	for name, schema := range map[string]Object{
		"echo":     {"type": "boolean", "description": "Answer with the prompt before the generated text"},
		"logprobs": {"type": "integer", "minimum": 0, "description": "Show the log-probabilities of the tokens, and of so many alternatives to each"},
		"best_of":  {"type": "integer", "minimum": 1, "description": "How many answers to generate for each prompt; the likeliest n are answered"},
	} {
		schema["nullable"] = true
		p[name] = schema
	}
	at(p, "max_tokens")["default"] = maxTokens

	number := Object{"type": "number", "format": "float", "nullable": true}
	at(schemas, "CompletionComplete", "properties")["logprobs"] = Object{
		"type": "object", "nullable": true, "required": []string{"tokens", "token_logprobs", "text_offset"},
		"properties": Object{
			"tokens":         listOf(Object{"type": "string"}),
			"token_logprobs": listOf(number),
			"top_logprobs":   Object{"type": "array", "nullable": true, "items": Object{"type": "object", "nullable": true, "additionalProperties": number}},
			"text_offset":    listOf(Object{"type": "integer", "description": "Characters of the text before the token"}),
		}}
	grammar := at(schemas, "GrammarType")
	grammar["anyOf"] = []Object{
		{"type": "object", "required": []string{"type", "value"}, "properties": Object{
			"type":  Object{"type": "string", "enum": []string{"json", "json_object"}},
			"value": Object{"description": "A JSON schema that has properties, as an Object or as a string"}}},
		{"type": "object", "required": []string{"type", "value"}, "properties": Object{
			"type": Object{"type": "string", "enum": []string{"json_schema"}},
			"value": Object{"type": "object", "required": []string{"schema"}, "properties": Object{
				"name": Object{"type": "string", "nullable": true}, "schema": Object{"description": "Any JSON schema"}}}}},
		{"type": "object", "required": []string{"type", "value"}, "properties": Object{
			"type":  Object{"type": "string", "enum": []string{"regex"}},
			"value": Object{"type": "string", "description": "A regular expression that the whole text matches"}}},
	}
	delete(grammar, "oneOf")
	delete(grammar, "discriminator")
}

// documentInvocations says that a body may have several shapes at once, and
// that a generation is answered as on /.
func documentInvocations(doc Object, generation Object) {
	schemas := at(doc, "components", "schemas")
	eitherOrBoth(schemas, "SagemakerRequest")
	schemas["SagemakerResponse"] = Object{"anyOf": []Object{generation, Ref("ChatCompletion"), Ref("CompletionFinal")}}
	eitherOrBoth(schemas, "SagemakerStreamResponse")
}
