package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

// rie is a process of aws-lambda-runtime-interface-emulator, the runtime code that
// AWS itself publishes, which runs the program as its function.
type rie struct {
	t      *testing.T
	url    string
	cmd    *exec.Cmd
	exited chan struct{}
	log    *syncBuffer
}

// startRIE runs the program under build/bin/aws-lambda-rie, which `make lambda-rie`
// builds. As a managed instance, which concurrency makes it if it is not 0, the
// emulator starts /var/runtime/bootstrap as Lambda's user: that takes root and a
// /var of its own.
func startRIE(t *testing.T, concurrency int, env ...string) *rie {
	t.Helper()
	emulator, err := filepath.Abs("../build/bin/aws-lambda-rie")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(emulator); err != nil {
		t.Skip("needs AWS's runtime interface emulator: make lambda-rie builds it")
	}
	addresses := make([]string, 2)
	for i := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses[i] = l.Addr().String()
		_ = l.Close() // the port is free, most likely still in a moment
	}
	flags := []string{"--runtime-interface-emulator-address", addresses[0], "--runtime-api-address", addresses[1]}
	cmd := exec.Command(emulator, append(flags, millrace)...)
	if concurrency > 0 {
		if os.Geteuid() != 0 {
			t.Skip("a managed instance's emulator needs root")
		}
		dir := t.TempDir()
		for from, to := range map[string]string{emulator: "rie", millrace: "runtime/bootstrap"} {
			copyProgram(t, from, filepath.Join(dir, to))
		}
		if err := os.Mkdir(filepath.Join(dir, "task"), 0o755); err != nil {
			t.Fatal(err)
		}
		script := []string{"-c", `mount --bind "$0" /var && cd /var/task && exec /var/rie "$@"`, dir}
		cmd = exec.Command("sh", append(script, flags...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		env = append(env, fmt.Sprintf("AWS_LAMBDA_MAX_CONCURRENCY=%d", concurrency))
	}
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "AWS_LAMBDA_FUNCTION_TIMEOUT=60")
	r := &rie{t: t, url: "http://" + addresses[0] + "/2015-03-31/functions/function/invocations", cmd: cmd, exited: make(chan struct{}), log: &syncBuffer{}}
	cmd.Stdout, cmd.Stderr = r.log, r.log
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) {
		t.Skip("a managed instance's emulator needs a mount namespace: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(r.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // which ends the function as well
		select {
		case <-r.exited:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-r.exited
		}
		if t.Failed() {
			t.Logf("the emulator's log:\n%s", r.log)
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addresses[0])
		if err == nil {
			_ = conn.Close()
			return r
		}
		select {
		case <-r.exited:
			return r // for the test of a function that does not start
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the emulator does not listen: %v", err)
		}
	}
}

