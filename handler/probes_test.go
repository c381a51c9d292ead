package handler

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The tables below are what a running TGI 2.4.1 answered to odd requests.
// Where TGI answers an error as plain text, its text is our error field.
// Deliberate differences are marked with their row's name in COMPAT.md.

// TestBodies pins status and error for bodies that are not served, and that
// others are.
func TestBodies(t *testing.T) {
	const (
		parse = "Failed to parse the request body as JSON: "
		shape = "Failed to deserialize the JSON body into the target type: "
		valid = "Input validation error: "
	)
	inputs := func(parameters string) string { return `{"inputs":"x y","parameters":{` + parameters + `}}` }
	for _, tt := range []struct {
		name, path, body string
		status           int
		want             string // the error; "" for an answer of 200
	}{
		// JSON
		{"empty", "/generate", ``, 400, parse + "EOF while parsing a value at line 1 column 0"},
		{"byte order mark", "/generate", "\ufeff" + inputs(``), 400, parse + "expected value at line 1 column 1"},
		{"garbage behind", "/generate", inputs(`"max_new_tokens":1`) + " garbage", 200, ""},
		{"beyond float64", "/generate", inputs(`"temperature":1e400`), 400, parse + "parameters.temperature: number out of range at line 1 column 49"},
		{"beyond float32 (float range)", "/generate", inputs(`"temperature":1e39`), 400, parse + "parameters.temperature: number out of range at line 1 column 48"},
		{"NaN", "/generate", inputs(`"temperature":NaN`), 400, parse + "parameters.temperature: expected value at line 1 column 45"},
		{"lone surrogate", "/generate", `{"inputs":"\ud800"}`, 400, parse + "inputs: unexpected end of hex escape at line 1 column 18"},
		{"invalid UTF-8", "/generate", "{\"inputs\":\"\xff\"}", 400, parse + "inputs: invalid unicode code point at line 1 column 13"},
		{"NUL", "/generate", `{"inputs":"a\u0000b","parameters":{"max_new_tokens":1}}`, 200, ""},
		{"open brackets", "/generate", `{"inputs":` + strings.Repeat("[", 200000), 422, shape + "inputs: invalid type: sequence, expected a string at line 1 column 10"},
		{"open brackets in an unknown field", "/generate", `{"x":` + strings.Repeat("[", 200000), 400, parse + "x: recursion limit exceeded at line 1 column 132"},

		// shape
		{"no inputs", "/tokenize", `{"text":"x"}`, 422, shape + "missing field `inputs` at line 1 column 12"},
		{"inputs null", "/generate", `{"inputs":null}`, 422, shape + "inputs: invalid type: null, expected a string at line 1 column 14"},
		{"inputs a number", "/generate", `{"inputs":1}`, 422, shape + "inputs: invalid type: integer `1`, expected a string at line 1 column 11"},
		{"inputs twice", "/generate", `{"inputs":"x","inputs":"y"}`, 422, shape + "duplicate field `inputs` at line 1 column 22"},
		{"array for the body (positional)", "/generate", `["x",{"max_new_tokens":1}]`, 422, shape + "invalid type: sequence, expected struct GenerateRequest at line 1 column 0"},
		{"parameters null (null)", "/generate", `{"inputs":"x","parameters":null}`, 200, ""},
		{"stream null (null)", "/", `{"inputs":"x","stream":null}`, 200, ""},
		{"stop null (null)", "/generate", `{"inputs":"x","parameters":{"stop":null}}`, 200, ""},
		{"stop a string (stop)", "/generate", `{"inputs":"x","parameters":{"stop":"a"}}`, 200, ""},
		{"stop of a number", "/generate", `{"inputs":"x","parameters":{"stop":["a",1]}}`, 422, shape + "parameters.stop[1]: invalid type: integer `1`, expected a string at line 1 column 41"},
		{"do_sample null (null)", "/generate", `{"inputs":"x","parameters":{"do_sample":null}}`, 200, ""},
		{"details null (null)", "/generate", `{"inputs":"x","parameters":{"details":null,"max_new_tokens":1}}`, 200, ""},
		{"every field null (null)", "/generate", inputs(`"adapter_id":null,"best_of":null,"decoder_input_details":null,"frequency_penalty":null,"grammar":null,"max_new_tokens":null,"repetition_penalty":null,"return_full_text":null,"seed":null,"temperature":null,"top_k":null,"top_n_tokens":null,"top_p":null,"truncate":null,"typical_p":null,"watermark":null`), 200, ""},
		{"float for integer", "/generate", inputs(`"max_new_tokens":10.0`), 422, shape + "parameters.max_new_tokens: invalid type: floating point `10.0`, expected u32 at line 1 column 51"},
		{"negative", "/generate", inputs(`"max_new_tokens":-1`), 422, shape + "parameters.max_new_tokens: invalid value: integer `-1`, expected u32 at line 1 column 49"},
		{"2^32", "/generate", inputs(`"max_new_tokens":4294967296`), 422, shape + "parameters.max_new_tokens: invalid value: integer `4294967296`, expected u32 at line 1 column 57"},
		{"seed 2^64", "/generate", inputs(`"seed":18446744073709551616`), 422, shape + "parameters.seed: invalid type: floating point `1.8446744073709552e19`, expected u64 at line 1 column 57"},
		{"seed negative", "/generate", inputs(`"seed":-1`), 422, shape + "parameters.seed: invalid value: integer `-1`, expected u64 at line 1 column 39"},
		{"temperature an integer", "/generate", inputs(`"temperature":1,"max_new_tokens":1`), 200, ""},
		{"temperature a boolean", "/generate", inputs(`"temperature":true`), 422, shape + "parameters.temperature: invalid type: boolean `true`, expected f32 at line 1 column 48"},
		{"top_k 2^31", "/generate", inputs(`"top_k":2147483648`), 422, shape + "parameters.top_k: invalid value: integer `2147483648`, expected i32 at line 1 column 48"},
		{"top_k a string", "/generate", inputs(`"top_k":"x"`), 422, shape + "parameters.top_k: invalid type: string \"x\", expected i32 at line 1 column 41"},
		{"grammar of a kind nobody knows (grammars)", "/generate", inputs(`"grammar":{"type":"text"}`), 422, shape + "parameters.grammar.type: unknown variant `text`, expected one of `json`, `json_object`, `json_schema`, `regex` at line 1 column 54"},
		{"grammar without a value", "/generate", inputs(`"grammar":{"type":"json"}`), 422, shape + "parameters.grammar: missing field `value` at line 1 column 55"},
		{"unknown fields", "/generate", `{"inputs":"x","n":5,"parameters":{"num_rays":[{}],"stop_sequences":null}}`, 200, ""},
		{"escaped name", "/generate", `{"inp\u0075ts":"x"}`, 200, ""},

		// invocations
		{"invocations, stream a string (invocations)", "/invocations", `{"inputs":"a","stream":"yes"}`, 422, shape + "stream: invalid type: string \"yes\", expected a boolean at line 1 column 28"},
		{"invocations, no shape", "/invocations", `{"x":1}`, 422, shape + "data did not match any variant of untagged enum SagemakerRequest"},
		{"invocations, an array", "/invocations", `[1]`, 422, shape + "data did not match any variant of untagged enum SagemakerRequest"},
		{"invocations, wrong inputs and a chat", "/invocations", `{"inputs":1,"messages":[{"role":"user","content":"x"}]}`, 422, "Template error: template not found"},
		{"invocations, a wrong chat and a completion", "/invocations", `{"prompt":"a","messages":5,"max_tokens":1}`, 200, ""},
		{"invocations, a wrong chat (invocations)", "/invocations", `{"messages":5}`, 422, shape + "messages: invalid type: integer `5`, expected a sequence at line 1 column 13"},
		{"invocations, a wrong completion (invocations)", "/invocations", `{"prompt":"a","max_tokens":"x"}`, 422, shape + "max_tokens: invalid type: string \"x\", expected u32 at line 1 column 30"},
		{"invocations, three wrong shapes (invocations)", "/invocations", `{"prompt":[],"messages":5,"inputs":1}`, 422, shape + "inputs: invalid type: integer `1`, expected a string at line 1 column 36"},
		{"invocations, a wrong field of the one shape (invocations)", "/invocations", `{"inputs":"a","parameters":{"top_k":"x"}}`, 422, shape + "parameters.top_k: invalid type: string \"x\", expected i32 at line 1 column 39"},
		{"invocations, a wrong value is the shape's", "/invocations", `{"inputs":"","messages":[],"prompt":"a"}`, 422, valid + "`inputs` cannot be empty"},
		{"invocations, not JSON", "/invocations", `{"messages":[}`, 400, parse + "messages: expected value at line 1 column 14"},

		// values, in the order in which TGI looks at them
		{"stream, best_of 0", "/generate_stream", inputs(`"best_of":0`), 422, valid + "`best_of` != 1 is not supported when streaming tokens"},
		{"stream, best_of 2", "/generate_stream", inputs(`"best_of":2,"temperature":0`), 422, valid + "`best_of` != 1 is not supported when streaming tokens"},
		{"stream, prefill", "/generate_stream", inputs(`"decoder_input_details":true`), 422, valid + "`decoder_input_details` == true is not supported when streaming tokens"},
		{"best_of 0", "/generate", inputs(`"best_of":0,"max_new_tokens":1`), 200, ""},
		{"best_of 3", "/generate", inputs(`"best_of":3,"do_sample":true`), 422, valid + "`best_of` must be > 0 and <= 2. Given: 3"},
		{"best_of greedy", "/generate", inputs(`"best_of":2,"temperature":null`), 422, valid + "you must use sampling when `best_of` is > 1"},
		{"temperature 0", "/generate", inputs(`"temperature":0,"repetition_penalty":0`), 422, valid + "`temperature` must be strictly positive"},
		{"temperature that rounds to 0", "/generate", inputs(`"temperature":1e-60`), 422, valid + "`temperature` must be strictly positive"},
		{"repetition_penalty -0", "/generate", inputs(`"repetition_penalty":-0.0,"frequency_penalty":3`), 422, valid + "`repetition_penalty` must be strictly positive"},
		{"frequency_penalty -2", "/generate", inputs(`"frequency_penalty":-2.0,"max_new_tokens":1`), 200, ""},
		{"frequency_penalty 2.1", "/generate", inputs(`"frequency_penalty":2.1,"top_p":0`), 422, valid + "`frequency_penalty` must be >= -2.0 and <= 2.0"},
		{"top_p 1 (upper ends)", "/generate", inputs(`"top_p":1.0`), 200, ""},
		{"top_p 0", "/generate", inputs(`"top_p":0,"typical_p":0`), 422, valid + "`top_p` must be > 0.0 and < 1.0"},
		{"top_p 1.1", "/generate", inputs(`"top_p":1.1`), 422, valid + "`top_p` must be > 0.0 and < 1.0"},
		{"typical_p 1 (upper ends)", "/generate", inputs(`"typical_p":1`), 200, ""},
		{"typical_p 1.5", "/generate", inputs(`"typical_p":1.5,"top_k":0`), 422, valid + "`typical_p` must be > 0.0 and < 1.0"},
		{"top_k 0", "/generate", inputs(`"top_k":0,"max_new_tokens":0`), 422, valid + "`top_k` must be strictly positive"},
		{"max_new_tokens 0", "/generate", inputs(`"max_new_tokens":0,"stop":["","","","",""]`), 422, valid + "`max_new_tokens` must be strictly positive"},
		{"five stop strings", "/generate", inputs(`"stop":["a","b","c","d","e"],"seed":1,"best_of":2,"do_sample":true`), 422, valid + "`stop` supports up to 4 stop sequences. Given: 5"},
		{"seed with best_of", "/generate", inputs(`"seed":1,"best_of":2,"do_sample":true,"top_n_tokens":6`), 422, valid + "`seed` must not be set when `best_of` > 1"},
		{"top_n_tokens 6", "/generate", `{"inputs":"","parameters":{"top_n_tokens":6}}`, 422, valid + "`top_n_tokens` must be >= 0 and <= 5. Given: 6"},
		{"no input", "/generate", `{"inputs":"","parameters":{"truncate":0}}`, 422, valid + "`inputs` cannot be empty"},
		{"no input, stream (true status)", "/generate_stream", `{"inputs":"","parameters":{}}`, 422, valid + "`inputs` cannot be empty"},
		{"truncate 0", "/generate", inputs(`"truncate":0`), 422, valid + "`truncate` must be strictly positive and less than 4000. Given: 0"},
		{"truncate too long", "/generate", inputs(`"truncate":4001`), 422, valid + "`truncate` must be strictly positive and less than 4000. Given: 4001"},
		{"truncate at the limit", "/generate", inputs(`"truncate":4000,"max_new_tokens":1`), 200, ""},
		{"too many tokens in all", "/generate", inputs(`"max_new_tokens":4096`), 422, valid + "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 3 `inputs` tokens and 4096 `max_new_tokens`"},
		{"long input, default limit", "/generate", `{"inputs":"` + strings.Repeat(" a", 6000) + `"}`, 422, valid + "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 6001 `inputs` tokens and 100 `max_new_tokens`"},
		{"long input, no limit", "/generate", `{"inputs":"` + strings.Repeat(" a", 6000) + `","parameters":{"max_new_tokens":null}}`, 422, valid + "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 6001 `inputs` tokens and 0 `max_new_tokens`"},
		{"input beyond its own limit", "/generate", `{"inputs":"` + strings.Repeat(" a", 4049) + `","parameters":{"max_new_tokens":1}}`, 422, valid + "`inputs` must have less than 4000 tokens. Given: 4050"},
		{"long input, truncated", "/generate", `{"inputs":"` + strings.Repeat(" a", 6000) + `","parameters":{"truncate":3}}`, 200, ""},

		// fields of the contract that come later, once all else is right
		{"best_of 2", "/generate", inputs(`"best_of":2,"do_sample":true,"details":true`), 200, ""},
		{"watermark", "/generate", inputs(`"watermark":true,"max_new_tokens":1`), 200, ""},
		{"watermark off", "/generate", inputs(`"watermark":false,"max_new_tokens":1`), 200, ""},
		{"grammar", "/generate", inputs(`"grammar":{"type":"json_object","value":{"properties":{"a":{"type":"integer"}}}},"max_new_tokens":30`), 200, ""},
		{"an image's Markdown is text to a model that reads none", "/generate", `{"inputs":"![](http://x/y.png)a","parameters":{"max_new_tokens":1}}`, 200, ""},
		{"an adapter (adapters)", "/generate", inputs(`"adapter_id":"nope"`), 422, valid + "there is no adapter \"nope\": this server serves \"MODEL\" (\"tgi\" is an alias)"},
		{"the model as an adapter (adapters)", "/generate", inputs(`"adapter_id":"MODEL"`), 200, ""},
		{"no adapter", "/generate", inputs(`"adapter_id":""`), 200, ""},
		{"grammar null", "/generate", inputs(`"grammar":null,"max_new_tokens":1`), 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newGrammarServer(&fake{})
			got := ask(t, s, "POST", tt.path, tt.body, "content-type: application/json")
			if tt.want == "" {
				if got.status != tt.status {
					t.Errorf("got %d %.200s, want %d", got.status, got.body, tt.status)
				}
				return
			}
			if msg, _ := mustError(t, got); got.status != tt.status || msg != tt.want {
				t.Errorf("%.100s\n got %d %s\nwant %d %s", tt.body, got.status, msg, tt.status, tt.want)
			}
		})
	}
}

