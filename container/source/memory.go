package source

import "sync"

// arena lends memory in buffers of one size. Go's collector lets as much
// garbage gather as there is memory in its heap, so this lies outside of it;
// and a fresh page costs more than what is copied into it, so the buffer last
// given back is lent first. Safe for concurrent use.
type arena struct {
	size, spare int

	mu   sync.Mutex
	free [][]byte         // at most spare
	all  map[*byte][]byte // free or lent, by their first byte
}

// newArena lends buffers of size bytes, and keeps no more than spare of them
// that are not in use.
func newArena(size, spare int) *arena {
	return &arena{size: size, spare: spare, all: map[*byte][]byte{}}
}

// get lends a buffer, until put or close.
func (a *arena) get() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if last := len(a.free) - 1; last >= 0 {
		buf := a.free[last]
		a.free = a.free[:last]
		return buf, nil
	}
	buf, err := reserve(a.size)
	if err == nil {
		a.all[&buf[0]] = buf
	}
	return buf, err
}

// lent returns how many bytes are lent.
func (a *arena) lent() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int64(len(a.all)-len(a.free)) * int64(a.size)
}

// put takes a buffer back, of whatever length it is now.
func (a *arena) put(buf []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if buf = buf[:a.size]; len(a.free) < a.spare {
		a.free = append(a.free, buf)
		return
	}
	delete(a.all, &buf[0])
	release(buf)
}

// close gives back all memory. No buffer may be used any more.
func (a *arena) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, buf := range a.all {
		release(buf)
	}
	a.all, a.free = nil, nil
}
