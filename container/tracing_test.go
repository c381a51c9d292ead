package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Traces go where OpenTelemetry's variables say, unless a flag says otherwise.
func TestTracesByEnvironment(t *testing.T) {
	type batch struct{ path, key, body string }
	batches := make(chan batch, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		batches <- batch{r.URL.Path, r.Header.Get("Api-Key"), string(body)}
	}))
	defer collector.Close()
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		want batch // body: what is in it
	}{
		{
			"variables", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL, "OTEL_SERVICE_NAME=assistant"}, nil,
			batch{"/v1/traces", "k", "assistant"},
		},
		{
			"flags win", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_SERVICE_NAME=assistant"},
			[]string{"--otlp-endpoint", collector.URL + "/in", "--otlp-service-name", "named"},
			batch{"/in", "k", "named"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, append(tt.env, "OTEL_EXPORTER_OTLP_HEADERS=api-key=k"), tt.args...).ready()
			if status, body := p.post("/generate", `{"inputs":"Hi","parameters":{"max_new_tokens":1}}`); status != http.StatusOK {
				t.Fatalf("%d %s", status, body)
			}
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-batches:
				if got.path != tt.want.path || got.key != tt.want.key || !strings.Contains(got.body, tt.want.body) {
					t.Errorf("a batch at %s with key %q; want %s, %q and %q in it", got.path, got.key, tt.want.path, tt.want.key, tt.want.body)
				}
			case <-time.After(patience):
				t.Error("no spans came")
			}
		})
	}
	t.Run("a wrong variable", func(t *testing.T) {
		status, stderr := refused(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318"}, "serve")
		if status != 2 || !strings.Contains(stderr, "OTEL_EXPORTER_OTLP_ENDPOINT: expected") {
			t.Errorf("status %d: %s", status, stderr)
		}
	})
}
