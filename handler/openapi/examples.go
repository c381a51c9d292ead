package openapi

import "fmt"

// documentExamples gives each route bodies that any model answers. Swagger UI
// offers the first of them; without one it makes a body up from the examples
// and defaults of single fields, which the server rightly refuses.
func documentExamples(doc Object, grammars bool) {
	type example struct {
		summary string
		body    Object
	}
	messages := []Object{{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "What is deep learning?"}}
	person := Object{
		"type": "object", "required": []string{"name", "age"}, "additionalProperties": false,
		"properties": Object{"name": Object{"type": "string", "maxLength": 20}, "age": Object{"type": "integer", "minimum": 0, "maximum": 120}}}

	generate := []example{
		{"Greedy", Object{"inputs": "My name is Olivier and I", "parameters": Object{"max_new_tokens": 20}}},
		{"Sampled, with details", Object{"inputs": "My name is Olivier and I", "parameters": Object{
			"do_sample": true, "temperature": 0.5, "top_k": 10, "top_p": 0.95, "seed": 42, "repetition_penalty": 1.03, "stop": []string{"photographer"},
			"max_new_tokens": 20, "details": true, "top_n_tokens": 2}}},
	}
	chat := []example{
		{"Greedy", Object{"model": "tgi", "messages": messages, "max_tokens": 32, "temperature": 0}},
		{"Sampled, with log-probabilities", Object{"model": "tgi", "messages": messages, "max_tokens": 32,
			"temperature": 0.7, "top_p": 0.95, "seed": 42, "n": 2, "logprobs": true, "top_logprobs": 2}},
		{"Streamed", Object{"model": "tgi", "messages": messages, "max_tokens": 32, "stream": true, "stream_options": Object{"include_usage": true}}},
	}
	completion := []example{
		{"Greedy", Object{"model": "tgi", "prompt": "My name is Olivier and I", "max_tokens": 20, "temperature": 0}},
		{"Several prompts", Object{"model": "tgi", "prompt": []string{"My name is Olivier and I", "The capital of France is"}, "max_tokens": 20, "seed": 42, "logprobs": 2}},
	}
	if grammars {
		generate = append(generate, example{"JSON of a schema", Object{"inputs": "A person as JSON:", "parameters": Object{
			"max_new_tokens": 60, "grammar": Object{"type": "json", "value": person}}}})
		chat = append(chat,
			example{"JSON of a schema", Object{"model": "tgi", "messages": []Object{{"role": "user", "content": "A person as JSON, please."}}, "max_tokens": 60,
				"response_format": Object{"type": "json_schema", "json_schema": Object{"name": "person", "schema": person}}}},
			example{"A tool", Object{"model": "tgi", "messages": []Object{{"role": "user", "content": "What is the weather in Paris?"}}, "max_tokens": 100, "tool_choice": "required",
				"tools": []Object{{"type": "function", "function": Object{
					"name": "get_weather", "description": "Get the weather of a city.",
					"parameters": Object{"type": "object", "properties": Object{"city": Object{"type": "string", "maxLength": 20}}, "required": []string{"city"}}}}}}})
	}
	for path, examples := range map[string][]example{
		"/": generate, "/generate": generate, "/generate_stream": generate,
		"/v1/chat/completions": chat,
		"/v1/completions":      completion,
		"/invocations": {
			{"Generation", generate[0].body}, {"Chat", chat[0].body}, {"Completion", completion[0].body}},
		"/vertex": {
			{"Generations", Object{"instances": []Object{generate[0].body, {"inputs": "The capital of France is"}}}},
			{"Chat", Object{"instances": []Object{chat[0].body}}}},
		"/tokenize":      {{"Text", Object{"inputs": "My name is Olivier and I"}}},
		"/chat_tokenize": {{"Chat", Object{"messages": messages}}},
	} {
		named := Object{}
		for i, e := range examples {
			named[fmt.Sprintf("example%d", i+1)] = Object{"summary": e.summary, "value": e.body}
		}
		at(doc, "paths", path, "post", "requestBody", "content", "application/json")["examples"] = named
	}
}
