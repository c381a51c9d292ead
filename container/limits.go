package main

import (
	"fmt"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/handler"
)

const (
	defaultSlots = 64
	defaultBatch = 512       // tokens of a step the device has room for
	usualLength  = 2048      // tokens of a sequence, on average, that the cache is made for
	groupShare   = 0.9       // of a control group's or function's free memory: it is there for us
	machineShare = 0.5       // of a machine's: others live there, too
	addressShare = 0.25      // of an address space: each thread takes some that it does not use
	engineBytes  = 64 << 20  // what the engine may hold for requests beside the caches
	otherBytes   = 16 << 20  // connections, buffers between requests, garbage
	gpuBytes     = 256 << 20 // of a GPU, what its driver may come to need
	snapshots    = 2         // states kept for a prompt to start from, for each slot
	stateShare   = 0.5       // of the cache's memory that states may take beside pages
)

// sizing is what a server is made for: the flags, checked against the model.
type sizing struct {
	cfg    *config.Serve
	total  int           // longest sequence: --max-total-tokens, or the model's
	groups []plan.Group  // of the model's caches
	device device.Limits // what the backend is opened with
	images bool          // the model reads images
}

// cacheFormats are those of the values of --kv-cache-dtype.
var cacheFormats = map[string]plan.Format{"auto": plan.F32, "f16": plan.F16, "int8": plan.CacheW8}

// newSizing checks the flags for the model of plan p.
func newSizing(cfg *config.Serve, p *plan.Plan) (*sizing, error) {
	maxPos := p.MaxPos
	total := cfg.MaxTotalTokens
	if total > maxPos {
		return nil, fmt.Errorf("`max_total_tokens` must be <= the model's longest sequence. Given: %d and %d", total, maxPos)
	}
	if total == 0 {
		total = maxPos
	}
	if cfg.MaxInputTokens >= total {
		return nil, fmt.Errorf("`max_input_tokens` must be < `max_total_tokens`. Given: %d and %d", cfg.MaxInputTokens, total)
	}
	if most := cfg.MaxBatchTotalTokens; most > 0 {
		if cfg.MaxTotalTokens > most {
			return nil, fmt.Errorf("`max_total_tokens` must be <= `max_batch_total_tokens`. Given: %d and %d", cfg.MaxTotalTokens, most)
		}
		if cfg.MaxBatchPrefillTokens > most {
			return nil, fmt.Errorf("`max_batch_prefill_tokens` must be <= `max_batch_total_tokens`. Given: %d and %d", cfg.MaxBatchPrefillTokens, most)
		}
	}
	slots := slotsOf(cfg)
	tokens := orDefault(cfg.MaxBatchPrefillTokens, max(defaultBatch, slots))
	return &sizing{cfg: cfg, total: total, groups: p.Groups, device: device.Limits{
		MaxTokens:       tokens,
		MaxRows:         max(tokens, slots), // a prompt may be scored: a row for each token
		MaxSlots:        slots,
		MaxPagesPerSlot: pagesFor(total),
		Threads:         cfg.Threads,
	}}, nil
}

// slotsOf is how many requests are computed together.
func slotsOf(cfg *config.Serve) int {
	return orDefault(cfg.MaxBatchSize, min(defaultSlots, cfg.MaxConcurrentRequests))
}

// budget is what the memory allows.
type budget struct {
	pages              int // of the caches of keys and values
	states             int // of recurrent layers, those of running requests and snapshots
	maxTotal, maxInput int // tokens of a request
}

// requestMemory is what all requests together may hold in the API (bodies,
// prompts, answers, and what tokenizing takes) if so much memory is free: what
// they should have, but no more than an eighth.
func (s *sizing) requestMemory(free int64) int64 {
	const least = 32 << 20
	return max(least, min(handler.RequestMemory(s.total, s.cfg.PayloadLimit), free/8))
}

// grammarMemory is what all grammars together may take if so much memory is
// free, also while they are compiled.
func (s *sizing) grammarMemory(free int64) int64 {
	const least = 16 << 20
	if s.cfg.DisableGrammarSupport {
		return 0
	}
	return max(least, min(grammar.DefaultMemory, free/8))
}

