package source

import (
	"crypto/sha256"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-ai/millrace/container/source/hubtest"
	"github.com/millrace-ai/millrace/container/source/s3test"
	"github.com/millrace-ai/millrace/engine/weights"
)

// ggufFiles are GGUF files of the loader's tests, one model.
func ggufFiles(t *testing.T, pattern string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	paths, err := filepath.Glob("../../engine/loader/testdata/gguf/" + pattern)
	if err != nil || len(paths) == 0 {
		t.Fatal(pattern, err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(path)] = data
	}
	return files
}

// storedHashes are the hashes of the tensors in the files of c, and of config.json.
func storedHashes(c *weights.Checkpoint) (map[string][32]byte, error) {
	sums := map[string][32]byte{"config.json": sha256.Sum256(c.Config())}
	var names []string
	var pieces []weights.Piece
	seen := map[string]bool{}
	for _, name := range c.Names() {
		t, _ := c.Tensor(name)
		for _, r := range t.Rows {
			if from := r.From; !seen[from.Name] {
				seen[from.Name] = true
				names = append(names, from.Name)
				pieces = append(pieces, weights.Piece{File: from.File, Offset: from.Offset, Length: int(from.Size)})
			}
		}
	}
	err := c.Read(pieces, func(i int, data []byte) error {
		sums[names[i]] = sha256.Sum256(data)
		return nil
	})
	return sums, err
}

// TestGGUF: a model in GGUF comes the same from everywhere, in one file with the
// factors of its rotations and in several.
func TestGGUF(t *testing.T) {
	for name, pattern := range map[string]string{"one": "llama-llama3-v4.gguf", "several": "llama-tied-bf16+split-*.gguf"} {
		t.Run(name, func(t *testing.T) { testGGUF(t, ggufFiles(t, pattern)) })
	}
}

func testGGUF(t *testing.T, files map[string][]byte) {
	dir, first := t.TempDir(), ""
	for name, data := range files {
		if err := os.MkdirAll(filepath.Join(dir, "models", "tiny"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "models", "tiny", name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if first == "" || name < first {
			first = name
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "models", "tiny", "mmproj-tiny.gguf"), []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(dir, "models.tar.gz")
	archive := pack(t, files, ".gz", rand.New(rand.NewPCG(1, 1)))
	if err := os.WriteFile(packed, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	server := s3test.NewServer(t)
	put(server, "models", "a/tiny/", files)
	put(server, "models", "a/other/", map[string][]byte{"other.gguf": []byte("GGUF")})
	server.Put("models", "tiny.tar.gz", archive)
	remote := hubtest.NewServer(t)
	hubFiles := map[string][]byte{"README.md": []byte("x"), "other-Q5_0.gguf": []byte("GGUF"), "another-Q5_1.gguf": []byte("GGUF")}
	for name, data := range files {
		hubFiles["BF16/"+name] = data
	}
	remote.Commit("org/tiny-GGUF", "main", hubFiles)

	var want map[string][32]byte
	for _, tt := range []struct {
		name string
		open func() (*Model, error)
	}{
		{"file", func() (*Model, error) {
			return Open(t.Context(), filepath.Join(dir, "models", "tiny", first), math.MaxInt64, silent)
		}},
		{"folder", func() (*Model, error) { return Open(t.Context(), dir, math.MaxInt64, silent) }},
		{"archive", func() (*Model, error) { return Open(t.Context(), packed, math.MaxInt64, silent) }},
		{"object", func() (*Model, error) {
			return openBucket(t.Context(), testBucket(t, server.URL, "s3://models/a/tiny/"+first, quick), math.MaxInt64)
		}},
		{"prefix", func() (*Model, error) {
			return openBucket(t.Context(), testBucket(t, server.URL, "s3://models/a/tiny/", quick), math.MaxInt64)
		}},
		{"archive in S3", func() (*Model, error) {
			return openBucket(t.Context(), testBucket(t, server.URL, "s3://models/tiny.tar.gz", quick), math.MaxInt64)
		}},
		{"hub", func() (*Model, error) {
			place, err := testHub(t, remote, t.TempDir()).Snapshot(t.Context(), HubModel{Repo: "org/tiny-GGUF", Variant: "BF16/" + first})
			if err != nil {
				return nil, err
			}
			return Open(t.Context(), place, math.MaxInt64, silent)
		}},
	} {
		m, err := tt.open()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got, err := storedHashes(m.Checkpoint)
		m.Checkpoint.Close()
		if want == nil {
			want = got
		}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: other weights, or %v", tt.name, err)
		}
	}
	if len(want) < 10 {
		t.Errorf("%d tensors", len(want))
	}

	// Of a model that is only described, the headers are read.
	headers, err := testHub(t, remote, t.TempDir()).openHeaders(t.Context(), HubModel{Repo: "org/tiny-GGUF", Variant: "BF16/" + first})
	if err != nil {
		t.Fatal(err)
	}
	defer headers.Checkpoint.Close()
	if want["config.json"] != sha256.Sum256(headers.Checkpoint.Config()) {
		t.Errorf("headers: %s", headers.Checkpoint.Config())
	}
}
