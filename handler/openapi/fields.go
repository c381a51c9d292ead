package openapi

import "strings"

// documentFields adds fields of other servers that are honoured, and what answers
// have for them.
func documentFields(doc Object, fields map[string]map[string]Object) {
	schemas := at(doc, "components", "schemas")
	for name, fields := range fields {
		properties := at(schemas, name, "properties")
		for field, schema := range fields {
			if properties[field] == nil {
				schema = clone(schema)
				schema["nullable"] = true
				properties[field] = schema
			}
		}
	}
	for _, name := range []string{"ChatRequest", "CompletionRequest"} {
		delete(at(schemas, name, "properties", "seed"), "minimum")
	}
	at(schemas, "ChatRequest", "properties", "top_logprobs")["description"] = "How many alternatives to each token to show, with logprobs; at most 20, or --max-top-n-tokens"

	at(schemas, "StreamOptions", "properties")["continuous_usage_stats"] = Object{
		"type": "boolean", "nullable": true, "description": "Whether every chunk tells the usage of its choice so far"}

	schemas["PromptLogprobs"] = Object{
		"type": "array", "nullable": true, "description": "For each token of the prompt, by their ids, it and its alternatives; null for the first one and for image tokens",
		"items": Object{"type": "object", "nullable": true, "additionalProperties": Object{
			"type": "object", "required": []string{"logprob", "decoded_token"}, "properties": Object{
				"logprob": Object{"type": "number"}, "rank": Object{"type": "integer", "nullable": true, "minimum": 1}, "decoded_token": Object{"type": "string"}}}}}
	for _, name := range []string{"ChatCompletion", "CompletionComplete"} {
		at(schemas, name, "properties")["prompt_logprobs"] = Ref("PromptLogprobs")
	}

	at(schemas, "ModelInfo", "properties")["max_model_len"] = Object{"type": "integer", "description": "Most tokens of prompt and answer together, once the model is loaded"}
	at(schemas, "Info", "properties")["sampling_defaults"] = Object{
		"type": "object", "description": "What the OpenAI routes take for fields that a request leaves out, from the model's generation_config.json; absent if there is nothing",
		"additionalProperties": Object{"type": "number"}}
	at(schemas, "Info", "properties")["hardware"] = Object{
		"type": "string", "description": "The GPU or instruction set that computes, and kernels that failed the self-test at the start, which others replace"}
	paths := at(doc, "paths")
	one := clone(at(paths, "/v1/models"))
	at(one, "get")["operationId"] = "openai_get_model"
	at(one, "get")["parameters"] = []Object{{"name": "model", "in": "path", "required": true, "schema": Object{"type": "string"}, "example": "tgi"}}
	at(one, "get", "responses", "200", "content", "application/json")["schema"] = Ref("ModelInfo")
	paths["/v1/models/{model}"] = one
}

// documentErrorObjects says that the /v1 routes answer errors in OpenAI's form.
func documentErrorObjects(doc Object) {
	text := Object{"type": "string"}
	at(doc, "components", "schemas")["ErrorObject"] = Object{
		"type": "object", "required": []string{"error"}, "properties": Object{"error": Object{
			"type": "object", "required": []string{"message", "type", "param", "code"}, "properties": Object{
				"message": text, "type": text, "param": Object{"type": "string", "nullable": true}, "code": text}}}}
	paths := at(doc, "paths")
	for path := range paths {
		if !strings.HasPrefix(path, "/v1/") {
			continue
		}
		for _, op := range at(paths, path) {
			for code, r := range at(op.(Object), "responses") {
				if code != "200" {
					r.(Object)["content"] = jsonBody(Ref("ErrorObject"))
				}
			}
		}
	}
}
