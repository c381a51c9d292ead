package page

import "fmt"

// Check verifies the account against itself and against its users: uses is
// how many references each page should have (nil skips that part). It is for
// tests; it walks everything.
func (p *Pool) Check(uses []int32) error {
	onList := make([]bool, p.Total())
	length := 0
	for at, id := p.head(), p.next[p.head()]; id != p.head(); at, id = id, p.next[id] {
		switch {
		case p.prev[id] != at:
			return fmt.Errorf("free list: page %d follows %d but points back to %d", id, at, p.prev[id])
		case onList[id]:
			return fmt.Errorf("free list: page %d is on it twice", id)
		case p.refs[id] != 0:
			return fmt.Errorf("page %d is on the free list with %d references", id, p.refs[id])
		}
		onList[id] = true
		length++
	}
	if length != p.free {
		return fmt.Errorf("free list holds %d pages, counted %d", length, p.free)
	}

	cached, counts := 0, make([]Count, len(p.counts))
	for id := range ID(p.Total()) {
		switch {
		case p.refs[id] < 0:
			return fmt.Errorf("page %d has %d references", id, p.refs[id])
		case p.refs[id] == 0 && !onList[id]:
			return fmt.Errorf("page %d is lost: no references and not on the free list", id)
		case uses != nil && uses[id] != p.refs[id]:
			return fmt.Errorf("page %d has %d references, sequences hold %d", id, p.refs[id], uses[id])
		}
		if p.refs[id] > 0 {
			counts[p.groups[id]].Used++
		}
		if p.has[id] {
			cached++
			counts[p.groups[id]].Cached++
			if found := p.index.find(p.keys, &p.keys[id]); found != id {
				return fmt.Errorf("page %d is cached, but its key finds %d", id, found)
			}
		}
	}
	if cached != p.cached {
		return fmt.Errorf("%d pages have keys, counted %d", cached, p.cached)
	}
	for g, c := range counts {
		if c.Used != p.counts[g].Used || c.Cached != p.counts[g].Cached {
			return fmt.Errorf("group %d uses %d pages and has %d cached, counted %+v", g, c.Used, c.Cached, p.counts[g])
		}
	}
	return p.index.check(p.has)
}

// check verifies that the table holds the pages with keys, each once.
func (x *index) check(has []bool) error {
	seen := make([]bool, len(has))
	for _, id := range x.heads {
		for ; id != None; id = x.chain[id] {
			if !has[id] {
				return fmt.Errorf("index holds page %d, which has no key", id)
			}
			if seen[id] {
				return fmt.Errorf("index holds page %d twice", id)
			}
			seen[id] = true
		}
	}
	for id, keyed := range has {
		if keyed && !seen[id] {
			return fmt.Errorf("page %d has a key the index lacks", id)
		}
	}
	return nil
}
