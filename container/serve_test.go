package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/bench"
	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine/weights/weightstest"
)

// Every route answers as a user with curl expects, whatever computes.
func TestRoutes(t *testing.T) {
	p := start(t, nil, "--model-id", tinyFolder(t)).ready()
	const params = `"parameters":{"max_new_tokens":5,"details":true}`
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{name: "ping", method: "GET", path: "/ping", status: 200},
		{name: "health", method: "GET", path: "/health", status: 200},
		{name: "root", method: "GET", path: "/", status: 200},
		{name: "info", method: "GET", path: "/info", status: 200, want: `"max_total_tokens":4096`},
		{name: "models", method: "GET", path: "/v1/models", status: 200, want: `"object":"list"`},
		{name: "metrics", method: "GET", path: "/metrics", status: 200},
		{name: "document", method: "GET", path: "/api-doc/openapi.json", status: 200, want: `"openapi"`},
		{name: "docs", method: "GET", path: "/docs/", status: 200, want: "<html"},
		{name: "generate", method: "POST", path: "/generate", body: `{"inputs":"the quick",` + params + `}`, status: 200, want: `"generated_tokens":`},
		{name: "stream", method: "POST", path: "/generate_stream", body: `{"inputs":"the quick",` + params + `}`, status: 200, want: "data:"},
		{name: "compat", method: "POST", path: "/", body: `{"inputs":"the quick",` + params + `}`, status: 200, want: `[{"generated_text":"the quick`},
		{name: "invocations", method: "POST", path: "/invocations", body: `{"inputs":"the quick",` + params + `}`, status: 200, want: `[{"generated_text":"the quick`},
		{name: "completions", method: "POST", path: "/v1/completions", body: `{"prompt":["the quick","the"],"max_tokens":3,"n":2}`, status: 200, want: `"index":3`},
		{name: "completions stream", method: "POST", path: "/v1/completions", body: `{"prompt":[5,6],"max_tokens":3,"stream":true}`, status: 200, want: "data: [DONE]"},
		{name: "completion on invocations", method: "POST", path: "/invocations", body: `{"prompt":"the quick","max_tokens":3}`, status: 200, want: `"object":"text_completion"`},
		{name: "tokenize", method: "POST", path: "/tokenize", body: `{"inputs":"the quick"}`, status: 200, want: `"start":`},
		{name: "validation", method: "POST", path: "/generate", body: `{"inputs":""}`, status: 422, want: "`inputs` cannot be empty"},
		{name: "no JSON", method: "POST", path: "/generate", body: `{"inputs":`, status: 400, want: `"error_type"`},
		{name: "no route", method: "GET", path: "/nowhere", status: 404, want: `"error_type"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body := p.do(tt.method, tt.path, tt.body)
			if status != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("%s %s: %d %.300s; want %d and %q in it", tt.method, tt.path, status, body, tt.status, tt.want)
			}
		})
	}
}

// The same prompt gives the same text on every backend that computes.
func TestDevicesAgree(t *testing.T) {
	dir := tinyFolder(t)
	answers := map[string]string{}
	devices, shim := []string{"ref", "cpu"}, filepath.Join("..", "build", "cuda", "libmillrace_cuda_shim.so")
	if _, err := os.Stat(shim); err == nil {
		devices = append(devices, "cuda")
	} else {
		t.Logf("cuda is left out, `make cuda-shim` builds its library: %v", err)
	}
	for _, device := range devices {
		p := start(t, []string{"MILLRACE_DEVICE=" + device, "MILLRACE_CUDA_LIBRARY=" + shim, "MODEL_ID=" + dir}).ready()
		status, body := p.post("/generate", `{"inputs":"the quick brown fox","parameters":{"max_new_tokens":20}}`)
		if status != 200 {
			t.Fatalf("%s: %d %s", device, status, body)
		}
		answers[device] = body
	}
	for device, answer := range answers {
		if answer != answers["ref"] {
			t.Errorf("ref %s\n%s %s", answers["ref"], device, answer)
		}
	}
}

// What is wrong with the command line, the configuration or the model is one
// line on standard error and exit status 2, before the port opens.
func TestRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	takenPort := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)

	folder := func(change func(map[string][]byte)) string {
		files := tinyFiles(t)
		change(files)
		return weightstest.Folder(t, files)
	}
	edit := func(old, new string) func(map[string][]byte) {
		return func(f map[string][]byte) {
			f["config.json"] = []byte(strings.Replace(string(f["config.json"]), old, new, 1))
		}
	}
	fine := tinyFolder(t)

	for _, tt := range []struct {
		name  string
		env   []string
		args  []string
		model string
		want  string
	}{
		{name: "unknown flag", args: []string{"--prot", "1"}, want: "unknown flag --prot"},
		{name: "unknown word", args: []string{"launch"}, want: "launch"},
		{name: "no CUDA backend", args: []string{"--device", "cuda", "--cuda-library", "nowhere.so"}, want: "--device=cuda: opening the CUDA backend: nowhere.so: "},
		{name: "wrong variable", env: []string{"MAX_BATCH_SIZE=0"}, want: "MAX_BATCH_SIZE=0: must be at least 1"},
		{name: "misspelt command", args: []string{"srve"}, want: `unknown command "srve", did you mean "serve"?`},
		{name: "misspelt command of a command", args: []string{"sagemaker", "deply"}, want: `unexpected argument deply, did you mean "deploy"?`},
		{name: "nothing to quantize", args: []string{"quantize", "/nowhere/model", t.TempDir()}, want: "/nowhere/model"},
		{name: "capability of a later build", env: []string{"ROPE_FACTOR=2"}, want: "not available in this build"},
		{name: "a method that the checkpoint is not stored by", env: []string{"HF_MODEL_QUANTIZE=awq"}, want: "--quantize=awq: the checkpoint is not stored so; int8 or int4"},
		{name: "bucket without a name", env: []string{"MODEL_ID=s3:///model"}, want: "s3:///model: the bucket's name is missing"},
		{name: "a word", env: []string{"HF_MODEL_ID=gpt2"}, want: "a model of the Hugging Face hub is given as ORG/NAME, or as hf:gpt2"},
		{name: "name that the hub cannot have", env: []string{"HF_MODEL_ID=hf://org/na--me"}, want: "expected ORG/NAME"},
		{name: "wrong revision", env: []string{"HF_MODEL_ID=org/name", "REVISION=../x"}, want: "--revision: \"../x\" is not a revision"},
		{name: "no folder", model: "/nowhere/model", want: "/nowhere/model"},
		{name: "empty folder", model: t.TempDir(), want: "config.json"},
		{name: "unknown family", model: folder(edit(`"model_type":"llama"`, `"model_type":"rwkv"`)), want: "rwkv"},
		{name: "unknown activation", model: folder(edit(`"silu"`, `"relu6"`)), want: "relu6"},
		{name: "config contradicts the tensors", model: folder(edit(`"intermediate_size":64`, `"intermediate_size":72`)), want: "mlp.gate_proj.weight"},
		{name: "layer missing", model: folder(edit(`"num_hidden_layers":2`, `"num_hidden_layers":3`)), want: "model.layers.2."},
		{name: "layer too many", model: folder(edit(`"num_hidden_layers":2`, `"num_hidden_layers":1`)), want: "model.layers.1."},
		{name: "truncated weights", model: folder(func(f map[string][]byte) {
			f["model.safetensors"] = f["model.safetensors"][:len(f["model.safetensors"])-100]
		}), want: "model.safetensors"},
		{name: "no tokenizer", model: folder(func(f map[string][]byte) { delete(f, "tokenizer.json") }), want: "tokenizer.json"},
		{name: "broken tokenizer", model: folder(func(f map[string][]byte) { f["tokenizer.json"] = []byte(`{"model":{}}`) }), want: "tokenizer.json"},
		{name: "longer than the model", model: fine, args: []string{"--max-total-tokens", "5000"}, want: "Given: 5000 and 4096"},
		{name: "port in use", model: fine, args: []string{"--hostname", "127.0.0.1", "--port", takenPort}, want: "address already in use"},
		{name: "more cache than memory", model: fine, args: []string{"--max-batch-total-tokens", "2000000000000", "--port", "0"}, want: "`max_batch_total_tokens=2000000000000`"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args
			if tt.model != "" {
				args = append(args, "--model-id", tt.model)
			}
			status, stderr := refused(t, tt.env, args...)
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			last := lines[len(lines)-1]
			if status != 2 || !strings.HasPrefix(last, "millrace: ") || !strings.Contains(last, tt.want) {
				t.Errorf("status %d, last line %q; want 2 and %q in it", status, last, tt.want)
			}
			for _, line := range lines[:len(lines)-1] {
				if !strings.Contains(line, `"level":"INFO"`) && !strings.Contains(line, "anyone who can reach this machine") {
					t.Errorf("not one line: %q", stderr)
				}
			}
		})
	}
}

// A signal ends the server in order: new work is refused, what runs is
// finished, the exit status is 0.
func TestSignalWhileStreaming(t *testing.T) {
	p := start(t, nil, "--model-id", tinyFolder(t), "--device", "ref").ready()
	events, done := openStream(t, p, 200)
	if !events.Scan() {
		t.Fatal("no first event")
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "ping to fail", func() bool { status, _ := p.get("/ping"); return status != 200 })
	if status, body := p.post("/generate", `{"inputs":"a"}`); status == 200 {
		t.Errorf("new work is accepted while draining: %s", body)
	}
	last := ""
	for events.Scan() {
		if events.Text() != "" {
			last = events.Text()
		}
	}
	done()
	if !strings.Contains(last, `"generated_tokens":200`) {
		t.Errorf("the stream ended with %q; want all 200 tokens", last)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d; want 0", status)
	}
}

// endAtOnce signals a process that is ending already until it has ended, without
// waiting for what runs.
func endAtOnce(t *testing.T, p *process, what string) {
	t.Helper()
	waitFor(t, what, func() bool {
		select {
		case <-p.exited:
			return true
		default:
			return p.cmd.Process.Signal(syscall.SIGTERM) != nil
		}
	})
	if status := p.wait(); status != 1 {
		t.Errorf("exit status %d; want 1", status)
	}
}

// With a delay, health checks fail at once after a signal and requests are still
// answered; a second signal ends that.
func TestShutdownDelay(t *testing.T) {
	p := start(t, nil, "--model-id", tinyFolder(t), "--device", "ref", "--shutdown-delay", "300").ready()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "ping to fail", func() bool { status, _ := p.get("/ping"); return status == 503 })
	if status, body := p.post("/generate", `{"inputs":"a","parameters":{"max_new_tokens":1}}`); status != 200 {
		t.Errorf("work is refused during the delay: %d %s", status, body)
	}
	endAtOnce(t, p, "the end")
}

// What runs when the time to drain is over ends with an error event.
func TestDrainTimeout(t *testing.T) {
	p := start(t, nil, "--model-id", tinyFolder(t), "--device", "ref", "--graceful-termination-timeout", "0").ready()
	events, done := openStream(t, p, 4000)
	defer done()
	if !events.Scan() {
		t.Fatal("no first event")
	}
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	last := ""
	for events.Scan() {
		if events.Text() != "" {
			last = events.Text()
		}
	}
	if !strings.Contains(last, `"error"`) || !strings.Contains(last, "shutting down") {
		t.Errorf("the stream ended with %q; want an error event that says why", last)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d; want 0", status)
	}
}

func TestSecondSignal(t *testing.T) {
	p := start(t, nil, "--model-id", tinyFolder(t), "--device", "ref").ready()
	events, done := openStream(t, p, 4000)
	defer done()
	if !events.Scan() {
		t.Fatal("no first event")
	}
	// One right after the first is not taken for a second wish.
	endAtOnce(t, p, "an end before the stream's")
}

func TestSignalWhileIdle(t *testing.T) {
	p := start(t, nil, "--model-id", tinyFolder(t)).ready()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d; want 0", status)
	}
}

// Settings reach the places they are for.
func TestSettings(t *testing.T) {
	dir := tinyFolder(t)
	settings := "api-key: hunter2\nmax_total_tokens: 100\nreturn-full-text: false\nmax-stop-sequences: 1\ncors-allow-origin: [https://a.example]\n"
	file := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, []string{"MAX_INPUT_LENGTH=50", "MAX_CONCURRENT_REQUESTS=7"}, "--config", file, "--model-id", dir, "--env").ready()
	if status, _ := p.get("/info"); status != http.StatusUnauthorized {
		t.Errorf("/info without the key: %d; want 401", status)
	}
	ask := func(method, path, body string) string {
		req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer hunter2")
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var raw json.RawMessage
		if err := json.NewDecoder(resp.Body).Decode(&raw); err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	info := ask("GET", "/info", "")
	for _, want := range []string{`"max_total_tokens":100`, `"max_input_tokens":50`, `"max_concurrent_requests":7`, `"max_stop_sequences":1`, fmt.Sprintf(`"model_id":%q`, filepath.Base(dir)), `"version":"test"`} {
		if !strings.Contains(info, want) {
			t.Errorf("/info lacks %s: %s", want, info)
		}
	}
	if got := ask("POST", "/", `{"inputs":"the quick","parameters":{"max_new_tokens":1}}`); strings.Contains(got, `"the quick`) {
		t.Errorf("the prompt is repeated: %s", got)
	}
	if log := p.logged(); strings.Contains(log, "hunter2") || !strings.Contains(log, `"max-total-tokens":"100"`) {
		t.Errorf("--env: the log shows a secret or lacks the configuration:\n%s", log)
	}
}

