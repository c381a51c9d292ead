package weights

import (
	"fmt"
	"os"
)

// file is one weight file: open, in memory, or in a Store.
type file struct {
	name   string
	size   int64
	data   []byte   // the whole file, if it is in memory
	opened *os.File // nil: in memory or in a Store
	store  Store    // that it is in, or nil
}

func inMemory(name string, data []byte) *file {
	return &file{name: name, size: int64(len(data)), data: data}
}

// readAt fills p with the bytes from offset on, which the file has.
func (f *file) readAt(p []byte, offset int64) error {
	if f.store != nil {
		return f.store.ReadAt(f.name, p, offset)
	}
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
	f.data, f.opened = nil, nil
	if opened == nil {
		return nil
	}
	if err := opened.Close(); err != nil {
		return fmt.Errorf("%s: %w", f.name, reason(err))
	}
	return nil
}
