package handler

import (
	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/stop"
)

// ending keeps the stop string that ends a text out of it, as OpenAI does. It
// holds back what may become one.
type ending struct {
	stops *stop.Matcher // nil: there is nothing to look for
	free  int           // pieces in which it is not looked for
	held  []byte
	shown []bool // which bytes of held belong to the answer
}

// newEnding returns the ending of the texts of j.
func newEnding(j *job) ending {
	if j.stopText {
		return ending{}
	}
	return ending{stops: stop.New(j.stops), free: j.req.MinNewTokens}
}

// add reads the text of the next piece and appends to dst what is certain to
// belong to the answer by it. Text that is not shown, that of special tokens,
// only counts for stop strings. After last nothing is held.
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

// shows reports whether the text of p belongs to the answer. Special tokens do
// not, nor does a token that ends the text, unless the request says so.
func (q *sequence) shows(p *engine.Piece) bool {
	switch {
	case p.Special && !q.job.special:
		return false
	case !p.Last || q.job.stopText:
		return true
	}
	finish := q.text.Finish()
	return finish != engine.FinishStopToken && !(p.Special && finish == engine.FinishEOS)
}
