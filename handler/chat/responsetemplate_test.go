package chat

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"
)

type responseGolden struct {
	Templates map[string]json.RawMessage
	Tools     []struct {
		Function struct {
			Name       string
			Parameters json.RawMessage
		}
	}
	Rows []struct {
		Template, Text, Error string
		Message               *struct {
			Content, Thinking string
			ToolCalls         []struct {
				Function struct {
					Name      string
					Arguments json.RawMessage
				}
			} `json:"tool_calls"`
		}
	}
}

// readResponseGolden reads what testdata/response.py wrote.
func readResponseGolden(t testing.TB) (golden responseGolden) {
	t.Helper()
	f, err := os.Open("testdata/response.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(&golden); err != nil {
		t.Fatal(err)
	}
	return golden
}

// An answer says what transformers finds in it, however it is cut.
func TestResponseTemplates(t *testing.T) {
	golden := readResponseGolden(t)
	s := Selection{Parallel: true}
	for _, tool := range golden.Tools {
		s.Tools = append(s.Tools, Tool{Name: tool.Function.Name, Parameters: tool.Function.Parameters})
	}
	for i, row := range golden.Rows {
		template, err := readResponseTemplate(golden.Templates[row.Template])
		if err != nil {
			t.Fatal(row.Template, err)
		}
		format := formatTGI.withTemplate(template)
		got := answerOfText(format, s, row.Text, len(row.Text))
		if row.Message != nil {
			want := Answer{Content: row.Message.Content, Reasoning: row.Message.Thinking}
			for _, c := range row.Message.ToolCalls {
				want.Calls = append(want.Calls, Call{Name: c.Function.Name, Arguments: string(c.Function.Arguments)})
			}
			known := true // a call of no tool is text here
			for _, c := range want.Calls {
				known = known && (c.Name == "f" || c.Name == "get_weather" || c.Name == "say-it") && isObject([]byte(c.Arguments))
			}
			if known && (got.Content != want.Content || got.Reasoning != want.Reasoning || !sameCalls(got.Calls, want.Calls)) {
				t.Errorf("row %d, %s: %q\n got %q, %s\nwant %q, %s", i, row.Template, row.Text, got.Reasoning, got, want.Reasoning, want)
			}
		}
		for n := 1; n < 8; n++ {
			if a := answerOfText(format, s, row.Text, n); !reflect.DeepEqual(a, got) {
				t.Errorf("row %d, %s: %q in pieces of %d bytes is %q, %s; whole %q, %s", i, row.Template, row.Text, n, a.Reasoning, a, got.Reasoning, got)
			}
		}
	}
}

// A response_template that is not valid is refused in one line that names the
// field, and so is one with a pattern that cannot be followed in bounded time.
func TestHostileResponseTemplates(t *testing.T) {
	field := func(text string) string { return `{"start_anchor": "A", "fields": {"x": ` + text + `}}` }
	for _, tt := range []struct{ name, template, want string }{
		{"a list", `[]`, "cannot unmarshal"},
		{"version", `{"version": 2, "start_anchor": "A", "fields": {"content": {}}}`, "version 2 is not supported"},
		{"unknown key", `{"start_anchor": "A", "fields": {"content": {}}, "x": 1}`, `unknown field "x"`},
		{"no fields", `{"start_anchor": "A", "fields": {}}`, "fields is empty"},
		{"no anchor", `{"fields": {"content": {}}}`, "neither start_anchor nor"},
		{"two implicit", `{"start_anchor": "A", "fields": {"a": {}, "b": {}}}`, "fields.b: only one"},
		{"unknown parser", field(`{"open": "x", "content": "yaml"}`), `fields.x: the content parser "yaml"`},
		{"both", field(`{"open": "x", "open_pattern": "y"}`), "fields.x: both open and open_pattern"},
		{"empty text", field(`{"open": ""}`), "fields.x: open: a text is empty"},
		{"empty list", field(`{"open": []}`), "fields.x: open: the list is empty"},
		{"number", field(`{"open": 1}`), "fields.x: open: json"},
		{"join", field(`{"open": "x", "join": ""}`), "join needs repeats"},
		{"group", field(`{"open_pattern": "(?P<name>x)"}`), "the group name"},
		{"mixed transform", field(`{"open": "x", "transform": {"a": "b {content}"}}`), "mixes a placeholder"},
		{"lookahead", field(`{"open_pattern": "a(?=b)"}`), `fields.x: open_pattern: "a(?=b)" is not supported`},
		{"back reference", field(`{"open_pattern": "(a)\\1"}`), "fields.x: open_pattern:"},
		{"broken pattern", field(`{"close_pattern": "("}`), "fields.x: close_pattern:"},
		{"long pattern", field(`{"open_pattern": "` + strings.Repeat("a", 2000) + `"}`), "2000 bytes, the limit is 1024"},
		{"large pattern", field(`{"open_pattern": "((a{30}){30}){1,30}"}`), "fields.x: open_pattern:"},
		{"no tag", field(`{"open": "x", "content": "xml-inline"}`), "tag_pattern is missing"},
		{"no groups", field(`{"open": "x", "content": "xml-inline", "content_args": {"tag_pattern": "x"}}`), "needs the groups key and value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(fstest.MapFS{"tokenizer_config.json": {Data: []byte(`{"chat_template": "A", "response_template": ` + tt.template + `}`)}}, Override{})
			if err == nil || !strings.HasPrefix(err.Error(), "tokenizer_config.json: response_template: ") || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	// What backtracks for ever elsewhere does not here.
	template, err := readResponseTemplate(json.RawMessage(field(`{"open_pattern": "(a|a)*(a|a)*b", "close": "c"}`)))
	if err != nil {
		t.Fatal(err)
	}
	p := NewParser(formatTGI.withTemplate(template), Selection{}, false, NewID)
	n := 0
	for range 200 {
		for _, d := range p.Write(strings.Repeat("a", 100)) {
			n += len(d.Content)
		}
	}
	for _, d := range p.Close() {
		n += len(d.Content)
	}
	if n != 20000 {
		t.Errorf("%d characters of 20000", n)
	}
}

// Whatever a response_template says, it is refused or an answer can be read by
// it, in pieces as in one.
func FuzzResponseTemplate(f *testing.F) {
	golden := readResponseGolden(f)
	for _, row := range golden.Rows[:200] {
		f.Add(string(golden.Templates[row.Template]), row.Text)
	}
	f.Fuzz(func(t *testing.T, spec, text string) {
		if len(spec) > 3000 || len(text) > 500 || !utf8.ValidString(text) {
			return
		}
		template, err := readResponseTemplate(json.RawMessage(spec))
		if err != nil || template == nil {
			return
		}
		template.thinks(text)
		format := formatTGI.withTemplate(template)
		s := Selection{Tools: formatTools}
		if _, err := s.Constraint(format); err != nil {
			t.Error(err)
		}
		whole := answerOfText(format, s, text, max(1, len(text)))
		if a := answerOfText(format, s, text, 3); !reflect.DeepEqual(a, whole) {
			t.Errorf("%q by %s in pieces is %q, %s; whole %q, %s", text, spec, a.Reasoning, a, whole.Reasoning, whole)
		}
	})
}
