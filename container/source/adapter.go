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
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-ai/millrace/engine/adapter"
	"github.com/millrace-ai/millrace/engine/weights"
)

// Adapter returns the files of the LoRA adapter at a location: a folder, s3://… or a
// name on the hub, from which it is downloaded if it is not in the cache. It may lie in
// the one folder below the location that holds an adapter. Files from S3 are read into
// memory, together no more than most bytes.
func Adapter(ctx context.Context, location string, most int64, log *slog.Logger) (fs.FS, error) {
	switch {
	case IsS3(location):
		l, err := parseLocation(location)
		if err != nil {
			return nil, err
		}
		if IsArchive(l.key) {
			return nil, fmt.Errorf("%s: an archive is not supported for adapters: give the prefix that holds %s", location, adapter.ConfigFile)
		}
		cfg, err := loadConfig(ctx, log)
		if err != nil {
			return nil, err
		}
		return bucketAdapter(ctx, newBucket(cfg, l, defaultTuning, log), most)
	case IsHub(location):
		h, m, err := hubModel(location, log)
		if err != nil {
			return nil, err
		}
		if location, err = h.Snapshot(ctx, m); err != nil {
			return nil, err
		}
	}
	return folderAdapter(location)
}

func folderAdapter(dir string) (fs.FS, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s: a file, expected a folder with %s and %s", dir, adapter.ConfigFile, adapter.WeightsFile)
	}
	if err != nil {
		return nil, err
	}
	below, err := filepath.Glob(filepath.Join(dir, "*", adapter.ConfigFile))
	if _, missing := os.Stat(filepath.Join(dir, adapter.ConfigFile)); err == nil && errors.Is(missing, fs.ErrNotExist) && len(below) == 1 {
		dir = filepath.Dir(below[0])
	}
	return weights.Folder(dir), nil
}

// bucketAdapter reads both files of an adapter at once.
func bucketAdapter(ctx context.Context, b *bucket, most int64) (fs.FS, error) {
	objects, err := b.list(ctx)
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (fs.FS, error) {
		return nil, &Error{b.place.uri(b.place.key) + ": " + fmt.Sprintf(format, args...), fs.ErrNotExist}
	}
	var dirs []string
	for _, o := range objects {
		if rest := strings.TrimPrefix(o.key, b.place.key); path.Base(rest) == adapter.ConfigFile && strings.Count(rest, "/") <= 1 {
			dirs = append(dirs, path.Dir(o.key)+"/")
		}
	}
	top := strings.TrimSuffix(b.place.key, "/") + "/"
	switch {
	case slices.Contains(dirs, top) || slices.Contains(dirs, "./") && top == "/":
	case len(dirs) == 1:
		top = dirs[0]
	case len(dirs) == 0:
		return fail("no %s there, nor in a folder below it", adapter.ConfigFile)
	default:
		return fail("several adapters, in %s: give the prefix of one", strings.Join(dirs[:min(len(dirs), 5)], ", "))
	}
	files := memFiles{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, o := range objects {
		name, ok := strings.CutPrefix(o.key, strings.TrimPrefix(top, "/"))
		if !ok || strings.Contains(name, "/") {
			continue
		}
		if name != adapter.ConfigFile && name != adapter.WeightsFile {
			files[name] = nil // its name alone, for messages
			continue
		}
		if o.size > most {
			return fail("%s has %d MB, expected at most %d MB", name, o.size>>20, most>>20)
		}
		wait.Go(func() {
			data, readErr := o.readAll(ctx)
			mu.Lock()
			defer mu.Unlock()
			files[name] = data
			err = errors.Join(err, readErr)
		})
	}
	wait.Wait()
	if err != nil {
		return nil, err
	}
	return files, nil
}

// memFiles are files of one folder, in memory.
type memFiles map[string][]byte

// Open implements fs.FS.
func (m memFiles) Open(name string) (fs.File, error) {
	if data, ok := m[name]; ok && data != nil {
		return &memFile{memInfo: memInfo{name: name, size: int64(len(data))}, Reader: *bytes.NewReader(data)}, nil
	}
	var all []memInfo
	for other := range m {
		all = append(all, memInfo{name: other, size: int64(len(m[other]))})
	}
	return openDir(name, all)
}
