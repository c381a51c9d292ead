package source

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// memFile is a file in memory.
type memFile struct {
	memInfo
	bytes.Reader
}

func (f *memFile) Stat() (fs.FileInfo, error) { return f.memInfo, nil }
func (f *memFile) Size() int64                { return f.size }
func (f *memFile) Close() error               { return nil }

// memInfo describes a file or folder of these stores.
type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string               { return i.name }
func (i memInfo) Size() int64                { return i.size }
func (i memInfo) ModTime() time.Time         { return time.Time{} }
func (i memInfo) IsDir() bool                { return i.dir }
func (i memInfo) Sys() any                   { return nil }
func (i memInfo) Type() fs.FileMode          { return i.Mode().Type() }
func (i memInfo) Info() (fs.FileInfo, error) { return i, nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

// memDir is a folder that lists what is directly in it.
type memDir struct {
	memInfo
	entries []fs.DirEntry
}

func (d *memDir) Stat() (fs.FileInfo, error) { return d.memInfo, nil }
func (d *memDir) Close() error               { return nil }
func (d *memDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: fs.ErrInvalid}
}

func (d *memDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(d.entries)
	} else if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	out := d.entries[:n]
	d.entries = d.entries[n:]
	return out, nil
}

// openDir opens the folder called name of a file system that has all of these
// files, whose names are whole paths.
func openDir(name string, all []memInfo) (fs.File, error) {
	prefix := name + "/"
	if name == "." {
		prefix = ""
	}
	d := &memDir{memInfo: memInfo{name: path.Base(name), dir: true}}
	listed := map[string]bool{}
	for _, f := range all {
		rest, ok := strings.CutPrefix(f.name, prefix)
		if !ok {
			continue
		}
		f.name = rest
		if sub, _, deeper := strings.Cut(rest, "/"); deeper {
			f = memInfo{name: sub, dir: true}
		}
		if !listed[f.name] {
			listed[f.name] = true
			d.entries = append(d.entries, f)
		}
	}
	if d.entries == nil && name != "." {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	slices.SortFunc(d.entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return d, nil
}
