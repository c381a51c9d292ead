package handler

import (
	"net/http"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
)

// generate handles POST /generate: one JSON object.
func (s *Server) generate(x *exchange) error {
	req, err := s.receive(x, decodeGenerate)
	if err != nil {
		return err
	}
	return s.generateOnce(x, &req, false)
}

// generateStream handles POST /generate_stream: always events.
func (s *Server) generateStream(x *exchange) error {
	req, err := s.receive(x, decodeGenerate)
	if err != nil {
		return err
	}
	return s.generateEvents(x, &req)
}

// compatGenerate handles POST /: events, or an array of one object.
func (s *Server) compatGenerate(x *exchange) error {
	req, err := s.receive(x, decodeCompat)
	if err != nil {
		return err
	}
	return s.compat(x, &req)
}

func (s *Server) compat(x *exchange, req *generateRequest) error {
	if !req.parameters.returnFullText.set {
		req.parameters.returnFullText = some(!s.opt.DiscardPrompt)
	}
	if req.stream {
		return s.generateEvents(x, req)
	}
	return s.generateOnce(x, req, true)
}

// receive reads and decodes a body, if there is a model to use it.
func (s *Server) receive(x *exchange, decode func([]byte) (generateRequest, error)) (req generateRequest, err error) {
	if _, err := s.ready(); err != nil {
		return req, err
	}
	if err := s.readBody(x); err != nil {
		return req, err
	}
	req, err = decode(x.body)
	if err != nil {
		return req, badBody(err)
	}
	return req, nil
}

// start checks req, takes permits and submits: x.generation yields the tokens,
// and with best_of x.others do. All is given back when the exchange ends.
func (s *Server) start(x *exchange, req *generateRequest, stream bool) (*job, error) {
	s.metrics.Received()
	m, err := s.ready()
	if err != nil {
		return nil, err
	}
	if err := s.checkMode(&req.parameters, stream); err != nil {
		return nil, err
	}
	best := int(max(1, req.parameters.bestOf.or(1)))
	if err := s.takePermits(x, best); err != nil {
		return nil, err
	}
	j, err := s.prepare(x, m, req)
	if err != nil {
		return nil, err
	}
	s.metrics.Accepted(&j.req)
	if best > 1 {
		return j, s.startBest(x, m, j, best)
	}
	streams, err := x.submit(m, &j.req, []uint64{j.req.Params.Seed}, stream)
	if err != nil {
		return nil, err
	}
	x.generation.reset(m.tok, j, streams[0])
	return j, nil
}

// generateOnce answers with the whole generation, in an array if asked to.
func (s *Server) generateOnce(x *exchange, req *generateRequest, array bool) error {
	j, err := s.start(x, req, false)
	if err != nil {
		return err
	}
	best := &x.generation
	var others []*generation
	if len(x.others) == 0 {
		err = best.read(x.r.Context(), x, j)
	} else {
		best, others, err = s.readBest(x, j)
	}
	if err != nil {
		return err
	}
	t := x.timing(j, best)
	x.out = appendAnswer(x.out[:0], j, best, others, x.stream.Prompt(), array)
	s.setCompute(x.w.Header(), j.chars)
	setTimes(x.w.Header(), t)
	s.mayWrite(x, time.Now())
	writeJSON(x.w, http.StatusOK, x.out)
	s.succeeded(x, j, t)
	return nil
}

// appendAnswer appends the answer of generateOnce. prompt is scored if the
// request asks for it.
func appendAnswer(dst []byte, j *job, best *generation, others []*generation, prompt []engine.Token, array bool) []byte {
	if array {
		dst = append(dst, '[')
	}
	dst = append(dst, `{"generated_text":`...)
	dst = best.appendText(dst, j)
	if j.details {
		dst = append(dst, `,"details":{`...)
		dst = best.appendEnding(dst)
		dst = best.appendTokens(dst, prompt)
		for i, g := range others {
			if i == 0 {
				dst = append(dst, `,"best_of_sequences":[`...)
			} else {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"generated_text":`...)
			dst = g.appendText(dst, j)
			dst = append(dst, ',')
			dst = g.appendEnding(dst)
			dst = g.appendTokens(dst, prompt)
			dst = g.appendTopTokens(dst)
			dst = append(dst, '}')
		}
		if len(others) > 0 {
			dst = append(dst, ']')
		}
		dst = best.appendTopTokens(dst)
		dst = append(dst, '}')
	}
	dst = append(dst, '}')
	if array {
		dst = append(dst, ']')
	}
	return dst
}

// textOf is the text of one token by itself.
func textOf(tok *token.Tokenizer, id int32) string { return tok.Decode([]int32{id}, false) }

// finishReason is the contract's name of a reason.
func finishReason(r engine.FinishReason) string {
	switch r {
	case engine.FinishEOS:
		return "eos_token"
	case engine.FinishStop, engine.FinishStopToken:
		return "stop_sequence"
	}
	return "length"
}
