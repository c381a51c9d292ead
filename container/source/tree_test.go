package source

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

func TestTree(t *testing.T) {
	files := randomModel(3, 3, 6, 4000)
	files["templates/chat.jinja"] = []byte("{{ messages }}")
	want := wantHashes(t, without(files, "templates/chat.jinja"))
	for _, tt := range []struct{ name, put, location string }{
		{"prefix", "a/llama/", "s3://models/a/llama"},
		{"whole bucket", "", "s3://models"},
		{"a folder further down", "a/llama/x/", "s3://models/a/llama/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := s3test.NewServer(t).PageOf(3)
			put(server, "models", tt.put, files)
			server.Put("models", tt.put, nil)                                    // a folder, as the console makes it
			server.Put("models", tt.put+"original/model.safetensors", []byte{1}) // of no interest
			m, err := openBucket(t.Context(), testBucket(t, server.URL, tt.location, quick), math.MaxInt64)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Checkpoint.Close()
			got, err := hashes(m.Checkpoint, nil)
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("other weights, or %v", err)
			}
			if text, err := fs.ReadFile(m.Files, "templates/chat.jinja"); err != nil || string(text) != "{{ messages }}" {
				t.Errorf("templates/chat.jinja: %q, %v", text, err)
			}
			if entries, err := fs.ReadDir(m.Files, "templates"); err != nil || len(entries) != 1 || entries[0].Name() != "chat.jinja" {
				t.Errorf("templates: %v, %v", entries, err)
			}
			if _, err := fs.ReadFile(m.Files, "absent.json"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("absent.json: %v", err)
			}
		})
	}
}

func without(files map[string][]byte, name string) map[string][]byte {
	files = maps.Clone(files)
	delete(files, name)
	return files
}

// TestPartOfTheTensors reads all but one tensor: the hole is not read, or it
// is and the checksum holds, but never handed over.
func TestPartOfTheTensors(t *testing.T) {
	files := randomModel(5, 1, 12, 3000)
	want := wantHashes(t, files)
	server := s3test.NewServer(t)
	put(server, "models", "llama/", files)
	for skipped := range want {
		m, err := openBucket(t.Context(), testBucket(t, server.URL, "s3://models/llama", quick), math.MaxInt64)
		if err != nil {
			t.Fatal(err)
		}
		got, err := hashes(m.Checkpoint, func(name string) bool { return name == skipped })
		m.Checkpoint.Close()
		rest := maps.Clone(want)
		delete(rest, skipped)
		if err != nil || !maps.Equal(got, rest) {
			t.Errorf("without %s: other weights, or %v", skipped, err)
		}
	}
}

// TestHedge stalls one range until the test ends: a second connection must
// have read it.
func TestHedge(t *testing.T) {
	files := randomModel(4, 1, 8, 30_000)
	want := wantHashes(t, files)
	server := s3test.NewServer(t)
	put(server, "models", "llama/", files)
	release := make(chan struct{})
	proxy := s3test.NewProxy(t, server.URL, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	var ranges atomic.Int32
	proxy.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".safetensors") || r.Header.Get("Range") == "" || ranges.Add(1) != 20 {
			return false
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return false
	})
	tune := quick
	tune.idle = time.Hour // so that only the second connection helps
	got, _, err := read(t.Context(), testBucket(t, proxy.URL, "s3://models/llama", tune))
	close(release)
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("other weights, or %v", err)
	}
	if ranges.Load() < 21 {
		t.Errorf("%d ranges were asked for: too few to stall the 20th", ranges.Load())
	}
}

// TestReplacedBetweenFiles replaces a file after the listing: also one that was
// not being read may not be mixed in.
func TestReplacedBetweenFiles(t *testing.T) {
	files := randomModel(3, 2, 4, 2000)
	server := s3test.NewServer(t)
	put(server, "models", "llama/", files)
	m, err := openBucket(t.Context(), testBucket(t, server.URL, "s3://models/llama", quick), math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Checkpoint.Close()
	const second = "model-00002-of-00002.safetensors"
	server.Put("models", "llama/"+second, bytes.Repeat([]byte{1}, len(files[second])))
	_, err = hashes(m.Checkpoint, nil)
	if err == nil || !strings.Contains(err.Error(), "s3://models/llama/"+second+": it was replaced") {
		t.Errorf("got %v, want that %s was replaced", err, second)
	}
}

// TestListingStops stops in the middle of the listing: it is asked for again.
func TestListingStops(t *testing.T) {
	files := randomModel(4, 1, 2, 500)
	server := s3test.NewServer(t)
	put(server, "models", "llama/", files)
	proxy := s3test.NewProxy(t, server.URL, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	var lists atomic.Int32
	proxy.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("list-type") == "" || lists.Add(1) != 1 {
			return false
		}
		_, _ = io.WriteString(w, "<ListBucketResult>")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	tune := quick
	tune.idle = 100 * time.Millisecond
	if _, _, err := read(t.Context(), testBucket(t, proxy.URL, "s3://models/llama", tune)); err != nil {
		t.Error(err)
	}
}

// TestLate: a second connection is given the time that a first one is.
func TestLate(t *testing.T) {
	const usual, factor = 0.001, 3.0 // seconds per byte
	s := &rangeRequest{parts: []part{{length: 1000}}}
	s.enter(&attempt{cancel: func() {}})
	begin := s.entered
	if s.late(begin.Add(2*time.Second), usual, factor, 0) || !s.late(begin.Add(4*time.Second), usual, factor, 0) {
		t.Error("not late after three times the usual time, or before")
	}
	second := &attempt{cancel: func() {}}
	s.enter(second)
	if s.late(s.entered.Add(time.Hour), usual, factor, 0) {
		t.Error("late with two connections")
	}
	s.leave(second)
	if begin = s.entered; s.late(begin.Add(2*time.Second), usual, factor, 0) || !s.late(begin.Add(4*time.Second), usual, factor, 0) {
		t.Error("the second connection has not the time of the first")
	}
}
