package page

import "encoding/binary"

// index finds pages by key: a hash table of fixed size, chained through one
// link per page. Unlike a Go map it never grows or rehashes, so registering
// and evicting pages forever allocates nothing. Keys are SHA-256 sums: any
// of their bits will do as the hash.
type index struct {
	heads []ID // power of two, at least as many as pages
	chain []ID // next page with the same head
}

func newIndex(pages int) index {
	size := 1
	for size < pages {
		size *= 2
	}
	x := index{heads: make([]ID, size), chain: make([]ID, pages)}
	for i := range x.heads {
		x.heads[i] = None
	}
	return x
}

func (x *index) slot(k *Key) *ID {
	return &x.heads[binary.LittleEndian.Uint64(k[:])&uint64(len(x.heads)-1)]
}

func (x *index) find(keys []Key, k *Key) ID {
	id := *x.slot(k)
	for id != None && keys[id] != *k {
		id = x.chain[id]
	}
	return id
}

func (x *index) insert(id ID, k *Key) {
	head := x.slot(k)
	x.chain[id] = *head
	*head = id
}

func (x *index) remove(id ID, k *Key) {
	at := x.slot(k)
	for *at != id {
		at = &x.chain[*at]
	}
	*at = x.chain[id]
}
