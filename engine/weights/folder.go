package weights

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// errNotRegular refuses files that may block their reader, or never end.
var errNotRegular = errors.New("not a regular file")

// OpenFile opens the regular file at a path, or at the end of a link there.
// A pipe, socket or device is refused before it is opened: opening one may wait
// forever, or have an effect.
func OpenFile(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: reason(err)}
	}
	// It may have been replaced meanwhile: then at least opening does not wait.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Folder is the file system of a model folder: it opens regular files and
// folders only, as OpenFile does. A file is as long as it was when it was opened:
// what the kernel calls a regular file of no length, like /proc/kmsg, may be read
// forever.
type Folder string

// sized is a file whose end is fixed.
type sized struct {
	io.Reader
	file *os.File
}

func (f sized) Stat() (fs.FileInfo, error) { return f.file.Stat() }
func (f sized) Close() error               { return f.file.Close() }

var _ fs.StatFS = Folder("")

// Open implements fs.FS.
func (f Folder) Open(name string) (fs.File, error) {
	path, err := f.path("open", name)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return os.Open(path)
	}
	opened, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	info, err := opened.Stat()
	if err != nil {
		opened.Close()
		return nil, err
	}
	return sized{io.NewSectionReader(opened, 0, info.Size()), opened}, nil
}

// Stat implements fs.StatFS. It opens nothing.
func (f Folder) Stat(name string) (fs.FileInfo, error) {
	path, err := f.path("stat", name)
	if err != nil {
		return nil, err
	}
	return os.Stat(path)
}

func (f Folder) path(operation, name string) (string, error) {
	if !fs.ValidPath(name) {
		return "", &fs.PathError{Op: operation, Path: name, Err: fs.ErrInvalid}
	}
	return filepath.Join(string(f), filepath.FromSlash(name)), nil
}

// openWeights opens a weight file of the folder.
func (f Folder) openWeights(name string) (*file, error) {
	opened, err := OpenFile(filepath.Join(string(f), name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, reason(err))
	}
	w := &file{name: name, opened: opened}
	info, err := opened.Stat()
	if err != nil {
		opened.Close()
		return nil, fmt.Errorf("%s: %w", name, reason(err))
	}
	w.size = info.Size()
	return w, nil
}

// shrunk explains a file that ends before the size it had when it was opened.
func (f *file) shrunk(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: %w", f.name, reason(err))
	}
	size := "less"
	if info, err := f.opened.Stat(); err == nil {
		size = fmt.Sprint(info.Size())
	}
	return fmt.Errorf("%s: the file shrank while it was read: it had %d bytes, now %s", f.name, f.size, size)
}
