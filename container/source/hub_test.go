package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/source/hubtest"
	"github.com/millrace-ai/millrace/container/source/s3test"
	"github.com/millrace-ai/millrace/engine/weights"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// testHub returns a client of a hub whose cache is a folder of the test's own.
// env are further variables, "NAME=value".
func testHub(t testing.TB, s *hubtest.Server, cache string, env ...string) *Hub {
	t.Helper()
	vars := map[string]string{"HF_ENDPOINT": s.URL, "HF_HUB_CACHE": cache, "HOME": cache}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		vars[name] = value
	}
	h, err := NewHub(func(name string) string { return vars[name] }, "", silent)
	if err != nil {
		t.Fatal(err)
	}
	h.tune = quick
	t.Cleanup(h.client.http.CloseIdleConnections)
	return h
}

// hubFiles returns the files of a model that are needed, and others.
func hubFiles(seed uint64, shards int) (needed, all map[string][]byte) {
	needed = randomModel(seed, shards, 4, 3000)
	needed["tokenizer_config.json"] = []byte(`{}`)
	needed["chat_template.jinja"] = []byte(`{{ messages }}`)
	needed["additional_chat_templates/rag.jinja"] = []byte(`{{ documents }}`)
	needed["added_tokens.json"] = nil // empty, as some are
	all = maps.Clone(needed)
	for _, name := range []string{"README.md", ".gitattributes", "pytorch_model.bin", "pytorch_model.bin.index.json", "onnx/model.onnx", "model-q4.gguf", "original/consolidated.safetensors", "modeling.py"} {
		all[name] = []byte("not needed: " + name)
	}
	return needed, all
}

func TestParseHub(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("here/model", 0o755); err != nil {
		t.Fatal(err)
	}
	const endpoint = "http://mirror:8000/hub"
	for _, tt := range []struct {
		location string
		want     string // "" for something else
		wrong    string // what is said about a name that cannot be one
	}{
		{"org/name", "org/name", ""},
		{"org/name@v1.0", "org/name@v1.0", ""},
		{"org/name@refs/pr/3", "org/name@refs/pr/3", ""},
		{"hf://org/name@main", "org/name@main", ""},
		{"hf://models/org/name", "org/name", ""},
		{"hf:org/name", "org/name", ""},
		{"hf:gpt2", "gpt2", ""},
		{"https://huggingface.co/org/name", "org/name", ""},
		{"https://huggingface.co/org/name/", "org/name", ""},
		{"https://huggingface.co/org/name/tree/v1?x=y", "org/name@v1", ""},
		{"https://hf.co/org/name", "org/name", ""},
		{endpoint + "/org/name", "org/name", ""},
		{"org/name:Q4_K_M", "org/name:Q4_K_M", ""},
		{"org/name:Q4_K_M@v1", "org/name:Q4_K_M@v1", ""},
		{"org/name/dir/x.gguf", "org/name/dir/x.gguf", ""},
		{"https://huggingface.co/org/name/blob/main/x.gguf", "org/name/x.gguf@main", ""},
		{"./org/name/x.gguf", "", ""},
		{"s3://bucket/dir/x.gguf", "", ""},
		{"org/name:..", "", "neither a type of GGUF"},
		{"here/model", "", ""}, // a folder
		{"gpt2", "", ""},
		{"./org/name", "", ""},
		{"/org/name", "", ""},
		{"a/b/c", "", ""},
		{"org/model.tar.gz", "", ""},
		{"s3://bucket/key", "", ""},
		{"hf://datasets/org/name", "", "expected ORG/NAME"},
		{"hf:../name", "", "expected ORG/NAME"},
		{"hf:org/na--me", "", "expected ORG/NAME"},
		{"org/name@", "", "not a revision"},
		{"org/name@../../x", "", "not a revision"},
	} {
		m, ok, err := parseHub(tt.location, endpoint)
		switch {
		case tt.wrong != "":
			if !ok || err == nil || !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("%s: %v; want an error with %q", tt.location, err, tt.wrong)
			}
		case err != nil || ok != (tt.want != "") || ok && m.String() != tt.want:
			t.Errorf("%s: %q, %t, %v; want %q", tt.location, m, ok, err, tt.want)
		}
	}
}

