package source

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/engine/weights"
)

const (
	partialEnd  = ".partial" // of a file that is being read
	pullPiece   = 1 << 20
	saveEvery   = 2 * time.Second
	unpackSpare = ".unpacking" // of a file that is being unpacked
)

// Progress hears how many bytes of the total are there; those of an earlier
// pull count.
type Progress func(done, total int64)

// Pull copies a model into the folder dir, created if need be: every object
// below a prefix of S3, the content of an archive there, or the files of a model
// of the Hugging Face hub that are needed to serve it. Calling it again resumes
// it: what has arrived of a file is kept as long as the file is the same. A file
// gets its name only when it is complete and its checksum right.
func Pull(ctx context.Context, from, dir string, log *slog.Logger, progress Progress) error {
	if IsHub(from) {
		h, err := NewHub(os.Getenv, "", log)
		if err != nil {
			return err
		}
		m, err := h.ParseHub(from)
		if err != nil {
			return err
		}
		h.Progress = progress
		return h.PullInto(ctx, m, dir)
	}
	l, err := parseLocation(from)
	if err != nil {
		return err
	}
	cfg, err := loadConfig(ctx, log)
	if err != nil {
		return err
	}
	return pull(ctx, newBucket(cfg, l, defaultTuning, log), dir, progress)
}

func pull(ctx context.Context, b *bucket, dir string, progress Progress) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	var objects []*object
	var err error
	archive := IsArchive(b.place.key)
	if archive {
		o, err := b.object(ctx, b.place.key)
		if err != nil {
			return err
		}
		objects = []*object{o}
	} else if objects, err = b.list(ctx); err != nil {
		return err
	}
	if len(objects) == 0 {
		return &Error{b.place.uri(b.place.key) + ": no objects there", fs.ErrNotExist}
	}
	if !archive {
		if objects, err = b.meant(objects); err != nil {
			return err
		}
	}
	p := &puller{tune: b.tune, throttles: &b.throttles, state: filepath.Join(dir, stateName), files: map[string]*download{}, progress: progress}
	gate := make(chan struct{}, headsAtOnce)
	for _, o := range objects {
		name := strings.TrimPrefix(o.key, b.place.key)
		if archive {
			name = o.key[strings.LastIndex(o.key, "/")+1:]
		}
		if name, err = localName(name); err != nil {
			return &Error{o.String() + ": " + err.Error(), err}
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		p.files[name] = &download{file: o, version: o.etag, path: path, partial: path + partialEnd, keepPartial: archive,
			verifier: func(ctx context.Context) verifier {
				gate <- struct{}{}
				defer func() { <-gate }()
				return newTally(o.checksum(ctx), o.size)
			}}
	}
	if err := p.run(ctx); err != nil {
		return err
	}
	if archive {
		for _, d := range p.files {
			return unpackInto(ctx, d, dir)
		}
	}
	return nil
}

// puller copies remote files to the disk.
type puller struct {
	tune        tuning
	throttles   *atomic.Int64
	state       string               // the file in which it keeps what has arrived
	files       map[string]*download // by name in the state
	progress    Progress
	done, total int64

	saved  time.Time
	saving chan error // the result of a save that is under way; nil if none is
}

// download is one remote file on its way to the disk.
type download struct {
	file        remoteFile
	version     string // changes with the content
	path        string
	partial     string // the file's path until it is complete
	keepPartial bool   // also then
	verifier    func(context.Context) verifier

	opened   *os.File // the partial file
	have     ranges   // on the disk, or in the partial file
	dirty    bool     // something of have is not synced
	complete bool     // the file has its name
	check    *prefixCheck
}

// run reads what is missing.
func (p *puller) run(ctx context.Context) (err error) {
	known, err := readState(p.state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the requests of checks that close waits for
	unfinished := map[string]*streamFile{}
	var pieces []weights.Piece
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		d := p.files[name]
		if err := d.open(ctx, known[name]); err != nil {
			return err
		}
		size := d.file.length()
		p.total += size
		p.done += d.have.bytes()
		if d.complete {
			continue
		}
		unfinished[name] = &streamFile{remoteFile: d.file}
		for _, r := range d.have.missing(size) {
			for at := r[0]; at < r[1]; at += pullPiece {
				pieces = append(pieces, weights.Piece{File: name, Offset: at, Length: int(min(pullPiece, r[1]-at))})
			}
		}
	}
	p.progress(p.done, p.total)
	if err := p.stream(ctx, unfinished, pieces); err != nil {
		return err
	}
	for _, d := range p.files {
		if !d.complete {
			if err := d.finish(); err != nil {
				return err
			}
		}
	}
	return nil
}

