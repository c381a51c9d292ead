package handler

import (
	"net/http"

	"github.com/millrace-ai/millrace/handler/body"
)

// invocations handles POST /invocations, SageMaker's one route. The body says
// what it is: the first of these shapes that it has in full is served.
//
//	generate    inputs is a string, parameters and stream are valid
//	chat        messages is an array
//	completion  prompt is a string or an array
func (s *Server) invocations(x *exchange) error {
	if _, err := s.ready(); err != nil {
		return err
	}
	if err := s.readBody(x); err != nil {
		return err
	}
	req, err := decodeCompat(x.body)
	if err == nil {
		return s.compat(x, &req)
	}
	shape, scanErr := scanShapes(x.body)
	switch {
	case scanErr != nil:
		return badBody(scanErr)
	case shape.messages:
		return notYet("the chat shape of /invocations (`messages`)")
	case shape.prompt:
		return notYet("the completion shape of /invocations (`prompt`)")
	case shape.inputs:
		return badBody(err) // says which field is wrong, where TGI's answer does not
	}
	return failure(http.StatusUnprocessableEntity, "validation",
		"Failed to deserialize the JSON body into the target type: data did not match any variant of untagged enum SagemakerRequest")
}

// shapes tells which of the three shapes a body begins to have.
type shapes struct{ inputs, messages, prompt bool }

// scanShapes looks at the top level of a body. An error means that the body is
// not JSON; any JSON that is no object has no shape.
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
			s.messages = r.IsArray()
		case 2:
			s.prompt = r.IsString() || r.IsArray()
		}
		return r.Skip()
	})
	return s, err
}
