package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// localEndpoint is a running `millrace sagemaker local`.
type localEndpoint struct {
	t      testing.TB
	cmd    *exec.Cmd
	url    string
	stderr bytes.Buffer  // valid once exited
	out    chan string   // what it prints after it is in service, whole
	exited chan struct{} // closed once it has ended
}

// startLocal starts the command on a free port and returns once the endpoint
// is in service.
func startLocal(t testing.TB, args ...string) *localEndpoint {
	t.Helper()
	l := &localEndpoint{t: t, out: make(chan string, 1), exited: make(chan struct{})}
	l.cmd = command(nil, append([]string{"sagemaker", "local", "--port", "0"}, args...)...)
	l.cmd.Stderr = &l.stderr
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n') // an early end is seen below
		ready <- line
		rest, _ := io.ReadAll(r)
		l.out <- string(rest)
		_ = l.cmd.Wait()
		close(l.exited)
	}()
	t.Cleanup(func() {
		_ = l.cmd.Process.Kill()
		<-l.exited
		if t.Failed() {
			t.Logf("log of the endpoint:\n%s", l.stderr.String())
		}
	})
	select {
	case line := <-ready:
		m := regexp.MustCompile(`AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=(\S+)`).FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("the first line is %q, want one to export", line)
		}
		l.url = m[1]
	case <-time.After(patience):
		t.Fatal("the endpoint does not come into service")
	}
	return l
}

// bufferedBody sends a request whose body is in memory: the SDK closes a body
// when the answer begins, which from this machine may be before the transport
// has seen the body's end, and the connection is lost.
type bufferedBody struct{}

func (bufferedBody) Do(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	return http.DefaultClient.Do(req)
}

// client is for one goroutine: streams of one client share a decoder.
func (l *localEndpoint) client() *sagemakerruntime.Client {
	return sagemakerruntime.New(sagemakerruntime.Options{
		Region:           "us-east-1",
		BaseEndpoint:     aws.String(l.url),
		Credentials:      credentials.NewStaticCredentialsProvider("local", "local", ""),
		RetryMaxAttempts: 1,
		HTTPClient:       bufferedBody{},
	})
}

func (l *localEndpoint) invoke(body string) (string, error) {
	out, err := l.client().InvokeEndpoint(context.Background(), &sagemakerruntime.InvokeEndpointInput{
		EndpointName: aws.String("millrace"), ContentType: aws.String("application/json"), Body: []byte(body),
	})
	if err != nil {
		return "", err
	}
	return string(out.Body), nil
}

func (l *localEndpoint) stream(body string) (string, error) {
	out, err := l.client().InvokeEndpointWithResponseStream(context.Background(), &sagemakerruntime.InvokeEndpointWithResponseStreamInput{
		EndpointName: aws.String("millrace"), ContentType: aws.String("application/json"), Body: []byte(body),
	})
	if err != nil {
		return "", err
	}
	defer out.GetStream().Close()
	var b strings.Builder
	for ev := range out.GetStream().Events() {
		b.Write(ev.(*types.ResponseStreamMemberPayloadPart).Value.Bytes)
	}
	return b.String(), out.GetStream().Err()
}