// A model is downloaded once, in the layout of the hub's own cache; the next time
// only what the branch is has to be asked.
func TestSnapshot(t *testing.T) {
	for _, shards := range []int{1, 3} {
		s := hubtest.NewServer(t)
		s.PageOf(4)
		needed, all := hubFiles(uint64(shards), shards)
		commit := s.Commit("org/name", "main", all)
		cache := t.TempDir()
		h := testHub(t, s, cache)
		var done, total int64
		h.Progress = func(d, of int64) { done, total = d, of }
		dir, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name"})
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(cache, "models--org--name", "snapshots", commit); dir != want {
			t.Errorf("in %s, want %s", dir, want)
		}
		if got := pulled(t, dir); !same(got, needed) {
			t.Errorf("other files than those that are needed, or other bytes: %d files", len(got))
		}
		size := int64(0)
		for _, data := range needed {
			size += int64(len(data))
		}
		if done != size || total != size {
			t.Errorf("progress ended at %d of %d bytes, want %d", done, total, size)
		}
		link, err := os.Readlink(filepath.Join(dir, "additional_chat_templates", "rag.jinja"))
		if err != nil || !strings.HasPrefix(link, "../../../blobs/") {
			t.Errorf("link to %q, %v; want one to a blob, relative", link, err)
		}
		if ref, err := os.ReadFile(filepath.Join(cache, "models--org--name/refs/main")); err != nil || string(ref) != commit {
			t.Errorf("refs/main is %q, %v", ref, err)
		}
		if left, _ := filepath.Glob(filepath.Join(cache, "models--org--name/blobs/*.*")); left != nil {
			t.Errorf("left behind: %s", left)
		}
		before := len(s.Requests())
		if again, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name"}); again != dir || err != nil || len(s.Requests()) != before+1 {
			t.Errorf("again: %s, %v, %q", again, err, s.Requests()[before:])
		}
		before = len(s.Requests())
		if again, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name", Revision: commit}); again != dir || err != nil || len(s.Requests()) != before {
			t.Errorf("by commit: %s, %v, %q; want no request", again, err, s.Requests()[before:])
		}
		m, err := Open(t.Context(), dir, math.MaxInt64, silent)
		if err != nil {
			t.Fatal(err)
		}
		got, err := hashes(m.Checkpoint, nil)
		m.Checkpoint.Close()
		delete(needed, "additional_chat_templates/rag.jinja")
		if err != nil || !maps.Equal(got, wantHashes(t, needed)) {
			t.Errorf("other weights, or %v", err)
		}
	}
}

// A branch that moves brings a second snapshot, which shares what has not changed.
func TestSnapshotOfMovedBranch(t *testing.T) {
	s := hubtest.NewServer(t)
	files, _ := hubFiles(1, 1)
	s.Commit("org/name", "main", files)
	h := testHub(t, s, t.TempDir())
	first, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name"})
	if err != nil {
		t.Fatal(err)
	}
	files["tokenizer_config.json"] = []byte(`{"new": true}`)
	s.Commit("org/name", "main", files)
	before := len(s.Requests())
	second, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name"})
	if err != nil || second == first || !same(pulled(t, second), files) {
		t.Errorf("%s after %s, %v", second, first, err)
	}
	for _, r := range s.Requests()[before:] {
		if strings.Contains(r, "/resolve/") && !strings.HasSuffix(r, "tokenizer_config.json") {
			t.Errorf("downloaded again: %s", r)
		}
	}
}

