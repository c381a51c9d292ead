package lambda

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	urlStream = `{"version":"2.0","rawPath":"/generate_stream","requestContext":{"domainName":"a.lambda-url.b","http":{"method":"POST"}},"body":"{}"}`
	urlPlain  = `{"version":"2.0","rawPath":"/generate","requestContext":{"domainName":"a.lambda-url.b","http":{"method":"POST"}},"body":"{}"}`
	direct1   = `{"inputs":"Hi"}`
	directSSE = `{"inputs":"Hi","stream":true}`
)

// speak writes texts as events, each flushed; a step between two is taken
// when the test allows it.
func speak(w http.ResponseWriter, steps <-chan struct{}, texts ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i, text := range texts {
		if i > 0 {
			<-steps
		}
		io.WriteString(w, text)
		w.(http.Flusher).Flush()
	}
}

// Every event of a stream is with the platform before the next is written,
// behind the status in the form that the source reads.
func TestStream(t *testing.T) {
	const prelude = `{"statusCode":200,"headers":{"Content-Type":"text/event-stream"}}` + "\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, tt := range []struct {
		name, event string
		contentType string
		first       string
	}{
		{"function URL", urlStream, preludeType, prelude + "data: 1\n\n"},
		{"direct", directSSE, "text/event-stream", "data: 1\n\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlatform(t)
			steps := make(chan struct{})
			p.run(func(w http.ResponseWriter, _ *http.Request) {
				speak(w, steps, "data: 1\n\n", "data: 2\n\n", "data: 3\n\n")
			}, func(o *Options) { o.Mode = Stream })
			p.send("a", tt.event)
			a := p.answer()
			if a.path != "/invocation/a/response" || a.header.Get(headerMode) != "streaming" || a.header.Get("Content-Type") != tt.contentType {
				t.Errorf("POST %s, header %v", a.path, a.header)
			}
			for i, want := range []string{tt.first, "data: 2\n\n", "data: 3\n\n"} {
				if i > 0 {
					steps <- struct{}{}
				}
				if got := receive(t, a.pieces, "no more pieces"); got != want {
					t.Errorf("piece %d is %q; want %q", i, got, want)
				}
			}
			if rest := a.all(t); rest != "" || a.trailer.Get(headerErrorType) != "" {
				t.Errorf("after the last event: %q, trailer %v", rest, a.trailer)
			}
		})
	}
}

// The mode and what the client asks for decide together whether an answer
// comes in pieces.
func TestModes(t *testing.T) {
	const (
		alb  = `{"httpMethod":"POST","path":"/generate_stream","requestContext":{"elb":{}},"headers":{},"body":"{}"}`
		rest = `{"httpMethod":"POST","path":"/generate_stream","requestContext":{"stage":"prod"},"headers":{},"body":"{}"}`
	)
	for _, tt := range []struct {
		name  string
		mode  Mode
		event string
		want  bool // streamed
	}{
		{"auto, asked for", Auto, urlStream, false},
		{"auto, not asked for", Auto, urlPlain, false},
		{"auto, a source that cannot", Auto, alb, false},
		{"auto, a source that is rarely set to it", Auto, rest, false},
		{"auto, direct", Auto, directSSE, true},
		{"stream, asked for", Stream, urlStream, true},
		{"stream, not asked for", Stream, urlPlain, true},
		{"stream, a source that is rarely set to it", Stream, rest, true},
		{"stream, a source that cannot", Stream, alb, false},
		{"buffered, asked for", Buffered, urlStream, false},
		{"buffered, direct", Buffered, directSSE, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlatform(t)
			p.run(func(w http.ResponseWriter, _ *http.Request) { speak(w, nil, "data: 1\n\n") }, func(o *Options) { o.Mode = tt.mode })
			p.send("a", tt.event)
			a := p.answer()
			if got := a.header.Get(headerMode) == "streaming"; got != tt.want {
				t.Errorf("streamed: %v; want %v", got, tt.want)
			}
			if body := a.all(t); !strings.Contains(body, "data: 1") {
				t.Errorf("the answer is %q", body)
			}
		})
	}
}