func TestSageMakerLocal(t *testing.T) {
	l := startLocal(t, "--adapter", "tuned=/no/such/adapter", "--env", "MAX_TOTAL_TOKENS=64", "--", "--max-stop-sequences", "1")
	const prompt = `{"inputs": "Hello", "parameters": {"max_new_tokens": 8}`

	whole, err := l.invoke(prompt + "}")
	var texts []struct {
		Text string `json:"generated_text"`
	}
	if err != nil || json.Unmarshal([]byte(whole), &texts) != nil || len(texts) != 1 {
		t.Fatalf("invoke: %q, %v; want an array of one text", whole, err)
	}
	streamed, err := l.stream(prompt + `, "stream": true}`)
	if err != nil {
		t.Fatalf("stream: %v", err)
	}
	last := ""
	for _, line := range strings.Split(streamed, "\n") {
		if data, ok := strings.CutPrefix(line, "data:"); ok {
			last = data
		}
	}
	var final struct {
		Text *string `json:"generated_text"`
	}
	if err := json.Unmarshal([]byte(last), &final); err != nil || final.Text == nil || !strings.HasSuffix(texts[0].Text, *final.Text) {
		t.Errorf("the stream ends with %q, want the generated text of %q", last, texts[0].Text)
	}

	for what, body := range map[string]string{
		"of a flag after --": `{"inputs": "Hello", "parameters": {"stop": ["a", "b"]}}`,
		"of --env":           `{"inputs": "Hello", "parameters": {"max_new_tokens": 64}}`,
	} {
		if _, err := l.invoke(body); err == nil {
			t.Errorf("the limit %s has not reached the server", what)
		}
	}
	_, err = l.invoke(`{"inputs": "Hello", "parameters": {"max_new_tokens": 0}}`)
	var m *types.ModelError
	if !errors.As(err, &m) || aws.ToInt32(m.OriginalStatusCode) != 422 ||
		!strings.Contains(aws.ToString(m.OriginalMessage), "max_new_tokens") || !strings.Contains(m.ErrorMessage(), "Received client error (422) from primary") {
		t.Errorf("a bad parameter: %v, want a ModelError of the server's 422", err)
	}
	_, err = l.client().InvokeEndpoint(context.Background(), &sagemakerruntime.InvokeEndpointInput{
		EndpointName: aws.String("millrace"), InferenceComponentName: aws.String("tuned"), Body: []byte(prompt + "}"),
	})
	var v *types.ValidationError
	if !errors.As(err, &v) || !strings.Contains(v.ErrorMessage(), "Inference Component tuned is not in service. Its creation failed: POST /adapters") {
		t.Errorf("an adapter that cannot be loaded: %v, want a ValidationError with the server's reason", err)
	}

	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	l.wantEnd(0, "instance 1: exit status 0 after ")
}

func TestSageMakerLocalEndsStreamsInOrder(t *testing.T) {
	l := startLocal(t, "--instances", "2")
	const clients = 32
	var callers sync.WaitGroup
	streaming := make(chan struct{}, clients)
	var ending atomic.Bool
	for range clients {
		callers.Go(func() {
			for first := true; ; first = false {
				late := ending.Load()
				text, err := l.stream(`{"inputs": "Tell me a story.", "stream": true, "parameters": {"max_new_tokens": 400, "do_sample": true}}`)
				if first {
					streaming <- struct{}{}
				}
				var v *types.ValidationError
				if errors.As(err, &v) {
					return // the endpoint is being deleted
				}
				var sent *smithyhttp.RequestSendError
				if late && text == "" && errors.As(err, &sent) {
					return // the endpoint is gone
				}
				if m := new(types.ModelError); errors.As(err, &m) && aws.ToInt32(m.OriginalStatusCode) == http.StatusServiceUnavailable {
					return // the container got the call after SIGTERM
				}
				if err != nil || !strings.Contains(text, `"generated_text":"`) {
					t.Errorf("a stream ended with %v after %q", err, text[max(0, len(text)-200):])
					return
				}
			}
		})
	}
	for range clients {
		<-streaming
	}
	ending.Store(true)
	for range 2 { // as timeout(1) does
		if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	callers.Wait()
	out := l.wantEnd(0, "instance 1: exit status 0 after ", "instance 2: exit status 0 after ", " 0 broken, 0 given up")
	if inFlight := regexp.MustCompile(`[1-9]\d* requests in flight at SIGTERM`); !inFlight.MatchString(out) {
		t.Errorf("the summary is %q, want streams in flight at SIGTERM", out)
	}
}

// wantEnd waits for the end of the command and returns what it printed.
func (l *localEndpoint) wantEnd(status int, texts ...string) string {
	l.t.Helper()
	select {
	case <-l.exited:
	case <-time.After(2 * patience):
		l.t.Fatal("the command does not end")
	}
	out := <-l.out
	if got := l.cmd.ProcessState.ExitCode(); got != status {
		l.t.Errorf("exit status %d, want %d", got, status)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			l.t.Errorf("printed %q, want %q in it", out, text)
		}
	}
	return out
}

