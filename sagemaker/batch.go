package sagemaker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/internal/web"
)

const mostLines = 100_000

// mayBeBatch reports whether a body of this content type may hold several
// requests.
func (h *Hosting) mayBeBatch(contentType string) bool {
	media := mediaType(contentType)
	return isLines(media) || h.opt.Batch && media == "application/json"
}

// batch serves the lines of a body as requests of their own, as many at once
// as are computed together, and answers with one line for each, in their
// order. A line that fails has its error on its line. The status is 200 unless
//
//   - all lines fail: it is the first one's, and so is the body;
//   - a line meets a server that is full, loading or ending (429, 503): then it
//     is that, because the whole body can be sent again, and a transform job
//     does so by itself.
//
// A body of one line, or one JSON value in any number of lines unless the
// content type says lines, is an ordinary request.
func (h *Hosting) batch(in *invocation) error {
	body, free, err := h.readBatch(in)
	defer free()
	if err != nil {
		return err
	}
	var lines [][]byte
	if isLines(mediaType(in.r.Header.Get("Content-Type"))) || !json.Valid(body) {
		lines = splitLines(body)
	}
	header := in.r.Header.Clone()
	header.Set("Content-Type", "application/json")
	if len(lines) <= 1 {
		h.api.ServeHTTP(in.w, withBody(in.r.Context(), in.r, header, body))
		return nil
	}
	if len(lines) > mostLines {
		return failure(http.StatusRequestEntityTooLarge, "payload_too_large",
			"A body may have at most %d lines, this one has %d: make the batches smaller (MaxPayloadInMB)", mostLines, len(lines))
	}

	ctx, cancel := context.WithCancel(in.r.Context())
	defer cancel()
	answers := make([]*answer, len(lines)) // nil: not served, because another must be repeated
	var (
		workers sync.WaitGroup
		next    atomic.Int64
		again   atomic.Pointer[answer] // one that must be repeated
	)
	defer func() {
		for _, a := range answers {
			if a != nil {
				a.release()
			}
		}
	}()
	for range min(len(lines), h.opt.Slots) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(lines)); i = next.Add(1) - 1 {
				select {
				case h.lanes <- struct{}{}:
				case <-ctx.Done():
					return
				}
				a := &answer{api: h.api}
				if ctx.Err() == nil { // a lane may have come at the same moment
					a.serve(withBody(ctx, in.r, header, lines[i]))
				}
				<-h.lanes
				if a.streamed {
					a.refuseStream()
				}
				answers[i] = a
				if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
					again.CompareAndSwap(nil, a)
					cancel()
				}
			}
		})
	}
	workers.Wait()
	http.NewResponseController(in.w).SetWriteDeadline(time.Now().Add(web.WritePatience)) //nolint:errcheck // not every writer has deadlines
	if a := again.Load(); a != nil {
		web.WriteJSON(in.w, a.status, a.body)
		return nil
	}
	if in.r.Context().Err() != nil {
		return nil // the client is gone, and has no use for an answer
	}
	writeAnswers(in.w, answers)
	return nil
}

// writeAnswers answers with one line for each answer, unless all have failed.
func writeAnswers(w http.ResponseWriter, answers []*answer) {
	var out []byte
	failed := 0
	for i, a := range answers {
		if i > 0 {
			out = append(out, '\n')
		}
		out = append(out, a.body...)
		if a.status != http.StatusOK {
			failed++
		}
	}
	if failed == len(answers) {
		web.WriteJSON(w, answers[0].status, answers[0].body)
		return
	}
	web.Write(w, http.StatusOK, linesType, out)
}

// refuseStream is the answer to a line that asks for a stream.
func (a *answer) refuseStream() {
	a.status, a.streamed = http.StatusUnprocessableEntity, false
	a.body = []byte(`{"error":"stream: a line of a batch has one line for its answer; leave stream out","error_type":"validation"}`)
}

// readBatch reads a whole body, and holds the memory for it. free gives that
// back.
func (h *Hosting) readBatch(in *invocation) (body []byte, free func(), err error) {
	free = func() { h.api.Release(int64(len(body))) }
	limit := h.opt.PayloadLimit
	if in.r.ContentLength > limit {
		return nil, free, tooLarge(limit)
	}
	conn := http.NewResponseController(in.w)
	conn.SetReadDeadline(time.Now().Add(web.BodyPatience)) //nolint:errcheck // not every writer has deadlines
	body, err = readHeld(h.api, http.MaxBytesReader(in.w, in.r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, free, tooLarge(limit)
	case errors.Is(err, errFull):
		return nil, free, overloaded()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, free, failure(http.StatusRequestTimeout, "request_timeout", "The request body did not arrive in time")
	case err != nil:
		return nil, free, badRequest("Failed to buffer the request body")
	}
	conn.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
	return body, free, nil
}

// overloaded is a request that there is no memory for now.
func overloaded() *handler.Error {
	return failure(http.StatusTooManyRequests, "overloaded", "Model is overloaded")
}

func tooLarge(limit int64) error {
	return failure(http.StatusRequestEntityTooLarge, "payload_too_large",
		"Failed to buffer the request body: length limit exceeded (%d bytes, --payload-limit)", limit)
}

// splitLines returns the lines of body that are not blank, without the white
// space around them. They share its memory.
func splitLines(body []byte) (lines [][]byte) {
	for line := range bytes.SplitSeq(body, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
	}
	return lines
}

// withBody returns r with another context, other headers and a body in memory.
func withBody(ctx context.Context, r *http.Request, header http.Header, body []byte) *http.Request {
	out := r.WithContext(ctx)
	out.Header = header
	setBody(out, body)
	return out
}
