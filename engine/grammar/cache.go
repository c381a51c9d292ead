package grammar

import (
	"container/list"
	"crypto/sha256"
	"maps"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/engine/native"
)

const (
	cacheEntries = 128
	cacheBytes   = 128 << 20
)

// compiledBytes estimates the memory of a compiled grammar that is cheap.
func compiledBytes(source int) int { return 160<<10 + 288*source }

// cache keeps compiled grammars, the least recently used go first. Requests
// get clones: that is cheaper than compiling, and they move independently. It
// also remembers for a while which grammars were refused.
type cache struct {
	mu      sync.Mutex
	entries map[[sha256.Size]byte]*list.Element
	recent  *list.List // of *cacheEntry, the latest in front
	bytes   int
	refused map[[sha256.Size]byte]refusal

	maxEntries, maxBytes int
	free                 func(*native.Matcher)
}

type cacheEntry struct {
	key     [sha256.Size]byte
	matcher *native.Matcher // at the beginning, its first mask computed
	bytes   int
	users   int // the cache itself, and those that clone it
}

type refusal struct {
	fault *Error
	until time.Time
}

func newCache(maxEntries, maxBytes int, free func(*native.Matcher)) *cache {
	return &cache{
		entries:    map[[sha256.Size]byte]*list.Element{},
		recent:     list.New(),
		refused:    map[[sha256.Size]byte]refusal{},
		maxEntries: maxEntries,
		maxBytes:   maxBytes,
		free:       free,
	}
}

// clone returns a copy of the grammar of key, nil if it is not here. The error
// is why it was refused, or clone's.
func (c *cache) clone(key [sha256.Size]byte, clone func(*native.Matcher) (*Matcher, error)) (*Matcher, error) {
	c.mu.Lock()
	e, ok := c.entries[key]
	if !ok {
		defer c.mu.Unlock()
		if r, ok := c.refused[key]; ok && time.Now().Before(r.until) {
			return nil, r.fault
		}
		return nil, nil
	}
	c.recent.MoveToFront(e)
	entry := e.Value.(*cacheEntry)
	entry.users++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.leave(entry)
	}()
	return clone(entry.matcher)
}

// add takes over m, which takes so many bytes.
func (c *cache) add(key [sha256.Size]byte, m *native.Matcher, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; ok || bytes > c.maxBytes { // two requests compiled it
		c.free(m)
		return
	}
	c.entries[key] = c.recent.PushFront(&cacheEntry{key, m, bytes, 1})
	c.bytes += bytes
	for len(c.entries) > c.maxEntries || c.bytes > c.maxBytes {
		c.drop(c.recent.Back())
	}
}

// refuse remembers that a grammar was refused.
func (c *cache) refuse(key [sha256.Size]byte, fault *Error) {
	const entries, long = 1024, time.Minute
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if len(c.refused) >= entries {
		maps.DeleteFunc(c.refused, func(_ [sha256.Size]byte, r refusal) bool { return now.After(r.until) })
	}
	if len(c.refused) < entries {
		c.refused[key] = refusal{fault, now.Add(long)}
	}
}

func (c *cache) drop(e *list.Element) {
	entry := c.recent.Remove(e).(*cacheEntry)
	delete(c.entries, entry.key)
	c.bytes -= entry.bytes
	c.leave(entry)
}

// leave frees a grammar that nobody uses any more. The caller holds mu.
func (c *cache) leave(entry *cacheEntry) {
	if entry.users--; entry.users == 0 {
		c.free(entry.matcher)
	}
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.recent.Len() > 0 {
		c.drop(c.recent.Back())
	}
}
