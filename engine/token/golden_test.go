package token

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf8"
)

// kinds are the folders of testdata, each a kind of tokenizer (make.py says which).
var kinds = []string{"llama3", "qwen", "llama2", "gemma", "t5", "wordpiece"}

func load(tb testing.TB, kind string) *Tokenizer {
	tb.Helper()
	t, err := Load(filepath.Join("testdata", kind))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { t.Close() })
	return t
}

type golden struct {
	Encode []struct {
		Text       string
		Special    bool
		IDs        []int32
		Offsets    [][2]int32
		Decode     string
		DecodeSkip string `json:"decode_skip"`
	}
	Decode []struct {
		IDs        []int32
		Decode     string
		DecodeSkip string `json:"decode_skip"`
	}
}

func readGolden(tb testing.TB, kind string) (g golden) {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", kind, "golden.json"))
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(data, &g); err != nil {
		tb.Fatal(err)
	}
	return g
}

func TestAsPython(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			tok, g := load(t, kind), readGolden(t, kind)
			for _, c := range g.Encode {
				ids, err := tok.Encode(c.Text, c.Special)
				if err != nil || !slices.Equal(ids, c.IDs) {
					t.Errorf("Encode(%q, %v) = %v, %v; want %v", c.Text, c.Special, ids, err, c.IDs)
				}
				spans, err := tok.EncodeSpans(c.Text, c.Special)
				if err != nil || len(spans) != len(c.IDs) {
					t.Fatalf("EncodeSpans(%q, %v) = %v, %v; want ids %v", c.Text, c.Special, spans, err, c.IDs)
				}
				for i, s := range spans {
					if want := (Span{c.IDs[i], c.Offsets[i][0], c.Offsets[i][1]}); s != want {
						t.Errorf("EncodeSpans(%q, %v)[%d] = %v, want %v", c.Text, c.Special, i, s, want)
					}
				}
				checkDecodes(t, tok, c.IDs, c.Decode, c.DecodeSkip)
			}
			for _, c := range g.Decode {
				checkDecodes(t, tok, c.IDs, c.Decode, c.DecodeSkip)
			}
		})
	}
}

func checkDecodes(t *testing.T, tok *Tokenizer, ids []int32, all, skip string) {
	t.Helper()
	if got := tok.Decode(ids, false); got != all {
		t.Errorf("Decode(%v, false) = %q, want %q", ids, got, all)
	}
	if got := tok.Decode(ids, true); got != skip {
		t.Errorf("Decode(%v, true) = %q, want %q", ids, got, skip)
	}
}

// Character offsets must cut the text where the token says it lies.
func TestSpansAreSlices(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string // the slice of each token
	}{
		{"special tokens keep their place", "Hé<|eot_id|>ß", []string{"", "H", "é", "<|eot_id|>", "ß"}},
		{"NUL does not end the text", "a\x00b", []string{"", "a", "\x00", "b"}},
		{"bytes of one character share it", "猫", []string{"", "猫", "猫", "猫"}},
		{"invalid bytes are one character", "a\xf0\x9fb", []string{"", "a", "\uFFFD", "\uFFFD", "\uFFFD", "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spans, err := load(t, "llama3").EncodeSpans(tt.text, true)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			chars := []rune(ToValid(tt.text))
			for _, s := range spans {
				piece := string(chars[s.Start:s.Stop])
				if len(got) > 0 && got[len(got)-1] == piece && utf8.RuneLen(chars[s.Start]) == 1 {
					continue // a letter's own bytes may or may not be merged
				}
				got = append(got, piece)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("EncodeSpans(%q) cuts %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}
