package weights

import (
	"os"
	"unsafe"
)

// file is the bytes of one weight file: mapped, or read into memory.
type file struct {
	name   string
	data   []byte
	mapped bool
}

// release gives the whole pages of part back to the system, if part lies in
// a mapped file.
func release(files []*file, part []byte) {
	if len(part) == 0 {
		return
	}
	page := uintptr(os.Getpagesize())
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(part)))
	for _, f := range files {
		if !f.mapped {
			continue
		}
		base := uintptr(unsafe.Pointer(unsafe.SliceData(f.data))) // page aligned
		if begin < base || begin+uintptr(len(part)) > base+uintptr(len(f.data)) {
			continue
		}
		first := (begin - base + page - 1) / page * page
		end := (begin - base + uintptr(len(part))) / page * page
		if first < end {
			drop(f.data[first:end])
		}
		return
	}
}
