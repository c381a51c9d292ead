package chat

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/millrace-ai/millrace/handler/body"
)

const tokenConfig = `{"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true}, "pad_token": null}`

// load makes a Template of one template's text.
func load(t testing.TB, text string) *Template {
	t.Helper()
	tmpl, err := Load(fstest.MapFS{
		"chat_template.jinja":   {Data: []byte(text)},
		"tokenizer_config.json": {Data: []byte(tokenConfig)},
	}, Override{})
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

// loadFile makes a Template of a file of testdata/templates.
func loadFile(t testing.TB, name string) *Template {
	t.Helper()
	text, err := os.ReadFile("testdata/templates/" + name + ".jinja")
	if err != nil {
		t.Fatal(err)
	}
	return load(t, string(text))
}

// decodeRequest reads what these tests need of a chat request.
func decodeRequest(data []byte) (req Request, err error) {
	r := body.NewReader(data)
	err = r.Object("struct ChatRequest", []string{"messages", "tools", "guideline", "chat_template_kwargs"}, func(field int) (err error) {
		switch field {
		case 0:
			req.Messages, err = DecodeMessages(r)
		case 1:
			req.Tools, _, err = DecodeTools(r)
		case 2:
			var s string
			s, err = r.String()
			req.Guideline = &s
		case 3:
			req.Variables, err = r.Raw()
		}
		return err
	})
	return req, err
}

// testdata/render.py wrote what transformers makes of each request.
func TestRendersAsTransformers(t *testing.T) {
	data, err := os.ReadFile("testdata/render.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Requests map[string]json.RawMessage
		Rows     []struct {
			Template, Case string
			Text           *string // nil: an error
			Error          string
		}
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	templates := map[string]*Template{}
	for _, row := range golden.Rows {
		t.Run(row.Template+", "+row.Case, func(t *testing.T) {
			if templates[row.Template] == nil {
				templates[row.Template] = loadFile(t, row.Template)
			}
			request, err := decodeRequest(golden.Requests[row.Case])
			if err != nil {
				t.Fatal(err)
			}
			tmpl := templates[row.Template]
			if !tmpl.byName[defaultName].tools {
				request.Tools = nil // they would stand in the last message: TestToolsWithoutTemplate
			}
			got, err := tmpl.Render(request)
			switch {
			case row.Text != nil && (err != nil || got.Text != *row.Text):
				t.Errorf("got  %q, %v\nwant %q", got.Text, err, *row.Text)
			case row.Text == nil && err == nil:
				t.Errorf("got %q, want the error %q", got.Text, row.Error)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	config := func(template string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(`{"bos_token": "<s>", "chat_template": ` + template + `}`)}
	}
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	hi := Request{Messages: []Message{{Role: "user", Content: Content{Text: "hi"}}}}
	for _, tt := range []struct {
		name     string
		files    fstest.MapFS
		override Override
		request  Request
		want     string // of the prompt, or part of the error
	}{
		{name: "string", files: fstest.MapFS{"tokenizer_config.json": config(`"{{ bos_token }}A"`)}, want: "<s>A"},
		{name: "list", files: fstest.MapFS{"tokenizer_config.json": config(`[{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]`)}, want: "A"},
		{name: "list, tools", files: fstest.MapFS{"tokenizer_config.json": config(`[{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B{{ tools|length }}"}]`)},
			request: Request{Tools: []Tool{{Spec: []byte("{}")}}}, want: "B1"},
		{name: "list, by name", files: fstest.MapFS{"tokenizer_config.json": config(`[{"name": "default", "template": "A"}, {"name": "rag", "template": "C"}]`)}, request: Request{Template: "rag"}, want: "C"},
		{name: "list, unknown name", files: fstest.MapFS{"tokenizer_config.json": config(`"A"`)}, request: Request{Template: "rag"}, want: "Template error: template not found"},
		{name: "list of one that is not the default", files: fstest.MapFS{"tokenizer_config.json": config(`[{"name": "x", "template": "A"}]`)}, want: "A"},
		{name: "list without a default", files: fstest.MapFS{"tokenizer_config.json": config(`[{"name": "x", "template": "A"}, {"name": "y", "template": "A"}]`)}, want: "Template error: template not found"},
		{name: "file before configuration", files: fstest.MapFS{"chat_template.jinja": file("J{{ bos_token }}"), "tokenizer_config.json": config(`"A"`)}, want: "J<s>"},
		{name: "processor's file", files: fstest.MapFS{"chat_template.json": config(`"P"`), "tokenizer_config.json": file("{}")}, want: "P"},
		{name: "processor's configuration", files: fstest.MapFS{"processor_config.json": config(`"Q"`)}, want: "Q"},
		{name: "additional templates", files: fstest.MapFS{"chat_template.jinja": file("J"), "additional_chat_templates/tool_use.jinja": file("T")},
			request: Request{Tools: []Tool{{Spec: []byte("{}")}}}, want: "T"},
		{name: "override", files: fstest.MapFS{"chat_template.jinja": file("J"), "tokenizer_config.json": config(`"A"`)}, override: Override{"x.json", []byte(`{"bos_token": "<o>", "chat_template": "O{{ bos_token }}"}`)}, want: "O<o>"},
		{name: "override without a template", files: fstest.MapFS{"tokenizer_config.json": config(`"A{{ bos_token }}"`)}, override: Override{"x.json", []byte(`{"bos_token": "<o>"}`)}, want: "A<o>"},
		{name: "override by a template", files: fstest.MapFS{"tokenizer_config.json": config(`"A"`)}, override: Override{"x.jinja", []byte("O{{ bos_token }}")}, want: "O<s>"},
		{name: "none", files: fstest.MapFS{"tokenizer_config.json": file(`{"chat_template": null}`)}, want: "Template error: template not found"},
		{name: "no files", files: fstest.MapFS{}, want: "Template error: template not found"},
		{name: "special tokens from a map", files: fstest.MapFS{"chat_template.jinja": file("{{ sep_token }}{{ cls_token }}"), "special_tokens_map.json": file(`{"sep_token": {"content": "<\"sep>"}}`)}, want: `<"sep>`},
		{name: "does not compile", files: fstest.MapFS{"chat_template.jinja": file("a\n\n{% if %}")}, want: "chat_template.jinja: template \"default\": syntax error"},
		{name: "does not compile, line", files: fstest.MapFS{"tokenizer_config.json": config(`"a\n\n{% if %}"`)}, want: "line 3"},
		{name: "configuration is not JSON", files: fstest.MapFS{"tokenizer_config.json": file("{")}, want: "tokenizer_config.json: unexpected end"},
		{name: "template is a number", files: fstest.MapFS{"tokenizer_config.json": config("1")}, want: "tokenizer_config.json: chat_template: expected a string or a list"},
		{name: "entry without a name", files: fstest.MapFS{"tokenizer_config.json": config(`[{"template": "A"}]`)}, want: "entry 0 has no name"},
		{name: "token is a number", files: fstest.MapFS{"tokenizer_config.json": file(`{"bos_token": 1}`)}, want: "bos_token is 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tmpl, err := Load(tt.files, tt.override)
			var got Prompt
			if err == nil {
				tt.request.Messages = hi.Messages
				got, err = tmpl.Render(tt.request)
			}
			if err != nil {
				got.Text = err.Error()
			}
			// A prompt has the tools and TGI's prompt for them behind "hi", which none of these shows.
			if err == nil && got.Text != tt.want || err != nil && !strings.Contains(got.Text, tt.want) {
				t.Errorf("got %q, want %q", got.Text, tt.want)
			}
		})
	}
}

// What trying a template tells of it.
func TestHabits(t *testing.T) {
	for _, tt := range []struct {
		template                     string
		format                       *Format
		tools, calls, strings, lists bool
		textArguments, shortIDs      bool
		absent                       absentStyle
	}{
		{template: "llama31", format: formatLlama, tools: true, calls: true, strings: true},
		{template: "llama32vision", strings: true, lists: true, absent: asEmpty},
		{template: "qwen25", format: formatHermes, tools: true, calls: true, strings: true},
		{template: "qwen3", format: formatHermes, tools: true, calls: true, strings: true},
		{template: "mistral", format: formatMistral, tools: true, calls: true, strings: true, shortIDs: true},
		{template: "mistralargs", format: formatMistralArgs, tools: true, calls: true, strings: true, lists: true},
		{template: "gemma2", strings: true, absent: asEmpty},
		{template: "gemma3", strings: true, lists: true, absent: asEmpty},
		{template: "phi3", strings: true, absent: asEmpty},
		{template: "phi4mini", format: formatNamed("phi-4"), strings: true, absent: asEmpty},
		{template: "deepseek", format: formatNamed("deepseek-v3"), calls: true, strings: true, textArguments: true, absent: asNull},
		{template: "chatml", strings: true, absent: asEmpty},
		{template: "commandr", strings: true, absent: asEmpty},
		{template: "commandr_tools", format: formatNamed("command-r"), tools: true, calls: true, strings: true},
		{template: "listsonly", lists: true, absent: asEmpty},
	} {
		t.Run(tt.template, func(t *testing.T) {
			h := loadFile(t, tt.template).byName["default"].habits
			name := formatTGI.Name
			if tt.format != nil {
				name = tt.format.Name
			}
			if h.format.Name != name {
				t.Errorf("format %s, want %s", h.format.Name, name)
			}
			want := h
			want.tools, want.calls = tt.tools, tt.calls
			want.strings, want.lists = tt.strings, tt.lists
			want.textArguments, want.shortIDs, want.absent = tt.textArguments, tt.shortIDs, tt.absent
			if h != want {
				t.Errorf("got  %+v\nwant %+v", h, want)
			}
		})
	}
}

func TestGuideline(t *testing.T) {
	one := []Message{{Role: "user", Content: Content{Text: "hi"}}}
	_, err := loadFile(t, "shieldgemma").Render(Request{Messages: one})
	var e *Error
	if !errors.As(err, &e) || e.Type != "missing_template_variable" || e.Msg != "Missing template vatiable: guideline" {
		t.Errorf("missing: %#v", err)
	}
	empty := ""
	if _, err := loadFile(t, "shieldgemma").Render(Request{Messages: one, Guideline: &empty}); err != nil {
		t.Errorf("an empty one: %v", err)
	}
	checked := "{% if guideline is defined %}G{{ guideline }}{% else %}none{% endif %}"
	if got, err := load(t, checked).Render(Request{Messages: one}); err != nil || got.Text != "none" {
		t.Errorf("template that checks: %q, %v", got.Text, err)
	}
}

func TestRenderErrors(t *testing.T) {
	for _, tt := range []struct{ name, template, want string }{
		{"raised", "{{ raise_exception('Only users, please') }}", "Template error: Only users, please"},
		{"unknown function", "{{ f(1) }}", "Template error: unknown function: f is unknown"},
		{"left out", "{{ messages[0].role }}", "Template error: the template leaves out the last message"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.template).Render(Request{Messages: []Message{{Role: "assistant", Content: Content{Text: "a"}}}})
			var e *Error
			if !errors.As(err, &e) || e.Type != "template_error" || !strings.HasPrefix(e.Msg, tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestStrftimeNow(t *testing.T) {
	tmpl := load(t, `{{ strftime_now("%Y-%m-%d") }}`)
	before := time.Now().Format(time.DateOnly)
	got, err := tmpl.Render(Request{Messages: []Message{{Role: "user"}}})
	if after := time.Now().Format(time.DateOnly); err != nil || got.Text != before && got.Text != after {
		t.Errorf("got %q, %v; want %s", got.Text, err, after)
	}
}

// A template that knows no tools gets them in TGI's words after the last message.
func TestToolsWithoutTemplate(t *testing.T) {
	const tool = `{"type":"function","function":{"name":"f","parameters":{}}}`
	ask := `"messages":[{"role":"user","content":"hi"}],"tools":[` + tool + `]`
	call := `{"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":"{\"a\": 1}"}}]}`
	for _, tt := range []struct{ name, template, request, want string }{
		{"tools", "commandr", `{` + ask + `}`, "hi\n---\n[" + tool + "]\n" + strings.TrimRight(toolPrompt, "\n")},
		{"call and result", "commandr", `{"messages":[{"role":"user","content":"hi"},` + call + `,{"role":"tool","content":"22"}]}`,
			`<|CHATBOT_TOKEN|>{"name": "f", "parameters": {"a": 1}}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>22<|END`},
		{"image as Markdown", "commandr", `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}},{"type":"text","text":"b"}]}]}`, "a![](u)b<"},
		{"Mistral's ids", "mistral", `{"messages":[{"role":"user","content":"hi"},` + strings.Replace(call, `"1"`, `"call_1"`, 1) + `,{"role":"tool","tool_call_id":"call_1","content":"22"}]}`,
			`"call_id": "` + (&contextWriter{habits: habits{shortIDs: true}}).id("call_1") + `"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request, err := decodeRequest([]byte(tt.request))
			if err != nil {
				t.Fatal(err)
			}
			got, err := loadFile(t, tt.template).Render(request)
			if err != nil || !strings.Contains(got.Text, tt.want) {
				t.Errorf("got %q, %v\nwant %q in it", got.Text, err, tt.want)
			}
		})
	}
}

func TestImages(t *testing.T) {
	request, err := decodeRequest([]byte(`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"a","detail":"high"}},{"type":"text","text":"t"},{"type":"image_url","image_url":"b"}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := loadFile(t, "gemma3").Render(request)
	if want := "<start_of_image>t<start_of_image>"; err != nil || !strings.Contains(got.Text, want) || !slices.Equal(got.Images, []Image{{"a", "high"}, {"b", ""}}) {
		t.Errorf("got %q with images %q, %v", got.Text, got.Images, err)
	}
}

// A template that goes beyond its limits on the conversations that it is tried
// on is refused in one line; one that does later fails that request.
func TestHostileTemplate(t *testing.T) {
	for _, tt := range []struct{ name, template, want string }{
		{"source", "{{ 1" + strings.Repeat("~1", 100000) + " }}", "a tag has more than"},
		{"steps", strings.Repeat("{% for i in range(1000) %}", 3) + strings.Repeat("{% endfor %}", 3), "too many steps"},
		{"memory", "{{ '%1000000000d' % 1 }}", "too much memory"},
		{"text", "{{ 'a' * 2000000 }}", "more than 1048576 bytes"},
		{"with tools only", "{% if tools %}{{ '%1000000000d' % 1 }}{% endif %}", "too much memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for file, key := range map[string]string{"tokenizer_config.json": "chat_template", "chat_template.json": "completion_template"} {
				if key == "completion_template" && tt.name == "with tools only" {
					continue
				}
				data, err := json.Marshal(map[string]string{key: tt.template})
				if err != nil {
					t.Fatal(err)
				}
				_, err = Load(fstest.MapFS{file: {Data: data}}, Override{})
				if err == nil || !strings.HasPrefix(err.Error(), file+": ") || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v, want one line about %q in %s", err, tt.want, file)
				}
			}
		})
	}
	late := load(t, "{% if messages|length > 9 %}{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}{% endif %}")
	var e *Error
	if _, err := late.Render(Request{Messages: make([]Message, 10)}); !errors.As(err, &e) || !strings.Contains(e.Msg, "too many steps") {
		t.Errorf("error %v", err)
	}
	if got, err := loadFile(t, "chatml").Render(Request{Messages: []Message{{Role: "user", Content: Content{Text: "hello"}}}, MaxBytes: 10}); !errors.As(err, new(*LengthError)) {
		t.Errorf("within 10 bytes rendered %q, %v", got.Text, err)
	}
}

// What is spelled like a special token in a request is marked, wherever it
// stands; what the template writes is not.
func TestEscape(t *testing.T) {
	const template = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }} {{ m.name }}\n" +
		"{% if m.content is string %}{{ m.content | trim }}{% else %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endif %}" +
		"{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}<|im_end|>{% endfor %}{{ tools | tojson(ensure_ascii=true) }}{{ x }}"
	special := []string{"<|im_start|>", "<|im_end|>", "<s>", "[X]", "é"}
	plain, escaping := load(t, template), load(t, template)
	if err := escaping.Escape(special); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		request Request
		want    string // a part of the marked text, ~ for the mark
	}{
		{"none", Request{Messages: []Message{{Role: "user", Content: Content{Text: "a |im_end|> é\ufdd0"}}}}, ""},
		{"content", Request{Messages: []Message{{Role: "user", Content: Content{Text: "<|im_end|><|im_end|>"}}}}, "\n<~|im_end|><~|im_end|><|im_end|>"},
		{"as the template's own", Request{Messages: []Message{{Role: "user", Content: Content{Text: "<s>"}}}}, "<s><|im_start|>user \n<~s><|im_end|>"},
		{"role and name", Request{Messages: []Message{{Role: "<|im_end|>", Name: "a[X]"}}}, "<|im_start|><~|im_end|> a[~X]\n"},
		{"in two parts", Request{Messages: []Message{{Role: "user", Content: Content{Chunks: []Chunk{{Text: "a<|im_"}, {Text: "end|>"}}}}}}, "a<|im_~end|><|im_end|>"},
		{"arguments", Request{Messages: []Message{{Role: "user", Content: Content{Text: "q"}}, {Role: "assistant", Calls: []Call{{Name: "f", Arguments: `{"\u003cs>": "\u003c|im_end|\u003e"}`}}}}},
			`"<~s>": "<~|im_end|>"`},
		{"tools", Request{Messages: []Message{{Role: "user"}}, Tools: []Tool{{Spec: []byte(`{"d": "[X]"}`)}}}, `"[~X]"`},
		{"variables", Request{Messages: []Message{{Role: "user"}}, Variables: []byte(`{"x": "[X]", "bos_token": "<s>"}`)}, "<~s><|im_start|>"},
		{"where the mark is in the text", Request{Messages: []Message{{Role: "user", Content: Content{Text: "\ufdd0[X]\\ufdd1"}}}}, "\ufdd0[~X]\\ufdd1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want, err := plain.Render(tt.request)
			if err != nil {
				t.Fatal(err)
			}
			got, err := escaping.Render(tt.request)
			if err != nil || got.Text != want.Text {
				t.Errorf("text %q, %v; want %q", got.Text, err, want.Text)
			}
			if (got.Mark != 0) != (tt.want != "") || strings.ContainsRune(got.Text, got.Mark) && got.Mark != 0 {
				t.Errorf("mark %U in %q", got.Mark, got.Text)
			}
			if part := strings.ReplaceAll(tt.want, "~", string(got.Mark)); !strings.Contains(got.Marked, part) {
				t.Errorf("marked %q, want %q in it", got.Marked, part)
			}
		})
	}
}

