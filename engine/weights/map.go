package weights

import (
	"fmt"
	"sync"
)

// Mapping is a part of a weight file in memory that is the kernel's cache of the file.
// Whoever shortens the file meanwhile ends this process.
type Mapping struct {
	mu   sync.Mutex
	all  []byte // whole pages; nil once closed
	data []byte
}

// Map maps bytes of an open file of a folder, to be read only. It fails if they are in
// memory, or come through a Store, or if the file system does not map files.
func (c *Checkpoint) Map(name string, offset, length int64) (*Mapping, error) {
	f := c.file(name)
	if f == nil || offset < 0 || length <= 0 || offset > f.size-length {
		return nil, fmt.Errorf("%s: %d bytes from byte %d on are not in the checkpoint", name, length, offset)
	}
	if f.opened == nil {
		return nil, fmt.Errorf("%s: not a file of a folder", name)
	}
	// A mapping past the end of the file would be one, too.
	info, err := f.opened.Stat()
	if err == nil && info.Size() < offset+length {
		err = fmt.Errorf("the file shrank: it had %d bytes, now %d", f.size, info.Size())
	}
	m := &Mapping{}
	if err == nil {
		m.all, m.data, err = mapFile(f.opened, offset, int(length))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, reason(err))
	}
	return m, nil
}

// Bytes are valid until Close.
func (m *Mapping) Bytes() []byte { return m.data }

// Close ends the mapping.
func (m *Mapping) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	unmap(m.all)
	m.all, m.data = nil, nil
}

// populateStep is how much is brought into memory at once: Close waits for it.
const populateStep = 8 << 20

// Populate brings mappings into memory, one after the other, so that whoever computes
// with them finds them there. It returns when all of them are there or closed.
func Populate(list []*Mapping) {
	// What is not cached is asked of the disk some steps ahead.
	type step struct {
		of       *Mapping
		from, to int
	}
	var steps []step
	for _, m := range list {
		m.mu.Lock()
		for at := 0; at < len(m.all); at += populateStep {
			steps = append(steps, step{m, at, min(at+populateStep, len(m.all))})
		}
		m.mu.Unlock()
	}
	const ahead = 4
	advise := func(i int, advice func([]byte)) {
		if i >= len(steps) {
			return
		}
		s := steps[i]
		s.of.mu.Lock()
		defer s.of.mu.Unlock()
		if s.of.all != nil {
			advice(s.of.all[s.from:s.to])
		}
	}
	for i := range min(ahead, len(steps)) {
		advise(i, willNeed)
	}
	for i := range steps {
		advise(i+ahead, willNeed)
		advise(i, populate)
	}
}
