package handler

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
)

// completionAnswer writes the answer to a completion, whole or as events.
type completionAnswer struct {
	openAIAnswer
	head       openAIHead
	tok        *token.Tokenizer
	echo       bool
	logprobs   bool // show them
	top        int  // with so many alternatives
	usageApart bool // usage has an event of its own
	usageEach  bool // every event tells the usage so far
	n          int  // choices that are shown for each prompt
	texts      []*completionText

	promptLogprobs optional[uint32] // show the prompt's, with so many alternatives
}

// completionText is what has been read of one choice: all of it in a whole
// answer, what no event has shown in a stream.
type completionText struct {
	prompt *engine.Stream // that has scored the prompt: the first one after it

	ending ending
	begun  bool   // the prompt, if it is wanted, is in text
	text   []byte // of the answer
	chars  int    // characters of the answer up to the next token
	count  int    // tokens

	// Elements of the lists of logprobs.
	tokens, logprobs, top, offsets []byte
}

func newCompletionAnswer(head openAIHead, tok *token.Tokenizer, req *completionRequest, all []*sequence) *completionAnswer {
	a := &completionAnswer{
		head: head, tok: tok, echo: req.echo, logprobs: req.logprobs.set, top: int(req.logprobs.or(0)), usageApart: req.includeUsage, usageEach: req.usageEach,
		texts: make([]*completionText, len(all)), n: int(req.n.or(1)), promptLogprobs: req.promptLogprobs,
	}
	for i, q := range all {
		a.texts[i] = &completionText{prompt: q.stream, ending: newEnding(q.job)}
		if i > 0 && all[i-1].job == q.job {
			a.texts[i].prompt = a.texts[i-1].prompt
		}
	}
	return a
}

// add implements answer.
func (a *completionAnswer) add(q *sequence, pieces []engine.Piece) {
	for i := range pieces {
		a.addPiece(q, &pieces[i])
	}
	if len(pieces) == 0 {
		a.end(q)
	}
}

// end adds what was held back of a choice that has no last piece.
func (a *completionAnswer) end(q *sequence) {
	t := a.begin(q)
	t.text = t.ending.add(t.text, nil, true, true)
}

func (a *completionAnswer) addPiece(q *sequence, p *engine.Piece) {
	t, shown := a.begin(q), q.shows(p)
	t.count++
	t.text = t.ending.add(t.text, p.Text, shown, p.Last)
	if a.logprobs {
		a.addToken(t, p.ID, p.Logprob, p.Top)
	}
	if shown {
		t.chars += utf8.RuneCount(p.Text)
	}
}

// begin returns the text of q, with the prompt if it is wanted.
func (a *completionAnswer) begin(q *sequence) *completionText {
	t := a.texts[q.index]
	if !t.begun {
		t.begun = true
		a.addPrompt(q, t)
	}
	return t
}

// addPrompt puts the prompt before the answer if it is wanted.
func (a *completionAnswer) addPrompt(q *sequence, t *completionText) {
	if !a.echo {
		return
	}
	t.text = append(t.text, q.job.inputs...)
	var held []byte // of a character that is not complete
	for _, p := range t.prompt.Prompt() {
		if a.logprobs {
			a.addToken(t, p.ID, p.Logprob, p.Top)
		}
		if a.tok.IsSpecial(p.ID) {
			continue
		}
		for held = append(held, a.tok.TokenBytes(p.ID)...); utf8.FullRune(held); t.chars++ {
			_, n := utf8.DecodeRune(held)
			held = held[n:]
		}
	}
	t.chars = utf8.RuneCountInString(q.job.inputs)
}

// addToken adds a token to the lists.
func (a *completionAnswer) addToken(t *completionText, id int32, logprob float32, top []engine.Alternative) {
	t.tokens = a.appendName(appendComma(t.tokens), id)
	t.logprobs = appendFloat32(appendComma(t.logprobs), logprob)
	t.offsets = strconv.AppendInt(appendComma(t.offsets), int64(t.chars), 10)
	if a.top == 0 {
		return
	}
	t.top = appendComma(t.top)
	if logprob != logprob { // the first token of a prompt has none, nor has an image token
		t.top = append(t.top, "null"...)
		return
	}
	t.top = append(t.top, '{')
	top = top[:min(len(top), a.top)]
	named := false // the token itself
	for i, alternative := range top {
		if i > 0 {
			t.top = append(t.top, ',')
		}
		named = named || alternative.ID == id
		t.top = a.appendAlternative(t.top, alternative.ID, alternative.Logprob)
	}
	if !named {
		if len(top) > 0 {
			t.top = append(t.top, ',')
		}
		t.top = a.appendAlternative(t.top, id, logprob)
	}
	t.top = append(t.top, '}')
}

