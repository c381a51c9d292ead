package sagemaker

import (
	"net/http"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/internal/web"
)

const invocationsPath = "/invocations"

// Headers of the platform, as net/http spells them.
const (
	headerAttributes    = "X-Amzn-Sagemaker-Custom-Attributes"
	headerAdapter       = "X-Amzn-Sagemaker-Adapter-Identifier"
	headerTargetModel   = "X-Amzn-Sagemaker-Target-Model"
	headerSession       = "X-Amzn-Sagemaker-Session-Id"
	headerNewSession    = "X-Amzn-Sagemaker-New-Session-Id"
	headerClosedSession = "X-Amzn-Sagemaker-Closed-Session-Id"
)

// post serves a POST: mostly the API does, with the request and the answer
// changed as the contract wants it. What is answered here goes through a route
// of the API's kind, so that a request without its key learns nothing.
func (h *Hosting) post(w http.ResponseWriter, r *http.Request) {
	in := invocation{w: w, r: r}
	serve, err := h.prepare(&in)
	switch {
	case err != nil:
		serve = func(http.ResponseWriter, *http.Request) error { return err }
	case serve == nil:
		h.api.ServeHTTP(in.w, in.r)
		return
	}
	h.api.Route(handler.Methods{http.MethodPost: serve}).ServeHTTP(w, r)
}

// invocation is a POST that is being passed on to the API.
type invocation struct {
	w http.ResponseWriter
	r *http.Request
}

// serveFunc answers a request itself.
type serveFunc func(w http.ResponseWriter, r *http.Request) error

// prepare makes in what the API shall see. If it is not the API that answers,
// it returns what does.
func (h *Hosting) prepare(in *invocation) (serve serveFunc, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = web.Panicked(p)
		}
	}()
	if in.r, err = forAdapter(in.r); err != nil {
		return nil, err
	}
	in.r = h.withDeadlines(in.r)
	h.answerAs(in)
	if in.r.URL.Path != invocationsPath {
		return nil, nil
	}
	if serve, err = h.session(in); serve != nil || err != nil {
		return serve, err
	}
	takeForJSON(in)
	batch := h.mayBeBatch(in.r.Header.Get("Content-Type"))
	if err := reroute(in); err != nil {
		return nil, err
	}
	if batch {
		serve = func(http.ResponseWriter, *http.Request) error { return h.batch(in) }
	}
	if in.r.Header.Get(headerSession) == newSessionID {
		if serve == nil {
			serve = func(http.ResponseWriter, *http.Request) error { h.api.ServeHTTP(in.w, in.r); return nil }
		}
		serve = h.beginSession(in, serve)
	}
	return serve, nil
}

// takeForJSON gives a body of no certain type that of JSON: SDKs of AWS send no
// type, or that of mere bytes, for a caller that names none.
func takeForJSON(in *invocation) {
	if media := mediaType(in.r.Header.Get("Content-Type")); media == "" || media == "application/octet-stream" {
		r := *in.r
		r.Header = in.r.Header.Clone()
		r.Header.Set("Content-Type", "application/json")
		in.r = &r
	}
}

// withDeadlines says when the generation of a request that comes now is cut.
func (h *Hosting) withDeadlines(r *http.Request) *http.Request {
	if h.opt.AnswerDeadline == 0 && h.opt.StreamDeadline == 0 {
		return r
	}
	var d handler.Deadlines
	now := time.Now()
	if h.opt.AnswerDeadline > 0 {
		d.Answer = now.Add(h.opt.AnswerDeadline)
	}
	if h.opt.StreamDeadline > 0 {
		d.Stream = now.Add(h.opt.StreamDeadline)
	}
	return r.WithContext(handler.WithDeadlines(r.Context(), d))
}

// answerAs makes the answer what the client accepts and the operator wants.
func (h *Hosting) answerAs(in *invocation) {
	lines := acceptsLines(in.r.Header["Accept"])
	if lines || h.opt.Usage {
		in.w = &presenter{ResponseWriter: in.w, lines: lines, usage: h.opt.Usage}
	}
}

// mediaType is a content type without its parameters, "" if there is none.
func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// isLines reports whether a media type is that of JSON values, one a line.
func isLines(media string) bool {
	switch media {
	case "application/jsonlines", "application/x-jsonlines", "application/jsonl",
		"application/ndjson", "application/x-ndjson":
		return true
	}
	return false
}

const linesType = "application/jsonlines"

// acceptsLines reports whether a client wants the events of a stream as lines:
// it names lines, and not events as well.
func acceptsLines(accept []string) (lines bool) {
	for _, list := range accept {
		for item := range strings.SplitSeq(list, ",") {
			media := mediaType(item)
			if media == "text/event-stream" {
				return false
			}
			lines = lines || isLines(media)
		}
	}
	return lines
}

// presenter writes an answer of the API as the client and the operator want
// it. Everything else of the writer below is reached through Unwrap.
type presenter struct {
	http.ResponseWriter
	lines, usage bool        // what is wanted
	session      string      // that an answer with the status 200 names as new
	status       int         // 0: the answer has not begun
	events       *lineWriter // not nil: the answer's events become lines
}

// Unwrap is for http.ResponseController.
func (p *presenter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (p *presenter) WriteHeader(status int) {
	if p.status == 0 {
		p.status = status
		header := p.Header()
		if p.lines && isEvents(header) {
			header["Content-Type"] = []string{linesType}
			p.events = &lineWriter{to: p.ResponseWriter}
		}
		if p.usage {
			setUsage(header)
		}
		if p.session != "" && status == http.StatusOK {
			header[headerNewSession] = []string{p.session}
		}
	}
	p.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (p *presenter) Write(b []byte) (int, error) {
	if p.status == 0 {
		p.WriteHeader(http.StatusOK)
	}
	if p.events != nil {
		return p.events.Write(b)
	}
	return p.ResponseWriter.Write(b)
}

// isEvents reports whether an answer is a stream of events.
func isEvents(header http.Header) bool {
	return mediaType(header.Get("Content-Type")) == "text/event-stream"
}
