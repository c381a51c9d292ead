package handler

import (
	"io"
	"net/http"
	"time"

	"github.com/millrace-ai/millrace/internal/web"
)

const (
	// A body that is not read when the answer begins is one that is here
	// already, of up to smallBody bytes, or the connection closes after the
	// answer. Until the client has taken that, which one that is still sending
	// may do late, what it sends is read and dropped.
	smallBody   = 256 << 10
	aMoment     = 10 * time.Millisecond // for what is on its way
	lingerTime  = 2 * time.Second
	lingerBytes = 32 << 20
)

// AnswerEarly returns a handler that serves as h does and whose answers leave
// at once, also those to a request whose body h has not read. By itself net/http
// waits for such a body before it answers, without any limit of time.
//
// A body has web.BodyPatience to arrive. After one in chunks the connection closes:
// net/http does not tell whether there was a Content-Length as well, after which
// it has to (RFC 9112, 6.1).
func AnswerEarly(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			h.ServeHTTP(w, r) // a stream of HTTP/2 closes by itself
			return
		}
		conn := http.NewResponseController(w)
		bad, closes := nextHead(r)
		if bad || closes {
			w.Header().Set("Connection", "close")
		}
		if bad {
			web.WriteJSON(w, http.StatusBadRequest, appendError(nil, failure(0, "bad_request", "Each line of a request's head must end with CR LF and be complete")))
			conn.SetReadDeadline(time.Now().Add(lingerTime)) //nolint:errcheck // not every writer has deadlines
			return
		}
		if r.ContentLength == 0 {
			conn.SetReadDeadline(time.Time{}) //nolint:errcheck // not every writer has deadlines
			h.ServeHTTP(w, r)
			return
		}
		conn.SetReadDeadline(time.Now().Add(web.BodyPatience)) //nolint:errcheck // as above
		body := &watchedBody{ReadCloser: r.Body}
		early := &earlyWriter{ResponseWriter: w, conn: conn, r: r, body: body}
		watched := *r
		watched.Body = body
		h.ServeHTTP(early, &watched)
		early.linger()
	})
}

// watchedBody knows whether it was read to its end.
type watchedBody struct {
	io.ReadCloser
	ended bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}

// earlyWriter decides what becomes of the connection when the answer begins.
type earlyWriter struct {
	http.ResponseWriter
	conn  *http.ResponseController
	r     *http.Request // as it came
	body  *watchedBody
	wrote bool
}

// Unwrap is for http.ResponseController.
func (w *earlyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *earlyWriter) WriteHeader(status int) {
	if !w.wrote {
		w.wrote = true
		if w.r.ContentLength < 0 || !w.arrived() {
			w.Header().Set("Connection", "close")
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *earlyWriter) Write(b []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController.
func (w *earlyWriter) FlushError() error {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	return w.conn.Flush()
}

// arrived reports whether all of the body has been read, and reads it if it is
// small and there.
func (w *earlyWriter) arrived() bool {
	if w.body.ended || w.awaitsContinue() || w.r.ContentLength > smallBody {
		return w.body.ended
	}
	w.conn.SetReadDeadline(time.Now().Add(aMoment)) //nolint:errcheck // then it may wait
	io.Copy(io.Discard, w.body)                     //nolint:errcheck // ended says all
	if w.body.ended {
		w.conn.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
	}
	return w.body.ended
}

// awaitsContinue reports whether the client sends its body only when it is
// asked to, which reading it would do.
func (w *earlyWriter) awaitsContinue() bool { return w.r.Header.Get("Expect") != "" }

// linger drops what a client still sends after the answer: a connection that is
// closed on unread bytes is reset, and the answer is lost to the client.
func (w *earlyWriter) linger() {
	if w.body.ended {
		return
	}
	w.conn.SetReadDeadline(time.Now().Add(lingerTime)) //nolint:errcheck // as in arrived
	if w.wrote && !w.awaitsContinue() && w.conn.Flush() == nil {
		io.CopyN(io.Discard, w.body, lingerBytes) //nolint:errcheck // there is no one to tell
	}
}
