package harness

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Image is a built image.
type Image struct {
	Architecture string
	RootFS       struct{ Layers []string } // digests of the layers' contents
	Config       struct {
		User         string
		Env          []string
		Cmd          []string
		Entrypoint   []string
		Labels       map[string]string
		ExposedPorts map[string]struct{}
	}
}

// Build builds an image by a Dockerfile below root, with the folder as its
// context, and tags it. options are further ones of docker build. The error is
// an *Unavailable if the images to begin with are not available.
func (e *Engine) Build(ctx context.Context, root, dockerfile, folder, tag string, options ...string) error {
	dockerfile = filepath.Join(root, dockerfile)
	if err := e.prepare(ctx, root, dockerfile); err != nil {
		return err
	}
	args := append([]string{"build", "--file", dockerfile, "--tag", tag}, options...)
	if e.dir != "" {
		args = append(args, "--network", "none") // there is no bridge, and nothing needs one
	}
	_, err := e.Docker(ctx, append(args, folder)...)
	return err
}

// Inspect describes an image.
func (e *Engine) Inspect(ctx context.Context, tag string) (*Image, error) {
	text, err := e.Docker(ctx, "image", "inspect", tag)
	if err != nil {
		return nil, err
	}
	var images []*Image
	if err := json.Unmarshal([]byte(text), &images); err != nil || len(images) != 1 {
		return nil, fmt.Errorf("image %s: %d descriptions, %w", tag, len(images), err)
	}
	return images[0], nil
}

// CompressedSize returns how many bytes an image takes in a registry, about:
// all of it, by gzip as docker pushes it.
func (e *Engine) CompressedSize(ctx context.Context, tag string) (size int64, err error) {
	err = e.save(ctx, tag, func(archive *os.File) error {
		var compressed counter
		w := gzip.NewWriter(&compressed)
		_, err := io.Copy(w, archive)
		err = errors.Join(err, w.Close())
		size = int64(compressed)
		return err
	})
	return size, err
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// Walk visits all that the layers of an image hold, from the first layer on.
// content is that of the file, until visit returns.
func (e *Engine) Walk(ctx context.Context, tag string, visit func(file *tar.Header, content io.Reader) error) error {
	return e.save(ctx, tag, func(archive *os.File) error {
		var manifest []struct{ Layers []string }
		text, err := member(archive, "manifest.json")
		if err == nil {
			err = json.NewDecoder(text).Decode(&manifest)
		}
		if err != nil || len(manifest) != 1 {
			return fmt.Errorf("image %s: %d manifests, %w", tag, len(manifest), err)
		}
		for _, name := range manifest[0].Layers {
			text, err := member(archive, name)
			if err != nil {
				return err
			}
			for layer := tar.NewReader(text); ; {
				file, err := layer.Next()
				if err == io.EOF {
					break
				}
				if err == nil {
					err = visit(file, layer)
				}
				if err != nil {
					return fmt.Errorf("layer %s: %w", name, err)
				}
			}
		}
		return nil
	})
}

// save has read look at an image as an archive.
func (e *Engine) save(ctx context.Context, tag string, read func(*os.File) error) error {
	archive, err := os.CreateTemp("", "millrace-image-*.tar")
	if err != nil {
		return err
	}
	defer os.Remove(archive.Name())
	defer archive.Close()
	if _, err := e.Docker(ctx, "save", "--output", archive.Name(), tag); err != nil {
		return err
	}
	// Docker may have put a file of its own in the place of the first.
	saved, err := os.Open(archive.Name())
	if err != nil {
		return err
	}
	defer saved.Close()
	return read(saved)
}

// member returns a file of an archive, until the next one is asked for.
func member(archive *os.File, name string) (io.Reader, error) {
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r := tar.NewReader(archive)
	for {
		header, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if header.Name == name {
			return r, nil
		}
	}
}
