package main

import (
	"fmt"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/engine/device"
)

const (
	defaultSlots = 64
	defaultBatch = 512       // tokens of a step the device has room for
	usualLength  = 2048      // tokens of a sequence, on average, that the cache is made for
	scoredRows   = 64        // rows of a step beside those that sample, for scoring prompts
	groupShare   = 0.9       // of a control group's or function's free memory: it is there for us
	machineShare = 0.5       // of a machine's: others live there, too
	headroom     = 128 << 20 // bytes that requests on their way take beside the cache
)

// sizing is what a server is made for: the flags, checked against the model.
type sizing struct {
	cfg    *config.Serve
	total  int           // longest sequence: --max-total-tokens, or the model's
	device device.Limits // what the backend is opened with
}

// newSizing checks the flags for a model that knows maxPos positions.
func newSizing(cfg *config.Serve, maxPos int) (*sizing, error) {
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
	return &sizing{cfg: cfg, total: total, device: device.Limits{
		MaxTokens:       orDefault(cfg.MaxBatchPrefillTokens, max(defaultBatch, slots)),
		MaxRows:         slots + scoredRows,
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
	pages              int // of the key-value cache
	maxTotal, maxInput int // tokens of a request
}

// fit divides the memory that is free once the weights are loaded, by what
// bounds it. pageBytes is the size of a KV page, 0 if pages take none.
func (s *sizing) fit(pageBytes, free int64, bound string) (budget, error) {
	noRoom := func(what string, pages int) error {
		return fmt.Errorf("not enough memory to handle %s: it takes %s beside %s for requests on their way, the %s has %s left", what, size(int64(pages)*pageBytes), size(headroom), bound, size(free))
	}
	usable := free - headroom
	share := machineShare
	if bound == boundGroup || bound == boundFunction {
		share = groupShare
	}
	room := 1 << 30 // pages; more than any device has
	if pageBytes > 0 {
		room = int(max(0, min(usable, int64(float64(free)*share))) / pageBytes)
	}

	longest := s.device.MaxPagesPerSlot
	pages := min(room, max(longest, s.device.MaxSlots*min(longest, pagesFor(usualLength))))
	if given := s.cfg.MaxBatchTotalTokens; given > 0 {
		pages = pagesFor(given)
		if int64(pages)*pageBytes > usable {
			return budget{}, noRoom(fmt.Sprintf("`max_batch_total_tokens=%d`", given), pages)
		}
	} else if s.cfg.MaxTotalTokens > 0 && pages < longest {
		return budget{}, noRoom(fmt.Sprintf("`max_total_tokens=%d`", s.cfg.MaxTotalTokens), longest)
	} else if pages == 0 {
		return budget{}, noRoom("one page of the key-value cache", 1)
	}

	b := budget{pages: pages, maxTotal: min(s.total, pages*device.PageTokens)}
	b.maxInput = orDefault(s.cfg.MaxInputTokens, b.maxTotal-1)
	if b.maxInput >= b.maxTotal {
		return budget{}, fmt.Errorf("`max_input_tokens` must be < `max_total_tokens`. Given: %d and %d (what the memory allows)", b.maxInput, b.maxTotal)
	}
	return b, nil
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
