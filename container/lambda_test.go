package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	client "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/container/source/s3test"
)

// localFunction is a running `millrace lambda local`.
type localFunction struct {
	t   testing.TB
	cmd *exec.Cmd
	url string
	log *syncBuffer
}

// syncBuffer is what a process writes, to be read at any time.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startFunction runs the program as Lambda on this machine.
func startFunction(t testing.TB, env []string, args ...string) *localFunction {
	t.Helper()
	cmd := command(env, append([]string{"lambda", "local", "--port", "0"}, args...)...)
	f := &localFunction{t: t, cmd: cmd, log: &syncBuffer{}}
	cmd.Stderr = f.log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.stop()
		if t.Failed() {
			t.Logf("log of the function:\n%s", f.log)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the emulator says %q: %v", line, err)
	}
	f.url = regexp.MustCompile(`AWS_ENDPOINT_URL_LAMBDA=(\S+)`).FindStringSubmatch(line)[1]
	return f
}

// stop ends the emulator and its function, in order.
func (f *localFunction) stop() {
	_ = f.cmd.Process.Signal(os.Interrupt)
	timer := time.AfterFunc(patience, func() { _ = f.cmd.Process.Kill() })
	defer timer.Stop()
	_ = f.cmd.Wait()
}

func (f *localFunction) client() *client.Client {
	return client.New(client.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(f.url), Credentials: credentials.NewStaticCredentialsProvider("local", "local", ""),
		HTTPClient: &http.Client{Timeout: patience}, RetryMaxAttempts: 1,
	})
}

func (f *localFunction) invoke(payload string) *client.InvokeOutput {
	f.t.Helper()
	out, err := f.client().Invoke(context.Background(), &client.InvokeInput{FunctionName: aws.String("millrace"), Payload: []byte(payload)})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// eventually waits until the log has a line that matches, and returns it.
func (f *localFunction) eventually(pattern string) []string {
	f.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if found := regexp.MustCompile(pattern).FindStringSubmatch(f.log.String()); found != nil {
			return found
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("the log never has %s", pattern)
		}
	}
}

// The answers to the messages of a queue are in S3, and what S3 did not take comes
// again.
func TestLambdaQueue(t *testing.T) {
	server := s3test.NewServer(t)
	f := startFunction(t, s3Env(server.URL), "--env", "QUEUE_OUTPUT=s3://answers/chat")
	event := `{"Records":[{"messageId":"a","eventSource":"aws:sqs","body":"{\"inputs\":\"What is Millrace?\"}"},{"messageId":"b","eventSource":"aws:sqs","body":"no JSON"}]}`
	if out := f.invoke(event); out.FunctionError != nil || string(out.Payload) != `{"batchItemFailures":[]}` {
		t.Errorf("%v %s", out.FunctionError, out.Payload)
	}
	if good, bad := server.Get("answers", "chat/a.json"), server.Get("answers", "chat/failed/b.json"); !bytes.Contains(good, []byte("generated_text")) || !bytes.Contains(bad, []byte(`"error_type"`)) {
		t.Errorf("the answers are %s and %s", good, bad)
	}

	denied := s3test.NewProxy(t, server.URL, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	denied.Intercept(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		s3test.Fail(w, http.StatusForbidden, "AccessDenied", "Access Denied")
		return true
	})
	f = startFunction(t, s3Env(denied.URL), "--env", "QUEUE_OUTPUT=s3://answers/chat/")
	if out := f.invoke(event); string(out.Payload) != `{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"b"}]}` {
		t.Errorf("%s", out.Payload)
	}
	f.eventually(`s3://answers/chat/a.json: access denied: s3:PutObject is missing`)
}

