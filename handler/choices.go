package handler

import (
	"context"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/stop"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler/telemetry"
)

// choice is one of the sequences that answer a request of an OpenAI route.
type choice struct {
	index  int // among the answer's choices
	job    *job
	stream *engine.Stream
	text   engine.Text
	ending ending
}

// newChoice reads stream, which generates for j.
func newChoice(index int, j *job, stream *engine.Stream, tok *token.Tokenizer) *choice {
	c := &choice{index: index, job: j, stream: stream}
	c.text.Reset(stream, token.NewDecoder(tok, j.req.Tokens), tok, stop.New(j.stops))
	c.text.StopAfter(j.req.MinNewTokens)
	if !j.stopText {
		c.ending = ending{stops: stop.New(j.stops), free: j.req.MinNewTokens}
	}
	return c
}

// shows reports whether the text of p belongs to the answer. Special tokens do
// not, nor does a token that ends the text, unless the request says so.
func (c *choice) shows(p *engine.Piece) bool {
	switch {
	case p.Special && !c.job.special:
		return false
	case !p.Last || c.job.stopText:
		return true
	}
	finish := c.text.Finish()
	return finish != engine.FinishStopToken && !(p.Special && finish == engine.FinishEOS)
}

// scored reports whether c has ended without a token because none was asked
// for; err is what its text ended with.
func (c *choice) scored(err error) bool { return err == io.EOF && c.job.req.MaxNewTokens == 0 }

// ending keeps the stop string that ends a text out of it, as OpenAI does. To
// that end it holds back what may become one.
type ending struct {
	stops *stop.Matcher // nil: there is nothing to look for
	free  int           // pieces in which it is not looked for
	held  []byte
	shown []bool // which bytes of held belong to the answer
}

// add reads the text of the next piece and appends to dst what is certain to
// belong to the answer by it. Text that is not shown, that of special tokens,
// only counts for stop strings. Behind last nothing is held.
func (e *ending) add(dst, text []byte, shown, last bool) []byte {
	if e.stops == nil || e.free > 0 {
		e.free--
		if shown {
			dst = append(dst, text...)
		}
		return dst
	}
	certain := len(e.held)
	e.held = append(e.held, text...)
	for range text {
		e.shown = append(e.shown, shown)
	}
	if end, length, hit := e.stops.Find(text); hit {
		certain += end - length
	} else if certain = len(e.held); !last {
		certain -= e.stops.Held()
	}
	for i, b := range e.held[:certain] {
		if e.shown[i] {
			dst = append(dst, b)
		}
	}
	e.held = append(e.held[:0], e.held[certain:]...)
	e.shown = append(e.shown[:0], e.shown[certain:]...)
	return dst
}

// eachChoice runs read for every choice at once and returns the first error.
// One that comes before any event was sent ends the others, through ctx.
// Choices that their deadline found waiting are late, and no error unless none
// of all has a token.
func (s *Server) eachChoice(x *exchange, choices []*choice, read func(ctx context.Context, c *choice) error) (late []*choice, err error) {
	expired, err := s.sideBySide(x, len(choices), func(ctx context.Context, i int) error { return read(ctx, choices[i]) })
	if err != nil {
		return nil, err
	}
	var cause error
	for i, e := range expired {
		if e != nil {
			late, cause = append(late, choices[i]), e
		}
	}
	if cause != nil && usageOf(choices).completion == 0 {
		return nil, cause
	}
	return late, nil
}

// sideBySide runs read for 0 to n-1 at once and returns the first error, which
// ends the others through ctx. That a deadline found a generation waiting ends
// no other: it is in expired, nil for those that it did not.
func (s *Server) sideBySide(x *exchange, n int, read func(ctx context.Context, i int) error) (expired []error, err error) {
	expired = make([]error, n)
	one := func(ctx context.Context, i int) error {
		err := read(ctx, i)
		if isExpired(err) {
			expired[i] = err
			return nil
		}
		return err
	}
	if n == 1 {
		return expired, one(x.r.Context(), 0)
	}
	ctx, cancel := context.WithCancel(x.r.Context())
	defer cancel()
	var (
		all   sync.WaitGroup
		once  sync.Once
		first error
	)
	for i := range n {
		all.Go(func() {
			err := s.protect(x, func(*exchange) error { return one(ctx, i) })
			if err != nil {
				once.Do(func() { first = err })
				cancel()
			}
		})
	}
	all.Wait()
	return expired, first
}

// gather reads all choices to their ends and gives take the pieces of each as
// they come; none, for the end of a late or a scored one. Calls for different choices may
// overlap.
func (s *Server) gather(x *exchange, choices []*choice, take func(c *choice, pieces []engine.Piece)) error {
	late, err := s.eachChoice(x, choices, func(ctx context.Context, c *choice) error {
		for {
			pieces, err := c.text.Next(ctx)
			if c.scored(err) {
				take(c, nil)
				return nil
			}
			if err == io.EOF {
				return incomplete(err)
			}
			if err != nil {
				return err
			}
			if err := x.holdPieces(pieces); err != nil {
				return err
			}
			take(c, pieces)
			if pieces[len(pieces)-1].Last {
				return nil
			}
		}
	})
	for _, c := range late {
		take(c, nil)
	}
	return err
}