// copyProgram copies a program to where another user may start it.
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err == nil { // whatever the umask
		err = errors.Join(os.Chmod(filepath.Dir(to), 0o755), os.Chmod(to, 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// invoke sends an event and returns the function's answer. The emulator answers
// 200 for events that the function has failed, too.
func (r *rie) invoke(event string) (header http.Header, answer string) {
	r.t.Helper()
	client := &http.Client{Timeout: patience}
	resp, err := client.Post(r.url, "application/json", strings.NewReader(event))
	if err != nil {
		r.t.Error(err)
		return nil, ""
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Errorf("status %d, %v: %s", resp.StatusCode, err, data)
	}
	return resp.Header, string(data)
}

// AWS's runtime code gives the program events of every source, one at a time as a
// plain function, with a buffered URL, and together as a managed instance, with a
// streaming one.
func TestRuntimeInterfaceEmulator(t *testing.T) {
	const (
		generate = `"{\"inputs\":\"What is Millrace?\",\"parameters\":{\"max_new_tokens\":4}}"`
		headers  = `"headers":{"content-type":"application/json"}`
		proxied  = `{"statusCode":200,"headers":{`
		answered = `"body":"{\"generated_text\":\" Millrace is a server\"}"`
	)
	http2 := func(domain, path string) string {
		return `{"version":"2.0","rawPath":"` + path + `","rawQueryString":"",` + headers +
			`,"requestContext":{"domainName":"` + domain + `","stage":"$default","http":{"method":"POST","path":"` + path + `"}},"isBase64Encoded":false,"body":` + generate + `}`
	}
	http1 := func(fields string) string {
		return `{"httpMethod":"POST","path":"/generate",` + headers + `,` + fields + `,"body":` + generate + `}`
	}
	stored := s3test.NewServer(t)
	for _, mode := range []struct {
		name        string
		concurrency int
		urlMode     string
	}{{"on-demand", 0, "auto"}, {"managed", 8, "stream"}} {
		t.Run(mode.name, func(t *testing.T) {
			r := startRIE(t, mode.concurrency, append(s3Env(stored.URL), "LAMBDA_INVOKE_MODE="+mode.urlMode, "QUEUE_OUTPUT=s3://answers/"+mode.name)...)
			streams := mode.urlMode == "stream"
			for _, tt := range []struct {
				name, event string
				want        []string // texts of the answer
				failure     string   // the type that Lambda keeps
			}{
				{name: "direct", event: `{"inputs":"What is Millrace?","parameters":{"max_new_tokens":4}}`, want: []string{`[{"generated_text":"What is Millrace? Millrace is a server"}]`}},
				{name: "direct chat", event: `{"messages":[{"role":"user","content":"Hi"}],"max_tokens":3}`, want: []string{`"object":"chat.completion"`}},
				{name: "direct stream", event: `{"inputs":"What is Millrace?","stream":true,"parameters":{"max_new_tokens":4}}`, want: []string{`data: {"index":1,`, `"generated_text":"What is Millrace? Millrace is a server"`}},
				{name: "HTTP API", event: http2("x.execute-api.eu-west-1.amazonaws.com", "/generate"), want: []string{proxied, answered}},
				{name: "HTTP API, format 1.0", event: http1(`"version":"1.0","requestContext":{"stage":"$default"}`), want: []string{`{"statusCode":200,`, answered}},
				{name: "load balancer", event: http1(`"requestContext":{"elb":{"targetGroupArn":"arn"}}`), want: []string{`"statusDescription":"200 OK"`, answered}},
				{name: "queue", event: `{"Records":[{"messageId":"m","eventSource":"aws:sqs","body":` + generate + `}]}`, want: []string{`{"batchItemFailures":[]}`}},
				{name: "schedule", event: `{"version":"0","detail-type":"Scheduled Event","source":"aws.events","detail":{}}`, want: []string{""}},
				{name: "refused", event: `{"inputs":""}`, want: []string{"`inputs` cannot be empty"}, failure: "Function.Validation"},
				{name: "refused stream", event: `{"inputs":"","stream":true}`, want: []string{"`inputs` cannot be empty"}, failure: "Function.Validation"},
				{name: "not an event", event: `{"hello":1}`, want: []string{"an object with hello; accepted are events of"}, failure: "Function.EventNotSupported"},
			} {
				t.Run(tt.name, func(t *testing.T) {
					header, answer := r.invoke(tt.event)
					for _, want := range tt.want {
						if !strings.Contains(answer, want) {
							t.Errorf("the answer is %s; want %s", answer, want)
						}
					}
					if failed := strings.Contains(answer, `"errorMessage"`); failed != (tt.failure != "") {
						t.Errorf("the answer is %s; want a failure: %t", answer, tt.failure != "")
					}
					// Only the emulator of managed instances shows the type.
					if got := header.Get("Error-Type"); mode.concurrency > 0 && got != tt.failure {
						t.Errorf("the error's type is %q, want %q", got, tt.failure)
					}
				})
			}
			for name, event := range map[string]string{"function URL": http2("x.lambda-url.eu-west-1.on.aws", "/generate"), "REST API": http1(`"resource":"/{proxy+}","requestContext":{"stage":"prod"}`)} {
				t.Run(name, func(t *testing.T) {
					header, answer := r.invoke(event)
					head, body, divided := strings.Cut(answer, "\x00\x00\x00\x00\x00\x00\x00\x00")
					if divided != streams {
						t.Fatalf("the answer is %q; want a stream's: %t", answer, streams)
					}
					if want := `{"generated_text":" Millrace is a server"}`; streams && (!strings.HasPrefix(head, proxied) || body != want || header.Get("Content-Type") != "application/vnd.awslambda.http-integration-response") {
						t.Errorf("%s: %q, then %s; want %s", header.Get("Content-Type"), head, body, want)
					}
					if !streams && !strings.Contains(head, answered) {
						t.Errorf("the answer is %s; want %s", head, answered)
					}
				})
			}
			if got := stored.Get("answers", mode.name+"/m.json"); !bytes.Contains(got, []byte(`"generated_text":"What is Millrace? Millrace is a server"`)) {
				t.Errorf("the queue's answer is %s", got)
			}
			// The emulator refuses an event when no loop asks for one, as those do not
			// that have just answered.
			var calls sync.WaitGroup
			for range mode.concurrency / 2 {
				calls.Go(func() {
					if _, answer := r.invoke(`{"inputs":"What is Millrace?","parameters":{"max_new_tokens":30}}`); !strings.Contains(answer, "made for Amazon SageMaker") {
						t.Errorf("an answer is %s", answer)
					}
				})
			}
			calls.Wait()
		})
	}
}

// A function that does not start says why.
func TestRuntimeInterfaceEmulatorInitError(t *testing.T) {
	r := startRIE(t, 0, "MODEL_ID=/nowhere")
	resp, err := http.Post(r.url, "application/json", strings.NewReader(`{"inputs":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if want := `{"errorMessage":"model folder /nowhere: no such file or directory","errorType":"Runtime.ConfigInvalid"`; err != nil || resp.StatusCode != http.StatusBadGateway || !strings.HasPrefix(string(answer), want) {
		t.Errorf("%d %s %v, want %s", resp.StatusCode, answer, err, want)
	}
	// As a managed instance, the emulator ends with its function.
	r = startRIE(t, 1, "MODEL_ID=/nowhere")
	select {
	case <-r.exited:
	case <-time.After(patience):
		t.Fatal("the emulator goes on")
	}
	if log := r.log.String(); !strings.Contains(log, "Received Runtime Init Error") || !strings.Contains(log, "errType=Runtime.ConfigInvalid") {
		t.Errorf("the log is %s", log)
	}
}
