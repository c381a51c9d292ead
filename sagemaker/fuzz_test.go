package sagemaker

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// FuzzAttributes checks that no custom attributes lead anywhere but to a
// target, in a request as a client sends it.
func FuzzAttributes(f *testing.F) {
	for _, s := range []string{"route=/info", "a=b,route=/v1/completions;c", "route==/info", "ROUTE=/generate route=/info", "route=/..%2finfo", "route=", "=", "é=;,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, attributes string) {
		in := invocation{r: httptest.NewRequest("POST", invocationsPath, strings.NewReader("{}"))}
		in.r.Header[headerAttributes] = []string{attributes}
		err := reroute(&in)
		method, ok := targets[in.r.URL.Path]
		if !ok || method != in.r.Method {
			t.Errorf("%q leads to %s %s", attributes, in.r.Method, in.r.URL.Path)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%q: an error of %d bytes", attributes, len(err.Error()))
		}
	})
}

// FuzzSession checks that no body and id of a request about sessions fails in
// any other way than the contract's, and that a body that is none passes whole.
func FuzzSession(f *testing.F) {
	f.Add("NEW_SESSION", []byte(`{"requestType":"NEW_SESSION"}`))
	f.Add("x", []byte(`{"requestType":"CLOSE","a":1}`))
	f.Add("", []byte(`{"requestType":"CLOSE"}`))
	f.Add("", []byte(`{"inputs":"requestType"}`))
	f.Fuzz(func(t *testing.T, id string, body []byte) {
		h := Wrap(newAPI(echo), Options{SessionLife: time.Minute})
		r := httptest.NewRequest("POST", invocationsPath, bytes.NewReader(body))
		r.Header[headerSession] = []string{id}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch got := (reply{w.Code, w.Result().Header, w.Body.String()}); {
		case got.status == 400:
			mustFail(t, got, 400, "")
		case got.status != 200:
			t.Errorf("%q %q: %d %s", id, body, got.status, got.body)
		case got.header.Get(headerNewSession) == "" && id != "" && id != newSessionID:
			t.Errorf("%q %q is served without a session", id, body)
		}
		if n := len(h.sessions.byID); n > 1 || n != h.sessions.order.Len() {
			t.Errorf("%q %q: %d sessions", id, body, n)
		}
	})
}

// FuzzLines checks that the lines of a body are what is in it, in order, but
// for blank lines and the white space around others.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{}\n{}\r\n\n \t\n[1]"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		lines := splitLines(body)
		for _, line := range lines {
			if len(line) == 0 || bytes.Contains(line, []byte("\n")) || !bytes.Equal(line, bytes.TrimSpace(line)) {
				t.Errorf("%q has a line %q", body, line)
			}
		}
		squeeze := func(b []byte) string { return strings.Join(strings.Fields(string(b)), "") }
		if got, want := squeeze(bytes.Join(lines, nil)), squeeze(body); got != want {
			t.Errorf("%q: the lines have %q", body, got)
		}
	})
}

// FuzzEvents checks that a stream gives the same lines in whatever pieces it
// comes, and that the events of JSON values are lines of the same values.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: {\"a\":1}\n\n:\n\ndata: [DONE]\n\n"), uint8(3), "x\ny")
	f.Add([]byte("data:1\r\ndata: 2\r\n\r\nevent: x\ndata"), uint8(1), "")
	f.Fuzz(func(t *testing.T, stream []byte, size uint8, text string) {
		value, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		stream = append(append(stream, "\n\ndata: "...), value...)
		stream = append(stream, "\n\n"...)
		lines := func(size int) string {
			var out bytes.Buffer
			l := lineWriter{to: &out}
			for rest := stream; len(rest) > 0; {
				n := min(size, len(rest))
				if _, err := l.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			return out.String()
		}
		whole, pieces := lines(len(stream)), lines(int(size)+1)
		if whole != pieces {
			t.Errorf("%q in pieces of %d: %q, in one %q", stream, size+1, pieces, whole)
		}
		if !strings.HasSuffix(whole, string(value)+"\n") {
			t.Errorf("%q: %q does not end with %s", stream, whole, value)
		}
	})
}

// FuzzMessage checks that a message of a socket is a request, or ends one, or
// is refused.
func FuzzMessage(f *testing.F) {
	for _, s := range []string{`{"id":"a"}`, `{"cancel":"a"}`, `{"id":7}`, `[]`, `null`, `{"id":null,"inputs":"x"}`, `{`, `{"ID":"a","id":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		id, cancelled, fault := parseMessage(message)
		switch {
		case fault != nil:
			if fault.Status != 400 || fault.Msg == "" || len(fault.Msg) > 500 || id != "" && cancelled != "" {
				t.Errorf("%q: %+v, %q, %q", message, fault, id, cancelled)
			}
		case !json.Valid(message) || len(id) > mostID || len(cancelled) > mostID:
			t.Errorf("%q: %q, %q", message, id, cancelled)
		}
	})
}
