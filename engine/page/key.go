package page

import (
	"crypto/sha256"
	"encoding/binary"
)

// Tokens is the number of tokens in a page.
const Tokens = 16

// Key names the content of a full page: what is in it, everything before it,
// and everything else its keys and values depend on (Root). Equal keys mean
// equal content, as far as SHA-256 has no collisions, which matters because
// callers choose the tokens: a weaker hash would let one of them read another's
// prompt.
//
// The keys of a sequence's pages form a chain. A link of it names the page of
// group 0, with In those of the other groups, and the state of the recurrent
// layers after the page's last position.
type Key [sha256.Size]byte

// Tag says what a Field of a root is.
type Tag string

// Tags of root fields.
const (
	TagModel   Tag = "model"      // weights, their revision and the op plan
	TagKVType  Tag = "kv-type"    // element type of the cache
	TagAdapter Tag = "adapter"    // number of its load: another load under the same name is another adapter
	TagSalt    Tag = "cache-salt" // whoever does not know it shares nothing
	TagPrompt  Tag = "prompt"     // hash of a prompt whose tokens all attend to each other
	TagRope    Tag = "rope"       // the length that rotations take the sequence for, if they depend on it
)

// Field is one thing that changes keys and values without being a token.
type Field struct {
	Tag   Tag
	Value []byte
}

// Content says that some tokens of a sequence stand for something else, an
// image for example, which Hash names: the token at First+i for its i-th part.
type Content struct {
	Hash  Key
	First int // counted from the first token of the call; negative if it began before
	Count int
}

// First byte of everything hashed, so that no root can look like a page.
const (
	domainRoot    = 0
	domainPage    = 1
	domainContent = 2
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

// In returns the key of the page of a group that has the same positions as the
// page of group 0 that k names.
//
// It is k with the group's number over its first bytes, which is as safe as
// another hash: two pages would have one key if the sums of two chains differed
// in exactly the bits of two small numbers, and to find such a pair is no easier
// than to find a collision by chance. The index hashes by the same bytes, so
// the pages of several groups lie side by side in it.
func (k Key) In(group int) Key {
	binary.LittleEndian.PutUint32(k[:], binary.LittleEndian.Uint32(k[:])^uint32(group))
	return k
}

// Next returns the key of the page that follows k and holds tokens, exactly
// Tokens of them. Those that stand for contents are not looked at; contents are
// in order, do not overlap and may begin before the page or end after it.
func (k Key) Next(tokens []int32, contents ...Content) Key {
	return k.next(tokens[:Tokens], 0, contents)
}

// AppendKeys appends the keys of the full pages of tokens to dst; k is the
// parent of the first.
func (k Key) AppendKeys(dst []Key, tokens []int32, contents ...Content) []Key {
	for at := 0; at+Tokens <= len(tokens); at += Tokens {
		k = k.next(tokens[at:at+Tokens], at, contents)
		dst = append(dst, k)
	}
	return dst
}

// next hashes a page whose first token is number at of those that contents
// count. Each content with a part in the page is a link of the chain before the
// page: where it begins and ends there, and its hash. In place of a token that
// stands for one is the number of the part, so that what is not a token is told by
// (hash, part).
func (k Key) next(tokens []int32, at int, contents []Content) Key {
	var in [1 + len(k) + 4*Tokens]byte
	entries := in[1+len(k):]
	for i, t := range tokens {
		binary.LittleEndian.PutUint32(entries[4*i:], uint32(t))
	}
	for _, c := range contents {
		from, to := max(c.First-at, 0), min(c.First+c.Count-at, Tokens)
		if from >= to {
			continue
		}
		for i := from; i < to; i++ {
			binary.LittleEndian.PutUint32(entries[4*i:], uint32(at+i-c.First))
		}
		var link [3 + 2*len(k)]byte
		link[0], link[1], link[2] = domainContent, byte(from), byte(to)
		copy(link[3:], k[:])
		copy(link[3+len(k):], c.Hash[:])
		k = sha256.Sum256(link[:])
	}
	in[0] = domainPage
	copy(in[1:], k[:])
	return sha256.Sum256(in[:])
}
