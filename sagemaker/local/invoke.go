package local

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"time"
)

// reply is a container's whole answer.
type reply struct {
	status  int // 0: none came
	header  http.Header
	body    []byte
	partial bool  // the body is longer than allowed, or its connection broke
	err     error // why status is 0
}

// invoke is InvokeEndpoint.
func (e *Endpoint) invoke(w http.ResponseWriter, r *http.Request) {
	c, v := e.admit(w, r, opInvoke)
	if c == nil {
		return
	}
	defer e.metrics.leave()
	rep, f := e.answer(v, c, e.cfg.Limits.Unary)
	if f != nil {
		e.refuse(w, c, f)
		return
	}
	h := w.Header()
	if v := rep.header.Get("Content-Type"); v != "" {
		h.Set("Content-Type", v)
	} else {
		h["Content-Type"] = nil // net/http would guess one
	}
	e.passAttributes(h, rep.header)
	opened, closed := rep.header.Get(headerNewSession), rep.header.Get(headerClosed)
	if _, _, ok := parseNewSession(opened); ok {
		h.Set(headerNewSession, opened)
	} else if opened != "" {
		e.cfg.Log.Warn("header dropped", "header", headerNewSession, "value", opened, "expected", "ID; Expires=yyyy-mm-ddThh:mm:ssZ")
	}
	if closed != "" {
		h.Set(headerClosed, closed)
	}
	v.noteSessions(opened, closed)
	e.logCall(c, http.StatusOK, "")
	_, _ = w.Write(rep.body)
}

// admit checks a request and finds an instance for it. If it returns no call
// the caller has had its answer; otherwise the request counts as running until
// metrics.leave.
func (e *Endpoint) admit(w http.ResponseWriter, r *http.Request, op operation) (*call, *invocation) {
	c, f := e.parse(r, op)
	if f != nil {
		e.refuse(w, &call{op: op}, f)
		return nil, nil
	}
	v, f := e.fleet.pick(c)
	if f != nil {
		e.refuse(w, c, f)
		return nil, nil
	}
	e.metrics.enter()
	return c, v
}

// refuse answers with an error.
func (e *Endpoint) refuse(w http.ResponseWriter, c *call, f *fault) {
	if c.op == opDuplex {
		f = f.ofHTTP2()
	}
	e.metrics.fault(f)
	e.logCall(c, f.status, f.message)
	f.write(w)
}

func (e *Endpoint) logCall(c *call, status int, message string) {
	args := []any{"status", status}
	if c.id != "" {
		args = append(args, "inference_id", c.id)
	}
	if message != "" {
		args = append(args, "message", message)
	}
	e.cfg.Log.Info([...]string{"invocation", "stream", "asynchronous invocation", "chat completion", "bidirectional stream"}[c.op], args...)
}

// answer lets the container work on a call for at most limit.
//
// The container is not told when the time is up, nor when the caller leaves:
// as on the platform it goes on, and counts as busy, until it has answered.
func (e *Endpoint) answer(v *invocation, c *call, limit time.Duration) (*reply, *fault) {
	replies := make(chan *reply, 1)
	go func() {
		rep := v.exchange(c)
		if rep.status == 0 || rep.partial {
			v.done(broken)
		} else {
			v.done(complete)
		}
		replies <- rep
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil, e.cfg.timedOut(c.who())
	case rep := <-replies:
		return rep, e.cfg.judge(c, rep)
	}
}

// exchange sends a call to the container and reads its answer.
func (v *invocation) exchange(c *call) *reply {
	req, err := v.in.request(v.in.ctx, http.MethodPost, "/invocations", c.header, bytes.NewReader(c.body))
	if err != nil {
		return &reply{err: err}
	}
	resp, err := v.in.transport.RoundTrip(req)
	if err != nil {
		return &reply{err: err}
	}
	defer resp.Body.Close()
	limit := v.fleet.cfg.Limits.Body
	if c.op == opAsync {
		limit = asyncLimit
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	return &reply{
		status:  resp.StatusCode,
		header:  resp.Header,
		body:    body,
		partial: err != nil || int64(len(body)) > limit,
	}
}

// judge turns all but a good answer into a fault.
func (cfg *Config) judge(c *call, rep *reply) *fault {
	switch {
	case rep.status == 0:
		return cfg.crashed(c.who(), rep.err)
	case rep.partial:
		f := cfg.modelError(c.who(), rep.status, "")
		f.message = fmt.Sprintf("Received server error (%d) from %s and could not load the entire response body.", rep.status, c.who())
		return f
	case rep.status < 200 || rep.status > 299:
		return cfg.modelError(c.who(), rep.status, string(rep.body))
	}
	return nil
}

// passAttributes writes the response headers that unary answers and streams
// have in common.
func (e *Endpoint) passAttributes(to, from http.Header) {
	to.Set(headerInvoked, e.cfg.Variant)
	switch v := from.Get(headerAttributes); {
	case v == "":
	case len(v) > 1024 || !asciiPattern.MatchString(v):
		e.cfg.Log.Warn("header dropped", "header", headerAttributes, "bytes", len(v), "expected", "at most 1024 visible ASCII characters")
	default:
		to.Set(headerAttributes, v)
	}
}
