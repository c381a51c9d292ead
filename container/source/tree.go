package source

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-ai/millrace/engine/weights"
)

// firstBytes is how much of a weight file is read at once to have its header.
const firstBytes = 128 << 10

// tree is the files of a model below a prefix of S3: a weights.Store. Each
// text file is read once: when it is first opened, or before if it is one of
// those that always are.
type tree struct {
	ctx    context.Context
	cancel context.CancelFunc
	bucket *bucket
	dir    string // the prefix that holds config.json
	texts  map[string]*textFile
	files  map[string]*weightFile
}

var _ weights.Store = (*tree)(nil)

// textFile is an object that is read whole.
type textFile struct {
	*object
	read func() ([]byte, error)
}

// weightFile is an object that is read in pieces.
type weightFile struct {
	*object
	tally *tally
	ready func() error // fills begin and tally

	mu    sync.Mutex
	begin []byte // of the object: as much as has been requested so far
}

// Text files of a model that are always wanted, so they are read before they are
// opened.
var wanted = []string{"config.json", "generation_config.json", indexName, "tokenizer_config.json", "tokenizer.json"}

const (
	configName = "config.json"
	indexName  = "model.safetensors.index.json"
	weightsEnd = ".safetensors"
	// headsAtOnce bounds the requests for the beginnings of files.
	headsAtOnce = 16
)

// openTree lists the prefix and finds the model below it. ctx bounds all
// reading until Close.
func openTree(ctx context.Context, b *bucket) (*tree, error) {
	objects, err := b.list(ctx)
	if err != nil {
		return nil, err
	}
	if len(objects) == 0 {
		return nil, &Error{b.place.uri(b.place.key) + ": no objects there, expected config.json, model.safetensors and a tokenizer", fs.ErrNotExist}
	}
	if objects, err = b.meant(objects); err != nil {
		return nil, err
	}
	var names []string
	for _, o := range objects {
		names = append(names, strings.TrimPrefix(o.key, b.place.key))
	}
	dir, err := findModel(names)
	if err != nil {
		return nil, &Error{b.place.uri(b.place.key) + ": " + err.Error(), err}
	}
	t := &tree{bucket: b, dir: b.place.key + dir, texts: map[string]*textFile{}, files: map[string]*weightFile{}}
	t.ctx, t.cancel = context.WithCancel(ctx)
	gate := make(chan struct{}, headsAtOnce)
	for _, o := range objects {
		name, ok := strings.CutPrefix(o.key, t.dir)
		switch {
		case !ok || !fs.ValidPath(name):
		case isWeights(name):
			t.files[name] = t.weightFile(o, gate)
		default:
			t.texts[name] = &textFile{o, sync.OnceValues(func() ([]byte, error) { return o.readAll(t.ctx) })}
		}
	}
	for _, name := range wanted {
		if f := t.texts[name]; f != nil {
			go func() { _, _ = f.read() }()
		}
	}
	return t, nil
}

// weightFile begins to read the beginning of o and its checksum.
func (t *tree) weightFile(o *object, gate chan struct{}) *weightFile {
	f := &weightFile{object: o}
	f.ready = sync.OnceValue(func() error {
		gate <- struct{}{}
		defer func() { <-gate }()
		sum := make(chan checksum, 1)
		go func() { sum <- o.checksum(t.ctx) }()
		f.begin = make([]byte, min(o.size, firstBytes))
		err := o.readAt(t.ctx, f.begin, 0)
		f.tally = newTally(<-sum, o.size)
		return err
	})
	if !strings.Contains(strings.TrimPrefix(o.key, t.dir), "/") {
		go func() { _ = f.ready() }()
	}
	return f
}

// isWeights reports whether a file is read in pieces.
func isWeights(name string) bool {
	return strings.HasSuffix(name, weightsEnd) || weights.IsGGUF(name)
}

// meant returns the objects that are the GGUF file of the place, or all if it names
// none.
func (b *bucket) meant(objects []*object) ([]*object, error) {
	if b.place.file == "" {
		return objects, nil
	}
	files, err := weights.Splits(b.place.file)
	if err != nil {
		return nil, err
	}
	objects = slices.DeleteFunc(objects, func(o *object) bool {
		return !slices.Contains(files, strings.TrimPrefix(o.key, b.place.key))
	})
	if len(objects) == 0 {
		return nil, &Error{b.place.uri(b.place.key+b.place.file) + ": no such object", fs.ErrNotExist}
	}
	return objects, nil
}

func (t *tree) missing(operation, name string) error {
	return &fs.PathError{Op: operation, Path: t.bucket.place.uri(t.dir + name), Err: fs.ErrNotExist}
}

// Size implements weights.Store.
func (t *tree) Size(name string) (int64, error) {
	if f := t.files[name]; f != nil {
		return f.size, nil
	}
	return 0, t.missing("stat", name)
}

// ReadAt implements weights.Store.
func (t *tree) ReadAt(name string, p []byte, offset int64) error {
	f := t.files[name]
	if f == nil {
		return t.missing("read", name)
	}
	if err := f.ready(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if have, need := int64(len(f.begin)), offset+int64(len(p)); have < need {
		more := make([]byte, need-have)
		if err := f.readAt(t.ctx, more, have); err != nil {
			return err
		}
		f.begin = append(f.begin, more...)
	}
	copy(p, f.begin[offset:])
	return nil
}

// Stream implements weights.Store.
func (t *tree) Stream(pieces []weights.Piece, take func(i int, data []byte) error) error {
	used, first := map[string]*streamFile{}, map[string]int64{}
	for _, p := range pieces {
		if at, ok := first[p.File]; !ok || p.Offset < at {
			first[p.File] = p.Offset
		}
	}
	for _, p := range pieces {
		f := t.files[p.File]
		switch {
		case f == nil:
			return t.missing("read", p.File)
		case p.Offset < 0 || p.Length <= 0 || p.Offset > f.size-int64(p.Length):
			return fmt.Errorf("%s: %d bytes from byte %d on, the object has %d", f, p.Length, p.Offset, f.size)
		case used[p.File] != nil:
			continue
		}
		if err := f.ready(); err != nil {
			return err
		}
		start := min(int64(len(f.begin)), first[p.File])
		f.tally.add(f.begin[:start], 0)
		used[p.File] = &streamFile{f.object, f.tally, start}
	}
	s := newStream(t.bucket.tune, &t.bucket.throttles, used, pieces)
	for name := range used {
		t.files[name].begin = nil
	}
	if err := s.run(t.ctx, take); err != nil {
		return err
	}
	for _, f := range used {
		if err := f.tally.check(); err != nil {
			return &Error{f.String() + ": " + err.Error(), err}
		}
	}
	return nil
}

// Close implements weights.Store.
func (t *tree) Close() error {
	t.cancel()
	return nil
}

// Open implements fs.FS: it reads the file.
func (t *tree) Open(name string) (fs.File, error) {
	if f := t.texts[name]; f != nil {
		data, err := f.read()
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return &memFile{memInfo: memInfo{name: path.Base(name), size: f.size}, Reader: *bytes.NewReader(data)}, nil
	}
	if f := t.files[name]; f != nil {
		// Listed, with its size, but not for reading whole.
		return &memFile{memInfo: memInfo{name: path.Base(name), size: f.size}}, nil
	}
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	var all []memInfo
	for other, f := range t.texts {
		all = append(all, memInfo{name: other, size: f.size})
	}
	for other, f := range t.files {
		all = append(all, memInfo{name: other, size: f.size})
	}
	d, err := openDir(name, all)
	if err != nil {
		return nil, t.missing("open", name)
	}
	return d, nil
}
