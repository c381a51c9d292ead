package weights

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
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

// readHeader reads enough of a safetensors file to know its tensors.
func readHeader(f *file) ([]byte, error) {
	begin := make([]byte, min(f.size, firstRead))
	if err := f.readAt(begin, 0); err != nil || isPointer(begin) {
		return begin, err
	}
	n, err := headerLength(begin, f.size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	if have, need := int64(len(begin)), lengthBytes+n; have < need {
		begin = append(begin, make([]byte, need-have)...)
		if err := f.readAt(begin[have:], have); err != nil {
			return nil, err
		}
	}
	return begin, nil
}

// Streamed reports whether the weights come through a Store: then nothing of
// them can be read before all, and pieces are best of some hundred kilobytes.
func (c *Checkpoint) Streamed() bool { return c.store != nil }

// ReadAt fills p with the bytes of tensor t from offset on. It is not for a
// Store.
func (c *Checkpoint) ReadAt(t Tensor, p []byte, offset int64) error {
	f := c.file(t.File)
	if f == nil || c.Streamed() || offset < 0 || offset > t.Size-int64(len(p)) {
		return fmt.Errorf("%s: tensor %q: %d bytes from byte %d on cannot be read", t.File, t.Name, len(p), offset)
	}
	return f.readAt(p, t.Offset+offset)
}

func (c *Checkpoint) file(name string) *file {
	if i := slices.IndexFunc(c.files, func(f *file) bool { return f.name == name }); i >= 0 {
		return c.files[i]
	}
	return nil
}

// Read calls take once for each piece, on the caller's goroutine: data are the
// bytes of pieces[i], of any alignment, valid during the call. Pieces of a
// folder come in their order, and the next one is read while take runs; those
// of a Store come in any order. It ends with the first error. Called at most
// once for a Store.
func (c *Checkpoint) Read(pieces []Piece, take func(i int, data []byte) error) error {
	if c.store != nil {
		return c.store.Stream(pieces, take)
	}
	files := make([]*file, len(pieces))
	longest, inMemory := 0, true
	for i, p := range pieces {
		f := c.file(p.File)
		if f == nil || p.Offset < 0 || p.Length < 0 || p.Offset > f.size-int64(p.Length) {
			return fmt.Errorf("%s: %d bytes from byte %d on are not in the checkpoint", p.File, p.Length, p.Offset)
		}
		files[i] = f
		longest = max(longest, p.Length)
		inMemory = inMemory && f.opened == nil
	}
	if inMemory {
		for i, p := range pieces {
			if err := take(i, files[i].data[p.Offset:][:p.Length]); err != nil {
				return err
			}
		}
		return nil
	}

	const buffers = 2
	empty, full := make(chan []byte, buffers), make(chan []byte, buffers)
	for range buffers {
		empty <- make([]byte, longest)
	}
	var broken error // of reading, once full is closed
	go func() {
		defer close(full)
		for i, p := range pieces {
			buf, ok := <-empty
			if !ok {
				return
			}
			if broken = files[i].readAt(buf[:p.Length], p.Offset); broken != nil {
				return
			}
			full <- buf
		}
	}()
	var refused error
	for i, p := range pieces {
		buf, ok := <-full
		if !ok {
			break
		}
		if refused = take(i, buf[:p.Length]); refused != nil {
			break
		}
		empty <- buf
	}
	close(empty)
	for range full { // until reading has ended
	}
	return cmp.Or(refused, broken)
}