// Without the hub, the cache serves what it has, and says so.
func TestSnapshotWithoutHub(t *testing.T) {
	s, stop := hubtest.New()
	files, _ := hubFiles(1, 2)
	commit := s.Commit("org/name", "main", files)
	cache := t.TempDir()
	want, err := testHub(t, s, cache).Snapshot(t.Context(), HubModel{Repo: "org/name"})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	var log bytes.Buffer
	h := testHub(t, s, cache)
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	for _, revision := range []string{"", "main", commit} {
		if dir, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name", Revision: revision}); dir != want || err != nil {
			t.Errorf("revision %q: %s, %v", revision, dir, err)
		}
	}
	if !strings.Contains(log.String(), "serving the model from the cache") {
		t.Errorf("no warning: %s", &log)
	}
	if _, err := h.Snapshot(t.Context(), HubModel{Repo: "org/other"}); err == nil || !strings.Contains(err.Error(), "org/other: the hub cannot be reached") {
		t.Errorf("not in the cache: %v", err)
	}

	offline := testHub(t, s, cache, "HF_HUB_OFFLINE=1")
	if dir, err := offline.Snapshot(t.Context(), HubModel{Repo: "org/name"}); dir != want || err != nil {
		t.Errorf("offline: %s, %v", dir, err)
	}
	if _, err := offline.Snapshot(t.Context(), HubModel{Repo: "org/other"}); err == nil || !strings.Contains(err.Error(), "HF_HUB_OFFLINE is set") {
		t.Errorf("offline, not in the cache: %v", err)
	}
	// Half a snapshot is not one.
	if err := os.Remove(filepath.Join(want, "model-00002-of-00002.safetensors")); err != nil {
		t.Fatal(err)
	}
	if dir, err := offline.Snapshot(t.Context(), HubModel{Repo: "org/name"}); err == nil {
		t.Errorf("offline, with a shard missing: %s", dir)
	}
}

func TestHubRefusals(t *testing.T) {
	s := hubtest.NewServer(t)
	files, _ := hubFiles(1, 1)
	put := func(name string, drop string, more ...string) {
		c := maps.Clone(files)
		delete(c, drop)
		for _, m := range more {
			c[m] = []byte("x")
		}
		s.Commit(name, "main", c)
	}
	put("org/gated", "")
	s.Gate("org/gated")
	put("org/private", "")
	s.Hide("org/private")
	put("org/gguf", "model.safetensors", "model-q8_0.gguf", "model-q4_0.gguf")
	put("org/torch", "model.safetensors", "pytorch_model.bin")
	put("org/adapter", "model.safetensors", "adapter_model.safetensors")
	put("org/other", "config.json")
	put("org/name", "")
	for _, tt := range []struct {
		name  HubModel
		token string
		want  string // "" for a success
	}{
		{HubModel{Repo: "org/gated"}, "", "org/gated: the model is gated: accept the conditions at " + s.URL + "/org/gated and set HF_TOKEN"},
		{HubModel{Repo: "org/gated"}, hubtest.Token, "the account of the token has no access: accept the conditions at " + s.URL + "/org/gated"},
		{HubModel{Repo: "org/gated"}, hubtest.Member, ""},
		{HubModel{Repo: "org/private"}, "", "no such model on the hub, or it is private: check the name, or set HF_TOKEN"},
		{HubModel{Repo: "org/private"}, hubtest.Token, "whether the account of the token may read it"},
		{HubModel{Repo: "org/private"}, hubtest.Member, ""},
		{HubModel{Repo: "org/name"}, "hf_wrong", "the token is not valid"},
		{HubModel{Repo: "org/missing", Bare: true}, "", "nor is there a folder of that name here"},
		{HubModel{Repo: "org/name", Revision: "v7"}, "", `the model has no revision "v7"`},
		{HubModel{Repo: "org/gguf"}, "", "org/gguf: several GGUF files: model-q4_0.gguf, model-q8_0.gguf; name one"},
		{HubModel{Repo: "org/gguf", Variant: "Q5_K"}, "", "no GGUF file is Q5_K, but model-q4_0.gguf"},
		{HubModel{Repo: "org/gguf", Variant: "Q8_0"}, "", ""},
		{HubModel{Repo: "org/torch"}, "", "no model.safetensors, but pytorch_model.bin: choose a repository with safetensors"},
		{HubModel{Repo: "org/adapter"}, "", "it is an adapter"},
		{HubModel{Repo: "org/other"}, "", "the repository has no config.json"},
	} {
		_, err := testHub(t, s, t.TempDir(), "HF_TOKEN="+tt.token).Snapshot(t.Context(), tt.name)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s with %q: %v", tt.name, tt.token, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s with %q: %v; want one line with %q", tt.name, tt.token, err, tt.want)
		case err != nil && tt.token != "" && strings.Contains(err.Error(), tt.token):
			t.Errorf("the token is shown: %v", err)
		}
	}
}

