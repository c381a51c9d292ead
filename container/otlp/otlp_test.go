package otlp

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector is an OTLP collector of both transports, in clear.
type collector struct {
	*httptest.Server
	spans      []*tracepb.Span
	paths      []string
	key        string   // of the last call, the header Api-Key
	compressed bool     // the last call was
	statuses   []string // that the next calls get, of gRPC or HTTP; then all are fine
	answered   func()   // called after the handler's answer, if not nil
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		c.paths = append(c.paths, r.Method+" "+r.URL.Path)
		c.key = r.Header.Get("Api-Key")
		status := ""
		if len(c.statuses) > 0 {
			status, c.statuses = c.statuses[0], c.statuses[1:]
		}
		if c.answered != nil {
			defer c.answered()
		}
		c.compressed = r.Header.Get("Content-Encoding") == "gzip"
		if r.Header.Get("Content-Type") == "application/grpc" {
			if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" || len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
				t.Errorf("not a gRPC call: %s, %v, %d bytes", r.Proto, r.Header, len(body))
				return
			}
			c.compressed = body[0] == 1 && r.Header.Get("Grpc-Encoding") == "gzip"
			body = body[5:]
			w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
			w.Header().Set("Content-Type", "application/grpc")
			w.Write(make([]byte, 5)) //nolint:errcheck // the client's test fails
			if status != "" {
				w.Header().Set("Grpc-Message", "go away")
			}
			w.Header().Set("Grpc-Status", cmp.Or(status, "0"))
		} else if code, err := strconv.Atoi(status); err == nil {
			w.WriteHeader(code)
		} else if r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("content type %q", r.Header.Get("Content-Type"))
		}
		if c.compressed {
			body = decompressed(t, body)
		}
		var data tracepb.TracesData
		if err := proto.Unmarshal(body, &data); err != nil {
			t.Error(err)
		}
		for _, of := range data.ResourceSpans {
			for _, in := range of.ScopeSpans {
				c.spans = append(c.spans, in.Spans...)
			}
		}
	}))
	c.Config.Protocols = new(http.Protocols)
	c.Config.Protocols.SetHTTP1(true)
	c.Config.Protocols.SetUnencryptedHTTP2(true)
	c.Start()
	t.Cleanup(c.Close)
	return c
}

func decompressed(t *testing.T, body []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return nil
	}
	all, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return all
}

func TestExport(t *testing.T) {
	for _, tt := range []struct{ name, path, want string }{
		{"gRPC", "", "POST " + exportMethod},
		{"gRPC, with a slash", "/", "POST " + exportMethod},
		{"HTTP", "/v1/traces", "POST /v1/traces"},
		{"HTTP below a path of its own", "/in/traces", "POST /in/traces"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCollector(t)
			p, err := Start(Config{Endpoint: c.URL + tt.path, Service: "S", Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			_, span := p.Tracer("test").Start(context.Background(), "a span")
			span.End()
			if err := p.Shutdown(context.Background()); err != nil {
				t.Fatal(err)
			}
			if len(c.spans) != 1 || c.spans[0].Name != "a span" {
				t.Errorf("spans %v", c.spans)
			}
			if len(c.paths) != 1 || c.paths[0] != tt.want {
				t.Errorf("calls %v, want %s", c.paths, tt.want)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Run("gRPC status", func(t *testing.T) {
		c := newCollector(t)
		c.statuses = []string{"7"}
		client, err := newClient(Config{Endpoint: c.URL})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.UploadTraces(context.Background(), nil); err == nil || !strings.Contains(err.Error(), `gRPC status "7" go away`) {
			t.Error(err)
		}
	})
	t.Run("HTTP status", func(t *testing.T) {
		srv := httptest.NewServer(http.NotFoundHandler())
		defer srv.Close()
		client, err := newClient(Config{Endpoint: srv.URL + "/x"})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.UploadTraces(context.Background(), nil); err == nil || !strings.Contains(err.Error(), "404") {
			t.Error(err)
		}
	})
}

func TestEndpoints(t *testing.T) {
	for _, tt := range []struct {
		endpoint, url string // "": refused
		grpc          bool
	}{
		{"http://h:4317", "http://h:4317" + exportMethod, true},
		{"https://h", "https://h" + exportMethod, true},
		{"http://h:4318", "http://h:4318/v1/traces", false},
		{"http://h:4318/", "http://h:4318/v1/traces", false},
		{"https://h/otlp", "https://h/otlp", false},
		{"h:4317", "", false},
		{"grpc://h:4317", "", false},
		{"http://", "", false},
		{"http://name:secret@h", "", false},
		{"grpc://name:secret@h", "", false},
		{"http://h?x=secret", "", false},
		{"grpc://h/secret", "", false},
	} {
		c, err := newClient(Config{Endpoint: tt.endpoint})
		switch {
		case tt.url == "" && err == nil:
			t.Errorf("%s: accepted", tt.endpoint)
		case tt.url == "" && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: %v", tt.endpoint, err)
		case tt.url != "" && err != nil:
			t.Errorf("%s: %v", tt.endpoint, err)
		case tt.url != "" && (c.url != tt.url || c.grpc != tt.grpc):
			t.Errorf("%s: %s, gRPC %v", tt.endpoint, c.url, c.grpc)
		}
	}
}
