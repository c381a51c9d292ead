package handler

import (
	"slices"
	"strconv"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
)

// tgiAnswer writes the answer to a generation, whole or as events.
type tgiAnswer struct {
	tok   *token.Tokenizer
	array bool       // a whole answer is an array of one
	lists []tgiLists // of a whole answer's sequences, with details
	best  int        // index of the sequence that is the answer
	index int        // of the last event, from 1
}

// tgiLists are the elements of the lists in a sequence's details.
type tgiLists struct{ tokens, top []byte }

func newTGIAnswer(tok *token.Tokenizer, n int, array bool) *tgiAnswer {
	return &tgiAnswer{tok: tok, array: array, lists: make([]tgiLists, n)}
}

// add implements answer.
func (a *tgiAnswer) add(q *sequence, pieces []engine.Piece) {
	if !q.job.details {
		return
	}
	l := &a.lists[q.index]
	for i := range pieces {
		p := &pieces[i]
		l.tokens = appendToken(appendComma(l.tokens), p.ID, p.Text, p.Logprob, p.Special)
		if q.job.req.TopN > 0 {
			l.top = a.appendTop(appendComma(l.top), p.Top)
		}
	}
}

// appendWhole implements answer: the sequence whose tokens are the likeliest, on
// average, is the answer, and the others are beside it in their order.
func (a *tgiAnswer) appendWhole(dst []byte, all []*sequence) ([]byte, error) {
	for i, q := range all {
		if q.mean() > all[a.best].mean() {
			a.best = i
		}
	}
	best, prompt := all[a.best], all[0].stream.Prompt() // scored if the request asks for it
	if a.array {
		dst = append(dst, '[')
	}
	dst = append(dst, `{"generated_text":`...)
	dst = appendFullText(dst, best)
	if best.job.details {
		dst = append(dst, `,"details":{`...)
		dst = appendEnding(dst, best)
		dst = a.appendTokens(dst, best, prompt)
		for i, q := range slices.Concat(all[:a.best], all[a.best+1:]) {
			if i == 0 {
				dst = append(dst, `,"best_of_sequences":[`...)
			} else {
				dst = append(dst, ',')
			}
			dst = append(dst, `{"generated_text":`...)
			dst = appendFullText(dst, q)
			dst = append(dst, ',')
			dst = appendEnding(dst, q)
			dst = a.appendTokens(dst, q, prompt)
			dst = a.appendTopTokens(dst, q)
			dst = append(dst, '}')
		}
		if len(all) > 1 {
			dst = append(dst, ']')
		}
		dst = a.appendTopTokens(dst, best)
		dst = append(dst, '}')
	}
	dst = append(dst, '}')
	if a.array {
		dst = append(dst, ']')
	}
	return dst, nil
}

// appendEvents implements answer: there is one event for each token. The last
// one has the text, so that a sequence without a last token ends with an error.
func (a *tgiAnswer) appendEvents(dst []byte, q *sequence, pieces []engine.Piece) ([]byte, error) {
	for i := range pieces {
		a.index++
		dst = a.appendEvent(dst, q, &pieces[i])
	}
	return dst, q.late
}

func (a *tgiAnswer) appendEvent(dst []byte, q *sequence, p *engine.Piece) []byte {
	dst = append(dst, `data: {"index":`...)
	dst = strconv.AppendInt(dst, int64(a.index), 10)
	dst = append(dst, `,"token":`...)
	dst = appendToken(dst, p.ID, p.Text, p.Logprob, p.Special)
	if len(p.Top) > 0 {
		dst = append(dst, `,"top_tokens":`...)
		dst = a.appendTop(dst, p.Top)
	}
	if !p.Last {
		return append(dst, `,"generated_text":null,"details":null}`+"\n\n"...)
	}
	dst = append(dst, `,"generated_text":`...)
	dst = appendFullText(dst, q)
	dst = append(dst, `,"details":`...)
	if q.job.details {
		dst = append(dst, '{')
		dst = appendEnding(dst, q)
		dst = append(dst, `,"input_length":`...)
		dst = strconv.AppendInt(dst, int64(len(q.job.req.Tokens)), 10)
		dst = append(dst, '}')
	} else {
		dst = append(dst, "null"...)
	}
	return append(dst, "}\n\n"...)
}

// appendEnd implements answer: the last token's event is the last of all.
func (a *tgiAnswer) appendEnd(dst []byte, _ []*sequence) []byte { return dst }

// appendError implements answer. The generate routes have the contract's body
// alone.
func (a *tgiAnswer) appendError(dst []byte, e *Error, _, _ bool) []byte {
	dst = append(dst, "data: "...)
	dst = appendError(dst, e)
	return append(dst, "\n\n"...)
}

// counted implements answer.
func (a *tgiAnswer) counted(all []*sequence) []*sequence { return all[a.best : a.best+1] }

// reason implements answer.
func (a *tgiAnswer) reason(r engine.FinishReason) string { return finishReason(r) }

// finishReason is the contract's name of a reason.
func finishReason(r engine.FinishReason) string {
	switch r {
	case engine.FinishEOS:
		return "eos_token"
	case engine.FinishStop, engine.FinishStopToken:
		return "stop_sequence"
	}
	return "length"
}

// appendTop appends a token's alternatives as a list of tokens.
func (a *tgiAnswer) appendTop(dst []byte, top []engine.Alternative) []byte {
	dst = append(dst, '[')
	for i, t := range top {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendToken(dst, t.ID, textOf(a.tok, t.ID), t.Logprob, a.tok.IsSpecial(t.ID))
	}
	return append(dst, ']')
}

// appendFullText appends the generated text, after the prompt if that is wanted.
func appendFullText(dst []byte, q *sequence) []byte {
	if !q.job.fullText {
		return appendString(dst, q.text.Generated())
	}
	dst = appendString(dst, q.job.inputs)
	from := len(dst) - 1 // the two strings become one: the quotes between them go
	dst = appendString(dst[:from], q.text.Generated())
	return append(dst[:from], dst[from+1:]...)
}

// appendEnding appends the first members of details.
func appendEnding(dst []byte, q *sequence) []byte {
	dst = appendReason(dst, finishReason(q.text.Finish()), q.text.Finish())
	dst = append(dst, `,"generated_tokens":`...)
	dst = strconv.AppendInt(dst, int64(q.text.Tokens()), 10)
	dst = append(dst, `,"seed":`...)
	if q.job.req.Params.Sample == 0 {
		return append(dst, "null"...)
	}
	return strconv.AppendUint(dst, q.seed, 10)
}

// appendTokens appends the members that list the tokens of prompt, which are
// there if they were scored, and those of the sequence.
func (a *tgiAnswer) appendTokens(dst []byte, q *sequence, prompt []engine.Token) []byte {
	dst = append(dst, `,"prefill":[`...)
	for i, t := range prompt {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = strconv.AppendInt(dst, int64(t.ID), 10)
		dst = append(dst, `,"text":`...)
		dst = appendString(dst, textOf(a.tok, t.ID))
		dst = append(dst, `,"logprob":`...)
		dst = appendFloat32(dst, t.Logprob)
		dst = append(dst, '}')
	}
	return appendList(dst, `],"tokens":[`, a.lists[q.index].tokens)
}

// appendTopTokens appends the member with the alternatives, if there are any.
func (a *tgiAnswer) appendTopTokens(dst []byte, q *sequence) []byte {
	if top := a.lists[q.index].top; len(top) > 0 {
		return appendList(dst, `,"top_tokens":[`, top)
	}
	return dst
}
