package page

import "fmt"

// ID numbers a page, or a state, 0 … Total-1.
type ID int32

// None stands for no page.
const None ID = -1

// Pool is the account of a fixed number of pages, or of states (Cache).
type Pool struct {
	refs []int32 // how many sequences use the page
	keys []Key   // of the pages that have one
	has  []bool  // the page has a Key: it is in the index

	groups []uint16 // of each page, the group that took it last
	counts []Count  // by group

	// The free list: a ring of links through the unreferenced pages. Its
	// last element, number Total, is the head: next is the first to evict.
	next, prev []ID
	free       int

	index  index
	cached int // pages with a Key
}

// Count is what a group has of a pool.
type Count struct {
	Used    int   // pages that sequences use
	Cached  int   // pages that Find can find, used or not
	Evicted int64 // pages that were cached and then taken for something else
}

// New returns a pool of total pages, all empty, for one group.
func New(total int) *Pool { return newPool(total, 1) }

func newPool(total, groups int) *Pool {
	p := &Pool{
		refs:   make([]int32, total),
		keys:   make([]Key, total),
		has:    make([]bool, total),
		groups: make([]uint16, total),
		counts: make([]Count, max(1, groups)),
		next:   make([]ID, total+1),
		prev:   make([]ID, total+1),
		index:  newIndex(total),
	}
	head := p.head()
	p.next[head], p.prev[head] = head, head
	for id := range ID(total) {
		p.pushBack(id)
	}
	return p
}

// Total returns the number of pages.
func (p *Pool) Total() int { return len(p.refs) }

// Free returns how many pages Alloc can give; cached ones are among them.
func (p *Pool) Free() int { return p.free }

// Cached returns how many pages, used or not, Find can find.
func (p *Pool) Cached() int { return p.cached }

// Count returns what a group has.
func (p *Pool) Count(group int) Count { return p.counts[group] }

// Used reports whether a sequence references the page.
func (p *Pool) Used(id ID) bool { return p.refs[id] > 0 }

// Shared reports whether several sequences reference the page.
func (p *Pool) Shared(id ID) bool { return p.refs[id] > 1 }

// Writable reports whether the page's one owner may write it.
func (p *Pool) Writable(id ID) bool { return p.refs[id] == 1 && !p.has[id] }

// Alloc takes a page of a group for one sequence, forgetting what it may have
// cached. It returns None if all are used.
func (p *Pool) Alloc(group int) ID {
	id := p.next[p.head()]
	if id == p.head() {
		return None
	}
	p.unlink(id)
	if p.has[id] {
		p.counts[p.groups[id]].Evicted++
	}
	p.Forget(id)
	p.refs[id], p.groups[id] = 1, uint16(group)
	p.counts[group].Used++
	return id
}

// Share adds a reference to a page that is used or cached.
func (p *Pool) Share(id ID) {
	if p.refs[id] == 0 {
		p.unlink(id)
		p.counts[p.groups[id]].Used++
	}
	p.refs[id]++
}

// Release takes one reference from each page of a sequence, given in order of
// position; what nobody uses any more joins the free list.
func (p *Pool) Release(ids []ID) {
	for i := len(ids) - 1; i >= 0; i-- {
		id := ids[i]
		if p.refs[id]--; p.refs[id] == 0 {
			p.counts[p.groups[id]].Used--
		}
		switch {
		case p.refs[id] > 0:
		case p.refs[id] < 0:
			panic(fmt.Sprintf("page: page %d released more often than taken", id))
		case p.has[id]:
			p.pushBack(id)
		default:
			p.pushFront(id)
		}
	}
}

// Register makes a used page findable, and read-only, under the key of its
// content. It reports false, and does nothing, if the page has a key or the
// content is cached in another page already.
func (p *Pool) Register(id ID, k Key) bool {
	if p.has[id] || p.index.find(p.keys, &k) != None {
		return false
	}
	p.keys[id], p.has[id] = k, true
	p.index.insert(id, &k)
	p.cached++
	p.counts[p.groups[id]].Cached++
	return true
}

// Forget takes a page's key away, because the content turned out bad or the
// page is needed. Whoever uses the page keeps it. id may be None.
func (p *Pool) Forget(id ID) {
	if id == None || !p.has[id] {
		return
	}
	p.index.remove(id, &p.keys[id])
	p.has[id] = false
	p.cached--
	p.counts[p.groups[id]].Cached--
	if p.refs[id] == 0 && p.prev[id] != None {
		p.unlink(id)
		p.pushFront(id)
	}
}

// Find returns the page registered under k, or None. It takes no reference:
// Share it before the next Alloc.
func (p *Pool) Find(k Key) ID { return p.index.find(p.keys, &k) }

// appendPrefix appends to dst the pages of a group that hold the longest cached
// prefix of keys.
func (p *Pool) appendPrefix(dst []ID, keys []Key, group int) []ID {
	for i := range keys {
		k := &keys[i]
		if group > 0 {
			in := k.In(group)
			k = &in
		}
		id := p.index.find(p.keys, k)
		if id == None {
			break
		}
		dst = append(dst, id)
	}
	return dst
}

func (p *Pool) head() ID { return ID(len(p.refs)) }

func (p *Pool) pushBack(id ID)  { p.link(id, p.prev[p.head()], p.head()) }
func (p *Pool) pushFront(id ID) { p.link(id, p.head(), p.next[p.head()]) }

func (p *Pool) link(id, before, after ID) {
	p.prev[id], p.next[id] = before, after
	p.next[before], p.prev[after] = id, id
	p.free++
}

func (p *Pool) unlink(id ID) {
	p.next[p.prev[id]], p.prev[p.next[id]] = p.next[id], p.prev[id]
	p.next[id], p.prev[id] = None, None
	p.free--
}
