package page

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestFirst(t *testing.T) {
	for _, tt := range []struct{ window, next, first int }{
		{window: 0, next: 1000, first: 0},
		{window: 1, next: 0, first: 0},
		{window: 1, next: Tokens, first: 1}, // sees itself alone
		{window: 2, next: Tokens, first: 0}, // sees the last position of page 0
		{window: 2, next: Tokens + 1, first: 1},
		{window: Tokens, next: 2*Tokens - 1, first: 1},
		{window: Tokens + 1, next: 2*Tokens - 1, first: 0},
		{window: 100, next: 50, first: 0},
		{window: 512, next: 4096, first: (4096 - 511) / Tokens},
	} {
		if got := First(tt.window, tt.next); got != tt.first {
			t.Errorf("window %d: from page %d on before position %d, want %d", tt.window, got, tt.next, tt.first)
		}
		if tt.window > 0 { // by what the positions of each page see
			for p := range tt.next/Tokens + 1 {
				seen := p*Tokens+Tokens-1 >= tt.next-(tt.window-1)
				if seen != (p >= tt.first) {
					t.Errorf("window %d, position %d: page %d is seen: %v", tt.window, tt.next, p, seen)
				}
			}
		}
	}
}

// put caches the given pages of a chain for a group.
func (c *Cache) put(keys []Key, group int, pages ...int) {
	for _, i := range pages {
		id := c.Pages.Alloc(group)
		c.Pages.Register(id, keys[i].In(group))
		c.Pages.Release([]ID{id})
	}
}

// save caches snapshots at the ends of the given pages of a chain.
func (c *Cache) save(keys []Key, pages ...int) {
	for _, i := range pages {
		id := c.States.Alloc(0)
		c.States.Register(id, keys[i])
		c.States.Release([]ID{id})
	}
}

