package openapi

// documentChat makes the document's chat ours: what requests may have in
// addition, the form of tool calls, and the routes that TGI's document leaves
// out. With argumentObjects calls have TGI's form.
func documentChat(doc Object, argumentObjects bool) {
	schemas := at(doc, "components", "schemas")
	documentChatRequest(schemas)

	schemas["FunctionCall"] = Object{
		"type": "object", "required": []string{"name", "arguments"},
		"properties": Object{"name": Object{"type": "string"}, "arguments": Object{"type": "string", "description": "JSON"}},
	}
	message := at(schemas, "TextMessage", "properties")
	calls := at(schemas, "ToolCallMessage", "properties")
	calls["content"] = Object{"type": "string", "nullable": true}
	message["tool_calls"] = calls["tool_calls"]
	for _, name := range []string{"reasoning_content", "reasoning"} {
		text := Object{"type": "string", "description": "What the model thought before it answered, under both names in use"}
		message[name], calls[name] = text, text
	}
	if !argumentObjects {
		at(schemas, "ToolCall", "properties")["function"] = Ref("FunctionCall")
		at(schemas, "ToolCallDelta", "properties")["tool_calls"] = listOf(Ref("DeltaToolCall"))
		schemas["DeltaToolCall"].(Object)["required"] = []string{"index", "function"}
	}
	at(schemas, "Url", "properties")["detail"] = Object{
		"type": "string", "enum": []string{"auto", "low", "high"}, "nullable": true,
		"description": "low: an image of fewer tokens, where the model's image processor has a range; the others: as the checkpoint has it",
	}
	// A message may have both content and calls.
	eitherOrBoth(schemas, "OutputMessage")
	eitherOrBoth(schemas, "ChatCompletionDelta")
	for _, name := range []string{"ChatCompletionLogprob", "ChatCompletionTopLogprob"} {
		at(schemas, name, "properties")["bytes"] = Object{
			"type": "array", "items": Object{"type": "integer", "minimum": 0, "maximum": 255}, "description": "Bytes of the token, which may be a part of a character"}
	}

	at(schemas, "Usage", "properties")["prompt_tokens_details"] = Object{
		"type": "object", "required": []string{"cached_tokens"},
		"properties": Object{"cached_tokens": Count("Tokens of the prompt that were in the prefix cache")},
	}
	at(schemas, "Usage", "properties")["completion_tokens_details"] = Object{
		"type": "object", "required": []string{"reasoning_tokens"}, "description": "Of chats",
		"properties": Object{
			"reasoning_tokens":           Count("Tokens of the answer that are reasoning, shown or not"),
			"accepted_prediction_tokens": Count("Tokens of the answer that were drafted from the request's prediction"),
			"rejected_prediction_tokens": Count("Tokens that were drafted from it and are not in the answer"),
		},
	}

	paths := at(doc, "paths")
	paths["/chat_tokenize"] = operation("chat_tokenize", "Render a chat's template and tokenize it", Ref("ChatRequest"), Object{
		"type": "object", "required": []string{"tokenize_response", "templated_text"},
		"properties": Object{"tokenize_response": Ref("TokenizeResponse"), "templated_text": Object{"type": "string"}},
	})
	texts := listOf(Object{"type": "string"})
	instance := Object{"oneOf": []Object{
		{"type": "object", "required": []string{"inputs"}, "properties": Object{
			"inputs": Object{"type": "string"}, "parameters": Object{"allOf": []Object{Ref("GenerateParameters")}, "nullable": true}}},
		Ref("ChatRequest"),
	}}
	paths["/vertex"] = operation("vertex_compatibility", "Generate tokens from Vertex request",
		Object{"type": "object", "required": []string{"instances"}, "properties": Object{"instances": listOf(instance)}},
		Object{"type": "object", "required": []string{"predictions"}, "properties": Object{"predictions": texts}})
	errors := at(paths, "/v1/chat/completions", "post", "responses")
	for _, status := range []string{"424", "429", "500"} {
		at(paths, "/vertex", "post", "responses")[status] = errors[status]
	}
}