// draftMemory is what drafts take.
func (s *sizing) draftMemory() int64 {
	if s.cfg.Speculate == 0 {
		return 0
	}
	return int64(s.device.MaxSlots) * engine.DrafterBytes(s.total)
}

// fit divides the memory that is free once the weights are loaded, by what
// bounds it. info has the bytes of a page and of a state, 0 if the model has
// none.
func (s *sizing) fit(info device.ModelInfo, free int64, bound string) (budget, error) {
	headroom := engineBytes + otherBytes + s.requestMemory(free) + s.grammarMemory(free) + s.adapterMemory(free) + s.draftMemory() + 2*s.imageMemory(free)
	share, use := machineShare, "for requests on their way"
	switch bound {
	case boundGPU: // requests wait in the host's memory
		share, use = 1, "that are kept free"
		headroom = gpuBytes + s.adapterMemory(free)
	case boundGroup, boundFunction:
		share = groupShare
	case boundAddress:
		share = addressShare
	}
	usable := free - headroom
	noRoom := func(what string, bytes int64) error {
		hint := ""
		if fit := max(0, usable) / max(1, info.PageBytes); info.PageBytes > 0 && fit > 0 {
			hint = fmt.Sprintf("; a cache of %d tokens fits, a larger one with --quantize int8 or --kv-cache-dtype int8", s.tokens(int(fit)))
		}
		return fmt.Errorf("not enough memory to handle %s: it takes %s beside %s %s, the %s has %s left%s", what, size(bytes), size(headroom), use, bound, size(free), hint)
	}
	room := max(0, min(usable, int64(float64(free)*share))) // bytes
	var b budget
	if info.StateBytes > 0 {
		states := room
		if info.PageBytes > 0 {
			states = int64(float64(room) * stateShare)
		}
		b.states = int(min(int64(s.device.MaxSlots*(1+snapshots)), states/info.StateBytes))
		if b.states == 0 {
			return budget{}, noRoom("one state of the model's recurrent layers", info.StateBytes)
		}
		room -= int64(b.states) * info.StateBytes
		usable -= int64(b.states) * info.StateBytes
	}

	most := 1 << 30 // pages; more than any device has
	if info.PageBytes > 0 {
		most = int(room / info.PageBytes)
	}
	longest := s.pages(s.total)
	usual := min(longest, s.pages(usualLength))
	if bound == boundGPU { // nothing else takes it
		usual = longest
	}
	b.pages = min(most, max(longest, s.device.MaxSlots*usual))
	if given := s.cfg.MaxBatchTotalTokens; given > 0 {
		b.pages = s.pages(given)
		if int64(b.pages)*info.PageBytes > usable {
			return budget{}, noRoom(fmt.Sprintf("`max_batch_total_tokens=%d`", given), int64(b.pages)*info.PageBytes)
		}
	} else if s.cfg.MaxTotalTokens > 0 && b.pages < longest {
		return budget{}, noRoom(fmt.Sprintf("`max_total_tokens=%d`", s.cfg.MaxTotalTokens), int64(longest)*info.PageBytes)
	} else if least := s.pages(1); b.pages < least {
		return budget{}, noRoom("one page of the key-value cache", int64(least)*info.PageBytes)
	}

	b.maxTotal = min(s.total, engine.TokensFor(s.groups, b.pages, s.device.MaxPagesPerSlot))
	b.maxInput = orDefault(s.cfg.MaxInputTokens, b.maxTotal-1)
	if b.maxInput >= b.maxTotal {
		return budget{}, fmt.Errorf("`max_input_tokens` must be < `max_total_tokens`. Given: %d and %d (what the memory allows)", b.maxInput, b.maxTotal)
	}
	return b, nil
}

// pages is how many pages, of all groups, a request of so many tokens holds.
func (s *sizing) pages(tokens int) int { return engine.PagesFor(s.groups, tokens) }

// tokens is how many tokens of long requests so many pages hold.
func (s *sizing) tokens(pages int) int {
	if len(s.groups) == 0 {
		return s.total
	}
	return int(int64(pages) * int64(pagesFor(s.total)*device.PageTokens) / int64(s.pages(s.total)))
}

func pagesFor(tokens int) int { return (tokens + device.PageTokens - 1) / device.PageTokens }

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

// size writes bytes for people.
func size(bytes int64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d KiB", (bytes+1023)>>10)
}
