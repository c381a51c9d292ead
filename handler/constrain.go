package handler

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/handler/body"
)

// matcher compiles spec for one sequence. It may take about a second, a little
// more for the first grammar of all, which has to wait for the compiler. The
// error is for the client: a fault of the grammar, or no room to compile it.
// The caller closes the Matcher, unless it gives it to the engine.
func (s *Server) matcher(ctx context.Context, spec grammar.Spec) (*grammar.Matcher, error) {
	m, err := s.ready()
	if err != nil {
		return nil, err
	}
	if s.opt.DisableGrammar || m.compiler == nil {
		return nil, invalid("grammar is not supported")
	}
	compiler, err := m.compiler()
	if err != nil {
		e := invalid("grammar is not supported: %v", err)
		e.Err = err
		return nil, e
	}
	spec.Open = s.opt.OpenObjects
	matcher, err := compiler.Compile(ctx, spec)
	var fault *grammar.Error
	switch {
	case err == nil:
		return matcher, nil
	case errors.As(err, &fault):
		return nil, badGrammar("%v", fault)
	case errors.Is(err, grammar.ErrBusy):
		return nil, overloaded(err)
	case ctx.Err() != nil:
		return nil, errClientGone
	}
	return nil, err
}

// guide compiles the grammar of a generate request.
func (s *Server) guide(ctx context.Context, g grammarType) (*engine.Constraint, error) {
	if s.opt.DisableGrammar {
		return nil, invalid("grammar is not supported")
	}
	spec, err := g.spec()
	if err != nil {
		return nil, err
	}
	matcher, err := s.matcher(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &engine.Constraint{Grammar: matcher}, nil
}

// badGrammar is a grammar that no output can be held to.
func badGrammar(format string, args ...any) *Error {
	return invalid("grammar is not valid: "+format, args...)
}

// spec returns the grammar of a generate request, after TGI's checks.
func (g grammarType) spec() (grammar.Spec, error) {
	text := string(g.value)
	if g.value[0] == '"' {
		// Of json a string that holds the schema. It was read before, so it reads.
		text, _ = body.NewReader(g.value).String()
	}
	switch g.kind {
	case "regex":
		return grammar.Spec{Kind: grammar.Regex, Text: text}, nil
	case "json_schema":
		return grammar.Spec{Kind: grammar.JSONSchema, Text: text}, nil
	}
	if c := g.value[0]; c != '"' && c != '{' {
		return grammar.Spec{}, invalid("grammar is not supported")
	}
	var schema map[string]json.RawMessage
	var syntax *json.SyntaxError
	switch err := json.Unmarshal([]byte(text), &schema); {
	case errors.As(err, &syntax):
		return grammar.Spec{}, badGrammar("not JSON: %v", err)
	case schema["properties"] == nil:
		return grammar.Spec{}, badGrammar("Grammar must have a 'properties' field")
	}
	return grammar.Spec{Kind: grammar.JSONSchema, Text: text}, nil
}
