package weights

import (
	"fmt"
	"io/fs"
)

// firstRead is how much of a file in a Store is read at first: headers are
// rarely longer.
const firstRead = 128 << 10

// Store holds the files of a checkpoint somewhere else than in a folder: in
// S3, or in an archive that is being unpacked. As a file system it gives the
// text files, and its root lists all files; weight files are read through the
// other methods only. Errors name the store and the file; that a file is not
// there wraps fs.ErrNotExist.
type Store interface {
	fs.FS

	// Size returns the length in bytes of the weight file called name.
	Size(name string) (int64, error)

	// ReadAt fills p with the bytes of a weight file from offset on. It is
	// meant for the beginning of a file, before Stream.
	ReadAt(name string, p []byte, offset int64) error

	// Stream reads the pieces, in whatever order suits the store, and calls
	// take once for each of them, on the caller's goroutine: data are the
	// bytes of pieces[i], valid during the call. It ends with the first error,
	// of take or its own. Without an error every byte is as the store has it.
	// Called at most once.
	Stream(pieces []Piece, take func(i int, data []byte) error) error

	Close() error
}

// Piece is a run of bytes of a weight file that is wanted in one slice.
type Piece struct {
	File   string
	Offset int64
	Length int
}

// readBeginning reads enough of a file in s to know its tensors.
func readBeginning(s Store, name string) (*file, error) {
	size, err := s.Size(name)
	if err != nil {
		return nil, err
	}
	f := &file{name: name, size: size, begin: make([]byte, min(size, firstRead))}
	if err := s.ReadAt(name, f.begin, 0); err != nil {
		return nil, err
	}
	if isPointer(f.begin) {
		return f, nil
	}
	n, err := headerLength(f.begin, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if have, need := int64(len(f.begin)), lengthBytes+n; have < need {
		f.begin = append(f.begin, make([]byte, need-have)...)
		if err := s.ReadAt(name, f.begin[have:], have); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Streamed reports whether the weights come through a Store: then Tensor.Data
// is nil, and pieces are best of some hundred kilobytes.
func (c *Checkpoint) Streamed() bool { return c.store != nil }

// Read calls take once for each piece, on the caller's goroutine: data are the
// bytes of pieces[i], of any alignment, valid during the call. Pieces of a
// folder come in their order, and leave resident memory when take returns;
// those of a Store come in any order. It ends with the first error. Called at
// most once for a Store.
func (c *Checkpoint) Read(pieces []Piece, take func(i int, data []byte) error) error {
	if c.store != nil {
		return c.store.Stream(pieces, take)
	}
	byName := make(map[string]*file, len(c.files))
	for _, f := range c.files {
		byName[f.name] = f
	}
	for i, p := range pieces {
		f := byName[p.File]
		if f == nil || p.Offset < 0 || p.Length < 0 || p.Offset > f.size-int64(p.Length) {
			return fmt.Errorf("%s: %d bytes from byte %d on are not in the checkpoint", p.File, p.Length, p.Offset)
		}
		data := f.data[p.Offset:][:p.Length]
		if err := take(i, data); err != nil {
			return err
		}
		release(c.files, data)
	}
	return nil
}
