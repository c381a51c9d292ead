package local

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// transformed runs a job on files, and returns what is in the output folder.
func transformed(t *testing.T, job Transform, files map[string]string, instances int, handler http.HandlerFunc) (*Transformed, map[string]string, error) {
	t.Helper()
	write := func(folder, name, text string) {
		path := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	job.Input, job.Output, job.ContentType = t.TempDir(), t.TempDir(), "application/json"
	for name, text := range files {
		write(job.Input, name, text)
	}
	if job.Timeout == 0 {
		job.Timeout = patience
	}
	limits := Limits{Startup: patience, Ping: patience, Connect: patience, Stop: patience}
	result, err := job.Run(context.Background(), Config{Instances: instances, Launcher: &fakes{t: t, handler: healthy(handler)}, Limits: limits})
	got := map[string]string{}
	if err != nil {
		return nil, nil, err
	}
	if !result.Summary.Clean() || len(result.Summary.Instances) != instances {
		t.Errorf("the instances ended %+v", result.Summary.Instances)
	}
	made, err := inputs(job.Output)
	if err != nil && !strings.Contains(err.Error(), "has no file") {
		t.Fatal(err)
	}
	for name, path := range made {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got[filepath.ToSlash(name)] = string(text)
	}
	return result, got, nil
}

// echo answers with the body in brackets, and says nothing about itself.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.URL.Path != "/invocations" || r.Header.Get("Content-Type") != "application/json" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fmt.Fprintf(w, "<%s>", body)
}

func TestTransform(t *testing.T) {
	for _, tt := range []struct {
		name     string
		job      Transform
		files    map[string]string
		want     map[string]string
		settings string
	}{
		{
			name: "whole files, in folders", files: map[string]string{"a.json": "1\n2\n", "sub/b.json": "3"},
			want: map[string]string{"a.json.out": "<1\n2\n>", "sub/b.json.out": "<3>"}, settings: "SingleRecord, up to 6 MB a call, 1 calls at once for each instance",
		},
		{
			name: "lines, in their order", job: Transform{Split: true, Assemble: true, MaxConcurrent: 8, MaxPayloadMB: 1},
			files: map[string]string{"a": "1\r\n\n2\n3"}, want: map[string]string{"a.out": "<1>\n<2>\n<3>\n"}, settings: "SingleRecord, up to 1 MB a call, 8 calls",
		},
		{
			name: "lines together, as many as a call takes", job: Transform{Split: true, Assemble: true, Strategy: MultiRecord, MaxPayloadMB: 1},
			files: map[string]string{"a": "1\n2\n" + strings.Repeat("x", 1<<20-1) + "\n4"},
			want:  map[string]string{"a.out": "<1\n2>\n<" + strings.Repeat("x", 1<<20-1) + ">\n<4>\n"},
		},
		{name: "more calls than payload allows", job: Transform{MaxConcurrent: 50}, files: map[string]string{"a": "1"}, want: map[string]string{"a.out": "<1>"}, settings: "up to 2 MB a call, 50 calls"},
		{name: "an empty file", job: Transform{Split: true, Assemble: true}, files: map[string]string{"a": ""}, want: map[string]string{"a.out": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			result, got, err := transformed(t, tt.job, tt.files, 2, echo)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(tt.want) || len(result.Failed) > 0 || result.Files != len(tt.want) {
				t.Errorf("%d outputs, %d files, failed %v", len(got), result.Files, result.Failed)
			}
			for name, want := range tt.want {
				if got[name] != want {
					t.Errorf("%s: %.80q, want %.80q", name, got[name], want)
				}
			}
			if !strings.Contains(result.Settings, tt.settings) {
				t.Errorf("settings %q, want %q", result.Settings, tt.settings)
			}
		})
	}
}

