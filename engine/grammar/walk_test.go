package grammar

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"

	"github.com/millrace-ai/millrace/engine/token/tokentest"
)

// walk returns a text of the grammar, drawn token by token: the first of some
// walks that comes to an end.
func walk(t testing.TB, m *Matcher, v *vocabulary, r *rand.Rand) string {
	t.Helper()
	for range 20 {
		if text, ended := walkOnce(t, m, v, r); ended {
			return text
		}
	}
	t.Fatal("no walk comes to an end")
	return ""
}

// walkOnce draws tokens under the masks until the grammar is at its end, if
// that is near, taking forced tokens as they come. It prefers ends and closing
// tokens after some steps, since a uniform choice rarely ends a string.
func walkOnce(t testing.TB, m *Matcher, v *vocabulary, r *rand.Rand) (_ string, ended bool) {
	t.Helper()
	m, err := m.Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	mask := make([]uint32, m.c.MaskWords())
	var text []byte
	accept := func(id int32) {
		if err := m.Accept(id); err != nil {
			t.Fatalf("after %q: token %d %q was offered, but %v", text, id, v.tokens[id], err)
		}
		text = append(text, v.tokens[id]...)
	}
	for step := range 600 {
		if m.Done() {
			return string(text), true
		}
		forced := m.Forced(nil)
		if len(forced) > 0 && r.IntN(2) == 0 {
			for _, id := range forced {
				if !v.isText(id) {
					t.Fatalf("after %q: token %d is forced, which is not text", text, id)
				}
				accept(id)
			}
			continue
		}
		if err := m.Mask(mask); err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		if isSet(mask, m.c.EOS()[0]) && (step > 20 || r.IntN(3) == 0) {
			if err := m.Accept(m.c.EOS()[0]); err != nil || !m.Done() {
				t.Fatalf("after %q: the end was offered, but %v, done %v", text, err, m.Done())
			}
			return string(text), true
		}
		id := draw(mask, v, r, step > 20)
		if id < 0 {
			return string(text), true // only the end is left
		}
		if len(forced) > 0 && id != forced[0] {
			t.Fatalf("after %q: token %d is drawn, %d is forced", text, id, forced[0])
		}
		accept(id)
	}
	return "", false
}

// draw picks one of the tokens of text in mask, -1 if there is none.
func draw(mask []uint32, v *vocabulary, r *rand.Rand, closing bool) int32 {
	var all []int32
	for w, word := range mask {
		for ; word != 0; word &= word - 1 {
			id := int32(32*w + bits.TrailingZeros32(word))
			if !v.isText(id) {
				continue
			}
			if closing && slices.Contains([]string{`"`, `}`, `]`}, string(v.tokens[id])) {
				return id
			}
			all = append(all, id)
		}
	}
	if len(all) == 0 {
		return -1
	}
	return all[r.IntN(len(all))]
}

var walkSchemas = []string{
	`{"type":"object","properties":{"name":{"type":"string","maxLength":12},"age":{"type":"integer","minimum":0,"maximum":130},"tags":{"type":"array","items":{"enum":["a","b","c"]},"maxItems":3},"ok":{"type":"boolean"}},"required":["name","age","ok"],"additionalProperties":false}`,
	`{"type":"array","items":{"anyOf":[{"type":"integer","multipleOf":5,"maximum":1000,"minimum":-1000},{"type":"string","pattern":"^[a-c]{1,4}$"},{"type":"null"}]},"minItems":1,"maxItems":4}`,
	`{"type":"object","properties":{"when":{"type":"string","format":"date"},"id":{"type":"string","format":"uuid"},"größe":{"type":"number","exclusiveMinimum":0,"maximum":2.5}},"required":["when","id","größe"],"additionalProperties":false}`,
	`{"$ref":"#/$defs/t","$defs":{"t":{"type":"object","properties":{"v":{"type":"boolean"},"kids":{"type":"array","items":{"$ref":"#/$defs/t"},"maxItems":2}},"required":["v"],"additionalProperties":false}}}`,
	`{"type":"object","properties":{"name":{"const":"get_weather"},"arguments":{"type":"object","properties":{"city":{"type":"string","maxLength":8},"note":{"const":"<|eot_id|> </s> <eos> "}},"required":["city","note"],"additionalProperties":false}},"required":["name","arguments"],"additionalProperties":false}`,
}

