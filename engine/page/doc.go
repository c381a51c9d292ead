// Package page keeps account of the pages of a model's caches, and of the
// states of its recurrent layers: which sequence uses which, and which hold something
// worth keeping.
//
// A page is in one of three states.
//
//	used      referenced by one sequence or more
//	cached    unreferenced, but its content has a Key: on the free list, and
//	          found by Find until Alloc takes it for someone else
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
// Layers that keep the same are a group: a sequence has a list of pages for
// each, and a position is in one page of each. All pages are of one size and in
// one Pool, whichever group uses them; only their keys tell the groups apart
// (Key.In). In a group whose layers see a window of positions back, a sequence
// releases the pages that its window has left (First), and a hit needs no more
// than the window's.
//
// A recurrent layer has no pages: what it knows of all positions so far is one
// state. It can be resumed only where a snapshot of it was taken, so a hit ends
// at one. States are another Pool (Cache). A live state has one reference and
// never a Key; a snapshot has a Key, and references only while a step that reads
// or writes it is being prepared, which keeps it from being evicted until then.
//
// All operations are O(1), or O(pages named in the call), and allocate nothing
// once their buffers have grown. Neither Pool nor Cache is for concurrent use;
// they know nothing of devices: what is freed may be reused at once, even while
// a step that uses it is in flight, because a backend works in order.
//
// The scheme is vLLM's automatic prefix caching: chained block hashes and an
// LRU free list in place of a radix tree.
package page
