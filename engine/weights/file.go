package weights

import (
	"os"
	"unsafe"
)

// file is one weight file: mapped, read into memory, or in a Store.
type file struct {
	name   string
	size   int64
	begin  []byte // at least the header
	data   []byte // the whole file; nil in a Store
	mapped bool
}

func inMemory(name string, data []byte) *file {
	return &file{name: name, size: int64(len(data)), begin: data, data: data}
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
