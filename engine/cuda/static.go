//go:build static

package cuda

import (
	"errors"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
)

type library struct{ backend unsafe.Pointer }

// A program without a dynamic loader, as in the image for CPUs, opens no library.
func open(string) (*library, error) {
	return nil, errors.New("this program is linked statically and cannot open the CUDA backend")
}

func (*library) free(int) (free, total int64) { return 0, 0 }

func (*library) table(int, int, int) unsafe.Pointer { return nil }

func (*library) group() func() { return func() {} }

func (*library) tensorConvert(unsafe.Pointer, device.Handle, plan.Format, int, int, []byte) int32 {
	return 0
}

func (*library) measure() (bytes, operations float64) { return 0, 0 }