// What a file in the model folder sets is in the log, and it cannot set what is
// the operator's.
func TestSettingsOfTheModel(t *testing.T) {
	dir := tinyFolder(t)
	write := func(settings string) {
		if err := os.WriteFile(filepath.Join(dir, "millrace.yaml"), []byte(settings), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("max-total-tokens: 100\n")
	p := start(t, nil, "--model-id", dir).ready()
	if log := p.logged(); !strings.Contains(log, `"settings of the config file","max-total-tokens":"100"`) {
		t.Errorf("the log does not say what the model's file has set:\n%s", log)
	}
	write("max-total-tokens: 100\napi-key: hunter2\n")
	status, stderr := refused(t, nil, "--model-id", dir)
	if want := "millrace.yaml:2: a file in the model folder cannot set api-key"; status != 2 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, want) || strings.Contains(stderr, "hunter2") {
		t.Errorf("status %d, %s; want 2 and %q", status, stderr, want)
	}
}

// A pipe, device or folder in place of a file of the model is refused in one
// line before it is opened.
func TestNoFilesInAModelFolder(t *testing.T) {
	for _, name := range []string{
		"config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
		"generation_config.json", "chat_template.jinja", "additional_chat_templates/a.jinja", "millrace.yaml",
	} {
		for kind, put := range map[string]func(path string) error{
			"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
			"device": func(path string) error { return os.Symlink("/dev/zero", path) },
			"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				files := tinyFiles(t)
				delete(files, name)
				if name == "model.safetensors.index.json" {
					delete(files, "model.safetensors")
				}
				dir := weightstest.Folder(t, files)
				path := filepath.Join(dir, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), put(path)); err != nil {
					t.Fatal(err)
				}
				status, stderr := refused(t, nil, "--model-id", dir, "--port", "0", "--hostname", "127.0.0.1", "--log-level", "warn")
				if status != 2 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, name+": not a regular file") && !strings.Contains(stderr, name+": is a directory") {
					t.Errorf("status %d: %s", status, stderr)
				}
			})
		}
	}
}