// Whatever goes wrong with one event, its caller is told and the next event
// is answered.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name    string
		event   string
		serve   http.HandlerFunc
		path    string // of what is posted
		want    string // in it
		trailer string // in the error behind it
		kind    string // that Lambda shows
		logged  string // of what no request's line tells
	}{
		{name: "event", event: `{"hello":1}`, path: "error", want: `"errorType":"Function.EventNotSupported"`, kind: "Function.EventNotSupported",
			logged: "request_id=a refused=true error_type=Function.EventNotSupported err=\"the event is an object with hello"},
		{name: "panic", event: urlPlain, kind: "Runtime.Panic", serve: func(http.ResponseWriter, *http.Request) { panic("oops") }, path: "error", want: "panic: oops", logged: "request_id=a err=\"panic: oops\""},
		{name: "panic in a stream", event: urlStream, kind: "Runtime.Panic", serve: func(w http.ResponseWriter, _ *http.Request) {
			speak(w, nil, "data: 1\n\n")
			panic("oops")
		}, path: "response", want: `data: {"error":"panic: oops"`, trailer: `"errorType":"Runtime.Panic"`},
		{name: "error in a stream", event: urlStream, kind: "Function.Generation", serve: func(w http.ResponseWriter, _ *http.Request) {
			closed := make(chan struct{})
			close(closed)
			speak(w, closed, "data: 1\n\n", `data: {"error":"broken","error_type":"generation"}`+"\n\n")
		}, path: "response", want: `"broken"`, trailer: `{"errorMessage":"broken","errorType":"generation","stackTrace":[]}`},
		{name: "error in an OpenAI stream", event: urlStream, kind: "Function.Generation", serve: func(w http.ResponseWriter, _ *http.Request) {
			closed := make(chan struct{})
			close(closed)
			speak(w, closed, "data: 1\n\n", `data: {"error":{"message":"broken","http_status_code":424,"type":"generation"}}`+"\n\ndata: [DONE]\n\n")
		}, path: "response", want: `[DONE]`, trailer: `{"errorMessage":"broken","errorType":"generation","stackTrace":[]}`},
		{name: "status of HTTP", event: urlPlain, serve: refuse, path: "response", want: `"statusCode":422`},
		{name: "status of HTTP before a stream", event: urlStream, serve: refuse, path: "response", want: `{"statusCode":422`},
		{name: "status of a direct invocation", event: direct1, serve: refuse, path: "error", want: `{"errorMessage":"too much","errorType":"validation"`, kind: "Function.Validation",
			logged: "request_id=a refused=true error_type=Function.Validation"},
		{name: "full", event: direct1, serve: status(429, `{"error":"full","error_type":"overloaded"}`), path: "error", want: `"errorType":"overloaded"`, kind: "Function.Overloaded"},
		{name: "status without an error", event: direct1, serve: status(404, "nothing"), path: "error", want: `"errorType":"not_found"`, kind: "Function.NotFound", logged: "refused=true"},
		{name: "status of a direct stream", event: directSSE, serve: refuse, path: "error", want: `{"errorMessage":"too much","errorType":"validation"`, kind: "Function.Validation", logged: "refused=true"},
		{name: "too long", event: urlPlain, serve: write(strings.Repeat("x", answerLimit)), path: "response", want: `"statusCode":413`},
		{name: "too long, direct", event: direct1, serve: write(strings.Repeat("x", answerLimit+1)), path: "error", want: `"errorType":"payload_too_large"`, kind: "Function.PayloadTooLarge", logged: "refused=true"},
		{name: "too long for a load balancer", event: `{"httpMethod":"POST","path":"/","requestContext":{"elb":{}}}`, serve: write(strings.Repeat("x", balancerLimit)), path: "response", want: `"statusDescription":"413 Request Entity Too Large"`},
		{name: "nothing at all", event: urlPlain, serve: write(""), path: "response", want: `"statusCode":200`},
		{name: "nothing at all, direct", event: direct1, serve: write(""), path: "response", want: `null`},
		{name: "nothing at all, streamed", event: urlStream, serve: func(http.ResponseWriter, *http.Request) {}, path: "response", want: "\x00"},
		{name: "time is over", event: urlPlain, serve: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, path: "response", want: `"statusCode":504`},
		{name: "time is over in a stream", event: urlStream, serve: func(w http.ResponseWriter, r *http.Request) {
			speak(w, nil, "data: 1\n\n")
			<-r.Context().Done()
		}, path: "response", want: `"error_type":"timeout"`, trailer: `"errorType":"timeout"`, kind: "Function.Timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlatform(t)
			var log bytes.Buffer
			p.run(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/next" {
					write("fine")(w, r)
					return
				}
				tt.serve(w, r)
			}, func(o *Options) {
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
				if tt.event == urlStream {
					o.Mode = Stream
				}
			})
			until := time.Now().Add(time.Minute)
			if strings.HasPrefix(tt.name, "time is over") {
				until = time.Now().Add(300 * time.Millisecond)
			}
			p.sendUntil("a", tt.event, until)
			a := p.answer()
			if body := a.all(t); a.path != "/invocation/a/"+tt.path || !strings.Contains(body, tt.want) {
				t.Errorf("POST %s %.300s; want %s with %s", a.path, body, tt.path, tt.want)
			}
			if got := a.broken(); !strings.Contains(got, tt.trailer) || tt.trailer == "" && got != "" {
				t.Errorf("error behind the stream: %q; want %q", got, tt.trailer)
			}
			if kind := a.header.Get(headerErrorType) + a.trailer.Get(headerErrorType); kind != tt.kind {
				t.Errorf("the type is %q; want %q", kind, tt.kind)
			}
			if !strings.Contains(log.String(), tt.logged) || tt.logged == "" && strings.Contains(log.String(), "refused=true") {
				t.Errorf("the log is %s; want %s", &log, tt.logged)
			}
			p.send("b", strings.Replace(urlPlain, "/generate", "/next", 1))
			if body := p.answer().all(t); !strings.Contains(body, "fine") {
				t.Errorf("the next answer is %s", body)
			}
		})
	}
}

