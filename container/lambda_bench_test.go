package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// BenchmarkLambdaStart measures a cold start with the demo model: from
// starting the process until it asks for its first event, which it does once
// it is ready, and from there until the answer of one token is complete.
func BenchmarkLambdaStart(b *testing.B) {
	var ready, token []float64
	for b.Loop() {
		r, t := lambdaStart(b)
		ready, token = append(ready, r.Seconds()*1000), append(token, t.Seconds()*1000)
	}
	slices.Sort(ready)
	slices.Sort(token)
	b.ReportMetric(ready[0], "best-ready-ms")
	b.ReportMetric(ready[len(ready)/2], "median-ready-ms")
	b.ReportMetric(token[len(token)/2], "median-first-token-ms")
	b.ReportMetric(0, "ns/op")
}

// lambdaStart starts a process with a Runtime API that has one event for it.
func lambdaStart(b *testing.B) (ready, token time.Duration) {
	b.Helper()
	asked, answered := make(chan time.Time, 2), make(chan time.Time, 2)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	cmd := command([]string{"AWS_LAMBDA_RUNTIME_API=" + api.Listener.Addr().String(), "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=3538"})
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
	next := receive(asked)
	return next.Sub(begin), receive(answered).Sub(next)
}
