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
	begin time.Time // zero: processStart
	attrs []any
}

// restart forgets the phases: what follows is the start of the copy of a snapshot.
func (p *phases) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begin, p.attrs = time.Now(), nil
}

// mark notes that a phase ends now.
func (p *phases) mark(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	begin := p.begin
	if begin.IsZero() {
		begin = processStart
	}
	p.attrs = append(p.attrs, name+"_ms", time.Since(begin).Milliseconds())
}

// list returns the phases for the log: names and milliseconds since the
// process, or the copy of it, began.
func (p *phases) list() []any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.attrs[:len(p.attrs):len(p.attrs)]
}
