package source

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

// pulled returns all files of a folder.
func pulled(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && name != stateName {
			files[name], err = os.ReadFile(filepath.Join(dir, name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func same(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }

func TestPull(t *testing.T) {
	files := randomModel(6, 2, 4, 6000)
	files["templates/chat.jinja"], files["empty.txt"] = []byte("x"), nil
	for _, tt := range []struct{ name, location, archive string }{
		{"prefix", "s3://models/llama", ""},
		{"archive", "s3://models/m.tar.gz", ".gz"},
		{"zstd", "s3://models/m.tar.zst", ".zst"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := s3test.NewServer(t)
			if tt.archive != "" {
				server.Put("models", "m.tar"+tt.archive, pack(t, files, tt.archive, nil))
			} else {
				put(server, "models", "llama/", files)
			}
			dir := filepath.Join(t.TempDir(), "new", "folder")
			var last, total int64
			err := pull(t.Context(), testBucket(t, server.URL, tt.location, quick), dir, func(done, all int64) {
				if done < last || done > all {
					t.Errorf("progress %d of %d after %d", done, all, last)
				}
				last, total = done, all
			})
			if err != nil || last != total || !same(pulled(t, dir), files) {
				t.Errorf("%v, progress %d of %d, files %v", err, last, total, slices.Sorted(maps.Keys(pulled(t, dir))))
			}
		})
	}
}

// TestPullResumes interrupts a pull again and again. What has arrived is not
// asked for a second time.
func TestPullResumes(t *testing.T) {
	files := randomModel(7, 1, 4, 200_000)
	size := int64(0)
	for _, data := range files {
		size += int64(len(data))
	}
	server := s3test.NewServer(t)
	put(server, "models", "llama/", files)
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 1))
	interrupted := 0
	for {
		ctx, cancel := context.WithCancel(t.Context())
		first := int64(-1)
		stop := int64(1+r.IntN(int(size/4))) + size/8
		err := pull(ctx, testBucket(t, server.URL, "s3://models/llama", quick), dir, func(done, _ int64) {
			if first < 0 {
				first = done
			}
			if done-first >= stop {
				cancel()
			}
		})
		cancel()
		if err == nil {
			break
		}
		if interrupted++; interrupted > 20 {
			t.Fatalf("no end: %v", err)
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if !same(pulled(t, dir), files) {
		t.Error("other files than in the bucket")
	}
	if interrupted < 2 {
		t.Errorf("interrupted %d times: too few to say anything", interrupted)
	}

	// All is there: only the listing is read.
	proxy := s3test.NewProxy(t, server.URL, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	var reads atomic.Int32
	proxy.Intercept(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("list-type") == "" {
			reads.Add(1)
		}
		return false
	})
	if err := pull(t.Context(), testBucket(t, proxy.URL, "s3://models/llama", quick), dir, func(int64, int64) {}); err != nil || reads.Load() != 0 {
		t.Errorf("again: %v, %d objects read; want none", err, reads.Load())
	}
}

// TestPullAfterChange interrupts a pull, replaces the object and flips bits of
// what is there: neither is trusted.
func TestPullAfterChange(t *testing.T) {
	server := s3test.NewServer(t)
	old, replaced := bytes.Repeat([]byte("old"), 3<<20), bytes.Repeat([]byte("new"), 3<<20)
	server.Put("models", "llama/a.bin", old)
	dir := t.TempDir()
	half := func() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_ = pull(ctx, testBucket(t, server.URL, "s3://models/llama", quick), dir, func(done, total int64) {
			if done > total/2 {
				cancel()
			}
		})
	}
	half()
	server.Put("models", "llama/a.bin", replaced)
	half()
	partial := filepath.Join(dir, "a.bin"+partialEnd)
	data, err := os.ReadFile(partial)
	if err != nil {
		t.Fatal(err)
	}
	state, err := readState(filepath.Join(dir, stateName))
	if err != nil || len(state["a.bin"].Have) == 0 {
		t.Fatalf("state %v, %v", state, err)
	}
	data[state["a.bin"].Have[0][0]] ^= 1
	if err := os.WriteFile(partial, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b := testBucket(t, server.URL, "s3://models/llama", quick)
	if err := pull(t.Context(), b, dir, func(int64, int64) {}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged on the disk: %v", err)
	}
	if err := pull(t.Context(), b, dir, func(int64, int64) {}); err != nil || !bytes.Equal(pulled(t, dir)["a.bin"], replaced) {
		t.Errorf("%v, or another file than in the bucket", err)
	}
}

func TestRanges(t *testing.T) {
	const size = 200
	r := rand.New(rand.NewPCG(2, 2))
	for range 200 {
		var have ranges
		var there [size]bool
		for _, i := range r.Perm(size / 10)[:r.IntN(size/10+1)] {
			have.add(int64(i*10), int64(i*10+10))
			for j := range 10 {
				there[i*10+j] = true
			}
		}
		n := int64(0)
		for _, x := range have {
			for j := x[0]; j < x[1]; j++ {
				if !there[j] {
					t.Fatalf("%v: byte %d was never added", have, j)
				}
				n++
			}
		}
		gaps := int64(0)
		for _, g := range have.missing(size) {
			gaps += g[1] - g[0]
		}
		if !have.valid(size) || n != have.bytes() || n+gaps != size {
			t.Fatalf("%v: valid %v, %d bytes, %d missing", have, have.valid(size), have.bytes(), gaps)
		}
	}
}
