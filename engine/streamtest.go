package engine

import "time"

// Scripted is a Stream that a test writes instead of an engine, for packages
// whose subject is what happens to a Stream's tokens.
type Scripted struct {
	stream Stream
	out    output
}

// NewScripted returns a Stream for as many tokens as r asks for, submitted and
// admitted now.
func NewScripted(r Request) *Scripted {
	now := time.Now()
	s := &Scripted{}
	s.stream.wake = make(chan struct{}, 1)
	s.stream.times = Times{Submitted: now, Admitted: now, FirstToken: now}
	s.out = newOutput(&s.stream, r.MaxNewTokens)
	return s
}

// Stream returns the reader's side.
func (s *Scripted) Stream() *Stream { return &s.stream }

// Prompt sets the scored prompt; call it before the first Emit.
func (s *Scripted) Prompt(prompt []Token) { s.stream.prompt = prompt }

// Emit publishes tokens together.
func (s *Scripted) Emit(tokens ...Token) {
	s.append(tokens)
	s.stream.publish(s.out.generated, false)
}

// End publishes the last tokens and the end: reason, or err if it is not nil.
func (s *Scripted) End(reason FinishReason, err error, tokens ...Token) {
	s.append(tokens)
	s.stream.finish, s.stream.err, s.stream.finished = reason, err, time.Now()
	s.stream.publish(s.out.generated, true)
}

// Closed reports whether the reader has closed the Stream.
func (s *Scripted) Closed() bool { return s.stream.closed.Load() }

func (s *Scripted) append(tokens []Token) {
	for _, t := range tokens {
		if s.out.generated < s.out.most {
			s.out.append(t)
		}
	}
}
