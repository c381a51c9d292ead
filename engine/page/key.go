package page

import (
	"crypto/sha256"
	"encoding/binary"
)

// Tokens is the number of tokens in a page.
const Tokens = 16

// Key names the content of a full page: the tokens in it, all tokens before
// it, and everything else its keys and values depend on (Root). Equal keys
// mean equal content, as far as SHA-256 has no collisions, which matters
// because callers choose the tokens: a weaker hash would let one of them read
// another's prompt.
type Key [sha256.Size]byte

// Tag says what a Field of a root is.
type Tag string

// Tags of root fields.
const (
	TagModel  Tag = "model"   // weights, their revision and the op plan
	TagKVType Tag = "kv-type" // element type of the cache
)

// Field is one thing that changes keys and values without being a token.
type Field struct {
	Tag   Tag
	Value []byte
}

// First byte of everything hashed, so that no root can look like a page.
const (
	domainRoot = 0
	domainPage = 1
)

// Root returns the parent of a sequence's first page. Fields are told apart
// by tag, length and order, so no value can pass for another field.
func Root(fields ...Field) Key {
	h := []byte{domainRoot}
	for _, f := range fields {
		h = binary.LittleEndian.AppendUint64(h, uint64(len(f.Tag)))
		h = append(h, f.Tag...)
		h = binary.LittleEndian.AppendUint64(h, uint64(len(f.Value)))
		h = append(h, f.Value...)
	}
	return sha256.Sum256(h)
}

// Next returns the key of the page that follows k and holds tokens, exactly
// Tokens of them.
func (k Key) Next(tokens []int32) Key {
	var in [1 + len(k) + 4*Tokens]byte
	in[0] = domainPage
	copy(in[1:], k[:])
	at := in[1+len(k):]
	for i, t := range tokens[:Tokens] {
		binary.LittleEndian.PutUint32(at[4*i:], uint32(t))
	}
	return sha256.Sum256(in[:])
}

// AppendKeys appends the keys of the full pages of tokens to dst; k is the
// parent of the first.
func (k Key) AppendKeys(dst []Key, tokens []int32) []Key {
	for ; len(tokens) >= Tokens; tokens = tokens[Tokens:] {
		k = k.Next(tokens)
		dst = append(dst, k)
	}
	return dst
}
