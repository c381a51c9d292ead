package handler

import (
	"cmp"

	"github.com/millrace-ai/millrace/engine"
)

// complete answers req to POST /v1/completions or to /invocations.
func (s *Server) complete(x *exchange, m *model, req *completionRequest) error {
	s.metrics.Received()
	if err := s.startCompletion(x, m, req); err != nil {
		return err
	}
	a := newCompletionAnswer(s.newOpenAIHead("text_completion", "cmpl-", x.sequences[0].job.adapter), m.tok, req, x.sequences)
	return s.respond(x, a, req.stream)
}

// startCompletion checks req, takes permits and submits: x.sequences yield the
// tokens, those of a prompt one after the other. Nothing is submitted before
// all prompts have passed the checks.
func (s *Server) startCompletion(x *exchange, m *model, req *completionRequest) error {
	m.sampling.fill(&req.parameters)
	x.shown = req.logprobs.set
	if _, err := s.choices(&req.parameters); err != nil {
		return err
	}
	best, err := s.checkCompletion(req, m.template.Completes())
	if err != nil {
		return err
	}
	if err := s.checkOpenAI(x, m, &req.parameters); err != nil {
		return err
	}
	if n := len(req.prompts) * int(best); n > s.opt.MaxConcurrentRequests {
		return invalid("%d prompts with `best_of` or `n` %d are more than the %d sequences that may run at once", len(req.prompts), best, s.opt.MaxConcurrentRequests)
	}
	if err := s.takePermits(x, len(req.prompts)*int(best)); err != nil {
		return err
	}
	jobs := make([]*job, len(req.prompts))
	for i, p := range req.prompts {
		if jobs[i], err = s.prepareCompletion(x, m, req, p, int(best)); err != nil {
			closeGuides(jobs[:i])
			return err
		}
	}
	seeds := seedsOf(req.seed, int(best))
	for i, j := range jobs {
		j.seeds = seeds
		if err := s.submit(x, m, j, req.stream); err != nil {
			closeGuides(jobs[i+1:]) // the engine has the others
			return err
		}
	}
	return nil
}

// closeGuides closes the grammars of jobs that are not submitted.
func closeGuides(jobs []*job) {
	for _, j := range jobs {
		j.req.Constraint.Close()
	}
}

// prepareCompletion checks the request for one prompt and makes of it what the
// engine needs for best sequences.
func (s *Server) prepareCompletion(x *exchange, m *model, req *completionRequest, p prompt, best int) (*job, error) {
	params := req.parameters
	params.settle(&completionNames)
	params.topNTokens = req.logprobs
	params.scoring = req.echo || req.promptLogprobs.set
	if !params.maxNewTokens.set {
		params.maxNewTokens = some[uint32](defaultMaxNewTokens)
	}
	if err := cmp.Or(s.checkParameters(&params), m.checkTruncate(&params)); err != nil {
		return nil, err
	}
	ids, text, seen, err := s.encodePrompt(x, m, req, &params, p)
	if err != nil {
		return nil, err
	}
	if req.echo && !req.logprobs.set {
		params.scoring = req.promptLogprobs.set
	}
	j, err := s.newImageJob(x, m, &params, text, ids, seen, best)
	if err != nil {
		return nil, err
	}
	if g := req.format.Grammar(); g.Kind != "" {
		matcher, err := s.matcher(x.r.Context(), specOf(g))
		if err != nil {
			return nil, within(err, req.formatField)
		}
		j.req.Constraint = &engine.Constraint{Grammar: matcher}
	}
	return j, nil
}

// encodePrompt returns the tokens of a prompt, which are the given ones if it
// has any, its text, and the images in that, with which it is still to be truncated.
func (s *Server) encodePrompt(x *exchange, m *model, req *completionRequest, params *parameters, p prompt) (ids []int32, text string, seen []picture, err error) {
	if p.ids != nil {
		if req.suffix.set {
			return nil, "", nil, invalid("`suffix` needs a `prompt` that is a text")
		}
		for i, id := range p.ids {
			if int(id) >= m.limits.Vocab {
				return nil, "", nil, invalid("`prompt` must name tokens below %d. Given: %d at %d", m.limits.Vocab, id, i)
			}
		}
		if ids = m.truncate(p.ids, params); len(ids) < len(p.ids) {
			return ids, m.tok.Decode(ids, true), nil, nil
		}
		if err := m.checkLength(len(ids), int(params.maxNewTokens.or(0)), "", params); err != nil {
			return nil, "", nil, err // before their text is made, which may be many times as long
		}
		text = m.tok.Decode(ids, true)
		return ids, text, nil, x.hold(int64(len(text)))
	}
	if text = p.text; req.suffix.set {
		if text, err = m.template.RenderCompletion(p.text, req.suffix.v, s.tokenizable()); err != nil {
			return nil, "", nil, err
		}
	}
	if err := checkInputs(text, params); err != nil {
		return nil, "", nil, err
	}
	expanded, seen, err := s.readImages(x, m, text)
	if err != nil {
		return nil, "", nil, err
	}
	whole, err := s.encode(x, m, expanded, 0, m.addSpecial(req.addSpecial.or(true), seen), params)
	if err != nil || len(seen) > 0 {
		return whole, text, seen, err
	}
	if ids = m.truncate(whole, params); len(ids) < len(whole) {
		text = m.tok.Decode(ids, true)
	}
	return ids, text, nil, nil
}
