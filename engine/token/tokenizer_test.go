package token

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestVocabulary(t *testing.T) {
	tok := load(t, "llama3")
	if got, want := tok.VocabSize(), tok.vocabulary.Len(); got != want || got < 600 {
		t.Errorf("VocabSize() = %d, want %d", got, want)
	}
	for _, tt := range []struct {
		spelling, text string
		special        bool
	}{
		{"<|begin_of_text|>", "<|begin_of_text|>", true},
		{"<|eot_id|>", "<|eot_id|>", true},
		{"<tool call>", "<tool call>", false}, // added, with a letter that stands for no byte
		{"Ġthe", " the", false},
		{"Ã", "\xc3", false}, // part of a character
	} {
		id, ok := tok.ID(tt.spelling)
		if !ok || tok.Token(id) != tt.spelling {
			t.Errorf("ID(%q) = %d, %v, and back %q", tt.spelling, id, ok, tok.Token(id))
		}
		if got := string(tok.TokenBytes(id)); got != tt.text {
			t.Errorf("TokenBytes of %q = %q, want %q", tt.spelling, got, tt.text)
		}
		if got := tok.IsSpecial(id); got != tt.special {
			t.Errorf("IsSpecial of %q = %v", tt.spelling, got)
		}
	}
	for _, id := range []int32{-1, int32(tok.VocabSize()), 1 << 30} {
		if tok.Token(id) != "" || tok.TokenBytes(id) != nil && len(tok.TokenBytes(id)) > 0 || tok.IsSpecial(id) || tok.Decode([]int32{id}, false) != "" {
			t.Errorf("id %d is beyond the vocabulary but names a token", id)
		}
	}
	if id, ok := tok.ID("no such token"); ok {
		t.Errorf(`ID("no such token") = %d`, id)
	}
}

func TestNamedTokens(t *testing.T) {
	for _, tt := range []struct{ kind, bos, eos, unk, pad string }{
		{kind: "llama3", bos: "<|begin_of_text|>", eos: "<|eot_id|>"},
		{kind: "llama2", bos: "<s>", eos: "</s>", unk: "<unk>"}, // bos_token is an object
		{kind: "qwen", eos: "<|im_end|>", pad: "<|endoftext|>"}, // bos_token is null
		{kind: "t5", eos: "</s>", unk: "<unk>"},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			tok := load(t, tt.kind)
			for _, c := range []struct {
				name string
				get  func() (int32, bool)
				want string
			}{{"BOS", tok.BOS, tt.bos}, {"EOS", tok.EOS, tt.eos}, {"Unknown", tok.Unknown, tt.unk}, {"Pad", tok.Pad, tt.pad}} {
				id, ok := c.get()
				if ok != (c.want != "") || tok.Token(id) != c.want {
					t.Errorf("%s() = %d (%q), %v; want %q", c.name, id, tok.Token(id), ok, c.want)
				}
			}
		})
	}
}

// add_bos_token and add_eos_token win over the post-processor; without them it stays.
func TestAddSpecial(t *testing.T) {
	for _, tt := range []struct {
		name, kind, config string
		leading            int
		first, last        string // tokens of "a" encoded with special tokens
	}{
		{name: "post-processor alone", kind: "llama3", leading: 1, first: "<|begin_of_text|>", last: "a"},
		{name: "config adds a BOS", kind: "gemma", config: `{"add_bos_token":true,"bos_token":"<bos>"}`, leading: 1, first: "<bos>", last: "a"},
		{name: "config adds both", kind: "gemma", config: `{"add_bos_token":true,"bos_token":"<bos>","add_eos_token":true,"eos_token":{"content":"<eos>"}}`, leading: 1, first: "<bos>", last: "<eos>"},
		{name: "config takes the BOS away", kind: "llama3", config: `{"add_bos_token":false,"bos_token":"<|begin_of_text|>"}`, first: "a", last: "a"},
		{name: "null leaves it", kind: "llama3", config: `{"add_bos_token":null}`, leading: 1, first: "<|begin_of_text|>", last: "a"},
		{name: "a BOS outside the vocabulary is not added", kind: "gemma", config: `{"add_bos_token":true,"bos_token":"<start>"}`, first: "a", last: "a"},
		{name: "both ends by post-processor", kind: "wordpiece", leading: 1, first: "[CLS]", last: "[SEP]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", tt.kind, "tokenizer.json"))
			if err != nil {
				t.Fatal(err)
			}
			tok, err := LoadBytes(data, []byte(tt.config))
			if err != nil {
				t.Fatal(err)
			}
			defer tok.Close()
			ids, err := tok.Encode("a", true)
			if err != nil {
				t.Fatal(err)
			}
			if got := tok.Token(ids[0]); got != tt.first {
				t.Errorf("first token %q, want %q", got, tt.first)
			}
			if got := tok.Token(ids[len(ids)-1]); got != tt.last {
				t.Errorf("last token %q, want %q", got, tt.last)
			}
			if got := tok.LeadingSpecial(); got != tt.leading {
				t.Errorf("LeadingSpecial() = %d, want %d", got, tt.leading)
			}
		})
	}
}

