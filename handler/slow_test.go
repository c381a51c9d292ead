package handler

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

// TestSlowBody sends half a body and waits.
func TestSlowBody(t *testing.T) {
	s := newTestServer(&fake{})
	s.bodyPatience = 50 * time.Millisecond
	c := dial(t, serve(t, s))
	fmt.Fprintf(c, "POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"inputs\":")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 408 || !strings.Contains(string(data), `"error_type":"request_timeout"`) {
		t.Errorf("%d %s", resp.StatusCode, data)
	}
}

// TestDeadReader asks for more than sockets hold and never reads it: its
// place must come back. A patient server keeps it for a reader that is slow.
func TestDeadReader(t *testing.T) {
	const tokens = 200_000
	gen := &fake{limits: engine.Limits{MaxInput: 100, MaxTotal: tokens + 100}, script: func(_ *engine.Request, out *engine.StreamWriter) {
		out.End(engine.FinishLength, nil, make([]engine.Token, tokens)...)
	}}
	for _, path := range []string{"/generate", "/generate_stream"} {
		s := newTestServer(gen)
		s.writePatience = 200 * time.Millisecond
		c := dial(t, serve(t, s))
		body := fmt.Sprintf(`{"inputs":"x","parameters":{"details":true,"max_new_tokens":%d}}`, tokens)
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", path, len(body), body)
		taken := false
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			n := s.permits.Load()
			if taken = taken || n == 1; taken && n == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: permit taken: %v, still held: %d", path, taken, n)
			}
		}
	}
}

// dial connects to a server's URL until the test ends.
func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
