package sagemaker

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace-ai/millrace/internal/web"
)

// numbered answers a line that is a number with itself, "s" with a stream and
// "4xx" or "5xx" with that status.
func numbered(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var status int
	switch _, err := fmt.Sscanf(string(body), `"%d"`, &status); {
	case string(body) == `"s"`:
		stream("data: 1\n\n")(w, r)
	case err == nil:
		web.WriteJSON(w, status, fmt.Appendf(nil, `{"error":"%d","error_type":"t"}`, status))
	default:
		web.WriteJSON(w, 200, fmt.Appendf(nil, `[%s]`, body))
	}
}

func TestBatch(t *testing.T) {
	const lines, plain = "application/jsonlines", "application/json"
	const refused = `{"error":"stream: a line of a batch has one line for its answer; leave stream out","error_type":"validation"}`
	for _, tt := range []struct {
		name, contentType string
		job               bool
		body              string
		status            int
		answerType, want  string
	}{
		{"lines in order", lines, false, "1\n2\n3\n", 200, lines, "[1]\n[2]\n[3]"},
		{"blank lines and carriage returns", "application/x-ndjson; charset=utf-8", false, "\r\n1\r\n\n 2 \r\n", 200, lines, "[1]\n[2]"},
		{"one line is a request", lines, false, "1\n", 200, plain, "[1\n]"},
		{"nothing at all", lines, false, "", 200, plain, "[]"},
		{"an error on its line", lines, false, "1\n\"422\"\n3", 200, lines, "[1]\n{\"error\":\"422\",\"error_type\":\"t\"}\n[3]"},
		{"all fail", lines, false, "\"422\"\n\"424\"", 422, plain, `{"error":"422","error_type":"t"}`},
		{"overloaded", lines, false, "1\n\"429\"\n3", 429, plain, `{"error":"429","error_type":"t"}`},
		{"ending", lines, false, "1\n\"503\"\n3", 503, plain, `{"error":"503","error_type":"t"}`},
		{"a stream", lines, false, "1\n\"s\"", 200, lines, "[1]\n" + refused},
		{"JSON is one request", plain, false, "1\n2", 200, plain, "[1\n2]"},
		{"JSON in a job", plain, true, "1\n2", 200, lines, "[1]\n[2]"},
		{"no type in a job", "", true, "1\n2", 200, lines, "[1]\n[2]"},
		{"bytes in a job", "application/octet-stream", true, "1\n2", 200, lines, "[1]\n[2]"},
		{"one value on several lines in a job", plain, true, "[\n1]", 200, plain, "[[\n1]]"},
		{"text in a job", "text/plain", true, "1\n2", 200, plain, "[1\n2]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAPI(numbered)
			h, free := Wrap(a, Options{Slots: 2, Batch: tt.job}), freeBytes(a)
			got := ask(h, "POST", "/invocations", tt.body, "Content-Type: "+tt.contentType)
			if got.status != tt.status || got.body != tt.want || got.header.Get("Content-Type") != tt.answerType {
				t.Errorf("%d %s %q; want %d %s %q", got.status, got.header.Get("Content-Type"), got.body, tt.status, tt.answerType, tt.want)
			}
			if n := free - freeBytes(a); n != 0 || len(h.lanes) != 0 {
				t.Errorf("%d bytes and %d lanes are lost", n, len(h.lanes))
			}
		})
	}
}

// All batches together use as many places as there are, and each of them.
func TestBatchesShareTheSlots(t *testing.T) {
	const slots, batches = 3, 4
	var now, most atomic.Int64
	full := make(chan struct{})
	var once sync.Once
	h := Wrap(newAPI(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == slots {
			once.Do(func() { close(full) })
		}
		<-full // hangs unless the lines of a batch run side by side
		numbered(w, r)
	}), Options{Slots: slots})
	var all sync.WaitGroup
	for range batches {
		all.Go(func() {
			if got := ask(h, "POST", "/invocations", "1\n2\n3\n4\n5", "Content-Type: application/jsonlines"); got.body != "[1]\n[2]\n[3]\n[4]\n[5]" {
				t.Errorf("%d %q", got.status, got.body)
			}
		})
	}
	all.Wait()
	if most.Load() != slots {
		t.Errorf("%d lines at once, want %d", most.Load(), slots)
	}
}

// A client that leaves ends its lines, those that wait for a place too.
func TestBatchWhoseClientLeaves(t *testing.T) {
	begun := make(chan struct{}, 1)
	var served atomic.Int64
	h := Wrap(newAPI(func(_ http.ResponseWriter, r *http.Request) {
		served.Add(1)
		begun <- struct{}{}
		<-r.Context().Done()
	}), Options{Slots: 1})
	ctx, leave := context.WithCancel(context.Background())
	r := httptest.NewRequest("POST", "/invocations", strings.NewReader("1\n2\n3")).WithContext(ctx)
	r.Header.Set("Content-Type", linesType)
	done := make(chan struct{})
	go func() { h.ServeHTTP(httptest.NewRecorder(), r); close(done) }()
	<-begun
	leave()
	<-done
	if served.Load() != 1 {
		t.Errorf("%d lines were served, want the one that had begun", served.Load())
	}
}

// A panic after a line is that line's error, and not the process's end.
func TestBatchPanics(t *testing.T) {
	h := Wrap(newAPI(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); string(body) == "2" {
			panic("a fault")
		}
		web.WriteJSON(w, 200, []byte("[]"))
	}), Options{})
	got := ask(h, "POST", "/invocations", "1\n2", "Content-Type: application/jsonlines")
	if want := "[]\n" + `{"error":"Internal error","error_type":"internal"}`; got.status != 200 || got.body != want {
		t.Errorf("%d %q, want %q", got.status, got.body, want)
	}
}