// The load generator and the server understand each other.
func TestBenchAgainstServer(t *testing.T) {
	p := start(t, nil, "--model-id", tinyFolder(t)).ready()
	var n bench.Lengths
	if err := n.UnmarshalText([]byte("10")); err != nil {
		t.Fatal(err)
	}
	o := bench.Options{URL: p.url, API: "tgi", Stream: true, Requests: 20, Concurrency: 4, PromptWords: n, MaxNewTokens: n, Timeout: patience}
	rep, err := bench.Measure(context.Background(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Requests != 20 || len(rep.Errors) != 0 || rep.FirstToken.Count != 20 || rep.Tokens < 20 {
		t.Errorf("%+v; want 20 answers and no errors", rep)
	}
}

// openStream starts a stream of so many tokens and returns its lines.
func openStream(t *testing.T, p *process, tokens int) (lines *bufio.Scanner, done func()) {
	t.Helper()
	body := fmt.Sprintf(`{"inputs":"the quick","parameters":{"max_new_tokens":%d,"details":true,"seed":1,"do_sample":true}}`, tokens)
	resp, err := http.Post(p.url+"/generate_stream", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d", resp.StatusCode)
	}
	return bufio.NewScanner(resp.Body), func() { resp.Body.Close() }
}

func waitFor(t *testing.T, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !true(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Without a word and without a model the program serves its own.
func TestDemoModel(t *testing.T) {
	if place, err := source.Default("/"); place != "" || err != nil {
		t.Skip("this machine has a model where SageMaker puts one")
	}
	p := start(t, nil).ready()
	status, body := p.post("/generate", `{"inputs":"What is Millrace?"}`)
	if status != 200 || !strings.Contains(body, "Millrace is ") {
		t.Errorf("%d %s; want an answer about Millrace", status, body)
	}
	if _, info := p.get("/info"); !strings.Contains(info, `"model_id":"millrace-demo"`) {
		t.Errorf("/info: %s", info)
	}
}

// A model's own config file counts wherever the model lies below the folder
// that is named.
func TestConfigOfModelBelow(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "llama")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"config.json": "{}", "millrace.yaml": "threads: 3\n"} {
		if err := os.WriteFile(filepath.Join(below, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := command([]string{"MODEL_ID=" + dir}, "env").Output()
	if want := "file " + filepath.Join(below, "millrace.yaml:1"); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v, %s; want %q in it", err, out, want)
	}
}

// The other commands, and that a variable of the server does not disturb them.
// The examples of the help that change nothing run as they stand.
func TestHelpExamples(t *testing.T) {
	env := []string{"AWS_REGION=eu-west-1", "AWS_EC2_METADATA_DISABLED=true", "HOME=" + t.TempDir()}
	ran := 0
	for name, text := range examples {
		for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
			if args := strings.Fields(line); len(args) > 0 && args[len(args)-1] == "--dry-run" {
				ran++
				if out, err := command(env, args[1:]...).CombinedOutput(); err != nil || !strings.Contains(string(out), "CreateRole") {
					t.Errorf("%s: %v\n%s", name, err, out)
				}
			}
		}
	}
	if ran != 2 {
		t.Errorf("%d examples ran", ran)
	}
}

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{name: "version", args: []string{"version"}, want: "millrace test"},
		{name: "env", args: []string{"env", "--threads", "3"}, want: "threads 3 command line"},
		{name: "env names the variable", args: []string{"env"}, want: "environment PORT"},
		{name: "help", args: []string{"--help"}, want: "bench"},
		{name: "help of a command", args: []string{"serve", "--help"}, want: "$SAGEMAKER_BIND_TO_PORT, $PORT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := command([]string{"PORT=9999"}, tt.args...).Output()
			// Columns and lines are as wide as they need to be.
			if text := strings.Join(strings.Fields(string(out)), " "); err != nil || !strings.Contains(text, tt.want) {
				t.Errorf("%v, %s; want %q in it", err, text, tt.want)
			}
		})
	}
}

