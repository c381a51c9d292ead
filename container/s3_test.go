package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

// s3Env are the variables of a user who has a server of their own.
func s3Env(url string) []string {
	return []string{"AWS_ENDPOINT_URL_S3=" + url, "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true"}
}

// A model in S3, and one in an archive, there or here, answer as the same model
// in a folder does.
func TestServeFromS3(t *testing.T) {
	files := tinyFiles(t)
	server := s3test.NewServer(t)
	for name, data := range files {
		server.Put("models", "tiny/"+name, data)
	}
	archive := tarOf(t, files)
	server.Put("models", "tiny.tar", archive)
	local := filepath.Join(t.TempDir(), "tiny.tar")
	if err := os.WriteFile(local, archive, 0o400); err != nil {
		t.Fatal(err)
	}
	const request = `{"inputs":"the quick","parameters":{"max_new_tokens":8}}`
	_, want := start(t, nil, "--model-id", tinyFolder(t)).ready().post("/generate", request)
	for _, tt := range []struct{ location, name string }{
		{"s3://models/tiny/?requestPayer=requester", "s3://models/tiny/"},
		{"s3://models/tiny.tar", "s3://models/tiny.tar"},
		{local, "tiny.tar"},
	} {
		p := start(t, append(s3Env(server.URL), "HF_MODEL_ID="+tt.location)).ready()
		if status, got := p.post("/generate", request); status != http.StatusOK || got != want {
			t.Errorf("%s: %d %s; from a folder %s", tt.location, status, got, want)
		}
		if _, info := p.get("/info"); !strings.Contains(info, fmt.Sprintf(`"model_id":%q`, tt.name)) {
			t.Errorf("%s: /info: %s", tt.location, info)
		}
	}
}

func tarOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, data := range files {
		err := w.WriteHeader(&tar.Header{Name: "tiny/" + name, Mode: 0o644, Size: int64(len(data))})
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The port is open while a model comes from S3, and says what it waits for;
// what is wrong with the model ends the process with its cause.
func TestServeFromS3Refused(t *testing.T) {
	server := s3test.NewServer(t)
	release := make(chan struct{})
	proxy := s3test.NewProxy(t, server.URL, 1, nil)
	proxy.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		s3test.Fail(w, http.StatusForbidden, "AccessDenied", "x is not authorized to perform: s3:ListBucket on resource y")
		return true
	})
	p := start(t, append(s3Env(proxy.URL), "MODEL_ID=s3://models/tiny"))
	status, body := p.get("/health")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "opening s3://models/tiny") {
		t.Errorf("%d %s; want 503 that names what is opened", status, body)
	}
	close(release)
	if code := p.wait(); code != 2 || !strings.Contains(p.logged(), "s3://models/tiny/: access denied: s3:ListBucket is missing") {
		t.Errorf("exit %d; want 2 and the cause", code)
	}
}

func TestPullCommand(t *testing.T) {
	server := s3test.NewServer(t)
	files := tinyFiles(t)
	for name, data := range files {
		server.Put("models", "tiny/"+name, data)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if code, stderr := refused(t, s3Env(server.URL), "pull", "s3://models/tiny", dir); code != 0 || !strings.Contains(stderr, " in "+dir) {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != string(files[name]) {
			t.Errorf("%s: %v, or other bytes", name, err)
		}
	}
	for _, tt := range []struct {
		source string
		status int
		want   string
	}{
		{"s3://models/other", 1, "s3://models/other/: no objects there"},
		{"https://models/tiny", 2, "expected ORG/NAME of the Hugging Face hub, s3://BUCKET/PREFIX"},
	} {
		if code, stderr := refused(t, s3Env(server.URL), "pull", tt.source, dir); code != tt.status || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("pull %s: exit %d, %q; want %d, one line with %q", tt.source, code, stderr, tt.status, tt.want)
		}
	}
}
