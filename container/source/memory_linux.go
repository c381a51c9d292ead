package source

import (
	"fmt"
	"syscall"
)

// reserve returns n bytes that take memory only as they are written.
func reserve(n int) ([]byte, error) {
	memory, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("%d bytes of memory: %w", n, err)
	}
	return memory, nil
}

// release gives back what reserve returned.
func release(memory []byte) { _ = syscall.Munmap(memory) }
