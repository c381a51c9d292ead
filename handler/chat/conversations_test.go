package chat

import (
	"compress/gzip"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/native"
)

var conversations = flag.String("conversations", "", "a folder of templates and the conversations.json.gz that testdata/conversations.py made of them")

// The text of 40 conversations is what transformers makes of them.
func TestRendersConversations(t *testing.T) {
	folder, file := "testdata/templates", "testdata/conversations.json.gz"
	if *conversations != "" {
		folder, file = *conversations, filepath.Join(*conversations, "conversations.json.gz")
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Contexts map[string]json.RawMessage
		Rows     []struct {
			Template, Case string
			Text           *string // nil: an error
			Error          string
		}
	}
	if err := json.NewDecoder(z).Decode(&golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Contexts) != 40 {
		t.Errorf("%d conversations, want 40", len(golden.Contexts))
	}
	templates := map[string]*native.ChatTemplate{}
	for _, row := range golden.Rows {
		template, ok := templates[row.Template]
		if !ok {
			text, err := os.ReadFile(filepath.Join(folder, row.Template+".jinja"))
			if err != nil {
				t.Fatal(err)
			}
			if template, err = native.NewChatTemplate(string(text)); err != nil {
				t.Fatalf("%s: %v", row.Template, err)
			}
			templates[row.Template] = template
		}
		got, _, err := template.Render(golden.Contexts[row.Case], maxProbeBytes, nil)
		switch {
		case row.Text == nil && err == nil && !isPythons(row.Error):
			t.Errorf("%s, %s: %q, want the error %s", row.Template, row.Case, got, row.Error)
		case row.Text != nil && err != nil:
			t.Errorf("%s, %s: %v", row.Template, row.Case, err)
		case row.Text != nil && got != *row.Text:
			n := 0
			for n < len(got) && n < len(*row.Text) && got[n] == (*row.Text)[n] {
				n++
			}
			t.Errorf("%s, %s: from byte %d\n got %.100q\nwant %.100q", row.Template, row.Case, n, got[n:], (*row.Text)[n:])
		}
	}
}

// isPythons reports whether an error is one of Python, for what is not there or
// of a wrong type: a prompt that lacks it is as good.
func isPythons(text string) bool {
	for _, part := range []string{"NoneType", "Undefined", "is undefined", "can only concatenate", "unsupported operand", "not JSON serializable", "has no attribute", "must be str"} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}
