package chat

import (
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/native"
)

// specialTrie is byteTrie with some special tokens after it, which no text spells.
func specialTrie(t *testing.T, special ...string) (*native.TokenTrie, map[string]int32) {
	t.Helper()
	var tokens [][]byte
	for i := range 256 {
		tokens = append(tokens, []byte{byte(i)})
	}
	tokens[255] = nil
	tokens = append(tokens, []byte("\xff<end>"))
	ids := map[string]int32{}
	for _, s := range special {
		ids[s] = int32(len(tokens))
		tokens = append(tokens, nil)
	}
	trie, err := native.NewTokenTrie(tokens, []int32{256}, func(text []byte) (ids []int32) {
		for _, b := range text {
			ids = append(ids, int32(b))
		}
		return ids
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trie.Free)
	return trie, ids
}

// Special tokens are tokens of their own in a grammar, and their spelling as
// text is not allowed in their place.
func TestSpecialTokensInGrammars(t *testing.T) {
	for _, f := range append([]*Format{formatTGI}, formats...) {
		var special []string
		for _, text := range f.texts() {
			for _, mark := range strings.SplitAfter(text, ">") {
				if at := strings.IndexByte(mark, '<'); at >= 0 && strings.HasSuffix(mark, ">") && !strings.ContainsAny(mark, " =\"") {
					special = append(special, mark[at:])
				}
			}
		}
		special = append(special, mistralOpen, mistralArgs)
		trie, ids := specialTrie(t, special...)
		s := Selection{Tools: formatTools, Parallel: true, Required: true}
		c, err := s.Constraint(f.withSpecial(ids))
		if err != nil {
			t.Fatal(err)
		}
		calls := []Call{{Name: "get_weather", Arguments: `{"city": "Rom", "days": 3, "where": {"x": 1, "name": "n"}}`}, {Name: "now", Arguments: `{}`}}
		if f.Name == "harmony" {
			calls = calls[:1]
		}
		text := writeCalls(t, f, calls)
		m, err := trie.NewMatcher(string(c.Grammar.Kind), c.Grammar.Text, native.MatcherLimits{}, 0)
		if err != nil {
			t.Fatalf("%s: %v in\n%s", f.Name, err, c.Grammar.Text)
		}
		mask := make([]uint32, trie.Words())
		for rest := text; rest != ""; {
			id, n := int32(rest[0]), 1
			for spelling, special := range ids {
				if strings.HasPrefix(rest, spelling) && len(spelling) > n {
					id, n = special, len(spelling)
				}
			}
			if err := m.Mask(mask); err != nil {
				t.Fatal(err)
			}
			if mask[id/32]>>(id%32)&1 == 0 {
				t.Fatalf("%s: token %d is not allowed after %q by\n%s", f.Name, id, text[:len(text)-len(rest)], c.Grammar.Text)
			}
			if b := rest[0]; n > 1 && b == '<' && mask[b/32]>>(b%32)&1 == 1 && !strings.Contains(c.Grammar.Text, "(?s:") {
				t.Errorf("%s: text is allowed in place of a special token after %q", f.Name, text[:len(text)-len(rest)])
			}
			if err := m.Accept(id); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if !m.Accepting() {
			t.Errorf("%s: %q is not whole", f.Name, text)
		}
		m.Free()
	}
}
