package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// maxHeader bounds what is in front of the tensors. Vocabularies of 262,144 tokens
// take some ten megabytes.
const maxHeader = 256 << 20

// Reads of the header grow from the first to the last of these: many are short, and
// each may be a request to a server.
const (
	firstRead = 128 << 10
	mostRead  = 8 << 20
)

// reader reads a header from front to back.
type reader struct {
	readAt func(p []byte, offset int64) error
	size   int64 // of the file
	buf    []byte
	offset int64 // in the file, of what follows buf
	next   int   // bytes to read at once
}

// at is where the next byte comes from.
func (r *reader) at() int64 { return r.offset - int64(len(r.buf)) }

// bytes returns the next n bytes, valid until the next call.
func (r *reader) bytes(n uint64) ([]byte, error) {
	switch left := uint64(r.size - r.at()); {
	case n > left:
		return nil, fmt.Errorf("truncated: %d bytes are needed at byte %d, found %d", n, r.at(), left)
	case uint64(r.at())+n > maxHeader:
		return nil, fmt.Errorf("a header of more than %d MB", maxHeader>>20)
	}
	if need := int(n) - len(r.buf); need > 0 {
		more := min(max(need, r.next), int(r.size-r.offset))
		r.next = min(2*r.next, mostRead)
		buf := make([]byte, len(r.buf)+more)
		copy(buf, r.buf)
		if err := r.readAt(buf[len(r.buf):], r.offset); err != nil {
			return nil, err
		}
		r.buf, r.offset = buf, r.offset+int64(more)
	}
	b := r.buf[:n]
	r.buf = r.buf[n:]
	return b, nil
}

func (r *reader) uint32() (uint32, error) {
	b, err := r.bytes(4)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (r *reader) uint64() (uint64, error) {
	b, err := r.bytes(8)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (r *reader) string() (string, error) {
	n, err := r.uint64()
	if err != nil {
		return "", err
	}
	b, err := r.bytes(n)
	return string(b), err
}

// Numbers of the types of values.
const (
	typeUint8 = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

// widths are the bytes of a value by its type: of a string, those of its length.
var widths = [...]uint64{1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8}

// value reads a value: int64, float64, bool, string, or []int64, []float64, []bool,
// []string.
func (r *reader) value() (any, error) {
	kind, err := r.uint32()
	if err != nil {
		return nil, err
	}
	if kind != typeArray {
		return r.scalar(kind)
	}
	if kind, err = r.uint32(); err != nil {
		return nil, err
	}
	n, err := r.uint64()
	if err != nil {
		return nil, err
	}
	if kind == typeArray {
		return nil, fmt.Errorf("an array of arrays is not supported")
	}
	if kind >= uint32(len(widths)) {
		return nil, fmt.Errorf("a value of type %d is not known", kind)
	}
	if left := uint64(r.size - r.at()); n > left/widths[kind] {
		return nil, fmt.Errorf("truncated: an array of %d elements, %d bytes are left", n, left)
	}
	switch kind {
	case typeString:
		return array[string](r, kind, n)
	case typeBool:
		return array[bool](r, kind, n)
	case typeFloat32, typeFloat64:
		return array[float64](r, kind, n)
	}
	return array[int64](r, kind, n)
}

func array[T any](r *reader, kind uint32, n uint64) ([]T, error) {
	list := make([]T, 0, min(n, 1<<20))
	for range n {
		v, err := r.scalar(kind)
		if err != nil {
			return nil, err
		}
		list = append(list, v.(T))
	}
	return list, nil
}

func (r *reader) scalar(kind uint32) (any, error) {
	if kind == typeString {
		return r.string()
	}
	if kind >= uint32(len(widths)) {
		return nil, fmt.Errorf("a value of type %d is not known", kind)
	}
	b, err := r.bytes(widths[kind])
	if err != nil {
		return nil, err
	}
	switch kind {
	case typeUint8:
		return int64(b[0]), nil
	case typeInt8:
		return int64(int8(b[0])), nil
	case typeUint16:
		return int64(binary.LittleEndian.Uint16(b)), nil
	case typeInt16:
		return int64(int16(binary.LittleEndian.Uint16(b))), nil
	case typeUint32:
		return int64(binary.LittleEndian.Uint32(b)), nil
	case typeInt32:
		return int64(int32(binary.LittleEndian.Uint32(b))), nil
	case typeFloat32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), nil
	case typeFloat64:
		return math.Float64frombits(binary.LittleEndian.Uint64(b)), nil
	case typeBool:
		return b[0] != 0, nil
	case typeUint64:
		v := binary.LittleEndian.Uint64(b)
		if v > math.MaxInt64 {
			return nil, fmt.Errorf("%d is too large", v)
		}
		return int64(v), nil
	}
	return int64(binary.LittleEndian.Uint64(b)), nil
}
