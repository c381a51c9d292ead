package chat

import (
	"fmt"
	"testing"

	"github.com/millrace-ai/millrace/handler/body"
)

// decode reads one field of a request, {"x": …}, with read, so that errors
// have a path.
func decode[T any](data string, read func(*body.Reader) (T, error)) (v T, err error) {
	r := body.NewReader([]byte(data))
	err = r.Object("struct ChatRequest", []string{"x"}, func(int) (err error) {
		v, err = read(r)
		return err
	})
	return v, err
}

func TestDecodeMessages(t *testing.T) {
	for _, tt := range []struct{ name, messages, want string }{
		{"none", `[]`, `[]`},
		{"string", `[{"role":"user","content":"a","name":"n"}]`, `[{user n {false a []} [] }]`},
		{"chunks", `[{"content":[{"text":"a","type":"text"},{"type":"image_url","image_url":{"url":"u","detail":"low"}},{"type":"image_url","image_url":"v"}],"role":"user"}]`,
			`[{user  {false  [{a  } { u low} { v }]} [] }]`},
		{"empty list", `[{"role":"user","content":[]}]`, `[{user  {false  []} [] }]`},
		{"null content", `[{"role":"user","content":null}]`, `[{user  {true  []} [] }]`},
		{"calls without content", `[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}]`, `[{assistant  {true  []} [{1 f {}}] }]`},
		{"arguments as an object", `[{"role":"assistant","content":"","tool_calls":[{"function":{"arguments":{"a":1},"name":"f"}}]}]`, `[{assistant  {false  []} [{ f {"a":1}}] }]`},
		{"result", `[{"role":"tool","content":"r","tool_call_id":"1"}]`, `[{tool  {false r []} [] 1}]`},
		{"role of a stream's chunks, joined", `[{"role":"assistantassistant","content":"a"}]`, `[{assistant  {false a []} [] }]`},
		{"nulls", `[{"role":"user","content":"a","name":null,"tool_calls":null,"tool_call_id":null,"refusal":null}]`, `[{user  {false a []} [] }]`},

		{"a string", `"hi"`, "x: invalid type: string \"hi\", expected a sequence at line 1 column 9"},
		{"no role", `[{"content":"a"}]`, "x[0]: missing field `role` at line 1 column 21"},
		{"no content", `[{"role":"user"}]`, "x[0]: missing field `content` at line 1 column 21"},
		{"no content, no calls", `[{"role":"assistant","tool_calls":[]}]`, "x[0]: missing field `content` at line 1 column 42"},
		{"content is a number", `[{"role":"user","content":1}]`, "x[0].content: invalid type: integer `1`, expected a string or a sequence of chunks at line 1 column 32"},
		{"unknown chunk", `[{"role":"user","content":[{"type":"input_audio"}]}]`, "x[0].content[0].type: unknown variant `input_audio`, expected `text` or `image_url` at line 1 column 53"},
		{"chunk without type", `[{"role":"user","content":[{"text":"a"}]}]`, "x[0].content[0]: missing field `type` at line 1 column 44"},
		{"text without text", `[{"role":"user","content":[{"type":"text"}]}]`, "x[0].content[0]: missing field `text` at line 1 column 47"},
		{"image without url", `[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]`, "x[0].content[0].image_url: missing field `url` at line 1 column 66"},
		{"detail null", `[{"role":"user","content":[{"type":"image_url","image_url":{"detail":null,"url":"u"}}]}]`, `[{user  {false  [{ u }]} [] }]`},
		{"unknown detail", `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u","detail":"medium"}}]}]`, "x[0].content[0].image_url.detail: unknown variant `medium`, expected one of `auto`, `low`, `high` at line 1 column 92"},
		{"call without function", `[{"role":"assistant","tool_calls":[{"id":"1"}]}]`, "x[0].tool_calls[0]: missing field `function` at line 1 column 50"},
		{"function without name", `[{"role":"assistant","tool_calls":[{"function":{}}]}]`, "x[0].tool_calls[0].function: missing field `name` at line 1 column 54"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			messages, err := decode(`{"x":`+tt.messages+`}`, DecodeMessages)
			got := "["
			for _, m := range messages {
				got += fmt.Sprint(struct {
					role, name string
					content    Content
					calls      []Call
					id         string
				}{m.Role, m.Name, m.Content, m.Calls, m.ToolCallID})
			}
			got += "]"
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.messages, got, tt.want)
			}
		})
	}
}

