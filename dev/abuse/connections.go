package abuse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// dial opens a bare connection, which ends with ctx or after some time.
func (h *hostile) dial(ctx context.Context, after time.Duration) (net.Conn, func(), error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.host)
	if err != nil {
		return nil, nil, err
	}
	timed, cancel := context.WithTimeout(ctx, after)
	stop := context.AfterFunc(timed, func() { conn.Close() })
	return conn, func() { stop(); cancel(); conn.Close() }, nil
}

func head(method, path string, length int) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", method, path, length)
}

// slowReader asks for long streams and reads none.
func (h *hostile) slowReader(ctx context.Context) error {
	conn, done, err := h.dial(ctx, h.hold)
	if err != nil {
		return nil //nolint:nilerr // no connection: nothing to hold
	}
	defer done()
	conn.(*net.TCPConn).SetReadBuffer(1) //nolint:errcheck // then it is a little faster
	body := fmt.Sprintf(`{"inputs":"x %d","parameters":{"max_new_tokens":1500,"do_sample":true,"top_n_tokens":5}}`, h.rand.IntN(1000))
	fmt.Fprint(conn, head("POST", "/generate_stream", len(body))+body)
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(h.rand.Int64N(int64(h.hold)))):
	}
	return nil
}

// unreadBody announces a body that never comes, where it is not wanted.
func (h *hostile) unreadBody(ctx context.Context) error {
	conn, done, err := h.dial(ctx, patience)
	if err != nil {
		return nil //nolint:nilerr // no connection: nothing to hold
	}
	defer done()
	request := h.pick(head("POST", "/nowhere", 1_000_000), head("GET", "/ping", 100_000), head("PUT", "/generate", 5000), head("POST", "/generate", 1<<40),
		strings.Replace(head("POST", "/generate", 5000), "application/json", "text/plain", 1))
	fmt.Fprint(conn, request)
	return h.await(ctx, conn)
}

// await reads the status that a bare connection gets.
func (h *hostile) await(ctx context.Context, conn net.Conn) error {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		h.answered(resp.StatusCode)
		resp.Body.Close()
	}
	if ctx.Err() == nil && errors.Is(err, net.ErrClosed) { // by us, after patience
		return errSilent
	}
	return nil //nolint:nilerr // the server may close it without a word
}

// halfRequest stops in the middle of the head, or of the body.
func (h *hostile) halfRequest(ctx context.Context) error {
	conn, done, err := h.dial(ctx, time.Duration(h.rand.Int64N(int64(h.hold))))
	if err != nil {
		return nil //nolint:nilerr // no connection: nothing to hold
	}
	defer done()
	whole := head("POST", "/generate", 1000) + `{"inputs":"`
	fmt.Fprint(conn, whole[:1+h.rand.IntN(len(whole))])
	io.Copy(io.Discard, conn) //nolint:errcheck // until either side closes
	return nil
}

// disconnect leaves in the middle of what it asked for.
func (h *hostile) disconnect(ctx context.Context) error {
	for range 20 {
		conn, done, err := h.dial(ctx, h.hold)
		if err != nil {
			return nil //nolint:nilerr // no connection: nothing to leave
		}
		body := `{"inputs":"What is Millrace?","stream":true,"parameters":{"max_new_tokens":500,"do_sample":true}}`
		fmt.Fprint(conn, head("POST", h.pick("/", "/generate", "/generate_stream", "/invocations"), len(body))+body[:h.rand.IntN(len(body)+1)])
		time.Sleep(time.Duration(h.rand.IntN(50)) * time.Millisecond)
		if h.rand.IntN(2) == 0 {
			conn.(*net.TCPConn).SetLinger(0) //nolint:errcheck // a reset instead of an end
		}
		done()
	}
	return nil
}

// cancelled opens streams of HTTP/2 and resets them at once.
func (h *hostile) cancelled(ctx context.Context) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		open []net.Conn
		over bool
	)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			open = append(open, conn)
			if over {
				conn.Close()
			}
		}
		return conn, err
	}}
	for range 100 {
		leave, cancel := context.WithTimeout(ctx, time.Duration(h.rand.IntN(20))*time.Millisecond)
		wg.Go(func() {
			defer cancel()
			req, err := http.NewRequestWithContext(leave, http.MethodPost, h.url+"/generate_stream", strings.NewReader(`{"inputs":"x","parameters":{"max_new_tokens":200}}`))
			if err != nil {
				return
			}
			req.Header.Set("Content-Type", "application/json")
			if resp, err := transport.RoundTrip(req); err == nil {
				io.Copy(io.Discard, resp.Body) //nolint:errcheck // it is cancelled
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
	// The transport would keep those whose requests were cancelled too early, and
	// still opens some.
	mu.Lock()
	defer mu.Unlock()
	over = true
	for _, conn := range open {
		conn.Close()
	}
	return nil
}

// socket sends a WebSocket what it does not expect, and leaves it open or not.
func (h *hostile) socket(ctx context.Context) error {
	timed, cancel := context.WithTimeout(ctx, h.hold)
	defer cancel()
	conn, _, err := websocket.Dial(timed, strings.Replace(h.url, "http", "ws", 1)+"/invocations-bidirectional-stream", nil) //nolint:bodyclose // there is none
	if err != nil {
		return nil //nolint:nilerr // refused: nothing to abuse
	}
	defer conn.CloseNow() //nolint:errcheck // it is given up
	for range 1 + h.rand.IntN(50) {
		message := h.pick(`{`, `null`, strings.Repeat("x", 100_000), `{"inputs":"x","stream":true,"parameters":{"max_new_tokens":300}}`, `{"id":"1","body":{"inputs":"x"}}`)
		kind := websocket.MessageText
		if h.rand.IntN(4) == 0 {
			kind = websocket.MessageBinary
		}
		if conn.Write(timed, kind, []byte(message)) != nil {
			break
		}
	}
	if h.rand.IntN(2) == 0 {
		conn.Close(websocket.StatusNormalClosure, "") //nolint:errcheck // the other way is to break off
	}
	return nil
}
