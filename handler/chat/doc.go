// Package chat is the logic of a chat between a request's messages and a
// model's text: what the prompt is, what the output may be, and what the
// output means. It knows no HTTP and no engine.
//
// A Template renders messages as transformers' apply_chat_template does. It is
// loaded once from a checkpoint and tried on made-up conversations then, which
// tells what the model's maker expects: lists of chunks or text, tools in the
// prompt or not, arguments as an object or as a string, and how the model
// writes reasoning and calls (Format).
//
// Of a request's tools, Select says which the model is shown and may call,
// Template.Render puts them into the prompt, Selection.Constraint holds the
// output to them, and a Parser turns the output, piece by piece, into reasoning,
// content and calls. The order is:
//
//	messages, tools … = Decode…(reader)
//	selection         = Select(tools, choice, …)
//	prompt            = template.Render(request with selection.Tools)
//	constraint        = selection.Constraint(template.Format())
//	parser            = NewParser(template.Format(), selection, prompt.Thinking, NewID)
//	for each piece of output text: deltas = parser.Write(piece)
//	deltas            = parser.Close()
//
// The text that a Parser reads must keep the special tokens that are markers of
// the Format: some models mark a call with one ([TOOL_CALLS], <|python_tag|>).
//
// A request that cannot be served is an *Error, whose type and text are TGI's.
// The Decode functions return the errors of package body.
package chat
