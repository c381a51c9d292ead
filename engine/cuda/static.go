//go:build static

package cuda

import (
	"errors"
	"unsafe"
)

type library struct{ backend unsafe.Pointer }

// A program without a dynamic loader, as in the image for CPUs, opens no library.
func open(string) (*library, error) {
	return nil, errors.New("this program is linked statically and cannot open the CUDA backend")
}

func (*library) free(int) (free, total int64) { return 0, 0 }

func (*library) table(int, int, int) unsafe.Pointer { return nil }

func (*library) group() func() { return func() {} }

func (*library) measure() (bytes, operations float64) { return 0, 0 }