// A tokenizer.json may carry the truncation and padding of its training.
func TestIgnoresTruncationAndPadding(t *testing.T) {
	data, err := os.ReadFile("testdata/qwen/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct{ null, set string }{
		{`"truncation":null`, `"truncation":{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0}`},
		{`"padding":null`, `"padding":{"strategy":{"Fixed":9},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"!"}`},
	} {
		if !bytes.Contains(data, []byte(part.null)) {
			t.Fatalf("testdata/qwen/tokenizer.json has no %s", part.null)
		}
		data = bytes.Replace(data, []byte(part.null), []byte(part.set), 1)
	}
	tok, err := LoadBytes(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	want, _ := load(t, "qwen").Encode("one two three", false)
	got, err := tok.Encode("one two three", false)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Encode = %v, %v; want %v", got, err, want)
	}
}

func TestTruncateLeft(t *testing.T) {
	ids := []int32{1, 10, 11, 12, 13}
	for _, tt := range []struct {
		name       string
		n, leading int
		want       []int32
	}{
		{"short enough", 5, 1, ids},
		{"no special token", 2, 0, []int32{12, 13}},
		{"BOS stays", 3, 1, []int32{1, 12, 13}},
		{"BOS alone", 1, 1, []int32{1}},
		{"nothing", 0, 1, []int32{}},
		{"more leading than room", 2, 3, []int32{1, 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := TruncateLeft(ids, tt.n, tt.leading); !slices.Equal(got, tt.want) {
				t.Errorf("TruncateLeft(%v, %d, %d) = %v, want %v", ids, tt.n, tt.leading, got, tt.want)
			}
		})
	}
	if !slices.Equal(ids, []int32{1, 10, 11, 12, 13}) {
		t.Errorf("TruncateLeft changed its input to %v", ids)
	}
}

func TestLoadErrors(t *testing.T) {
	good, err := os.ReadFile("testdata/llama3/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string // parts of the error
	}{
		{"no file", nil, []string{"tokenizer.json: missing"}},
		{"sentencepiece only", map[string]string{"tokenizer.model": "x"}, []string{"tokenizer.json: missing", "tokenizer.model", "save_pretrained"}},
		{"empty", map[string]string{"tokenizer.json": ""}, []string{"tokenizer.json: empty"}},
		{"truncated", map[string]string{"tokenizer.json": string(good[:len(good)/2])}, []string{"tokenizer.json: not the JSON", "EOF"}},
		{"not JSON", map[string]string{"tokenizer.json": "PK\x03\x04"}, []string{"tokenizer.json: not the JSON"}},
		{"LFS pointer", map[string]string{"tokenizer.json": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}, []string{"LFS pointer"}},
		{"no model part", map[string]string{"tokenizer.json": `{"version":"1.0","added_tokens":[]}`}, []string{`no "model" part`}},
		{"unknown model", map[string]string{"tokenizer.json": `{"version":"1.0","model":{"type":"Magic"}}`}, []string{"not a tokenizer"}},
		{"empty vocabulary", map[string]string{"tokenizer.json": `{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[]}}`}, []string{"vocabulary is empty"}},
		{"id out of bounds", map[string]string{"tokenizer.json": `{"version":"1.0","model":{"type":"BPE","vocab":{"a":4294967295},"merges":[]}}`}, []string{"4294967295", "limit"}},
		{"NUL in the fault", map[string]string{"tokenizer.json": `{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["a b\u0000"]}}`}, []string{"tokenizer.json"}},
		{"broken config", map[string]string{"tokenizer.json": string(good), "tokenizer_config.json": "{"}, []string{"tokenizer_config.json: ", "JSON"}},
		{"bos is a number", map[string]string{"tokenizer.json": string(good), "tokenizer_config.json": `{"bos_token":7}`}, []string{"tokenizer_config.json: ", "7"}},
		{"broken map", map[string]string{"tokenizer.json": string(good), "special_tokens_map.json": "[]"}, []string{"special_tokens_map.json: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			tok, err := Load(dir)
			if err == nil {
				tok.Close()
				t.Fatal("Load succeeded")
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			if strings.ContainsAny(err.Error(), "\n") || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %q is not one line with the path", err)
			}
		})
	}
	t.Run("huge", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tokenizer.json")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(maxFileBytes + 1<<20); err != nil {
			t.Skip("no sparse files here")
		}
		if _, err := Load(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "257 MB") {
			t.Errorf("Load = %v, want the size and the limit", err)
		}
	})
}

