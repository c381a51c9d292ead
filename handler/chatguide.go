package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler/chat"
)

// chatGuide returns what holds the answer to a chat, behind a prompt of ids, to
// its format or its calls to their tools; nil if all text is allowed. The
// engine that gets it closes its matchers.
func (s *Server) chatGuide(ctx context.Context, m *model, ids []int32, format chat.ResponseFormat, tools []chat.Tool, c chat.Constraint) (*engine.Guide, error) {
	if g := format.Grammar(); g.Kind != "" { // then there are no tools
		matcher, err := s.matcher(ctx, specOf(g))
		return &engine.Guide{Grammar: matcher}, err
	}
	if c.Grammar.Kind != "" {
		if fault := checkTools(tools); fault != "" {
			return nil, badGrammar("%s", fault)
		}
		matcher, err := s.matcher(ctx, specOf(c.Grammar))
		if isFault(err) {
			err = s.explainTools(ctx, tools, err)
		}
		return &engine.Guide{Grammar: matcher}, err
	}
	if len(c.Triggers) == 0 || checkTools(tools) != "" {
		return nil, nil // nobody asked for a grammar: calls are written freely
	}
	g := &engine.Guide{NewDetokenizer: func() engine.Detokenizer { return token.NewDecoder(m.tok, ids) }}
	for _, t := range c.Triggers {
		switch matcher, err := s.matcher(ctx, specOf(t.Grammar)); {
		case err == nil:
			g.Triggers = append(g.Triggers, engine.Trigger{Text: t.Text, AtStart: t.AtStart, Grammar: matcher})
		case isFault(err):
			// As above, for calls in this form.
		default:
			closeTriggers(g.Triggers)
			return nil, err
		}
	}
	if len(g.Triggers) == 0 {
		return nil, nil
	}
	return g, nil
}

// checkTools returns what is wrong with a tool's schema, or costs too much. A
// grammar of calls must not be compiled before: the library has no such limits
// inside of one.
func checkTools(tools []chat.Tool) (fault string) {
	for _, t := range tools {
		if err := schemaOf(t).Check(); err != nil {
			return fmt.Sprintf("parameters of %s: %v", t.Name, err)
		}
	}
	return ""
}

// explainTools says which tool is at fault when the grammar of all calls has
// failed with err.
func (s *Server) explainTools(ctx context.Context, tools []chat.Tool, err error) error {
	for _, t := range tools {
		matcher, fault := s.matcher(ctx, schemaOf(t))
		if fault == nil {
			matcher.Close()
			continue
		}
		if reason, ok := strings.CutPrefix(fault.Error(), badGrammar("").Msg); ok {
			return badGrammar("parameters of %s: %s", t.Name, reason)
		}
	}
	return err
}

// isFault reports whether err is the fault of a grammar, or of all of them.
func isFault(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusUnprocessableEntity
}

func closeTriggers(triggers []engine.Trigger) {
	for _, t := range triggers {
		t.Grammar.Close()
	}
}

func schemaOf(t chat.Tool) grammar.Spec {
	return grammar.Spec{Kind: grammar.JSONSchema, Text: string(t.Parameters)}
}

func specOf(g chat.Grammar) grammar.Spec {
	return grammar.Spec{Kind: grammar.Kind(g.Kind), Text: g.Text}
}
