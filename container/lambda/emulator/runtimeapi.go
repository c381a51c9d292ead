package emulator

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
)

const apiVersion = "/2018-06-01/runtime"

// routes are the six routes of the Runtime API.
func (e *environment) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+apiVersion+"/invocation/next", e.next)
	mux.HandleFunc("POST "+apiVersion+"/invocation/{id}/response", e.response)
	mux.HandleFunc("POST "+apiVersion+"/invocation/{id}/error", e.error)
	mux.HandleFunc("POST "+apiVersion+"/init/error", e.initFailed)
	mux.HandleFunc("GET "+apiVersion+"/restore/next", e.restore)
	mux.HandleFunc("POST "+apiVersion+"/restore/error", e.restoreFailed)
	return mux
}

// next hands out an event as soon as there is one.
func (e *environment) next(w http.ResponseWriter, r *http.Request) {
	if e.opt.SnapStart && !isClosed(e.restored) {
		const message = "the function asks for an event before /restore/next: no snapshot can be taken of it"
		select {
		case e.initError <- &failure{Type: "Runtime.NoSnapshot", Message: message}:
		default: // it asks again
		}
		refuse(w, http.StatusForbidden, "InvalidStateTransition", message)
		return
	}
	e.ask()
	select {
	case inv := <-e.events:
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(inv.deadline.UnixMilli()))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", e.opt.arn())
		h.Set("Lambda-Runtime-Trace-Id", fmt.Sprintf("Root=1-%08x-%s;Sampled=0", inv.deadline.Unix(), inv.id[:8]+inv.id[9:13]+inv.id[14:18]+inv.id[19:23]+inv.id[24:28]))
		w.Write(inv.event)
	case <-r.Context().Done():
	}
}

// account is the function's, as documentation has it.
const account = "123456789012"

func (o *Options) arn() string {
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", o.Region, account, o.Function)
}

// response takes an answer, in one piece or in several.
func (e *environment) response(w http.ResponseWriter, r *http.Request) {
	inv := e.take(r.PathValue("id"))
	if inv == nil {
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID: it is unknown, or answered, or its time is over")
		return
	}
	defer e.answered(inv)
	if r.Header.Get("Lambda-Runtime-Function-Response-Mode") == "streaming" {
		e.stream(w, r, inv)
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, payloadLimit))
	var exceeded *http.MaxBytesError
	switch {
	case errors.As(err, &exceeded):
		refuseAnswer(w, inv, payloadLimit)
	case err != nil:
		inv.fail(&failure{Type: "Runtime.TruncatedResponse", Message: "Response body did not arrive: " + err.Error()})
	default:
		inv.answerAll(r.Header.Get("Content-Type"), data)
		accept(w)
	}
}

// refuseAnswer ends an event whose answer is larger than limit.
func refuseAnswer(w http.ResponseWriter, inv *invocation, limit int) {
	f := tooLarge(limit)
	inv.fail(f)
	refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", f.Message)
}

// stream passes pieces on as they come. The function is not told when the caller
// has left.
func (e *environment) stream(w http.ResponseWriter, r *http.Request, inv *invocation) {
	pipe := inv.answer(r.Header.Get("Content-Type"))
	gone, sent := false, 0
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Body.Read(buf)
		if sent += n; sent > e.opt.longest {
			refuseAnswer(w, inv, e.opt.longest)
			return
		}
		if n > 0 && !gone {
			_, failed := pipe.Write(buf[:n])
			gone = failed != nil
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			inv.fail(&failure{Type: "Runtime.TruncatedResponse", Message: "Response stream broke off: " + err.Error()})
			return
		}
	}
	if kind := r.Trailer.Get("Lambda-Runtime-Function-Error-Type"); kind != "" {
		data, err := base64.StdEncoding.DecodeString(r.Trailer.Get("Lambda-Runtime-Function-Error-Body"))
		f := parseFailure(data)
		if err != nil {
			f = &failure{Message: "the body of the error after the stream is not base64"}
		}
		f.Type = keptType(kind)
		inv.fail(f)
	} else {
		pipe.Close()
		inv.end()
	}
	accept(w)
}

// error handles the report that an event has failed.
func (e *environment) error(w http.ResponseWriter, r *http.Request) {
	inv := e.take(r.PathValue("id"))
	if inv == nil {
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID: it is unknown, or answered, or its time is over")
		return
	}
	defer e.answered(inv)
	inv.fail(readFailure(w, r))
	accept(w)
}

// initFailed handles the report that the initialization has failed.
func (e *environment) initFailed(w http.ResponseWriter, r *http.Request) {
	if isClosed(e.first) || isClosed(e.ready) {
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "the initialization is over")
		return
	}
	e.report(w, r)
}

// restore answers in a copy of the snapshot that the request lets be taken.
func (e *environment) restore(w http.ResponseWriter, r *http.Request) {
	if !e.opt.SnapStart || isClosed(e.first) {
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "the function is not restored from a snapshot, or was before")
		return
	}
	e.readyOnce.Do(func() { close(e.ready) })
	select {
	case <-e.restored:
		w.WriteHeader(http.StatusOK)
	case <-r.Context().Done():
	}
}

// restoreFailed handles the report that a copy of the snapshot cannot be used.
func (e *environment) restoreFailed(w http.ResponseWriter, r *http.Request) {
	if !isClosed(e.restored) || isClosed(e.first) {
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "no copy of a snapshot is being prepared")
		return
	}
	e.report(w, r)
}

// report takes a failure before the first event.
func (e *environment) report(w http.ResponseWriter, r *http.Request) {
	select {
	case e.initError <- readFailure(w, r):
	default: // told twice
	}
	accept(w)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func readFailure(w http.ResponseWriter, r *http.Request) *failure {
	const most = 256 << 10
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	f := parseFailure(data)
	if err != nil {
		f = &failure{Message: "the error does not arrive: " + err.Error()}
	}
	f.Type = keptType(r.Header.Get("Lambda-Runtime-Function-Error-Type"))
	return f
}

// errorType matches the error types that Lambda keeps, as its runtime interface
// emulator does.
var errorType = regexp.MustCompile(`^(Runtime|Function)\.[A-Z][a-zA-Z]+$`)

// keptType is what Lambda makes of the type of an error that a function reports.
func keptType(kind string) string {
	if errorType.MatchString(kind) {
		return kind
	}
	return "Runtime.Unknown"
}

func accept(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	io.WriteString(w, `{"status":"OK"}`) //nolint:errcheck // no one waits for it
}

func refuse(w http.ResponseWriter, status int, kind, message string) {
	writeJSON(w, status, struct {
		Message string `json:"errorMessage"`
		Type    string `json:"errorType"`
	}{message, kind})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(data)
}