func TestPrefix(t *testing.T) {
	keys := Root().AppendKeys(nil, seq(0, 8*Tokens))
	const wide, narrow = 2*Tokens + 1, 2 // see two pages back, and one
	for _, tt := range []struct {
		name    string
		windows []int
		states  int
		fill    func(c *Cache)
		want    int
	}{
		{"nothing", []int{0}, 0, func(c *Cache) {}, 0},
		{"no groups, no states", nil, 0, func(c *Cache) {}, 8},
		{"all positions", []int{0}, 0, func(c *Cache) { c.put(keys, 0, 0, 1, 2) }, 3},
		{"up to a gap", []int{0}, 0, func(c *Cache) { c.put(keys, 0, 0, 1, 3) }, 2},
		{"the shorter of two groups", []int{0, 0}, 0, func(c *Cache) { c.put(keys, 0, 0, 1, 2); c.put(keys, 1, 0, 1) }, 2},
		{"groups are not each other's", []int{0, 0}, 0, func(c *Cache) { c.put(keys, 1, 0, 1) }, 0},
		{"a window alone", []int{wide}, 0, func(c *Cache) { c.put(keys, 0, 4, 5) }, 6},
		{"less than a window", []int{wide}, 0, func(c *Cache) { c.put(keys, 0, 5) }, 0},
		{"the beginning of a window", []int{wide}, 0, func(c *Cache) { c.put(keys, 0, 0) }, 1},
		{"the last of several", []int{narrow}, 0, func(c *Cache) { c.put(keys, 0, 1, 4) }, 5},
		{"a window that sees no page back", []int{1}, 0, func(c *Cache) {}, 8},
		{"no further than the group of all", []int{0, narrow}, 0, func(c *Cache) { c.put(keys, 0, 0, 1, 2); c.put(keys, 1, 1, 4) }, 2},
		{"two windows at one place", []int{narrow, wide}, 0, func(c *Cache) {
			c.put(keys, 0, 6, 5, 2)
			c.put(keys, 1, 1, 2, 6)
		}, 3},
		{"a snapshot alone", nil, 4, func(c *Cache) { c.save(keys, 2, 5) }, 6},
		{"no snapshot", []int{0}, 4, func(c *Cache) { c.put(keys, 0, 0, 1, 2) }, 0},
		{"the deepest of usable snapshots", []int{0}, 4, func(c *Cache) { c.put(keys, 0, 0, 1, 2); c.save(keys, 0, 1, 3) }, 2},
		{"a window where the snapshot is", []int{narrow}, 4, func(c *Cache) { c.put(keys, 0, 1, 6); c.save(keys, 1, 5) }, 2},
		{"all at once", []int{narrow, 0, wide}, 4, func(c *Cache) {
			c.put(keys, 1, 0, 1, 2, 3, 4, 5, 6)
			c.put(keys, 0, 1, 3, 6)
			c.put(keys, 2, 2, 3, 5)
			c.save(keys, 1, 3, 6)
		}, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCache(tt.windows, 32, tt.states)
			tt.fill(c)
			if got := c.Prefix(keys); got.Pages != tt.want {
				t.Errorf("%d pages, want %d", got.Pages, tt.want)
			}
			if err := c.Check(nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestForget(t *testing.T) {
	keys := Root().AppendKeys(nil, seq(0, 3*Tokens))
	c := NewCache([]int{0, Tokens}, 8, 2)
	c.put(keys, 0, 0, 1, 2)
	c.put(keys, 1, 0, 1, 2)
	c.save(keys, 0, 2)
	c.Forget(keys[1:])
	if hit := c.Prefix(keys); hit.Pages != 1 || c.Pages.Cached() != 2 || c.States.Cached() != 1 {
		t.Errorf("a hit of %d pages, %d pages and %d states cached; want 1, 2 and 1", hit.Pages, c.Pages.Cached(), c.States.Cached())
	}
	if err := c.Check(nil, nil); err != nil {
		t.Error(err)
	}
}

// user is a sequence as a scheduler runs it: its pages, of which those that its
// windows left are given back, and its state.
type user struct {
	keys   []Key
	next   int    // pages computed
	pages  [][]ID // by group, from page first on
	first  []int
	live   ID
	noLive bool // runs without a state, since there are none
}

// crowd runs users on a Cache and knows beside it what each page and state holds.
type crowd struct {
	*Cache
	content []Key // of the page when it was last registered
	saved   []Key // of the state, likewise
	users   []*user
}

// start begins a sequence with whatever is cached of it.
func (c *crowd) start(keys []Key) error {
	hit := c.Prefix(keys)
	if want := c.longest(keys); hit.Pages != want {
		return fmt.Errorf("a hit of %d pages, want %d", hit.Pages, want)
	}
	u := &user{keys: keys, next: hit.Pages, live: None, noLive: c.States.Total() == 0}
	for g, window := range c.windows {
		first := First(window, hit.Pages*Tokens)
		if len(hit.Groups[g]) != hit.Pages-first {
			return fmt.Errorf("group %d: %d pages, want %d", g, len(hit.Groups[g]), hit.Pages-first)
		}
		for i, id := range hit.Groups[g] {
			if c.content[id] != keys[first+i].In(g) {
				return fmt.Errorf("group %d: page %d found for a key it was not registered under", g, id)
			}
			c.Pages.Share(id)
		}
		u.pages = append(u.pages, slices.Clone(hit.Groups[g]))
		u.first = append(u.first, first)
	}
	switch {
	case u.noLive || hit.Pages == 0:
		if hit.State != None {
			return fmt.Errorf("state %d of nothing", hit.State)
		}
	case c.saved[hit.State] != keys[hit.Pages-1]:
		return fmt.Errorf("state %d found for a key it was not registered under", hit.State)
	}
	if !u.noLive { // pinned until the step that copies it is launched
		if hit.State != None {
			c.States.Share(hit.State)
		}
		if u.live = c.States.Alloc(0); u.live != None && u.live == hit.State {
			return fmt.Errorf("state %d was evicted while someone needed it", u.live)
		}
		if hit.State != None {
			c.States.Release([]ID{hit.State})
		}
	}
	c.users = append(c.users, u)
	if !u.noLive && u.live == None {
		c.leave(len(c.users) - 1) // it cannot run
	}
	return nil
}

// longest is Prefix by definition.
func (c *crowd) longest(keys []Key) int {
	for n := len(keys); n > 0; n-- {
		ok := c.States.Total() == 0 || c.States.Find(keys[n-1]) != None
		for g, window := range c.windows {
			for i := First(window, n*Tokens); i < n; i++ {
				ok = ok && c.Pages.Find(keys[i].In(g)) != None
			}
		}
		if ok {
			return n
		}
	}
	return 0
}

// compute lets a sequence go on by a page, unless there is none for it.
func (c *crowd) compute(u *user, snapshot bool) {
	if u.next == len(u.keys) || c.Pages.Free() < len(c.windows) {
		return
	}
	k := u.keys[u.next]
	u.next++
	for g, window := range c.windows {
		id := c.Pages.Alloc(g)
		if c.Pages.Register(id, k.In(g)) {
			c.content[id] = k.In(g)
		}
		u.pages[g] = append(u.pages[g], id)
		if left := First(window, u.next*Tokens) - u.first[g]; left > 0 {
			c.Pages.Release(u.pages[g][:left])
			u.pages[g], u.first[g] = u.pages[g][left:], u.first[g]+left
		}
	}
	if !snapshot || u.noLive {
		return
	}
	if id := c.States.Alloc(0); id != None {
		if c.States.Register(id, k) {
			c.saved[id] = k
		}
		c.States.Release([]ID{id})
	}
}

func (c *crowd) leave(i int) {
	u := c.users[i]
	for _, ids := range u.pages {
		c.Pages.Release(ids)
	}
	if u.live != None {
		c.States.Release([]ID{u.live})
	}
	c.users = slices.Delete(c.users, i, i+1)
}

func (c *crowd) check() error {
	pages, states := make([]int32, c.Pages.Total()), make([]int32, c.States.Total())
	for _, u := range c.users {
		for _, ids := range u.pages {
			for _, id := range ids {
				pages[id]++
			}
		}
		if u.live != None {
			states[u.live]++
		}
	}
	return c.Check(pages, states)
}

// TestRandomCache runs sequences that have prefixes in common, on few pages and
// states, and compares every hit with its definition.
func TestRandomCache(t *testing.T) {
	hits, cut := 0, 0
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 2))
		var windows []int
		for range rng.IntN(4) {
			windows = append(windows, []int{0, 0, 1, 2, Tokens + 2, 3 * Tokens, 1000}[rng.IntN(7)])
		}
		states := 0
		if len(windows) == 0 || rng.IntN(2) == 0 {
			states = 1 + rng.IntN(6)
		}
		c := &crowd{Cache: NewCache(windows, 4+rng.IntN(40), states)}
		c.content, c.saved = make([]Key, c.Pages.Total()), make([]Key, states)
		var prompts [][]Key
		for range 5 { // the same up to some page, then each for itself
			tokens := seq(0, 10*Tokens)
			for i := rng.IntN(len(tokens)); i < len(tokens); i++ {
				tokens[i] = rng.Int32()
			}
			prompts = append(prompts, Root().AppendKeys(nil, tokens))
		}
		for range 300 {
			switch what := rng.IntN(20); {
			case what < 3:
				before := len(c.users)
				if err := c.start(prompts[rng.IntN(len(prompts))]); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if len(c.users) > before {
					if n := c.users[before].next; n > 0 {
						hits++
					} else {
						cut++
					}
				}
			case what < 5 && len(c.users) > 0:
				c.leave(rng.IntN(len(c.users)))
			case what == 5:
				keys := prompts[rng.IntN(len(prompts))]
				c.Forget(keys[rng.IntN(len(keys)):])
			case len(c.users) > 0:
				c.compute(c.users[rng.IntN(len(c.users))], rng.IntN(3) == 0)
			}
			if err := c.check(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
	if hits < 1000 || cut < 1000 {
		t.Errorf("%d hits and %d without: too few of one to say anything", hits, cut)
	}
}

// filled returns a cache of gemma 3's shape that holds a prompt of n pages.
func filled(n int) (*Cache, []Key) {
	c := NewCache([]int{0, 1024, 1024, 1024, 1024, 1024}, 6*n, 0)
	keys := Root().AppendKeys(nil, seq(0, n*Tokens))
	for i := range keys {
		for g := range c.windows {
			c.put(keys, g, i)
		}
	}
	return c, keys
}

func TestPrefixAllocates(t *testing.T) {
	c, keys := filled(100)
	if got := testing.AllocsPerRun(100, func() { c.Prefix(keys) }); got != 0 {
		t.Errorf("%g allocations per hit", got)
	}
}

func BenchmarkPrefix(b *testing.B) {
	b.Run("one group", func(b *testing.B) {
		c := NewCache([]int{0}, 1024, 0)
		keys := Root().AppendKeys(nil, seq(0, 512*Tokens))
		cache(c.Pages, keys)
		for b.Loop() {
			c.Prefix(keys)
		}
	})
	b.Run("windows", func(b *testing.B) {
		c, keys := filled(2048)
		for b.Loop() {
			c.Prefix(keys)
		}
	})
	b.Run("windows evicted", func(b *testing.B) {
		c, keys := filled(2048)
		for i, k := range keys {
			if i%2 == 0 {
				c.Pages.Forget(c.Pages.Find(k.In(5)))
			}
		}
		for b.Loop() {
			c.Prefix(keys)
		}
	})
}
