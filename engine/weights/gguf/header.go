// Package gguf reads GGUF, llama.cpp's format of models, as a checkpoint of the
// Hugging Face layout: metadata become config.json, tokenizer.json and
// generation_config.json, and tensors get the names and shapes that transformers
// gives them, with what has to be undone of llama.cpp's conversion.
//
// Parse reads a header and trusts nothing in it. Open reads one or several files as
// a model. Architectures and pre-tokenizers are data: architectures and splits.
//
// Not here: the numbers in blocks (engine/quant), where files are (engine/weights).
package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Header is what a GGUF file says in front of its tensors' bytes.
type Header struct {
	Values  map[string]any // int64, float64, bool, string, or a slice of these
	Tensors []Tensor       // in the order of their bytes
}

// Tensor is a tensor as the file has it.
type Tensor struct {
	Name         string
	Type         Type
	Shape        []int // slowest dimension first
	Offset, Size int64 // bytes of the file that are the tensor's
}

const (
	magic      = 0x46554747 // "GGUF"
	maxKey     = 1<<16 - 1
	maxTensors = 1 << 20
	maxDims    = 4
	// A key, its type and its value take at least so many bytes; a tensor as many as
	// its name's length, dimensions, type and offset.
	minValueBytes  = 8 + 4 + 1
	minTensorBytes = 8 + 4 + 8 + 4 + 8
)

// Is reports whether a file that begins with these bytes is GGUF.
func Is(begin []byte) bool {
	return len(begin) >= 4 && binary.LittleEndian.Uint32(begin) == magic
}

// Parse reads the header of a file of size bytes, which readAt reads.
func Parse(size int64, readAt func(p []byte, offset int64) error) (*Header, error) {
	r := &reader{readAt: readAt, size: size, next: firstRead}
	begin, err := r.bytes(8)
	if err != nil {
		return nil, fmt.Errorf("not a GGUF file: %w", err)
	}
	if !Is(begin) {
		return nil, fmt.Errorf("not a GGUF file: it begins with %q", begin[:4])
	}
	switch version := binary.LittleEndian.Uint32(begin[4:]); {
	case version == 2 || version == 3:
	case bits.ReverseBytes32(version) <= 3:
		return nil, errors.New("big-endian GGUF is not supported; convert the model on a little-endian machine")
	default:
		return nil, fmt.Errorf("GGUF version %d is not supported, only 2 and 3", version)
	}
	tensors, err := r.count("tensors", minTensorBytes)
	if err != nil {
		return nil, err
	}
	values, err := r.count("values", minValueBytes)
	if err != nil {
		return nil, err
	}
	if tensors > maxTensors {
		return nil, fmt.Errorf("%d tensors, expected at most %d", tensors, maxTensors)
	}
	h := &Header{Values: map[string]any{}}
	for range values {
		key, err := r.string()
		if err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
		if len(key) > maxKey {
			return nil, fmt.Errorf("metadata: a key of %d bytes", len(key))
		}
		if _, twice := h.Values[key]; twice {
			return nil, fmt.Errorf("metadata: the key %q comes twice", key)
		}
		if h.Values[key], err = r.value(); err != nil {
			return nil, fmt.Errorf("metadata: %q: %w", key, err)
		}
	}
	alignment, err := h.alignment()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for range tensors {
		t, err := r.tensor(uint64(alignment))
		if err == nil && seen[t.Name] {
			err = errors.New("comes twice")
		}
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		seen[t.Name] = true
		h.Tensors = append(h.Tensors, t)
	}
	return h, h.layOut((r.at()+alignment-1)/alignment*alignment, size)
}

// count reads how many things follow, of at least least bytes each.
func (r *reader) count(what string, least uint64) (uint64, error) {
	n, err := r.uint64()
	if err == nil && n > uint64(r.size)/least {
		err = fmt.Errorf("truncated: %d %s in a file of %d bytes", n, what, r.size)
	}
	return n, err
}

func (h *Header) alignment() (int64, error) {
	v, ok := h.Values["general.alignment"]
	if !ok {
		return 32, nil
	}
	n, ok := v.(int64)
	if !ok || n <= 0 || n > 1<<20 || n&(n-1) != 0 {
		return 0, fmt.Errorf("metadata: general.alignment must be a power of two, found %v", v)
	}
	return n, nil
}

// tensor reads what is said of a tensor. Its Offset does not count the header yet.
func (r *reader) tensor(alignment uint64) (t Tensor, err error) {
	if t.Name, err = r.string(); err != nil {
		return t, err
	}
	if len(t.Name) > maxKey {
		return t, fmt.Errorf("a name of %d bytes", len(t.Name))
	}
	dims, err := r.uint32()
	if err != nil {
		return t, err
	}
	if dims < 1 || dims > maxDims {
		return t, fmt.Errorf("%d dimensions, expected 1 to %d", dims, maxDims)
	}
	elements := uint64(1)
	for range dims {
		n, err := r.uint64()
		if err != nil {
			return t, err
		}
		over, product := bits.Mul64(elements, n)
		if n == 0 || over != 0 || product > math.MaxInt64/64 {
			return t, fmt.Errorf("a dimension of %d elements", n)
		}
		elements = product
		t.Shape = append(t.Shape, int(n))
	}
	slices.Reverse(t.Shape)
	number, err := r.uint32()
	if err != nil {
		return t, err
	}
	if t.Type, err = typeOf(number); err != nil {
		return t, err
	}
	if cols := t.Shape[len(t.Shape)-1]; cols%t.Type.Elements != 0 {
		return t, fmt.Errorf("%d columns are not a whole number of blocks of %s, which have %d", cols, t.Type.Name, t.Type.Elements)
	}
	t.Size = int64(elements / uint64(t.Type.Elements) * uint64(t.Type.Bytes))
	offset, err := r.uint64()
	if err != nil {
		return t, err
	}
	if offset%alignment != 0 || offset > math.MaxInt64/2 {
		return t, fmt.Errorf("begins at byte %d, expected a multiple of %d", offset, alignment)
	}
	t.Offset = int64(offset)
	return t, nil
}

// layOut places the tensors in the file, where their bytes begin at start, and
// checks that they are all there and overlap nowhere.
func (h *Header) layOut(start, size int64) error {
	slices.SortStableFunc(h.Tensors, func(a, b Tensor) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	at, last := start, ""
	for i := range h.Tensors {
		t := &h.Tensors[i]
		t.Offset += start
		switch {
		case t.Offset < at:
			return fmt.Errorf("tensor %q: begins at byte %d, within tensor %q, which ends at %d", t.Name, t.Offset, last, at)
		case t.Size > size-t.Offset:
			return fmt.Errorf("truncated: tensor %q ends at byte %d, the file has %d", t.Name, t.Offset+t.Size, size)
		}
		at, last = t.Offset+t.Size, t.Name
	}
	return nil
}

// CheckSplit checks that the file is number i of n that make a model.
func (h *Header) CheckSplit(i, n int) error {
	for _, f := range []struct {
		key  string
		want int64
	}{{"split.count", int64(n)}, {"split.no", int64(i)}} {
		v, ok := h.Values[f.key]
		if !ok && n == 1 || v == f.want || f.key == "split.count" && n == 1 && v == int64(0) {
			continue
		}
		return fmt.Errorf("metadata: %s is %v, expected %d for file %d of %d: rename the files as they were", f.key, v, f.want, i+1, n)
	}
	return nil
}
