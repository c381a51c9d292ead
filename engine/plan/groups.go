package plan

// groupPenalty is what a group of caches costs beside its memory, as a share of
// all elements: a page table for each slot and keys of its own in the prefix
// cache.
const groupPenalty = 0.02

// assignGroups cuts the caches of positions into groups that share pages.
//
// A page of any group has the same size, so that one pool serves them all: a page
// that a window gives back may go to a cache without one (vLLM's hybrid KV cache
// manager). The caches of a group have one spec, and with it one window. A group
// that takes fewer elements of a token than the largest is padded. Whichever page
// size wastes least, groups having a small price of their own, is chosen from the
// multiples of each spec's elements; the caches of a spec are then spread evenly.
// Caches of one spec alone are one group without padding.
func assignGroups(p *Plan) {
	type spec struct {
		Cache          // without Group
		elements int   // of a token in one cache
		caches   []int // in order
	}
	var specs []*spec
	bySpec := map[Cache]*spec{}
	total, largest := 0, 0
	for i, c := range p.Caches {
		if c.Kind == CacheState {
			p.Caches[i].Group = None
			continue
		}
		c.Group = 0
		s := bySpec[c]
		if s == nil {
			s = &spec{Cache: c, elements: c.Elements()}
			bySpec[c] = s
			specs = append(specs, s)
		}
		s.caches = append(s.caches, i)
		total += s.elements
		largest = max(largest, s.elements)
	}

	best, bestCost := 0, 0.0
	for _, s := range specs {
		for n := range s.caches {
			page := (n + 1) * s.elements
			if page < largest {
				continue
			}
			groups := 0
			for _, s := range specs {
				groups += cuts(len(s.caches), page/s.elements)
			}
			cost := float64(groups)*float64(page) + float64(groups)*groupPenalty*float64(total)
			if best == 0 || cost < bestCost {
				best, bestCost = page, cost
			}
		}
	}
	p.Groups = nil
	for _, s := range specs {
		n := cuts(len(s.caches), best/s.elements)
		for i, c := range s.caches {
			p.Caches[c].Group = int32(len(p.Groups) + i*n/len(s.caches))
		}
		for range n {
			p.Groups = append(p.Groups, Group{Window: s.Window})
		}
	}
}

// cuts is the number of groups of at most size that n caches need.
func cuts(n, size int) int { return (n + size - 1) / size }
