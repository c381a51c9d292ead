package handler

import (
	"net/http"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/internal/web"
)

// vertexInstance is one request of the several in a body of /vertex.
type vertexInstance struct {
	text *generateRequest // nil: a chat
	chat chatRequest
}

var (
	vertexFields     = []string{"instances"}
	vertexTextFields = []string{"inputs", "parameters"}
)

// vertex answers POST /vertex, the route of Google's Vertex AI: prompts and chats,
// side by side with the text of each.
func (s *Server) vertex(x *exchange, m *model, all *[]vertexInstance) error {
	instances := *all
	if len(instances) == 0 {
		return failure(http.StatusUnprocessableEntity, "Input validation error", "Input validation error")
	}
	s.metrics.Received()
	if err := s.takePermits(x, len(instances)); err != nil {
		return err
	}
	for i := range instances {
		j, err := s.prepareInstance(x, m, &instances[i])
		if err != nil {
			return err
		}
		if err := s.submit(x, m, j, false); err != nil {
			return err
		}
	}
	if err := s.readAll(x, func(*sequence, []engine.Piece) {}); err != nil {
		return err
	}
	x.out = append(x.out[:0], `{"predictions":[`...)
	for i, q := range x.sequences {
		if i > 0 {
			x.out = append(x.out, ',')
		}
		x.out = appendString(x.out, q.text.Generated())
	}
	x.out = append(x.out, "]}"...)
	web.WriteJSON(x.w, http.StatusOK, x.out)
	s.succeeded(x, x.timing(x.sequences, openAIReason))
	return nil
}

func decodeVertex(data []byte) (instances []vertexInstance, err error) {
	has := false
	r := body.NewReader(data)
	err = r.Object("struct VertexRequest", vertexFields, func(int) error {
		has = true
		return r.Array("a sequence", func(int) error {
			i, err := readInstance(r)
			instances = append(instances, i)
			return err
		})
	})
	if err == nil && !has {
		err = r.Missing("instances")
	}
	return instances, err
}

// readInstance reads a prompt if there are inputs, else a chat.
func readInstance(r *body.Reader) (i vertexInstance, err error) {
	ahead := *r
	if ahead.IsObject() {
		if err := ahead.Object("", vertexTextFields[:1], func(int) error {
			i.text = new(generateRequest)
			return ahead.Skip()
		}); err != nil {
			return i, err
		}
	}
	if i.text == nil {
		i.chat, err = readChat(r)
		return i, err
	}
	// TGI draws, whatever a request says, and does not read the other fields.
	i.text.parameters.doSample = true
	return i, r.Object("struct GenerateVertexInstance", vertexTextFields, func(field int) (err error) {
		if field == fieldInputs {
			i.text.inputs, err = r.String()
			return err
		}
		if null, err := r.Null(); null {
			return err
		}
		all := parameters{maxNewTokens: some[uint32](defaultMaxNewTokens)}
		err = all.decode(r)
		i.text.parameters.maxNewTokens, i.text.parameters.seed = all.maxNewTokens, all.seed
		return err
	})
}

// prepareInstance checks an instance and makes of it what the engine needs.
func (s *Server) prepareInstance(x *exchange, m *model, i *vertexInstance) (*job, error) {
	if i.text != nil {
		return s.prepare(x, m, i.text)
	}
	if err := m.checkMessages(&i.chat); err != nil {
		return nil, err
	}
	prompt, err := s.renderChat(x, m, &i.chat)
	if err != nil {
		return nil, err
	}
	i.chat.n = optional[uint32]{} // a prediction is one text
	return s.prepareChat(x, m, &i.chat, prompt)
}