// A function answers the client of aws-sdk-go-v2 in one piece and in several,
// and says of each fault what it was.
func TestLambdaInvoke(t *testing.T) {
	f := startFunction(t, nil)
	const question = `"inputs":"What is Millrace?","parameters":{"max_new_tokens":40,"return_full_text":false}`
	answer := ""
	for _, tt := range []struct{ name, payload, want, failure string }{
		{name: "generate", payload: `{` + question + `}`, want: `[{"generated_text":" Millrace is a server`},
		{name: "chat", payload: `{"messages":[{"role":"user","content":"Hi"}],"max_tokens":5}`, want: `"object":"chat.completion"`},
		{name: "completion", payload: `{"prompt":"Hi","max_tokens":5}`, want: `"object":"text_completion"`},
		{name: "stream read as one", payload: `{` + question + `,"stream":true}`, want: "data: {"},
		{name: "validation", payload: `{"inputs":""}`, failure: `"errorType":"validation"`},
		{name: "no event", payload: `{"hello":1}`, failure: "an object with hello; accepted are events of a function URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := f.invoke(tt.payload)
			failure := ""
			if out.FunctionError != nil {
				failure = string(out.Payload)
			}
			if tt.failure == "" && failure != "" || !strings.Contains(failure, tt.failure) || !strings.Contains(string(out.Payload), tt.want) {
				t.Errorf("%s; want %q, failure %q", out.Payload, tt.want, tt.failure)
			}
			if tt.name == "generate" {
				answer = string(out.Payload)
			}
		})
	}
	stream := func(payload string) (chunks []string, end types.InvokeWithResponseStreamCompleteEvent) {
		out, err := f.client().InvokeWithResponseStream(t.Context(), &client.InvokeWithResponseStreamInput{FunctionName: aws.String("millrace"), Payload: []byte(payload)})
		if err != nil {
			t.Fatal(err)
		}
		events := out.GetStream()
		defer events.Close()
		for event := range events.Events() {
			switch e := event.(type) {
			case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
				chunks = append(chunks, string(e.Value.Payload))
			case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
				end = e.Value
			}
		}
		if err := events.Err(); err != nil {
			t.Fatal(err)
		}
		return chunks, end
	}
	t.Run("stream", func(t *testing.T) {
		chunks, end := stream(`{` + question + `,"stream":true}`)
		var last struct {
			Text string `json:"generated_text"`
		}
		all := strings.Split(strings.TrimSpace(strings.Join(chunks, "")), "\n\n")
		if err := json.Unmarshal([]byte(strings.TrimPrefix(all[len(all)-1], "data: ")), &last); err != nil {
			t.Fatal(err)
		}
		if len(chunks) < 2 || end.ErrorCode != nil || last.Text == "" || !strings.Contains(answer, last.Text) {
			t.Errorf("%d chunks, the last text is %q, end %v; want the text of %s", len(chunks), last.Text, end, answer)
		}
	})
	t.Run("stream that cannot begin", func(t *testing.T) {
		chunks, end := stream(`{"inputs":"","stream":true}`)
		if len(chunks) > 0 || end.ErrorCode == nil || !strings.Contains(*end.ErrorDetails, "cannot be empty") {
			t.Errorf("chunks %q, end %v", chunks, end)
		}
	})
}

// The log of a cold start has its phases, and between events the process is
// stopped.
func TestLambdaColdStartAndFreeze(t *testing.T) {
	f := startFunction(t, nil, "--", "--json-output")
	for range 3 {
		if out := f.invoke(`{"inputs":"Hi","parameters":{"max_new_tokens":2}}`); out.FunctionError != nil {
			t.Errorf("an answer is %s", out.Payload)
		}
		f.awaitFreeze()
	}
	line := f.eventually(`(?m)^\{.*"message":"cold start".*$`)[0]
	var phases map[string]any
	if err := json.Unmarshal([]byte(line), &phases); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"open_ms", "weights_ms", "tokenizer_ms", "ready_ms", "next_ms", "event_ms", "first_byte_ms", "answered_ms"} {
		if _, ok := phases[name].(float64); !ok {
			t.Errorf("the line has no %s: %s", name, line)
		}
	}
	if n := strings.Count(f.log.String(), `"cold start"`); n != 1 {
		t.Errorf("%d cold starts for one process", n)
	}
}

