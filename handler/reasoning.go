package handler

import (
	"strings"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler/body"
	"github.com/millrace-ai/millrace/handler/chat"
	"github.com/millrace-ai/millrace/handler/openapi"
)

// reasoningParameters are what a chat asks of the model's reasoning.
type reasoningParameters struct {
	hidden  bool             // is not shown
	inText  optional[bool]   // stays in the content
	budget  optional[int32]  // tokens of it; -1: any number
	message optional[string] // its last words where the budget ends it
}

// maxBudgetMessage bounds reasoning_budget_message, in bytes.
const maxBudgetMessage = 1024

var budgetDoc = openapi.Object{"type": "integer", "format": "int32", "minimum": -1,
	"description": "The most tokens of reasoning: it is ended after so many, and the model answers. -1: any number"}

// reasoningFields are the parameters of chats that reasoningParameters hold.
var reasoningFields = []field{
	{name: "include_reasoning", routes: onChat, set: func(p *parameters, r *body.Reader) error {
		show, err := r.Bool()
		p.reasoning.hidden = !show
		return err
	}, doc: openapi.Bool(true, "Whether the answer shows the model's reasoning, which counts in any case")},
	{name: "separate_reasoning", routes: onChat, set: func(p *parameters, r *body.Reader) error { // SGLang's
		apart, err := r.Bool()
		p.reasoning.inText = some(!apart)
		return err
	}, doc: openapi.Object{"type": "boolean", "description": "Whether reasoning is apart from the content; by default as --reasoning-format says"}},
	{name: "reasoning_format", routes: onChat, set: func(p *parameters, r *body.Reader) error { // llama.cpp's
		form, err := r.String()
		switch form {
		case "none":
			p.reasoning.inText = some(true)
		case "auto", "deepseek":
			p.reasoning.inText = some(false)
		default:
			p.refuse(unsupported("reasoning_format", "is not supported, except for none, auto or deepseek"))
		}
		return err
	}, doc: openapi.Object{"type": "string", "enum": []string{"none", "auto", "deepseek"}, "description": "none: as separate_reasoning false"}},
	{name: "thinking_token_budget", routes: onChat, set: setBudget, doc: budgetDoc},   // vLLM's
	{name: "thinking_budget_tokens", routes: onChat, set: setBudget, doc: budgetDoc},  // llama.cpp's
	{name: "reasoning_budget_tokens", routes: onChat, set: setBudget, doc: budgetDoc}, // its newer name
	{name: "reasoning_budget_message", routes: onChat, set: func(p *parameters, r *body.Reader) error {
		err := set(&p.reasoning.message, r.String)
		if n := len(p.reasoning.message.v); n > maxBudgetMessage {
			p.refuse(invalid("`reasoning_budget_message` must have at most %d bytes. Given: %d", maxBudgetMessage, n))
		}
		return err
	}, doc: openapi.Object{"type": "string", "maxLength": maxBudgetMessage, "description": "The last words of reasoning that has used up its budget"}},
}

func setBudget(p *parameters, r *body.Reader) error {
	err := set(&p.reasoning.budget, r.Int32)
	if n := p.reasoning.budget.v; n < -1 {
		p.refuse(invalid("a budget of reasoning must be >= 0, or -1 for none. Given: %d", n))
	}
	return err
}

// reason adds to g, which holds the answer to a chat, the reasoning that may come
// before it. g may be nil, and is the caller's if there is an error.
func (s *Server) reason(x *exchange, m *model, g *engine.Constraint, p *parameters, prompt *chatPrompt, ids []int32) (*engine.Constraint, error) {
	budget := -1
	switch usual := s.opt.ReasoningBudget; {
	case p.reasoning.budget.set:
		budget = int(p.reasoning.budget.v)
	case usual != nil:
		budget = int(*usual)
	}
	if !prompt.mayReason || g == nil && budget < 0 {
		return g, nil
	}
	marks := prompt.format.Reasoning
	r := &engine.Reasoning{Open: strings.TrimSpace(marks.Open), Close: marks.Close, Opened: prompt.thinking, Budget: budget}
	answer := ""
	if marks.Channels {
		if prompt.selection.Required { // the calls' grammar begins with the reasoning
			if p.reasoning.budget.or(-1) >= 0 {
				return g, unsupported("thinking_token_budget", "is not supported by this model before a call that must come")
			}
			return g, nil
		}
		r.Close = chat.ChannelEnd
		if g != nil && g.Grammar != nil {
			answer = chat.ChannelStart + marks.Close
		}
	}
	for _, part := range []struct {
		to   *[]int32
		text string
	}{
		{&r.OpenTokens, r.Open}, {&r.Ending, p.reasoning.message.or(s.opt.ReasoningBudgetMessage) + r.Close + answer}, {&r.Answer, answer},
	} {
		if part.text == "" {
			continue
		}
		var err error
		if *part.to, err = s.encode(x, m, part.text, 0, false, &parameters{}); err != nil {
			return g, err
		}
	}
	if g == nil {
		g = &engine.Constraint{}
	}
	g.Reasoning = r
	g.NewDetokenizer = func() engine.Detokenizer { return token.NewDecoder(m.tok, ids) }
	return g, nil
}
