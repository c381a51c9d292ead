package source

import (
	"os"
	"syscall"
)

// reserve returns n bytes that take memory only as they are written.
func reserve(n int64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	return syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
}

// discard gives back the whole pages of memory from byte from to byte to, as
// far as reserve made it; their content is lost.
func discard(memory []byte, from, to int64) {
	page := int64(os.Getpagesize())
	from, to = (from+page-1)/page*page, to/page*page
	if from < to {
		// Advice only: without it more is resident, nothing is wrong.
		_ = syscall.Madvise(memory[from:to], syscall.MADV_DONTNEED)
	}
}

// free gives back what reserve returned.
func free(memory []byte) {
	if memory != nil {
		_ = syscall.Munmap(memory)
	}
}
