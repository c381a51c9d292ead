package handler

// generate handles POST /generate: one JSON object.
func (s *Server) generate(x *exchange) error {
	req, err := s.receive(x, decodeGenerate)
	if err != nil {
		return err
	}
	return s.generation(x, &req, false, false)
}

// generateStream handles POST /generate_stream: always events.
func (s *Server) generateStream(x *exchange) error {
	req, err := s.receive(x, decodeGenerate)
	if err != nil {
		return err
	}
	return s.generation(x, &req, true, false)
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
	return s.generation(x, req, req.stream, true)
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

// generation answers req, in an array if asked to.
func (s *Server) generation(x *exchange, req *generateRequest, stream, array bool) error {
	s.metrics.Received()
	m, err := s.ready()
	if err != nil {
		return err
	}
	p := &req.parameters
	if err := s.checkMode(p, stream); err != nil {
		return err
	}
	best := int(max(1, p.bestOf.or(1)))
	if err := s.takePermits(x, best); err != nil {
		return err
	}
	j, err := s.prepare(x, m, req)
	if err != nil {
		return err
	}
	if err := s.submit(x, m, j, stream); err != nil {
		return err
	}
	return s.respond(x, newTGIAnswer(m.tok, best, array), stream)
}
