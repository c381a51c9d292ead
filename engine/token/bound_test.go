package token

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMinTokens encodes texts made to have few tokens and holds the bound to
// them.
func TestMinTokens(t *testing.T) {
	for kind, known := range map[string]bool{"llama3": true, "llama2": true, "gemma": true, "qwen": true, "t5": false, "wordpiece": false} {
		t.Run(kind, func(t *testing.T) {
			tok := load(t, kind)
			if n := tok.MinTokens(1 << 20); (n > 0) != known {
				t.Fatalf("a megabyte has at least %d tokens; known %v, want %v", n, n > 0, known)
			}
			if most, ok := tok.MaxBytes(10); ok != known || known && tok.MinTokens(most) != 10 {
				t.Errorf("10 tokens have at most %d bytes, %v, and those at least %d tokens", most, ok, tok.MinTokens(most))
			}
			longest := ""
			for id := range int32(tok.VocabSize()) {
				if text := tok.Decode([]int32{id}, false); len(text) > len(longest) {
					longest = text
				}
			}
			texts := []string{
				"", longest, strings.Repeat(longest, 100), strings.Repeat(" ", 1000), strings.Repeat("▁", 1000),
				strings.Repeat("K", 1000), strings.Repeat("각", 1000), strings.Repeat("ᾂ", 500), strings.Repeat("\x00", 100),
				strings.Repeat("<|eot_id|>", 50), strings.Repeat("\u200b", 100), strings.Repeat("\U0001F600", 100),
			}
			rng := rand.New(rand.NewPCG(1, 2))
			for range 300 {
				var b strings.Builder
				for range rng.IntN(60) {
					if rng.IntN(3) == 0 {
						b.WriteRune(rune(rng.IntN(0x3000)))
					} else {
						b.WriteString(tok.Decode([]int32{int32(rng.IntN(tok.VocabSize()))}, false))
					}
				}
				texts = append(texts, ToValid(b.String()))
			}
			for _, text := range texts {
				ids, err := tok.Encode(text, false)
				if err != nil {
					t.Fatal(err)
				}
				if least := tok.MinTokens(len(text)); len(ids) < least {
					t.Errorf("%.60q: %d bytes are %d tokens, and at least %d", text, len(text), len(ids), least)
				}
			}
		})
	}
}

// TestMinTokensUnknown changes a tokenizer so that it may drop text.
func TestMinTokensUnknown(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "llama3", "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"a token that takes spaces in":   {`"rstrip":false`, `"rstrip":true`},
		"a normalizer that strips":       {`"normalizer":null`, `"normalizer":{"type":"Strip","strip_left":true,"strip_right":true}`},
		"a normalizer that takes out":    {`"normalizer":null`, `"normalizer":{"type":"Replace","pattern":{"String":"  "},"content":" "}`},
		"a normalizer by a pattern":      {`"normalizer":null`, `"normalizer":{"type":"Replace","pattern":{"Regex":"a+"},"content":"a"}`},
		"a pre-tokenizer that takes out": {`"behavior":"Isolated"`, `"behavior":"Removed"`},
	} {
		changed := bytes.Replace(data, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(changed, data) {
			t.Fatalf("%s: no %s in the file", name, change[0])
		}
		tok, err := LoadBytes(changed, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n := tok.MinTokens(1 << 20); n != 0 {
			t.Errorf("%s: a megabyte has at least %d tokens, want that nothing is known", name, n)
		}
		tok.Close()
	}
}

// TestCost tells texts that are encoded in pieces from those that are not.
func TestCost(t *testing.T) {
	const size = 1 << 20
	words, word := strings.Repeat("hello world ", size/12), strings.Repeat("x", size)
	// llama3 here has an added token with a space in it.
	for kind, cuts := range map[string]bool{"llama3": false, "qwen": true, "llama2": false, "gemma": false, "t5": false, "wordpiece": false} {
		tok := load(t, kind)
		if got := tok.Cost(words) < 100*size; got != cuts {
			t.Errorf("%s: words of a megabyte take %d bytes", kind, tok.Cost(words))
		}
		if got := tok.Cost(word); got < 300*size {
			t.Errorf("%s: a word of a megabyte takes %d bytes", kind, got)
		}
	}
	for text, want := range map[string]int{"": 0, "a": 1, "a b": 2, "a bc": 3, " a b ": 3, "1 2": 3, "aaaa b cc d": 4, "aa  bb": 6, "a b c 123456": 9} {
		if got := longestPiece(text); got != want {
			t.Errorf("longestPiece(%q) = %d, want %d", text, got, want)
		}
	}
}
