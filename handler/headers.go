package handler

import (
	"net/http"
	"strconv"
	"time"
)

// timing is where the time of a finished generation went.
type timing struct {
	total      time.Duration // since the request arrived
	validation time.Duration // until it was queued, tokenizing included
	queue      time.Duration // until it was first computed
	inference  time.Duration // until its last token
	perToken   time.Duration
	prompt     int    // tokens
	tokens     int    // generated
	finish     string // why it ended
}

// timing ends the clock of a finished generation.
func (x *exchange) timing(j *job, g *generation) timing {
	now, times, tokens := time.Now(), g.stream.Times(), g.text.Tokens()
	return timing{
		total:      now.Sub(x.begun),
		validation: times.Submitted.Sub(x.begun),
		queue:      times.Admitted.Sub(times.Submitted),
		inference:  now.Sub(times.Admitted),
		perToken:   now.Sub(times.Admitted) / time.Duration(max(1, tokens)),
		prompt:     len(j.req.Tokens),
		tokens:     tokens,
		finish:     reasonToLog(finishReason, g.text.Finish()),
	}
}

// setCompute sets the headers that every generation has; chars are those of
// the prompt, or of all prompts.
func (s *Server) setCompute(h http.Header, chars int) {
	h["X-Compute-Type"] = s.computeType
	h["X-Compute-Characters"] = []string{strconv.Itoa(chars)}
}

// setTimes sets the headers of a complete answer: seconds for the first, as
// TGI has it, and milliseconds for the others.
func setTimes(h http.Header, t timing) {
	// One string, cut up: eight headers for one allocation.
	var buf [160]byte
	b, ends := buf[:0], [8]int{}
	b = strconv.AppendFloat(b, t.total.Seconds(), 'f', -1, 64)
	ends[0] = len(b)
	for i, n := range [...]int64{
		t.total.Milliseconds(), t.validation.Milliseconds(), t.queue.Milliseconds(), t.inference.Milliseconds(),
		t.perToken.Milliseconds(), int64(t.prompt), int64(t.tokens),
	} {
		b = strconv.AppendInt(b, n, 10)
		ends[i+1] = len(b)
	}
	all, values, from := string(b), make([]string, 8), 0
	for i, name := range timeHeaders {
		values[i] = all[from:ends[i]]
		from = ends[i]
		h[name] = values[i : i+1 : i+1]
	}
}

var timeHeaders = [...]string{
	"X-Compute-Time", "X-Total-Time", "X-Validation-Time", "X-Queue-Time", "X-Inference-Time",
	"X-Time-Per-Token", "X-Prompt-Tokens", "X-Generated-Tokens",
}
