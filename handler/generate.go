package handler

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/stop"
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

// start checks req, takes a permit and submits: x.text yields the tokens. The
// permit and the stream are given back when the exchange ends.
func (s *Server) start(x *exchange, req *generateRequest, stream bool) (*job, error) {
	s.metrics.requests.Inc()
	m, err := s.ready()
	if err != nil {
		return nil, err
	}
	if err := s.checkMode(&req.parameters, stream); err != nil {
		return nil, err
	}
	if err := s.takePermits(x, 1); err != nil {
		return nil, err
	}
	j, err := s.prepare(x.r.Context(), m, req)
	if err != nil {
		return nil, err
	}
	s.metrics.accepted(j)
	if x.stream, err = m.gen.Submit(x.r.Context(), &j.req); err != nil {
		return nil, err
	}
	x.tok = m.tok
	x.text.Reset(x.stream, token.NewDecoder(m.tok, j.req.Tokens), m.tok, stop.New(j.stops))
	return j, nil
}

// generateOnce answers with the whole generation, in an array if asked to.
func (s *Server) generateOnce(x *exchange, req *generateRequest, array bool) error {
	j, err := s.start(x, req, false)
	if err != nil {
		return err
	}
	x.tokens, x.top = x.tokens[:0], x.top[:0]
	for done := false; !done; {
		pieces, err := x.text.Next(x.r.Context())
		if err == io.EOF {
			return incomplete(err)
		}
		if err != nil {
			return err
		}
		if j.details {
			x.collect(j, pieces)
		}
		done = pieces[len(pieces)-1].Last
	}
	t := x.timing(j)
	x.out = x.appendGeneration(x.out[:0], j, array)
	s.setCompute(x.w.Header(), j.chars)
	setTimes(x.w.Header(), t)
	s.mayWrite(x, time.Now())
	writeJSON(x.w, http.StatusOK, x.out)
	s.succeeded(x, j, t)
	return nil
}

// collect appends pieces to the lists of details.
func (x *exchange) collect(j *job, pieces []engine.Piece) {
	for i := range pieces {
		p := &pieces[i]
		x.tokens = appendComma(x.tokens)
		x.tokens = appendToken(x.tokens, p.ID, p.Text, p.Logprob, p.Special)
		if j.req.TopN > 0 {
			x.top = appendComma(x.top)
			x.top = appendTop(x.top, x.tok, p.Top)
		}
	}
}

func appendComma(dst []byte) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	return dst
}

// appendTop appends a token's alternatives as a list of tokens.
func appendTop(dst []byte, tok *token.Tokenizer, top []engine.Alternative) []byte {
	dst = append(dst, '[')
	for i, a := range top {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendToken(dst, a.ID, textOf(tok, a.ID), a.Logprob, tok.IsSpecial(a.ID))
	}
	return append(dst, ']')
}

// appendGeneration appends the answer of generateOnce.
func (x *exchange) appendGeneration(dst []byte, j *job, array bool) []byte {
	if array {
		dst = append(dst, '[')
	}
	dst = append(dst, `{"generated_text":`...)
	dst = x.appendGenerated(dst, j)
	if j.details {
		dst = append(dst, `,"details":{`...)
		dst = x.appendEnding(dst, j)
		dst = append(dst, `,"prefill":[`...)
		dst = appendPrefill(dst, x.tok, x.stream.Prompt())
		dst = append(dst, `],"tokens":[`...)
		dst = append(dst, x.tokens...)
		dst = append(dst, ']')
		if len(x.top) > 0 {
			dst = append(dst, `,"top_tokens":[`...)
			dst = append(dst, x.top...)
			dst = append(dst, ']')
		}
		dst = append(dst, '}')
	}
	dst = append(dst, '}')
	if array {
		dst = append(dst, ']')
	}
	return dst
}

// appendGenerated appends the generated text, behind the prompt if wanted.
func (x *exchange) appendGenerated(dst []byte, j *job) []byte {
	if !j.fullText {
		return appendString(dst, x.text.Generated())
	}
	dst = appendString(dst, j.inputs)
	from := len(dst) - 1 // the two strings become one: the quotes between them go
	dst = appendString(dst[:from], x.text.Generated())
	return append(dst[:from], dst[from+1:]...)
}

// appendEnding appends the first fields of details.
func (x *exchange) appendEnding(dst []byte, j *job) []byte {
	dst = append(dst, `"finish_reason":"`...)
	dst = append(dst, finishReason(x.text.Finish())...)
	dst = append(dst, `","generated_tokens":`...)
	dst = strconv.AppendInt(dst, int64(x.text.Tokens()), 10)
	dst = append(dst, `,"seed":`...)
	if !j.seed.set {
		return append(dst, "null"...)
	}
	return strconv.AppendUint(dst, j.seed.v, 10)
}

// appendPrefill appends the scored prompt.
func appendPrefill(dst []byte, tok *token.Tokenizer, prompt []engine.Token) []byte {
	for i, t := range prompt {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = strconv.AppendInt(dst, int64(t.ID), 10)
		dst = append(dst, `,"text":`...)
		dst = appendString(dst, textOf(tok, t.ID))
		dst = append(dst, `,"logprob":`...)
		dst = appendFloat32(dst, t.Logprob)
		dst = append(dst, '}')
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
	case engine.FinishStop:
		return "stop_sequence"
	}
	return "length"
}
