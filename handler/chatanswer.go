package handler

import (
	"strconv"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler/chat"
)

// chatAnswer writes the answer to a chat, whole or as events.
type chatAnswer struct {
	openAIAnswer
	head     openAIHead
	tok      *token.Tokenizer
	logprobs bool // show them
	top      int  // alternatives to show with them
	object   bool // calls in TGI's form: see Options.ToolCallObject
	hidden   bool // reasoning is not shown
	inText   bool // reasoning is content
	messages []*chatMessage

	promptLogprobs optional[uint32] // show the prompt's, with so many alternatives
	usageApart     bool             // usage has an event of its own
	usageEach      bool             // every event tells the usage so far
	predicted      bool             // the request has a prediction
}

// chatMessage is what has been read of one choice.
type chatMessage struct {
	ending   ending
	format   *chat.Format // of parser
	tools    bool         // there may be calls
	parser   *chat.Parser // nil without tools: all text is content
	text     []byte       // what is shown, as the model wrote it: in a whole answer all after the reasoning, in a stream a piece's
	calls    chat.Answer  // that the parser found in a whole answer
	callID   string       // of the call that a stream is in
	logprobs []byte       // of tokens, as a list's elements: all, or those that no event has shown
	tokens   int          // in a stream

	content, reasoning []byte // that the parser found in a whole answer
	reasoned           int    // tokens of reasoning
}

// newChatAnswer returns the answer of all to req, of which prompt was made.
func (s *Server) newChatAnswer(tok *token.Tokenizer, req *chatRequest, prompt *chatPrompt, all []*sequence) *chatAnswer {
	object := "chat.completion"
	if req.stream {
		object = "chat.completion.chunk"
	}
	a := &chatAnswer{
		head: s.newOpenAIHead(object, "chatcmpl-", all[0].job.adapter), tok: tok, logprobs: req.logprobs, top: int(req.topLogprobs.or(0)), object: s.opt.ToolCallObject,
		promptLogprobs: req.promptLogprobs, usageApart: req.includeUsage, usageEach: req.usageEach, hidden: req.reasoning.hidden,
		predicted: req.prediction != "",
	}
	format := *prompt.format
	if a.inText = req.reasoning.inText.or(s.opt.ReasoningInText); a.inText && !format.Reasoning.Channels {
		format.Reasoning = chat.Reasoning{} // the marks stay, too
	}
	for _, q := range all {
		m := &chatMessage{ending: newEnding(q.job), format: &format}
		if len(prompt.selection.Tools) > 0 || format.Reasoning.Exists() {
			m.tools = len(prompt.selection.Tools) > 0
			m.parser = chat.NewParser(&format, prompt.selection, prompt.thinking, chat.NewID)
		}
		a.messages = append(a.messages, m)
	}
	return a
}

// usageOf returns the usage of all.
func (a *chatAnswer) usageOf(all []*sequence) usage {
	u, reasoned := usageOf(all), 0
	for _, m := range a.messages {
		reasoned += m.reasoned
	}
	u.reasoning = some(reasoned)
	if a.predicted {
		for _, q := range all {
			times := q.stream.Times()
			u.predicted = some(u.predicted.v + times.PredictedTokens)
			u.rejected = some(u.rejected.v + times.RejectedTokens)
		}
	}
	return u
}

// shows reports whether a piece's text belongs to the answer of q: also the
// special tokens that a model marks reasoning and calls with do.
func (m *chatMessage) shows(q *sequence, p *engine.Piece) bool {
	if q.shows(p) || !p.Special || m.parser == nil {
		return q.shows(p)
	}
	_, over := m.parser.Reasoning()
	return (m.tools || !over) && m.format.IsMarker(p.Text)
}

// finish returns the reason why q has ended.
func (m *chatMessage) finish(q *sequence) string {
	calls, cut := 0, false
	if m.parser != nil {
		calls, cut = m.parser.Calls(), m.parser.Cut()
	}
	if q.text.Finish() == engine.FinishRepetition {
		return repetition
	}
	return chat.FinishReason(isCut(q.text.Finish()), calls, cut)
}

