package handler

import (
	"cmp"
	"net/http"

	"github.com/millrace-ai/millrace/handler/body"
)

// invocations handles POST /invocations, SageMaker's one route. The body says
// by its fields what it is; the first of these shapes that it has in full is
// served.
//
//	generate    inputs is a string, parameters and stream are valid
//	chat        messages
//	completion  prompt
//
// If it has none in full, the answer says what is wrong with the first one
// that it begins to have, where TGI says that it has none.
func (s *Server) invocations(x *exchange) error {
	m, err := s.ready()
	if err == nil {
		err = s.readBody(x)
	}
	if err != nil {
		return err
	}
	generate, fault := decodeCompat(x.body)
	if fault == nil {
		return s.compat(x, m, &generate)
	}
	shape, err := scanShapes(x.body)
	if err != nil {
		return badBody(err)
	}
	if !shape.inputs {
		fault = nil
	}
	if shape.messages {
		req, err := decodeChat(x.body)
		if err == nil {
			return s.chat(x, m, &req)
		}
		fault = cmp.Or(fault, err)
	}
	if shape.prompt {
		req, err := decodeCompletion(x.body)
		if err == nil {
			return s.complete(x, m, &req)
		}
		fault = cmp.Or(fault, err)
	}
	if fault != nil {
		return badBody(fault)
	}
	return failure(http.StatusUnprocessableEntity, "validation",
		"Failed to deserialize the JSON body into the target type: data did not match any variant of untagged enum SagemakerRequest")
}

// shapes tells which of the three shapes a body begins to have.
type shapes struct{ inputs, messages, prompt bool }

// scanShapes looks at the top level of a body. An error means that the body is
// not JSON; any JSON that is not an object has no shape.
func scanShapes(data []byte) (s shapes, err error) {
	r := body.NewReader(data)
	if !r.IsObject() {
		return s, r.Skip()
	}
	err = r.Object("struct SagemakerRequest", []string{"inputs", "messages", "prompt"}, func(field int) error {
		switch field {
		case 0:
			s.inputs = true
		case 1:
			s.messages = true
		case 2:
			s.prompt = true
		}
		return r.Skip()
	})
	return s, err
}
