package weights

import (
	"fmt"
	"os"
)

// file is one weight file: open, in memory, or in a Store.
type file struct {
	name   string
	size   int64
	begin  []byte   // at least the header
	data   []byte   // the whole file, if it is in memory
	opened *os.File // nil: in memory or in a Store
}

func inMemory(name string, data []byte) *file {
	return &file{name: name, size: int64(len(data)), begin: data, data: data}
}

// readAt fills p with the bytes from offset on, which a file in memory or an
// open one has.
func (f *file) readAt(p []byte, offset int64) error {
	if f.opened == nil {
		copy(p, f.data[offset:])
		return nil
	}
	if _, err := f.opened.ReadAt(p, offset); err != nil {
		return f.shrunk(err)
	}
	return nil
}

func (f *file) close() error {
	opened := f.opened
	f.data, f.begin, f.opened = nil, nil, nil
	if opened == nil {
		return nil
	}
	if err := opened.Close(); err != nil {
		return fmt.Errorf("%s: %w", f.name, reason(err))
	}
	return nil
}
