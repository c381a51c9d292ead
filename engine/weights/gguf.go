package weights

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/engine/weights/gguf"
)

// IsGGUF reports whether a file is GGUF by its name.
func IsGGUF(name string) bool { return strings.HasSuffix(name, ".gguf") }

// splitName is the name of one of several files that make a model.
var splitName = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// maxSplits bounds how many files a model may be in.
const maxSplits = 1000

// Splits returns the names of all files of the model that a file belongs to.
func Splits(name string) ([]string, error) {
	m := splitName.FindStringSubmatch(name)
	if m == nil {
		return []string{name}, nil
	}
	of, _ := strconv.Atoi(m[3])
	if of < 1 || of > maxSplits {
		return nil, fmt.Errorf("%s: %d files, expected 1 to %d", name, of, maxSplits)
	}
	names := make([]string, of)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%05d-of-%s.gguf", m[1], i+1, m[3])
	}
	return names, nil
}

// ModelFiles returns the GGUF files that are a model each, or the first of one,
// among names. Vision encoders, heads that predict further tokens, and the like are not.
func ModelFiles(names []string) []string {
	var models []string
	for _, name := range names {
		base := strings.ToLower(path.Base(name))
		if !IsGGUF(name) || strings.HasPrefix(base, "mmproj") || strings.HasPrefix(base, "mtp-") || strings.Contains(base, "imatrix") {
			continue
		}
		if m := splitName.FindStringSubmatch(name); m != nil && m[2] != "00001" {
			continue
		}
		models = append(models, name)
	}
	slices.Sort(models)
	return models
}

// chooseGGUF returns the one model among the files of a folder that is GGUF, "" if
// there is none.
func chooseGGUF(entries []fs.DirEntry) (string, error) {
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	switch models := ModelFiles(names); len(models) {
	case 0:
		return "", nil
	case 1:
		return models[0], nil
	default:
		return "", fmt.Errorf("several GGUF files: %s; name one of them", strings.Join(models[:min(5, len(models))], ", "))
	}
}

// addGGUF opens the GGUF files of a model, of which c.source is one, and takes their
// tensors and what their metadata stand for.
func (c *Checkpoint) addGGUF(load func(string) (*file, error)) error {
	names, err := Splits(c.source)
	if err != nil {
		return err
	}
	var headers []*gguf.Header
	for i, name := range names {
		f, err := load(name)
		if err != nil {
			return err
		}
		c.files = append(c.files, f)
		h, err := readGGUF(f)
		if err == nil {
			err = h.CheckSplit(i, len(names))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		headers = append(headers, h)
	}
	m, err := gguf.Open(headers, func(file int, p []byte, offset int64) error {
		return c.files[file].readAt(p, offset)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", c.source, err)
	}
	c.gguf.Store(m)
	stored := make([]Tensor, len(m.Stored))
	for i, s := range m.Stored {
		stored[i] = Tensor{Name: s.Name, File: names[s.File], DType: s.Type.Name, Shape: s.Shape, Offset: s.Offset, Size: s.Size}
	}
	for _, v := range m.Tensors {
		t := Tensor{Name: v.Name, File: stored[v.Rows[0].From].File, DType: stored[v.Rows[0].From].DType, Shape: v.Shape, Map: v.Map}
		for _, r := range v.Rows {
			from := &stored[r.From]
			t.Rows = append(t.Rows, Run{from, r.First, r.Step, r.N, r.Transposed})
			if rows := int64(from.rowCount()); r.Transposed {
				t.Size += from.Size
			} else {
				t.Size += int64(r.N) * (from.Size / rows)
			}
		}
		if _, twice := c.tensors[t.Name]; twice {
			return fmt.Errorf("%s: tensor %q comes twice", c.source, t.Name)
		}
		c.tensors[t.Name] = t
	}
	return nil
}

// readGGUF reads the header of a GGUF file.
func readGGUF(f *file) (*gguf.Header, error) {
	if f.size >= int64(len(pointerPrefix)) {
		begin := make([]byte, len(pointerPrefix))
		if err := f.readAt(begin, 0); err != nil {
			return nil, err
		}
		if isPointer(begin) {
			return nil, pointerError(f.name)
		}
	}
	return gguf.Parse(f.size, f.readAt)
}

// rowCount is how many rows a stored tensor has.
func (t *Tensor) rowCount() int {
	rows := 1
	for i, n := range t.Shape {
		if i == 0 || i < len(t.Shape)-1 {
			rows *= n
		}
	}
	return rows
}

// Files returns the checkpoint's text files, until it is closed; those that GGUF
// stands for win over others. A tokenizer that cannot be made of it may lie beside it.
func (c *Checkpoint) Files() fs.FS {
	if c.gguf.Load() == nil {
		return c.fsys
	}
	return texts{c.fsys, c}
}

// texts are files that GGUF stands for before those of a file system.
type texts struct {
	fs.FS
	of *Checkpoint
}

var _ fs.StatFS = texts{}

// text returns a file that GGUF stands for. It is not ok if there is none, so that
// another is looked for.
func (t texts) text(name string) (data []byte, ok bool, err error) {
	m := t.of.gguf.Load()
	if m == nil {
		return nil, false, nil
	}
	of, ok := m.Texts[name]
	if !ok {
		return nil, false, nil
	}
	if data, err = of(); err == nil {
		return data, true, nil
	}
	if _, missing := fs.Stat(t.FS, name); missing == nil {
		return nil, false, nil
	}
	return nil, false, &fs.PathError{Op: "open", Path: name, Err: err}
}

// Open implements fs.FS.
func (t texts) Open(name string) (fs.File, error) {
	data, ok, err := t.text(name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return t.FS.Open(name)
	}
	return &textFile{bytes.NewReader(data), textInfo{name, int64(len(data))}}, nil
}

// Stat implements fs.StatFS.
func (t texts) Stat(name string) (fs.FileInfo, error) {
	data, ok, err := t.text(name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return fs.Stat(t.FS, name)
	}
	return textInfo{name, int64(len(data))}, nil
}

type textFile struct {
	*bytes.Reader
	info textInfo
}

func (f *textFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *textFile) Close() error               { return nil }

type textInfo struct {
	name string
	size int64
}

func (i textInfo) Name() string       { return i.name }
func (i textInfo) Size() int64        { return i.size }
func (i textInfo) Mode() fs.FileMode  { return 0o444 }
func (i textInfo) ModTime() time.Time { return time.Time{} }
func (i textInfo) IsDir() bool        { return false }
func (i textInfo) Sys() any           { return nil }
