package handler

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// Guard returns a listener whose connections, served by a server of
// NewHTTPServer, are stricter than net/http by itself: a head whose lines do
// not all end with CR LF, or go on in the next line, is answered with 400,
// because a proxy in front may see other headers in it (RFC 9112, 2.2 and 5.2).
// What net/http answers without a handler is JSON, like all errors.
func Guard(l net.Listener) net.Listener { return guard{l} }

type guard struct{ net.Listener }

// Accept implements net.Listener.
func (g guard) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &guardedConn{TCPConn: tcp}, err
	}
	return c, err
}

// guardedConn looks at what is read, from head to head. It needs no more of
// framing than Content-Length: the connection closes after any other.
type guardedConn struct {
	*net.TCPConn
	body   int64    // bytes to come before the next head
	length int64    // those after the present head
	line   [48]byte // the beginning of the present line
	n      int      // bytes of the line so far, of which line has the first ones
	last   byte     // the one before, of the line
	lines  int      // of the present head, that have ended
	off    bool     // nothing to look at any more
	heads  int64    // that have ended

	// Heads by number, from 1; 0: none.
	bad    atomic.Int64 // the first that is not as it should be
	closes atomic.Int64 // the first with Transfer-Encoding
}

type guardedConnKey struct{}

// withConn lets AnswerEarly find the connection of a request.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if g, ok := c.(*guardedConn); ok {
		return context.WithValue(ctx, guardedConnKey{}, &connHeads{conn: g})
	}
	return ctx
}

// connHeads counts the requests of a connection. They are served one by one.
type connHeads struct {
	conn   *guardedConn
	served int64
}

// nextHead reports what is known of the head of r, which is served next: that it
// is not as it should be, or that the connection closes after it.
func nextHead(r *http.Request) (bad, closes bool) {
	c, ok := r.Context().Value(guardedConnKey{}).(*connHeads)
	if !ok {
		return false, false
	}
	c.served++
	reached := func(n int64) bool { return n > 0 && c.served >= n }
	return reached(c.conn.bad.Load()), reached(c.conn.closes.Load())
}

// Read implements net.Conn.
func (c *guardedConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if !c.off {
		c.look(b[:n])
	}
	return n, err
}

func (c *guardedConn) look(b []byte) {
	for len(b) > 0 && !c.off {
		if c.body > 0 {
			n := min(c.body, int64(len(b)))
			c.body -= n
			b = b[n:]
			continue
		}
		switch end := bytes.IndexByte(b, '\n'); {
		case end < 0:
			c.add(b)
			return
		default:
			c.add(b[:end])
			c.endLine()
			b = b[end+1:]
		}
	}
}

// add adds bytes to the present line.
func (c *guardedConn) add(b []byte) {
	if len(b) == 0 {
		return
	}
	if c.n < len(c.line) {
		copy(c.line[c.n:], b)
	}
	c.n += len(b)
	c.last = b[len(b)-1]
}

// endLine looks at a line whose LF has come.
func (c *guardedConn) endLine() {
	line, crlf := c.line[:min(c.n, len(c.line))], c.n > 0 && c.last == '\r'
	empty := c.n == 0 || c.n == 1 && crlf
	c.n = 0
	if empty && c.lines == 0 {
		return // what some clients send after a body
	}
	c.lines++
	name, value, _ := bytes.Cut(line, []byte(":"))
	switch {
	case !crlf, c.lines > 1 && !empty && (line[0] == ' ' || line[0] == '\t'):
		c.bad.Store(c.heads + 1)
		c.off = true
	case empty:
		c.heads++
		c.lines, c.body, c.length = 0, c.length, 0
	case c.lines == 1:
		c.off = string(line) == "PRI * HTTP/2.0\r"
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		c.closes.CompareAndSwap(0, c.heads+1)
	case bytes.EqualFold(name, []byte("Content-Length")):
		n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 63)
		if err != nil {
			c.bad.Store(c.heads + 1)
			c.off = true
		}
		c.length = int64(n)
	}
	c.off = c.off || empty && c.closes.Load() > 0
}

// Write implements net.Conn. What net/http answers by itself has a form of its
// own; the client has two seconds more to send then, so that it sees the answer.
func (c *guardedConn) Write(b []byte) (int, error) {
	const own = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
	rest, ok := bytes.CutPrefix(b, []byte("HTTP/1.1 "))
	if !ok || rest[0] != '4' && rest[0] != '5' {
		return c.TCPConn.Write(b)
	}
	status, _, _ := bytes.Cut(rest, []byte("\r\n"))
	text, isOwn := bytes.CutPrefix(rest[len(status):], []byte(own))
	if !isOwn && !bytes.HasPrefix(status, []byte("417 ")) {
		return c.TCPConn.Write(b)
	}
	if !isOwn {
		text = status // a head alone, and no handler answers so
	}
	kind := "bad_request"
	if rest[0] == '5' {
		kind = "not_implemented"
	}
	body := appendError(nil, failure(0, kind, "%s", text))
	c.SetReadDeadline(time.Now().Add(lingerTime)) //nolint:errcheck // then the client's time is net/http's
	if _, err := fmt.Fprintf(c.TCPConn, "HTTP/1.1 %s\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body); err != nil {
		return 0, err
	}
	return len(b), nil
}