// documentChatRequest adds what requests may have beyond the contract.
func documentChatRequest(schemas Object) {
	str := Object{"type": "string"}
	null := func(o Object) Object {
		o["nullable"] = true
		return o
	}
	openObject := func() Object { return Object{"type": "object", "additionalProperties": true} }

	p := at(schemas, "ChatRequest", "properties")
	p["stop"] = stringOrList(at(p, "stop")["description"])
	p["max_completion_tokens"] = null(Object{"type": "integer", "format": "int32", "minimum": 0, "description": "The newer name of max_tokens, which wins"})
	p["parallel_tool_calls"] = null(Object{"type": "boolean", "default": true, "description": "Whether one answer may call several tools"})
	p["chat_template_kwargs"] = null(openObject())
	at(p, "chat_template_kwargs")["description"] = "Further variables of the chat template"
	p["logit_bias"] = Object{
		"description": "Token ids and what is added to their scores, from -100 to 100. A list of numbers, TGI's form, has no effect",
		"nullable":    true, "oneOf": []Object{
			{"type": "object", "additionalProperties": Object{"type": "number"}, "example": Object{"42": -100}},
			listOf(Object{"type": "number", "format": "float"}),
		}}
	at(p, "n")["description"] = "How many answers to generate"
	for _, name := range []string{"stream", "logprobs"} {
		at(p, name)["nullable"] = true
	}
	schemas["StreamOptions"].(Object)["required"] = []string{}
	p["response_format"] = null(Object{"allOf": []Object{Ref("ResponseFormat")}})
	schemas["ResponseFormat"] = Object{
		"type": "object", "required": []string{"type"}, "description": "TGI's forms, which have a value, and OpenAI's",
		"properties": Object{
			"type":  Object{"type": "string", "enum": []string{"text", "json", "json_object", "json_schema", "regex"}},
			"value": Object{"description": "A JSON schema, as an Object or as a string; of type regex a regular expression"},
			"json_schema": Object{"type": "object", "required": []string{"schema"}, "properties": Object{
				"name": str, "strict": Object{"type": "boolean", "nullable": true}, "schema": openObject()}},
		}}

	tool := at(schemas, "ToolType")
	tool["oneOf"] = append(tool["oneOf"].([]any), Object{"type": "string", "enum": []string{"required"}, "description": "Means the model must call one or more tools."})
	function := at(schemas, "FunctionDefinition")
	function["required"] = []string{"name"}
	at(function, "properties")["parameters"] = null(openObject())
	at(function, "properties")["arguments"] = Object{"description": "TGI's name of parameters"}

	m := at(schemas, "Message")
	m["required"] = []string{"role"}
	m["description"] = "Content may be null; it may be left out beside tool_calls"
	fields := at(m, "properties")
	fields["content"] = null(Object{"allOf": []Object{Ref("MessageContent")}})
	fields["tool_call_id"] = null(Object{"type": "string", "description": "The call that a tool's message answers"})
	schemas["MessageToolCall"] = Object{
		"type": "object", "required": []string{"function"},
		"properties": Object{"id": str, "type": str, "function": Object{
			"type": "object", "required": []string{"name"},
			"properties": Object{"name": str, "arguments": Object{"oneOf": []Object{str, openObject()}}}}}}
	fields["tool_calls"] = null(listOf(Ref("MessageToolCall")))
}

// stringOrList is the schema of stop strings.
func stringOrList(description any) Object {
	return Object{
		"description": description, "nullable": true, "example": []string{"photographer"},
		"oneOf": []Object{{"type": "string"}, {"type": "array", "items": Object{"type": "string"}}}}
}

// eitherOrBoth lets a value have several of a schema's alternatives.
func eitherOrBoth(schemas Object, name string) {
	s := at(schemas, name)
	s["anyOf"] = s["oneOf"]
	delete(s, "oneOf")
}

// operation is a path that takes and answers JSON with POST.
func operation(id, summary string, request, response Object) Object {
	return Object{"post": Object{
		"tags": []string{"Text Generation Inference"}, "operationId": id, "summary": summary,
		"requestBody": Object{"required": true, "content": jsonBody(request)},
		"responses":   Object{"200": Object{"description": "OK", "content": jsonBody(response)}},
	}}
}
