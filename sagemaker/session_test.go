package sagemaker

import (
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/internal/web"
)

// inServiceForm is the pattern that the platform's API model has for the
// header of a new session.
var inServiceForm = regexp.MustCompile(`^[a-zA-Z0-9](-*[a-zA-Z0-9])*;\sExpires=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`)

func TestSessionLife(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	h := Wrap(newAPI(echo), Options{SessionLife: 1200 * time.Second})
	h.sessions.now = func() time.Time { return now }
	open := func() string {
		t.Helper()
		got := ask(h, "POST", "/invocations", `{"requestType":"NEW_SESSION"}`, headerSession+": NEW_SESSION")
		header := got.header.Get(headerNewSession)
		if got.status != 200 || !inServiceForm.MatchString(header) {
			t.Fatalf("%d %s, header %q", got.status, got.body, header)
		}
		id, _, _ := strings.Cut(header, ";")
		return id
	}
	use := func(id string) reply { return ask(h, "POST", "/invocations", `{"inputs":"x"}`, headerSession+": "+id) }

	a, b := open(), open()
	if a == b {
		t.Fatalf("two sessions are called %s", a)
	}
	if got := use(a); got.status != 200 || !strings.Contains(got.body, `{\"inputs\":\"x\"}`) {
		t.Errorf("a request of a session: %d %s", got.status, got.body)
	}
	got := ask(h, "POST", "/invocations", ` {"requestType" : "CLOSE"} `, headerSession+": "+a)
	if got.status != 200 || got.header.Get(headerClosedSession) != a {
		t.Errorf("close: %d %s, header %q", got.status, got.body, got.header.Get(headerClosedSession))
	}
	mustFail(t, use(a), 400, "no session")
	mustFail(t, ask(h, "POST", "/invocations", `{"requestType":"CLOSE"}`, headerSession+": "+a), 400, "no session")

	now = now.Add(1199 * time.Second)
	if got := use(b); got.status != 200 {
		t.Errorf("before its end: %d %s", got.status, got.body)
	}
	now = now.Add(time.Second) // its use has not made it longer
	mustFail(t, use(b), 400, "no session")
	if n := len(h.sessions.byID); n != 0 || h.sessions.order.Len() != 0 {
		t.Errorf("%d sessions are kept", n)
	}
}

func TestSessionRequests(t *testing.T) {
	long := `{"inputs":"` + strings.Repeat("x", 500) + `"}`
	for _, tt := range []struct {
		name, id, body string
		status         int
		want           string
	}{
		{"no field beside it", "", `{"requestType":"NEW_SESSION","inputs":"x"}`, 400, "no other fields; found 1"},
		{"unknown type", "", `{"requestType":"OPEN"}`, 400, `expected "NEW_SESSION" or "CLOSE", found "OPEN"`},
		{"no text", "", `{"requestType":7}`, 400, "found 7"},
		{"close of none", "", `{"requestType":"CLOSE"}`, 400, "which is missing"},
		{"unknown id", "abc", long, 400, `no session "abc"`},
		{"word in a prompt", "", `{"inputs":"\"requestType\""}`, 200, ""},
		{"not JSON", "", `{"requestType":`, 200, ""}, // the API tells
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := Wrap(newAPI(echo), Options{SessionLife: time.Minute})
			headers := []string{}
			if tt.id != "" {
				headers = append(headers, headerSession+": "+tt.id)
			}
			got := ask(h, "POST", "/invocations", tt.body, headers...)
			if tt.status != 200 {
				mustFail(t, got, tt.status, tt.want)
			} else if got.status != 200 {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
}

// A request that generates may open its session itself, and arrives whole.
func TestSessionWithAnInvocation(t *testing.T) {
	for _, size := range []int{10, sessionBodyMax, sessionBodyMax + 1, 5000} {
		body := strings.Repeat("x", size)
		h := Wrap(newAPI(func(w http.ResponseWriter, r *http.Request) {
			if got, err := io.ReadAll(r.Body); err != nil || string(got) != body {
				t.Errorf("%d bytes arrive as %d, %v", size, len(got), err)
			}
			web.WriteJSON(w, 200, []byte("[]"))
		}), Options{SessionLife: time.Minute})
		got := ask(h, "POST", "/invocations", body, headerSession+": NEW_SESSION")
		if !inServiceForm.MatchString(got.header.Get(headerNewSession)) {
			t.Errorf("header %q", got.header.Get(headerNewSession))
		}
	}
}

// A session that no caller hears of would stay until its end: an error has no
// header that a caller sees, and a stranger gets none.
func TestNoSessionBehindAnError(t *testing.T) {
	generation := newAPI(func(w http.ResponseWriter, _ *http.Request) {
		web.WriteJSON(w, 422, []byte(`{"error":"no","error_type":"validation"}`))
	})
	keyed := newAPI(echo)
	keyed.routes = handler.New(handler.Options{APIKey: "k", Logger: slog.New(slog.DiscardHandler)})
	for _, tt := range []struct {
		name    string
		api     API
		body    string
		headers []string
		status  int
	}{
		{"a generation fails", generation, `{"inputs":"x"}`, nil, 422},
		{"an unknown route", newAPI(echo), `{"inputs":"x"}`, []string{headerAttributes + ": route=/x"}, 400},
		{"all lines fail", generation, "1\n2", []string{"Content-Type: application/jsonlines"}, 422},
		{"a generation without the key", keyed, `{"inputs":"x"}`, nil, 401},
		{"a session without the key", keyed, `{"requestType":"NEW_SESSION"}`, nil, 401},
		{"lines without the key", keyed, "1\n2", []string{"Content-Type: application/jsonlines"}, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := Wrap(tt.api, Options{SessionLife: time.Minute})
			got := ask(h, "POST", "/invocations", tt.body, append(tt.headers, headerSession+": NEW_SESSION")...)
			mustFail(t, got, tt.status, "")
			if header := got.header.Get(headerNewSession); header != "" || len(h.sessions.byID) != 0 {
				t.Errorf("%d sessions are open, one is named %q", len(h.sessions.byID), header)
			}
		})
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions(time.Minute, 2)
	for range 2 {
		if _, err := s.open(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.open(); err == nil {
		t.Error("a third of two sessions")
	}
	s.now = func() time.Time { return time.Now().Add(time.Hour) }
	if _, err := s.open(); err != nil {
		t.Errorf("with the others expired: %v", err)
	}
}

// A fault of the contract's own is a 500 of the API's form.
func TestPanic(t *testing.T) {
	h := Wrap(newAPI(echo), Options{SessionLife: time.Minute})
	h.sessions.now = func() time.Time { panic("a fault") }
	for _, body := range []string{"{}", `{"requestType":"NEW_SESSION"}`} {
		mustFail(t, ask(h, "POST", "/invocations", body, headerSession+": NEW_SESSION"), 500, "Internal error")
	}
}
