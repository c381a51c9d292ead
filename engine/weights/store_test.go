package weights

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// memoryStore hands pieces out in reverse order.
type memoryStore struct {
	fstest.MapFS
	reads  int
	closed bool
}

func (s *memoryStore) Size(name string) (int64, error) {
	f, ok := s.MapFS[name]
	if !ok {
		return 0, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return int64(len(f.Data)), nil
}

func (s *memoryStore) ReadAt(name string, p []byte, offset int64) error {
	s.reads++
	if n := copy(p, s.MapFS[name].Data[offset:]); n < len(p) {
		return errors.New("read beyond the end")
	}
	return nil
}

func (s *memoryStore) Stream(pieces []Piece, take func(int, []byte) error) error {
	for i := len(pieces) - 1; i >= 0; i-- {
		p := pieces[i]
		if err := take(i, s.MapFS[p.File].Data[p.Offset:][:p.Length]); err != nil {
			return err
		}
	}
	return nil
}

func (s *memoryStore) Close() error { s.closed = true; return nil }

func storeOf(files map[string][]byte) *memoryStore {
	s := &memoryStore{MapFS: fstest.MapFS{configName: {Data: []byte(`{}`)}}}
	for name, data := range files {
		s.MapFS[name] = &fstest.MapFile{Data: data}
	}
	return s
}

// TestStoreIsAsAFolder opens one file in a store and in a folder: the tensors
// are the same, and so are the pieces read of them.
func TestStoreIsAsAFolder(t *testing.T) {
	long := weightstest.Raw(`{"__metadata__":{"x":"`+strings.Repeat("y", 3*firstRead)+`"},"w":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}}`, []byte("hello"))
	for _, tt := range []struct {
		name  string
		file  []byte
		reads int
	}{
		{"short header", sample(), 1},
		{"header longer than the first read", long, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := storeOf(map[string][]byte{singleName: tt.file})
			there, err := OpenStore(store)
			if err != nil {
				t.Fatal(err)
			}
			if store.reads != tt.reads {
				t.Errorf("%d reads, want %d", store.reads, tt.reads)
			}
			here := mustOpen(t, map[string][]byte{singleName: tt.file})
			if !there.Streamed() || here.Streamed() || there.Bytes() != here.Bytes() {
				t.Errorf("streamed %v and %v, %d and %d bytes", there.Streamed(), here.Streamed(), there.Bytes(), here.Bytes())
			}
			var pieces []Piece
			var want [][]byte
			for _, name := range here.Names() {
				a, _ := here.Tensor(name)
				b, ok := there.Tensor(name)
				if !ok || a.Offset != b.Offset || a.Size != b.Size || a.DType != b.DType {
					t.Errorf("in the store %+v, in a folder %+v", b, a)
				}
				pieces = append(pieces, Piece{File: a.File, Offset: a.Offset, Length: int(a.Size)})
				want = append(want, []byte(bytesOf(t, here, a)))
			}
			for name, c := range map[string]*Checkpoint{"folder": here, "store": there} {
				taken := 0
				err := c.Read(pieces, func(i int, data []byte) error {
					taken++
					if !bytes.Equal(data, want[i]) {
						t.Errorf("%s: piece %d: %q, want %q", name, i, data, want[i])
					}
					return nil
				})
				if err != nil || taken != len(pieces) {
					t.Errorf("%s: %d of %d pieces, %v", name, taken, len(pieces), err)
				}
			}
			if err := there.Close(); err != nil || !store.closed {
				t.Errorf("closed %v, %v", store.closed, err)
			}
		})
	}
}

func TestStoreRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"too short", []byte("abc"), "not a safetensors file: 3 bytes"},
		{"header longer than the file", weightstest.Raw("", nil)[:7:7], "7 bytes"},
		{"header cut", append([]byte{200, 0, 0, 0, 0, 0, 0, 0}, '{'), "truncated: header of 200 bytes, found 1"},
		{"body cut", sample()[:len(sample())-1], "truncated"},
		{"pointer", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "Git LFS pointer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := storeOf(map[string][]byte{singleName: tt.file})
			if _, err := OpenStore(store); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if !store.closed {
				t.Error("the store was left open")
			}
		})
	}
}

// TestReadOutside asks for bytes that are not there.
func TestReadOutside(t *testing.T) {
	c := mustOpen(t, map[string][]byte{singleName: sample()})
	size := len(sample())
	for _, p := range []Piece{{singleName, -1, 2}, {singleName, 0, size + 1}, {singleName, int64(size), 1}, {"other.safetensors", 0, 1}} {
		if err := c.Read([]Piece{p}, func(int, []byte) error { return nil }); err == nil || !strings.Contains(err.Error(), p.File) {
			t.Errorf("%+v: %v, want an error that names the file", p, err)
		}
	}
	stop := errors.New("stop")
	if err := c.Read([]Piece{{singleName, 0, 1}, {singleName, 1, 1}}, func(int, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want what take returned", err)
	}
}
