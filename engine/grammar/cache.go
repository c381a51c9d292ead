package grammar

import (
	"container/list"
	"crypto/sha256"
	"sync"

	"github.com/millrace-ai/millrace/engine/native"
)

const (
	cacheEntries = 128
	cacheBytes   = 128 << 20 // by compiledBytes
)

// compiledBytes estimates the memory of a compiled grammar, which the library
// does not tell: object schemas of 0.6 and 11 kB were measured at 0.16 and 1.7 MB.
func compiledBytes(source int) int { return 128<<10 + 192*source }

// cache keeps compiled grammars, the least recently used go first. Requests
// get clones: that is cheaper than compiling, and they move independently.
type cache struct {
	mu      sync.Mutex
	entries map[[sha256.Size]byte]*list.Element
	recent  *list.List // of *cacheEntry, the latest in front
	bytes   int

	maxEntries, maxBytes int
	free                 func(*native.Matcher)
}

type cacheEntry struct {
	key     [sha256.Size]byte
	matcher *native.Matcher // at the beginning, its first mask computed
	bytes   int
}

func newCache(maxEntries, maxBytes int, free func(*native.Matcher)) *cache {
	return &cache{
		entries:    map[[sha256.Size]byte]*list.Element{},
		recent:     list.New(),
		maxEntries: maxEntries,
		maxBytes:   maxBytes,
		free:       free,
	}
}

// clone returns a copy of the grammar of key, nil if it is not here.
func (c *cache) clone(key [sha256.Size]byte) *native.Matcher {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cacheEntry).matcher.Clone()
}

// add takes over m, a grammar made of a source of that many bytes.
func (c *cache) add(key [sha256.Size]byte, m *native.Matcher, source int) {
	bytes := compiledBytes(source)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; ok || bytes > c.maxBytes { // two requests compiled it
		c.free(m)
		return
	}
	c.entries[key] = c.recent.PushFront(&cacheEntry{key, m, bytes})
	c.bytes += bytes
	for len(c.entries) > c.maxEntries || c.bytes > c.maxBytes {
		c.drop(c.recent.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	entry := c.recent.Remove(e).(*cacheEntry)
	delete(c.entries, entry.key)
	c.bytes -= entry.bytes
	c.free(entry.matcher)
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.recent.Len() > 0 {
		c.drop(c.recent.Back())
	}
}