// add implements answer.
func (a *chatAnswer) add(q *sequence, pieces []engine.Piece) {
	m := a.messages[q.index]
	last := len(pieces) == 0
	for i := range pieces {
		p := &pieces[i]
		if a.logprobs {
			m.logprobs = appendComma(m.logprobs)
			m.logprobs = appendLogprob(m.logprobs, a.tok, p, a.top)
		}
		m.text = m.ending.add(m.text, p.Text, m.shows(q, p), p.Last)
		a.readReasoning(m)
		last = p.Last
	}
	if len(pieces) == 0 {
		m.text = m.ending.add(m.text, nil, true, true)
	}
	if last && m.parser != nil {
		a.keep(m, m.parser.Write(string(m.text)))
		a.keep(m, m.parser.Close())
	}
}

// readReasoning parses what may be reasoning as its tokens come, to count them.
func (a *chatAnswer) readReasoning(m *chatMessage) {
	if m.parser == nil {
		return
	}
	if _, over := m.parser.Reasoning(); over {
		return
	}
	a.keep(m, m.parser.Write(string(m.text)))
	m.text = m.text[:0]
	if inside, _ := m.parser.Reasoning(); inside {
		m.reasoned++
	}
}

// keep adds deltas to a whole answer.
func (a *chatAnswer) keep(m *chatMessage, deltas []chat.Delta) {
	for _, d := range deltas {
		d = a.merged(d)
		m.content = append(m.content, d.Content...)
		m.reasoning = append(m.reasoning, d.Reasoning...)
		if d.Call != nil {
			m.calls.Add(d)
		}
	}
}

// merged makes reasoning content where it is to be.
func (a *chatAnswer) merged(d chat.Delta) chat.Delta {
	if a.inText {
		d.Content, d.Reasoning = d.Content+d.Reasoning, ""
	}
	return d
}

// appendWhole implements answer.
func (a *chatAnswer) appendWhole(dst []byte, all []*sequence) (_ []byte, err error) {
	dst = append(dst, a.head.open...)
	dst = append(dst, a.head.model...)
	dst = append(dst, `,"choices":[`...)
	for i, q := range all {
		if i > 0 {
			dst = append(dst, ',')
		}
		m := a.messages[q.index]
		dst = appendIndex(dst, q.index)
		dst = append(dst, `,"message":{"role":"assistant","content":`...)
		if dst, err = a.appendMessage(dst, m); err != nil {
			return dst, err
		}
		dst = append(dst, `},"logprobs":`...)
		dst = a.appendLogprobs(dst, m)
		dst = append(dst, ',')
		dst = appendReason(dst, m.finish(q), q.text.Finish())
		dst = append(dst, '}')
	}
	dst = append(dst, `],"usage":`...)
	dst = a.usageOf(all).append(dst)
	if a.promptLogprobs.set {
		dst = append(dst, ',')
		dst = appendPromptLogprobs(dst, a.tok, all[0].stream.Prompt(), int(a.promptLogprobs.v))
	}
	return append(dst, '}'), nil
}

// appendMessage appends the content, the reasoning and the calls of a message.
func (a *chatAnswer) appendMessage(dst []byte, m *chatMessage) ([]byte, error) {
	switch {
	case m.parser == nil:
		return appendString(dst, m.text), nil
	case len(m.calls.Calls) > 0 && len(m.content) == 0:
		dst = append(dst, "null"...)
	default:
		dst = appendString(dst, m.content)
	}
	if len(m.reasoning) > 0 && !a.hidden {
		dst = appendReasoning(append(dst, ','), m.reasoning)
	}
	if len(m.calls.Calls) == 0 {
		return dst, nil
	}
	dst = append(dst, `,"tool_calls":[`...)
	for i, call := range m.calls.Calls {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = appendString(dst, call.ID)
		dst = append(dst, `,"type":"function","function":{`...)
		if a.object {
			arguments, err := call.Object()
			if err != nil {
				return dst, err
			}
			dst = append(dst, `"description":null,"name":`...)
			dst = appendString(dst, call.Name)
			dst = append(dst, `,"arguments":`...)
			dst = append(dst, arguments...)
		} else {
			dst = append(dst, `"name":`...)
			dst = appendString(dst, call.Name)
			dst = append(dst, `,"arguments":`...)
			dst = appendString(dst, call.Arguments)
		}
		dst = append(dst, "}}"...)
	}
	return append(dst, ']'), nil
}

