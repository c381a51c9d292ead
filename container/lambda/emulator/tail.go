package emulator

import (
	"io"
	"sync"
)

// tail passes a log on and keeps the end of what is written during an event,
// which a caller of Invoke may ask for.
type tail struct {
	out io.Writer

	mu   sync.Mutex
	kept []byte
}

// tailLimit is how much of the log Lambda returns, in bytes.
const tailLimit = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-tailLimit):]
	t.mu.Unlock()
	return t.out.Write(p)
}

// begin forgets what was written before an event.
func (t *tail) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = t.kept[:0]
}

// text returns what is kept.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
