package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkLambdaStart measures a cold start with the demo model: from
// starting the process until it asks for its first event, which it does once
// it is ready, and from there until the answer of one token is complete.
func BenchmarkLambdaStart(b *testing.B) {
	var ready, token []float64
	for b.Loop() {
		r, t := lambdaStart(b, "on-demand")
		ready, token = append(ready, r.Seconds()*1000), append(token, t.Seconds()*1000)
	}
	slices.Sort(ready)
	slices.Sort(token)
	b.ReportMetric(ready[0], "best-ready-ms")
	b.ReportMetric(ready[len(ready)/2], "median-ready-ms")
	b.ReportMetric(token[len(token)/2], "median-first-token-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLambdaRestore measures what the program itself does between its
// restoration from a SnapStart snapshot and its request for the first event, and
// then until the answer of one token is complete. The process goes on here; what
// Lambda reads of the snapshot meanwhile is not in it.
func BenchmarkLambdaRestore(b *testing.B) {
	var ready, token []float64
	for b.Loop() {
		r, t := lambdaStart(b, "snap-start")
		ready, token = append(ready, r.Seconds()*1000), append(token, t.Seconds()*1000)
	}
	slices.Sort(ready)
	slices.Sort(token)
	b.ReportMetric(ready[len(ready)/2], "median-ready-ms")
	b.ReportMetric(ready[len(ready)-1], "longest-ready-ms")
	b.ReportMetric(token[len(token)/2], "median-first-token-ms")
	b.ReportMetric(0, "ns/op")
}

// lambdaStart starts a process with a Runtime API that has one event for it, and
// restores it at once if it is to have a snapshot. It returns the time from the
// start, or from the restoration, to the request for the event, and from there to
// its answer.
func lambdaStart(b *testing.B, initialization string) (ready, token time.Duration) {
	b.Helper()
	restored, asked, answered := make(chan time.Time, 2), make(chan time.Time, 2), make(chan time.Time, 2)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/restore/next") {
			restored <- time.Now()
			return
		}
		if r.Method == http.MethodGet {
			asked <- time.Now()
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "a")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(patience).UnixMilli()))
			io.WriteString(w, `{"inputs":"What is Millrace?","parameters":{"max_new_tokens":1}}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/2018-06-01/runtime/invocation/a/response" {
			b.Errorf("POST %s: %s", r.URL.Path, body)
		}
		answered <- time.Now()
		<-r.Context().Done() // one event is enough
	}))
	defer api.Close()
	cmd := command([]string{"AWS_LAMBDA_RUNTIME_API=" + api.Listener.Addr().String(), "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=3538", "AWS_LAMBDA_INITIALIZATION_TYPE=" + initialization})
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	receive := func(c <-chan time.Time) time.Time {
		select {
		case t := <-c:
			return t
		case <-time.After(patience):
			b.Fatal("the function does not start")
			return time.Time{}
		}
	}
	if initialization == "snap-start" {
		begin = receive(restored)
	}
	next := receive(asked)
	return next.Sub(begin), receive(answered).Sub(next)
}
