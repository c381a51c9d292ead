package grammar

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
)

// Vocabulary is what a Compiler needs of a tokenizer; *token.Tokenizer has it.
type Vocabulary interface {
	VocabSize() int
	TokenBytes(id int32) []byte // what the token adds to a text
	IsSpecial(id int32) bool
	Encode(text string, addSpecial bool) ([]int32, error)
}

// vocabulary makes tokens of forced text as the model was taught to read it.
type vocabulary struct {
	tokenizer Vocabulary
	tokens    [][]byte // by id; empty for what text cannot be made of

	// sorted holds the ids that have bytes, in the bytes' order, for texts that
	// the tokenizer does not give back as they are. Made when first needed.
	sorted func() []int32
}

// specialMarker before its name is how the library knows a special token.
const specialMarker = "\xff"

// newVocabulary lists the bytes of size tokens. Special tokens have none, so
// that no text can be made of them; ids beyond the tokenizer's have none
// either; the ends of sequence are marked.
func newVocabulary(t Vocabulary, size int, eos []int32) *vocabulary {
	v := &vocabulary{tokenizer: t, tokens: make([][]byte, size)}
	for id := range int32(min(size, t.VocabSize())) {
		if !t.IsSpecial(id) {
			// A byte of 0xFF alone is a token of byte-level vocabularies. No text has
			// it, and the library would take it for a special token.
			if b := t.TokenBytes(id); !bytes.HasPrefix(b, []byte(specialMarker)) {
				v.tokens[id] = b
			}
		}
	}
	for _, id := range eos {
		v.tokens[id] = fmt.Appendf(nil, "%s<eos %d>", specialMarker, id)
	}
	v.sorted = sync.OnceValue(func() []int32 {
		var ids []int32
		for id := range v.tokens {
			if v.isText(int32(id)) {
				ids = append(ids, int32(id))
			}
		}
		slices.SortFunc(ids, func(a, b int32) int { return bytes.Compare(v.tokens[a], v.tokens[b]) })
		return ids
	})
	return v
}

func (v *vocabulary) isText(id int32) bool {
	return uint(id) < uint(len(v.tokens)) && len(v.tokens[id]) > 0 && v.tokens[id][0] != specialMarker[0]
}

// check tells a vocabulary whose tokens are bytes of text from one that is not
// (WordPiece): of the latter no JSON can be made.
func (v *vocabulary) check() error {
	const probe = `{"a": [1, true], "b":"x y"}`
	ids, err := v.tokenizer.Encode(probe, false)
	if err != nil {
		return err
	}
	if got := v.text(ids); strings.TrimPrefix(got, " ") != probe {
		return fmt.Errorf("the tokenizer turns %s into tokens of %q: its tokens are not pieces of text", probe, got)
	}
	return nil
}

func (v *vocabulary) text(ids []int32) string {
	var b []byte
	for _, id := range ids {
		if !v.isText(id) {
			return ""
		}
		b = append(b, v.tokens[id]...)
	}
	return string(b)
}

// encode returns tokens whose bytes are exactly text: the tokenizer's own
// where they are. They are not where it puts a space before every text, so
// then the text is shown to it after a character that is cut off again; nor
// where it normalises the text or finds the name of a special token in it.
func (v *vocabulary) encode(text []byte) []int32 {
	s := string(text)
	if ids, err := v.tokenizer.Encode(s, false); err == nil && v.text(ids) == s {
		return ids
	}
	const guard = "\x02" // in no token with other text
	if before, err := v.tokenizer.Encode(guard, false); err == nil {
		if ids, err := v.tokenizer.Encode(guard+s, false); err == nil && len(ids) >= len(before) && slices.Equal(ids[:len(before)], before) {
			if ids = ids[len(before):]; v.text(ids) == s {
				return ids
			}
		}
	}
	return v.greedy(text)
}

// greedy takes the longest token that the text begins with, again and again.
// A byte for which there is no token is left out.
func (v *vocabulary) greedy(text []byte) []int32 {
	sorted := v.sorted()
	var ids []int32
	for len(text) > 0 {
		best, near := int32(-1), sorted
		for n := 1; n <= len(text) && len(near) > 0; n++ {
			// The tokens that share n bytes with text are next to each other.
			c := text[n-1]
			at := func(i int) int { // the token's byte n, -1 past its end
				if b := v.tokens[near[i]]; len(b) >= n {
					return int(b[n-1])
				}
				return -1
			}
			from := sort.Search(len(near), func(i int) bool { return at(i) >= int(c) })
			to := sort.Search(len(near), func(i int) bool { return at(i) > int(c) })
			if near = near[from:to]; len(near) > 0 && len(v.tokens[near[0]]) == n {
				best = near[0]
			}
		}
		if best < 0 {
			text = text[1:]
			continue
		}
		ids = append(ids, best)
		text = text[len(v.tokens[best]):]
	}
	return ids
}
