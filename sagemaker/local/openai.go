package local

import (
	"encoding/base64"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

// keyPrefix begins a bearer token; what follows is a presigned request.
const keyPrefix = "sagemaker-api-key-"

// SampleKey is a bearer token that the OpenAI path accepts.
var SampleKey = keyPrefix + base64.StdEncoding.EncodeToString([]byte("https://sagemaker.us-east-1.amazonaws.com/?Action=CallWithBearerToken"))

// chat is the OpenAI-compatible path: the container's /v1/chat/completions,
// whose answer comes back as it is, an event stream as it is written.
//
// AWS documents neither the time limits nor the errors of this path; those of
// the other calls are taken. A stream that breaks closes the connection.
func (e *Endpoint) chat(w http.ResponseWriter, r *http.Request) {
	if f := checkKey(r.Header.Get("Authorization")); f != nil {
		e.refuse(w, &call{op: opOpenAI}, f)
		return
	}
	c, v := e.admit(w, r, opOpenAI)
	if c == nil {
		return
	}
	defer e.metrics.leave()
	ctx, cancel := v.context(r, e.cfg.Limits.Stream)
	defer cancel()
	unary := time.AfterFunc(e.cfg.Limits.Unary, cancel)
	resp, f := v.open(ctx, c, "/v1/chat/completions")
	if f != nil {
		if !unary.Stop() {
			f = e.cfg.timedOut(c.who())
		}
		e.refuse(w, c, f)
		return
	}
	defer resp.Body.Close()
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t == "text/event-stream" {
		unary.Stop()
	}
	defer unary.Stop()

	if v := resp.Header.Get("Content-Type"); v != "" {
		w.Header().Set("Content-Type", v)
	}
	e.passAttributes(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	err := copyFlushing(w, resp.Body)
	switch {
	case err == nil:
		v.done(complete)
		e.logCall(c, resp.StatusCode, "")
		return
	case r.Context().Err() != nil:
		v.done(cancelled)
	case ctx.Err() != nil:
		v.done(timedOut)
		e.metrics.midStreamError()
	default:
		v.done(broken)
		e.metrics.midStreamError()
	}
	e.logCall(c, resp.StatusCode, "the answer broke off: "+err.Error())
	panic(http.ErrAbortHandler) // cuts the connection
}

// copyFlushing copies each piece as it comes. It returns nil if all of from
// has been written.
func copyFlushing(w http.ResponseWriter, from io.Reader) error {
	flush := http.NewResponseController(w)
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		if _, werr := w.Write(b[:n]); werr != nil {
			return werr
		}
		if ferr := flush.Flush(); ferr != nil {
			return ferr
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// checkKey accepts any signature and any bearer token of the right form.
func checkKey(authorization string) *fault {
	denied := func(message string) *fault {
		return &fault{kind: "AccessDeniedException", status: http.StatusForbidden, message: message}
	}
	if strings.HasPrefix(authorization, "AWS4-HMAC-SHA256 ") {
		return nil
	}
	token, bearer := strings.CutPrefix(authorization, "Bearer ")
	if !bearer {
		return denied("Missing Authentication Token: expected Authorization: Bearer " + keyPrefix + "… or a signature of version 4.")
	}
	encoded, ok := strings.CutPrefix(token, keyPrefix)
	encoded = strings.TrimRight(encoded, "=")
	_, err := base64.RawStdEncoding.DecodeString(encoded)
	_, urlErr := base64.RawURLEncoding.DecodeString(encoded)
	if !ok || encoded == "" || err != nil && urlErr != nil {
		return denied("The bearer token is invalid: expected " + keyPrefix + " and a presigned request in base64.")
	}
	return nil
}
