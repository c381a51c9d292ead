package sagemaker

import (
	"bytes"
	"container/list"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/internal/web"
)

// A stateful session ties its requests to one instance: the platform sends
// them all to the container that has named the session. What a conversation
// gains by it here is the prefix cache of that instance, so a session holds
// nothing but its name and its end.

const (
	mostSessions   = 10_000
	newSessionID   = "NEW_SESSION"
	sessionsOff    = "Stateful sessions are off; set SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true (--stateful-sessions)"
	sessionBodyMax = 256 // bytes; a longer body is not a session request
)

// session looks at what a request says about sessions. A request that only
// opens or closes one is served by what it returns; any other goes on, if its
// session lives or is one that beginSession shall open.
func (h *Hosting) session(in *invocation) (serveFunc, error) {
	id := in.r.Header.Get(headerSession)
	kind, err := sessionRequest(in)
	if err != nil {
		return nil, err
	}
	switch {
	case id == "" && kind == "":
		return nil, nil
	case h.sessions == nil:
		return nil, badRequest(sessionsOff)
	case kind == newSessionID:
		return h.openSession, nil
	case kind == "CLOSE":
		return h.closeSession, nil
	case id == newSessionID:
		return nil, nil
	}
	return nil, h.sessions.check(id)
}

// beginSession lets NEW_SESSION, as the session of a request that generates,
// open one beside the answer. A request that fails leaves none behind: nobody
// would learn of it, since the platform hands on no header of an error.
func (h *Hosting) beginSession(in *invocation, serve serveFunc) serveFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		s, err := h.sessions.open()
		if err != nil {
			return err
		}
		p := &presenter{ResponseWriter: in.w, session: s.header()}
		in.w = p
		defer func() {
			if p.status != http.StatusOK {
				h.sessions.close(s.id) //nolint:errcheck // it may have expired meanwhile
			}
		}()
		return serve(w, r)
	}
}

func (h *Hosting) openSession(w http.ResponseWriter, _ *http.Request) error {
	s, err := h.sessions.open()
	if err != nil {
		return err
	}
	w.Header()[headerNewSession] = []string{s.header()}
	web.WriteJSON(w, http.StatusOK, fmt.Appendf(nil, `{"session_id":"%s","expires":"%s"}`, s.id, s.expires()))
	return nil
}

func (h *Hosting) closeSession(w http.ResponseWriter, r *http.Request) error {
	id := r.Header.Get(headerSession)
	if id == "" {
		return badRequest("CLOSE closes the session that the header X-Amzn-SageMaker-Session-Id names, which is missing")
	}
	if err := h.sessions.close(id); err != nil {
		return err
	}
	w.Header()[headerClosedSession] = []string{id}
	web.WriteJSON(w, http.StatusOK, fmt.Appendf(nil, `{"session_id":"%s","closed":true}`, id))
	return nil
}

// sessionRequest looks whether the body of in is a request about a session,
// and returns which: NEW_SESSION, CLOSE, or "" if it is none. The body can be
// read again.
func sessionRequest(in *invocation) (kind string, err error) {
	if in.r.ContentLength > sessionBodyMax || in.r.ContentLength < 0 && in.r.Header.Get(headerSession) == "" {
		return "", nil
	}
	conn := http.NewResponseController(in.w)
	conn.SetReadDeadline(time.Now().Add(web.BodyPatience)) //nolint:errcheck // not every writer has deadlines
	body := make([]byte, sessionBodyMax+1)
	n, ended := fill(body, in.r.Body)
	rest := in.r.Body
	r := *in.r
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body[:n]), rest), rest}
	in.r = &r
	if !ended {
		return "", nil // too long, or broken off, of which the API tells
	}
	return parseSessionRequest(body[:n])
}

// fill reads into b and reports whether that was all there is.
func fill(b []byte, r io.Reader) (n int, ended bool) {
	n, err := io.ReadFull(r, b)
	return n, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// parseSessionRequest returns the requestType of a body that has one.
func parseSessionRequest(text []byte) (kind string, err error) {
	if !bytes.Contains(text, []byte(`"requestType"`)) {
		return "", nil
	}
	var fields map[string]json.RawMessage
	json.Unmarshal(text, &fields) //nolint:errcheck // anything but an object has no fields, and the API says what is wrong
	if fields["requestType"] == nil {
		return "", nil
	}
	if len(fields) > 1 {
		return "", badRequest("A request with requestType has no other fields; found %d", len(fields)-1)
	}
	if json.Unmarshal(fields["requestType"], &kind) != nil || kind != newSessionID && kind != "CLOSE" {
		return "", badRequest("requestType: expected \"NEW_SESSION\" or \"CLOSE\", found %s", body.Cut(string(fields["requestType"])))
	}
	return kind, nil
}

// session is one that lives.
type session struct {
	id  string
	end time.Time
}

func (s session) expires() string { return s.end.UTC().Format("2006-01-02T15:04:05Z") }

// header is the session as the platform reads it.
func (s session) header() string { return s.id + "; Expires=" + s.expires() }

// sessions are those of this container. All live equally long, whether they
// are used or not, so they end in the order in which they began.
type sessions struct {
	life time.Duration
	most int
	now  func() time.Time

	mu    sync.Mutex
	order *list.List // of session, the oldest first
	byID  map[string]*list.Element
}

func newSessions(life time.Duration, most int) *sessions {
	return &sessions{life: life, most: most, now: time.Now, order: list.New(), byID: map[string]*list.Element{}}
}

// open begins a session.
func (s *sessions) open() (session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if len(s.byID) >= s.most {
		return session{}, failure(http.StatusServiceUnavailable, "unavailable",
			"There are %d sessions already, the most there can be: close some, or wait for them to expire", s.most)
	}
	// The header tells whole seconds; a session ends no later than it says.
	n := session{uuid.NewString(), s.now().Add(s.life).Truncate(time.Second)}
	s.byID[n.id] = s.order.PushBack(n)
	return n, nil
}

// check returns an error unless id lives.
func (s *sessions) check(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	if s.byID[id] == nil {
		return badRequest("There is no session %q: it has expired or was closed, or another instance has it; open one with NEW_SESSION", body.Cut(id))
	}
	return nil
}

// close ends the session id.
func (s *sessions) close(id string) error {
	if err := s.check(id); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byID[id]; e != nil {
		s.remove(e)
	}
	return nil
}

// expire ends the sessions whose time is over. The caller holds s.mu.
func (s *sessions) expire() {
	for e := s.order.Front(); e != nil; e = s.order.Front() {
		if s.now().Before(e.Value.(session).end) {
			return
		}
		s.remove(e)
	}
}

func (s *sessions) remove(e *list.Element) {
	delete(s.byID, e.Value.(session).id)
	s.order.Remove(e)
}