// The token comes from the environment, or from the file that `hf auth login`
// writes.
func TestHubToken(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "token"), []byte("hf_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HF_TOKEN": " hf_a\r\n", "HUGGING_FACE_HUB_TOKEN": "hf_b"}, "hf_a"},
		{map[string]string{"HUGGING_FACE_HUB_TOKEN": "hf_b"}, "hf_b"},
		{map[string]string{"HF_API_TOKEN": "hf_c"}, "hf_c"},
		{nil, "hf_file"},
		{map[string]string{"HF_TOKEN_PATH": "/none"}, ""},
		{map[string]string{"HF_TOKEN": "hf_a", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, ""},
	} {
		if got := hubToken(func(name string) string { return tt.env[name] }, home); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.env, got, tt.want)
		}
	}
}

// The cache is where huggingface_hub has it; without a home that can be written
// it is in a folder for temporary files.
func TestHubCaches(t *testing.T) {
	own := filepath.Join(os.TempDir(), "millrace-")
	for _, tt := range []struct {
		env   string
		flag  string
		first string
		own   bool
	}{
		{"HF_HUB_CACHE=/a,HUGGINGFACE_HUB_CACHE=/b,HF_HOME=/c", "", "/a", false},
		{"HF_HUB_CACHE=/a", "/flag", "/flag", false},
		{"HUGGINGFACE_HUB_CACHE=/b,HF_HOME=/c", "", "/b", false},
		{"HF_HOME=/c,HOME=/h", "", "/c/hub", false},
		{"HF_HOME=~/c,HOME=/h", "", "/h/c/hub", false},
		{"HF_HOME=$BASE/c,BASE=/base", "", "/base/c/hub", false},
		{"XDG_CACHE_HOME=/x,HOME=/h", "", "/x/huggingface/hub", true},
		{"HOME=/h", "", "/h/.cache/huggingface/hub", true},
		{"", "", own, true},
	} {
		vars := map[string]string{}
		for pair := range strings.SplitSeq(tt.env, ",") {
			name, value, _ := strings.Cut(pair, "=")
			vars[name] = value
		}
		h, err := NewHub(func(name string) string { return vars[name] }, tt.flag, silent)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(h.caches[0], tt.first) || (h.own != "") != tt.own {
			t.Errorf("%s: caches %q, own %q; want %s first", tt.env, h.caches, h.own, tt.first)
		}
	}

	t.Setenv("TMPDIR", t.TempDir())
	s := hubtest.NewServer(t)
	files, _ := hubFiles(1, 1)
	s.Commit("org/name", "main", files)
	h := testHub(t, s, "", "HOME=/proc/none")
	dir, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name"})
	if err != nil || !strings.HasPrefix(dir, os.TempDir()) || !same(pulled(t, dir), files) {
		t.Errorf("without a home: %s, %v", dir, err)
	}
	if again := testHub(t, s, "", "HOME=/proc/none", "HF_HUB_OFFLINE=1").cached(HubModel{Repo: "org/name"}); again != dir {
		t.Errorf("found again in %q, want %q", again, dir)
	}
	if err := os.Chmod(filepath.Dir(h.own), 0o777); err != nil { //nolint:gosec // that is the test
		t.Fatal(err)
	}
	if _, err := testHub(t, s, "", "HOME=/proc/none").Snapshot(t.Context(), HubModel{Repo: "org/name"}); err == nil || !strings.Contains(err.Error(), "set HF_HOME") {
		t.Errorf("a folder that everybody can write to is used: %v", err)
	}
}

