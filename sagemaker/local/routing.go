package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
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

// Routing says which instance in service gets a call that belongs to no session.
type Routing struct {
	Strategy string // one of Strategies; "" is the first

	// PrefixLength and ConcurrencyThreshold belong to PrefixAware, which needs them.
	PrefixLength         int // bytes of the body, or characters of a chat's messages, that calls have in common
	ConcurrencyThreshold int // calls from which on an instance gets no more for its prefixes
}

// Routing strategies, as SageMaker calls them.
const (
	LeastOutstanding = "LEAST_OUTSTANDING_REQUESTS"
	Random           = "RANDOM"
	PrefixAware      = "PREFIX_AWARE"
)

// Strategies are all of them, the default first.
var Strategies = []string{LeastOutstanding, Random, PrefixAware}

func (r *Routing) check() error {
	if r.Strategy == "" {
		r.Strategy = LeastOutstanding
	}
	within := func(name string, n, least, most int) error {
		if r.Strategy != PrefixAware && n != 0 {
			return fmt.Errorf("%s %d: it is for the routing strategy %s alone", name, n, PrefixAware)
		}
		if r.Strategy == PrefixAware && (n < least || n > most) {
			return fmt.Errorf("%s %d: the routing strategy %s needs one of %d to %d", name, n, PrefixAware, least, most)
		}
		return nil
	}
	if !slices.Contains(Strategies, r.Strategy) {
		return fmt.Errorf("routing strategy %q: expected %s", r.Strategy, strings.Join(Strategies, ", "))
	}
	return errors.Join(within("prefix length", r.PrefixLength, 1024, 65536), within("concurrency threshold", r.ConcurrencyThreshold, 1, 1024))
}

// pick chooses the instance for a call: the session's, otherwise one in service
// by the routing strategy. The invocation must be told when it is done.
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
		chosen = fl.route(c)
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

// route chooses an instance in service by the routing strategy; nil if there is none.
// Among equals it is a random one.
func (fl *fleet) route(c *call) *instance {
	routing := fl.cfg.Routing
	if routing.Strategy == PrefixAware {
		if in := fl.ofPrefix(c.prefix(routing.PrefixLength)); in == nil || in.outstanding < routing.ConcurrencyThreshold {
			return in
		}
	}
	var chosen *instance
	equals := 0
	for _, in := range fl.instances {
		switch {
		case in == nil || in.state != serving:
		case chosen == nil || in.outstanding < chosen.outstanding && routing.Strategy != Random:
			chosen, equals = in, 1
		case in.outstanding == chosen.outstanding || routing.Strategy == Random:
			if equals++; fl.rng.IntN(equals) == 0 {
				chosen = in
			}
		}
	}
	return chosen
}

// ofPrefix returns the instance in service that a prefix belongs to: the same one
// as long as it is there, and then prefixes of others stay where they are.
func (fl *fleet) ofPrefix(prefix []byte) (chosen *instance) {
	var most []byte
	for _, in := range fl.instances {
		if in == nil || in.state != serving {
			continue
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", in.number, prefix))
		if chosen == nil || bytes.Compare(sum[:], most) > 0 {
			chosen, most = in, sum[:]
		}
	}
	return chosen
}

// prefix is what a call has in common with others that should meet the same cache:
// the caller's identifier, and the beginning of the body or, of a chat of the
// OpenAI-compatible API, of the texts of its messages.
func (c *call) prefix(length int) []byte {
	body := c.body[:min(length, len(c.body))]
	if c.op == opOpenAI {
		characters := []rune(messageTexts(c.body))
		body = []byte(string(characters[:min(length, len(characters))]))
	}
	return fmt.Appendf(nil, "%q %s", c.prefixID, body)
}

// messageTexts joins the texts of a chat's messages; "" if the body is not a chat.
func messageTexts(body []byte) string {
	var chat struct {
		Messages []struct {
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	_ = json.Unmarshal(body, &chat) // what is not a chat is the container's to refuse
	var all strings.Builder
	for _, m := range chat.Messages {
		var text string
		var parts []struct {
			Text string `json:"text"`
		}
		if json.Unmarshal(m.Content, &text) != nil {
			_ = json.Unmarshal(m.Content, &parts) // as above
		}
		all.WriteString(text)
		for _, p := range parts {
			all.WriteString(p.Text)
		}
	}
	return all.String()
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
