package handler

import "strings"

// documentFields adds the fields of other servers that are honoured, and what
// answers have for them.
func documentFields(doc object) {
	schemas := at(doc, "components", "schemas")
	chat := map[string]object{
		"documents":              {"type": "array", "items": object{"type": "object"}, "description": "What the model is to draw on, if its chat template shows documents"},
		"reasoning_effort":       {"type": "string", "enum": efforts, "description": "For chat templates that read it"},
		"add_generation_prompt":  yesNo(true, "Whether the prompt ends with the beginning of an answer"),
		"continue_final_message": {"type": "boolean", "description": "Whether the answer continues the last message; by default, if it is the assistant's"},
	}
	for name, route := range map[string]routes{"ChatRequest": onChat, "CompletionRequest": onCompletion, "GenerateParameters": onGenerate} {
		properties := at(schemas, name, "properties")
		add := func(field string, schema object) {
			if schema != nil && properties[field] == nil {
				schema = clone(schema)
				schema["nullable"] = true
				properties[field] = schema
			}
		}
		for i := range parameterFields {
			if f := &parameterFields[i]; f.routes&route != 0 {
				add(f.name, f.doc)
			}
		}
		if route == onChat {
			for field, schema := range chat {
				add(field, schema)
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
