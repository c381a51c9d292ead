package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// maxHeader is the format's own bound on the JSON header.
const maxHeader = 100_000_000

// dtypeBits is the element size of the types the format defines.
var dtypeBits = map[string]uint64{
	"F64": 64, "F32": 32, "F16": 16, "BF16": 16,
	"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
	"I64": 64, "I32": 32, "I16": 16, "I8": 8,
	"U64": 64, "U32": 32, "U16": 16, "U8": 8,
	"C64": 64, "BOOL": 8,
}

// lengthBytes is the size of the number that a safetensors file begins with.
const lengthBytes = 8

// parse reads the beginning of a safetensors file of size bytes: eight bytes of
// header length, the JSON header, then the tensors' bytes without gap or
// overlap up to the file's end; begin holds at least the header, so all of a
// smaller file. (https://github.com/huggingface/safetensors#format)
func parse(begin []byte, size int64) ([]Tensor, error) {
	n, err := headerLength(begin, size)
	if err != nil {
		return nil, err
	}
	body := lengthBytes + n
	entries, err := parseHeader(begin[lengthBytes:body])
	if err != nil {
		return nil, err
	}
	return layOut(entries, body, size-body)
}

// Tensors returns the tensors of a safetensors file called name that is in memory.
func Tensors(name string, data []byte) ([]Tensor, error) {
	if isPointer(data) {
		return nil, pointerError(name)
	}
	list, err := parse(data, int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for i := range list {
		list[i].File = name
	}
	return list, nil
}

// headerLength returns the bytes of the JSON header of a file of size bytes
// that begins with begin.
func headerLength(begin []byte, size int64) (int64, error) {
	if size < lengthBytes {
		return 0, fmt.Errorf("not a safetensors file: %d bytes, expected at least %d", size, lengthBytes)
	}
	n := binary.LittleEndian.Uint64(begin)
	if n > maxHeader {
		return 0, fmt.Errorf("not a safetensors file: header of %d bytes, expected at most %d", n, maxHeader)
	}
	if rest := size - lengthBytes; int64(n) > rest {
		return 0, fmt.Errorf("truncated: header of %d bytes, found %d", n, rest)
	}
	return int64(n), nil
}

// entry is one tensor of the header.
type entry struct {
	name       string
	dtype      string
	shape      []int
	begin, end uint64 // bytes of the body
}

// parseHeader reads the JSON object of the header and checks each entry by
// itself.
func parseHeader(header []byte) ([]entry, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, fmt.Errorf("header is not a JSON object: begins with %q", header[:min(len(header), 8)])
	}
	var entries []entry
	err := eachMember(header, func(name string, value json.RawMessage) error {
		if name == "__metadata__" {
			return nil // free text of whoever wrote the file
		}
		e, err := parseEntry(name, value)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return entries, nil
}

func parseEntry(name string, value json.RawMessage) (entry, error) {
	e := entry{name: name}
	var (
		fields  map[string]json.RawMessage
		shape   []json.Number
		offsets []json.Number
	)
	if err := json.Unmarshal(value, &fields); err != nil || fields == nil {
		return e, fmt.Errorf("expected an object, found %s", short(value))
	}
	for _, f := range []struct {
		key  string
		into any
		want string
	}{
		{"dtype", &e.dtype, "a type's name"},
		{"shape", &shape, "a list of dimensions"},
		{"data_offsets", &offsets, "a list of two offsets"},
	} {
		raw, ok := fields[f.key]
		if !ok {
			return e, fmt.Errorf("%s is missing", f.key)
		}
		if err := json.Unmarshal(raw, f.into); err != nil || raw[0] == 'n' {
			return e, fmt.Errorf("%s: expected %s, found %s", f.key, f.want, short(raw))
		}
	}
	if len(offsets) != 2 {
		return e, fmt.Errorf("data_offsets: expected a list of two offsets, found %d", len(offsets))
	}
	e.shape = make([]int, len(shape))
	for i, s := range shape {
		n, err := count(s)
		if err != nil {
			return e, fmt.Errorf("shape %v: dimension %w", shape, err)
		}
		e.shape[i] = int(n)
	}
	var err error
	if e.begin, err = count(offsets[0]); err == nil {
		e.end, err = count(offsets[1])
	}
	if err != nil {
		return e, fmt.Errorf("data_offsets %v: offset %w", offsets, err)
	}
	return e, e.checkSize()
}

// checkSize compares the offsets with what type and shape need.
func (e *entry) checkSize() error {
	if e.begin > e.end {
		return fmt.Errorf("data_offsets [%d %d]: the end is before the beginning", e.begin, e.end)
	}
	width, known := dtypeBits[e.dtype]
	if !known {
		return nil // kept in the listing; whoever needs it refuses it by name
	}
	size := width
	for _, d := range e.shape {
		hi, lo := bits.Mul64(size, uint64(d))
		if hi != 0 {
			return fmt.Errorf("shape %v: more than 2^64 bits of %s", e.shape, e.dtype)
		}
		size = lo
	}
	if size%8 != 0 {
		return fmt.Errorf("shape %v: %d bits of %s are not a whole number of bytes", e.shape, size, e.dtype)
	}
	if found := e.end - e.begin; found != size/8 {
		return fmt.Errorf("%s %v needs %d bytes, data_offsets [%d %d] give %d", e.dtype, e.shape, size/8, e.begin, e.end, found)
	}
	return nil
}

// layOut checks that the entries cover the length bytes of the body, which
// begin at byte start of the file, exactly.
func layOut(entries []entry, start, length int64) ([]Tensor, error) {
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	tensors := make([]Tensor, 0, len(entries))
	at, last := uint64(0), ""
	for _, e := range entries {
		switch {
		case e.begin < at:
			return nil, fmt.Errorf("tensor %q: bytes [%d %d] overlap tensor %q, which ends at %d", e.name, e.begin, e.end, last, at)
		case e.begin > at:
			return nil, fmt.Errorf("tensor %q: begins at byte %d, expected %d: a gap of %d bytes", e.name, e.begin, at, e.begin-at)
		case e.end > uint64(length):
			return nil, fmt.Errorf("truncated: tensor %q ends at byte %d, the file has %d", e.name, e.end, length)
		}
		tensors = append(tensors, Tensor{Name: e.name, DType: e.dtype, Shape: e.shape, Offset: start + int64(e.begin), Size: int64(e.end - e.begin)})
		at, last = e.end, e.name
	}
	if at != uint64(length) {
		return nil, fmt.Errorf("%d bytes follow the last tensor, expected none", uint64(length)-at)
	}
	return tensors, nil
}

// count reads a JSON number as a count that fits an int64.
func count(n json.Number) (uint64, error) {
	v, err := strconv.ParseUint(n.String(), 10, 63)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is too large", n)
	}
	if err != nil {
		return 0, fmt.Errorf("%s is not a count", n)
	}
	return v, nil
}

// eachMember calls f for the members of the one JSON object in text, in
// order, and refuses a name that comes twice, which encoding/json would
// silently accept.
func eachMember(text []byte, f func(name string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil {
		return invalidJSON(err)
	} else if t != json.Delim('{') {
		return fmt.Errorf("expected a JSON object, found %v", t)
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return invalidJSON(err)
		}
		name, ok := t.(string)
		if !ok {
			return fmt.Errorf("invalid JSON: expected a name, found %v", t)
		}
		if seen[name] {
			return fmt.Errorf("the name %q comes twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return invalidJSON(err)
		}
		if err := f(name, value); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return invalidJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

func invalidJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("invalid JSON: ends too early")
	}
	return fmt.Errorf("invalid JSON: %w", err)
}

// short gives the beginning of a JSON value for a message of one line.
func short(raw []byte) string {
	const most = 40
	text := strings.Join(strings.Fields(string(raw)), " ")
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}
