package lambda

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait of these tests; nothing is expected to take long.
const patience = 20 * time.Second

// platform is the other side of the Runtime API, for one function. It gives
// out events and shows what is posted, piece by piece.
type platform struct {
	t       testing.TB
	server  *httptest.Server
	events  chan *invocation
	polls   chan struct{} // a value for each request for an event
	answers chan *answer
	refuse  int // status of all requests for events, 0: they get one

	snapshots chan struct{} // a value for each request for a snapshot
	restores  chan int      // their answers' statuses, 0: the connection is cut
}

// answer is one request that posts something.
type answer struct {
	path   string // behind /2018-06-01/runtime
	header http.Header
	pieces chan string // as they arrive; closed at the end

	trailer http.Header // valid once pieces is closed
	err     error
}

func newPlatform(t testing.TB) *platform {
	p := &platform{t: t, events: make(chan *invocation), polls: make(chan struct{}, 100), answers: make(chan *answer, 100), snapshots: make(chan struct{}, 100), restores: make(chan int)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+apiVersion+"/invocation/next", p.next)
	mux.HandleFunc("GET "+apiVersion+"/restore/next", p.restoreNext)
	mux.HandleFunc("POST "+apiVersion+"/", p.post)
	p.server = httptest.NewServer(mux)
	t.Cleanup(p.server.Close)
	return p
}

func (p *platform) next(w http.ResponseWriter, r *http.Request) {
	p.polls <- struct{}{}
	if p.refuse != 0 {
		w.WriteHeader(p.refuse)
		return
	}
	select {
	case inv := <-p.events:
		w.Header().Set(headerRequestID, inv.id)
		w.Header().Set(headerTraceID, inv.traceID)
		w.Header().Set(headerDeadline, fmt.Sprint(inv.deadline.UnixMilli()))
		w.Write(inv.event)
	case <-r.Context().Done():
	}
}

func (p *platform) restoreNext(w http.ResponseWriter, r *http.Request) {
	p.snapshots <- struct{}{}
	select {
	case status := <-p.restores:
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
	case <-r.Context().Done():
	}
}

func (p *platform) post(w http.ResponseWriter, r *http.Request) {
	a := &answer{path: strings.TrimPrefix(r.URL.Path, apiVersion), header: r.Header, pieces: make(chan string, 100)}
	p.answers <- a
	buf := make([]byte, 1<<16)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			a.pieces <- string(buf[:n])
		}
		if err != nil {
			if err != io.EOF {
				a.err = err
			}
			break
		}
	}
	a.trailer = r.Trailer
	close(a.pieces)
	w.WriteHeader(http.StatusAccepted)
}

// send gives out an event that may take long.
func (p *platform) send(id, event string) { p.sendUntil(id, event, time.Now().Add(time.Minute)) }

func (p *platform) sendUntil(id, event string, deadline time.Time) {
	p.t.Helper()
	select {
	case p.events <- &invocation{id: id, event: []byte(event), deadline: deadline}:
	case <-time.After(patience):
		p.t.Fatal("nobody asks for an event")
	}
}

// answer returns the next request that posts something.
func (p *platform) answer() *answer {
	p.t.Helper()
	return receive(p.t, p.answers, "there is no answer")
}

func receive[T any](t testing.TB, c <-chan T, otherwise string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal(otherwise)
		panic("unreachable")
	}
}

// all returns the whole body, once it is there.
func (a *answer) all(t testing.TB) string {
	t.Helper()
	var body strings.Builder
	for {
		piece := receive(t, a.pieces, "the answer has no end")
		if piece == "" {
			if a.err != nil {
				t.Fatal(a.err)
			}
			return body.String()
		}
		body.WriteString(piece)
	}
}

// broken returns the error that a streamed answer ends with, decoded.
func (a *answer) broken() string {
	data, _ := base64.StdEncoding.DecodeString(a.trailer.Get(headerErrorBody))
	return string(data)
}

// running is a Runtime that serves.
type running struct {
	*Runtime
	result chan error // of Serve
}

// run starts a Runtime that is ready, unless change says otherwise.
func (p *platform) run(h http.HandlerFunc, change func(*Options)) *running {
	opt := Options{API: p.server.Listener.Addr().String(), Handler: h, Logger: slog.New(slog.DiscardHandler)}
	wait := false
	if change != nil {
		change(&opt)
		wait = !opt.InitUntil.IsZero()
	}
	r := &running{New(opt), make(chan error, 1)}
	if !wait {
		r.Ready()
	}
	go func() { r.result <- r.Serve() }()
	p.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			p.t.Error(err)
		}
		p.server.CloseClientConnections()
	})
	return r
}
