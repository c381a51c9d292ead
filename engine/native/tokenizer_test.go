package native

import (
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/daulet/tokenizers"
)

// A tokenizer of three letters. Its decoder takes a letter off the end of each token.
//
//nolint:misspell // "normalized" is the file format's word
const letters = `{"version":"1.0","added_tokens":[{"id":4,"content":"<s>","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false}],
"decoder":{"type":"Strip","content":"b","start":0,"stop":1},
"model":{"type":"BPE","vocab":{"a":0,"b":1,"":2,"\u0000":3},"merges":[]}}`

func loadLetters(t *testing.T) (Handle, *Vocabulary) {
	t.Helper()
	h, v, err := LoadTokenizer([]byte(letters))
	if err != nil {
		t.Fatal(err)
	}
	freeAtEnd(t, h)
	return h, v
}

// freeAtEnd frees a tokenizer when the test has ended.
func freeAtEnd(t *testing.T, h Handle) {
	t.Cleanup(func() {
		owner := new(tokenizers.Tokenizer)
		*(*unsafe.Pointer)(unsafe.Pointer(owner)) = unsafe.Pointer(h)
		owner.Close()
	})
}

// A panic in the library must come back as an error: taking a letter off the
// empty token is one, in tokenizers 0.22.
func TestPanicIsAnError(t *testing.T) {
	h, _ := loadLetters(t)
	got, err := Decode(h, []int32{0, 2}, false)
	if err == nil || !strings.Contains(err.Error(), "internal error: ") {
		t.Errorf("Decode = %q, %v; want an internal error", got, err)
	}
}

func TestVocabulary(t *testing.T) {
	h, got := loadLetters(t)
	want := []struct {
		spelling       string
		added, special bool
	}{
		{spelling: "a"}, {spelling: "b"}, {spelling: ""}, {spelling: "\x00"},
		{spelling: "<s>", added: true, special: true},
	}
	if got.Len() != len(want) {
		t.Fatalf("the vocabulary has %d tokens, want %d", got.Len(), len(want))
	}
	for id, w := range want {
		if got.Spelling(id) != w.spelling || !got.Exists(id) || got.Added(id) != w.added || got.Special(id) != w.special {
			t.Errorf("token %d is %q, exists %v, added %v, special %v; want %+v", id, got.Spelling(id), got.Exists(id), got.Added(id), got.Special(id), w)
		}
		if back, ok := TokenID(h, w.spelling); !ok || int(back) != id {
			t.Errorf("TokenID(%q) = %d, %v; want %d", w.spelling, back, ok, id)
		}
	}
	if id, ok := TokenID(h, "\xff"); ok {
		t.Errorf("TokenID of invalid UTF-8 = %d", id)
	}
}

func TestFrame(t *testing.T) {
	h, _ := loadLetters(t)
	if err := Frame(h, "<t>", ""); err == nil || !strings.Contains(err.Error(), "<t>") {
		t.Errorf("Frame with an unknown token = %v", err)
	}
	if err := Frame(h, "<s>", "b"); err != nil {
		t.Fatal(err)
	}
	spans, err := EncodeSpans(h, "a", true, 0)
	if want := []Span{{ID: 4}, {ID: 0, Stop: 1}, {ID: 1}}; err != nil || len(spans) != 3 || [3]Span(spans) != [3]Span(want) {
		t.Errorf("EncodeSpans = %v, %v; want %v", spans, err, want)
	}
}

func TestLoadTokenizerErrors(t *testing.T) {
	for _, json := range []string{"", "{", "{}", strings.Repeat("[", 1<<16)} {
		if h, _, err := LoadTokenizer([]byte(json)); err == nil {
			t.Errorf("LoadTokenizer(%.10q) = %v, no error", json, h)
		}
	}
	if data, err := os.ReadFile("testdata/chat.json"); err != nil {
		t.Fatal(err)
	} else if _, _, err := LoadTokenizer(data); err == nil {
		t.Error("a file of another kind was loaded")
	}
}
