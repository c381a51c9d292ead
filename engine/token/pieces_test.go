package token

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/daulet/tokenizers"
)

// A long text is encoded in pieces where the tokenizer allows it: the tokens and
// their places are those of the whole.
func TestEncodeInPieces(t *testing.T) {
	for _, kind := range append(slices.Clone(kinds), filepath.Join("..", "..", "..", "container", "demo", "model")) {
		t.Run(filepath.Base(kind), func(t *testing.T) {
			tok := load(t, kind)
			parts := []string{"The", " quick", " brown fox", " it's", "I'VE", " don't", " ", "  ", "\n", "\r\n\n", " \t ", "1", "2024", " 7", "x1y", "é", "e\u0301", "\u0301", " \u0301", "ﬁ", "日本", " 日", "🙂", "👨‍👩‍👧",
				".", "...", " !", "—", "_", " a", "b c", " Ab cD", "\u00a0", "\u3000", "<", "<|", "|>", "'s", " 's", "'ll we"}
			for id := range tok.VocabSize() {
				if tok.vocabulary.Added(id) {
					parts = append(parts, tok.Token(int32(id)))
				}
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 2 {
				var b strings.Builder
				for b.Len() < 100_000 {
					b.WriteString(parts[r.IntN(len(parts))])
				}
				checkPieces(t, tok, b.String())
			}
			checkPieces(t, tok, strings.Repeat("ab cd ", 20_000))
			checkPieces(t, tok, strings.Repeat("a", 50_000)+" b c"+strings.Repeat("!", 50_000))
		})
	}
}

func checkPieces(t *testing.T, tok *Tokenizer, text string) {
	t.Helper()
	for _, special := range []bool{false, true} {
		// The library counts bytes.
		chars, n := make([]int32, len(text)+1), int32(0)
		for at := range text {
			chars[at] = n
			n++
		}
		chars[len(text)] = n
		whole := tok.lib.EncodeWithOptions(text, special, tokenizers.WithReturnOffsets())
		ids, err := tok.Encode(text, special)
		if err != nil {
			t.Fatal(err)
		}
		spans, err := tok.EncodeSpans(text, special)
		if err != nil {
			t.Fatal(err)
		}
		if len(ids) != len(whole.IDs) || len(spans) != len(ids) {
			t.Fatalf("%d ids and %d spans, want %d", len(ids), len(spans), len(whole.IDs))
		}
		for i, want := range whole.IDs {
			span := Span{int32(want), chars[whole.Offsets[i][0]], chars[whole.Offsets[i][1]]}
			if ids[i] != int32(want) || spans[i] != span {
				t.Fatalf("token %d is %d and %+v, want %+v", i, ids[i], spans[i], span)
			}
		}
	}
}

// A mark keeps special tokens from being found and leaves no trace.
func TestEncodeMarked(t *testing.T) {
	const mark = '\ufdd0'
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			tok := load(t, kind)
			for _, special := range tok.Special() {
				if special == "<unk>" || special == "[UNK]" {
					continue // the vocabulary may lack < or >, which are unknown then
				}
				id, _ := tok.ID(special)
				first := []rune(special)[:1]
				broken := string(first) + string(mark) + special[len(string(first)):]
				marked := "Hi " + broken + broken + " é " + special + " and " + broken
				plain := strings.ReplaceAll(marked, string(mark), "")
				ids, err := tok.EncodeMarked(marked, false, mark)
				if err != nil {
					t.Fatal(err)
				}
				if n := count(ids, id); n != 1 {
					t.Errorf("%q has the token %d times, want once: %d", marked, n, ids)
				}
				spans, err := tok.EncodeSpansMarked(marked, false, mark)
				if err != nil {
					t.Fatal(err)
				}
				chars := []rune(plain)
				for i, s := range spans {
					if s.ID != ids[i] || s.Start > s.Stop || int(s.Stop) > len(chars) {
						t.Fatalf("span %d is %+v of %d characters, id %d", i, s, len(chars), ids[i])
					}
					if s.ID == id && string(chars[s.Start:s.Stop]) != special && strings.TrimSpace(string(chars[s.Start:s.Stop])) != special {
						t.Errorf("the token stands at %q", string(chars[s.Start:s.Stop]))
					}
				}
				// Without the real one, it is the text that the vocabulary spells otherwise.
				marked = "Hi " + broken + " you"
				ids, err = tok.EncodeMarked(marked, false, mark)
				want := tok.lib.EncodeWithOptions("Hi ", false).IDs
				if err != nil || count(ids, id) != 0 || len(ids) <= len(want)+1 {
					t.Errorf("%q is %d, %v", marked, ids, err)
				}
			}
		})
	}
	qwen := load(t, "qwen")
	if ids, err := qwen.EncodeMarked("a<\ufdd0|im_end|>b", false, mark); err != nil || qwen.Decode(ids, true) != "a<|im_end|>b" {
		t.Errorf("decoded %q, %v", qwen.Decode(ids, true), err)
	}
}

func count(ids []int32, id int32) (n int) {
	for _, x := range ids {
		if x == id {
			n++
		}
	}
	return n
}