// Clients' messages neither break a template's rendering nor make it long.
func FuzzRender(f *testing.F) {
	var templates []*Template
	for _, name := range []string{"llama31", "qwen3", "mistral", "gemma3", "deepseek", "chatml", "commandr_tools", "listsonly"} {
		templates = append(templates, loadFile(f, name))
	}
	f.Add([]byte(`{"messages":[{"role":"system","content":"%s {{ x }} {% raw %}"},{"role":"user","content":[{"type":"text","text":"a"}]}]}`))
	f.Add([]byte(`{"messages":[{"role":"user","content":null},{"role":"assistant","tool_calls":[{"id":"","function":{"name":"f","arguments":{"a":[1e400]}}}]},{"role":"tool","content":""}],"tools":[{"function":{"name":"f","arguments":{"properties":{"a":{"type":["string","null"]}}}}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		request, err := decodeRequest(data)
		if err != nil {
			return
		}
		for _, tmpl := range templates {
			got, err := tmpl.Render(request)
			if len(got.Text) > 2000+100*len(data) {
				t.Errorf("%d bytes of %d", len(got.Text), len(data))
			}
			if err != nil && strings.Contains(err.Error(), "internal error") {
				t.Errorf("%s: %v", data, err)
			}
		}
	})
}

// formatNamed returns a format of the table.
func formatNamed(name string) *Format {
	for _, f := range formats {
		if f.Name == name {
			return f
		}
	}
	panic(name)
}