func refuse(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusUnprocessableEntity)
	io.WriteString(w, `{"error":"too much","error_type":"validation"}`)
}

func status(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		io.WriteString(w, text)
	}
}

func write(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

// A request ends before the platform ends the process, by a margin to answer
// in.
func TestDeadline(t *testing.T) {
	p := newPlatform(t)
	deadline := time.Now().Add(5 * time.Minute).Truncate(time.Millisecond)
	p.run(func(w http.ResponseWriter, r *http.Request) {
		until, _ := r.Context().Deadline()
		fmt.Fprint(w, deadline.Sub(until))
	}, nil)
	p.sendUntil("a", urlPlain, deadline)
	if body := p.answer().all(t); !strings.Contains(body, `"250ms"`) {
		t.Errorf("the margin is %s", body)
	}
}

// The messages of a queue are served one by one, and their answers delivered. What
// fails for no fault of the message comes again.
func TestQueue(t *testing.T) {
	const event = `{"Records":[{"messageId":"1","eventSource":"aws:sqs","body":"good"},{"messageId":"2","eventSource":"aws:sqs","body":"bad"},
		{"messageId":"3","eventSource":"aws:sqs","body":"worse"},{"messageId":"4","eventSource":"aws:sqs","body":"full"},{"messageId":"5","eventSource":"aws:sqs","body":"lost"}]}`
	serve := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch string(body) {
		case "bad":
			refuse(w, r)
		case "worse":
			panic(body)
		case "full":
			status(http.StatusTooManyRequests, `{"error":"full","error_type":"overloaded"}`)(w, r)
		default:
			w.Write(body)
		}
	}
	var mu sync.Mutex
	delivered := map[string]string{}
	p := newPlatform(t)
	p.run(serve, func(o *Options) {
		o.Deliver = func(_ context.Context, id string, status int, answer []byte) error {
			if string(answer) == "lost" {
				return errors.New("access denied")
			}
			mu.Lock()
			defer mu.Unlock()
			delivered[id] = fmt.Sprintf("%d %s", status, answer)
			return nil
		}
	})
	p.send("a", event)
	const want = `{"batchItemFailures":[{"itemIdentifier":"3"},{"itemIdentifier":"4"},{"itemIdentifier":"5"}]}`
	if body := p.answer().all(t); body != want {
		t.Errorf("the answer is %s; want %s", body, want)
	}
	if got := fmt.Sprint(delivered); got != `map[1:200 good 2:422 {"error":"too much","error_type":"validation"}]` {
		t.Errorf("delivered are %s", got)
	}

	p = newPlatform(t)
	p.run(serve, nil)
	p.send("b", event)
	if body := p.answer().all(t); !strings.Contains(body, "QUEUE_OUTPUT") {
		t.Errorf("without a place for answers the answer is %s", body)
	}
}

// The first event is asked for while the model still loads, and waits for it.
func TestEventBeforeTheModel(t *testing.T) {
	early := func(o *Options) { o.InitUntil = time.Now() }
	serve := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "served") }

	t.Run("then comes the model", func(t *testing.T) {
		p := newPlatform(t)
		r := p.run(serve, early)
		p.send("a", urlPlain)
		select {
		case a := <-p.answers:
			t.Fatalf("answered without a model: %s", a.all(t))
		case <-time.After(50 * time.Millisecond):
		}
		r.Ready()
		if body := p.answer().all(t); !strings.Contains(body, `"served"`) {
			t.Errorf("the answer is %s", body)
		}
	})
	t.Run("then its time is over", func(t *testing.T) {
		p := newPlatform(t)
		p.run(serve, early) // as the API does, which then says what is missing
		p.sendUntil("a", urlPlain, time.Now().Add(300*time.Millisecond))
		if body := p.answer().all(t); !strings.Contains(body, `"served"`) {
			t.Errorf("the answer is %s", body)
		}
	})
	t.Run("then the model fails", func(t *testing.T) {
		p := newPlatform(t)
		here := make(chan struct{})
		r := p.run(serve, func(o *Options) {
			early(o)
			o.Phase = func(name string) {
				if name == PhaseEvent {
					close(here)
				}
			}
		})
		p.send("a", urlPlain)
		receive(t, here, "the event does not arrive")
		if err := r.Fail(t.Context(), "Runtime.ModelNotLoaded", errors.New("no such bucket")); err != nil {
			t.Fatal(err)
		}
		const want = `{"errorMessage":"no such bucket","errorType":"Runtime.ModelNotLoaded","stackTrace":[]}`
		if a := p.answer(); a.path != "/invocation/a/error" || a.all(t) != want {
			t.Errorf("POST %s; want the event's error %s", a.path, want)
		}
		if err := receive(t, r.result, "Serve does not end"); err != nil {
			t.Error(err)
		}
	})
}

