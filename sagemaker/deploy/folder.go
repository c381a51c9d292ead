package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/crc64nvme"
)

// file is one of a model's files on this machine.
type file struct {
	path string
	name string // below the model's prefix, with slashes
	size int64
	// Filled by digest:
	sum [sha256.Size]byte
	crc string // CRC-64/NVME of it all, as S3 writes it
}

// readFolder lists the files of the model in dir, in lexical order. Hidden
// files and incomplete downloads are not part of it. The error names
// what a model lacks.
func readFolder(dir string) (files []*file, err error) {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("--model %s: no such folder (a model in S3 is s3://…)", dir)
	}
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("--model %s: is not a folder; expected one with config.json and the weights", dir)
	}
	var config, weights bool
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		switch {
		case strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case strings.HasSuffix(entry.Name(), ".partial"):
			return fmt.Errorf("%s is the rest of a download that is not complete; finish or delete it", path)
		case entry.IsDir():
			return nil
		}
		info, err := os.Stat(path) // what a link of a hub's cache leads to
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s: expected a file", path)
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		config = config || name == "config.json"
		gguf := strings.HasSuffix(name, ".gguf")
		config, weights = config || gguf, weights || gguf || strings.HasSuffix(name, ".safetensors")
		files = append(files, &file{path: path, name: name, size: info.Size()})
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("--model %s: %w", dir, err)
	case !config || !weights:
		return nil, fmt.Errorf("--model %s: holds no model: expected config.json and *.safetensors, or *.gguf", dir)
	}
	return files, nil
}

// digest reads all files, fills in their sums, and returns what tells this
// content from any other.
func digest(ctx context.Context, files []*file) (string, error) {
	all := sha256.New()
	buffer := make([]byte, 1<<20)
	for _, f := range files {
		if err := f.digest(ctx, buffer); err != nil {
			return "", err
		}
		fmt.Fprintf(all, "%s %d %x\n", f.name, f.size, f.sum)
	}
	return hex.EncodeToString(all.Sum(nil)[:8]), nil
}

func (f *file) digest(ctx context.Context, buffer []byte) error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	sum, crc := sha256.New(), crc64nvme.New()
	for read := int64(0); ; {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted while reading %s", f.path)
		}
		n, err := in.Read(buffer)
		sum.Write(buffer[:n])
		crc.Write(buffer[:n])
		if read += int64(n); err == io.EOF {
			if read != f.size {
				return fmt.Errorf("%s: changed while it was being read", f.path)
			}
			break
		}
		if err != nil {
			return err
		}
	}
	sum.Sum(f.sum[:0])
	f.crc = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, crc.Sum64()))
	return nil
}
