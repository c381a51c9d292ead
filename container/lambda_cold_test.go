package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/source/s3test"
)

// A model that takes longer than Lambda waits for an initialization does not
// hold up the first event beyond its time, and goes on loading when the next
// one thaws the process, though its connections have ended meanwhile.
func TestLambdaFirstEventBeforeTheModel(t *testing.T) {
	t.Parallel() // the wait for Lambda's limit is most of it
	server := s3test.NewServer(t)
	for name, data := range tinyFiles(t) {
		server.Put("models", "tiny/"+name, data)
	}
	var open atomic.Bool
	proxy := s3test.NewProxy(t, server.URL, 1, func(int, *http.Request) s3test.Fault { return s3test.None })
	proxy.Before = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if open.Load() {
			return false
		}
		for !open.Load() && r.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		panic(http.ErrAbortHandler) // ends the connection
	}
	f := startFunction(t, s3Env(proxy.URL), "--timeout", "1s", "--", "--model-id", "s3://models/tiny")
	const event = `{"inputs":"the quick","parameters":{"max_new_tokens":3}}`
	out := f.invoke(event)
	if out.FunctionError == nil || !strings.Contains(string(out.Payload), "The model is not ready: opening s3://models/tiny") {
		t.Errorf("the first event gets %s", out.Payload)
	}
	f.awaitFreeze()
	open.Store(true)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if out = f.invoke(event); out.FunctionError == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("an event after the thaw gets %s", out.Payload)
		}
	}
	if log := f.log.String(); strings.Contains(log, "INIT_REPORT") || strings.Count(log, "serving as a Lambda function") != 1 {
		t.Error("the process has been begun anew")
	}
}

// Traces are with the collector before the process can be frozen.
func TestLambdaTraces(t *testing.T) {
	spans := make(chan struct{}, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { spans <- struct{}{} }))
	defer collector.Close()
	f := startFunction(t, nil, "--", "--otlp-endpoint", collector.URL+"/v1/traces")
	f.invoke(`{"inputs":"Hi","parameters":{"max_new_tokens":2}}`)
	f.awaitFreeze()
	select {
	case <-spans:
	default:
		t.Error("the function is frozen with spans that it has not sent")
	}
}
