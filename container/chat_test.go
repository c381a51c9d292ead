package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/container/source"
)

const weatherTool = `"tools":[{"type":"function","function":{"name":"get_weather","description":"Get the weather","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}]`

// The demo model calls a tool, in a whole answer and in a stream, and answers
// from its result.
func TestDemoCallsTool(t *testing.T) {
	if place, err := source.Default("/"); place != "" || err != nil {
		t.Skip("this machine has a model where SageMaker puts one")
	}
	p := start(t, nil).ready()
	const question = `{"role":"user","content":"What is the weather in Paris?"}`
	status, body := p.post("/v1/chat/completions", `{"messages":[`+question+`],"temperature":0,`+weatherTool+`}`)
	if want := `"function":{"name":"get_weather","arguments":"{\"city\": \"Paris\"}"}`; status != 200 || !strings.Contains(body, want) || !strings.Contains(body, `"finish_reason":"tool_calls"`) {
		t.Fatalf("%d %s; want a call %s", status, body, want)
	}

	status, body = p.post("/v1/chat/completions", `{"messages":[`+question+`],"temperature":0,"stream":true,`+weatherTool+`}`)
	arguments := ""
	for line := range strings.SplitSeq(body, "\n") {
		var chunk struct {
			Choices []struct {
				Delta struct {
					ToolCalls []struct{ Function struct{ Arguments string } } `json:"tool_calls"`
				}
			}
		}
		data, ok := strings.CutPrefix(line, "data: {")
		if !ok {
			continue
		}
		if err := json.Unmarshal([]byte("{"+data), &chunk); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, c := range chunk.Choices {
			for _, call := range c.Delta.ToolCalls {
				arguments += call.Function.Arguments
			}
		}
	}
	if status != 200 || arguments != `{"city": "Paris"}` || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("%d, streamed arguments %q of %s", status, arguments, body)
	}

	const result = `{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"get_weather","arguments":"{\"city\": \"Paris\"}"}}]},` +
		`{"role":"tool","tool_call_id":"c1","content":"{\"temperature\": 21, \"sky\": \"sunny\"}"}`
	status, body = p.post("/v1/chat/completions", `{"messages":[`+question+`,`+result+`],"temperature":0,`+weatherTool+`}`)
	if status != 200 || !strings.Contains(body, "21") || !strings.Contains(body, "Paris") {
		t.Errorf("%d %s; want an answer with the result", status, body)
	}
}

// A template of the operator's wins over the model's, and calls take the form
// that a flag asks for.
func TestChatFlags(t *testing.T) {
	template := filepath.Join(t.TempDir(), "mine.jinja")
	if err := os.WriteFile(template, []byte(`{{ messages[0].content }}!`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, []string{"TOKENIZER_CONFIG_PATH=" + template}, "--model-id", tinyFolder(t), "--default-max-tokens", "3").ready()
	const message = `{"messages":[{"role":"user","content":"the quick"}],"temperature":0}`
	if status, body := p.post("/chat_tokenize", message); status != 200 || !strings.Contains(body, `"templated_text":"the quick!"`) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := p.post("/v1/chat/completions", message); status != 200 || !strings.Contains(body, `"completion_tokens":3`) {
		t.Errorf("%d %s", status, body)
	}

	for _, tt := range []struct{ name, file, text, want string }{
		{"no such file", "/nowhere/template.jinja", "", "--tokenizer-config-path: open /nowhere/template.jinja"},
		{"a template that does not compile", "bad.jinja", "{% if %}", "bad.jinja"},
		{"no JSON", "bad.json", "{", "bad.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.file
			if tt.text != "" {
				path = filepath.Join(t.TempDir(), tt.file)
				if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			status, stderr := refused(t, nil, "--model-id", tinyFolder(t), "--port", "0", "--tokenizer-config-path", path)
			if status != 2 || !strings.Contains(stderr, tt.want) {
				t.Errorf("status %d, %q; want 2 and %q", status, stderr, tt.want)
			}
		})
	}
}

// What the demo model writes is held to a schema, a regular expression and the
// schemas of tools, and to logit biases; choices of one prompt are held each.
func TestDemoHoldsToGrammars(t *testing.T) {
	if place, err := source.Default("/"); place != "" || err != nil {
		t.Skip("this machine has a model where SageMaker puts one")
	}
	p := start(t, nil).ready()
	const narrow = `"tools":[{"type":"function","function":{"name":"get_weather","description":"Get the weather","parameters":{"type":"object","properties":{"city":{"enum":["Rome"]}},"required":["city"],"additionalProperties":false}}}]`
	for _, tt := range []struct{ name, fields, content, arguments string }{
		{name: "a schema", fields: `"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}}}`, content: `^\{ ?"ok" ?: ?(true|false) ?\}$`},
		{name: "a regular expression", fields: `"response_format":{"type":"regex","value":"[a-c]{5}"}`, content: `^[a-c]{5}$`},
		{name: "a call that the model begins", fields: narrow, arguments: `{"city": "Rome"}`},
		{name: "a call that it must make", fields: narrow + `,"tool_choice":"required"`, arguments: `{"city": "Rome"}`},
		{name: "three choices", fields: narrow + `,"n":3,"temperature":1.0,"seed":1,"tool_choice":{"type":"function","function":{"name":"get_weather"}}`, arguments: `{"city": "Rome"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fields := tt.fields
			if !strings.Contains(fields, "temperature") {
				fields += `,"temperature":0`
			}
			status, body := p.post("/v1/chat/completions", `{"messages":[{"role":"user","content":"What is the weather in Paris?"}],`+fields+`}`)
			var answer struct {
				Choices []struct {
					Message struct {
						Content   *string
						ToolCalls []struct{ Function struct{ Arguments string } } `json:"tool_calls"`
					}
				}
			}
			if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || len(answer.Choices) == 0 {
				t.Fatalf("%d %s, %v", status, body, err)
			}
			for _, c := range answer.Choices {
				switch m := c.Message; {
				case tt.content != "":
					if m.Content == nil || !regexp.MustCompile(tt.content).MatchString(*m.Content) {
						t.Errorf("%s, want content like %s", body, tt.content)
					}
				case len(m.ToolCalls) != 1 || strings.ReplaceAll(m.ToolCalls[0].Function.Arguments, " ", "") != strings.ReplaceAll(tt.arguments, " ", ""):
					t.Errorf("%s, want a call with %s", body, tt.arguments)
				}
			}
		})
	}
}
