package otlp

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestEnvironment(t *testing.T) {
	const prefix = "OTEL_EXPORTER_OTLP_"
	for _, tt := range []struct {
		name     string
		endpoint string            // of the flag
		env      map[string]string // without the prefix, unless it begins with OTEL_
		want     string            // protocol, URL, and what else is set
	}{
		{name: "nothing", want: "none"},
		{name: "for all signals", env: map[string]string{"ENDPOINT": "http://h:4318"}, want: "http http://h:4318/v1/traces"},
		{name: "for all signals, below a path", env: map[string]string{"ENDPOINT": "https://h/otlp/"}, want: "http https://h/otlp/v1/traces"},
		{name: "the port of gRPC", env: map[string]string{"ENDPOINT": "http://h:4317"}, want: "grpc http://h:4317" + exportMethod},
		{name: "gRPC", env: map[string]string{"ENDPOINT": "https://h", "PROTOCOL": "grpc"}, want: "grpc https://h" + exportMethod},
		{name: "HTTP on the port of gRPC", env: map[string]string{"ENDPOINT": "http://h:4317", "PROTOCOL": "http/protobuf"}, want: "http http://h:4317/v1/traces"},
		{name: "for traces", env: map[string]string{"ENDPOINT": "http://all", "TRACES_ENDPOINT": "http://h/in"}, want: "http http://h/in"},
		{name: "the flag wins", endpoint: "http://flag:4317", env: map[string]string{"ENDPOINT": "http://h:4318"}, want: "grpc http://flag:4317" + exportMethod},
		{name: "the flag with a protocol", endpoint: "http://flag:4317", env: map[string]string{"PROTOCOL": "http/protobuf"}, want: "http http://flag:4317/v1/traces"},
		{name: "disabled", env: map[string]string{"ENDPOINT": "http://h:4318", "OTEL_SDK_DISABLED": "true"}, want: "none"},
		{name: "no traces", env: map[string]string{"ENDPOINT": "http://h:4318", "OTEL_TRACES_EXPORTER": "none"}, want: "none"},
		{name: "the rest", env: map[string]string{
			"ENDPOINT": "http://h:4318", "HEADERS": "api-key=a%20secret, x-team = b", "COMPRESSION": "gzip", "TIMEOUT": "2500",
		}, want: "http http://h:4318/v1/traces Api-Key: a secret X-Team: b gzip 2.5s"},
		{name: "odd address", env: map[string]string{"ENDPOINT": "h:4318/secret"}, want: prefix + "ENDPOINT: expected"},
		{name: "odd protocol", env: map[string]string{"ENDPOINT": "http://h", "PROTOCOL": "http/json"}, want: prefix + "PROTOCOL: expected grpc or http/protobuf"},
		{name: "odd headers", env: map[string]string{"ENDPOINT": "http://h", "TRACES_HEADERS": "secret"}, want: prefix + "TRACES_HEADERS: expected NAME=VALUE"},
		{name: "a header of two lines", env: map[string]string{"ENDPOINT": "http://h", "HEADERS": "a=secret%0ab"}, want: prefix + "HEADERS: expected NAME=VALUE"},
		{name: "odd compression", env: map[string]string{"ENDPOINT": "http://h", "COMPRESSION": "zstd"}, want: prefix + "COMPRESSION: expected gzip"},
		{name: "odd time", env: map[string]string{"ENDPOINT": "http://h", "TIMEOUT": "10s"}, want: prefix + "TIMEOUT: expected a number of milliseconds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Endpoint: tt.endpoint}
			err := cfg.Environment(func(name string) string {
				if short, ok := strings.CutPrefix(name, prefix); ok {
					return tt.env[short]
				}
				return tt.env[name]
			})
			if err != nil {
				if !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
					t.Errorf("%v; want %s", err, tt.want)
				}
				return
			}
			got := "none"
			if cfg.Endpoint != "" {
				c, err := newClient(cfg)
				if err != nil {
					t.Fatal(err)
				}
				got = "http " + c.url
				if c.grpc {
					got = "grpc " + c.url
				}
				for _, name := range []string{"Api-Key", "X-Team"} {
					if value := c.headers.Get(name); value != "" {
						got += " " + name + ": " + value
					}
				}
				if c.gzip {
					got += " gzip"
				}
				if cfg.Timeout != 0 {
					got += fmt.Sprint(" ", cfg.Timeout)
				}
			}
			if got != tt.want {
				t.Errorf("%s; want %s", got, tt.want)
			}
		})
	}
}

// Headers go with each batch, compressed or not, by either protocol.
func TestHeadersAndCompression(t *testing.T) {
	for _, protocol := range []string{protocolGRPC, protocolHTTP} {
		t.Run(protocol, func(t *testing.T) {
			c := newCollector(t)
			p, err := Start(Config{Endpoint: c.URL, Protocol: protocol, Headers: http.Header{"Api-Key": {"k"}}, Gzip: true, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			_, span := p.Tracer("test").Start(context.Background(), "a span")
			span.End()
			if err := p.Shutdown(context.Background()); err != nil {
				t.Fatal(err)
			}
			if len(c.spans) != 1 || c.key != "k" || !c.compressed {
				t.Errorf("%d spans, key %q, compressed %v", len(c.spans), c.key, c.compressed)
			}
		})
	}
}

// A collector that is overloaded is tried again, one that refuses is not.
func TestRetry(t *testing.T) {
	for _, tt := range []struct {
		name             string
		protocol         string
		statuses         []string // of the first answers
		calls            int
		fails, impatient bool
	}{
		{name: "overloaded, HTTP", protocol: protocolHTTP, statuses: []string{"503", "429"}, calls: 3},
		{name: "unavailable, gRPC", protocol: protocolGRPC, statuses: []string{"14", "8"}, calls: 3},
		{name: "refused, HTTP", protocol: protocolHTTP, statuses: []string{"400"}, calls: 1, fails: true},
		{name: "refused, gRPC", protocol: protocolGRPC, statuses: []string{"7"}, calls: 1, fails: true},
		{name: "no time for another", protocol: protocolHTTP, statuses: []string{"503"}, calls: 1, fails: true, impatient: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCollector(t)
			c.statuses = tt.statuses
			client, err := newClient(Config{Endpoint: c.URL, Protocol: tt.protocol})
			if err != nil {
				t.Fatal(err)
			}
			client.pause = time.Microsecond
			ctx := t.Context()
			if tt.impatient {
				client.pause = time.Hour
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				c.answered = cancel
			}
			err = client.UploadTraces(ctx, nil)
			if (err != nil) != tt.fails || len(c.paths) != tt.calls {
				t.Errorf("%v after %d calls; want %d", err, len(c.paths), tt.calls)
			}
		})
	}
}
