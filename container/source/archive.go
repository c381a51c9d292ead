package source

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-ai/millrace/engine/weights"
)

// maxText bounds what is kept of files that are not weights.
const maxText = 256 << 20

// archive is the files of a model that are unpacked into memory while the
// archive is read: a weights.Store. What asks for a file waits until it has
// arrived, or until the end says that there is none. Weights are memory of
// their own, given back as Stream hands them over.
type archive struct {
	name   string
	cancel context.CancelFunc
	closer io.Closer
	done   chan struct{} // reading has ended

	mu      sync.Mutex
	changed sync.Cond
	texts   map[string][]byte    // complete
	files   map[string]*unpacked // begun
	others  []memInfo            // passed over
	dir     string               // that holds config.json, ends in "/" or is empty
	found   bool                 // dir is known
	ended   bool
	err     error // why it ended, nil for the archive's end
}

var _ weights.Store = (*archive)(nil)

// unpacked is a weight file, or what has arrived of it.
type unpacked struct {
	memory  []byte
	arrived int64
}

// openArchive begins to read r, called name in messages. The archive closes r.
func openArchive(name string, r io.ReadCloser) *archive {
	a := &archive{name: name, closer: r, done: make(chan struct{}), texts: map[string][]byte{}, files: map[string]*unpacked{}}
	a.changed.L = &a.mu
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	go a.read(ctx, r)
	return a
}

// openArchiveFile begins to read the archive at a path.
func openArchiveFile(path string) (*archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return openArchive(path, f), nil
}

