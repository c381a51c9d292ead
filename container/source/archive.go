package source

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-ai/millrace/engine/weights"
)

// maxText bounds a file that is not weights, and what is kept of all those of an
// archive. Whole models have a tenth of it.
const maxText = 256 << 20

// archive is a weights.Store of the files of an archive, which are unpacked into
// memory while it is read. A caller that wants a file waits until it has arrived,
// or until the end of the archive. The memory of weights is reused as Stream hands
// them over. Until Stream is called, and where they are in another order than it
// wants, all that has arrived is held, as far as memory is free.
type archive struct {
	name   string
	memory int64 // bytes of weights that may be held
	cancel context.CancelFunc
	closer io.Closer
	log    *slog.Logger
	done   chan struct{} // reading has ended
	chunks *arena

	mu       sync.Mutex
	changed  sync.Cond
	texts    map[string][]byte    // complete
	length   int64                // of all texts
	files    map[string]*unpacked // begun
	others   []memInfo            // skipped
	dir      string               // that holds config.json, ends in "/" or is empty
	found    bool                 // dir is known
	ended    bool
	err      error // why it ended, nil for the archive's end
	waiters  []*waiter
	opened   bool // headers and config.json are known: Stream will follow, or Close
	streamed bool // no weights are wanted any more
	// What Stream wants or has just taken; "" before and after it.
	wantFile string
	wantEnd  int64 // in the file
}

var _ weights.Store = (*archive)(nil)

// waiter is a caller that waits for a file.
type waiter struct {
	ready   func() bool
	weights bool // it is weights
}

// openArchive begins to read r, called name in messages, of whose weights memory
// bytes may be held. The archive closes r.
func openArchive(name string, r io.ReadCloser, memory int64, log *slog.Logger) *archive {
	a := &archive{name: name, memory: memory, closer: r, log: log, done: make(chan struct{}), chunks: newArena(chunkBytes, mostKept), texts: map[string][]byte{}, files: map[string]*unpacked{}}
	a.changed.L = &a.mu
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	go a.read(ctx, r)
	return a
}

