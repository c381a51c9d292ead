package handler

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

// TestUnreadBodies announces a body and never sends it, to everything that
// does not read one. The answer must come, and the connection end.
func TestUnreadBodies(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	full := newTestServer(&fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		<-release
		out.End(engine.FinishLength, nil, engine.Token{ID: 276})
	}}, func(o *Options) { o.PayloadLimit, o.APIKey = 1000, "KEY" })
	full.memory.setSize(1000, 1)
	ready := serve(t, full)
	loading := serve(t, New(Options{ModelID: "MODEL"}))
	const (
		jsonBody = "content-type: application/json\r\n"
		key      = "authorization: Bearer KEY\r\n"
		length   = "content-length: 300\r\n"
		large    = "content-length: 10000000\r\n"
		chunks   = "transfer-encoding: chunked\r\n"
	)
	for _, tt := range []struct {
		name, url, line, headers string
		status                   int
	}{
		{"404", ready, "POST /nowhere", length, 404},
		{"404 in chunks", ready, "POST /nowhere", chunks, 404},
		{"404 with Expect", ready, "POST /nowhere", length + "expect: 100-continue\r\n", 404},
		{"401", ready, "POST /generate", jsonBody + length, 401},
		{"401, a large body", ready, "POST /generate", jsonBody + large, 401},
		{"405", ready, "PUT /generate", key + jsonBody + length, 405},
		{"405, GET", ready, "GET /generate", key + jsonBody + length, 405},
		{"415", ready, "POST /generate", key + length, 415},
		{"417", ready, "POST /generate", key + jsonBody + length + "expect: coffee\r\n", 417},
		{"ping with a body", ready, "GET /ping", length, 200},
		{"ping with chunks", ready, "GET /ping", chunks, 200},
		{"metrics with a body", ready, "GET /metrics", length, 200},
		{"a preflight with a body", ready, "OPTIONS /generate", length, 200},
		{"413 announced", ready, "POST /generate", key + jsonBody + large, 413},
		{"413 beyond the memory", ready, "POST /generate", key + jsonBody + "content-length: 900\r\n", 413},
		{"413 with Expect", ready, "POST /generate", key + jsonBody + large + "expect: 100-continue\r\n", 413},
		{"503", loading, "POST /generate", jsonBody + length, 503},
		{"503 with Expect", loading, "POST /generate", jsonBody + length + "expect: 100-continue\r\n", 503},
		{"503 of ping", loading, "GET /ping", length, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, tt.url)
			c.SetDeadline(time.Now().Add(20 * time.Second)) // a hang is a failure
			fmt.Fprintf(c, "%s HTTP/1.1\r\nhost: x\r\n%s\r\n", tt.line, tt.headers)
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || !resp.Close {
				t.Errorf("status %d, close %v; want %d and a close", resp.StatusCode, resp.Close, tt.status)
			}
			io.Copy(io.Discard, resp.Body) //nolint:errcheck // the end is looked at below
			if _, err := r.ReadByte(); err != io.EOF {
				t.Errorf("after the answer: %v, want the end of the connection", err)
			}
		})
	}
}

// TestBodyThatIsThere keeps a connection whose unread body is small and there.
func TestBodyThatIsThere(t *testing.T) {
	c := dial(t, serve(t, newTestServer(&fake{})))
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	for range 3 {
		fmt.Fprintf(c, "POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 3000\r\n\r\n%s", strings.Repeat("GET /ping ", 300))
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body) //nolint:errcheck // the next answer tells
		if resp.StatusCode != 404 || resp.Close {
			t.Errorf("status %d, close %v; want 404 and a connection that lives", resp.StatusCode, resp.Close)
		}
	}
}

// TestLargeUnreadBody sends all of a body that is refused before it reads: it
// must still find the answer.
func TestLargeUnreadBody(t *testing.T) {
	url := serve(t, newTestServer(&fake{}, func(o *Options) { o.PayloadLimit = 1000 }))
	for _, path := range []string{"/generate", "/nowhere"} {
		c := dial(t, url)
		c.SetDeadline(time.Now().Add(20 * time.Second))
		const size = 8 << 20
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", path, size)
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatalf("%s: sending: %v", path, err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		resp.Body.Close()
		if resp.StatusCode != 413 && resp.StatusCode != 404 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

// TestChunksClose looks at the connection after a body in chunks, beside which
// a Content-Length may have come that a proxy believes.
func TestChunksClose(t *testing.T) {
	url := serve(t, newTestServer(&fake{}))
	for _, headers := range []string{"transfer-encoding: chunked\r\n", "content-length: 3\r\ntransfer-encoding: chunked\r\n"} {
		c := dial(t, url)
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\nGET /ping HTTP/1.1\r\nhost: x\r\n\r\n",
			headers, len(oneToken), oneToken)
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body) //nolint:errcheck // the end is looked at below
		if resp.StatusCode != 200 && resp.StatusCode != 400 || !resp.Close {
			t.Errorf("%q: status %d, close %v", headers, resp.StatusCode, resp.Close)
		}
		if _, err := r.ReadByte(); err == nil {
			t.Errorf("%q: a second answer", headers)
		}
	}
}

// TestSilentConnections leaves many connections with a body that never comes
// and counts the answers.
func TestSilentConnections(t *testing.T) {
	url := serve(t, newTestServer(&fake{}, func(o *Options) { o.APIKey = "KEY" }))
	var all sync.WaitGroup
	for i := range 60 {
		line := []string{"POST /nowhere", "POST /generate", "GET /ping"}[i%3]
		c := dial(t, url)
		c.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(c, "%s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n", line)
		all.Go(func() {
			var late net.Error
			if _, err := io.Copy(io.Discard, c); errors.As(err, &late) && late.Timeout() {
				t.Errorf("%s: the connection is still open", line)
			}
		})
	}
	all.Wait()
}

func TestConnect(t *testing.T) {
	c := dial(t, serve(t, newTestServer(&fake{})))
	fmt.Fprint(c, "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if data, _ := io.ReadAll(resp.Body); resp.StatusCode != 405 || !strings.Contains(string(data), "not a proxy") {
		t.Errorf("%d %s", resp.StatusCode, data)
	}
}
