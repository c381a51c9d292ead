package local

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// asyncLimit is the longest input of an asynchronous request, and the longest
// answer, bytes.
const asyncLimit = 1 << 30

// store is a folder that stands for S3: s3://BUCKET/KEY is the file BUCKET/KEY
// in it. A posix S3 gateway over the same folder shows the same objects.
// Nothing outside the folder can be reached.
type store struct {
	dir  string // absolute
	root *os.Root
}

func openStore(dir string) (*store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	return &store{dir, root}, err
}

// name translates a location, s3://BUCKET/KEY or file:///PATH inside the
// folder, into a file name below it.
func (s *store) name(location string) (string, error) {
	if key, ok := strings.CutPrefix(location, "s3://"); ok {
		bucket, object, _ := strings.Cut(key, "/")
		if bucket == "" || object == "" || strings.HasSuffix(object, "/") || path.Clean(key) != key || !filepath.IsLocal(key) {
			return "", fmt.Errorf("expected s3://BUCKET/KEY")
		}
		return key, nil
	}
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "file" || u.Host != "" {
		return "", fmt.Errorf("expected s3://BUCKET/KEY, or file:// and the absolute path of a file below %s", s.dir)
	}
	name, err := filepath.Rel(s.dir, u.Path)
	if err != nil || name == "." || !filepath.IsLocal(name) {
		return "", fmt.Errorf("expected a file below %s", s.dir)
	}
	return name, nil
}

func (s *store) read(name string) ([]byte, error) {
	f, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, asyncLimit+1))
	if len(b) > asyncLimit {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, asyncLimit)
	}
	return b, err
}

// write stores a file so that a reader sees all of it or none.
func (s *store) write(name string, b []byte) error {
	if err := s.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	partial := name + ".partial"
	if err := s.root.WriteFile(partial, b, 0o644); err != nil {
		return err
	}
	return s.root.Rename(partial, name)
}
