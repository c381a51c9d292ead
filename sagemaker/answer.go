package sagemaker

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/millrace-ai/millrace/sagemaker/sse"
)

// answer takes what the API answers to a request that was made in this
// process. It is an http.ResponseWriter of one goroutine.
type answer struct {
	// event takes the data of each event of a stream; nil: a stream is refused.
	event func(data []byte) error

	header   http.Header
	status   int // 0: nothing was answered, the request's context has ended
	body     []byte
	streamed bool
	events   sse.Events
}

// errStream ends the generation of a stream that nobody can take.
var errStream = errors.New("a stream is not possible here")

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status, a.streamed = status, isEvents(a.Header())
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case !a.streamed:
		a.body = append(a.body, b...)
		return len(b), nil
	case a.event == nil:
		return 0, errStream
	}
	if err := feed(&a.events, b, a.event); err != nil {
		return 0, err
	}
	return len(b), nil
}

// serve runs h for r and takes its answer; a panic is the answer 500.
func (a *answer) serve(h http.Handler, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			a.status, a.streamed = http.StatusInternalServerError, false
			a.body = []byte(`{"error":"Internal error","error_type":"internal"}`)
		}
	}()
	h.ServeHTTP(a, r)
}

// setBody gives r a body in memory.
func setBody(r *http.Request, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
}

// writeBody answers with a complete body.
func writeBody(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body) //nolint:errcheck // the client is gone; no one is left to tell
}
