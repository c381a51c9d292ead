package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"

	"github.com/millrace-ai/millrace/engine/weights"
)

// hubStore is a weights.Store of a model of the hub that reads texts and headers
// where they are, to describe the model without downloading its weights.
type hubStore struct {
	ctx      context.Context
	cancel   context.CancelFunc
	revision *hubRevision
	files    map[string]*hubFile
}

var _ weights.Store = (*hubStore)(nil)

// OpenHeaders opens the model at a location to describe it: as Open does, but a
// model of the hub that is not in the cache is not downloaded, and its weights
// cannot be read.
func OpenHeaders(ctx context.Context, location string, memory int64, log *slog.Logger) (*Model, error) {
	if !IsHub(location) {
		return Open(ctx, location, memory, log)
	}
	h, m, err := hubModel(location, log)
	if err != nil {
		return nil, err
	}
	return h.openHeaders(ctx, m)
}

// hubModel returns the model at a location of the hub, and the hub as the
// environment describes it.
func hubModel(location string, log *slog.Logger) (*Hub, HubModel, error) {
	h, err := NewHub(os.Getenv, "", log)
	if err != nil {
		return nil, HubModel{}, err
	}
	m, err := h.ParseHub(location)
	return h, m, err
}

func (h *Hub) openHeaders(ctx context.Context, m HubModel) (*Model, error) {
	if h.Offline {
		dir, err := h.Snapshot(ctx, m)
		if err != nil {
			return nil, err
		}
		return Open(ctx, dir, 0, h.Log)
	}
	r, err := h.find(ctx, m)
	if err != nil {
		if dir := h.cached(m); dir != "" && ctx.Err() == nil {
			return Open(ctx, dir, 0, h.Log)
		}
		return nil, err
	}
	for _, root := range h.roots() {
		if c := r.in(root); c.complete(r.files) {
			return Open(ctx, r.place(c), 0, h.Log)
		}
	}
	s := &hubStore{revision: r, files: map[string]*hubFile{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	for _, f := range r.files {
		name := f.name
		if weights.IsGGUF(name) { // which may be in a folder, without anything else
			name = path.Base(name)
		}
		s.files[name] = f
	}
	return openStore(m.String(), s)
}

func (s *hubStore) file(operation, name string) (*hubFile, error) {
	if f := s.files[name]; f != nil {
		return f, nil
	}
	return nil, &fs.PathError{Op: operation, Path: s.revision.model.Repo + "/" + name, Err: fs.ErrNotExist}
}

// Size implements weights.Store.
func (s *hubStore) Size(name string) (int64, error) {
	f, err := s.file("stat", name)
	if err != nil {
		return 0, err
	}
	return f.Size, nil
}

// ReadAt implements weights.Store.
func (s *hubStore) ReadAt(name string, p []byte, offset int64) error {
	f, err := s.file("read", name)
	if err != nil {
		return err
	}
	return readRange(s.ctx, f, s.revision.hub.tune.idle, p, offset)
}

// Stream implements weights.Store: the weights are not here.
func (s *hubStore) Stream([]weights.Piece, func(int, []byte) error) error {
	return fmt.Errorf("%s: opened to be described: %w", s.revision.model, errors.ErrUnsupported)
}

// Close implements weights.Store.
func (s *hubStore) Close() error {
	s.cancel()
	return nil
}

// Open implements fs.FS: it reads the file, of weights only its name and size.
func (s *hubStore) Open(name string) (fs.File, error) {
	f := s.files[name]
	switch {
	case f != nil && isModelText(name):
		data, err := f.readAll(s.ctx)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return &memFile{memInfo: memInfo{name: path.Base(name), size: f.Size}, Reader: *bytes.NewReader(data)}, nil
	case f != nil:
		return &memFile{memInfo: memInfo{name: path.Base(name), size: f.Size}}, nil
	case !fs.ValidPath(name):
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	var all []memInfo
	for other, f := range s.files {
		all = append(all, memInfo{name: other, size: f.Size})
	}
	return openDir(name, all)
}