// stopped reports whether the function's process is.
func (f *localFunction) stopped() bool {
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", f.cmd.Process.Pid))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, list := range children {
		pids, _ := os.ReadFile(list)
		for _, pid := range strings.Fields(string(pids)) {
			stat, _ := os.ReadFile("/proc/" + pid + "/stat")
			if _, state, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(state, "T") {
				return true
			}
		}
	}
	return false
}

// awaitFreeze waits until the function is stopped, as it should be behind an
// answer.
func (f *localFunction) awaitFreeze() {
	f.t.Helper()
	for deadline := time.Now().Add(patience); !f.stopped(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("the function is not frozen after its answer")
		}
	}
}

// A generation that the function's time does not suffice for ends with what it
// has and says so.
func TestLambdaDeadline(t *testing.T) {
	f := startFunction(t, nil, "--timeout", "5s", "--", "--model-id", tinyFolder(t), "--device", "ref", "--max-batch-size", "8")
	f.invoke(`{"inputs":"the","parameters":{"max_new_tokens":1}}`) // the cold start
	const long = `{"prompt":"the quick","n":8,"max_tokens":4000,"temperature":0`
	for name, payload := range map[string]string{"in one piece": long + `}`, "in pieces": long + `,"stream":true}`} {
		t.Run(name, func(t *testing.T) {
			out := f.invoke(payload)
			if out.FunctionError != nil || strings.Count(string(out.Payload), `"finish_reason":"length","cut":"deadline"`) != 8 {
				t.Errorf("%v %.500s", out.FunctionError, out.Payload)
			}
		})
	}
}

// What is wrong with the configuration or the model is said to Lambda, which
// says it to the caller.
func TestLambdaInitError(t *testing.T) {
	for _, tt := range []struct {
		name, args, want string
	}{
		{"flag", "--prot=1", "unknown flag --prot"},
		{"model", "--model-id=/nowhere/model", "/nowhere/model"},
		{"value", "--max-batch-size=0", "must be at least 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := startFunction(t, nil, "--", tt.args)
			out := f.invoke(`{"inputs":"x"}`)
			if out.FunctionError == nil || !strings.Contains(string(out.Payload), tt.want) || !strings.Contains(string(out.Payload), "Runtime.ConfigInvalid") {
				t.Errorf("%s; want %s", out.Payload, tt.want)
			}
		})
	}
}

