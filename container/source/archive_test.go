package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/millrace-ai/millrace/container/source/s3test"
	"github.com/millrace-ai/millrace/engine/weights"
)

// pack makes an archive of files, in random order if r is not nil.
func pack(t testing.TB, files map[string][]byte, end string, r *rand.Rand) []byte {
	t.Helper()
	names := slices.Sorted(maps.Keys(files))
	if r != nil {
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	}
	var headers []tar.Header
	for _, name := range names {
		headers = append(headers, tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg})
	}
	return packHeaders(t, headers, files, end)
}

func packHeaders(t testing.TB, headers []tar.Header, files map[string][]byte, end string) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch end {
	case ".gz":
		w = gzip.NewWriter(&out)
	case ".zst":
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	default:
		w = struct {
			io.Writer
			io.Closer
		}{&out, io.NopCloser(nil)}
	}
	archive := tar.NewWriter(w)
	for _, h := range headers {
		if err := archive.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Write(files[h.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestArchive(t *testing.T) {
	files := randomModel(1, 2, 5, 800)
	single := randomModel(2, 1, 9, 12_000) // in several chunks
	inFolder := map[string][]byte{"./llama/README.txt": []byte("x")}
	for name, data := range files {
		inFolder["./llama/"+name] = data
	}
	for _, tt := range []struct {
		name   string
		packed map[string][]byte
		want   map[string][]byte
		end    string
	}{
		{"shards, plain", files, files, ""},
		{"shards, gzip", files, files, ".gz"},
		{"one file, zstd", single, single, ".zst"},
		{"one file, gzip", single, single, ".gz"},
		{"in a folder, gzip", inFolder, files, ".gz"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := wantHashes(t, tt.want)
			for order := range 4 {
				var r *rand.Rand
				if order > 0 {
					r = rand.New(rand.NewPCG(uint64(order), 1))
				}
				path := filepath.Join(t.TempDir(), "model.tar"+tt.end)
				if err := os.WriteFile(path, pack(t, tt.packed, tt.end, r), 0o600); err != nil {
					t.Fatal(err)
				}
				m, err := Open(t.Context(), path, math.MaxInt64, silent)
				if err != nil {
					t.Fatal(err)
				}
				got, err := hashes(m.Checkpoint, nil)
				if err != nil || !maps.Equal(got, want) {
					t.Errorf("order %d: other weights, or %v", order, err)
				}
				if text, err := fs.ReadFile(m.Files, "tokenizer.json"); err != nil || !bytes.Equal(text, tt.want["tokenizer.json"]) {
					t.Errorf("order %d: tokenizer.json: %d bytes, %v", order, len(text), err)
				}
				if _, err := fs.ReadFile(m.Files, "absent.json"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("order %d: absent.json: %v, want that it does not exist", order, err)
				}
				if err := m.Checkpoint.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestArchiveRefused(t *testing.T) {
	files := randomModel(1, 1, 3, 500)
	packed := pack(t, files, ".gz", nil)
	damaged := bytes.Clone(packed)
	damaged[len(damaged)/2] ^= 4
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"cut short", packed[:len(packed)*2/3], "cut short"},
		{"a bit flipped", damaged, "s3://models/m.tar.gz: "},
		{"no archive", []byte(strings.Repeat("hello ", 500)), "not a tar archive"},
		{"link", packHeaders(t, []tar.Header{{Name: "config.json", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink}}, nil, ".gz"), `"config.json" is a link`},
		{"way out", packHeaders(t, []tar.Header{{Name: "../x.json", Typeflag: tar.TypeReg}}, nil, ""), `"../x.json" leads out`},
		{"no model", pack(t, map[string][]byte{"a.txt": nil}, ".gz", nil), "no config.json"},
		{"a second model after the first", packHeaders(t, []tar.Header{{Name: "a/config.json", Size: 2}, {Name: "a/model.safetensors", Size: int64(len(files["model.safetensors"]))}, {Name: "config.json", Size: 2}},
			map[string][]byte{"a/config.json": []byte("{}"), "a/model.safetensors": files["model.safetensors"], "config.json": []byte("{}")}, ""), `several models: in "a/" and ""`},
		{"no weights", pack(t, map[string][]byte{"config.json": []byte("{}"), "model.gguf": nil}, ".gz", nil), "not a GGUF file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := s3test.NewServer(t)
			server.Put("models", "m.tar.gz", tt.data)
			m, err := openBucket(t.Context(), testBucket(t, server.URL, "s3://models/m.tar.gz", quick), math.MaxInt64)
			if err == nil {
				_, err = hashes(m.Checkpoint, nil)
				m.Checkpoint.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v; want one line with %q", err, tt.want)
			}
		})
	}
}

// TestArchiveWhileItArrives holds an archive back behind its weights: they are
// handed over all the same, whatever text files may yet come, and with little
// memory beside them.
func TestArchiveWhileItArrives(t *testing.T) {
	files := randomModel(6, 1, 12, 50_000)
	want := wantHashes(t, files)
	for _, dir := range []string{"", "llama/"} {
		t.Run("in "+dir, func(t *testing.T) {
			var headers []tar.Header
			packed := map[string][]byte{dir + "generation_config.json": []byte("{}")}
			for _, name := range []string{"config.json", "model.safetensors", "generation_config.json", "tokenizer.json"} {
				if packed[dir+name] == nil {
					packed[dir+name] = files[name]
				}
				headers = append(headers, tar.Header{Name: dir + name, Size: int64(len(packed[dir+name]))})
			}
			data := packHeaders(t, headers, packed, "")
			begin := 1 << 20 // the beginning of the weights
			end := len(data) - len(files["tokenizer.json"]) - 2<<10
			loading, loaded := make(chan struct{}), make(chan struct{})
			in, out := io.Pipe()
			hang := time.AfterFunc(time.Minute, func() { _ = out.CloseWithError(errors.New("the rest is waited for")) })
			defer hang.Stop()
			go func() {
				_, _ = out.Write(data[:begin])
				<-loading
				_, _ = out.Write(data[begin:end])
				<-loaded
				_, _ = out.Write(data[end:])
				_ = out.Close()
			}()
			a := openArchive("m.tar", in, math.MaxInt64, silent)
			c, err := weights.OpenStore(a)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			left := c.Bytes()
			got, err := hashesOf(c, nil, func(p []byte) {
				if left == c.Bytes() {
					close(loading) // before, nothing would bound what arrives
				}
				a.chunks.mu.Lock()
				defer a.chunks.mu.Unlock()
				if n := len(a.chunks.all); n > mostKept+1 {
					t.Errorf("%d chunks beside what has been taken, want at most %d", n, mostKept+1)
				}
				if left -= int64(len(p)); left == 0 {
					close(loaded)
				}
			})
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("other weights, or %v", err)
			}
			if text, err := c.Generation(); err != nil || string(text) != "{}" {
				t.Errorf("generation_config.json: %q, %v", text, err)
			}
		})
	}
}

// TestArchiveCloses closes an archive that nobody reads from any more, wherever
// it is.
func TestArchiveCloses(t *testing.T) {
	data := pack(t, randomModel(6, 1, 12, 50_000), "", nil)
	for _, end := range []int{1 << 20, 5 << 20, len(data)} {
		in, out := io.Pipe()
		go func() { _, _ = out.Write(data[:end]) }()
		c, err := weights.OpenStore(openArchive("m.tar", in, math.MaxInt64, silent))
		if err != nil {
			t.Fatal(err)
		}
		first := c.Names()[0]
		stop := errors.New("enough")
		tensor, _ := c.Tensor(first)
		if end > 5<<20 {
			if err := c.Read([]weights.Piece{{File: tensor.File, Offset: tensor.Offset, Length: 1}}, func(int, []byte) error { return stop }); !errors.Is(err, stop) {
				t.Errorf("read: %v, want %v", err, stop)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestArchiveBounds reads archives that would take memory or time beyond all
// measure.
func TestArchiveBounds(t *testing.T) {
	header := func(name string, size int64) tar.Header {
		return tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg}
	}
	// write packs headers, and zeros for their bodies, until one does not fit
	// any more.
	write := func(t *testing.T, end string, most int64, headers ...tar.Header) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "model.tar"+end)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var w io.WriteCloser = f
		if end != "" {
			if w, err = zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest)); err != nil {
				t.Fatal(err)
			}
		}
		archive := tar.NewWriter(w)
		for _, h := range headers {
			if err := archive.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Size > most {
				break
			}
			if _, err := io.CopyN(archive, zeros{}, h.Size); err != nil {
				t.Fatal(err)
			}
		}
		if end != "" {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	// A terabyte in a file that GNU tar calls sparse and archive/tar expands,
	// whose writer does not know it.
	sparse := filepath.Join(t.TempDir(), "sparse.tar")
	holes := append([]byte("1\n1099511627776\n0\n"), make([]byte, 512-18)...)
	packed := packHeaders(t, []tar.Header{{Name: "pytorch_model.bin", Mode: 0o644, Size: 512, Typeflag: tar.TypeReg, PAXRecords: map[string]string{
		"XXX.sparse.major": "1", "XXX.sparse.minor": "0", "XXX.sparse.name": "pytorch_model.bin", "XXX.sparse.realsize": "1099511627776",
	}}}, map[string][]byte{"pytorch_model.bin": holes}, "")
	if err := os.WriteFile(sparse, bytes.ReplaceAll(packed, []byte("XXX.sparse"), []byte("GNU.sparse")), 0o600); err != nil {
		t.Fatal(err)
	}
	many := make([]tar.Header, 100_000)
	for i := range many {
		many[i] = header(fmt.Sprintf("notes/%d.bin", i), 0)
	}
	for _, tt := range []struct {
		name string
		path string
		want string
	}{
		{"texts", write(t, "", 100, header("a.json", 100), header("b.json", maxText)), `"b.json" has 256 MB, beside 0 MB of files that are not weights: they may have 256 MB together`},
		{"zeros", write(t, ".zst", 1<<40, header("pytorch_model.bin", 400<<20)), "an archive of a model grows to less than 50 times its size"},
		{"holes", sparse, `"pytorch_model.bin" is a sparse file`},
		{"files", write(t, "", 0, many...), "more than 20000 files and folders"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Open(t.Context(), tt.path, math.MaxInt64, silent)
			if err == nil {
				m.Checkpoint.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v; want %q in it", err, tt.want)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestArchiveMemory bounds the weights that are held because config.json comes
// after them. In order they need not be held, however long nobody takes them.
func TestArchiveMemory(t *testing.T) {
	const memory = 10 << 20
	files := randomModel(7, 1, 12, 50_000)
	if size := len(files["model.safetensors"]); size < 2*memory {
		t.Fatalf("%d bytes of weights are too few for this test", size)
	}
	headersOf := func(names ...string) (list []tar.Header) {
		for _, name := range names {
			list = append(list, tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg})
		}
		return list
	}
	write := func(headers []tar.Header) string {
		path := filepath.Join(t.TempDir(), "model.tar")
		if err := os.WriteFile(path, packHeaders(t, headers, files, ""), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, err := Open(t.Context(), write(headersOf("model.safetensors", "config.json")), memory, silent)
	if want := "pack config.json and the index first"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("weights first: %v; want %q in it", err, want)
	}

	m, err := Open(t.Context(), write(headersOf("config.json", "model.safetensors", "generation_config.json")), memory, silent)
	if err != nil {
		t.Fatal(err)
	}
	a := m.Files.(*archive)
	later := make(chan error, 1)
	go func() { // a text after the weights is waited for, which holds up nothing
		_, err := fs.ReadFile(a, "generation_config.json")
		later <- err
	}()
	for full := false; !full; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		held := a.chunks.lent()
		full = held+chunkBytes > memory && len(a.waiters) > 0
		ended, err := a.ended, a.err
		a.mu.Unlock()
		if held > memory || ended {
			t.Fatalf("%d bytes are held, ended %v, %v", held, ended, err)
		}
	}
	got, err := hashes(m.Checkpoint, nil)
	if err != nil || !maps.Equal(got, wantHashes(t, files)) {
		t.Errorf("other weights, or %v", err)
	}
	if err := <-later; err != nil {
		t.Error(err)
	}
}

// TestFoldersInLinearTime lists a folder of so many files that comparing each
// with every other would take minutes.
func TestFoldersInLinearTime(t *testing.T) {
	all := make([]memInfo, 300_000)
	for i := range all {
		all[i] = memInfo{name: fmt.Sprintf("%d.json", i)}
	}
	ended := make(chan int, 1)
	go func() {
		f, err := openDir(".", all)
		if err != nil {
			t.Error(err)
		}
		ended <- len(f.(*memDir).entries)
	}()
	select {
	case n := <-ended:
		if n != len(all) {
			t.Errorf("%d entries, want %d", n, len(all))
		}
	case <-time.After(time.Minute):
		t.Fatal("listing takes more than a minute")
	}
}