// A model that fails before any event is asked for fails the initialization.
func TestInitError(t *testing.T) {
	p := newPlatform(t)
	r := p.run(nil, func(o *Options) { o.InitUntil = time.Now().Add(time.Hour) })
	if err := r.Fail(t.Context(), "Runtime.ModelNotLoaded", errors.New("no such bucket")); err != nil {
		t.Fatal(err)
	}
	a := p.answer()
	if a.path != "/init/error" || a.header.Get(headerErrorType) != "Runtime.ModelNotLoaded" || !strings.Contains(a.all(t), `"no such bucket"`) {
		t.Errorf("POST %s, header %v", a.path, a.header)
	}
	if err := receive(t, r.result, "Serve does not end"); err != nil || len(p.polls) > 0 {
		t.Errorf("Serve returns %v after asking for %d events", err, len(p.polls))
	}
}

// A Runtime API that fails ends the process; one that refuses an answer that
// came too late does not.
func TestRuntimeAPIFails(t *testing.T) {
	t.Run("on asking", func(t *testing.T) {
		p := newPlatform(t)
		p.refuse = http.StatusInternalServerError
		r := p.run(nil, func(o *Options) { o.Concurrency = 3 })
		if err := receive(t, r.result, "Serve does not end"); err == nil || !strings.Contains(err.Error(), "answers 500") {
			t.Errorf("Serve returns %v", err)
		}
	})
	for status, ends := range map[int]bool{http.StatusInternalServerError: true, http.StatusBadRequest: false, http.StatusRequestEntityTooLarge: false} {
		t.Run(fmt.Sprint("on an answer with ", status), func(t *testing.T) {
			p := newPlatform(t)
			p.server.Config.Handler = refusing(p.server.Config.Handler, status)
			r := p.run(write("x"), nil)
			p.send("a", urlPlain)
			if ends {
				if err := receive(t, r.result, "Serve does not end"); err == nil {
					t.Error("Serve returns no error")
				}
				return
			}
			p.send("b", urlPlain)
		})
	}
}

func refusing(h http.Handler, status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/response") {
			w.WriteHeader(status)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// As many events run at once as the platform allows.
func TestConcurrency(t *testing.T) {
	const n = 5
	p := newPlatform(t)
	here, leave := make(chan struct{}, n), make(chan struct{})
	p.run(func(w http.ResponseWriter, _ *http.Request) {
		here <- struct{}{}
		<-leave
		io.WriteString(w, "x")
	}, func(o *Options) {
		o.Concurrency = n
		o.Idle = func() { t.Error("idle, though other events may run") }
	})
	for i := range n {
		p.send(fmt.Sprint(i), urlPlain)
	}
	for range n {
		receive(t, here, "the events do not run at once")
	}
	close(leave)
	for range n {
		p.answer().all(t)
	}
}

// All that belongs to an answer is done before the next event is asked for:
// from then on the process may be frozen.
func TestIdleBeforeTheNextEvent(t *testing.T) {
	p := newPlatform(t)
	flushed := false
	p.run(write("x"), func(o *Options) {
		o.Idle = func() {
			if len(p.polls) > 0 {
				t.Error("an event was asked for before the work was done")
			}
			flushed = true
		}
	})
	receive(t, p.polls, "no event is asked for")
	p.send("a", urlPlain)
	receive(t, p.polls, "no second event is asked for")
	if !flushed {
		t.Error("Idle was not called")
	}
}

// Shutdown waits for what runs.
func TestShutdown(t *testing.T) {
	p := newPlatform(t)
	leave := make(chan struct{})
	here := make(chan struct{})
	r := p.run(func(w http.ResponseWriter, _ *http.Request) {
		close(here)
		<-leave
		io.WriteString(w, "last words")
	}, nil)
	p.send("a", urlPlain)
	receive(t, here, "the event does not run")
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Shutdown(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returns %v while an event runs", err)
	}
	close(leave)
	if err := r.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if body := p.answer().all(t); !strings.Contains(body, "last words") {
		t.Errorf("the answer is %s", body)
	}
	if err := receive(t, r.result, "Serve does not end"); err != nil {
		t.Error(err)
	}
}
