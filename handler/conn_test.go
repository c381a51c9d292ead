package handler

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHeads sends what a proxy in front could read in another way than
// net/http does, whole and byte by byte, and counts the answers.
func TestHeads(t *testing.T) {
	url := serve(t, newTestServer(&fake{}))
	const (
		ping  = "GET /ping HTTP/1.1\r\nhost: x\r\n\r\n"
		start = "POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
	)
	body := fmt.Sprintf("content-length: %d\r\n\r\n%s", len(oneToken), oneToken)
	for _, tt := range []struct {
		name, send string
		want       string // statuses until the connection ends
	}{
		{"as it should be", ping + start + body + ping + last(ping), "200 200 200 200"},
		{"line ends between requests", start + body + "\r\n" + last(ping), "200 200"},
		{"LF in a body", start + "content-length: 2\r\n\r\n\n\n" + last(ping), "400 200"},
		{"LF at a line's end", "GET /ping HTTP/1.1\r\nhost: x\nx: y\r\n\r\n" + ping, "400"},
		{"LF at the first line's end", "GET /ping HTTP/1.1\nhost: x\r\n\r\n" + ping, "400"},
		{"LF at the head's end", "GET /ping HTTP/1.1\r\nhost: x\r\n\n" + ping, "400"},
		{"LF in a later head", ping + ping + "GET /ping HTTP/1.1\r\nhost: x\nx: y\r\n\r\n" + ping, "200 200 400"},
		{"LF in a head after a body", start + body + "GET /ping HTTP/1.1\r\nhost: x\nx: y\r\n\r\n" + ping, "200 400"},
		{"LF in a head that hides a length", start + "x: y\n" + body + ping, "400"},
		{"a line that goes on", "GET /ping HTTP/1.1\r\nhost: x\r\nx: y\r\n z\r\n\r\n" + ping, "400"},
		{"a length of two lines", start + strings.Replace(body, ": ", ":\r\n ", 1) + ping, "400"},
		{"a length behind spaces", start + strings.Replace(body, ": ", ":"+strings.Repeat(" ", 60), 1) + ping, "400"},
		{"chunks", start + "transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + ping, "400"},
		{"chunks and a length", start + "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + ping, "400"},
		{"chunks of HTTP/1.0", "GET /ping HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n" + ping, "200"},
	} {
		for _, whole := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, whole %v", tt.name, whole), func(t *testing.T) {
				c := dial(t, url)
				c.SetDeadline(time.Now().Add(20 * time.Second)) // a hang is a failure
				go func() {
					if whole {
						io.WriteString(c, tt.send) //nolint:errcheck // the answers tell
						return
					}
					for i := range len(tt.send) {
						io.WriteString(c, tt.send[i:i+1]) //nolint:errcheck // as above
					}
				}()
				var got []string
				r := bufio.NewReader(c)
				for {
					resp, err := http.ReadResponse(r, nil)
					if err != nil {
						break // the end, or a reset by what was still sent
					}
					io.Copy(io.Discard, resp.Body) //nolint:errcheck // the next answer tells
					got = append(got, fmt.Sprint(resp.StatusCode))
				}
				if strings.Join(got, " ") != tt.want {
					t.Errorf("statuses %q, want %q", got, tt.want)
				}
			})
		}
	}
}

// last asks to close the connection after a request.
func last(request string) string {
	return strings.Replace(request, "\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1)
}

// TestOwnErrors gets the errors that net/http answers before any handler.
func TestOwnErrors(t *testing.T) {
	url := serve(t, newTestServer(&fake{}))
	for _, tt := range []struct {
		name, send string
		status     int
	}{
		{"not HTTP", "hello\r\n\r\n", 400},
		{"no host", "GET /ping HTTP/1.1\r\n\r\n", 400},
		{"two lengths", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400},
		{"an expectation", "POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: coffee\r\n\r\n", 417},
		{"a large head", "GET /ping HTTP/1.1\r\nhost: x\r\nx: " + strings.Repeat("a", 100_000) + "\r\n\r\n", 431},
		{"an unknown coding", "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 501},
		{"an unknown version", "GET /ping HTTP/3.1\r\nhost: x\r\n\r\n", 505},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, url)
			c.SetDeadline(time.Now().Add(20 * time.Second)) // a hang is a failure
			io.WriteString(c, tt.send)                      //nolint:errcheck // the answer tells
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(resp.Body)
			var e struct {
				Error string `json:"error"`
				Type  string `json:"error_type"`
			}
			if json.Unmarshal(data, &e) != nil || e.Error == "" || e.Type == "" || resp.StatusCode != tt.status || resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%d %q (%v), want %d and JSON", resp.StatusCode, data, err, tt.status)
			}
			if _, err := r.ReadByte(); err == nil {
				t.Error("something follows the answer")
			}
		})
	}
}

// BenchmarkGuard is what looking at a head costs.
func BenchmarkGuard(b *testing.B) {
	head := []byte("POST /generate HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: python-requests/2.32\r\nAccept-Encoding: gzip, deflate\r\n" +
		"Accept: */*\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n" + strings.Repeat("x", 50))
	var c guardedConn
	b.ReportAllocs()
	for b.Loop() {
		c.look(head)
	}
	if c.off || c.heads == 0 {
		b.Error("the heads are not as they should be")
	}
}
