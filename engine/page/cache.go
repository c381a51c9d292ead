package page

// Cache is what is kept of one model's sequences: the pages of its groups, one
// pool for all of them, and the states of its recurrent layers.
//
// A state is accounted for as a page is, with its own pool. A sequence that
// runs owns one, with Alloc. A snapshot is another that was copied from it at
// the end of a page and registered under that page's key: Alloc gives the
// buffer to copy to, if all are used None, and then there is just no snapshot;
// Release leaves it to the free list, in order of eviction as pages are.
type Cache struct {
	Pages  *Pool
	States *Pool // empty if the model has no recurrent layers

	windows []int // of the groups
	widest  int   // of these
	hit     Hit
}

// Hit is a prefix whose pages and state are cached.
type Hit struct {
	Pages  int    // its length
	Groups [][]ID // of each group, the pages from First(window, Pages*Tokens) to Pages-1
	State  ID     // of States, after the last position; None if there are none, or if Pages is 0
}

// NewCache returns the account of pages and of states, which is 0 for a model
// without recurrent layers. windows are those of the model's groups in order:
// how many positions, the current included, its layers see back, 0 for all.
func NewCache(windows []int, pages, states int) *Cache {
	c := &Cache{Pages: newPool(pages, len(windows)), States: New(states), windows: windows, hit: Hit{Groups: make([][]ID, len(windows))}}
	for _, w := range windows {
		c.widest = max(c.widest, w)
	}
	return c
}

// First returns the first page that a token at position next or after it sees
// in a group of that window. A sequence that goes on at next has no use for
// those before it.
func First(window, next int) int {
	if window == 0 {
		return 0
	}
	return max(0, next-(window-1)) / Tokens
}

// Prefix returns the longest prefix of a sequence with these keys, of full pages
// in order, from whose end one can go on: all pages of groups without a window
// are there, of the others those that their window still sees, and, with
// recurrent layers, a snapshot exactly there. It takes no reference: Share each
// page and the state before the next Alloc. What it returns is valid until the
// next call.
//
// The longest prefix of the groups without a window is found first, then cut
// back until all else is there too. No page is looked for twice, since where one
// is missing no prefix ends that would see it. The idea is that of vLLM's hybrid
// cache manager (find_longest_cache_hit).
func (c *Cache) Prefix(keys []Key) Hit {
	h := &c.hit
	h.Pages = len(keys)
	for g, window := range c.windows {
		h.Groups[g] = h.Groups[g][:0]
		if window == 0 {
			h.Groups[g] = c.Pages.appendPrefix(h.Groups[g], keys[:h.Pages], g)
			h.Pages = len(h.Groups[g])
		}
	}
	h.Pages, h.State = c.snapshot(keys, h.Pages)
	if c.widest > 0 {
		for i := h.Pages - 1; i >= First(c.widest, h.Pages*Tokens); i = min(i, h.Pages) - 1 {
			if !c.seen(keys, i, h.Pages) {
				h.Pages, h.State = c.snapshot(keys, i)
			}
		}
	}
	for g, window := range c.windows {
		if window == 0 {
			h.Groups[g] = h.Groups[g][:h.Pages]
			continue
		}
		for i := First(window, h.Pages*Tokens); i < h.Pages; i++ {
			h.Groups[g] = append(h.Groups[g], c.Pages.Find(keys[i].In(g)))
		}
	}
	return *h
}

// snapshot returns the longest prefix of at most n pages that ends at a
// snapshot, and that. Without recurrent layers any does.
func (c *Cache) snapshot(keys []Key, n int) (int, ID) {
	if c.States.Total() == 0 {
		return n, None
	}
	for ; n > 0; n-- {
		if id := c.States.Find(keys[n-1]); id != None {
			return n, id
		}
	}
	return 0, None
}

// seen reports whether page i is there in all groups with a window that sees it
// from the end of n pages.
func (c *Cache) seen(keys []Key, i, n int) bool {
	for g, window := range c.windows {
		if window > 0 && i >= First(window, n*Tokens) && c.Pages.Find(keys[i].In(g)) == None {
			return false
		}
	}
	return true
}

// Forget forgets the pages of all groups, and the states, that keys name:
// whatever a step that failed may have written.
func (c *Cache) Forget(keys []Key) {
	for _, k := range keys {
		c.States.Forget(c.States.Find(k))
		for g := range c.windows {
			c.Pages.Forget(c.Pages.Find(k.In(g)))
		}
	}
}

// Check verifies both accounts against themselves and against their users; see
// Pool.Check.
func (c *Cache) Check(pages, states []int32) error {
	if err := c.Pages.Check(pages); err != nil {
		return err
	}
	return c.States.Check(states)
}
