package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
)

// TestNoGPUOnSageMaker: the endpoint says why it cannot serve, as does the log.
func TestNoGPUOnSageMaker(t *testing.T) {
	shim := filepath.Join("..", "build", "cuda", "libmillrace_cuda_shim.so")
	for _, tt := range []struct{ name, library, want string }{
		{"no library", "nowhere.so", "opening the CUDA backend: nowhere.so"},
		{"old driver", shim, "driver is for CUDA 12.4, needed is one for 13.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := os.Stat(shim); tt.library == shim && err != nil {
				t.Skipf("`make cuda-shim` builds it: %v", err)
			}
			p := start(t, []string{"SAGEMAKER_REGION=us-east-1", "MILLRACE_SHIM_DRIVER=12040"},
				"--model-id", tinyFolder(t), "--device", "cuda", "--cuda-library", tt.library)
			for path, body := range map[string]string{"/ping": "", "/invocations": `{"inputs":"a"}`} {
				method := "GET"
				if body != "" {
					method = "POST"
				}
				if status, answer := p.do(method, path, body); status != 503 || !strings.Contains(answer, tt.want) {
					t.Errorf("%s: %d %s; want 503 and %q in it", path, status, answer, tt.want)
				}
			}
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if status := p.wait(); status != 2 || !strings.Contains(p.logged(), `"level":"ERROR","message":"no model is served"`) {
				t.Errorf("exit status %d; want 2, and an error in the log", status)
			}
		})
	}
}

// Of two CUDA backends beside the program the one that the driver is new enough for is opened.
func TestLibraryForDriver(t *testing.T) {
	dir := t.TempDir()
	for name, from := range map[string]string{
		"libmillrace_cuda.so":   filepath.Join("..", "build", "cuda", "libmillrace_cuda_shim.so"),
		"libmillrace_cuda12.so": filepath.Join("..", "build", "cuda", "libmillrace_cuda12_shim.so"),
	} {
		from, err := filepath.Abs(from)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(from); err != nil {
			t.Skipf("`make cuda-shim` builds it: %v", err)
		}
		if err := os.Symlink(from, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "millrace")
	if err := os.Link(millrace, program); err != nil {
		t.Fatal(err)
	}
	defer func(before string) { millrace = before }(millrace)
	millrace = program
	env := []string{"MODEL_ID=" + tinyFolder(t), "MILLRACE_DEVICE=cuda", "MILLRACE_CUDA_TILED=off"}
	for driver, detail := range map[string]string{"13000": "CPU shim sm_80;", "12020": "CPU shim sm_80 (CUDA 12);"} {
		p := start(t, append(env, "MILLRACE_SHIM_DRIVER="+driver)).ready()
		if _, metrics := p.get("/metrics"); !strings.Contains(metrics, `hardware="`+detail) {
			t.Errorf("driver %s: the hardware does not begin with %q", driver, detail)
		}
	}
	const want = "the NVIDIA driver is for CUDA 11.8, needed is one for 12.0 (525 or newer)"
	if status, stderr := ended(t, command(append(env, "MILLRACE_SHIM_DRIVER=11080"), "serve")); status != 2 || !strings.Contains(stderr, want) {
		t.Errorf("an old driver: status %d, %q; want 2 and %q", status, stderr, want)
	}
}

// What SageMaker sends works on a container that is tried anywhere.
func TestHosting(t *testing.T) {
	p := start(t, []string{"SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true", "SM_VLLM_SERVED_MODEL_NAME=mine", "SM_VLLM_ENFORCE_EAGER=true", "MAX_BATCH_SIZE=8"},
		"--model-id", tinyFolder(t), "--device", "ref", "--emf-namespace", "Millrace").ready()
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		has                      string
	}{
		{"slots of a transform job", "GET", "/execution-parameters", "", 200, `"MaxConcurrentTransforms":8`},
		{"session", "POST", "/invocations", `{"requestType":"NEW_SESSION"}`, 200, "session_id"},
		{"adapter that is not there", "POST", "/adapters", `{"name":"a","src":"/x"}`, 424, "no such file"},
		{"name of the model", "GET", "/v1/models", "", 200, `"id":"mine"`},
		{"model by its name", "POST", "/v1/completions", `{"model":"mine","prompt":"a","max_tokens":1}`, 200, `"model":"mine"`},
	} {
		if status, body := p.do(tt.method, tt.path, tt.body); status != tt.status || !strings.Contains(body, tt.has) {
			t.Errorf("%s: %d %s; want %d with %s", tt.name, status, body, tt.status, tt.has)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil { // then the log is complete
		t.Fatal(err)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d; want 0", status)
	}
	for _, want := range []string{
		`SM_VLLM_SERVED_MODEL_NAME is another server's variable and is taken for --served-model-name`,
		`Variables of other servers without effect here: SM_VLLM_ENFORCE_EAGER`,
		`"autoscaling_target":5`, `"CloudWatchMetrics":[{"Namespace":"Millrace"`,
	} {
		if !strings.Contains(p.logged(), want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	if strings.Contains(p.logged(), `"/ping"`) {
		t.Error("the log has pings")
	}
}

// A signal ends a WebSocket as it ends a stream: after the last message of
// what runs, and with a reason.
func TestSignalWithASocket(t *testing.T) {
	p := start(t, nil, "--model-id", tinyFolder(t), "--device", "ref").ready()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(p.url, "http")+"/invocations-bidirectional-stream", nil) //nolint:bodyclose // there is none
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow() //nolint:errcheck // mostly it is closed already
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"inputs":"the quick","stream":true,"parameters":{"max_new_tokens":200}}`)); err != nil {
		t.Fatal(err)
	}
	messages := 0
	for ; ; messages++ {
		_, message, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("behind %d messages: %v", messages, err)
		}
		if messages == 0 {
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		if strings.Contains(string(message), `"done":true`) {
			break
		}
	}
	if messages != 200 {
		t.Errorf("%d events; want all 200", messages)
	}
	if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the socket ends with %v", err)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d; want 0", status)
	}
}
