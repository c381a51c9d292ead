package sagemaker

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/millrace-ai/millrace/internal/sse"
)

// answer takes what the API answers to a request that was made in this
// process. It is an http.ResponseWriter of one goroutine.
type answer struct {
	api API // that answers
	// event takes the data of each event of a stream; nil: a stream is refused.
	event func(data []byte) error

	header   http.Header
	status   int // 0: nothing was answered, the request's context has ended
	body     []byte
	held     int64 // bytes of the API's memory, for body and for what is made of it
	full     bool  // there was no memory for it
	streamed bool
	events   sse.Events
}

// errStream ends the generation of a stream that nobody can take.
var errStream = errors.New("a stream is not possible here")

// errFull ends an answer that there is no memory for.
var errFull = errors.New("there is no memory for the answer")

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
		n := 2 * int64(len(b))
		if !a.api.Hold(n) {
			a.full = true
			return 0, errFull
		}
		a.held += n
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

// serve has the API answer r; a panic is the answer 500. The caller releases what
// is held.
func (a *answer) serve(r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			a.status, a.streamed = http.StatusInternalServerError, false
			a.body = []byte(`{"error":"Internal error","error_type":"internal"}`)
		}
	}()
	a.api.ServeHTTP(a, r)
	if a.full {
		a.status = http.StatusTooManyRequests
		a.body = []byte(`{"error":"Model is overloaded","error_type":"overloaded"}`)
	}
}

// release gives back what is held for the answer.
func (a *answer) release() { a.api.Release(a.held) }

// readHeld reads all of r and holds the memory for it as it comes. An error
// leaves nothing held.
func readHeld(api API, r io.Reader) (data []byte, err error) {
	data = make([]byte, 0, 4<<10)
	held := int64(0)
	defer func() {
		if err != nil {
			api.Release(held)
		}
	}()
	for {
		n, err := r.Read(data[len(data):cap(data)])
		if !api.Hold(int64(n)) {
			return nil, errFull
		}
		held += int64(n)
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, nil
		case err != nil:
			return nil, err
		case len(data) == cap(data):
			data = append(make([]byte, 0, 2*cap(data)), data...)
		}
	}
}

// setBody gives r a body in memory.
func setBody(r *http.Request, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
}