// TestHubFaults downloads through a proxy in front of the CDN, and with faults of
// the hub, in random runs: each ends with the right files, or with an error that
// names the model.
func TestHubFaults(t *testing.T) {
	loaded := 0
	const runs = 24
	for seed := range uint64(runs) {
		r := rand.New(rand.NewPCG(seed, 5))
		s := hubtest.NewServer(t)
		files, all := hubFiles(seed, 1+r.IntN(3))
		s.Commit("org/name", "main", all)
		rate := 0.25 * r.Float64()
		proxy := s3test.NewProxy(t, s.CDN, seed, func(n int, _ *http.Request) s3test.Fault {
			if f := rand.New(rand.NewPCG(seed, uint64(n))); f.Float64() < rate {
				return s3test.Fault(1 + f.IntN(int(s3test.Faults)-1))
			}
			return s3test.None
		})
		s.RedirectTo(proxy.URL)
		var requests atomic.Int64
		s.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			n := requests.Add(1)
			switch f := rand.New(rand.NewPCG(seed, uint64(n)<<20)); {
			case f.Float64() > rate:
				return false
			case f.IntN(3) == 0:
				s.Expire()
				return false
			case f.IntN(2) == 0:
				w.WriteHeader(http.StatusTooManyRequests)
			default:
				w.WriteHeader(http.StatusBadGateway)
			}
			return true
		})
		h := testHub(t, s, t.TempDir())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		dir, err := h.Snapshot(ctx, HubModel{Repo: "org/name"})
		cancel()
		switch {
		case err == nil && same(pulled(t, dir), files):
			loaded++
		case err == nil:
			t.Errorf("run %d: other files", seed)
		case !strings.HasPrefix(err.Error(), "org/name"):
			t.Errorf("run %d: %v", seed, err)
		default:
			t.Logf("run %d, rate %.2f: %v", seed, rate, err)
		}
	}
	t.Logf("%d of %d downloaded", loaded, runs)
	if loaded < runs/3 {
		t.Errorf("only %d of %d downloaded", loaded, runs)
	}
}

// What an interrupted download has brought is not downloaded again.
func TestHubResumes(t *testing.T) {
	s := hubtest.NewServer(t)
	files := randomModel(3, 1, 8, 30_000)
	s.Commit("org/name", "main", files)
	weights := int64(len(files["model.safetensors"]))
	var sent atomic.Int64
	proxy := s3test.NewProxy(t, s.CDN, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	proxy.Intercept(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		var from, to int64
		if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); n == 2 {
			sent.Add(to - from + 1)
		}
		return false
	})
	s.RedirectTo(proxy.URL)
	cache := t.TempDir()
	h := testHub(t, s, cache)
	ctx, cancel := context.WithCancel(t.Context())
	h.Progress = func(done, total int64) {
		if done > total/2 {
			cancel()
		}
	}
	if _, err := h.Snapshot(ctx, HubModel{Repo: "org/name"}); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "models--org--name/blobs/*.incomplete")); len(left) == 0 {
		t.Fatal("nothing is kept of an interrupted download")
	}
	sent.Store(0)
	dir, err := testHub(t, s, cache).Snapshot(t.Context(), HubModel{Repo: "org/name"})
	if err != nil || !same(pulled(t, dir), files) {
		t.Fatalf("resumed: %v, or other files", err)
	}
	if got := sent.Load(); got > weights*3/4 {
		t.Errorf("%d of %d bytes were downloaded again", got, weights)
	}
}