func testWalks(t *testing.T, c *Compiler, v *vocabulary, walks int) {
	for i, schema := range walkSchemas {
		t.Run(fmt.Sprint("schema ", i), func(t *testing.T) {
			m := mustCompile(t, c, Spec{Kind: JSONSchema, Text: schema})
			judge := validator(t, schema)
			for seed := range walks {
				if text := walk(t, m, v, rand.New(rand.NewPCG(uint64(seed), 1))); !valid(judge, text) {
					t.Fatalf("walk %d ends in %q", seed, text)
				}
			}
		})
	}
	t.Run("regex", func(t *testing.T) {
		const regex = `[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9] (UTC|CET)`
		m := mustCompile(t, c, Spec{Kind: Regex, Text: regex})
		for seed := range walks {
			if text := walk(t, m, v, rand.New(rand.NewPCG(uint64(seed), 2))); !regexp.MustCompile("^(?:" + regex + ")$").MatchString(text) {
				t.Fatalf("walk %d ends in %q", seed, text)
			}
		}
	})
}

func TestWalksEndInValidTexts(t *testing.T) {
	for _, name := range []string{"llama2", "llama3", "gemma", "qwen"} {
		t.Run(name, func(t *testing.T) {
			tk := testTokenizer(t, name)
			eos, ok := tk.EOS()
			if !ok {
				t.Fatal("the tokenizer names no EOS")
			}
			size := tk.VocabSize() + 77 // a padded model
			c, err := NewCompiler(tk, size, []int32{eos})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			testWalks(t, c, newVocabulary(tk, size, []int32{eos}), 15)
		})
	}
	t.Run("llama3 first 32000", func(t *testing.T) {
		c := realCompiler(t, 32000)
		testWalks(t, c, newVocabulary(tokentest.Llama3(t, 32000), 32001, []int32{32000}), 15)
	})
}

// A WordPiece tokenizer's tokens are not bytes of text: it must not get grammars.
func TestVocabularyWithoutTextIsRefused(t *testing.T) {
	tk := testTokenizer(t, "wordpiece")
	if c, err := NewCompiler(tk, tk.VocabSize(), []int32{0}); err == nil {
		c.Close()
		t.Error("a WordPiece vocabulary is taken")
	}
	for _, eos := range [][]int32{nil, {-1}, {bytesSize}} {
		if c, err := NewCompiler(bytesVocabulary{}, bytesSize, eos); err == nil {
			c.Close()
			t.Errorf("eos %v is taken", eos)
		}
	}
}

// Forced text must come as the tokens that the tokenizer itself makes of it.
func TestForcedTokensAreCanonical(t *testing.T) {
	const want = `{"temperature": "the current temperature in the city"}`
	for _, name := range []string{"llama2", "llama3", "gemma", "qwen"} {
		t.Run(name, func(t *testing.T) {
			tk := testTokenizer(t, name)
			eos, _ := tk.EOS()
			c, err := NewCompiler(tk, tk.VocabSize(), []int32{eos})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			m := mustCompile(t, c, Spec{Kind: Regex, Text: regexp.QuoteMeta(want)})
			v := newVocabulary(tk, tk.VocabSize(), []int32{eos})
			var got []int32
			mask := make([]uint32, c.MaskWords())
			for range 100 {
				if m.Done() {
					break
				}
				forced := m.Forced(nil)
				if len(forced) == 0 { // how the text is cut is open, at its end
					if err := m.Mask(mask); err != nil {
						t.Fatal(err)
					}
					forced = []int32{draw(mask, v, rand.New(rand.NewPCG(1, 1)), false)}
				}
				for _, id := range forced {
					if err := m.Accept(id); err != nil {
						t.Fatal(err)
					}
				}
				got = append(got, forced...)
			}
			if canonical := v.encode([]byte(want)); v.text(got) != want || fmt.Sprint(got) != fmt.Sprint(canonical) {
				t.Errorf("tokens %v %q, want %v", got, v.text(got), canonical)
			}
		})
	}
}

func TestGreedy(t *testing.T) {
	v := newVocabulary(fixedVocabulary{"a", "ab", "abcd", "b", "c", "x", "\xff", ""}, 10, []int32{8})
	for text, want := range map[string]string{"abcd": "[2]", "abc": "[1 4]", "aab": "[0 1]", "a?b": "[0 3]", "\xff": "[]", "": "[]", "abcabcd": "[1 4 2]"} {
		if got := fmt.Sprint(v.greedy([]byte(text))); got != want {
			t.Errorf("greedy(%q) = %v, want %v", text, got, want)
		}
	}
}

type fixedVocabulary []string

func (v fixedVocabulary) VocabSize() int                       { return len(v) }
func (v fixedVocabulary) TokenBytes(id int32) []byte           { return []byte(v[id]) }
func (v fixedVocabulary) IsSpecial(int32) bool                 { return false }
func (v fixedVocabulary) Encode(string, bool) ([]int32, error) { return nil, nil }
