package main

import (
	"sync"
	"time"
)

// processStart is when this process began, but for what comes before main.
var processStart = time.Now()

// phases are the moments of a start, each noted once.
type phases struct {
	mu    sync.Mutex
	attrs []any
}

// mark notes that a phase ends now.
func (p *phases) mark(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attrs = append(p.attrs, name+"_ms", time.Since(processStart).Milliseconds())
}

// list returns the phases for the log: names and milliseconds since the
// process began.
func (p *phases) list() []any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.attrs[:len(p.attrs):len(p.attrs)]
}