// stream reads the pieces, and saves from time to time what has arrived.
func (p *puller) stream(ctx context.Context, files map[string]*streamFile, pieces []weights.Piece) error {
	p.saved = time.Now()
	return newStream(p.tune, p.throttles, files, pieces).run(ctx, func(i int, data []byte) error {
		piece := pieces[i]
		d := p.files[piece.File]
		if _, err := d.opened.WriteAt(data, piece.Offset); err != nil {
			return err
		}
		d.have.add(piece.Offset, piece.Offset+int64(piece.Length))
		d.check.arrived(d.have.prefix())
		d.dirty = true
		p.done += int64(piece.Length)
		p.progress(p.done, p.total)
		return p.saveInBackground()
	})
}

// saveInBackground saves every now and then while reading continues: a disk may
// take a while to sync.
func (p *puller) saveInBackground() error {
	if p.saving != nil {
		select {
		case err := <-p.saving:
			p.saving, p.saved = nil, time.Now()
			return err
		default:
			return nil
		}
	}
	if time.Since(p.saved) < saveEvery {
		return nil
	}
	save := p.save()
	p.saving = make(chan error, 1)
	go func() { p.saving <- save() }()
	return nil
}

// save returns a function that writes down what is in the files now, after that
// is on the disk: a crash must not leave a state that promises more.
func (p *puller) save() func() error {
	state := map[string]fileState{}
	var dirty []*os.File
	for name, d := range p.files {
		if d.dirty {
			dirty = append(dirty, d.opened)
			d.dirty = false
		}
		state[name] = fileState{d.version, d.file.length(), slices.Clone(d.have)}
	}
	return func() error {
		for _, f := range dirty {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		return writeState(p.state, state)
	}
}

// close saves what has arrived and closes the files.
func (p *puller) close() (err error) {
	if p.saving != nil {
		err = <-p.saving
	}
	err = errors.Join(err, p.save()())
	for _, d := range p.files {
		if d.opened != nil {
			d.check.stop()
			err = errors.Join(err, d.opened.Close())
		}
	}
	return err
}

// open opens the partial file and keeps of it what is still good.
func (d *download) open(ctx context.Context, known fileState) (err error) {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o777); err != nil {
		return err
	}
	size := d.file.length()
	same := known.Version == d.version && known.Size == size && known.Have.valid(size)
	if same && known.Have.bytes() == size && hasSize(d.path, size) {
		d.have, d.complete = known.Have, true
		return nil
	}
	if same && hasSize(d.partial, size) {
		d.have = known.Have
	}
	if d.opened, err = os.OpenFile(d.partial, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return err
	}
	d.check = startCheck(ctx, d.opened, size, d.verifier)
	d.check.arrived(d.have.prefix())
	return d.opened.Truncate(size)
}

func hasSize(path string, size int64) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// finish compares the file with its checksum and gives it its name.
func (d *download) finish() error {
	if err := d.check.wait(); err != nil {
		d.have = nil
		return &Error{d.file.String() + ": " + err.Error() + "; the next pull downloads it again", err}
	}
	if d.keepPartial {
		return nil
	}
	d.complete = true
	err := os.Rename(d.partial, d.path)
	if errors.Is(err, fs.ErrNotExist) && hasSize(d.path, d.file.length()) {
		return nil // another process has downloaded it, too, where files cannot be locked
	}
	return err
}

// unpackInto unpacks the archive that d has read into dir, and removes it.
func unpackInto(ctx context.Context, d *download, dir string) error {
	f, err := os.Open(d.partial)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unpack(f, func(e entry, body io.Reader) error {
		return writeFile(filepath.Join(dir, filepath.FromSlash(e.name)), reader(func(p []byte) (int, error) {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			return body.Read(p)
		}))
	})
	if err != nil {
		return &Error{d.file.String() + ": " + err.Error(), err}
	}
	return errors.Join(os.Remove(d.partial), os.Remove(filepath.Join(dir, stateName)))
}

// reader is a function that is an io.Reader.
type reader func(p []byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

// writeFile writes a file that has its name only once it is complete.
func writeFile(path string, body io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.Create(path + unpackSpare)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+unpackSpare))
	}
	return os.Rename(path+unpackSpare, path)
}
