package lambda

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-lambda-go/events"
)

// streamed passes an answer on as it is written. The request that carries it
// begins with the answer's status, so that until then an invocation can still
// fail.
type streamed struct {
	head
	ctx   context.Context // of the request that carries the answer
	api   *api
	id    string
	first []byte // what goes in front of the next write: status and headers

	refusal bytes.Buffer // the body of a direct invocation's error

	pipe    *io.PipeWriter // nil: not begun
	trailer http.Header
	sent    chan error // the request's result
	broken  []byte     // the event of an error that ended the stream
}

func newStreamed(ctx context.Context, a *api, id string, s source) *streamed {
	return &streamed{head: newHead(s), ctx: ctx, api: a, id: id}
}

// refused reports whether the answer is an error of a direct invocation, which
// has no status: it is to be a failure of the function, so nothing is sent.
func (s *streamed) refused() bool {
	return s.source == direct && s.status >= http.StatusBadRequest
}

// WriteHeader begins the answer.
func (s *streamed) WriteHeader(status int) {
	s.head.WriteHeader(status)
	if s.pipe != nil || s.status == 0 || s.refused() {
		return
	}
	contentType := s.header.Get("Content-Type")
	if s.source != direct {
		contentType = preludeType
		fields := s.fields()
		cookies := takeCookies(fields)
		head := events.LambdaFunctionURLStreamingResponse{StatusCode: s.status, Headers: joined(fields), Cookies: cookies}
		s.first, _ = io.ReadAll(&head) // without a body, which is never an error
	}
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	var body *io.PipeReader
	body, s.pipe = io.Pipe()
	s.trailer = http.Header{headerErrorType: nil, headerErrorBody: nil}
	s.sent = make(chan error, 1)
	go func() {
		err := s.api.stream(s.ctx, s.id, contentType, body, s.trailer)
		// The platform takes no more: the handler must not wait for it.
		body.CloseWithError(io.ErrClosedPipe)
		s.sent <- err
	}()
}

// Write sends p at once, together with the head if that is still here.
func (s *streamed) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	if s.refused() {
		return s.refusal.Write(p)
	}
	if bytes.HasPrefix(p, []byte(`data: {"error"`)) {
		s.broken = bytes.Clone(p)
	}
	return len(p), s.send(p)
}

func (s *streamed) send(p []byte) error {
	if len(s.first) > 0 {
		p = append(s.first, p...)
		s.first = nil
	}
	if len(p) == 0 {
		return nil // an empty chunk would end the answer
	}
	_, err := s.pipe.Write(p)
	return err
}

// Flush sends the head if nothing has been written yet.
func (s *streamed) Flush() {
	s.WriteHeader(http.StatusOK)
	if !s.refused() {
		s.send(nil) //nolint:errcheck // the next write will say so
	}
}

// begun reports whether the platform has got a part of the answer.
func (s *streamed) begun() bool { return s.pipe != nil }

// finish ends an answer that has begun, with f if that broke it off.
func (s *streamed) finish(f *failure) error {
	s.send(nil) //nolint:errcheck // the request's result tells more
	if f != nil {
		s.pipe.Write(fmt.Appendf(nil, "data: %s\n\n", errorBody(f.Type, f.Message))) //nolint:errcheck // as above
	} else if s.broken != nil {
		line, _, _ := bytes.Cut(bytes.TrimPrefix(s.broken, []byte("data: ")), []byte("\n"))
		f = errorOf(line, s.status)
	}
	if f != nil {
		s.trailer[headerErrorType] = []string{f.platformType()}
		s.trailer[headerErrorBody] = []string{base64.StdEncoding.EncodeToString(f.marshal())}
	}
	s.pipe.Close()
	return <-s.sent
}
