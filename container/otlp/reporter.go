package otlp

import (
	"log/slog"
	"sync"
	"time"
)

// reporter logs failures to send spans, at most one a minute.
type reporter struct {
	log  *slog.Logger
	mu   sync.Mutex
	last time.Time
}

func newReporter(log *slog.Logger) *reporter { return &reporter{log: log} }

func (r *reporter) report(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.last) >= time.Minute {
		r.last = now
		r.log.Warn("traces are not sent", "err", err)
	}
}
