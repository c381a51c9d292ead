package engine

import (
	"sync/atomic"

	"github.com/millrace-ai/millrace/engine/page"
)

// CacheStats is a view of the pages of one group of caches, or of the states of
// recurrent layers.
type CacheStats struct {
	Window  int   // how many positions back the group's layers see; 0: all
	Used    int   // pages, or states, of running sequences
	Cached  int   // that a prompt may find, used or not; of states the snapshots
	Queries int64 // that prompts looked for
	Hits    int64 // of these, found where the prompt could go on from them
	Evicted int64 // that were found no more, since their place was needed
}

// add adds the numbers of another engine's group with the same window.
func (s *CacheStats) add(o *CacheStats) {
	s.Used += o.Used
	s.Cached += o.Cached
	s.Queries += o.Queries
	s.Hits += o.Hits
	s.Evicted += o.Evicted
}

// cacheCounters is CacheStats as the loop keeps it.
type cacheCounters struct {
	used, cached, queries, hits, evicted atomic.Int64
}

func (c *cacheCounters) publish(n page.Count) {
	c.used.Store(int64(n.Used))
	c.cached.Store(int64(n.Cached))
	c.evicted.Store(n.Evicted)
}

func (c *cacheCounters) stats(window int) CacheStats {
	return CacheStats{
		Window: window, Used: int(c.used.Load()), Cached: int(c.cached.Load()),
		Queries: c.queries.Load(), Hits: c.hits.Load(), Evicted: c.evicted.Load(),
	}
}

// countLookUp counts what a new sequence looked for and was found. In a group with
// a window it needs no more than the pages that its last token sees.
func (e *Engine) countLookUp(s *sequence, hit page.Hit) {
	full := (s.total - 1) / page.Tokens
	if e.cfg.NoPrefixCache || s.scoring() || full == 0 {
		return
	}
	for g, window := range e.shape.windows {
		e.stats.groups[g].queries.Add(int64(full - page.First(window, full*page.Tokens)))
		e.stats.groups[g].hits.Add(int64(len(hit.Groups[g])))
	}
	if e.shape.recurrent {
		e.stats.states.queries.Add(1)
		if hit.State != page.None {
			e.stats.states.hits.Add(1)
		}
	}
}
