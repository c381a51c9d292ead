package weights

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

func TestParseRefusals(t *testing.T) {
	// one makes a file of one tensor x with this type, shape, offsets and body.
	one := func(dtype, shape, offsets string, body int) []byte {
		return weightstest.Raw(fmt.Sprintf(`{"x":{"dtype":%q,"shape":%s,"data_offsets":%s}}`, dtype, shape, offsets), make([]byte, body))
	}
	two := func(first, second string, body int) []byte {
		return weightstest.Raw(fmt.Sprintf(`{"x":{"dtype":"U8","shape":[4],"data_offsets":%s},"y":{"dtype":"U8","shape":[4],"data_offsets":%s}}`, first, second), make([]byte, body))
	}
	raw := weightstest.Raw
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"shorter than the length", []byte("1234567"), "7 bytes, expected at least 8"},
		{"header longer than the file", []byte("\x00\x10\x00\x00\x00\x00\x00\x00{}"), "truncated: header of 4096 bytes, found 2"},
		{"header of exabytes", []byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"), "expected at most 100000000"},
		{"header above the cap", []byte("\x01\xe1\xf5\x05\x00\x00\x00\x00{}"), "header of 100000001 bytes"},
		{"empty header", raw("", nil), "not a JSON object"},
		{"header begins with a space", raw(" {}", nil), "not a JSON object"},
		{"header is a list", raw("[]", nil), "not a JSON object"},
		{"header ends early", raw(`{"x":{"dtype":"U8"`, nil), "invalid JSON: ends too early"},
		{"header is broken", raw(`{"x":{"dtype":U8}}`, nil), "invalid JSON"},
		{"two objects", raw(`{}{}`, nil), "something follows"},
		{"a name twice", raw(`{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, []byte("ab")), `"x" comes twice`},
		{"entry is a number", raw(`{"x":1}`, nil), `tensor "x": expected an object, found 1`},
		{"entry is null", raw(`{"x":null}`, nil), `tensor "x": expected an object, found null`},
		{"no dtype", raw(`{"x":{"shape":[1],"data_offsets":[0,1]}}`, nil), "dtype is missing"},
		{"dtype is a number", raw(`{"x":{"dtype":1,"shape":[1],"data_offsets":[0,1]}}`, nil), "dtype: expected a type's name, found 1"},
		{"shape is null", raw(`{"x":{"dtype":"U8","shape":null,"data_offsets":[0,1]}}`, nil), "shape: expected a list of dimensions, found null"},
		{"one offset", one("U8", "[1]", "[0]", 1), "expected a list of two offsets, found 1"},
		{"negative dimension", one("U8", "[-1]", "[0,1]", 1), "dimension -1 is not a count"},
		{"fractional dimension", one("U8", "[1.5]", "[0,1]", 1), "dimension 1.5 is not a count"},
		{"huge dimension", one("U8", "[99999999999999999999]", "[0,1]", 1), "dimension 99999999999999999999 is too large"},
		{"product overflows", one("F32", "[4294967296,4294967296,4294967296]", "[0,1]", 1), "more than 2^64 bits"},
		{"product overflows to the right size", one("U8", "[2305843009213693952,8]", "[0,0]", 0), "more than 2^64 bits"},
		{"negative offset", one("U8", "[1]", "[-1,0]", 1), "offset -1 is not a count"},
		{"end before begin", one("U8", "[1]", "[1,0]", 1), "the end is before the beginning"},
		{"type contradicts offsets", one("F32", "[2,3]", "[0,12]", 12), "F32 [2 3] needs 24 bytes, data_offsets [0 12] give 12"},
		{"half a byte", one("F4", "[3]", "[0,1]", 1), "not a whole number of bytes"},
		{"overlap", two("[0,4]", "[2,6]", 6), `tensor "y": bytes [2 6] overlap tensor "x", which ends at 4`},
		{"overlap in reverse", two("[2,6]", "[0,4]", 6), `tensor "x": bytes [2 6] overlap tensor "y"`},
		{"gap", two("[0,4]", "[6,10]", 10), `tensor "y": begins at byte 6, expected 4`},
		{"gap at the beginning", one("U8", "[1]", "[1,2]", 2), "begins at byte 1, expected 0"},
		{"body is cut", two("[0,4]", "[4,8]", 7), `truncated: tensor "y" ends at byte 8, the file has 7`},
		{"bytes left over", one("U8", "[1]", "[0,1]", 3), "2 bytes follow the last tensor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tensors, err := parse(tt.data, int64(len(tt.data)))
			if err == nil {
				t.Fatalf("accepted as %v, want an error with %q", tensors, tt.want)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q, want %q in it", err, tt.want)
			}
		})
	}
}

func TestParseAccepts(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
		want int
	}{
		{"no tensor", weightstest.Raw(`{}`, nil), 0},
		{"padded header", weightstest.Raw("{}   \n", nil), 0},
		{"later tensor named first", weightstest.Raw(`{"y":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, []byte("ab")), 2},
		{"empty tensor", weightstest.Raw(`{"x":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}}`, nil), 1},
		{"a type of the future", weightstest.Raw(`{"x":{"dtype":"Q9","shape":[5],"data_offsets":[0,3]}}`, []byte("abc")), 1},
		{"packed four bits", weightstest.Raw(`{"x":{"dtype":"F4","shape":[2,2],"data_offsets":[0,2]}}`, []byte("ab")), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tensors, err := parse(tt.data, int64(len(tt.data)))
			if err != nil || len(tensors) != tt.want {
				t.Errorf("got %d tensors, %v; want %d", len(tensors), err, tt.want)
			}
		})
	}
}

// FuzzHeader: whatever the header says, what is accepted covers the body
// exactly, in order, and each tensor has the bytes its type and shape need.
func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		`{}`,
		`{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`,
		`{"__metadata__":{"format":"pt"},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`,
		`{"x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"y":{"dtype":"F16","shape":[0],"data_offsets":[4,4]}}`,
		`{"x":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},"y":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`,
		`{"x":{"dtype":"F64","shape":[-1],"data_offsets":[0,4]}}`,
		`{"x":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}`,
		`{"x":[[[[`, `{"x":`, `[`, ``, `null`,
	} {
		f.Add([]byte(seed))
	}
	body := []byte("body")
	f.Fuzz(func(t *testing.T, header []byte) {
		data := weightstest.Raw(string(header), body)
		tensors, err := parse(data, int64(len(data)))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one line: %q", err)
			}
			return
		}
		at := int64(0)
		for _, x := range tensors {
			if width, ok := dtypeBits[x.DType]; ok {
				n := width
				for _, d := range x.Shape {
					n *= uint64(d)
				}
				if n/8 != uint64(x.Size) {
					t.Errorf("tensor %q: %s %v with %d bytes", x.Name, x.DType, x.Shape, x.Size)
				}
			}
			if want := int64(len(data)-len(body)) + at; x.Offset != want {
				t.Errorf("tensor %q at byte %d, want %d", x.Name, x.Offset, want)
			}
			at += x.Size
		}
		if at != int64(len(body)) {
			t.Errorf("tensors cover %d of %d bytes", at, len(body))
		}
	})
}
