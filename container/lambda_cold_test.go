package main

import (
	"context"
	"io"
	"net"
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
	proxy.Intercept(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if open.Load() {
			return false
		}
		for !open.Load() && r.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		panic(http.ErrAbortHandler) // ends the connection
	})
	f := startFunction(t, s3Env(proxy.URL), "--timeout", "5s", "--init-timeout", "1m", "--", "--model-id", "s3://models/tiny")
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
		t.Error("the process was started again")
	}
}

// Traces are with the collector before the process can be frozen, by a
// connection that is of no more use once it was.
func TestLambdaTraces(t *testing.T) {
	for name, path := range map[string]string{"HTTP": "/v1/traces", "gRPC": ""} {
		t.Run(name, func(t *testing.T) {
			spans := make(chan struct{}, 10)
			type used struct{ atomic.Bool }
			collector := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if r.Context().Value(used{}).(*used).Swap(true) {
					<-r.Context().Done()
					return
				}
				w.Header().Set("Grpc-Status", "0")
				spans <- struct{}{}
			}))
			collector.Config.Protocols = new(http.Protocols)
			collector.Config.Protocols.SetHTTP1(true)
			collector.Config.Protocols.SetUnencryptedHTTP2(true)
			collector.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
				return context.WithValue(ctx, used{}, &used{})
			}
			collector.Start()
			defer collector.Close()
			defer collector.CloseClientConnections()
			f := startFunction(t, nil, "--", "--otlp-endpoint", collector.URL+path)
			for i := range 2 {
				f.invoke(`{"inputs":"Hi","parameters":{"max_new_tokens":2}}`)
				f.awaitFreeze()
				select {
				case <-spans:
				default:
					t.Errorf("the function is frozen with spans of event %d that it has not sent", i+1)
				}
			}
		})
	}
}
