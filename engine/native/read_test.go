package native

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// bpe is a tokenizer.json of the usual form but for its vocabulary and merges.
const bpe = `{"version":"1.0","truncation":null,"padding":null,
"added_tokens":[{"id":9,"content":"<s>","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false}],
"normalizer":{"type":"NFC"},"pre_tokenizer":null,"post_processor":null,"decoder":{"type":"Fuse"},
"model":{"type":"BPE","dropout":null,"unk_token":"?","continuing_subword_prefix":null,"end_of_word_suffix":null,
"fuse_unk":true,"byte_fallback":false,"ignore_merges":false,"vocab":VOCAB,"merges":MERGES}}`

const (
	tokens = `{"?":0,"a":1,"b":2," ":3,"ab":4,"aba":5}`
	merges = `[["a","b"],["ab","a"]]`
)

// Files of the usual form are read here, others by the library: a member of the model
// that nobody knows makes the same file one of those.
func TestReadAsLibrary(t *testing.T) {
	files := map[string]string{}
	for name, parts := range map[string][2]string{
		"merges as pairs":        {tokens, merges},
		"merges as lines":        {tokens, `["a b","ab a"]`},
		"merges with a version":  {tokens, `["#version: 0.2","a b","ab a"]`},
		"no merges":              {tokens, `[]`},
		"ids out of order":       {`{"aba":5,"ab":4," ":3,"b":2,"a":1,"?":0}`, merges},
		"a gap in the ids":       {`{"?":0,"a":1,"b":2," ":3,"ab":7,"aba":8}`, merges},
		"a token twice":          {`{"?":0,"a":1,"b":2," ":3,"ab":4,"aba":5,"ab":6}`, merges},
		"escapes":                {`{"?":0,"a":1,"b":2,"\u0020":3,"a\u0062":4,"aba":5,"\u0000\"":6}`, merges},
		"no vocabulary":          {`{}`, `[]`},
		"an id below 0":          {`{"a":-1}`, `[]`},
		"an id with a fraction":  {`{"a":0.5}`, `[]`},
		"a huge id":              {`{"a":4194304}`, `[]`},
		"a merge of a stranger":  {tokens, `[["a","x"]]`},
		"a merge to a stranger":  {tokens, `[["b","b"]]`},
		"a merge of three":       {tokens, `["a b a"]`},
		"a merge of one":         {tokens, `[["a"]]`},
		"merges of both kinds":   {tokens, `[["a","b"],"ab a"]`},
		"merges of another kind": {tokens, `{"a":"b"}`},
	} {
		files[name] = strings.NewReplacer("VOCAB", parts[0], "MERGES", parts[1]).Replace(bpe)
	}
	usual := files["merges as pairs"]
	for name, change := range map[string][2]string{
		"a prefix":            {`"continuing_subword_prefix":null`, `"continuing_subword_prefix":"b"`},
		"a suffix":            {`"end_of_word_suffix":null`, `"end_of_word_suffix":"b"`},
		"bytes":               {`"byte_fallback":false`, `"byte_fallback":true`},
		"merges left out":     {`"ignore_merges":false`, `"ignore_merges":true`},
		"unknown tokens":      {`"fuse_unk":true`, `"fuse_unk":false`},
		"dropout":             {`"dropout":null`, `"dropout":0.0`},
		"dropout above 1":     {`"dropout":null`, `"dropout":2`},
		"another version":     {`"version":"1.0"`, `"version":"2.0"`},
		"no version":          {`"version":"1.0",`, ``},
		"version null":        {`"version":"1.0"`, `"version":null`},
		"a member twice":      {`"decoder":`, `"decoder":null,"decoder":`},
		"an unknown member":   {`"decoder":`, `"decoded":`},
		"padding":             {`"padding":null`, `"padding":{"strategy":"BatchLongest","direction":"Right","pad_id":0,"pad_type_id":0,"pad_token":"?"}`},
		"padding of a kind":   {`"padding":null`, `"padding":"wide"`},
		"a vocabulary token":  {`"content":"<s>"`, `"content":"ab"`},
		"an added text":       {`"special":true`, `"special":false`},
		"another model":       {`"type":"BPE"`, `"type":"WordLevel"`},
		"no kind of model":    {`"type":"BPE",`, ``},
		"text after the file": {`"decoder":{"type":"Fuse"},`, `"decoder":{"type":"Fuse"}}`},
	} {
		files[name] = strings.Replace(usual, change[0], change[1], 1)
		if files[name] == usual {
			t.Fatalf("%s: nothing has changed", name)
		}
	}
	found, err := filepath.Glob("../token/testdata/*/tokenizer.json")
	if err != nil || len(found) == 0 {
		t.Fatalf("%d files of tokenizers, %v", len(found), err)
	}
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = string(data)
	}
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			got := describeTokenizer(t, file)
			model := strings.LastIndex(file, `"model":`)
			open := model + strings.IndexByte(file[model:], '{') + 1
			if want := describeTokenizer(t, file[:open]+`"unheard_of":null,`+file[open:]); !reflect.DeepEqual(got, want) {
				t.Errorf("read is\n%+v\nby the library\n%+v", got, want)
			}
		})
	}
}

// described is what can be seen of a tokenizer.
type described struct {
	err        string
	vocabulary Vocabulary
	decoder    string
	spans      [][]Span
	texts      []string
}

func describeTokenizer(t *testing.T, file string) (d described) {
	h, v, err := LoadTokenizer([]byte(file))
	if err != nil {
		// Where in the file a fault is differs by the member that is put in.
		d.err, _, _ = strings.Cut(err.Error(), " at line ")
		return d
	}
	freeAtEnd(t, h)
	d.vocabulary = *v
	decoder, err := DecoderJSON(h)
	if err != nil {
		t.Fatal(err)
	}
	d.decoder = string(decoder)
	for _, text := range []string{"", "a", "abab a", "abaab<s>xyz b", "e\u0301 日本", "The quick brown fox's 2024 jumps\n\n", "<|eot_id|>▁the"} {
		for _, special := range []bool{false, true} {
			spans, err := EncodeSpans(h, text, special, 0)
			if err != nil {
				d.texts = append(d.texts, err.Error())
			}
			var ids []int32
			for _, s := range spans {
				ids = append(ids, int32(s.ID))
			}
			back, err := Decode(h, ids, special)
			if err != nil {
				back = err.Error()
			}
			d.spans, d.texts = append(d.spans, spans), append(d.texts, back)
		}
	}
	return d
}
