package bench

import (
	"fmt"
	"strings"
	"time"
)

// SLO is a service level objective: the longest times that a request may take to
// be counted as good. 0: any.
type SLO struct {
	FirstToken time.Duration // ttft
	InterToken time.Duration // itl: each time between two tokens
	PerToken   time.Duration // tpot: their mean
	Total      time.Duration // e2el
}

func (s *SLO) fields() []struct {
	name string
	at   *time.Duration
} {
	return []struct {
		name string
		at   *time.Duration
	}{{"ttft", &s.FirstToken}, {"itl", &s.InterToken}, {"tpot", &s.PerToken}, {"e2el", &s.Total}}
}

// UnmarshalText reads "ttft=500ms,itl=100ms".
func (s *SLO) UnmarshalText(text []byte) error {
	*s = SLO{}
next:
	for part := range strings.SplitSeq(string(text), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		for _, f := range s.fields() {
			if f.name != name {
				continue
			}
			d, err := time.ParseDuration(value)
			if err != nil || d <= 0 {
				return fmt.Errorf("%q: expected a time such as %s=200ms", part, name)
			}
			*f.at = d
			continue next
		}
		return fmt.Errorf("%q: expected ttft, itl, tpot or e2el, as in ttft=500ms,itl=100ms", part)
	}
	return nil
}

func (s SLO) String() string {
	var parts []string
	for _, f := range s.fields() {
		if *f.at > 0 {
			parts = append(parts, f.name+"="+f.at.String())
		}
	}
	return strings.Join(parts, ",")
}

// needsStream reports whether whole answers do not tell if it is met.
func (s SLO) needsStream() bool { return s != SLO{Total: s.Total} }

// met reports whether a request that took these times meets it.
func (s SLO) met(firstToken, longestGap, perToken, total time.Duration) bool {
	within := func(d, most time.Duration) bool { return most == 0 || d <= most }
	return within(firstToken, s.FirstToken) && within(longestGap, s.InterToken) && within(perToken, s.PerToken) && within(total, s.Total)
}
