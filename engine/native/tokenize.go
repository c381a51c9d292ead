package native

/*
#include <stdint.h>
#include <stddef.h>
*/
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// millraceTokenize is what the library calls to tokenize forced bytes; user is
// the cgo.Handle of a TokenTrie's function.
//
//export millraceTokenize
func millraceTokenize(user C.uintptr_t, text *C.uint8_t, n C.size_t, out *C.uint32_t, outLen C.size_t) C.size_t {
	tokenize := cgo.Handle(user).Value().(func([]byte) []int32)
	ids := tokenize(unsafe.Slice((*byte)(unsafe.Pointer(text)), int(n)))
	copy(unsafe.Slice((*int32)(unsafe.Pointer(out)), int(outLen)), ids)
	return C.size_t(len(ids))
}
