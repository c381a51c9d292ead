package handler

import (
	"iter"
	"math"
	"sync"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/stop"
	"github.com/millrace-ai/millrace/engine/token"
)

// sequence is one of the texts that are generated for a request. Sequences are
// pooled for the buffers of their texts.
type sequence struct {
	index  int // among the request's
	job    *job
	seed   uint64
	stream *engine.Stream
	text   engine.Text
	score  float64 // sum of the log-probabilities of the tokens read
	late   error   // its deadline found it waiting
}

var sequences = sync.Pool{New: func() any { return new(sequence) }}

// newSequence returns a sequence that reads stream, which generates for j.
func newSequence(index int, j *job, seed uint64, stream *engine.Stream, tok *token.Tokenizer) *sequence {
	q := sequences.Get().(*sequence)
	q.index, q.job, q.seed, q.stream = index, j, seed, stream
	q.text.Reset(stream, token.NewDecoder(tok, j.req.Tokens), tok, stop.New(j.stops))
	q.text.StopAfter(j.req.MinNewTokens)
	return q
}

// close ends q, whose place in the engine becomes free.
func (q *sequence) close() {
	q.stream.Close()
	q.text.Reset(nil, nil, nil, nil)
	*q = sequence{text: q.text}
	sequences.Put(q)
}

// mean is the mean log-probability of the tokens. Nothing is worse than no
// token.
func (q *sequence) mean() float64 {
	if q.text.Tokens() == 0 {
		return math.Inf(-1)
	}
	return q.score / float64(q.text.Tokens())
}

// submit gives j to the engine once for each of its seeds, and adds the sequences to
// those of x. With stream their deadline is that of a stream.
func (s *Server) submit(x *exchange, m *model, j *job, stream bool) error {
	if err := x.useAdapter(m, j); err != nil {
		closeGuides([]*job{j})
		return err
	}
	s.metrics.Accepted(&j.req)
	ctx := x.r.Context()
	j.req.Params.Seed = j.seeds[0]
	j.req.Deadline = deadlineOf(ctx, stream)
	streams, err := m.gen.SubmitN(ctx, &j.req, j.seeds)
	for i, stream := range streams {
		x.sequences = append(x.sequences, newSequence(len(x.sequences), j, j.seeds[i], stream, m.tok))
	}
	return err
}

// prompts yields the first sequence of each job: those of one share its prompt.
func prompts(all []*sequence) iter.Seq[*sequence] {
	return func(yield func(*sequence) bool) {
		for i, q := range all {
			if (i == 0 || q.job != all[i-1].job) && !yield(q) {
				return
			}
		}
	}
}

// promptTokens counts the tokens of the prompts of all.
func promptTokens(all []*sequence) (n int) {
	for q := range prompts(all) {
		n += len(q.job.req.Tokens)
	}
	return n
}

// promptChars counts the characters of the prompts of all.
func promptChars(all []*sequence) (n int) {
	for q := range prompts(all) {
		n += q.job.chars
	}
	return n
}

// generated counts the tokens of all.
func generated(all []*sequence) (n int) {
	for _, q := range all {
		n += q.text.Tokens()
	}
	return n
}
