package handler

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"
)

// contract is TGI's OpenAPI document, unchanged. What a server serves is
// this with the edits of document.
//
//go:embed openapi.json
var contract []byte

// openAPI handles GET /api-doc/openapi.json.
func (s *Server) openAPI(x *exchange) error {
	writeJSON(x.w, http.StatusOK, s.document())
	return nil
}

// docs returns the handler of Swagger UI below /docs/. Its files are in the
// binary, so that a machine without a network shows them, too. The page names
// them, and the document, relative to itself: it may lie below a proxy's prefix.
func (s *Server) docs() handlerFunc {
	ui := v5emb.NewWithConfig(swgui.Config{
		InternalBasePath: "/docs/",
		ShowTopBar:       true,
		SettingsUI:       map[string]string{"tryItOutEnabled": "true"},
	})("Millrace", "../api-doc/openapi.json", ".")
	return func(x *exchange) error {
		ui.ServeHTTP(x.w, x.r)
		return nil
	}
}

// redirectTo sends a browser to the page at another path. A relative path
// holds below the prefix of a proxy, too.
func redirectTo(path string) handlerFunc {
	return func(x *exchange) error {
		x.w.Header().Set("Location", path)
		x.w.Header().Set("Content-Length", "0")
		x.w.WriteHeader(http.StatusSeeOther)
		return nil
	}
}

// serveFiles serves a page whose files lie below prefix.
func serveFiles(prefix string, files http.Handler) handlerFunc {
	files = http.StripPrefix(prefix, files)
	return func(x *exchange) error {
		files.ServeHTTP(x.w, x.r)
		return nil
	}
}

// object is a JSON object that is edited.
type object = map[string]any

// at follows keys down from o. The contract has what the edits name; a test
// makes the document, so a missing key cannot reach a user.
func at(o object, keys ...string) object {
	for _, k := range keys {
		next, ok := o[k].(object)
		if !ok {
			panic(fmt.Sprintf("openapi.json: no object %q in %q", k, keys))
		}
		o = next
	}
	return o
}

func jsonBody(schema object) object {
	return object{"application/json": object{"schema": schema}}
}

func ref(schema string) object { return object{"$ref": "#/components/schemas/" + schema} }

func listOf(schema object) object { return object{"type": "array", "items": schema} }

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

// newDocument returns the contract with our differences: /ping, the errors
// above, answers that are arrays, and only the routes that exist.
func newDocument(o *Options) []byte {
	var doc object
	if err := json.Unmarshal(contract, &doc); err != nil {
		panic(err) // a test makes the document
	}
	info := at(doc, "info")
	info["title"], info["version"] = "Millrace", o.Version
	info["description"] = "Text generation over the API of Text Generation Inference"
	info["contact"] = object{"name": "Millrace"}
	doc["servers"] = []object{{"url": ".."}} // seen from the document, also below a proxy's prefix

	paths := at(doc, "paths")
	health := at(paths, "/health")
	health["get"].(object)["responses"].(object)["503"] = object{
		"description": "Loading, shutting down, or the device hangs", "content": jsonBody(ref("ErrorResponse"))}
	ping := object{"get": clone(at(health, "get"))}
	at(ping, "get")["operationId"] = "ping"
	paths["/ping"] = ping

	generation := listOf(ref("GenerateResponse"))
	at(paths, "/", "post", "responses", "200", "content", "application/json")["schema"] = generation
	at(paths, "/v1/models", "get", "responses", "200", "content", "application/json")["schema"] = object{
		"type": "object", "required": []string{"object", "data"},
		"properties": object{"object": object{"type": "string", "example": "list"}, "data": listOf(ref("ModelInfo"))}}
	params := at(doc, "components", "schemas", "GenerateParameters", "properties")
	params["stop"] = stringOrList(at(params, "stop")["description"])
	for _, name := range []string{"details", "decoder_input_details", "do_sample", "watermark"} {
		at(params, name)["default"], at(params, name)["nullable"] = false, true
	}
	at(doc, "components")["securitySchemes"] = object{"key": object{"type": "http", "scheme": "bearer"}}

	documentChat(doc, o.ToolCallObject)
	documentCompletions(doc)
	documentInvocations(doc, generation)
	documentFields(doc)
	documentDeadlines(doc)
	documentExamples(doc, !o.DisableGrammar)
	for path := range paths {
		for method, op := range at(paths, path) {
			addErrors(path, method, op.(object))
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

// documentDeadlines says what an answer has that a host's deadline cut.
func documentDeadlines(doc object) {
	for _, name := range []string{"Details", "BestOfSequence", "StreamDetails", "ChatCompletionComplete", "ChatCompletionChoice", "CompletionComplete"} {
		at(doc, "components", "schemas", name, "properties")["cut"] = object{
			"type": "string", "enum": []string{"deadline"}, "description": "What ended the text, if it is not the limit of tokens that the finish reason length names"}
	}
}

// addErrors adds the errors that any route of its kind can answer.
func addErrors(path, method string, op object) {
	open := path == "/health" || path == "/ping" || path == "/metrics"
	responses := at(op, "responses")
	for code, r := range responses {
		if content, ok := r.(object)["content"].(object); ok && code != "200" && content["application/json"] == nil {
			r.(object)["content"] = jsonBody(ref("ErrorResponse")) // an event in TGI's document, which it is only behind a token
		}
	}
	for status, description := range errorDescriptions {
		code := strconv.Itoa(status)
		body := status != http.StatusUnauthorized && status != http.StatusServiceUnavailable
		if responses[code] != nil || body && method != "post" || open {
			continue
		}
		responses[code] = object{"description": description, "content": jsonBody(ref("ErrorResponse"))}
	}
	if !open {
		op["security"] = []object{{}, {"key": []string{}}} // needed only with --api-key
	}
}

// mend turns what OpenAPI 3.0 does not know, and generators of clients and
// tests trip over, into what it means: exclusive bounds that are numbers, and
// defaults and examples that are JSON in a text, among them the text "null".
func mend(node any) {
	switch node := node.(type) {
	case []any:
		for _, n := range node {
			mend(n)
		}
	case object:
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
func clone(o object) object {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var out object
	if err := json.Unmarshal(data, &out); err != nil {
		panic(err)
	}
	return out
}
