// Package weights reads checkpoints: a folder with config.json and
// safetensors files, as huggingface_hub lays it out, or GGUF files, whose metadata
// stand for config.json and the tokenizer's files.
//
// A Checkpoint is opened whole: every header is read and checked against its
// file before Open returns, so that a tensor handed out later is exactly the
// bytes its name, type and shape promise. Read hands the bytes out piece by
// piece: files of a folder are read as the pieces are asked for, others come
// through a Store, and neither is ever held whole. Only what a backend uses as it
// is gets mapped (Map): a mapped file that shrinks ends the process wherever it is
// touched, here or in C++, where one that is read is an error.
//
// Every refusal is one line that names the file, the tensor, what was
// expected and what was found.
//
// Not here: what a model needs (plan), and element arithmetic (backends).
package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/millrace-ai/millrace/engine/weights/gguf"
)

// Names of the files of a checkpoint.
const (
	configName     = "config.json"
	generationName = "generation_config.json"
	singleName     = "model.safetensors"
	indexName      = "model.safetensors.index.json"
)

// maxTextFile bounds the JSON files that are read into memory; the largest
// tokenizers are below 40 MB.
const maxTextFile = 256 << 20

// Tensor is one array of a checkpoint, row-major, little-endian.
type Tensor struct {
	Name  string
	File  string // the file that holds it, for messages
	DType string // as the file has it: "F32", "F16", "BF16", or a type nothing here computes with
	Shape []int  // empty for a scalar

	Offset, Size int64 // bytes of the file that are the tensor's; without meaning if there are Rows

	// Rows are where the tensor's rows are if the file has others than the model:
	// all dimensions but the last are rows, and a vector is rows of one element.
	Rows []Run
	Map  func(row []float32) // changes a row of the file to what it stands for; nil: it stands for itself
}

// Run is N rows of a tensor: rows First, First+Step, … of what is stored in a file.
// Transposed, they are the first N columns of the stored rows from First on.
type Run struct {
	From           *Tensor
	First, Step, N int
	Transposed     bool
}

// Checkpoint is an open model folder. Immutable, so safe for concurrent use,
// but for Close.
type Checkpoint struct {
	source  string
	config  []byte
	gguf    atomic.Pointer[gguf.Model] // whose texts stand for files; nil: none do, or it is closed
	fsys    fs.FS
	store   Store // nil: the files are in memory or open
	files   []*file
	tensors map[string]Tensor
	names   []string
	bytes   int64
}

// Open opens the checkpoint in folder dir, or the GGUF file of that name. The caller
// closes it.
func Open(dir string) (*Checkpoint, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("model folder %s: %w", dir, reason(err))
	}
	place, file := dir, ""
	if !info.IsDir() {
		if !IsGGUF(dir) {
			return nil, fmt.Errorf("model folder %s: is a file, expected a folder with %s and %s, or a .gguf file", dir, configName, singleName)
		}
		dir, file = filepath.Dir(dir), filepath.Base(dir)
	}
	c, err := open(Folder(dir), file, Folder(dir).openWeights)
	if err != nil {
		return nil, fmt.Errorf("model folder %s: %w", place, err)
	}
	return c, nil
}

// OpenFS opens the checkpoint at the root of fsys, whose weight files are
// read into memory: meant for the small model inside the binary.
func OpenFS(fsys fs.FS) (*Checkpoint, error) {
	return open(fsys, "", func(name string) (*file, error) {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, reason(err))
		}
		return inMemory(name, data), nil
	})
}

// OpenStore opens the checkpoint that s holds. The checkpoint closes s, also
// when it cannot be opened.
func OpenStore(s Store) (*Checkpoint, error) {
	c, err := open(s, "", func(name string) (*file, error) {
		size, err := s.Size(name)
		return &file{name: name, size: size, store: s}, err
	})
	if err != nil {
		s.Close()
		return nil, err
	}
	c.store = s
	return c, nil
}

// open reads the checkpoint's texts and headers; load opens a weight file, which is
// the GGUF file called name if that is not "".
func open(fsys fs.FS, name string, load func(name string) (*file, error)) (*Checkpoint, error) {
	c := &Checkpoint{fsys: fsys, tensors: map[string]Tensor{}}
	ok := false
	defer func() {
		if !ok {
			c.Close()
		}
	}()

	var err error
	if c.source = name; name == "" {
		if c.source, err = findWeights(fsys); err != nil {
			return nil, err
		}
	}
	switch {
	case IsGGUF(c.source):
		err = c.addGGUF(load)
	case c.source == singleName:
		err = c.addFile(singleName, load, nil)
	default:
		err = c.addShards(load)
	}
	if err == nil {
		c.config, err = c.ReadFile(configName)
	}
	if err != nil {
		return nil, err
	}
	for name, t := range c.tensors {
		c.names = append(c.names, name)
		c.bytes += t.Size
	}
	slices.Sort(c.names)
	ok = true
	return c, nil
}

// addShards opens every file the index names and takes from each the tensors
// the index says it has.
func (c *Checkpoint) addShards(load func(string) (*file, error)) error {
	text, err := c.ReadFile(indexName)
	if err != nil {
		return err
	}
	shards, err := parseIndex(text)
	if err != nil {
		return fmt.Errorf("%s: %w", indexName, err)
	}
	for _, s := range shards {
		if err := c.addFile(s.file, load, s.tensors); err != nil {
			return err
		}
	}
	return nil
}

