package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/source/hubtest"
)

// hubEnv are the variables of a user of the hub at url, whose cache is below home.
func hubEnv(url, home string, more ...string) []string {
	return append([]string{"HF_ENDPOINT=" + url, "HF_HOME=" + home}, more...)
}

// A model of the hub answers as the same model in a folder does, is served from
// the cache the next time, and is called by its name.
func TestServeFromHub(t *testing.T) {
	files := tinyFiles(t)
	hub, stop := hubtest.New()
	commit := hub.Commit("org/tiny", "main", files)
	hub.Commit("org/tiny", "broken", map[string][]byte{"config.json": []byte("{}")})
	hub.Gate("org/tiny")
	home := t.TempDir()
	env := hubEnv(hub.URL, home, "HF_TOKEN="+hubtest.Member)
	const request = `{"inputs":"the quick","parameters":{"max_new_tokens":8}}`
	_, want := start(t, nil, "--model-id", tinyFolder(t)).ready().post("/generate", request)
	check := func(p *process) {
		t.Helper()
		if status, got := p.ready().post("/generate", request); status != http.StatusOK || got != want {
			t.Errorf("%d %s; from a folder %s", status, got, want)
		}
		if _, info := p.get("/info"); !strings.Contains(info, fmt.Sprintf(`"model_id":"org/tiny","model_sha":%q,"model_pipeline_tag":"text-generation"`, commit)) {
			t.Errorf("/info: %s", info)
		}
		if strings.Contains(p.logged(), hubtest.Member) {
			t.Error("the token is logged")
		}
	}
	check(start(t, append(env, "HF_MODEL_ID=org/tiny")))
	check(start(t, append(env, "REVISION=main"), "hf://org/tiny"))
	check(start(t, env, "org/tiny@"+commit))
	check(start(t, env, "--model-id", hub.URL+"/org/tiny"))

	// Alone with the cache.
	before := len(hub.Requests())
	check(start(t, append(env, "HF_HUB_OFFLINE=1"), "org/tiny"))
	if n := len(hub.Requests()) - before; n != 0 {
		t.Errorf("%d requests while offline", n)
	}
	stop()
	p := start(t, env, "org/tiny")
	check(p)
	if !strings.Contains(p.logged(), "serving the model from the cache") {
		t.Error("no warning that the hub was not asked")
	}
}

// The port is open while a model is downloaded and says how far that is; an
// error of the hub ends the process with what to do.
func TestServeFromHubRefused(t *testing.T) {
	hub := hubtest.NewServer(t)
	hub.Commit("org/tiny", "main", tinyFiles(t))
	hub.Gate("org/tiny")
	release := make(chan struct{})
	hub.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "model.safetensors") {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		return false
	})
	p := start(t, hubEnv(hub.URL, t.TempDir(), "HF_TOKEN="+hubtest.Member, "MODEL_ID=org/tiny"))
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		status, body := p.get("/ping")
		if status == http.StatusServiceUnavailable && strings.Contains(body, "downloading org/tiny, ") {
			break
		}
		if time.Since(begin) > patience {
			t.Fatalf("%d %s; want 503 that says how far the download is", status, body)
		}
	}
	close(release)
	p.ready()

	p = start(t, hubEnv(hub.URL, t.TempDir(), "MODEL_ID=org/tiny"))
	if code := p.wait(); code != 2 || !strings.Contains(p.logged(), "org/tiny: the model is gated: accept the conditions at "+hub.URL+"/org/tiny and set HF_TOKEN") {
		t.Errorf("exit %d; want 2 and what to do", code)
	}
}

// A folder wins over a model of the hub with its name.
func TestFolderWinsOverHub(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "org"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tinyFolder(t), filepath.Join(dir, "org", "tiny")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	start(t, []string{"HF_ENDPOINT=http://127.0.0.1:1"}, "--model-id", "org/tiny").ready()
}

func TestPullFromHub(t *testing.T) {
	hub := hubtest.NewServer(t)
	files := tinyFiles(t)
	commit := hub.Commit("org/tiny", "main", files)
	home := t.TempDir()
	dir := filepath.Join(t.TempDir(), "model")
	snapshot := filepath.Join(home, "hub", "models--org--tiny", "snapshots", commit)
	inspect := command(hubEnv(hub.URL, home), "inspect", "--json", "org/tiny")
	if out, err := inspect.Output(); err != nil || !strings.Contains(string(out), `"family": "llama"`) {
		t.Errorf("inspect: %v, %s", err, out)
	}
	if _, err := os.Stat(snapshot); err == nil {
		t.Error("inspect has downloaded the model")
	}
	for _, tt := range []struct {
		args []string
		dir  string
		said string
	}{
		{[]string{"pull", "hf:org/tiny", dir}, dir, " in " + dir},
		{[]string{"pull", "org/tiny"}, snapshot, " in " + snapshot},
		{[]string{"pull", "org/tiny"}, snapshot, "already in the cache"},
	} {
		code, stderr := refused(t, hubEnv(hub.URL, home), tt.args...)
		if code != 0 || !strings.Contains(stderr, tt.said) {
			t.Fatalf("%q: exit %d: %s", tt.args, code, stderr)
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if data, err := os.ReadFile(filepath.Join(tt.dir, name)); err != nil || string(data) != string(files[name]) {
				t.Errorf("%q: %s: %v, or other bytes", tt.args, name, err)
			}
		}
	}
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"pull", "org/other"}, 1, "org/other: there is no such model on the hub"},
		{[]string{"pull", "s3://models/tiny"}, 2, "give the folder"},
		{[]string{"pull", "tiny"}, 2, "expected ORG/NAME"},
	} {
		if code, stderr := refused(t, hubEnv(hub.URL, home), tt.args...); code != tt.status || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit %d, %q; want %d, one line with %q", tt.args, code, stderr, tt.status, tt.want)
		}
	}
}