// TestRoutes pins statuses and headers of requests that reach no generation.
func TestRoutes(t *testing.T) {
	const vary = "origin, access-control-request-method, access-control-request-headers"
	for _, tt := range []struct {
		method, path string
		headers      []string
		status       int
		want         map[string]string // headers
	}{
		{"GET", "/generate", nil, 405, map[string]string{"Allow": "POST"}},
		{"HEAD", "/generate", nil, 405, map[string]string{"Allow": "POST"}},
		{"POST", "/health", nil, 405, map[string]string{"Allow": "GET,HEAD"}},
		{"DELETE", "/", nil, 405, map[string]string{"Allow": "POST,GET,HEAD"}},
		{"GET", "/", nil, 200, map[string]string{"Content-Length": "0", "Content-Type": ""}},
		{"HEAD", "/", nil, 200, map[string]string{"Content-Length": "0"}},
		{"GET", "/health", nil, 200, map[string]string{"Content-Length": "0", "Content-Type": "", "Vary": vary, "Access-Control-Allow-Origin": "*"}},
		{"GET", "/ping", nil, 200, map[string]string{"Content-Length": "0"}},
		{"HEAD", "/info", nil, 200, map[string]string{"Content-Type": "application/json"}},
		{"GET", "/health/", nil, 404, map[string]string{"Vary": vary}},
		{"GET", "//health", nil, 404, nil},
		{"GET", "/nope", nil, 404, map[string]string{"Access-Control-Allow-Origin": "*"}},
		{"POST", "/GENERATE", nil, 404, nil},
		{"GET", "/v1/models/x", nil, 404, nil},
		{"OPTIONS", "/nope", nil, 200, map[string]string{"Access-Control-Allow-Methods": "GET,POST", "Access-Control-Allow-Headers": "content-type,authorization", "Content-Length": "0", "Allow": "", "Vary": vary}},
		{"OPTIONS", "/v1/chat/completions", []string{"Origin: http://x", "Access-Control-Request-Headers: x-stainless-os, user-agent,X_y"}, 200, map[string]string{"Access-Control-Allow-Headers": "x-stainless-os, user-agent,X_y", "Access-Control-Max-Age": "7200", "Access-Control-Expose-Headers": "*"}},
		{"OPTIONS", "/generate", []string{"Access-Control-Request-Headers: a: b"}, 200, map[string]string{"Access-Control-Allow-Headers": "content-type,authorization"}},
		{"GET", "/v1/models/MODEL", nil, 200, map[string]string{"Content-Type": "application/json"}},
		{"HEAD", "/v1/models/tgi", nil, 200, nil},
		{"GET", "/v1/models/", nil, 404, nil},
		{"POST", "/v1/models/MODEL", nil, 405, map[string]string{"Allow": "GET,HEAD"}},
		{"OPTIONS", "/generate", []string{"Origin: http://x", "Access-Control-Request-Method: POST"}, 200, map[string]string{"Access-Control-Allow-Methods": "GET,POST", "Allow": "POST", "Access-Control-Allow-Origin": "*"}},
		{"GET", "/docs", nil, 303, map[string]string{"Location": "docs/"}},
		{"GET", "/docs/", nil, 200, map[string]string{"Content-Type": "text/html"}},
		{"GET", "/docs/swagger-ui-bundle.js", nil, 200, nil},
		{"GET", "/docs/nope", nil, 404, nil},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			got := ask(t, newTestServer(&fake{}), tt.method, tt.path, "", tt.headers...)
			if got.status != tt.status {
				t.Fatalf("got %d %s, want %d", got.status, got.body, tt.status)
			}
			for name, want := range tt.want {
				if v := got.header.Get(name); v != want {
					t.Errorf("%s: %q, want %q", name, v, want)
				}
			}
			if got.status == 404 || got.status == 405 {
				if tt.path != "/docs/nope" {
					mustError(t, got)
				}
			}
		})
	}
}

