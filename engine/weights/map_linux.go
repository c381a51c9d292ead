package weights

import (
	"fmt"
	"os"
	"syscall"
)

// mapFile maps the file at path, called name in messages, for reading once
// from front to back.
func mapFile(path, name string) (*file, error) {
	opened, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, reason(err))
	}
	defer opened.Close() // the mapping outlives the descriptor
	info, err := opened.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, reason(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	size := info.Size()
	if size == 0 {
		return inMemory(name, nil), nil // mmap refuses a length of 0; parse says what is wrong
	}
	if size != int64(int(size)) {
		return nil, fmt.Errorf("%s: %d bytes are too many to map", name, size)
	}
	data, err := syscall.Mmap(int(opened.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be mapped: %w", name, err)
	}
	// Advice only: without it reading is slower, not wrong.
	_ = syscall.Madvise(data, syscall.MADV_SEQUENTIAL)
	f := inMemory(name, data)
	f.mapped = true
	return f, nil
}

// drop lets the page cache alone keep whole pages of a mapping.
func drop(pages []byte) { _ = syscall.Madvise(pages, syscall.MADV_DONTNEED) }

func (f *file) close() error {
	data := f.data
	f.data, f.begin = nil, nil
	if !f.mapped {
		return nil
	}
	f.mapped = false
	return syscall.Munmap(data)
}
