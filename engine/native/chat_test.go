package native

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
)

// testdata/chat.py wrote what transformers makes of each template.
func TestRendersAsTransformers(t *testing.T) {
	data, err := os.ReadFile("testdata/chat.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Template string
		Context        json.RawMessage
		Text           *string // nil: an error
		Error          string
		Known          bool // a difference that the package accepts
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			got, err := render(c.Template, c.Context)
			same := err == nil && c.Text != nil && got == *c.Text || err != nil && c.Text == nil
			switch {
			case same && c.Known:
				t.Error("is not a known difference any more")
			case !same && !c.Known && c.Text != nil:
				t.Errorf("got %q, %v\nwant %q", got, err, *c.Text)
			case !same && !c.Known:
				t.Errorf("got %q, want the error %q", got, c.Error)
			}
			// What a template raises is for the client, word for word.
			if strings.Contains(c.Template, "raise_exception") && c.Text == nil && err != nil && err.Error() != c.Error {
				t.Errorf("error %q, want %q", err, c.Error)
			}
		})
	}
}

// maxBytes is more than any of the texts here has.
const maxBytes = 1 << 20

func render(source string, context []byte) (string, error) {
	c, err := NewChatTemplate(source)
	if err != nil {
		return "", err
	}
	return renderWithin(c, context, maxBytes)
}

func renderWithin(c *ChatTemplate, context []byte, most int) (string, error) {
	text, _, err := c.Render(context, most, nil)
	return text, err
}

func TestChatErrors(t *testing.T) {
	for _, tt := range []struct{ name, source, context, want string }{
		{"syntax", "a\n{% if %}", "{}", "line 2"},
		{"unclosed block", "{% for m in messages %}", "{}", "line 1"},
		{"context is not JSON", "a", "{", "context: "},
		{"no context", "a", "", "context: "},
		{"unknown function", "\n{{ f(1) }}", "{}", "f is unknown"},
		{"bad date format", `{{ strftime_now("%!") }}`, "{}", "strftime_now"},
		{"endless recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{}", "recursion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := render(tt.source, []byte(tt.context))
			if err == nil {
				t.Fatalf("rendered %q", got)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
		})
	}
}

func TestChatTooLong(t *testing.T) {
	c, err := NewChatTemplate("{% for m in messages %}<{{ m }}>{% endfor %}")
	if err != nil {
		t.Fatal(err)
	}
	context := []byte(`{"messages":["aa","bb","cc"]}`)
	if got, err := renderWithin(c, context, 12); err != nil || got != "<aa><bb><cc>" {
		t.Errorf("rendered %q, %v", got, err)
	}
	for n := range 12 {
		if got, err := renderWithin(c, context, n); !errors.Is(err, ErrTooLong) {
			t.Errorf("with %d bytes rendered %q, %v; want ErrTooLong", n, got, err)
		}
	}
}

func TestChatTextWithNUL(t *testing.T) {
	got, err := render("{{ x }}\x00", []byte(`{"x":"a\u0000b"}`))
	if want := "a\x00b\x00"; err != nil || got != want {
		t.Errorf("rendered %q, %v; want %q", got, err, want)
	}
}

func TestChatConcurrentUse(t *testing.T) {
	c, err := NewChatTemplate("{% for m in messages %}{{ m }};{% endfor %}")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got, err := renderWithin(c, []byte(`{"messages":["a","b"]}`), maxBytes); err != nil || got != "a;b;" {
					t.Errorf("rendered %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkRender(b *testing.B) {
	c, err := NewChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}")
	if err != nil {
		b.Fatal(err)
	}
	context := []byte(`{"messages":[{"role":"system","content":"x"},{"role":"user","content":"y"}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := renderWithin(c, context, maxBytes); err != nil {
			b.Fatal(err)
		}
	}
}