func (a *completionAnswer) appendAlternative(dst []byte, id int32, logprob float32) []byte {
	return appendFloat32(append(a.appendName(dst, id), ':'), logprob)
}

// appendName appends what a token is called: its text, or as at OpenAI its
// bytes if they are not text by themselves.
func (a *completionAnswer) appendName(dst []byte, id int32) []byte {
	b := a.tok.TokenBytes(id)
	if utf8.Valid(b) {
		return appendString(dst, b)
	}
	name := []byte("bytes:")
	for _, c := range b {
		name = fmt.Appendf(name, `\x%02x`, c)
	}
	return appendString(dst, name)
}

// appendWhole implements answer.
func (a *completionAnswer) appendWhole(dst []byte, all []*sequence) ([]byte, error) {
	dst = append(dst, a.head.open...)
	dst = append(dst, a.head.model...)
	dst = append(dst, `,"choices":[`...)
	index := 0
	for from, to := 0, 0; from < len(all); from = to {
		for to = from; to < len(all) && all[to].job == all[from].job; to++ {
		}
		for _, q := range bestOf(all[from:to], a.n) {
			if index > 0 {
				dst = append(dst, ',')
			}
			dst = a.appendChoice(dst, index, a.texts[q.index], q.text.Finish())
			index++
		}
	}
	dst = append(dst, `],"usage":`...)
	dst = usageOf(all).append(dst)
	return append(dst, '}'), nil
}

// appendEvents implements answer: there is one event for each token.
func (a *completionAnswer) appendEvents(dst []byte, q *sequence, pieces []engine.Piece) ([]byte, error) {
	for i := range pieces {
		a.addPiece(q, &pieces[i])
		dst = a.appendEvent(dst, q, pieces[i].Last)
	}
	if len(pieces) == 0 {
		a.end(q)
		dst = a.appendEvent(dst, q, true)
	}
	return dst, nil
}

// appendEnd implements answer.
func (a *completionAnswer) appendEnd(dst []byte, all []*sequence) []byte {
	return a.head.appendEnd(dst, usageOf(all), a.usageApart)
}

// appendEvent appends the event of what no other has shown of q.
func (a *completionAnswer) appendEvent(dst []byte, q *sequence, last bool) []byte {
	t := a.texts[q.index]
	dst = append(dst, "data: "...)
	dst = append(dst, a.head.open...)
	whole := last && !a.usageApart // of the form of a whole answer
	if whole {
		dst = append(dst, a.head.model...)
	}
	reason := engine.NotFinished
	if last {
		reason = q.text.Finish()
	}
	dst = append(dst, `,"choices":[`...)
	dst = a.appendChoice(dst, q.index, t, reason)
	dst = append(dst, ']')
	if !whole {
		dst = append(dst, a.head.model...)
	}
	if whole || a.usageEach {
		dst = append(dst, `,"usage":`...)
		dst = q.usage(t.count).append(dst)
	}
	t.text, t.tokens, t.logprobs, t.top, t.offsets = t.text[:0], t.tokens[:0], t.logprobs[:0], t.top[:0], t.offsets[:0]
	return append(dst, "}\n\n"...)
}

// appendChoice appends one of the choices of an answer or an event.
func (a *completionAnswer) appendChoice(dst []byte, index int, t *completionText, reason engine.FinishReason) []byte {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(index), 10)
	dst = append(dst, `,"text":`...)
	dst = appendString(dst, t.text)
	dst = append(dst, `,"logprobs":`...)
	dst = a.appendLogprobs(dst, t)
	dst = append(dst, ',')
	if a.promptLogprobs.set {
		dst = appendPromptLogprobs(dst, a.tok, t.prompt.Prompt(), int(a.promptLogprobs.v))
		dst = append(dst, ',')
	}
	dst = appendReason(dst, openAIReason(reason), reason)
	return append(dst, '}')
}

// appendLogprobs appends the lists of a choice or an event, null if nobody
// asked for them.
func (a *completionAnswer) appendLogprobs(dst []byte, t *completionText) []byte {
	if !a.logprobs {
		return append(dst, "null"...)
	}
	dst = appendList(dst, `{"tokens":[`, t.tokens)
	dst = appendList(dst, `,"token_logprobs":[`, t.logprobs)
	if a.top > 0 {
		dst = appendList(dst, `,"top_logprobs":[`, t.top)
	} else {
		dst = append(dst, `,"top_logprobs":null`...)
	}
	dst = appendList(dst, `,"text_offset":[`, t.offsets)
	return append(dst, '}')
}

// bestOf returns the n of all whose tokens are the likeliest, on average,
// the best first. All are of one prompt.
func bestOf(all []*sequence, n int) []*sequence {
	if n == len(all) {
		return all
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(x, y *sequence) int {
		return cmp.Compare(y.mean(), x.mean())
	})
	return all[:n]
}
