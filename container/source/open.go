package source

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/engine/weights"
)

// Model is an opened model: its headers and config.json have been read.
type Model struct {
	Checkpoint *weights.Checkpoint // closed by the caller of Open
	Files      fs.FS               // text files beside the weights, until the checkpoint is closed
}

// Open opens the model at a location: a folder, an archive or a GGUF file on the
// disk, s3://… of one of these, or the name of a model of the Hugging Face hub, which is downloaded
// if it is not in the cache. ctx bounds all reading until the checkpoint is
// closed. An archive is read until config.json and the headers of the weights
// have arrived; memory is how many bytes of weights may be held that precede them.
func Open(ctx context.Context, location string, memory int64, log *slog.Logger) (*Model, error) {
	if IsHub(location) {
		h, m, err := hubModel(location, log)
		if err != nil {
			return nil, err
		}
		if location, err = h.Snapshot(ctx, m); err != nil {
			return nil, err
		}
	}
	switch {
	case IsS3(location):
		l, err := parseLocation(location)
		if err != nil {
			return nil, err
		}
		cfg, err := loadConfig(ctx, log)
		if err != nil {
			return nil, err
		}
		return openBucket(ctx, newBucket(cfg, l, defaultTuning, log), memory)
	case IsArchive(location) && isFile(location):
		a, err := openArchiveFile(location, memory, log)
		if err != nil {
			return nil, err
		}
		return openPacked(a)
	}
	dir := location
	if !isFile(location) {
		if found, err := Folder(location); err == nil {
			dir = found // else weights says what is there instead of a model
		}
	}
	c, err := weights.Open(dir)
	if err != nil {
		return nil, err
	}
	return &Model{c, c.Files()}, nil
}

// OpenFile opens a single file, which lies here or at s3://BUCKET/KEY. One in S3 is
// read ahead from the first Read on.
func OpenFile(ctx context.Context, location string, log *slog.Logger) (io.ReadCloser, error) {
	if !IsS3(location) {
		return os.Open(location)
	}
	l, err := parsePlace(location)
	if err == nil && (l.key == "" || strings.HasSuffix(l.key, "/")) {
		err = fmt.Errorf("%s: expected s3://BUCKET/KEY of a file", config.HideSecrets(location))
	}
	if err != nil {
		return nil, err
	}
	cfg, err := loadConfig(ctx, log)
	if err != nil {
		return nil, err
	}
	o, err := newBucket(cfg, l, defaultTuning, log).object(ctx, l.key)
	if err != nil {
		return nil, err
	}
	return newPrefetcher(ctx, o), nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// openBucket opens the model at b's location.
func openBucket(ctx context.Context, b *bucket, memory int64) (*Model, error) {
	if IsArchive(b.place.key) {
		o, err := b.object(ctx, b.place.key)
		if err != nil {
			return nil, err
		}
		return openPacked(openArchive(o.String(), newPrefetcher(ctx, o), memory, b.log))
	}
	t, err := openTree(ctx, b)
	if err != nil {
		return nil, err
	}
	warnOfSettings(b.log, b.place.uri(t.dir), func(name string) bool { return t.texts[name] != nil })
	return openStore(b.place.uri(t.dir), t)
}

func openPacked(a *archive) (*Model, error) {
	m, err := openStore(a.name, a)
	if err == nil {
		a.open()
	}
	return m, err
}

func openStore(name string, s weights.Store) (*Model, error) {
	c, err := weights.OpenStore(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Model{c, c.Files()}, nil
}

// warnOfSettings says so if a model has a config file: it is not read, as the
// port and much else is settled before the model is there.
func warnOfSettings(log *slog.Logger, model string, has func(name string) bool) {
	for _, name := range config.FileNames {
		if has(name) {
			log.Warn("config file without effect: it is read from a folder only; use flags, variables or --config", "file", name, "model", model)
		}
	}
}
