// Package openapi makes the OpenAPI document that a server serves: the contract,
// openapi.json, with what is different here. It edits the contract, so that
// nobody has to keep a second document of it.
package openapi

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// contract is TGI's OpenAPI document, unchanged. What a server serves is
// this with the edits of document.
//
//go:embed openapi.json
var contract []byte

// Options are what a document depends on.
type Options struct {
	Version     string
	ToolCalls   bool // as objects, in TGI's form
	Grammars    bool // are served
	ErrorObject bool // the /v1 routes answer errors in OpenAI's form
	MaxTokens   int  // of a completion that does not say how many
	// Fields are the schemas of what requests may have beyond the contract, by
	// the contract's name of the request and by the field's own.
	Fields map[string]map[string]Object
}

// Object is a JSON object: a schema, or another part of a document.
type Object = map[string]any

// at follows keys down from o. The contract has what the edits name; a test
// makes the document, so a missing key cannot reach a user.
func at(o Object, keys ...string) Object {
	for _, k := range keys {
		next, ok := o[k].(Object)
		if !ok {
			panic(fmt.Sprintf("openapi.json: no Object %q in %q", k, keys))
		}
		o = next
	}
	return o
}

func jsonBody(schema Object) Object {
	return Object{"application/json": Object{"schema": schema}}
}

func listOf(schema Object) Object { return Object{"type": "array", "items": schema} }

// errorDescriptions are the answers that TGI gives as plain text or not at
// all, and that are JSON errors here.
var errorDescriptions = map[int]string{
	http.StatusBadRequest:            "The body is not JSON",
	http.StatusUnauthorized:          "The API key is missing or wrong",
	http.StatusRequestTimeout:        "The body did not arrive in time",
	http.StatusRequestEntityTooLarge: "The body is larger than --payload-limit",
	http.StatusUnsupportedMediaType:  "The content type is not application/json",
	http.StatusUnprocessableEntity:   "Input validation error",
	http.StatusServiceUnavailable:    "The model is loading, or the server is shutting down",
	http.StatusGatewayTimeout:        "The time limit of the request passed before its first token",
}

// Document returns the contract with our differences: /ping, the errors
// above, answers that are arrays, and only the routes that exist.
func Document(o *Options) []byte {
	var doc Object
	if err := json.Unmarshal(contract, &doc); err != nil {
		panic(err) // a test makes the document
	}
	info := at(doc, "info")
	info["title"], info["version"] = "Millrace", o.Version
	info["description"] = "Text generation over the API of Text Generation Inference"
	info["contact"] = Object{"name": "Millrace"}
	doc["servers"] = []Object{{"url": ".."}} // seen from the document, also below a proxy's prefix

	paths := at(doc, "paths")
	health := at(paths, "/health")
	health["get"].(Object)["responses"].(Object)["503"] = Object{
		"description": "Loading, shutting down, or the device hangs", "content": jsonBody(Ref("ErrorResponse"))}
	ping := Object{"get": clone(at(health, "get"))}
	at(ping, "get")["operationId"] = "ping"
	paths["/ping"] = ping

	generation := listOf(Ref("GenerateResponse"))
	at(paths, "/", "post", "responses", "200", "content", "application/json")["schema"] = generation
	at(paths, "/v1/models", "get", "responses", "200", "content", "application/json")["schema"] = Object{
		"type": "object", "required": []string{"object", "data"},
		"properties": Object{"object": Object{"type": "string", "example": "list"}, "data": listOf(Ref("ModelInfo"))}}
	params := at(doc, "components", "schemas", "GenerateParameters", "properties")
	params["stop"] = stringOrList(at(params, "stop")["description"])
	for _, name := range []string{"details", "decoder_input_details", "do_sample", "watermark"} {
		at(params, name)["default"], at(params, name)["nullable"] = false, true
	}
	at(doc, "components")["securitySchemes"] = Object{"key": Object{"type": "http", "scheme": "bearer"}}

	documentChat(doc, o.ToolCalls)
	documentCompletions(doc, o.MaxTokens)
	documentInvocations(doc, generation)
	documentFields(doc, o.Fields)
	documentEndings(doc)
	documentExamples(doc, o.Grammars)
	for path := range paths {
		for method, op := range at(paths, path) {
			addErrors(path, method, op.(Object))
		}
	}
	if o.ErrorObject {
		documentErrorObjects(doc)
	}
	mend(doc)
	out, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return out
}

// documentEndings says what an answer has that a deadline cut, or that repeats itself.
func documentEndings(doc Object) {
	for _, name := range []string{"Details", "BestOfSequence", "StreamDetails", "ChatCompletionComplete", "ChatCompletionChoice", "CompletionComplete"} {
		at(doc, "components", "schemas", name, "properties")["cut"] = Object{
			"type": "string", "enum": []string{"deadline", "repetition"}, "description": "What ended the text, if it is not the limit of tokens that the finish reason length names"}
	}
	for _, name := range []string{"ChatCompletionComplete", "ChatCompletionChoice", "CompletionComplete"} {
		at(doc, "components", "schemas", name, "properties")["stop_reason"] = Object{
			"type": "string", "enum": []string{"repetition_detected"}, "description": "With the finish reason repetition: the text repeated itself"}
	}
}

// addErrors adds the errors that any route of its kind can answer.
func addErrors(path, method string, op Object) {
	open := path == "/health" || path == "/ping" || path == "/metrics"
	responses := at(op, "responses")
	for code, r := range responses {
		if content, ok := r.(Object)["content"].(Object); ok && code != "200" && content["application/json"] == nil {
			r.(Object)["content"] = jsonBody(Ref("ErrorResponse")) // an event in TGI's document, which it is only after a token
		}
	}
	for status, description := range errorDescriptions {
		code := strconv.Itoa(status)
		body := status != http.StatusUnauthorized && status != http.StatusServiceUnavailable
		if responses[code] != nil || body && method != "post" || open {
			continue
		}
		responses[code] = Object{"description": description, "content": jsonBody(Ref("ErrorResponse"))}
	}
	if !open {
		op["security"] = []Object{{}, {"key": []string{}}} // needed only with --api-key
	}
}

// mend rewrites what is not valid in OpenAPI 3.0, which stops generators of
// clients and tests: exclusive bounds that are numbers, and defaults and examples
// that are JSON inside a string, "null" among them.
func mend(node any) {
	switch node := node.(type) {
	case []any:
		for _, n := range node {
			mend(n)
		}
	case Object:
		for inclusive, exclusive := range map[string]string{"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"} {
			if bound, ok := node[exclusive].(float64); ok {
				node[inclusive], node[exclusive] = bound, true
			}
		}
		for _, key := range []string{"default", "example"} {
			text, ok := node[key].(string)
			var value any
			switch {
			case text == "null":
				delete(node, key)
			case ok && node["type"] != "string" && node["type"] != nil && json.Unmarshal([]byte(text), &value) == nil:
				node[key] = value
			}
		}
		for _, n := range node {
			mend(n)
		}
	}
}

// clone copies a JSON object.
func clone(o Object) Object {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var out Object
	if err := json.Unmarshal(data, &out); err != nil {
		panic(err)
	}
	return out
}
