package handler

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler/chat"
)

// chatGuide returns what holds the answer to a chat, after a prompt of ids, to
// its format or its calls to their tools; nil if all text is allowed. The
// engine that gets it closes its matchers.
func (s *Server) chatGuide(ctx context.Context, m *model, ids []int32, format chat.ResponseFormat, tools []chat.Tool, c chat.Constraint) (*engine.Constraint, error) {
	if g := format.Grammar(); g.Kind != "" { // then there are no tools
		matcher, err := s.matcher(ctx, specOf(g))
		return &engine.Constraint{Grammar: matcher}, err
	}
	if c.Grammar.Kind != "" {
		matcher, err := s.matcher(ctx, specOf(c.Grammar))
		if isFault(err) {
			err = s.explainTools(ctx, tools, err)
		}
		return &engine.Constraint{Grammar: matcher}, err
	}
	if len(c.Triggers) == 0 {
		return nil, nil
	}
	g := &engine.Constraint{NewDetokenizer: func() engine.Detokenizer { return token.NewDecoder(m.tok, ids) }}
	for _, t := range c.Triggers {
		switch matcher, err := s.matcher(ctx, specOf(t.Grammar)); {
		case err == nil:
			g.Triggers = append(g.Triggers, engine.Trigger{Text: t.Text, AtStart: t.AtStart, Grammar: matcher})
		case isFault(err):
			// Nobody asked for a grammar: calls in this form are written freely.
		default:
			g.Close()
			return nil, err
		}
	}
	if len(g.Triggers) == 0 {
		return nil, nil
	}
	return g, nil
}

// explainTools says which tool is at fault when the grammar of all calls has
// failed with err.
func (s *Server) explainTools(ctx context.Context, tools []chat.Tool, err error) error {
	prefix := badGrammar("").Msg
	for _, t := range tools {
		matcher, fault := s.matcher(ctx, grammar.Spec{Kind: grammar.JSONSchema, Text: string(t.Parameters)})
		if fault == nil {
			matcher.Close()
			continue
		}
		if reason, ok := strings.CutPrefix(fault.Error(), prefix); ok {
			return badGrammar("tools[%d].function.parameters%s", t.Index, reason)
		}
	}
	if _, reason, ok := strings.Cut(err.Error(), "lark"); ok {
		return badGrammar("tools: the grammar of all their calls%s", reason)
	}
	return err
}

// isFault reports whether err is the fault of a grammar, or of all of them.
func isFault(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusUnprocessableEntity
}

func specOf(g chat.Grammar) grammar.Spec {
	return grammar.Spec{Kind: grammar.Kind(g.Kind), Text: g.Text}
}
