package local

import (
	"regexp"
	"strings"
	"time"
)

// session is the instance that holds a session, until the session expires.
type session struct {
	in      *instance
	expires time.Time
}

// outcome is how a request ended.
type outcome int

const (
	complete  outcome = iota // the container's answer, whatever its status, came whole
	broken                   // the container closed the connection before its end
	timedOut                 // the platform's time was up
	cancelled                // the caller went away
)

// invocation is a request that an instance is working on.
type invocation struct {
	fleet *fleet
	in    *instance
}

// pick chooses the instance for a call: the session's, otherwise the one in
// service with the fewest outstanding requests, among equals a random one. The
// invocation must be told when it is done.
func (fl *fleet) pick(c *call) (*invocation, *fault) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.phase == deleting { // since the call was checked
		return nil, fl.cfg.notFound(fl.cfg.Name)
	}
	var chosen *instance
	if c.session != "" && c.session != newSession {
		s, ok := fl.sessions[c.session]
		if !ok || time.Now().After(s.expires) {
			delete(fl.sessions, c.session)
			return nil, invalid("Session %s does not exist or has expired.", c.session)
		}
		if s.in.state == serving {
			chosen = s.in
		}
	} else {
		equals := 0
		for _, in := range fl.instances {
			switch {
			case in == nil || in.state != serving:
			case chosen == nil || in.outstanding < chosen.outstanding:
				chosen, equals = in, 1
			case in.outstanding == chosen.outstanding:
				if equals++; fl.rng.IntN(equals) == 0 {
					chosen = in
				}
			}
		}
	}
	if chosen == nil {
		return nil, unavailable("No instance of endpoint %s is in service.", fl.cfg.Name)
	}
	chosen.outstanding++
	if _, adapter := fl.cfg.Adapters[c.component]; adapter {
		c.header.Set(headerAdapter, c.component)
		c.header.Set(headerAlias, c.component)
	}
	return &invocation{fl, chosen}, nil
}

// done ends an invocation. It must be called once.
func (v *invocation) done(o outcome) {
	v.fleet.mu.Lock()
	defer v.fleet.mu.Unlock()
	v.in.outstanding--
	if v.in.state != stopping {
		return
	}
	switch o {
	case complete:
		v.in.ending.Complete++
	case broken:
		v.in.ending.Broken++
	case timedOut, cancelled:
		v.in.ending.Given++
	}
	if v.in.outstanding == 0 {
		close(v.in.drained)
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
func (v *invocation) noteSessions(opened, closed string) {
	fl := v.fleet
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if id, expires, ok := parseNewSession(opened); ok {
		fl.sessions[id] = session{v.in, expires}
	}
	delete(fl.sessions, strings.TrimSpace(closed))
}
