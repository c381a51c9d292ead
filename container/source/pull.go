package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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

// Pull copies what is at an S3 location into the folder dir, made if need be:
// every object below a prefix, or the content of an archive. It is resumed by
// calling it again: what has arrived of an object is kept as long as the object
// is the same. A file gets its name only when it is complete and its checksum
// right.
func Pull(ctx context.Context, from, dir string, log *slog.Logger, progress Progress) error {
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
	if IsArchive(b.key) {
		o, err := b.object(ctx, b.key)
		if err != nil {
			return err
		}
		objects = []*object{o}
	} else if objects, err = b.list(ctx); err != nil {
		return err
	}
	if len(objects) == 0 {
		return &Error{b.uri(b.key) + ": no objects there", fs.ErrNotExist}
	}
	files := map[string]*download{}
	for _, o := range objects {
		name := strings.TrimPrefix(o.key, b.key)
		if IsArchive(b.key) {
			name = o.key[strings.LastIndex(o.key, "/")+1:]
		}
		if name, err = localName(name); err != nil {
			return &Error{o.name() + ": " + err.Error(), err}
		}
		files[name] = &download{object: o, path: filepath.Join(dir, filepath.FromSlash(name))}
	}
	p := &puller{bucket: b, dir: dir, files: files, progress: progress}
	if err := p.run(ctx, !IsArchive(b.key)); err != nil {
		return err
	}
	if IsArchive(b.key) {
		for _, d := range files {
			return unpackInto(ctx, d, dir)
		}
	}
	return nil
}

// puller copies objects to files.
type puller struct {
	*bucket
	dir         string
	files       map[string]*download // by name below dir
	progress    Progress
	done, total int64
}

// download is one object on its way to a file.
type download struct {
	*object
	path     string
	file     *os.File // of the partial file
	have     ranges   // on the disk, or in file
	dirty    bool     // something of have is not synced
	complete bool     // the file has its name
}

// run reads what is missing. rename gives complete files their names.
func (p *puller) run(ctx context.Context, rename bool) (err error) {
	known, err := readState(p.dir)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, p.save())
		for _, d := range p.files {
			if d.file != nil {
				err = errors.Join(err, d.file.Close())
			}
		}
	}()
	unfinished := map[string]*weightFile{}
	var pieces []weights.Piece
	for name, d := range p.files {
		if err := d.open(known[name]); err != nil {
			return err
		}
		p.total += d.size
		p.done += d.have.bytes()
		if d.complete {
			continue
		}
		unfinished[name] = &weightFile{object: d.object, tally: newTally(checksum{}, d.size)}
		for _, r := range d.have.missing(d.size) {
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
			if err := d.finish(ctx, rename); err != nil {
				return err
			}
		}
	}
	return nil
}

// stream reads the pieces, and saves from time to time what has arrived.
func (p *puller) stream(ctx context.Context, files map[string]*weightFile, pieces []weights.Piece) error {
	saved := time.Now()
	return newStream(p.tune, &p.throttles, files, pieces).run(ctx, func(i int, data []byte) error {
		piece := pieces[i]
		d := p.files[piece.File]
		if _, err := d.file.WriteAt(data, piece.Offset); err != nil {
			return err
		}
		d.have.add(piece.Offset, piece.Offset+int64(piece.Length))
		d.dirty = true
		p.done += int64(piece.Length)
		p.progress(p.done, p.total)
		if time.Since(saved) < saveEvery {
			return nil
		}
		defer func() { saved = time.Now() }()
		return p.save()
	})
}

// save writes down what is in the files, after that is on the disk: after a
// crash nothing may be taken for there that is not.
func (p *puller) save() error {
	state := map[string]fileState{}
	for name, d := range p.files {
		if d.dirty {
			if err := d.file.Sync(); err != nil {
				return err
			}
			d.dirty = false
		}
		state[name] = fileState{d.etag, d.size, d.have}
	}
	return writeState(p.dir, state)
}

// open opens the partial file and keeps of it what is still good.
func (d *download) open(known fileState) (err error) {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o777); err != nil {
		return err
	}
	same := known.ETag == d.etag && known.Size == d.size && known.Have.valid(d.size)
	if same && known.Have.bytes() == d.size && hasSize(d.path, d.size) {
		d.have, d.complete = known.Have, true
		return nil
	}
	partial := d.path + partialEnd
	if same && hasSize(partial, d.size) {
		d.have = known.Have
	}
	if d.file, err = os.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return err
	}
	return d.file.Truncate(d.size)
}

func hasSize(path string, size int64) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// finish compares the file with the object's checksum and gives it its name.
func (d *download) finish(ctx context.Context, rename bool) error {
	sum := newTally(d.checksum(ctx), d.size)
	if sum.algorithm != nil {
		buf := make([]byte, pullPiece)
		for at := int64(0); at < d.size; {
			n, err := d.file.ReadAt(buf, at)
			if n == 0 && err != nil {
				return fmt.Errorf("read back: %w", err)
			}
			sum.add(buf[:n], at)
			at += int64(n)
		}
	}
	if err := sum.check(); err != nil {
		d.have = nil
		return &Error{d.name() + ": " + err.Error() + "; it is read anew by the next pull", err}
	}
	if !rename {
		return nil
	}
	d.complete = true
	return os.Rename(d.path+partialEnd, d.path)
}

// unpackInto unpacks the archive that d has read into dir, and removes it.
func unpackInto(ctx context.Context, d *download, dir string) error {
	f, err := os.Open(d.path + partialEnd)
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
		return &Error{d.name() + ": " + err.Error(), err}
	}
	return errors.Join(os.Remove(d.path+partialEnd), os.Remove(filepath.Join(dir, stateName)))
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