// A bidirectional stream reaches the program's WebSocket, over HTTP/2 as SDKs call
// for it.
func TestSageMakerLocalBidirectional(t *testing.T) {
	helper := httptest.NewTLSServer(nil) // it has a certificate, and a client that trusts it
	defer helper.Close()
	pair := helper.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(files[i], pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := startLocal(t, "--tls-cert", files[0], "--tls-key", files[1])

	transport := helper.Client().Transport.(*http.Transport)
	transport.ForceAttemptHTTP2 = true
	body, caller := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+"/endpoints/millrace/invocations-bidirectional-stream", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Proto, resp.Status)
	}
	part := eventstream.Message{Payload: []byte(`{"id":"a","inputs":"What is Millrace?","stream":true,"parameters":{"max_new_tokens":2}}`)}
	part.Headers.Set(":event-type", eventstream.StringValue("PayloadPart"))
	if err := eventstream.NewEncoder().Encode(caller, part); err != nil {
		t.Fatal(err)
	}
	var heard []string
	for len(heard) == 0 || heard[len(heard)-1] != `{"id":"a","done":true}` {
		event, err := eventstream.NewDecoder().Decode(resp.Body, nil)
		if err != nil {
			t.Fatalf("%v after %q", err, heard)
		}
		heard = append(heard, string(event.Payload))
	}
	if len(heard) != 3 || !strings.Contains(heard[1], `"generated_text":"What is Millrace? Millrace is"`) {
		t.Errorf("heard %q", heard)
	}
	caller.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("after the caller's end comes %q, %v", rest, err)
	}
}

func TestSageMakerLocalRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"a model that is none", []string{"--model", t.TempDir()}, 1, "endpoint millrace: Failed: the container of instance 1 ended with status 2 before it was healthy"},
		{"a malformed variable", []string{"--env", "NOVALUE"}, 2, "--env=NOVALUE: expected NAME=VALUE"},
		{"an address that is not a server", []string{"--url", "https://example.com/x"}, 2, "--url=https://example.com/x: expected http://HOST:PORT"},
		{"an image and a server", []string{"--image", "i", "--url", "http://h"}, 2, "--image and --url can't be used together"},
		{"an image's model that is not there", []string{"--image", "i", "--model", "/no/such/model"}, 2, "--model=/no/such/model: expected a folder of this machine"},
		{"an image's adapter that is not there", []string{"--image", "i", "--adapter", "a=/no/such/adapter"}, 2, "--adapter=a=/no/such/adapter: expected a folder of this machine"},
		{"a certificate without its key", []string{"--tls-cert", "cert.pem"}, 2, "--tls-cert and --tls-key belong together"},
		{"a certificate that is none", []string{"--tls-cert", "/no/such/cert", "--tls-key", "/no/such/key"}, 2, "--tls-cert=/no/such/cert --tls-key=/no/such/key: open /no/such/cert: no such file"},
		{"memory of a child process", []string{"--memory", "1g"}, 2, "--memory and --cpus need --image"},
		{"S3 without a network", []string{"--model", "s3://b/m/", "--network-none"}, 2, "millrace pull s3://b/m/ FOLDER"},
		{"a name that is none", []string{"--endpoint", "a_b"}, 2, `endpoint name "a_b": expected`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, stderr := refused(t, nil, append([]string{"sagemaker", "local", "--port", "0"}, tt.args...)...)
			if status != tt.status || !strings.Contains(stderr, tt.want) {
				t.Errorf("status %d, %q; want %d, %q", status, stderr, tt.status, tt.want)
			}
		})
	}
}