// addFile opens one weight file and takes its tensors: those wanted, or all
// when wanted is nil.
func (c *Checkpoint) addFile(name string, load func(string) (*file, error), wanted []string) error {
	f, err := load(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && wanted != nil {
			return fmt.Errorf("%s: the file is missing, though %s says it holds tensor %q", name, indexName, wanted[0])
		}
		return err
	}
	c.files = append(c.files, f)
	begin, err := readHeader(f)
	if err != nil {
		return err
	}
	if isPointer(begin) {
		return pointerError(name)
	}
	tensors, err := parse(begin, f.size)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	byName := make(map[string]Tensor, len(tensors))
	for _, t := range tensors {
		t.File = name
		byName[t.Name] = t
	}
	if wanted == nil {
		c.tensors = byName
		return nil
	}
	for _, w := range wanted {
		t, ok := byName[w]
		if !ok {
			return fmt.Errorf("%s: tensor %q is missing, though %s says it is here", name, w, indexName)
		}
		c.tensors[w] = t
	}
	return nil
}

// Config returns config.json.
func (c *Checkpoint) Config() []byte { return c.config }

// Generation reads generation_config.json, nil when there is none. A Store may
// know that only when all else has come.
func (c *Checkpoint) Generation() ([]byte, error) {
	text, err := c.ReadFile(generationName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// Source names the file that says which tensors there are: the weight file,
// or the index of several.
func (c *Checkpoint) Source() string { return c.source }

// Names returns the names of all tensors, sorted. The caller must not change
// the slice.
func (c *Checkpoint) Names() []string { return c.names }

// Bytes returns the size of all tensors together.
func (c *Checkpoint) Bytes() int64 { return c.bytes }

// Tensor returns the tensor called name.
func (c *Checkpoint) Tensor(name string) (Tensor, bool) {
	t, ok := c.tensors[name]
	return t, ok
}

// Shape returns the shape of the tensor called name: what plan.Build asks.
func (c *Checkpoint) Shape(name string) ([]int, bool) {
	t, ok := c.tensors[name]
	return t.Shape, ok
}

// ReadFile reads another text file of the checkpoint, such as tokenizer.json.
// The error wraps fs.ErrNotExist when there is none.
func (c *Checkpoint) ReadFile(name string) ([]byte, error) {
	f, err := c.Files().Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, reason(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTextFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, reason(err))
	}
	if len(text) > maxTextFile {
		return nil, fmt.Errorf("%s: larger than %d MB", name, maxTextFile>>20)
	}
	if isPointer(text) {
		return nil, pointerError(name)
	}
	return text, nil
}

// Close closes the files or the store.
func (c *Checkpoint) Close() error {
	var first error
	if c.store != nil {
		first = c.store.Close()
	}
	for _, f := range c.files {
		if err := f.close(); first == nil {
			first = err
		}
	}
	c.files = nil
	c.gguf.Store(nil)
	return first
}

// findWeights returns the weight file or index to start from, or says what
// the folder holds instead.
func findWeights(fsys fs.FS) (string, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return "", fmt.Errorf("cannot be listed: %w", reason(err))
	}
	if len(entries) == 0 {
		return "", fmt.Errorf("empty, expected %s, %s and a tokenizer", configName, singleName)
	}
	found := func(pattern string) (string, bool) {
		for _, e := range entries {
			if ok, _ := filepath.Match(pattern, e.Name()); ok {
				return e.Name(), true
			}
		}
		return "", false
	}
	for _, name := range []string{singleName, indexName} {
		if _, ok := found(name); ok {
			return name, nil
		}
	}
	if name, err := chooseGGUF(entries); name != "" || err != nil {
		return name, err
	}
	for _, alien := range []struct{ pattern, advice string }{
		{"model-*-of-*.safetensors", "its index " + indexName + " is missing"},
		{"adapter_model.*", "this is an adapter, not a model"},
		{"consolidated*.safetensors", "rename and convert it to the Hugging Face layout"},
		{"pytorch_model*.bin", "convert the checkpoint to safetensors"},
		{"*.bin", "convert the checkpoint to safetensors"},
		{"*.pt*", "convert the checkpoint to safetensors"},
	} {
		if name, ok := found(alien.pattern); ok {
			return "", fmt.Errorf("no %s or %s, but %s: %s", singleName, indexName, name, alien.advice)
		}
	}
	return "", fmt.Errorf("no %s, %s or .gguf file among its %d entries", singleName, indexName, len(entries))
}

// pointerPrefix begins the text file that git leaves where a large file
// should be, when git-lfs was not there to fetch it.
const pointerPrefix = "version https://git-lfs.github.com/spec/"

func isPointer(data []byte) bool { return bytes.HasPrefix(data, []byte(pointerPrefix)) }

func pointerError(name string) error {
	return fmt.Errorf("%s: a Git LFS pointer instead of the file: run git lfs pull, or download the file itself", name)
}

// reason strips the operation and path that os errors repeat.
func reason(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
