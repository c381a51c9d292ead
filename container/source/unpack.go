package source

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
)

const (
	gzipBlock   = 1 << 20
	gzipBlocks  = 4
	zstdWindow  = 32 << 20 // what --long=25 takes; more would not fit into what a start may take
	magicLength = 4

	// Blocks that zstd has in work at once. What reads, what decodes and what puts blocks
	// together each do one, and wait for each other less if there are more of them;
	// each takes half a megabyte.
	zstdBlocks = 4

	// What a model's archive stays far below. Weights hardly shrink when they
	// are packed, texts to a tenth; what shrinks to a thousandth was made to fill memory or disk.
	mostEntries  = 20_000
	mostTimes    = 50        // what is unpacked, of what is packed
	freeUnpacked = 256 << 20 // bytes that may be unpacked of however little
)

// counted counts the bytes read.
type counted struct {
	io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// proportionate reads what is unpacked, as long as it is in proportion to what
// has been read of the archive.
type proportionate struct {
	io.Reader
	packed *counted
	n      int64
}

func (b *proportionate) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.n += int64(n)
	if packed := b.packed.n.Load(); b.n > freeUnpacked+mostTimes*packed {
		return n, fmt.Errorf("%d MB unpack to more than %d MB: an archive of a model grows to less than %d times its size", (packed+1<<20-1)>>20, b.n>>20, mostTimes)
	}
	return n, err
}

// entry is a regular file of an archive.
type entry struct {
	name string // clean: no leading "./", no ".."
	size int64
}

// unpack reads a tar archive, plain or compressed with gzip or zstd, and calls
// visit for each regular file; body is the file's bytes, as many as its size
// says. It reads to the very end, so that all checksums are compared. Archives
// that unpack to more than any model's are refused on the way.
func unpack(r io.Reader, visit func(e entry, body io.Reader) error) error {
	packed := &counted{Reader: r}
	unpacked, err := decompress(packed)
	if err != nil {
		return err
	}
	defer unpacked.Close()
	plain := &proportionate{Reader: unpacked, packed: packed}
	archive := tar.NewReader(plain)
	for entries := 0; ; entries++ {
		if entries > mostEntries {
			return fmt.Errorf("more than %d files and folders: pack the files of the model alone", mostEntries)
		}
		first := entries == 0
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, tar.ErrHeader) && first {
			return errors.New("not a tar archive, plain or compressed with gzip or zstd")
		}
		if err != nil {
			return cutShort(err)
		}
		if h.Typeflag == tar.TypeGNUSparse || slices.ContainsFunc(slices.Collect(maps.Keys(h.PAXRecords)), func(key string) bool { return strings.HasPrefix(key, "GNU.sparse.") }) {
			return fmt.Errorf("%q is a sparse file, whose length the archive's does not bound: pack it without --sparse", h.Name)
		}
		switch h.Typeflag {
		case tar.TypeReg:
		case tar.TypeSymlink, tar.TypeLink:
			return fmt.Errorf("%q is a link, which is not followed: pack the file itself (tar --dereference)", h.Name)
		default:
			continue // folders, and what only describes other entries
		}
		name, err := entryName(h.Name)
		if err != nil {
			return err
		}
		if err := visit(entry{name, h.Size}, archive); err != nil {
			return cutShort(err)
		}
	}
	_, err = io.Copy(io.Discard, plain)
	return cutShort(err)
}

// entryName cleans the name of a file in an archive and refuses one that
// leads out of it.
func entryName(name string) (string, error) {
	clean := path.Clean(strings.TrimPrefix(name, "./"))
	if local, err := localName(clean); err == nil && clean != ".." && !strings.HasPrefix(clean, "../") {
		return local, nil
	}
	return "", fmt.Errorf("%q leads out of the archive", name)
}

func cutShort(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the archive is cut short")
	}
	return err
}

// decompress finds out from the first bytes how r is compressed.
func decompress(r io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	magic, err := buffered.Peek(magicLength)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := pgzip.NewReaderN(buffered, gzipBlock, gzipBlocks)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", cutShort(err))
		}
		return z, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(zstdBlocks), zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(buffered), nil
}
