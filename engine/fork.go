package engine

import "github.com/millrace-ai/millrace/engine/page"

// Forks are sequences of one prompt (SubmitN). The first one leads: it holds the
// others, which are neither waiting nor active, until its prompt is computed. Then they
// start from its pages through the prefix cache. One of them waits, holding the others,
// and lets the next one wait when it is admitted: so the forks of one request take turns
// with other requests, however many they are.

// shares reports whether the forks of s would find any page of its prompt.
func (e *Engine) shares(s *sequence) bool {
	return !e.cfg.NoPrefixCache && len(s.req.Tokens) > page.Tokens
}

// releaseForks lets the next fork of s wait, after one sequence that waits already.
func (e *Engine) releaseForks(s *sequence) {
	if len(s.forks) == 0 {
		return
	}
	f := s.forks[0]
	f.forks, s.forks = s.forks[1:], nil
	f.state, f.released = waiting, true
	if first := e.waiting.head; first != nil {
		e.waiting.insert(f, first, first.next)
	} else {
		e.waiting.pushFront(f)
	}
}

// promoteFork makes the first fork of a sequence that has ended before its prompt
// was computed lead the others.
func (e *Engine) promoteFork(s *sequence) {
	if len(s.forks) == 0 {
		return
	}
	leader := s.forks[0]
	leader.forks, s.forks = s.forks[1:], nil
	leader.state, leader.released = waiting, s.released
	e.waiting.pushFront(leader)
}

// dropForks ends the forks of s whose caller has gone or whose deadline has
// passed.
func (e *Engine) dropForks(s *sequence) {
	kept := s.forks[:0]
	for _, f := range s.forks {
		if e.drop(f); f.state != ended {
			kept = append(kept, f)
		}
	}
	clear(s.forks[len(kept):])
	s.forks = kept
}
