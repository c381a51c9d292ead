package handler

import (
	"strings"

	"github.com/millrace-ai/millrace/handler/body"
)

// generateRequest is the body of the generate routes, as sent. Fields that
// are null count as absent, except where a comment says otherwise.
type generateRequest struct {
	inputs     string // required, null refused
	parameters parameters
	stream     bool // only on / and /invocations
}

var (
	generateFields = []string{"inputs", "parameters", "adapters"}
	compatFields   = []string{"inputs", "parameters", "adapters", "stream"}
)

const (
	fieldInputs = iota
	fieldParameters
	fieldAdapters // LMI's place of adapter_id
	fieldStream
)

// decodeGenerate reads the body of /generate and /generate_stream, where
// stream is one of the fields that nobody knows.
func decodeGenerate(data []byte) (generateRequest, error) {
	return decodeShape(data, "struct GenerateRequest", generateFields)
}

// decodeCompat reads the body of / and of /invocations' generate shape.
func decodeCompat(data []byte) (generateRequest, error) {
	return decodeShape(data, "struct CompatGenerateRequest", compatFields)
}

func decodeShape(data []byte, want string, fields []string) (generateRequest, error) {
	req := generateRequest{parameters: parameters{maxNewTokens: some[uint32](defaultMaxNewTokens)}}
	hasInputs := false
	r := body.NewReader(data)
	err := r.Object(want, fields, func(field int) (err error) {
		if field == fieldInputs {
			hasInputs = true
			req.inputs, err = r.String()
			return err
		}
		if null, err := r.Null(); null {
			return err
		}
		switch field {
		case fieldStream:
			req.stream, err = r.Bool()
			return err
		case fieldAdapters:
			names, err := decodeStop(r)
			if len(names) > 0 {
				req.parameters.adapterID = some(strings.Join(names, ","))
			}
			return err
		}
		return req.parameters.decode(r)
	})
	if err == nil && !hasInputs {
		err = r.Missing("inputs")
	}
	return req, err
}

// generateParameters are the fields of a generate request's parameters.
var generateParameters = fieldsOn(onGenerate)

func (p *parameters) decode(r *body.Reader) error {
	return r.Object("struct GenerateParameters", generateParameters.names, func(field int) error { return generateParameters.set(p, r, field) })
}
