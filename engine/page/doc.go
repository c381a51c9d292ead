// Package page keeps account of KV pages: who uses which, and which hold
// something worth keeping.
//
// A page is in one of three states.
//
//	used      referenced by one sequence or more
//	cached    unreferenced, but its content has a Key: on the free list, and
//	          found by LongestPrefix until Alloc takes it for someone else
//	empty     unreferenced, without a Key: on the free list
//
// A used page has a Key too once its content is complete (Register). Such a
// page is read-only: only a page with one reference and no Key may be written
// (Writable). Sequences share whole pages alone, and a hit never covers the
// last token of a prompt, so the page a sequence writes is its own; whoever
// wants to go on from the middle of a shared page copies it first.
//
// The free list is in order of eviction. Empty pages leave first, then cached
// ones by age. Release gives a sequence's pages back last page first, so that
// the head of a chain, which more prompts have in common and without which
// its tail cannot be found, survives longest.
//
// All operations are O(1), or O(pages named in the call), and allocate
// nothing. A Pool is not for concurrent use; it knows nothing of devices: a
// freed page may be reused at once because a backend works in order.
//
// The scheme is vLLM's automatic prefix caching: chained block hashes and an
// LRU free list in place of a radix tree.
package page
