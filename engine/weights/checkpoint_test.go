package weights

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// sample is a file of three tensors with different types and ranks.
func sample() []byte {
	return weightstest.File(
		weightstest.Tensor{Name: "a.weight", DType: "BF16", Shape: []int{3, 2}, Data: []byte("abcdefghijkl")},
		weightstest.Tensor{Name: "b", DType: "F32", Shape: []int{2}, Data: []byte("ABCDEFGH")},
		weightstest.Tensor{Name: "steps", DType: "I64", Shape: nil, Data: []byte("12345678")},
	)
}

func folder(t *testing.T, files map[string][]byte) string {
	if files[configName] == nil {
		files[configName] = []byte(`{}`)
	}
	return weightstest.Folder(t, files)
}

func mustOpen(t *testing.T, files map[string][]byte) *Checkpoint {
	t.Helper()
	c, err := Open(folder(t, files))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// bytesOf reads a whole tensor.
func bytesOf(t *testing.T, c *Checkpoint, x Tensor) string {
	t.Helper()
	data := make([]byte, x.Size)
	if err := c.ReadAt(x, data, 0); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestOpenSingleFile(t *testing.T) {
	c := mustOpen(t, map[string][]byte{
		singleName:     sample(),
		configName:     []byte(`{"model_type":"llama"}`),
		generationName: []byte(`{"eos_token_id":2}`),
	})
	if got, want := c.Names(), []string{"a.weight", "b", "steps"}; !slices.Equal(got, want) {
		t.Errorf("Names() = %q, want %q", got, want)
	}
	a, ok := c.Tensor("a.weight")
	if !ok || a.DType != "BF16" || !slices.Equal(a.Shape, []int{3, 2}) || bytesOf(t, c, a) != "abcdefghijkl" || a.File != singleName {
		t.Errorf("Tensor(a.weight) = %+v, %v", a, ok)
	}
	if s, ok := c.Tensor("steps"); !ok || len(s.Shape) != 0 || s.Size != 8 {
		t.Errorf("a scalar: %+v, %v", s, ok)
	}
	if _, ok := c.Tensor("c"); ok {
		t.Error("Tensor(c) exists, want none")
	}
	if c.Bytes() != 28 || string(c.Config()) != `{"model_type":"llama"}` {
		t.Errorf("Bytes %d, Config %s", c.Bytes(), c.Config())
	}
	if text, err := c.Generation(); string(text) != `{"eos_token_id":2}` || err != nil {
		t.Errorf("Generation() = %s, %v", text, err)
	}
}

func TestOpenFS(t *testing.T) {
	c, err := OpenFS(fstest.MapFS{
		singleName: {Data: sample()},
		configName: {Data: []byte(`{}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, ok := c.Tensor("b")
	if !ok || bytesOf(t, c, b) != "ABCDEFGH" {
		t.Errorf("Tensor(b) = %+v, %v", b, ok)
	}
	if text, err := c.Generation(); text != nil || err != nil {
		t.Errorf("Generation() = %s, %v; want none", text, err)
	}
}

func TestOpenShards(t *testing.T) {
	one := weightstest.File(weightstest.Tensor{Name: "x", DType: "F16", Shape: []int{2}, Data: []byte("1234")})
	two := weightstest.File(
		weightstest.Tensor{Name: "y", DType: "F16", Shape: []int{1}, Data: []byte("56")},
		weightstest.Tensor{Name: "unlisted", DType: "F16", Shape: []int{1}, Data: []byte("78")},
	)
	index := []byte(`{"metadata":{"total_size":6},"weight_map":{"x":"model-00001-of-00002.safetensors","y":"model-00002-of-00002.safetensors"}}`)
	c := mustOpen(t, map[string][]byte{
		indexName:                          index,
		"model-00001-of-00002.safetensors": one,
		"model-00002-of-00002.safetensors": two,
	})
	if got := c.Names(); !slices.Equal(got, []string{"x", "y"}) {
		t.Errorf("Names() = %q, want what the index lists", got)
	}
	if y, _ := c.Tensor("y"); y.File != "model-00002-of-00002.safetensors" || bytesOf(t, c, y) != "56" {
		t.Errorf("Tensor(y) = %+v", y)
	}
	if c.Source() != indexName {
		t.Errorf("Source() = %q", c.Source())
	}
}

// TestReadOfAShrunkFile cuts a weight file at several moments: that is an error
// which says so, not the end of the process.
func TestReadOfAShrunkFile(t *testing.T) {
	const pieces, length = 8, 1 << 16
	open := func(t *testing.T) (*Checkpoint, func(size int64), []Piece) {
		dir := folder(t, map[string][]byte{
			singleName: weightstest.File(weightstest.Tensor{Name: "w", DType: "U8", Shape: []int{pieces * length}, Data: make([]byte, pieces*length)}),
		})
		c, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		w, _ := c.Tensor("w")
		var list []Piece
		for i := range int64(pieces) {
			list = append(list, Piece{singleName, w.Offset + i*length, length})
		}
		cut := func(size int64) {
			if err := os.Truncate(dir+"/"+singleName, size); err != nil {
				t.Fatal(err)
			}
		}
		return c, cut, list
	}
	check := func(t *testing.T, err error) {
		t.Helper()
		if want := singleName + ": the file shrank while it was read: it had "; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "now 100") {
			t.Errorf("got %v, want %s…, now 100", err, want)
		}
	}
	t.Run("before", func(t *testing.T) {
		c, cut, list := open(t)
		cut(100)
		check(t, c.Read(list, func(int, []byte) error { return nil }))
		w, _ := c.Tensor("w")
		check(t, c.ReadAt(w, make([]byte, 10), length))
	})
	t.Run("amid", func(t *testing.T) {
		c, cut, list := open(t)
		taken := 0
		check(t, c.Read(list, func(i int, data []byte) error {
			taken++
			if cut(100); i != taken-1 || len(data) != length {
				t.Errorf("piece %d has %d bytes", i, len(data))
			}
			return nil
		}))
		if taken == 0 || taken == pieces {
			t.Errorf("%d pieces came, want the first ones", taken)
		}
	})
	t.Run("refused by the one that takes it", func(t *testing.T) {
		c, _, list := open(t)
		refusal := errors.New("no")
		if err := c.Read(list, func(int, []byte) error { return refusal }); !errors.Is(err, refusal) {
			t.Error(err)
		}
	})
}

// TestOpenRefusesWhatIsNotAFile puts pipes, sockets, devices, links to them and
// folders where files should be: none is opened, which would wait forever.
func TestOpenRefusesWhatIsNotAFile(t *testing.T) {
	shard := "model-00001-of-00001.safetensors"
	index := []byte(`{"weight_map":{"b":"` + shard + `"}}`)
	for _, name := range []string{configName, singleName, indexName, shard, generationName} {
		for kind, put := range map[string]func(path string) error{
			"pipe":                func(path string) error { return syscall.Mkfifo(path, 0o600) },
			"device":              func(path string) error { return os.Symlink("/dev/zero", path) },
			"folder":              func(path string) error { return os.Mkdir(path, 0o700) },
			"file without an end": func(path string) error { return os.Symlink("/proc/kmsg", path) },
			"socket": func(path string) error {
				l, err := net.Listen("unix", path)
				if err == nil {
					t.Cleanup(func() { l.Close() })
				}
				return err
			},
			"link to a pipe": func(path string) error {
				return errors.Join(syscall.Mkfifo(path+".pipe", 0o600), os.Symlink(path+".pipe", path))
			},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				dir, err := os.MkdirTemp("", "w") // short: the path of a socket has at most 107 bytes
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.RemoveAll(dir) })
				files := map[string][]byte{configName: []byte(`{}`), singleName: sample()}
				if name == indexName || name == shard {
					files = map[string][]byte{configName: []byte(`{}`), indexName: index, shard: sample()}
				}
				delete(files, name)
				for name, data := range files {
					if err := os.WriteFile(dir+"/"+name, data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if err := put(dir + "/" + name); err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() {
					c, err := Open(dir)
					if err == nil {
						_, err = c.Generation()
						c.Close()
					}
					ended <- err
				}()
				select {
				case err := <-ended:
					// The last one is a regular file of no length, to the kernel.
					if kind != "file without an end" && (err == nil || !strings.Contains(err.Error(), name+": not a regular file") && !strings.Contains(err.Error(), name+": is a directory")) {
						t.Errorf("%v", err)
					}
				case <-time.After(time.Minute):
					t.Fatal("opening it waits")
				}
			})
		}
	}
}

// The hub's cache is a folder of links.
func TestOpenFollowsLinksToFiles(t *testing.T) {
	there := folder(t, map[string][]byte{singleName: sample()})
	here := t.TempDir()
	for _, name := range []string{singleName, configName} {
		if err := os.Symlink(there+"/"+name, here+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open(here)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestOpenRefusals(t *testing.T) {
	const shard = "model-00001-of-00001.safetensors"
	indexed := func(weightMap string) map[string][]byte {
		return map[string][]byte{
			indexName: []byte(`{"weight_map":` + weightMap + `}`),
			shard:     weightstest.File(weightstest.Tensor{Name: "x", DType: "U8", Shape: []int{1}, Data: []byte("1")}),
		}
	}
	pointer := []byte("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
	for _, tt := range []struct {
		name  string
		files map[string][]byte
		want  []string // parts of the one line
	}{
		{"nothing of use", map[string][]byte{"README.md": nil}, []string{"no model.safetensors"}},
		{"pytorch only", map[string][]byte{"pytorch_model.bin": nil}, []string{"pytorch_model.bin", "convert the checkpoint to safetensors"}},
		{"sharded pytorch only", map[string][]byte{"pytorch_model-00001-of-00002.bin": nil}, []string{"pytorch_model-00001-of-00002.bin", "convert"}},
		{"no GGUF", map[string][]byte{"m.gguf": []byte("GGML and so on")}, []string{"m.gguf", "not a GGUF file"}},
		{"GGUF is a pointer", map[string][]byte{"m.gguf": pointer}, []string{"m.gguf", "Git LFS pointer"}},
		{"several GGUF", map[string][]byte{"a.gguf": nil, "b-00001-of-00002.gguf": nil, "b-00002-of-00002.gguf": nil, "mmproj-a.gguf": nil, "mtp-a.gguf": nil}, []string{"several GGUF files: a.gguf, b-00001-of-00002.gguf; name"}},
		{"adapter", map[string][]byte{"adapter_model.safetensors": sample()}, []string{"adapter_model.safetensors", "not a model"}},
		{"shards without index", map[string][]byte{shard: sample()}, []string{shard, indexName, "missing"}},
		{"empty weight file", map[string][]byte{singleName: {}}, []string{singleName, "0 bytes"}},
		{"weights are a pointer", map[string][]byte{singleName: pointer}, []string{singleName, "Git LFS pointer"}},
		{"config is a pointer", map[string][]byte{singleName: sample(), configName: pointer}, []string{configName, "Git LFS pointer"}},
		{"a shard is a pointer", map[string][]byte{indexName: indexed(`{"x":"` + shard + `"}`)[indexName], shard: pointer}, []string{shard, "Git LFS pointer"}},
		{"index is not JSON", map[string][]byte{indexName: []byte("{")}, []string{indexName, "invalid JSON", "too early"}},
		{"index without a map", map[string][]byte{indexName: []byte(`{"metadata":{}}`)}, []string{indexName, "weight_map is missing"}},
		{"index with an empty map", indexed(`{}`), []string{indexName, "empty"}},
		{"index map is a list", indexed(`["x"]`), []string{indexName, "weight_map", "expected a JSON object"}},
		{"index names no file", indexed(`{"x":7}`), []string{indexName, `"x"`, "expected a file name, found 7"}},
		{"index leaves the folder", indexed(`{"x":"../secret.safetensors"}`), []string{indexName, `"x"`, "../secret.safetensors"}},
		{"index names a tensor twice", indexed(`{"x":"` + shard + `","x":"` + shard + `"}`), []string{indexName, `"x" comes twice`}},
		{"index names an absent shard", indexed(`{"x":"model-00009-of-00009.safetensors"}`), []string{"model-00009-of-00009.safetensors", "missing", indexName, `"x"`}},
		{"index names an absent tensor", indexed(`{"x":"` + shard + `","y":"` + shard + `"}`), []string{shard, `"y"`, "missing", indexName}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Open(folder(t, tt.files))
			if err == nil {
				c.Close()
				t.Fatalf("opened, want an error with %q", tt.want)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one line: %q", err)
			}
		})
	}
}

func TestOpenRefusesFolder(t *testing.T) {
	empty := t.TempDir()
	if _, err := Open(empty); err == nil || !strings.Contains(err.Error(), empty) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty folder: %v", err)
	}
	if _, err := Open(empty + "/absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent folder: %v, want ErrNotExist", err)
	}
	dir := weightstest.Folder(t, map[string][]byte{singleName: sample()})
	if _, err := Open(dir + "/" + singleName); err == nil || !strings.Contains(err.Error(), "is a file") {
		t.Errorf("a file as folder: %v", err)
	}
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), configName) {
		t.Errorf("no config.json: %v", err)
	}
}

// TestMutations damages a good file two thousand times, always the same way.
// A damaged file is refused, or what it lists is still within it and true to
// its types; it never panics.
func TestMutations(t *testing.T) {
	good := sample()
	rng := rand.New(rand.NewPCG(1, 2))
	refused := 0
	for i := range 2000 {
		data := bytes.Clone(good)
		switch rng.IntN(4) {
		case 0:
			data = data[:rng.IntN(len(data))]
		case 1:
			data = append(data, make([]byte, 1+rng.IntN(9))...)
		default:
			for range 1 + rng.IntN(3) {
				data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
			}
		}
		tensors, err := parse(data, int64(len(data)))
		if err != nil {
			refused++
			continue
		}
		total := int64(0)
		for _, x := range tensors {
			total += x.Size
		}
		if want := int64(len("abcdefghijkl") + 16); total != want {
			t.Fatalf("mutation %d: %d bytes of tensors, want %d or an error:\n%q", i, total, want, data)
		}
	}
	if refused < 1000 {
		t.Errorf("only %d of 2000 damaged files refused: is the check alive?", refused)
	}
}
