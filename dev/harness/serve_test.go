package harness_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// hosted are the restrictions that SageMaker and Lambda put on a container,
// all at once: no network, a read-only root, a user nobody knows, little
// shared memory.
var hosted = []string{"--network", "none", "--read-only", "--tmpfs", "/tmp", "--shm-size", "64m", "--user", "54321:54321", "--cap-drop", "ALL"}

// The image serves however it is started.
func TestServes(t *testing.T) {
	dir := readableModel(t)
	archive := filepath.Join(t.TempDir(), "archive")
	write(t, filepath.Join(archive, "model.tar.gz"), archiveOf(t, dir))
	for _, tt := range []struct {
		name    string
		options []string
		args    []string
		port    int
		model   string // as /info names it
	}{
		{name: "as SageMaker starts it", options: hosted, args: []string{"serve"}},
		{name: "without a word", options: hosted},
		{name: "as root", options: []string{"--network", "none", "--user", "0:0"}},
		{name: "as its own user", options: []string{"--network", "none"}},
		{name: "SAGEMAKER_BIND_TO_PORT wins over PORT", port: 9001, args: []string{"serve"},
			options: []string{"--network", "none", "--env", "PORT=9000", "--env", "SAGEMAKER_BIND_TO_PORT=9001"}},
		{name: "PORT alone", port: 9000, options: []string{"--network", "none", "--env", "PORT=9000"}},
		{name: "model in a folder", options: append([]string{"--volume", dir + ":/opt/ml/model:ro"}, hosted...), args: []string{"serve"}, model: "model"},
		{name: "model in an archive", options: append([]string{"--volume", archive + ":/opt/ml/model:ro"}, hosted...), args: []string{"serve"}, model: "model.tar.gz"},
		{name: "model in an additional source", args: []string{"serve"}, model: "base",
			options: append([]string{"--volume", dir + ":/opt/ml/additional-model-data-sources/base:ro"}, hosted...)},
		{name: "little memory", options: append([]string{"--memory", "192m", "--memory-swap", "192m"}, hosted...), args: []string{"serve"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.port == 0 {
				tt.port = 8080
			}
			if tt.model == "" {
				tt.model = "millrace-demo"
			}
			c := start(t, tag, tt.port, tt.options, tt.args...).ready()
			if text := c.ask("/invocations"); !strings.Contains(text, "Millrace is a server") {
				t.Errorf("the answer is %q", text)
			}
			var info struct {
				ModelID string `json:"model_id"`
				Version string
				SHA     string
				Label   string `json:"docker_label"`
			}
			if err := json.Unmarshal([]byte(c.must(http.MethodGet, "/info", "").body), &info); err != nil {
				t.Fatal(err)
			}
			if info.ModelID != tt.model || info.Version != version || info.SHA != revision || info.Label != tag {
				t.Errorf("/info: %+v; want model %s, version %s, commit %s, label %s", info, tt.model, version, revision, tag)
			}
			c.signal("TERM")
			if status := c.wait(patience); status != 0 {
				t.Errorf("exit status %d after SIGTERM; want 0", status)
			}
		})
	}
}

// The server takes as many threads, and as much memory for keys and values, as
// the container's control group leaves it.
func TestFollowsLimits(t *testing.T) {
	json := []string{"serve", "--json-output"}
	free := start(t, tag, 8080, hosted, json...).ready().logged("ready")
	limited := start(t, tag, 8080, append([]string{"--cpus", "1", "--memory", "256m"}, hosted...), json...).ready().logged("ready")
	if got := limited["threads"]; got != 1.0 {
		t.Errorf("with --cpus 1: %v threads", got)
	}
	if got := free["threads"]; got != float64(runtime.NumCPU()) {
		t.Errorf("without a limit: %v threads; want %d", got, runtime.NumCPU())
	}
	if free["kv_tokens"].(float64) <= limited["kv_tokens"].(float64) {
		t.Errorf("with --memory 256m: %v tokens in the cache, without a limit %v", limited["kv_tokens"], free["kv_tokens"])
	}
}

// What is wrong with the command line ends the container with one line that
// names it, and a missing network is not a reason to hang.
func TestRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"an unknown flag", []string{"serve", "--no-such-flag"}, "--no-such-flag"},
		{"a model of the hub", []string{"serve", "--model-id", "org/name"}, "org/name"},
	} {
		c := start(t, tag, 8080, hosted, tt.args...)
		if status := c.wait(patience); status != 2 || !strings.Contains(c.Log(t.Context()), tt.want) {
			t.Errorf("%s: exit status %d, log %q; want 2 and %q", tt.name, status, c.Log(t.Context()), tt.want)
		}
	}
}

// readableModel copies the demo model to where any user may read it: a
// checkout's files may be its owner's alone.
func readableModel(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	entries, err := os.ReadDir(model)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		write(t, filepath.Join(dir, e.Name()), read(t, filepath.Join(model, e.Name())))
	}
	return dir
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func archiveOf(t testing.TB, dir string) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	w := tar.NewWriter(zip)
	err := w.AddFS(os.DirFS(dir).(fs.ReadDirFS))
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = zip.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