// A blob that is damaged is not used, and what a mirror changes is noticed.
func TestHubRefusesOtherContent(t *testing.T) {
	s := hubtest.NewServer(t)
	files, _ := hubFiles(3, 1)
	s.Commit("org/name", "main", files)
	proxy := s3test.NewProxy(t, s.CDN, 1, func(n int, _ *http.Request) s3test.Fault {
		if n == 0 {
			return s3test.Corrupt
		}
		return s3test.None
	})
	s.RedirectTo(proxy.URL)
	cache := t.TempDir()
	_, err := testHub(t, s, cache).Snapshot(t.Context(), HubModel{Repo: "org/name"})
	if err == nil || !strings.Contains(err.Error(), "org/name/model.safetensors: damaged in transit: its SHA-256 is") {
		t.Errorf("a bit flipped: %v", err)
	}
	dir, err := testHub(t, s, cache).Snapshot(t.Context(), HubModel{Repo: "org/name"})
	if err != nil || !same(pulled(t, dir), files) {
		t.Errorf("after that: %v, or other files", err)
	}
	changed := hubtest.NewServer(t)
	changed.Commit("org/name", "main", files)
	changed.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/resolve/") {
			return false
		}
		w.Header().Set("X-Repo-Commit", strings.Repeat("a", 40))
		w.WriteHeader(http.StatusOK)
		return true
	})
	if _, err := testHub(t, changed, t.TempDir()).Snapshot(t.Context(), HubModel{Repo: "org/name"}); err == nil || !strings.Contains(err.Error(), "replaced while") {
		t.Errorf("another commit: %v", err)
	}
}

// Two processes that want the same model download it once, and a lock of
// huggingface_hub's is waited for.
func TestHubLocks(t *testing.T) {
	s := hubtest.NewServer(t)
	files, _ := hubFiles(2, 2)
	s.Commit("org/name", "main", files)
	cache := t.TempDir()
	type result struct {
		dir string
		err error
	}
	results := make(chan result, 3)
	for range 3 {
		h := testHub(t, s, cache)
		go func() {
			dir, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name"})
			results <- result{dir, err}
		}()
	}
	for range 3 {
		if r := <-results; r.err != nil || !same(pulled(t, r.dir), files) {
			t.Errorf("%s, %v", r.dir, r.err)
		}
	}
	resolved := map[string]int{}
	for _, r := range s.Requests() {
		if strings.Contains(r, "/resolve/") {
			resolved[r]++
		}
	}
	for r, n := range resolved {
		if n > 1 && !strings.HasSuffix(r, indexName) { // which is read to know the rest
			t.Errorf("%s, %d times", r, n)
		}
	}

	other := t.TempDir()
	h := testHub(t, s, other)
	r, err := h.find(t.Context(), HubModel{Repo: "org/name"})
	if err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(other, ".locks", "models--org--name", r.files[0].blob()+".lock")
	if err := os.MkdirAll(filepath.Dir(lock), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan string, 1)
	h.Log = slog.New(slog.NewTextHandler(writer(func(p []byte) { waiting <- string(p) }), nil))
	go func() {
		dir, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name"})
		results <- result{dir, err}
	}()
	if said := <-waiting; !strings.Contains(said, "waiting for another process") {
		t.Errorf("said %q", said)
	}
	if _, err := os.Stat(filepath.Join(other, "models--org--name", "blobs", r.files[0].blob())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("written without the lock: %v", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if r := <-results; r.err != nil || !same(pulled(t, r.dir), files) {
		t.Errorf("%s, %v", r.dir, r.err)
	}
}

// writer is a function that is an io.Writer.
type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// Pulling into a folder makes it a model folder without links.
func TestPullFromHub(t *testing.T) {
	s := hubtest.NewServer(t)
	files, all := hubFiles(4, 2)
	s.Commit("org/name", "main", all)
	dir := filepath.Join(t.TempDir(), "model")
	h := testHub(t, s, t.TempDir())
	for range 2 {
		if err := h.PullInto(t.Context(), HubModel{Repo: "org/name"}, dir); err != nil || !same(pulled(t, dir), files) {
			t.Fatalf("%v, or other files", err)
		}
	}
	downloads := 0
	for _, r := range s.Requests() {
		if strings.Contains(r, "model-00001") {
			downloads++
		}
	}
	if downloads != 1 {
		t.Errorf("a shard was requested %d times, want once", downloads)
	}
}

// A model for which the disk has no room is refused before it is downloaded, and
// a disk that fills up meanwhile is told from a fault of the network.
func TestHubDiskFull(t *testing.T) {
	s := hubtest.NewServer(t)
	s.Commit("org/huge", "main", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": nil})
	s.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/tree/") {
			return false
		}
		_, _ = fmt.Fprintf(w, `[{"type":"file","path":"config.json","oid":"%040d","size":2},
			{"type":"file","path":"model.safetensors","oid":"%040d","size":%d,"lfs":{"oid":"%064d","size":%[3]d}}]`, 1, 2, int64(1)<<60, 3)
		return true
	})
	h := testHub(t, s, t.TempDir())
	if _, err := h.Snapshot(t.Context(), HubModel{Repo: "org/huge"}); err == nil || !strings.Contains(err.Error(), "org/huge: not enough room on the disk: ") || !strings.Contains(err.Error(), "set HF_HOME") {
		t.Errorf("an exabyte: %v", err)
	}
	full := &fs.PathError{Op: "write", Path: "/cache/blob", Err: syscall.ENOSPC}
	if err := h.explainWrite(HubModel{Repo: "org/huge"}, full); !strings.Contains(err.Error(), "org/huge: the disk is full: ") || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
}