func TestContentTypes(t *testing.T) {
	const body = `{"inputs":"x","parameters":{"max_new_tokens":1}}`
	for _, tt := range []struct {
		contentType string
		status      int
	}{
		{"application/json", 200},
		{"Application/JSON ; charset=utf-8", 200},
		{"application/vnd.x+json; charset=utf-8", 200},
		{"text/json", 415},
		{"application/jsonp", 415},
		{"application/+json", 415},
		{"application/x-www-form-urlencoded", 415},
		{"", 415},
	} {
		got := ask(t, newTestServer(&fake{}), "POST", "/generate", body, "Content-Type: "+tt.contentType)
		if got.status != tt.status {
			t.Errorf("%q: %d %s, want %d", tt.contentType, got.status, got.body, tt.status)
		}
		if tt.status == 415 {
			if msg, _ := mustError(t, got); msg != "Expected request with `Content-Type: application/json`" {
				t.Errorf("%q: %s", tt.contentType, msg)
			}
		}
	}
}

func TestInfoRoutes(t *testing.T) {
	s := newTestServer(&fake{})
	for _, tt := range []struct{ name, method, path, body, want string }{
		{"info", "GET", "/info", "", `{"model_id":"MODEL","model_sha":null,"model_pipeline_tag":null,"max_concurrent_requests":128,"max_best_of":2,"max_stop_sequences":4,"max_input_tokens":4000,"max_total_tokens":4096,"validation_workers":2,"max_client_batch_size":4,"router":"text-generation-router","version":"2.4.1","sha":null,"docker_label":null}`},
		{"models", "GET", "/v1/models", "", `{"object":"list","data":[{"id":"MODEL","object":"model","created":0,"owned_by":"MODEL","max_model_len":4096}]}`},
		{"nothing to tokenize", "POST", "/tokenize", `{"inputs":""}`, `[]`},
		{"characters are what counts (offsets)", "POST", "/tokenize", `{"inputs":"é 😀<|eot_id|>x","parameters":{"truncate":1}}`,
			`[{"id":640,"text":"","start":0,"stop":0},{"id":337,"text":"é","start":0,"stop":1},{"id":346,"text":" 😀","start":1,"stop":3},{"id":246,"text":"😀","start":2,"stop":3},{"id":222,"text":"😀","start":2,"stop":3},{"id":642,"text":"<|eot_id|>","start":3,"stop":13},{"id":87,"text":"x","start":13,"stop":14}]`},
	} {
		got := ask(t, s, tt.method, tt.path, tt.body)
		if got.status != 200 || got.body != tt.want {
			t.Errorf("%s:\n got %d %s\nwant 200 %s", tt.name, got.status, got.body, tt.want)
		}
	}
}

// TestCompatRows checks that the rows of COMPAT.md that cases name are there.
func TestCompatRows(t *testing.T) {
	document, err := os.ReadFile("COMPAT.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([^|]+) \|`).FindAllStringSubmatch(string(document), -1) {
		if rows[m[1]] {
			t.Errorf("row %q is there twice", m[1])
		}
		rows[m[1]] = true
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)^\s*\{(?:name: )?"[^"]* \(([^")]+)\)"`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			if !rows[m[1]] {
				t.Errorf("%s: no row %q", file, m[1])
			}
		}
	}
}
