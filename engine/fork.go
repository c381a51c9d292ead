package engine

import "github.com/millrace-ai/millrace/engine/page"

// Forks are sequences of one prompt (SubmitN). The first one leads: the others
// are held at it, neither waiting nor active, until its prompt is computed, and
// then start from its pages through the prefix cache.

// shares reports whether the forks of s would find any page of its prompt.
func (e *Engine) shares(s *sequence) bool {
	return !e.cfg.NoPrefixCache && len(s.req.Tokens) > page.Tokens
}

// releaseForks lets the forks of s run, before all who wait: their prompt is
// computed, or will be when the steps launched so far are done.
func (e *Engine) releaseForks(s *sequence) {
	for i := len(s.forks) - 1; i >= 0; i-- { // the first is to be first in line
		f := s.forks[i]
		f.state = waiting
		e.waiting.pushFront(f)
	}
	s.forks = nil
}

// bequeath makes the first fork of a sequence that has ended before its prompt
// was computed lead the others.
func (e *Engine) bequeath(s *sequence) {
	if len(s.forks) == 0 {
		return
	}
	heir := s.forks[0]
	heir.forks, s.forks = s.forks[1:], nil
	heir.state = waiting
	e.waiting.pushFront(heir)
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