func TestOddTexts(t *testing.T) {
	mega := strings.Repeat("The miller turns the wheel, größer 水車 😀.\n", 1<<20/48)
	all, big := []string{"llama3", "qwen", "llama2", "gemma"}, []string{"llama3", "llama2"}
	for _, tt := range []struct {
		name, text string
		kinds      []string
	}{
		{"NUL", "a\x00b\x00\x00", all},
		{"invalid UTF-8", "a\xff\xc3(\xe2\x82 \xf0\x9f\x98", all},
		{"replacement character", "\uFFFD", all},
		{"emoji with joiners", "👩‍🌾🏳️‍🌈", all},
		{"one megabyte", mega, big},
		{"one long word", strings.Repeat("a", 1<<20), big},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, kind := range tt.kinds {
				tok := load(t, kind)
				ids, err := tok.Encode(tt.text, false)
				if err != nil {
					t.Fatal(kind, err)
				}
				if got := tok.Decode(ids, false); got != ToValid(tt.text) {
					t.Errorf("%s: decode of encode is %d bytes %.60q, want %d bytes %.60q", kind, len(got), got, len(tt.text), ToValid(tt.text))
				}
			}
		})
	}
	for _, kind := range kinds {
		if ids, err := load(t, kind).Encode("", false); err != nil || len(ids) != 0 {
			t.Errorf("%s: Encode of nothing = %v, %v", kind, ids, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	for _, kind := range []string{"llama3", "llama2", "wordpiece"} {
		t.Run(kind, func(t *testing.T) {
			tok, g := load(t, kind), readGolden(t, kind)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for _, c := range g.Encode {
						ids, err := tok.Encode(c.Text, c.Special)
						if err != nil || !slices.Equal(ids, c.IDs) {
							t.Errorf("Encode(%q) = %v, %v; want %v", c.Text, ids, err, c.IDs)
						}
						d := NewDecoder(tok, nil)
						for _, id := range ids {
							d.Append(nil, id)
						}
						checkDecodes(t, tok, c.IDs, c.Decode, c.DecodeSkip)
					}
				})
			}
			wg.Wait()
		})
	}
}

// Close waits for calls that encode; later calls fail instead of touching freed memory.
func TestClose(t *testing.T) {
	tok, err := Load("testdata/wordpiece")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if _, err := tok.Encode("the miller", false); err != nil {
					return
				}
			}
		})
	}
	for range 2 {
		if err := tok.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if ids, err := tok.Encode("the", false); err == nil {
		t.Errorf("Encode after Close = %v", ids)
	}
	if _, err := tok.EncodeSpans("the", false); err == nil {
		t.Error("EncodeSpans after Close succeeded")
	}
	if got := tok.Decode([]int32{5}, false); got != "" {
		t.Errorf("Decode by the library after Close = %q", got)
	}
}

// moduleTokenizers are real tokenizers from the test data of the module
// daulet/tokenizers, if it is in the module cache with them.
func moduleTokenizers(tb testing.TB) map[string]string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/daulet/tokenizers").Output()
	if err != nil {
		tb.Skip("the source of daulet/tokenizers is not at hand")
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "test", "data")
	found := map[string]string{}
	for name, file := range map[string]string{
		"Llama 3": "Meta-Llama-3-8B-Instruct.json", "BERT": "bert-base-uncased.json", "Cohere": "cohere-tokenizer.json",
	} {
		path := filepath.Join(dir, file)
		if _, err := os.Stat(path); err == nil {
			found[name] = path
		}
	}
	if len(found) == 0 {
		tb.Skip("daulet/tokenizers has no test data in " + dir)
	}
	return found
}

func TestRealTokenizers(t *testing.T) {
	for name, path := range moduleTokenizers(t) {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			tok, err := LoadBytes(data, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tok.Close()
			compareWithLibrary(t, tok, 2000)
			if name != "Llama 3" {
				return
			}
			text := "Grüße, 水車! 😀 it's 12345\n\n\tdone<|eot_id|>"
			want := []int32{128000, 6600, 2448, 24352, 11, 107732, 101918, 0, 91416, 433, 596, 220, 4513, 1774, 271, 41595, 128009}
			ids, err := tok.Encode(text, true)
			if err != nil || !slices.Equal(ids, want) {
				t.Errorf("Encode(%q) = %v, %v; want %v", text, ids, err, want)
			}
			if got := tok.Decode(ids, true); got != strings.TrimSuffix(text, "<|eot_id|>") {
				t.Errorf("decoded %q", got)
			}
		})
	}
}
