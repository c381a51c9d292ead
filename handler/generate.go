package handler

// decoded handles a route whose bodies decode reads, if there is a model to answer
// them.
func decoded[T any](s *Server, decode func([]byte) (T, error), answer func(*exchange, *model, *T) error) handlerFunc {
	return func(x *exchange) error {
		m, err := s.ready()
		if err == nil {
			err = s.readBody(x)
		}
		if err != nil {
			return err
		}
		req, err := decode(x.body)
		if err != nil {
			return badBody(err)
		}
		return answer(x, m, &req)
	}
}

// generate answers req to POST /generate: one JSON object.
func (s *Server) generate(x *exchange, m *model, req *generateRequest) error {
	return s.generation(x, m, req, false, false)
}

// generateStream answers req to POST /generate_stream: always events.
func (s *Server) generateStream(x *exchange, m *model, req *generateRequest) error {
	return s.generation(x, m, req, true, false)
}

// compat answers req to POST /: events, or an array of one object.
func (s *Server) compat(x *exchange, m *model, req *generateRequest) error {
	if !req.parameters.returnFullText.set {
		req.parameters.returnFullText = some(!s.opt.DiscardPrompt)
	}
	return s.generation(x, m, req, req.stream, true)
}

// generation answers req, in an array if asked to.
func (s *Server) generation(x *exchange, m *model, req *generateRequest, stream, array bool) error {
	s.metrics.Received()
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
