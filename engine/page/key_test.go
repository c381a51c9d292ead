package page

import "testing"

// TestKeysDiffer lists pairs of prefixes that must not share a page.
func TestKeysDiffer(t *testing.T) {
	one := seq(0, 2*Tokens)
	model := func(v string) Field { return Field{TagModel, []byte(v)} }
	last := func(root Key, tokens []int32) Key {
		keys := root.AppendKeys(nil, tokens)
		return keys[len(keys)-1]
	}
	for _, tt := range []struct {
		name string
		a, b Key
	}{
		{"another token", last(Root(), seq(0, Tokens)), last(Root(), seq(1, Tokens))},
		{"the same page after another", last(Root(), one), Root().Next(one[Tokens:])},
		{"the same page at another position", last(Root(), make([]int32, Tokens)), last(Root(), make([]int32, 2*Tokens))},
		{"another model", Root(model("a")), Root(model("b"))},
		{"another KV type", Root(model("a"), Field{TagKVType, []byte("bf16")}), Root(model("a"), Field{TagKVType, []byte("f32")})},
		{"a value under another tag", Root(Field{TagModel, []byte("x")}), Root(Field{TagKVType, []byte("x")})},
		{"a value split over fields", Root(model("ab")), Root(model("a"), model("b"))},
		{"no field and an empty one", Root(), Root(model(""))},
		{"a tag longer by what the value lacks", Root(Field{"a", []byte("bc")}), Root(Field{"ab", []byte("c")})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.a == tt.b {
				t.Errorf("both have key %x", tt.a)
			}
		})
	}
}

func TestAppendKeys(t *testing.T) {
	for _, tt := range []struct{ tokens, pages int }{{0, 0}, {Tokens - 1, 0}, {Tokens, 1}, {2*Tokens + 5, 2}} {
		keys := Root().AppendKeys(nil, seq(0, tt.tokens))
		if len(keys) != tt.pages {
			t.Errorf("%d tokens have %d keys, want %d", tt.tokens, len(keys), tt.pages)
		}
		k := Root()
		for i := range keys {
			if k = k.Next(seq(i*Tokens, Tokens)); keys[i] != k {
				t.Errorf("key %d of %d tokens is not the chain's", i, tt.tokens)
			}
		}
	}
}
