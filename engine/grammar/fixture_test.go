package grammar

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/engine/token/tokentest"
)

// bytesVocabulary has a token for each byte but 0xFF, a special token and an
// end: a text is accepted by it exactly if the grammar admits it byte by byte.
type bytesVocabulary struct{}

const (
	bytesSpecial = 256
	bytesEOS     = 257
	bytesEOT     = 258
	bytesSize    = 300 // the model's logits: some without a token
)

func (bytesVocabulary) VocabSize() int { return 259 }
func (bytesVocabulary) TokenBytes(id int32) []byte {
	if id < 256 {
		return []byte{byte(id)}
	}
	return []byte("<special>")
}
func (bytesVocabulary) IsSpecial(id int32) bool { return id >= 256 }
func (bytesVocabulary) Encode(text string, _ bool) ([]int32, error) {
	var ids []int32
	for _, b := range []byte(text) {
		ids = append(ids, int32(b))
	}
	return ids, nil
}

var bytesCompiler = sync.OnceValues(func() (*Compiler, error) {
	c, err := NewCompiler(bytesVocabulary{}, bytesSize, []int32{bytesEOS, bytesEOT})
	if err == nil {
		patient(c)
	}
	return c, err
})

func compilerOfBytes(t testing.TB) *Compiler {
	t.Helper()
	c, err := bytesCompiler()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// realCompiler skips the test if the vocabulary is not on this machine.
func realCompiler(t testing.TB, size int) *Compiler {
	t.Helper()
	v := tokentest.Llama3(t, size)
	c, err := NewCompiler(v, size+1, []int32{v.EOS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func testTokenizer(t testing.TB, name string) *token.Tokenizer {
	t.Helper()
	tk, err := token.Load(filepath.Join("../token/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tk.Close() })
	return tk
}

func mustCompile(t testing.TB, c *Compiler, spec Spec) *Matcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := c.Compile(ctx, spec)
	if err != nil {
		t.Fatalf("compile %.100s: %v", spec.Text, err)
	}
	t.Cleanup(m.Close)
	return m
}

// admits walks text through a clone of m, checking at each step that the mask
// allows what is accepted, and reports whether it is admitted to its end.
func admits(t testing.TB, m *Matcher, text string) bool {
	t.Helper()
	m, err := m.Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	mask := make([]uint32, m.c.MaskWords())
	for i := range len(text) {
		if err := m.Mask(mask); err != nil {
			t.Fatalf("%q at %d: %v", text, i, err)
		}
		allowed := isSet(mask, int32(text[i]))
		if !allowed {
			return false
		}
		if err := m.Accept(int32(text[i])); err != nil {
			t.Fatalf("%q at %d: in the mask, but %v", text, i, err)
		}
	}
	if err := m.Mask(mask); err != nil {
		t.Fatalf("%q at its end: %v", text, err)
	}
	if ends := isSet(mask, bytesEOS); ends != m.Accepting() || ends != isSet(mask, bytesEOT) {
		t.Fatalf("%q: accepting %v, but ends in the mask %v, %v", text, m.Accepting(), ends, isSet(mask, bytesEOT))
	}
	return m.Accepting()
}

func isSet(mask []uint32, id int32) bool { return mask[id/32]>>(id%32)&1 == 1 }

// validator is the independent judge of schemas. Formats are asserted, as here.
func validator(t testing.TB, schema string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("test.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("test.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// valid reports whether the validator takes text for a JSON value of the schema.
func valid(s *jsonschema.Schema, text string) bool {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
	return err == nil && json.Valid([]byte(text)) && s.Validate(v) == nil
}
