package handler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/chat"
	"github.com/millrace-ai/millrace/internal/web"
)

// Error is an answer that is not 200. Every error a client sees is one.
type Error struct {
	Status int
	Type   string // error_type of the body
	Msg    string // error of the body
	Err    error  // the cause, for the log
	label  string // err label of tgi_request_failure, "" if not counted there
	param  string // the field at fault, as it was sent; "" if it is not one
	code   string // what OpenAI's clients look for in code, "" for Type
}

func (e *Error) Error() string { return e.Msg }
func (e *Error) Unwrap() error { return e.Err }

// maxErrorBytes bounds the message, so that the whole body stays below
// SageMaker's 1.5 KB for errors of a model, even if each byte is escaped.
const maxErrorBytes = 1000

func failure(status int, kind, format string, args ...any) *Error {
	return &Error{Status: status, Type: kind, Msg: fmt.Sprintf(format, args...)}
}

// invalid is a request whose values cannot be served: TGI's validation error.
// A message that begins with a name in back quotes is about that field.
func invalid(format string, args ...any) *Error {
	e := failure(http.StatusUnprocessableEntity, "validation", "Input validation error: "+format, args...)
	e.label = "validation"
	if name, ok := strings.CutPrefix(e.Msg, "Input validation error: `"); ok && strings.HasPrefix(format, "`") {
		e.param, _, _ = strings.Cut(name, "`")
	}
	return e
}

// unsupported is a field that would change the answer and cannot.
func unsupported(field, reason string) *Error {
	e := invalid("`%s` %s", field, reason)
	e.code = "unsupported_parameter"
	return e
}

// within names the field whose value made err, if err does not.
func within(err error, field string) error {
	var e *Error
	if errors.As(err, &e) && e.param == "" {
		e.param = field
	}
	return err
}

func overloaded(cause error) *Error {
	e := failure(http.StatusTooManyRequests, "overloaded", "Model is overloaded")
	e.Err, e.label, e.code = cause, "overloaded", "rate_limit_exceeded"
	return e
}

func unauthorized() *Error {
	e := failure(http.StatusUnauthorized, "unauthorized", "The API key is missing or wrong: send `authorization: Bearer KEY`")
	e.code = "invalid_api_key"
	return e
}

func unavailable(format string, args ...any) *Error {
	return failure(http.StatusServiceUnavailable, "unavailable", format, args...)
}

// incomplete is a generation that ended without a last token.
func incomplete(cause error) *Error {
	e := failure(http.StatusInternalServerError, "incomplete_generation", "Incomplete generation")
	e.Err, e.label = cause, "incomplete"
	return e
}

// badBody turns an error of reading a body into TGI's two answers.
func badBody(err error) *Error {
	var e *body.Error
	switch {
	case !errors.As(err, &e):
		return internal(err)
	case e.Syntax:
		return failure(http.StatusBadRequest, "bad_request", "Failed to parse the request body as JSON: %s", e)
	}
	shape := failure(http.StatusUnprocessableEntity, "validation", "Failed to deserialize the JSON body into the target type: %s", e)
	shape.param = e.Path
	return shape
}

func internal(cause error) *Error {
	e := failure(http.StatusInternalServerError, "internal", "Internal error")
	e.Err = cause
	return e
}

// errClientGone ends a request whose client no longer listens.
var errClientGone = errors.New("client disconnected")

// asError says what a client sees of err.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var c *chat.Error
	if errors.As(err, &c) {
		return chatFailure(c)
	}
	var g *engine.Error
	if !errors.As(err, &g) {
		return internal(err)
	}
	switch g.Kind {
	case engine.Invalid:
		e = invalid("%s", g.Msg)
	case engine.Overloaded:
		e = overloaded(g)
	case engine.Failed:
		e = failure(http.StatusFailedDependency, "generation", "Request failed during generation: %s", g.Msg)
		e.label = "generation"
	case engine.Expired:
		e = failure(http.StatusGatewayTimeout, "timeout", "Request timed out: %s", g.Msg)
		e.label = "timeout"
	case engine.Stopping:
		e = unavailable("The server is shutting down")
	default:
		e = incomplete(g)
	}
	e.Err = g
	return e
}

// chatFailure is a chat that cannot be served. As in TGI the metric counts
// those that the template refuses.
func chatFailure(c *chat.Error) *Error {
	e := failure(http.StatusUnprocessableEntity, c.Type, "%s", c.Msg)
	if c.Type == "template_error" {
		e.label = "template"
	}
	return e
}

// clientGone reports whether err only says that the request's context ended.
func clientGone(ctx context.Context, err error) bool {
	if errors.Is(err, errClientGone) {
		return true
	}
	var g *engine.Error
	return ctx.Err() != nil && errors.As(err, &g) && g.Kind == engine.Cancelled
}

// text is the message, cut to maxErrorBytes.
func (e *Error) text() string {
	if len(e.Msg) <= maxErrorBytes {
		return e.Msg
	}
	n := maxErrorBytes
	for n > 0 && !utf8.RuneStart(e.Msg[n]) {
		n--
	}
	return e.Msg[:n] + "…"
}

// appendError appends the contract's JSON of e.
func appendError(dst []byte, e *Error) []byte {
	dst = append(dst, `{"error":`...)
	dst = appendString(dst, e.text())
	dst = append(dst, `,"error_type":`...)
	dst = appendString(dst, e.Type)
	return append(dst, '}')
}

// appendErrorObject appends OpenAI's JSON of e.
func appendErrorObject(dst []byte, e *Error) []byte {
	kind := "invalid_request_error"
	switch {
	case e.Status == http.StatusTooManyRequests:
		kind = "rate_limit_error"
	case e.Status >= http.StatusInternalServerError, e.Status == http.StatusFailedDependency:
		kind = "server_error"
	}
	dst = append(dst, `{"error":{"message":`...)
	dst = appendString(dst, e.text())
	dst = append(dst, `,"type":"`...)
	dst = append(dst, kind...)
	dst = append(dst, `","param":`...)
	if e.param == "" {
		dst = append(dst, "null"...)
	} else {
		dst = appendString(dst, body.Cut(e.param))
	}
	dst = append(dst, `,"code":`...)
	dst = appendString(dst, cmp.Or(e.code, e.Type))
	return append(dst, "}}"...)
}

// errorObjects reports whether errors of r are OpenAI's objects.
func (s *Server) errorObjects(r *http.Request) bool {
	return s.opt.ErrorObject && strings.HasPrefix(r.URL.Path, "/v1/")
}

// writeError answers r with e.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, e *Error) {
	if s.errorObjects(r) {
		web.WriteJSON(w, e.Status, appendErrorObject(nil, e))
		return
	}
	web.WriteJSON(w, e.Status, appendError(nil, e))
}

var jsonType = []string{"application/json"}
