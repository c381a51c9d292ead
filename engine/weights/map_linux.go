package weights

import (
	"os"
	"syscall"
)

// mapFile returns the pages that bytes of a file lie in, and those bytes.
func mapFile(f *os.File, offset int64, length int) (all, data []byte, err error) {
	before := int(offset % int64(os.Getpagesize()))
	all, err = syscall.Mmap(int(f.Fd()), offset-int64(before), before+length, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	return all, all[before:], nil
}

func unmap(all []byte) {
	if all != nil {
		_ = syscall.Munmap(all) // cannot fail for what Mmap returned
	}
}

// willNeed and populate are advice: without it, or where the kernel is too old for
// it, pages come as they are touched.
func willNeed(pages []byte) { _ = syscall.Madvise(pages, syscall.MADV_WILLNEED) }
func populate(pages []byte) {
	const madvPopulateRead = 22 // Linux 5.14
	_ = syscall.Madvise(pages, madvPopulateRead)
}
