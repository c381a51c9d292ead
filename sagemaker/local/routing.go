package local

import (
	"regexp"
	"strings"
	"time"
)

// stickiness is the instance that holds a session, until the session expires.
type stickiness struct {
	in      *instance
	expires time.Time
}

// outcome is how a request ended.
type outcome int

const (
	complete outcome = iota // the container's answer, whatever its status, came whole
	broken                  // the container closed the connection before its end
	late                    // the platform's time was up
	left                    // the caller went away
)

// flight is a request that a container is working on.
type flight struct {
	e  *Endpoint
	in *instance
}

// board chooses the instance for a call: the session's, otherwise the one in
// service with the fewest outstanding requests, among equals a random one. The
// flight must be landed.
func (e *Endpoint) board(c *call) (*flight, *fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase == deleting { // since the call was checked
		return nil, e.notFound(e.cfg.Name)
	}
	var chosen *instance
	if c.session != "" && c.session != newSession {
		s, ok := e.sessions[c.session]
		if !ok || time.Now().After(s.expires) {
			delete(e.sessions, c.session)
			return nil, invalid("Session %s does not exist or has expired.", c.session)
		}
		if s.in.state == serving {
			chosen = s.in
		}
	} else {
		equals := 0
		for _, in := range e.instances {
			switch {
			case in == nil || in.state != serving:
			case chosen == nil || in.flights < chosen.flights:
				chosen, equals = in, 1
			case in.flights == chosen.flights:
				if equals++; e.rng.IntN(equals) == 0 {
					chosen = in
				}
			}
		}
	}
	if chosen == nil {
		return nil, unavailable("No instance of endpoint %s is in service.", e.cfg.Name)
	}
	chosen.flights++
	if _, adapter := e.cfg.Adapters[c.component]; adapter {
		c.header.Set(headerAdapter, c.component)
		c.header.Set(headerAlias, c.component)
	}
	return &flight{e, chosen}, nil
}

// land ends a flight. It must be called once.
func (f *flight) land(o outcome) {
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	f.in.flights--
	if f.in.state != stopping {
		return
	}
	switch o {
	case complete:
		f.in.ending.Complete++
	case broken:
		f.in.ending.Broken++
	case late, left:
		f.in.ending.Given++
	}
	if f.in.flights == 0 {
		close(f.in.drained)
	}
}

var newSessionPattern = regexp.MustCompile(`^([a-zA-Z0-9](?:-*[a-zA-Z0-9])*);\sExpires=([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)$`)

// parseNewSession reads a container's X-Amzn-SageMaker-New-Session-Id:
// "ID; Expires=2026-11-24T15:00:00Z".
func parseNewSession(header string) (id string, expires time.Time, ok bool) {
	m := newSessionPattern.FindStringSubmatch(header)
	if m == nil || len(header) > 256 {
		return "", time.Time{}, false
	}
	expires, err := time.Parse(time.RFC3339, m[2])
	return m[1], expires, err == nil
}

// noteSessions makes calls stick to the instance that opened a session, until
// a container says that it has closed it.
func (f *flight) noteSessions(opened, closed string) {
	e := f.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if id, expires, ok := parseNewSession(opened); ok {
		e.sessions[id] = stickiness{f.in, expires}
	}
	delete(e.sessions, strings.TrimSpace(closed))
}