// appendEvents implements answer. Without tools there is one event for each
// token; what a parser holds back has none until it is known what it is.
func (a *chatAnswer) appendEvents(dst []byte, q *sequence, pieces []engine.Piece) ([]byte, error) {
	m := a.messages[q.index]
	for i := range pieces {
		p := &pieces[i]
		m.tokens++
		if a.logprobs {
			m.logprobs = appendComma(m.logprobs)
			m.logprobs = appendLogprob(m.logprobs, a.tok, p, a.top)
		}
		dst = a.appendPiece(dst, q, p)
	}
	if len(pieces) == 0 {
		dst = a.appendPiece(dst, q, nil)
	}
	return dst, nil
}

// appendEnd implements answer.
func (a *chatAnswer) appendEnd(dst []byte, all []*sequence) []byte {
	return a.head.appendEnd(dst, a.usageOf(all), a.usageApart)
}

// appendPiece appends the events of a piece, nil for the end of a sequence that has
// no last piece.
func (a *chatAnswer) appendPiece(dst []byte, q *sequence, p *engine.Piece) []byte {
	m := a.messages[q.index]
	last := p == nil || p.Last
	if p == nil {
		m.text = m.ending.add(m.text[:0], nil, true, true)
	} else {
		m.text = m.ending.add(m.text[:0], p.Text, m.shows(q, p), last)
	}
	if m.parser != nil {
		for _, d := range m.parser.Write(string(m.text)) {
			dst = a.appendDelta(dst, q, d)
		}
		if inside, _ := m.parser.Reasoning(); inside && p != nil {
			m.reasoned++
		}
		m.text = m.text[:0]
		if last {
			for _, d := range m.parser.Close() {
				dst = a.appendDelta(dst, q, d)
			}
		}
	}
	if m.parser == nil || last {
		dst = a.beginChunk(dst, q)
		dst = append(dst, `"content":`...)
		dst = appendString(dst, m.text)
		dst = a.endChunk(dst, q, last)
	}
	return dst
}

// appendDelta appends the event of what a parser found. Reasoning has an empty
// content beside it, which the contract has in every delta without a call.
func (a *chatAnswer) appendDelta(dst []byte, q *sequence, d chat.Delta) []byte {
	d = a.merged(d)
	if d.Reasoning != "" && a.hidden {
		return dst
	}
	dst = a.beginChunk(dst, q)
	if d.Call == nil {
		dst = append(dst, `"content":`...)
		dst = appendString(dst, d.Content)
		if d.Reasoning != "" {
			dst = appendReasoning(append(dst, ','), d.Reasoning)
		}
	} else {
		dst = a.appendCall(dst, a.messages[q.index], d.Call)
	}
	return a.endChunk(dst, q, false)
}

// appendReasoning appends reasoning under the two names that clients read.
func appendReasoning[T string | []byte](dst []byte, text T) []byte {
	dst = append(dst, `"reasoning_content":`...)
	dst = appendString(dst, text)
	dst = append(dst, `,"reasoning":`...)
	return appendString(dst, text)
}