// choiceEvents answers with events: encode appends those of some pieces of one
// choice; of none, that of the end of a late one. Until the first token of
// any choice exists an error is a status of its own; behind it, it is an event,
// and the other choices go on. What is ready of a choice leaves in one write.
// The end of the stream is the caller's.
func (s *Server) choiceEvents(x *exchange, choices []*choice, encode func(dst []byte, c *choice, pieces []engine.Piece) []byte) error {
	e := &eventWriter{s: s, x: x, chars: charsOf(choices), encode: encode, last: time.Now()}
	late, err := s.eachChoice(x, choices, func(ctx context.Context, c *choice) error {
		err := e.follow(ctx, c)
		if err == nil || len(choices) == 1 {
			return err
		}
		return e.fail(err)
	})
	for _, c := range late {
		if _, err := e.write(c, nil); err != nil {
			return err
		}
	}
	return err
}

// eventWriter writes the events of choices that come side by side.
type eventWriter struct {
	s      *Server
	encode func(dst []byte, c *choice, pieces []engine.Piece) []byte
	chars  int // of the prompts, for the headers

	mu   sync.Mutex // guards x's answer and last
	x    *exchange
	last time.Time // when something was sent
}

// follow writes the events of one choice as its pieces come.
func (e *eventWriter) follow(ctx context.Context, c *choice) error {
	wait := newKeepAlive(ctx, e.s.opt.KeepAlive)
	defer wait.stop()
	for {
		pieces, err := c.text.Next(wait.ctx)
		switch {
		case c.scored(err):
			_, err := e.write(c, nil)
			return err
		case err == io.EOF:
			return incompleteStream()
		case err != nil && wait.expired(err):
			if wait.last, err = e.keepAlive(); err != nil {
				return err
			}
			wait.restart()
			continue
		case err != nil:
			return err
		}
		if wait.last, err = e.write(c, pieces); err != nil {
			return err
		}
		if pieces[len(pieces)-1].Last {
			return nil
		}
	}
}

// write sends the events of pieces and returns when.
func (e *eventWriter) write(c *choice, pieces []engine.Piece) (time.Time, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.x.out = e.encode(e.x.out[:0], c, pieces)
	return e.send()
}

// send sends x.out. Only what was sent counts against silence: an encoder may
// hold text back.
func (e *eventWriter) send() (time.Time, error) {
	if len(e.x.out) == 0 {
		return e.last, nil
	}
	now := time.Now()
	e.s.mayWrite(e.x, now)
	e.s.beginEvents(e.x, e.chars)
	if err := e.x.send(); err != nil {
		return now, err
	}
	e.last = now
	return now, nil
}

// keepAlive sends a comment if no choice has sent anything for the interval,
// and returns when something was sent last.
func (e *eventWriter) keepAlive() (time.Time, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.last) < e.s.opt.KeepAlive {
		return e.last, nil
	}
	e.x.out = append(e.x.out[:0], ":\n\n"...)
	return e.send()
}

// fail ends one of several choices: with an event if the stream has begun. A
// late one ends when the others have.
func (e *eventWriter) fail(err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.x.streaming || isExpired(err) || clientGone(e.x.r.Context(), err) {
		return err
	}
	e.x.out = appendErrorEvent(e.x.out[:0], e.s.report(e.x, err), e.s.errorObjects(e.x.r))
	_, err = e.send()
	return err
}

// usageOf counts the tokens of choices; those of one job share its prompt.
func usageOf(choices []*choice) (u usage) {
	for i, c := range choices {
		if i == 0 || c.job != choices[i-1].job {
			u.prompt += len(c.job.req.Tokens)
		}
		u.completion += c.text.Tokens()
	}
	return u
}

// charsOf counts the characters of the prompts of choices.
func charsOf(choices []*choice) (n int) {
	for i, c := range choices {
		if i == 0 || c.job != choices[i-1].job {
			n += c.job.chars
		}
	}
	return n
}

// timingOf ends the clock of choices that were generated side by side: times
// until the last of them, and the tokens of all.
func (x *exchange) timingOf(choices []*choice) telemetry.Timing {
	first := choices[0].stream.Times()
	longest, queue := 1, time.Duration(0)
	t := telemetry.Timing{Prompt: usageOf(choices).prompt, Finish: reasonToLog(openAIReason, choices[0].text.Finish())}
	for _, c := range choices {
		times := c.stream.Times()
		queue = max(queue, times.Admitted.Sub(times.Submitted))
		longest = max(longest, c.text.Tokens())
		t.Tokens += c.text.Tokens()
	}
	now := time.Now()
	t.Total = now.Sub(x.begun)
	t.Validation = first.Submitted.Sub(x.begun)
	t.Queue = queue
	t.Inference = now.Sub(first.Admitted)
	t.PerToken = t.Inference / time.Duration(longest)
	return t
}

// appendIndex appends the member that says which choice an object is of.
func (c *choice) appendIndex(dst []byte) []byte {
	dst = append(dst, `{"index":`...)
	return strconv.AppendInt(dst, int64(c.index), 10)
}
