// Package native is the Go side of Millrace's Rust library: tokenizers and
// chat templates behind the C ABI of millrace_native.h.
//
// The library is one archive, build/native/libtokenizers.a, made by
// `make native` from this folder. It carries three sets of functions:
// daulet/tokenizers' own (for its Go package), llguidance's, and the mr_* ones
// bound here. Two archives would not do: each Rust archive brings a runtime of
// its own, and two of them do not link.
//
// Every function copies what it returns into Go memory and reports errors as
// the library worded them. Callers outside engine/token want engine/token:
// here a tokenizer is a bare handle that nothing protects from use after free.
package native

/*
#cgo CFLAGS: -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
#cgo LDFLAGS: -L${SRCDIR}/../../build/native -ltokenizers -ldl -lm
#cgo linux LDFLAGS: -Wl,-z,relro -Wl,-z,now
#include "millrace_native.h"
*/
import "C"

import (
	"errors"
	"unsafe"
)

// ErrTooLong says that a result would be longer than the caller allows.
var ErrTooLong = errors.New("the result is too long")

// A LimitError is an input that asks for more than any input may have.
type LimitError struct{ Reason string }

func (e *LimitError) Error() string { return e.Reason }

// fault is the error of a failed result, which is not freed yet.
func fault(r C.mr_result) error {
	reason := string(unsafe.Slice((*byte)(r.data), r.len))
	switch r.failed {
	case C.MR_TOO_LONG:
		return ErrTooLong
	case C.MR_LIMIT:
		return &LimitError{reason}
	}
	return errors.New(reason)
}

// take copies a result into Go memory and frees it.
func take(r C.mr_result) ([]byte, error) {
	defer C.mr_free(r.data, r.len)
	if r.failed != 0 {
		return nil, fault(r)
	}
	b := make([]byte, r.len)
	copy(b, unsafe.Slice((*byte)(r.data), r.len))
	return b, nil
}

// takeString is take for a text.
func takeString(r C.mr_result) (string, error) {
	defer C.mr_free(r.data, r.len)
	if r.failed != 0 {
		return "", fault(r)
	}
	return string(unsafe.Slice((*byte)(r.data), r.len)), nil
}

// takeArray is take for an array of T, which must have no pointers and the layout that the header gives.
func takeArray[T any](r C.mr_result) ([]T, error) {
	if r.failed != 0 {
		_, err := take(r)
		return nil, err
	}
	defer C.mr_free(r.data, r.len)
	n := int(r.len) / int(unsafe.Sizeof(*new(T)))
	s := make([]T, n)
	copy(s, unsafe.Slice((*T)(r.data), n))
	return s, nil
}

// takeObject returns the object of a result.
func takeObject(r C.mr_result) (unsafe.Pointer, error) {
	if r.failed != 0 {
		_, err := take(r)
		return nil, err
	}
	return r.data, nil
}

func text(s string) (*C.uint8_t, C.size_t) {
	return (*C.uint8_t)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))
}

func raw(b []byte) (*C.uint8_t, C.size_t) {
	return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b))), C.size_t(len(b))
}