// appendCall appends a piece of a call: OpenAI's list of one, in which only
// the first piece has the id and the name; or TGI's object, which has always
// all members.
func (a *chatAnswer) appendCall(dst []byte, m *chatMessage, d *chat.CallDelta) []byte {
	first := d.Name != ""
	if first {
		m.callID = d.ID
	}
	dst = append(dst, `"tool_calls":`...)
	if !a.object {
		dst = append(dst, '[')
	}
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(d.Index), 10)
	if first || a.object {
		dst = append(dst, `,"id":`...)
		dst = appendString(dst, m.callID)
		dst = append(dst, `,"type":"function"`...)
	}
	dst = append(dst, `,"function":{`...)
	switch {
	case first:
		dst = append(dst, `"name":`...)
		dst = appendString(dst, d.Name)
		dst = append(dst, ',')
	case a.object:
		dst = append(dst, `"name":null,`...)
	}
	dst = append(dst, `"arguments":`...)
	dst = appendString(dst, d.Arguments)
	dst = append(dst, "}}"...)
	if !a.object {
		dst = append(dst, ']')
	}
	return dst
}

// beginChunk appends an event up to the role in its delta.
func (a *chatAnswer) beginChunk(dst []byte, q *sequence) []byte {
	dst = append(dst, "data: "...)
	dst = append(dst, a.head.open...)
	dst = append(dst, a.head.model...)
	dst = append(dst, `,"choices":[`...)
	dst = appendIndex(dst, q.index)
	return append(dst, `,"delta":{"role":"assistant",`...)
}

// endChunk appends an event from the end of its delta on, with the log-probabilities
// that none has shown and, after the last piece, the reason to end.
func (a *chatAnswer) endChunk(dst []byte, q *sequence, last bool) []byte {
	m := a.messages[q.index]
	dst = append(dst, `},"logprobs":`...)
	dst = a.appendLogprobs(dst, m)
	m.logprobs = m.logprobs[:0]
	if last {
		dst = append(dst, ',')
		dst = appendReason(dst, m.finish(q), q.text.Finish())
	} else {
		dst = append(dst, `,"finish_reason":null`...)
	}
	if !a.usageEach {
		return append(dst, `}],"usage":null}`+"\n\n"...)
	}
	dst = append(dst, `}],"usage":`...)
	u := q.usage(m.tokens)
	u.reasoning = some(m.reasoned)
	dst = u.append(dst)
	return append(dst, "}\n\n"...)
}

// appendLogprobs appends the member of m's log-probabilities.
func (a *chatAnswer) appendLogprobs(dst []byte, m *chatMessage) []byte {
	if !a.logprobs {
		return append(dst, "null"...)
	}
	dst = append(dst, `{"content":[`...)
	dst = append(dst, m.logprobs...)
	return append(dst, "]}"...)
}

// appendLogprob appends a token as OpenAI shows it, with at most top
// alternatives.
func appendLogprob(dst []byte, tok *token.Tokenizer, p *engine.Piece, top int) []byte {
	dst = appendTokenLogprob(dst, tok, p.ID, p.Text, p.Logprob)
	dst = append(dst, `,"top_logprobs":[`...)
	for i, t := range p.Top[:min(len(p.Top), top)] {
		if i > 0 {
			dst = append(dst, ',')
		}
		text := tok.TokenBytes(t.ID)
		if !utf8.Valid(text) {
			text = []byte(textOf(tok, t.ID))
		}
		dst = appendTokenLogprob(dst, tok, t.ID, text, t.Logprob)
		dst = append(dst, '}')
	}
	return append(dst, "]}"...)
}

// appendTokenLogprob appends the first members of a token, with its bytes:
// a client joins those of tokens that share a character.
func appendTokenLogprob(dst []byte, tok *token.Tokenizer, id int32, text []byte, logprob float32) []byte {
	dst = append(dst, `{"token":`...)
	dst = appendString(dst, text)
	dst = append(dst, `,"logprob":`...)
	dst = appendFloat32(dst, logprob)
	dst = append(dst, `,"bytes":[`...)
	for i, b := range tok.TokenBytes(id) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(b), 10)
	}
	return append(dst, ']')
}