// A model can be described by its headers, from the hub, and from the cache when
// it is there.
func TestOpenHeaders(t *testing.T) {
	s := hubtest.NewServer(t)
	files := randomModel(5, 2, 4, 30_000)
	s.Commit("org/name", "main", files)
	cache := t.TempDir()
	h := testHub(t, s, cache)
	m, err := h.openHeaders(t.Context(), HubModel{Repo: "org/name"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Checkpoint.Close()
	want, err := weights.Open(weightstest.Folder(t, files))
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if !slices.Equal(m.Checkpoint.Names(), want.Names()) || m.Checkpoint.Bytes() != want.Bytes() {
		t.Errorf("%d tensors of %d bytes, want %d of %d", len(m.Checkpoint.Names()), m.Checkpoint.Bytes(), len(want.Names()), want.Bytes())
	}
	if text, err := fs.ReadFile(m.Files, "tokenizer.json"); err != nil || !bytes.Equal(text, files["tokenizer.json"]) {
		t.Errorf("tokenizer.json: %d bytes, %v", len(text), err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "models*")); left != nil {
		t.Errorf("in the cache: %s", left)
	}
	if _, err := h.Snapshot(t.Context(), HubModel{Repo: "org/name"}); err != nil {
		t.Fatal(err)
	}
	for _, offline := range []string{"0", "1"} {
		before := len(s.Requests())
		m, err := testHub(t, s, cache, "HF_HUB_OFFLINE="+offline).openHeaders(t.Context(), HubModel{Repo: "org/name"})
		if err != nil || m.Checkpoint.Streamed() || len(s.Requests()) > before+1 {
			t.Errorf("offline %s, in the cache: %v, %q", offline, err, s.Requests()[before:])
			continue
		}
		m.Checkpoint.Close()
	}
}

// TestChooseVariant: the file that is named, what it ends in, or the usual one.
func TestChooseVariant(t *testing.T) {
	all := []string{"Q8_0/m-Q8_0-00001-of-00002.gguf", "m-IQ4_NL.gguf", "m-Q4_K_M.gguf", "m.Q4_K_S.gguf"}
	for _, tt := range []struct {
		models        []string
		variant, want string // "" for an error
	}{
		{all, "", "m-Q4_K_M.gguf"},
		{all, "q8_0", all[0]},
		{all, "Q4_K_S", "m.Q4_K_S.gguf"},
		{all, "Q4_NL", ""},
		{all, "m-IQ4_NL.gguf", "m-IQ4_NL.gguf"},
		{all, "other.gguf", ""},
		{all[:2], "", ""},
		{all[:1], "", all[0]},
		{nil, "Q8_0", ""},
	} {
		got, err := chooseVariant(tt.models, tt.variant)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%q of %v: %q, %v; want %q", tt.variant, tt.models, got, err, tt.want)
		}
	}
}
