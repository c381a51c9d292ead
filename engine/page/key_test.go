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
	image, other := Root(model("image")), Root(model("other"))
	with := func(contents ...Content) Key { return Root().Next(seq(0, Tokens), contents...) }
	parts := func(n int, contents ...Content) Key { // of a page that holds the parts from n on as numbers
		tokens := seq(0, Tokens)
		copy(tokens[4:8], seq(n, 4))
		return Root().Next(tokens, contents...)
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
		{"another adapter", Root(Field{TagAdapter, []byte{1}}), Root(Field{TagAdapter, []byte{2}})},
		{"a salt that spells an adapter", Root(Field{TagSalt, []byte{1}}), Root(Field{TagAdapter, []byte{1}})},
		{"another group", Root().In(1), Root().In(2)},
		{"a group and the page itself", Root().In(1), Root()},
		{"another content", with(Content{image, 4, 4}), with(Content{other, 4, 4})},
		{"another part of it", with(Content{image, -4, 8}), with(Content{image, -3, 7})},
		{"a content and its tokens", with(Content{image, 4, 4}), with()},
		{"a content and tokens like its parts", parts(0, Content{image, 4, 4}), parts(0)},
		{"a content that ends earlier", parts(0, Content{image, 4, 4}), parts(0, Content{image, 4, 3})},
		{"a content that begins later", parts(0, Content{image, 3, 5}), with(Content{image, 4, 4})},
		{"one content and the same twice", with(Content{image, 0, 8}), with(Content{image, 0, 4}, Content{image, 4, 4})},
		{"two contents in another order", with(Content{image, 0, 4}, Content{other, 4, 4}), with(Content{other, 0, 4}, Content{image, 4, 4})},
		{"tokens beside a content", with(Content{image, 0, 4}), Root().Next(append(seq(0, Tokens-1), 99), Content{image, 0, 4})},
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

// What a token is that stands for a content does not count, nor where the
// content was cut.
func TestContents(t *testing.T) {
	image := Root(Field{TagModel, []byte("image")})
	tokens := seq(0, 4*Tokens)
	keys := Root().AppendKeys(nil, tokens, Content{image, 5, 30}, Content{image, 35, 2}, Content{image, 70, 9})
	for i := 5; i < 37; i++ {
		tokens[i] = -1
	}
	k := Root()
	for i := range keys {
		at := i * Tokens
		k = k.Next(tokens[at:at+Tokens], Content{image, 5 - at, 30}, Content{image, 35 - at, 2})
		if k != keys[i] {
			t.Errorf("key %d is not the chain's", i)
		}
	}
	// The most contents that a page can have.
	var many []Content
	for i := range Tokens {
		many = append(many, Content{image, i, 1})
	}
	if Root().Next(tokens, many...) == Root().Next(tokens, many[:Tokens-1]...) {
		t.Error("the last content does not count")
	}
}

// The key of group 0 is the chain's: a model of one group pays for no other.
func TestGroups(t *testing.T) {
	k := Root()
	if k.In(0) != k {
		t.Error("group 0 has a key of its own")
	}
	seen := map[Key]bool{}
	for g := range 300 {
		seen[k.In(g)] = true
	}
	if len(seen) != 300 {
		t.Errorf("300 groups have %d keys", len(seen))
	}
}
