package handler

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"

	"github.com/millrace-ai/millrace/handler/chat"
)

// chat answers req to POST /v1/chat/completions or to /invocations.
func (s *Server) chat(x *exchange, m *model, req *chatRequest) error {
	s.metrics.Received()
	n, err := s.choices(&req.parameters)
	if err != nil {
		return err
	}
	if err = s.takePermits(x, n); err == nil {
		err = m.checkMessages(req)
	}
	if err != nil {
		return err
	}
	x.shown = req.logprobs
	prompt, err := s.renderChat(x, m, req)
	if err != nil {
		return err
	}
	j, err := s.prepareChat(x, m, req, prompt)
	if err != nil {
		return err
	}
	if err := s.submit(x, m, j, req.stream); err != nil {
		return err
	}
	return s.respond(x, s.newChatAnswer(m.tok, req, &prompt, x.sequences), req.stream)
}

// chatPrompt is what a model gets to read, and how its answer is understood.
type chatPrompt struct {
	text       string
	marked     string // to be tokenized: text, with marks as in chat.Prompt
	mark       rune   // 0: none
	selection  chat.Selection
	seen       []picture // its images
	constraint chat.Constraint
	format     *chat.Format
	thinking   bool // the text ends inside the model's reasoning
	mayReason  bool // the answer may begin with reasoning, or goes on with it
}

// renderChat makes the prompt of req. Its errors come before all others, as
// TGI's do.
func (s *Server) renderChat(x *exchange, m *model, req *chatRequest) (p chatPrompt, err error) {
	if req.refused != nil {
		return p, req.refused
	}
	if p.selection, err = chat.Select(req.tools); err != nil {
		return p, err
	}
	if err := s.refuseImages(m, req.prompt.Messages); err != nil {
		return p, err
	}
	p.selection.OpenObjects = s.opt.OpenObjects
	r := req.prompt
	r.Tools, r.Placeholder = p.selection.Tools, m.placeholder()
	prompt, err := s.render(x, m, r)
	if err != nil {
		return p, err
	}
	if req.documents != nil {
		without := prompt.Text
		req.setVariable("documents", req.documents)
		r.Variables = req.prompt.Variables
		if prompt, err = s.render(x, m, r); err != nil {
			return p, err
		}
		if prompt.Text == without {
			return p, unsupported("documents", "is not supported: the model's chat template does not show them")
		}
	}
	p.format = m.template.Format()
	p.constraint, err = p.selection.Constraint(p.format)
	p.thinking = prompt.Thinking
	begins := !req.prompt.Continues() && !strings.HasSuffix(strings.TrimSpace(prompt.Text), p.format.Reasoning.Close)
	p.mayReason = p.format.Reasoning.Exists() && (p.thinking || begins)
	p.text, p.marked, p.mark = prompt.Text, prompt.Marked, prompt.Mark
	if err != nil {
		return p, err
	}
	if p.seen, err = s.see(x, m, prompt.Images); err == nil {
		p.marked, err = m.expand(p.marked, p.seen)
	}
	return p, err
}

// checkMessages refuses a chat of more messages than a prompt may have tokens.
func (m *model) checkMessages(req *chatRequest) error {
	if n := len(req.prompt.Messages); n > m.limits.MaxInput && !req.truncate.set {
		return tooLong("`messages` must have less than %d tokens. Given: %d messages", m.limits.MaxInput, n)
	}
	return nil
}

// render has the template write a prompt when it is its turn.
func (s *Server) render(x *exchange, m *model, r chat.Request) (p chat.Prompt, err error) {
	r.MaxBytes = s.tokenizable()
	err = s.work(x, "messages", x.shape.rendering(), func() error {
		p, err = m.template.Render(r)
		var long *chat.LengthError
		switch {
		case errors.As(err, &long):
			return tooLong("`messages` make a prompt of more than the %d bytes that there is memory to tokenize", long.Limit)
		case err != nil:
			return err
		}
		if p.Mark != 0 {
			return x.hold(int64(len(p.Text) + len(p.Marked)))
		}
		return x.hold(int64(len(p.Text)))
	})
	return p, err
}

// prepareChat checks req and makes of it what the engine needs.
func (s *Server) prepareChat(x *exchange, m *model, req *chatRequest, prompt chatPrompt) (*job, error) {
	p := req.parameters
	m.sampling.fill(&p)
	p.settle(req.route)
	p.topNTokens = req.topLogprobs
	p.scoring = req.promptLogprobs.set
	if !p.maxNewTokens.set && s.opt.DefaultMaxTokens > 0 {
		p.maxNewTokens = some(uint32(s.opt.DefaultMaxTokens))
	}
	err := cmp.Or(s.checkParameters(&p), checkInputs(prompt.text, &p))
	if err == nil { // an adapter is only loaded for what is right so far
		err = cmp.Or(s.checkOpenAI(x, m, &p), m.checkTruncate(&p))
	}
	if err != nil {
		return nil, err
	}
	ids, err := s.encode(x, m, prompt.marked, prompt.mark, m.addSpecial(req.addSpecial.or(false), prompt.seen), &p)
	if err != nil {
		return nil, err
	}
	if !req.logprobs {
		p.topNTokens = optional[uint32]{}
	}
	j, err := s.newImageJob(x, m, &p, prompt.text, ids, prompt.seen, 1)
	if err != nil {
		return nil, err
	}
	ids = j.req.Tokens
	j.seeds = seedsOf(p.seed, int(req.n.or(1)))
	if j.req.Prediction, err = s.predicted(x, m, req.prediction); err != nil {
		return nil, err
	}
	if j.req.Constraint, err = s.chatGuide(x.r.Context(), m, ids, req.tools.Format, prompt.selection.Tools, prompt.constraint); err != nil {
		return nil, within(err, req.formatField)
	}
	if j.req.Constraint, err = s.reason(x, m, j.req.Constraint, &p, &prompt, ids); err != nil {
		j.req.Constraint.Close()
		return nil, err
	}
	return j, nil
}

// predicted returns the tokens of a prediction, as many as an answer may have; none where
// nothing is drafted from them.
func (s *Server) predicted(x *exchange, m *model, text string) (ids []int32, err error) {
	if text == "" || !s.opt.Speculate {
		return nil, nil
	}
	err = s.tokenizing(x, m, "prediction", text, func() error {
		if ids, err = m.tok.Encode(text, false); err != nil {
			return invalid("tokenizer error %v", err)
		}
		ids = ids[:min(len(ids), m.limits.MaxTotal)]
		return x.hold(4 * int64(len(ids)))
	})
	return ids, err
}

// randomSeed draws a seed, from the kernel as newID does.
func randomSeed() uint64 {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // never fails, by its contract
	return binary.NativeEndian.Uint64(b[:])
}

// seedsOf returns the seeds of n choices: the request's own for the first, so
// that one choice is always the same, and others that follow from it.
func seedsOf(seed optional[uint64], n int) []uint64 {
	first := seed.v
	if !seed.set {
		first = randomSeed()
	}
	seeds := make([]uint64, n)
	for i := range seeds {
		const step = 0x9e3779b97f4a7c15 // 2^64 / golden ratio: far apart, and no two equal
		seeds[i] = first + uint64(i)*step
	}
	return seeds
}