func (a *archive) read(ctx context.Context, r io.Reader) {
	defer close(a.done)
	err := unpack(r, func(e entry, body io.Reader) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return a.keep(ctx, e, body)
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended, a.err = true, a.wrap(err)
	if err == nil && !a.found {
		a.err = a.findDir()
	}
	a.changed.Broadcast()
}

// wrap names the archive, unless err does.
func (a *archive) wrap(err error) error {
	var said *Error
	if err == nil || errors.As(err, &said) {
		return err
	}
	return &Error{a.name + ": " + strings.Join(strings.Fields(err.Error()), " "), err}
}

// keep takes one file.
func (a *archive) keep(ctx context.Context, e entry, body io.Reader) error {
	switch {
	case strings.Count(e.name, "/") > searchDepth:
	case strings.HasSuffix(e.name, weightsEnd) && !strings.HasPrefix(path.Base(e.name), "consolidated"):
		return a.keepWeights(ctx, e, body)
	case slices.Contains([]string{".json", ".jinja", ".txt", ".yaml", ".yml", ".model"}, path.Ext(e.name)) && e.size <= maxText:
		data := make([]byte, e.size)
		if _, err := io.ReadFull(body, data); err != nil {
			return err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if _, twice := a.texts[e.name]; twice {
			return fmt.Errorf("%q comes twice", e.name)
		}
		a.texts[e.name] = data
		if path.Base(e.name) == configName && !a.found && strings.Count(e.name, "/") == 0 {
			a.dir, a.found = "", true // deeper ones may not be the uppermost
		}
		a.changed.Broadcast()
		return nil
	}
	a.mu.Lock()
	a.others = append(a.others, memInfo{name: e.name, size: e.size})
	a.mu.Unlock()
	return nil
}

// keepWeights takes a weight file as it comes.
func (a *archive) keepWeights(ctx context.Context, e entry, body io.Reader) error {
	memory, err := reserve(e.size)
	if err != nil {
		return fmt.Errorf("%q: %d bytes of memory: %w", e.name, e.size, err)
	}
	f := &unpacked{memory: memory}
	a.mu.Lock()
	if a.files[e.name] != nil {
		a.mu.Unlock()
		free(memory)
		return fmt.Errorf("%q comes twice", e.name)
	}
	a.files[e.name] = f
	a.changed.Broadcast()
	a.mu.Unlock()
	for at := int64(0); at < e.size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(body, memory[at:min(e.size, at+gapPart)])
		at += int64(n)
		a.mu.Lock()
		f.arrived = at
		a.changed.Broadcast()
		a.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// findDir finds the folder of the model once all names are known. The caller
// holds the lock.
func (a *archive) findDir() error {
	var names []string
	for name := range a.texts {
		names = append(names, name)
	}
	dir, err := findModel(names)
	if err != nil {
		return a.wrap(err)
	}
	a.dir, a.found = dir, true
	return nil
}

// wait waits until ready says so, called with the lock held and the folder of
// the model known, or until the end. It returns with the lock held.
func (a *archive) wait(ready func() bool) error {
	a.mu.Lock()
	for !a.ended && !(a.found && ready()) {
		a.changed.Wait()
	}
	return a.err
}

func (a *archive) missing(operation, name string) error {
	return &fs.PathError{Op: operation, Path: a.name + ": " + name, Err: fs.ErrNotExist}
}

// file waits for the beginning of a weight file, up to byte end.
func (a *archive) file(name string, end int64) (*unpacked, error) {
	var f *unpacked
	err := a.wait(func() bool {
		f = a.files[a.dir+name]
		return f != nil && f.arrived >= min(end, int64(len(f.memory)))
	})
	defer a.mu.Unlock()
	if err == nil && f == nil {
		if f = a.files[a.dir+name]; f == nil {
			err = a.missing("read", name)
		}
	}
	if err == nil && end > int64(len(f.memory)) {
		err = fmt.Errorf("%s: %s: byte %d is wanted, it has %d", a.name, name, end, len(f.memory))
	}
	return f, err
}

// Size implements weights.Store.
func (a *archive) Size(name string) (int64, error) {
	f, err := a.file(name, 0)
	if err != nil {
		return 0, err
	}
	return int64(len(f.memory)), nil
}

// ReadAt implements weights.Store.
func (a *archive) ReadAt(name string, p []byte, offset int64) error {
	f, err := a.file(name, offset+int64(len(p)))
	if err != nil {
		return err
	}
	copy(p, f.memory[offset:])
	return nil
}

// Stream implements weights.Store: pieces come in the order of the files'
// bytes, and their memory is given back as soon as no later piece needs it.
func (a *archive) Stream(pieces []weights.Piece, take func(i int, data []byte) error) error {
	order := make([]int, len(pieces))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(pieces[i].File, pieces[j].File), cmp.Compare(pieces[i].Offset, pieces[j].Offset))
	})
	given := int64(0) // bytes of the file before this are given back
	for n, i := range order {
		p := pieces[i]
		if p.Offset < 0 || p.Length < 0 {
			return fmt.Errorf("%s: %s: %d bytes from byte %d on", a.name, p.File, p.Length, p.Offset)
		}
		f, err := a.file(p.File, p.Offset+int64(p.Length))
		if err != nil {
			return err
		}
		if err := take(i, f.memory[p.Offset:][:p.Length]); err != nil {
			return err
		}
		if n > 0 && pieces[order[n-1]].File != p.File {
			given = 0
		}
		until := p.Offset + int64(p.Length)
		if n+1 < len(order) && pieces[order[n+1]].File == p.File {
			until = min(until, pieces[order[n+1]].Offset)
		}
		if until-given >= gapPart {
			discard(f.memory, given, until)
			given = until / gapPart * gapPart
		}
	}
	// The checksums of the archive are compared at its end.
	err := a.wait(func() bool { return false })
	a.mu.Unlock()
	return err
}

// Close implements weights.Store. It waits until reading has ended.
func (a *archive) Close() error {
	a.cancel()
	err := a.closer.Close()
	<-a.done
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.files {
		free(f.memory)
	}
	a.files = nil
	return err
}

// Open implements fs.FS. A folder is complete as soon as config.json and
// weights have been seen, which is what the root is listed for; another file
// is waited for.
func (a *archive) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	err := a.wait(func() bool {
		if name == "." {
			_, indexed := a.texts[a.dir+indexName]
			return indexed || a.files[a.dir+"model"+weightsEnd] != nil
		}
		_, there := a.texts[a.dir+name]
		return there
	})
	defer a.mu.Unlock()
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if data, ok := a.texts[a.dir+name]; ok {
		return &memFile{memInfo: memInfo{name: path.Base(name), size: int64(len(data))}, Reader: *bytes.NewReader(data)}, nil
	}
	var all []memInfo
	add := func(full string, size int64) {
		if inside, ok := strings.CutPrefix(full, a.dir); ok {
			all = append(all, memInfo{name: inside, size: size})
		}
	}
	for full, data := range a.texts {
		add(full, int64(len(data)))
	}
	for full, f := range a.files {
		add(full, int64(len(f.memory)))
	}
	for _, o := range a.others {
		add(o.name, o.size)
	}
	return openDir(name, all)
}
