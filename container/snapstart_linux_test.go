package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-ai/millrace/container/lambda/emulator"
	"github.com/millrace-ai/millrace/container/source/s3test"
)

// endEnvironment kills the function's process and waits until the emulator knows.
func (f *localFunction) endEnvironment() {
	f.t.Helper()
	children := func(pid int) (all []int) {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, task := range tasks {
			data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
			for _, child := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(child); err == nil {
					all = append(all, pid)
				}
			}
		}
		return all
	}
	pid := children(f.cmd.Process.Pid)
	for last := pid; len(last) > 0; last = children(last[0]) {
		pid = last // of a copy, CRIU stands between
	}
	if len(pid) != 1 {
		f.t.Fatalf("the environment is %d processes", len(pid))
	}
	if err := syscall.Kill(pid[0], syscall.SIGKILL); err != nil {
		f.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); len(children(f.cmd.Process.Pid)) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("the environment does not end")
		}
	}
}

// Copies of one snapshot have nothing in common that must be unique: no id and
// no draw.
func TestLambdaCopiesDiffer(t *testing.T) {
	if emulator.FindCRIU() == "" {
		t.Skip("criu is not installed, or does not work for this user or on this kernel")
	}
	traces := make(chan string, 1000)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		batch := &trace.TracesData{}
		if err := proto.Unmarshal(body, batch); err != nil {
			t.Error(err)
		}
		for _, resource := range batch.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					traces <- hex.EncodeToString(span.TraceId) + " " + hex.EncodeToString(span.SpanId)
				}
			}
		}
	}))
	defer collector.Close()
	f := startFunction(t, nil, "--snap-start", "--", "--otlp-endpoint", collector.URL+"/v1/traces")
	const (
		generate = `{"inputs":"What is Millrace?","parameters":{"max_new_tokens":1,"do_sample":true,"details":true}}`
		chat     = `{"messages":[{"role":"user","content":"Hi"}],"max_tokens":1}`
	)
	unique := regexp.MustCompile(`"seed":\d+|"id":"[^"]+"`)
	seen := map[string]int{}
	for i := range 3 {
		for range 20 { // generators are many, one for each thread
			for _, event := range []string{generate, chat} {
				out := string(f.invoke(event).Payload)
				found := unique.FindString(out)
				if found == "" {
					t.Fatalf("%s: nothing unique in %s", event, out)
				}
				seen[found]++
			}
		}
		f.eventually(fmt.Sprintf("(?s)(restored from a snapshot.*){%d}", i+1))
		f.endEnvironment()
	}
	for len(traces) > 0 {
		seen[<-traces]++
	}
	for what, n := range seen {
		if n > 1 {
			t.Errorf("%d copies have %s", n, what)
		}
	}
	if len(seen) < 200 || strings.Count(f.log.String(), "Phase: init") != 1 {
		t.Errorf("%d things were compared, of one snapshot", len(seen))
	}
}

// The model is there before the snapshot and not read again. Credentials are
// asked for after the restoration, and connections made, though both were used before.
func TestLambdaSnapStart(t *testing.T) {
	server := s3test.NewServer(t)
	for name, data := range tinyFiles(t) {
		server.Put("models", "tiny/"+name, data)
	}
	var restored atomic.Bool
	var reads, puts atomic.Int32
	var connections sync.Map
	proxy := s3test.NewProxy(t, server.URL, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	proxy.Intercept(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodPut:
			if _, used := connections.Load(r.RemoteAddr); used {
				t.Error("an answer goes by a connection from before the snapshot")
			}
			if puts.Add(1); !strings.Contains(r.Header.Get("Authorization"), "Credential=AFTER") {
				t.Errorf("an answer is signed by %s", r.Header.Get("Authorization"))
			}
		case restored.Load():
			t.Errorf("%s %s after the restoration", r.Method, r.URL)
		default:
			reads.Add(1)
			connections.Store(r.RemoteAddr, true)
		}
		return false
	})
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		name := "BEFORE"
		if restored.Load() {
			name = "AFTER"
		}
		json.NewEncoder(w).Encode(map[string]any{"AccessKeyId": name, "SecretAccessKey": "s", "Token": "t", "Expiration": time.Now().Add(time.Hour)})
	}))
	defer keys.Close()
	env := append(s3Env(proxy.URL), "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_CONTAINER_CREDENTIALS_FULL_URI="+keys.URL)
	f := startFunction(t, env, "--snap-start", "--env", "QUEUE_OUTPUT=s3://models/answers", "--", "--model-id", "s3://models/tiny")
	f.eventually("ready for a snapshot.* warm_ms=")
	if reads.Load() == 0 {
		t.Error("the weights are not read before the snapshot")
	}
	restored.Store(true)
	out := f.invoke(`{"Records":[{"messageId":"a","eventSource":"aws:sqs","body":"{\"inputs\":\"the quick\"}"}]}`)
	if string(out.Payload) != `{"batchItemFailures":[]}` || puts.Load() != 1 {
		t.Errorf("%s, %d answers", out.Payload, puts.Load())
	}
	f.eventually(`(?s)restored from a snapshot.*cold start.* restored_ms=\d+ next_ms=\d+`)
}

// A version that does not start is not published.
func TestLambdaSnapStartRefused(t *testing.T) {
	cmd := command(nil, "lambda", "local", "--port", "0", "--snap-start", "--", "--max-total-tokens", "0")
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "no version can be published: ") || !strings.Contains(string(out), "max-total-tokens") {
		t.Errorf("%v: %s", err, out)
	}
}