func TestDecodeTools(t *testing.T) {
	for _, tt := range []struct{ name, tools, want string }{
		{"null", `null`, `false`},
		{"empty", `[]`, `true`},
		{"as it came", `[{"type": "function", "function": {"name": "f", "strict": true, "parameters": {"type":"object"}}}]`,
			`true f {"type":"object"} {"type": "function", "function": {"name": "f", "strict": true, "parameters": {"type":"object"}}}`},
		{"TGI's arguments", `[{"function":{"arguments":{"a": 1},"description":"d\"","name":"f"},"type":"x"}]`,
			`true f {"a": 1} {"type": "function", "function": {"name": "f", "description": "d\"", "parameters": {"a": 1}}}`},
		{"no parameters", `[{"type":"function","function":{"name":"f"}}]`,
			`true f {"type": "object", "properties": {}} {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}`},
		{"null parameters", `[{"type":"function","function":{"name":"f","parameters":null}}]`,
			`true f {"type": "object", "properties": {}} {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}`},
		{"no function", `[{"type":"function"}]`, "x[0]: missing field `function` at line 1 column 25"},
		{"no name", `[{"function":{}}]`, "x[0].function: missing field `name` at line 1 column 20"},
		{"parameters of a wrong kind", `[{"function":{"name":"f","parameters":1}}]`, "x[0].function.parameters: invalid type: integer `1`, expected a JSON schema at line 1 column 44"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			present := false
			tools, err := decode(`{"x":`+tt.tools+`}`, func(r *body.Reader) (tools []Tool, err error) {
				tools, present, err = DecodeTools(r)
				return tools, err
			})
			got := fmt.Sprint(present)
			for _, tool := range tools {
				got += fmt.Sprintf(" %s %s %s", tool.Name, tool.Parameters, tool.Spec)
			}
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.tools, got, tt.want)
			}
		})
	}
}

func TestDecodeToolChoice(t *testing.T) {
	for _, tt := range []struct{ name, choice, want string }{
		{"null", `null`, "{0 }"},
		{"auto", `"auto"`, "{0 }"},
		{"none", `"none"`, "{1 }"},
		{"required", `"required"`, "{2 }"},
		{"bare name", `"f"`, "{3 f}"},
		{"OpenAI's", `{"type":"function","function":{"name":"f"}}`, "{3 f}"},
		{"the contract's", `{"function":{"name":"f"}}`, "{3 f}"},
		{"TGI 2.4.0's", `{"Function":{"name":"f"}}`, "{3 f}"},
		{"no function", `{"type":"function"}`, "x: missing field `function` at line 1 column 24"},
		{"a number", `1`, "x: invalid type: integer `1`, expected a tool choice at line 1 column 6"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			choice, err := decode(`{"x":`+tt.choice+`}`, DecodeToolChoice)
			got := fmt.Sprint(choice)
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.choice, got, tt.want)
			}
		})
	}
}

func TestDecodeResponseFormat(t *testing.T) {
	for _, tt := range []struct{ name, format, want string }{
		{"null", `null`, "{ }"},
		{"text", `{"type":"text"}`, "{ }"},
		{"TGI's json", `{"type":"json","value":{"properties":{}}}`, `{json_schema {"properties":{}}}`},
		{"TGI's json as a string", `{"type":"json","value":"{\"a\": 1}"}`, `{json_schema {"a": 1}}`},
		{"TGI's json_object", `{"value":{},"type":"json_object"}`, `{json_schema {}}`},
		{"OpenAI's json_object", `{"type":"json_object"}`, `{json_schema {"type":"object"}}`},
		{"OpenAI's json_schema", `{"type":"json_schema","json_schema":{"name":"n","schema":{"a":1},"strict":true}}`, `{json_schema {"a":1}}`},
		{"TGI 3's json_schema", `{"type":"json_schema","value":{"a":1}}`, `{json_schema {"a":1}}`},
		{"regex", `{"type":"regex","value":"a\\d"}`, `{regex a\d}`},
		{"no type", `{"value":{}}`, "x: missing field `type` at line 1 column 17"},
		{"no value", `{"type":"json"}`, "x: missing field `value` at line 1 column 20"},
		{"no schema", `{"type":"json_schema","json_schema":{"name":"n"}}`, "x.json_schema: missing field `schema` at line 1 column 53"},
		{"no json_schema", `{"type":"json_schema"}`, "x: missing field `json_schema` at line 1 column 27"},
		{"unknown type", `{"type":"xml"}`, "x.type: unknown variant `xml`, expected one of `json`, `json_object`, `json_schema`, `regex`, `text` at line 1 column 18"},
		{"regex of a wrong kind", `{"type":"regex","value":{}}`, "x: value: a regex is a string at line 1 column 32"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			format, err := decode(`{"x":`+tt.format+`}`, DecodeResponseFormat)
			got := fmt.Sprint(format.Grammar())
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.format, got, tt.want)
			}
		})
	}
}

func TestCallObject(t *testing.T) {
	for _, tt := range []struct{ name, arguments, want string }{
		{"object", ` {"a": 1} `, `{"a": 1}`},
		{"cut off", `{"a": 1`, `Tool error: Failed to parse generated text: the arguments of f are not a JSON object "{\"a\": 1"`},
		{"no object", `[1]`, `Tool error: Failed to parse generated text: the arguments of f are not a JSON object "[1]"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			object, err := Call{Name: "f", Arguments: tt.arguments}.Object()
			got := string(object)
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestFinishReason(t *testing.T) {
	for _, tt := range []struct {
		limited bool
		calls   int
		cut     bool
		want    string
	}{{true, 0, false, "length"}, {true, 1, true, "length"}, {false, 0, false, "stop"}, {false, 2, false, "tool_calls"}, {false, 1, true, "stop"}} {
		if got := FinishReason(tt.limited, tt.calls, tt.cut); got != tt.want {
			t.Errorf("FinishReason(%v, %d, %v) = %s, want %s", tt.limited, tt.calls, tt.cut, got, tt.want)
		}
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if len(id) != 29 || id[:5] != "call_" || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}