// brokenFront fails once it has had an answer begin.
type brokenFront struct {
	api      http.Handler
	answered chan struct{} // closed when the answer has ended
	broken   chan struct{}
}

var errFront = errors.New("the front is broken")

func (f *brokenFront) Serve() error                   { <-f.broken; return errFront }
func (f *brokenFront) Shutdown(context.Context) error { return nil }

func (f *brokenFront) Ready() {
	go func() {
		defer close(f.answered)
		r := httptest.NewRequest(http.MethodPost, "/generate_stream", strings.NewReader(`{"inputs":"w1","parameters":{"max_new_tokens":100}}`))
		r.Header.Set("Content-Type", "application/json")
		f.api.ServeHTTP(&firstWrite{wrote: sync.OnceFunc(func() { close(f.broken) })}, r)
	}()
}

// firstWrite is an answer that tells when it begins.
type firstWrite struct {
	httptest.ResponseRecorder
	wrote func()
}

func (w *firstWrite) Write(p []byte) (int, error) {
	w.wrote()
	return len(p), nil
}

// Backends are closed when their engine has ended, also if what brings requests has failed
// while it computes.
func TestEngineEndsBeforeItsBackend(t *testing.T) {
	t.Setenv(simStep, "200ms")
	cfg, settings, _, err := parseServe([]string{tinyFolder(t), "--device=sim", "--log-level=error"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(cfg, settings, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.tracing.stop()
	f := &brokenFront{api: s.api, answered: make(chan struct{}), broken: make(chan struct{})}
	if err := s.run(f); !errors.Is(err, errFront) {
		t.Fatalf("the server ended with %v, want %v", err, errFront)
	}
	stacks := make([]byte, 1<<20)
	if stacks = stacks[:runtime.Stack(stacks, true)]; bytes.Contains(stacks, []byte("engine.(*Engine).Run(")) {
		t.Error("the engine still runs")
	}
	<-f.answered
}
