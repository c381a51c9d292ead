package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// fakes launch model servers inside the test's process.
type fakes struct {
	t       *testing.T
	handler func(*fake) http.Handler // may be called for several

	mu   sync.Mutex
	made []*fake
}

// fake is a model server that the test can look at.
type fake struct {
	*httptest.Server
	number   int
	term     chan struct{} // closed by SIGTERM
	exited   chan struct{}
	once     sync.Once
	exitOnce sync.Once
	stubborn bool // does not end at SIGTERM
	deaf     bool // accepts no connection
	status   int
}

func (l *fakes) Launch(_ context.Context, number int) (Container, error) {
	f := &fake{number: number, term: make(chan struct{}), exited: make(chan struct{})}
	f.Server = httptest.NewServer(l.handler(f))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made = append(l.made, f)
	l.t.Cleanup(func() { f.exit(0) })
	return f, nil
}

func (l *fakes) exit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.made {
		f.exit(0)
	}
}

func (l *fakes) launched() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.made)
}

func (f *fake) Address() string { return strings.TrimPrefix(f.URL, "http://") }
func (f *fake) Dial(ctx context.Context) (net.Conn, error) {
	if f.deaf {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return port(f.Address()).Dial(ctx)
}

func (f *fake) Exited() <-chan struct{} { return f.exited }
func (f *fake) ExitStatus() int         { return f.status }
func (f *fake) Kill()                   { go f.exit(137) }

func (f *fake) Terminate() {
	f.once.Do(func() { close(f.term) })
	if !f.stubborn {
		go func() {
			f.Config.Shutdown(context.Background()) // waits for the requests
			f.exit(0)
		}()
	}
}

// exit ends the server as the end of its process would.
func (f *fake) exit(status int) {
	f.exitOnce.Do(func() {
		f.status = status
		f.CloseClientConnections()
		f.Config.Close()
		close(f.exited)
	})
}

// healthy answers /ping and leaves the rest to next.
func healthy(next http.HandlerFunc) func(*fake) http.Handler {
	return func(*fake) http.Handler {
		m := http.NewServeMux()
		m.HandleFunc("GET /ping", func(http.ResponseWriter, *http.Request) {})
		m.HandleFunc("/", next)
		return m
	}
}

// running is an endpoint in service and a client of it.
type running struct {
	*Endpoint
	*sagemakerruntime.Client
	t      *testing.T
	url    string
	cancel context.CancelFunc
	done   chan struct{}
	report *Summary // valid once done
	err    error
}

// run starts an endpoint and waits until it is in service.
func run(t *testing.T, cfg Config) *running {
	t.Helper()
	r, ready := begin(t, cfg)
	select {
	case <-ready:
	case <-r.done:
		t.Fatalf("the endpoint failed: %v", r.err)
	case <-time.After(patience):
		t.Fatal("the endpoint does not come into service")
	}
	return r
}

// begin starts an endpoint; ready is closed once it is in service. Limits that
// the test does not set are too long for a slow machine to meet.
func begin(t *testing.T, cfg Config) (r *running, ready chan struct{}) {
	t.Helper()
	for _, limit := range []*time.Duration{&cfg.Limits.Unary, &cfg.Limits.Startup, &cfg.Limits.Ping, &cfg.Limits.Connect, &cfg.Limits.Stop} {
		if *limit == 0 {
			*limit = patience
		}
	}
	cfg.Name = "demo"
	cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(e.Handler())
	front.Config.Protocols = new(http.Protocols)
	front.Config.Protocols.SetHTTP1(true)
	front.Config.Protocols.SetUnencryptedHTTP2(true)
	front.Start()
	ctx, cancel := context.WithCancel(context.Background())
	r = &running{Endpoint: e, t: t, url: front.URL, cancel: cancel, done: make(chan struct{})}
	r.Client = r.newClient()
	ready = make(chan struct{})
	go func() {
		defer close(r.done)
		r.report, r.err = e.Run(ctx, func() { close(ready) })
	}()
	t.Cleanup(func() {
		cancel()
		if l, ok := cfg.Launcher.(*fakes); ok {
			l.exit() // handlers may wait for something that comes no more
		}
		<-r.done
		front.Close()
	})
	return r, ready
}

func (r *running) newClient() *sagemakerruntime.Client {
	return sagemakerruntime.New(sagemakerruntime.Options{
		Region:           "us-east-1",
		BaseEndpoint:     aws.String(r.url),
		Credentials:      credentials.NewStaticCredentialsProvider("local", "local", ""),
		RetryMaxAttempts: 1,
		HTTPClient:       patient{},
	})
}

// stop ends the endpoint and returns how its instances ended.
func (r *running) stop() *Summary {
	r.t.Helper()
	r.cancel()
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Fatal("the endpoint does not stop")
	}
	return r.report
}

// patient is the SDK's HTTP client less a race of it: the SDK closes the
// request's body when the answer begins, which an answer from the same machine
// may do before the transport has seen the body's end. The connection is then
// lost, and the stream with it.
type patient struct{}

func (patient) Do(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(b))
	}
	return http.DefaultClient.Do(req)
}

// input is a call's smallest input.
func input() *sagemakerruntime.InvokeEndpointInput {
	return &sagemakerruntime.InvokeEndpointInput{EndpointName: aws.String("demo"), Body: []byte("{}")}
}

func streamInput() *sagemakerruntime.InvokeEndpointWithResponseStreamInput {
	return &sagemakerruntime.InvokeEndpointWithResponseStreamInput{EndpointName: aws.String("demo"), Body: []byte("{}")}
}

// stream makes a streaming call and reads it to its end. It has a client of
// its own, because all streams of a client share one decoder (smithy-go 1.28.9).
func (r *running) stream(in *sagemakerruntime.InvokeEndpointWithResponseStreamInput) (parts []string, err error) {
	r.t.Helper()
	out, err := r.newClient().InvokeEndpointWithResponseStream(context.Background(), in)
	if err != nil {
		return nil, err
	}
	defer out.GetStream().Close()
	for ev := range out.GetStream().Events() {
		parts = append(parts, string(ev.(*types.ResponseStreamMemberPayloadPart).Value.Bytes))
	}
	return parts, out.GetStream().Err()
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// asModelError returns err as the ModelError it must be.
func asModelError(t *testing.T, err error) *types.ModelError {
	t.Helper()
	var m *types.ModelError
	if !errors.As(err, &m) {
		t.Fatalf("got %v, want a ModelError", err)
	}
	return m
}

// wait blocks a fake's handler until c is closed, or the connection is, which
// net/http notices once the body has been read.
func wait(r *http.Request, c <-chan struct{}) {
	io.Copy(io.Discard, r.Body)
	select {
	case <-c:
	case <-r.Context().Done():
	}
}