// A model that arrives while events may come already fails them by its cause.
func TestLambdaModelThatDoesNotArrive(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "model.tar.gz")
	if err := os.WriteFile(archive, []byte("no gzip"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startFunction(t, nil, "--", "--model-id", archive)
	if out := f.invoke(`{"inputs":"x"}`); out.FunctionError == nil || !strings.Contains(string(out.Payload), "model.tar.gz") {
		t.Errorf("%s", out.Payload)
	}
}

// An image is started, paused between events and ended by docker, for which a
// script stands here that runs the program itself.
func TestLambdaImage(t *testing.T) {
	dir := t.TempDir()
	script := strings.NewReplacer("DIR", dir, "MILLRACE", millrace).Replace(`#!/bin/sh
echo "$@" >>DIR/log
command=$1; shift
case $command in
run)
	while [ "$1" != the-image ]; do
		case $1 in
		--env) export "$2"; shift ;;
		--name) echo $$ >DIR/"$2"; shift ;;
		esac
		shift
	done
	shift
	exec MILLRACE "$@" ;;
pause) kill -STOP $(cat DIR/"$1") ;;
unpause) kill -CONT $(cat DIR/"$1") ;;
kill)
	signal=KILL
	[ "$1" = --signal ] && { signal=$2; shift 2; }
	kill -$signal $(cat DIR/"$1") ;;
esac
`)
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	f := startFunction(t, []string{"PATH=" + dir + ":" + os.Getenv("PATH")}, "--image", "the-image", "--", "serve", "--max-batch-size", "3")
	for range 2 {
		if out := f.invoke(`{"inputs":"Hi","parameters":{"max_new_tokens":2}}`); out.FunctionError != nil {
			t.Errorf("an answer is %s", out.Payload)
		}
		f.awaitFreeze()
	}
	if line := f.eventually(`msg=ready .*`)[0]; !strings.Contains(line, "slots=3") {
		t.Errorf("the image's arguments are lost: %s", line)
	}
	f.stop()
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for line := range strings.Lines(string(log)) {
		words = append(words, strings.Fields(line)[0])
	}
	got := strings.Join(words, " ")
	if !strings.HasPrefix(got, "run pause unpause") || !strings.Contains(string(log), "kill --signal TERM millrace-lambda-") {
		t.Errorf("docker is told: %s", log)
	}
}

// On a managed instance one process computes many events together, and is not
// stopped between them.
func TestLambdaConcurrency(t *testing.T) {
	f := startFunction(t, nil, "--concurrency", "4")
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			resp, err := http.Post(f.url+"/generate", "application/json", strings.NewReader(`{"inputs":"Hi","parameters":{"max_new_tokens":5}}`))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
	calls.Wait()
	if line := f.eventually(`msg=ready .*`)[0]; !strings.Contains(line, "slots=16") || f.stopped() {
		t.Errorf("slots for 4 events: %s; stopped: %v", line, f.stopped())
	}
}

// What Lambda says about a function decides what the configuration leaves
// open.
func TestFunctionFit(t *testing.T) {
	for _, tt := range []struct {
		name    string
		env     map[string]string
		cfg     config.Serve
		given   string // flag
		slots   int
		threads int // 0: as many as there are
		limit   time.Duration
		level   string
		wantErr string
	}{
		{name: "no function", wantErr: "AWS_LAMBDA_RUNTIME_API is not set"},
		{name: "little memory", env: map[string]string{"AWS_LAMBDA_RUNTIME_API": "x", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512"}, slots: 4, threads: 1, limit: 8500 * time.Millisecond},
		{name: "as the operator says", env: map[string]string{"AWS_LAMBDA_RUNTIME_API": "x", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512", "AWS_LAMBDA_LOG_LEVEL": "DEBUG"},
			cfg: config.Serve{MaxBatchSize: 2, Threads: 7, LogLevel: "warn"}, given: "log-level", slots: 2, threads: 7, limit: 8500 * time.Millisecond, level: "warn"},
		{name: "provisioned", env: map[string]string{"AWS_LAMBDA_RUNTIME_API": "x", "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"}, slots: 4},
		{name: "managed", env: map[string]string{"AWS_LAMBDA_RUNTIME_API": "x", "AWS_LAMBDA_INITIALIZATION_TYPE": "lambda-managed-instances", "AWS_LAMBDA_MAX_CONCURRENCY": "64", "AWS_LAMBDA_LOG_LEVEL": "FATAL"},
			slots: 64, limit: 2 * time.Minute, level: "error"},
		{name: "no number", env: map[string]string{"AWS_LAMBDA_RUNTIME_API": "x", "AWS_LAMBDA_MAX_CONCURRENCY": "many"}, wantErr: `AWS_LAMBDA_MAX_CONCURRENCY="many": expected a whole number`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			getenv := func(name string) string { return tt.env[name] }
			f, err := functionOf(getenv)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("%v; want %s", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.fit(&tt.cfg, []config.Setting{{Flag: tt.given, From: "command line"}}, getenv)
			if tt.cfg.MaxBatchSize != tt.slots || tt.cfg.Threads != tt.threads || f.initLimit() != tt.limit || tt.cfg.LogLevel != tt.level {
				t.Errorf("slots %d, threads %d, limit %s, level %q; want %d, %d, %s, %q",
					tt.cfg.MaxBatchSize, tt.cfg.Threads, f.initLimit(), tt.cfg.LogLevel, tt.slots, tt.threads, tt.limit, tt.level)
			}
		})
	}
}