// The container says how it is to be called, unless the job does.
func TestTransformAsksTheContainer(t *testing.T) {
	var most, now atomic.Int32
	both := make(chan struct{})
	var once sync.Once
	container := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == executionPath {
			io.WriteString(w, `{"MaxConcurrentTransforms":2,"BatchStrategy":"MULTI_RECORD","MaxPayloadInMB":5}`)
			return
		}
		if n := now.Add(1); n == 2 {
			once.Do(func() { close(both) })
		}
		most.Store(max(most.Load(), now.Load()))
		wait(r, both)
		now.Add(-1)
	}
	result, _, err := transformed(t, Transform{}, map[string]string{"a": "1"}, 1, func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(both) }) // one file is one call
		container(w, r)
	})
	if err != nil || !strings.HasPrefix(result.Settings, "SingleRecord, up to 5 MB a call, 2 calls") {
		t.Errorf("%+v, %v", result, err)
	}
	both, once, most = make(chan struct{}), sync.Once{}, atomic.Int32{}
	result, _, err = transformed(t, Transform{Split: true, Strategy: SingleRecord}, map[string]string{"a": "1\n2\n3\n4"}, 1, container)
	if err != nil || result.Calls != 4 || most.Load() != 2 {
		t.Errorf("%+v, %v; %d at once, want 2", result, err, most.Load())
	}
	result, _, err = transformed(t, Transform{Split: true}, map[string]string{"a": "1\n2\n3\n4"}, 1, container)
	if err != nil || result.Calls != 1 || !strings.HasPrefix(result.Settings, "MultiRecord") {
		t.Errorf("%+v, %v", result, err)
	}
	_, _, err = transformed(t, Transform{}, map[string]string{"a": "1"}, 1, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"MaxPayloadInMB":-5}`) })
	if err == nil || !strings.Contains(err.Error(), "what the container's /execution-parameters says: payload of -5 MB") {
		t.Errorf("%v", err)
	}
}

// A record that fails leaves its file without output, and the others with theirs.
func TestTransformFails(t *testing.T) {
	calls := map[string]int{}
	var mu sync.Mutex
	result, got, err := transformed(t, Transform{Split: true, Assemble: true, Retries: 2}, map[string]string{"bad": "1\nbad\n3", "busy": "busy", "good": "4", "ill": "ill"}, 1,
		func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			calls[string(body)]++
			switch text := string(body); {
			case r.URL.Path == executionPath:
				w.WriteHeader(http.StatusNotFound)
			case text == "bad":
				http.Error(w, "no such token", http.StatusUnprocessableEntity)
			case text == "ill", text == "busy" && calls[text] < 3:
				http.Error(w, "later", http.StatusServiceUnavailable)
			default:
				w.Write(body)
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got["good.out"] != "4\n" || got["busy.out"] != "busy\n" || result.Files != 2 {
		t.Errorf("outputs %q", got)
	}
	if want := "call 2 of 3: the container answered 422: no such token"; result.Failed["bad"] != want {
		t.Errorf("bad: %q, want %q", result.Failed["bad"], want)
	}
	if !strings.Contains(result.Failed["ill"], "answered 503: later") || calls["bad"] != 1 || calls["ill"] != 3 || calls["busy"] != 3 {
		t.Errorf("failed %v, calls %v", result.Failed, calls)
	}
	result, _, err = transformed(t, Transform{MaxPayloadMB: 1}, map[string]string{"a": strings.Repeat("x", 1<<20+1)}, 1, echo)
	if err != nil || result.Failed["a"] != "record 1 has 1048577 bytes, a call takes 1 MB" {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestTransformCheck(t *testing.T) {
	for want, job := range map[string]Transform{
		"payload of 101 MB":                       {MaxPayloadMB: 101},
		"payload of -1 MB":                        {MaxPayloadMB: -1},
		"101 calls at once":                       {MaxConcurrent: 101},
		"20 calls at once of 6 MB: SageMaker":     {MaxConcurrent: 20, MaxPayloadMB: 6},
		"MultiRecord needs records that are line": {Strategy: MultiRecord},
		"a call's time of 2h0m0s":                 {Timeout: 2 * time.Hour},
		"4 retries: expected 0 to 3":              {Retries: 4},
		"has no file":                             {},
	} {
		if _, _, err := transformed(t, job, nil, 1, echo); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
