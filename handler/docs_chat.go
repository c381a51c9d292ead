package handler

// documentChat makes the document's chat ours: what requests may have in
// addition, the form of tool calls, and the routes that TGI's document leaves
// out. With argumentObjects calls have TGI's form.
func documentChat(doc object, argumentObjects bool) {
	schemas := at(doc, "components", "schemas")
	documentChatRequest(schemas)

	schemas["FunctionCall"] = object{
		"type": "object", "required": []string{"name", "arguments"},
		"properties": object{"name": object{"type": "string"}, "arguments": object{"type": "string", "description": "JSON"}},
	}
	message := at(schemas, "TextMessage", "properties")
	calls := at(schemas, "ToolCallMessage", "properties")
	calls["content"] = object{"type": "string", "nullable": true}
	message["tool_calls"] = calls["tool_calls"]
	if !argumentObjects {
		at(schemas, "ToolCall", "properties")["function"] = ref("FunctionCall")
		at(schemas, "ToolCallDelta", "properties")["tool_calls"] = listOf(ref("DeltaToolCall"))
		schemas["DeltaToolCall"].(object)["required"] = []string{"index", "function"}
	}
	// A message may have both content and calls.
	eitherOrBoth(schemas, "OutputMessage")
	eitherOrBoth(schemas, "ChatCompletionDelta")
	for _, name := range []string{"ChatCompletionLogprob", "ChatCompletionTopLogprob"} {
		at(schemas, name, "properties")["bytes"] = object{
			"type": "array", "items": object{"type": "integer", "minimum": 0, "maximum": 255}, "description": "Bytes of the token, which may be a part of a character"}
	}

	paths := at(doc, "paths")
	paths["/chat_tokenize"] = operation("chat_tokenize", "Render a chat's template and tokenize it", ref("ChatRequest"), object{
		"type": "object", "required": []string{"tokenize_response", "templated_text"},
		"properties": object{"tokenize_response": ref("TokenizeResponse"), "templated_text": object{"type": "string"}},
	})
	texts := listOf(object{"type": "string"})
	instance := object{"oneOf": []object{
		{"type": "object", "required": []string{"inputs"}, "properties": object{
			"inputs": object{"type": "string"}, "parameters": object{"allOf": []object{ref("GenerateParameters")}, "nullable": true}}},
		ref("ChatRequest"),
	}}
	paths["/vertex"] = operation("vertex_compatibility", "Generate tokens from Vertex request",
		object{"type": "object", "required": []string{"instances"}, "properties": object{"instances": listOf(instance)}},
		object{"type": "object", "required": []string{"predictions"}, "properties": object{"predictions": texts}})
	errors := at(paths, "/v1/chat/completions", "post", "responses")
	for _, status := range []string{"424", "429", "500"} {
		at(paths, "/vertex", "post", "responses")[status] = errors[status]
	}
}

// documentChatRequest adds what requests may have beyond the contract.
func documentChatRequest(schemas object) {
	str := object{"type": "string"}
	null := func(o object) object {
		o["nullable"] = true
		return o
	}
	openObject := func() object { return object{"type": "object", "additionalProperties": true} }

	p := at(schemas, "ChatRequest", "properties")
	p["stop"] = stringOrList(at(p, "stop")["description"])
	p["max_completion_tokens"] = null(object{"type": "integer", "format": "int32", "minimum": 0, "description": "The newer name of max_tokens, which wins"})
	p["parallel_tool_calls"] = null(object{"type": "boolean", "default": true, "description": "Whether one answer may call several tools"})
	p["chat_template_kwargs"] = null(openObject())
	at(p, "chat_template_kwargs")["description"] = "Further variables of the chat template"
	p["logit_bias"] = object{
		"description": "Token ids and what is added to their scores, from -100 to 100. A list of numbers, TGI's form, has no effect",
		"nullable":    true, "oneOf": []object{
			{"type": "object", "additionalProperties": object{"type": "number"}, "example": object{"42": -100}},
			listOf(object{"type": "number", "format": "float"}),
		}}
	at(p, "n")["description"] = "How many answers to generate"
	for _, name := range []string{"stream", "logprobs"} {
		at(p, name)["nullable"] = true
	}
	schemas["StreamOptions"].(object)["required"] = []string{}
	p["response_format"] = null(object{"allOf": []object{ref("ResponseFormat")}})
	schemas["ResponseFormat"] = object{
		"type": "object", "required": []string{"type"}, "description": "TGI's forms, which have a value, and OpenAI's",
		"properties": object{
			"type":  object{"type": "string", "enum": []string{"text", "json", "json_object", "json_schema", "regex"}},
			"value": object{"description": "A JSON schema, as an object or as a string; of type regex a regular expression"},
			"json_schema": object{"type": "object", "required": []string{"schema"}, "properties": object{
				"name": str, "strict": object{"type": "boolean", "nullable": true}, "schema": openObject()}},
		}}

	tool := at(schemas, "ToolType")
	tool["oneOf"] = append(tool["oneOf"].([]any), object{"type": "string", "enum": []string{"required"}, "description": "Means the model must call one or more tools."})
	function := at(schemas, "FunctionDefinition")
	function["required"] = []string{"name"}
	at(function, "properties")["parameters"] = null(openObject())
	at(function, "properties")["arguments"] = object{"description": "TGI's name of parameters"}

	m := at(schemas, "Message")
	m["required"] = []string{"role"}
	m["description"] = "Content may be null; it may be left out beside tool_calls"
	fields := at(m, "properties")
	fields["content"] = null(object{"allOf": []object{ref("MessageContent")}})
	fields["tool_call_id"] = null(object{"type": "string", "description": "The call that a tool's message answers"})
	schemas["MessageToolCall"] = object{
		"type": "object", "required": []string{"function"},
		"properties": object{"id": str, "type": str, "function": object{
			"type": "object", "required": []string{"name"},
			"properties": object{"name": str, "arguments": object{"oneOf": []object{str, openObject()}}}}}}
	fields["tool_calls"] = null(listOf(ref("MessageToolCall")))
}

// stringOrList is the schema of stop strings.
func stringOrList(description any) object {
	return object{
		"description": description, "nullable": true, "example": []string{"photographer"},
		"oneOf": []object{{"type": "string"}, {"type": "array", "items": object{"type": "string"}}}}
}

// eitherOrBoth lets a value have several of a schema's alternatives.
func eitherOrBoth(schemas object, name string) {
	s := at(schemas, name)
	s["anyOf"] = s["oneOf"]
	delete(s, "oneOf")
}

// operation is a path that takes and answers JSON with POST.
func operation(id, summary string, request, response object) object {
	return object{"post": object{
		"tags": []string{"Text Generation Inference"}, "operationId": id, "summary": summary,
		"requestBody": object{"required": true, "content": jsonBody(request)},
		"responses":   object{"200": object{"description": "OK", "content": jsonBody(response)}},
	}}
}
