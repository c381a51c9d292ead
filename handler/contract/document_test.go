package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// contract is an OpenAPI 3.0 document, by which requests and answers are
// validated. It looks at what our documents have: paths without parameters,
// media types, and the schemas of JSON.
type contract struct {
	paths    map[string]map[string]operation // by path, then by method in lower case
	compiler *jsonschema.Compiler
}

type operation struct {
	RequestBody *struct{ Content map[string]any }
	Responses   map[string]struct{ Content map[string]any } // by status
}

const documentName = "openapi.json"

func parse(t *testing.T, text []byte) *contract {
	t.Helper()
	var d struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	schemas, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{paths: d.Paths, compiler: jsonschema.NewCompiler()}
	if err := c.compiler.AddResource(documentName, modern(schemas)); err != nil {
		t.Fatal(err)
	}
	return c
}

// modern returns a document with its schemas as JSON Schema writes them today:
// OpenAPI 3.0 has "nullable", and bounds are exclusive by a word beside them.
func modern(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = modern(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = modern(v[k])
		}
		for exclusive, bound := range map[string]string{"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"} {
			switch v[exclusive] {
			case true:
				v[exclusive] = v[bound]
				delete(v, bound)
			case false:
				delete(v, exclusive)
			}
		}
		if v["nullable"] == true {
			delete(v, "nullable")
			return map[string]any{"anyOf": []any{v, map[string]any{"type": "null"}}}
		}
	}
	return v
}

// request says what is wrong with the body of a request.
func (c *contract) request(method, path, contentType string, body []byte) error {
	o, err := c.operation(method, path)
	if err != nil || o.RequestBody == nil && len(body) == 0 {
		return err
	}
	if o.RequestBody == nil {
		return fmt.Errorf("%s %s: a body, and none is documented", method, path)
	}
	return c.body(o.RequestBody.Content, contentType, body, "paths", path, strings.ToLower(method), "requestBody")
}

// answer says what is wrong with an answer.
func (c *contract) answer(method, path string, status int, contentType string, body []byte) error {
	o, err := c.operation(method, path)
	if err != nil {
		return err
	}
	code := fmt.Sprint(status)
	response, ok := o.Responses[code]
	if !ok {
		return fmt.Errorf("%s %s: status %s is not documented", method, path, code)
	}
	if len(response.Content) == 0 && len(body) == 0 {
		return nil
	}
	return c.body(response.Content, contentType, body, "paths", path, strings.ToLower(method), "responses", code)
}

func (c *contract) operation(method, path string) (operation, error) {
	o, ok := c.paths[path][strings.ToLower(method)]
	if !ok {
		return o, fmt.Errorf("%s %s is not documented", method, path)
	}
	return o, nil
}

// body validates what the document has at keys and there under "content".
func (c *contract) body(content map[string]any, contentType string, body []byte, keys ...string) error {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return err
	}
	if _, ok := content[mediaType]; !ok {
		return fmt.Errorf("media type %s is not documented at %q", mediaType, keys)
	}
	if mediaType != "application/json" {
		return nil
	}
	pointer := ""
	for _, k := range slices.Concat(keys, []string{"content", mediaType, "schema"}) {
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(k)
	}
	schema, err := c.compiler.Compile(documentName + "#" + (&url.URL{Fragment: pointer}).EscapedFragment())
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// TestDocument sees to it that the validation can fail.
func TestDocument(t *testing.T) {
	c := parse(t, []byte(`{"openapi":"3.0.3","paths":{"/a/b":{"post":{
		"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/A"}}}},
		"responses":{"200":{"content":{"application/json":{"schema":{"type":"array","items":{"$ref":"#/components/schemas/A"}}}}},"204":{}}}}},
		"components":{"schemas":{"A":{"type":"object","required":["n"],"properties":{
			"n":{"type":"integer","minimum":0,"exclusiveMinimum":true},
			"e":{"type":"string","enum":["x"],"nullable":true},
			"r":{"allOf":[{"$ref":"#/components/schemas/B"}],"nullable":true},
			"o":{"oneOf":[{"type":"string"},{"$ref":"#/components/schemas/B"}]}}},
		"B":{"type":"object","required":["k"]}}}}`))
	for body, want := range map[string]bool{
		`{"n":1}`: true, `{"n":1,"e":null,"r":null}`: true, `{"n":1,"e":"x","r":{"k":1},"o":{"k":1}}`: true, `{"n":1,"o":"s"}`: true,
		`{}`: false, `{"n":0}`: false, `{"n":1.5}`: false, `{"n":null}`: false, `{"n":1,"e":"y"}`: false, `{"n":1,"r":{}}`: false,
		`{"n":1,"o":null}`: false, `{"n":1,"o":{}}`: false, `[]`: false, `{`: false, ``: false,
	} {
		if err := c.request("POST", "/a/b", "application/json", []byte(body)); (err == nil) != want {
			t.Errorf("request %s: %v", body, err)
		}
		if err := c.answer("POST", "/a/b", http.StatusOK, "application/json", []byte("["+body+"]")); (err == nil) != want && body != "" {
			t.Errorf("answer %s: %v", body, err)
		}
	}
	for name, err := range map[string]error{
		"path":         c.answer("POST", "/a", http.StatusOK, "application/json", []byte(`[]`)),
		"method":       c.answer("GET", "/a/b", http.StatusOK, "application/json", []byte(`[]`)),
		"status":       c.answer("POST", "/a/b", http.StatusTeapot, "application/json", []byte(`[]`)),
		"media type":   c.answer("POST", "/a/b", http.StatusOK, "text/plain", []byte(`[]`)),
		"undocumented": c.answer("POST", "/a/b", http.StatusNoContent, "application/json", []byte(`[]`)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := c.answer("POST", "/a/b", http.StatusNoContent, "", nil); err != nil {
		t.Errorf("no content: %v", err)
	}
}