// openArchiveFile begins to read the archive at a path.
func openArchiveFile(path string, memory int64, log *slog.Logger) (*archive, error) {
	f, err := weights.OpenFile(path)
	if err != nil {
		return nil, err
	}
	return openArchive(path, f, memory, log), nil
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
	if err == nil {
		err = a.findDir()
	}
	a.ended, a.err = true, a.wrap(err)
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
	case isWeights(e.name) && !strings.HasPrefix(path.Base(e.name), "consolidated") && (!a.found || a.inDir(e.name)):
		return a.keepWeights(ctx, e, body)
	case slices.Contains([]string{".json", ".jinja", ".txt", ".yaml", ".yml", ".model"}, path.Ext(e.name)) && e.size <= maxText:
		if a.length += e.size; a.length > maxText {
			return fmt.Errorf("%q has %d MB, beside %d MB of files that are not weights: they may have %d MB together; pack the files of the model alone", e.name, e.size>>20, (a.length-e.size)>>20, maxText>>20)
		}
		data := make([]byte, e.size)
		if _, err := io.ReadFull(body, data); err != nil {
			return err
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if _, twice := a.texts[e.name]; twice {
			return fmt.Errorf("the archive has %q twice", e.name)
		}
		a.texts[e.name] = data
		a.guessDir(e.name)
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
	f := &unpacked{size: e.size}
	a.mu.Lock()
	twice := a.files[e.name] != nil
	if !twice {
		a.files[e.name] = f
		a.guessDir(e.name)
		a.changed.Broadcast()
	}
	a.mu.Unlock()
	if twice {
		return fmt.Errorf("the archive has %q twice", e.name)
	}
	for at := int64(0); at < e.size; {
		chunk, err := a.newChunk(ctx, e.name, f)
		if err != nil {
			return fmt.Errorf("%q: %w", e.name, err)
		}
		if chunk == nil {
			return nil // the rest is skipped
		}
		for len(chunk) > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := io.ReadFull(body, chunk[:min(len(chunk), gapPart)])
			chunk = chunk[n:]
			at += int64(n)
			a.mu.Lock()
			f.arrived = at
			a.changed.Broadcast()
			a.mu.Unlock()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// newChunk returns memory for the next bytes of f, nil once no weights are wanted
// any more. It waits while Stream has enough of f to take, and while the memory is
// full, unless a caller waits for a later file: that one would never arrive.
func (a *archive) newChunk(ctx context.Context, name string, f *unpacked) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	enough := func() bool {
		return a.wantFile == name && f.arrived >= a.wantEnd && len(f.chunks)-f.given >= mostKept
	}
	full := func() bool {
		held := a.chunks.lent()
		return held > mostKept*chunkBytes && held+chunkBytes > a.memory
	}
	for !a.streamed && ctx.Err() == nil && (enough() || full()) {
		if full() && slices.ContainsFunc(a.waiters, func(w *waiter) bool { return !(a.found && w.ready()) && (w.weights || !a.opened) }) {
			return nil, fmt.Errorf("%d MB of weights are held, because what is needed first is further back in the archive, and no more memory is free: pack config.json and the index first, then the weights in the order of their names, or give a folder", a.chunks.lent()>>20)
		}
		a.changed.Wait()
	}
	if a.streamed {
		return nil, nil
	}
	chunk, err := a.chunks.get()
	if err != nil {
		return nil, err
	}
	chunk = chunk[:min(chunkBytes, f.size-f.arrived)]
	f.chunks = append(f.chunks, chunk)
	return chunk, nil
}

// inDir reports whether a file is in the folder of the model, not below it.
func (a *archive) inDir(name string) bool {
	return name == a.dir+path.Base(name)
}

// guessDir guesses that the folder of a file that has arrived is the model's: if
// it is the uppermost, or has weights beside config.json, or is GGUF. Loading need not wait
// for the end then, where findDir compares the guess with all names. The caller
// holds the lock.
func (a *archive) guessDir(name string) {
	dir := strings.TrimSuffix(name, path.Base(name))
	_, ok := a.texts[dir+configName]
	if !a.found && (ok && (dir == "" || a.hasWeights(dir)) || len(weights.ModelFiles([]string{name})) > 0) {
		a.dir, a.found = dir, true
	}
}

// hasWeights reports whether weights in dir have begun to arrive, so that their
// names are known. The caller holds the lock.
func (a *archive) hasWeights(dir string) bool {
	_, indexed := a.texts[dir+indexName]
	if indexed || a.files[dir+"model"+weightsEnd] != nil {
		return true
	}
	for _, name := range weights.ModelFiles(slices.Collect(maps.Keys(a.files))) {
		if dir+path.Base(name) == name {
			return true
		}
	}
	return false
}

// findDir finds the folder of the model once all names are known. The caller
// holds the lock.
func (a *archive) findDir() error {
	names := slices.AppendSeq(slices.Collect(maps.Keys(a.texts)), maps.Keys(a.files))
	dir, err := findModel(names)
	if err == nil && a.found && dir != a.dir {
		err = fmt.Errorf("several models: in %q and %q; pack one", a.dir, dir)
	}
	a.dir, a.found = dir, true
	warnOfSettings(a.log, a.name, func(name string) bool { return a.texts[dir+name] != nil })
	return err
}

// wait waits until ready says so, called with the lock held and the folder of
// the model known, or until the end. ofWeights says what is waited for. It
// returns with the lock held.
func (a *archive) wait(ofWeights bool, ready func() bool) error {
	a.mu.Lock()
	if !a.ended && !(a.found && ready()) {
		w := &waiter{ready, ofWeights}
		a.waiters = append(a.waiters, w)
		a.changed.Broadcast() // the reader may wait until what it has is taken
		for !a.ended && !(a.found && ready()) {
			a.changed.Wait()
		}
		a.waiters = slices.DeleteFunc(a.waiters, func(o *waiter) bool { return o == w })
	}
	return a.err
}

// open notes that the checkpoint is open.
func (a *archive) open() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened = true
	a.changed.Broadcast()
}

func (a *archive) missing(operation, name string) error {
	return &fs.PathError{Op: operation, Path: a.name + ": " + name, Err: fs.ErrNotExist}
}

// file waits for the beginning of a weight file, up to byte end. It returns with
// the lock held.
func (a *archive) file(name string, end int64) (*unpacked, error) {
	err := a.wait(true, func() bool {
		f := a.files[a.dir+name]
		return f != nil && f.arrived >= min(end, f.size)
	})
	f := a.files[a.dir+name]
	switch {
	case err != nil:
	case f == nil:
		err = a.missing("read", name)
	case end > f.size:
		err = fmt.Errorf("%s: %s: byte %d is wanted, it has %d", a.name, name, end, f.size)
	}
	return f, err
}

// Size implements weights.Store.
func (a *archive) Size(name string) (int64, error) {
	f, err := a.file(name, 0)
	defer a.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return f.size, nil
}

// ReadAt implements weights.Store.
func (a *archive) ReadAt(name string, p []byte, offset int64) error {
	f, err := a.file(name, offset+int64(len(p)))
	defer a.mu.Unlock()
	if err == nil {
		f.copy(p, offset)
	}
	return err
}

// Stream implements weights.Store: pieces come in the order of the files'
// bytes, and their memory is used again as soon as no later piece needs it.
func (a *archive) Stream(pieces []weights.Piece, take func(i int, data []byte) error) error {
	order := make([]int, len(pieces))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(pieces[i].File, pieces[j].File), cmp.Compare(pieces[i].Offset, pieces[j].Offset))
	})
	defer a.want("", 0)
	var spare []byte // for pieces that no chunk holds whole
	for n, i := range order {
		p := pieces[i]
		if p.Offset < 0 || p.Length < 0 {
			return fmt.Errorf("%s: %s: %d bytes from byte %d on", a.name, p.File, p.Length, p.Offset)
		}
		end := p.Offset + int64(p.Length)
		a.want(p.File, end)
		f, err := a.file(p.File, end)
		if err != nil {
			a.mu.Unlock()
			return err
		}
		data := f.bytes(p.Offset, p.Length, &spare)
		a.mu.Unlock()
		if err := take(i, data); err != nil {
			return err
		}
		until := f.size
		if n+1 < len(order) && pieces[order[n+1]].File == p.File {
			until = pieces[order[n+1]].Offset
		}
		a.mu.Lock()
		f.release(until, a.chunks)
		a.mu.Unlock()
	}
	a.want("", 0)
	// The checksums of the archive are compared at its end.
	a.mu.Lock()
	a.streamed = true
	a.changed.Broadcast()
	a.mu.Unlock()
	err := a.wait(false, func() bool { return false })
	a.mu.Unlock()
	return err
}

// want says which bytes of a weight file Stream waits for, so that reading continues.
func (a *archive) want(name string, end int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if name != "" {
		name = a.dir + name
	}
	a.wantFile, a.wantEnd = name, end
	a.changed.Broadcast()
}

// Close implements weights.Store. It waits until reading has ended.
func (a *archive) Close() error {
	a.cancel()
	a.mu.Lock()
	a.changed.Broadcast() // reading may wait for Stream
	a.mu.Unlock()
	err := a.closer.Close()
	<-a.done
	a.mu.Lock()
	defer a.mu.Unlock()
	a.chunks.close()
	a.texts, a.files = nil, nil
	return err
}

// Open implements fs.FS. A folder is complete as soon as config.json and
// weights have been seen, which is what the root is listed for; another file
// is waited for.
func (a *archive) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	err := a.wait(false, func() bool {
		if name == "." {
			return a.hasWeights(a.dir)
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
		add(full, f.size)
	}
	for _, o := range a.others {
		add(o.name, o.size)
	}
	return openDir(name, all)
}
