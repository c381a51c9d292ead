package handler

import (
	"crypto/rand"
	"net/http"
	"strconv"
	"strings"

	"github.com/millrace-ai/millrace/handler/telemetry"
)

// setHeaders sets the headers of every answer: those of CORS, and the name of
// the request, which the client has given it or gets to know by this.
func (s *Server) setHeaders(h http.Header, r *http.Request) {
	s.cors(h, r)
	id := telemetry.ID(r.Header)
	if id == "" {
		if h["X-Request-Id"] != nil { // it comes from a route that stands around the Server
			return
		}
		id = newID()
	}
	h["X-Request-Id"] = []string{id}
}

// newID names a request. Only the kernel is asked for a random name: processes that
// Lambda restores from one snapshot share all other state.
func newID() string { return strings.ToLower(rand.Text()[:20]) }

// setCompute sets the headers that every generation has; chars are those of
// the prompt, or of all prompts.
func (s *Server) setCompute(h http.Header, chars int) {
	h["X-Compute-Type"] = s.computeType
	h["X-Compute-Characters"] = []string{strconv.Itoa(chars)}
}

// setTimes sets the headers of a complete answer: seconds for the first, as
// TGI has it, and milliseconds for the others.
func setTimes(h http.Header, t *telemetry.Timing) {
	// One string, cut up: eight headers for one allocation.
	var buf [160]byte
	b, ends := buf[:0], [8]int{}
	b = strconv.AppendFloat(b, t.Total.Seconds(), 'f', -1, 64)
	ends[0] = len(b)
	for i, n := range [...]int64{
		t.Total.Milliseconds(), t.Validation.Milliseconds(), t.Queue.Milliseconds(), t.Inference.Milliseconds(),
		t.PerToken.Milliseconds(), int64(t.Prompt), int64(t.Tokens),
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
