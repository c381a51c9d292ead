package handler

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
)

// completionAnswer writes the answer to a completion, whole or as events.
type completionAnswer struct {
	head       openAIHead
	tok        *token.Tokenizer
	echo       bool
	logprobs   bool // show them
	top        int  // with so many alternatives
	usageApart bool // usage has an event of its own
	usageEach  bool // every event tells the usage so far
	texts      []*completionText

	promptLogprobs optional[uint32] // show the prompt's, with so many alternatives
}

// completionText is what has been read of one choice: all of it in a whole
// answer, what no event has shown in a stream.
type completionText struct {
	prompt *engine.Stream // that has scored the prompt: the first one behind it

	begun bool   // the prompt, if it is wanted, is in text
	text  []byte // of the answer
	chars int    // characters of the answer up to the next token
	score float64
	count int // tokens

	// Elements of the lists of logprobs.
	tokens, logprobs, top, offsets []byte
}

// mean is the mean log-probability of c's tokens.
func (t *completionText) mean(c *choice) float64 { return meanOf(t.score, c.text.Tokens()) }

func newCompletionAnswer(head openAIHead, tok *token.Tokenizer, req *completionRequest, choices []*choice) *completionAnswer {
	a := &completionAnswer{
		head: head, tok: tok, echo: req.echo, logprobs: req.logprobs.set, top: int(req.logprobs.or(0)), usageApart: req.includeUsage, usageEach: req.usageEach,
		texts: make([]*completionText, len(choices)), promptLogprobs: req.promptLogprobs,
	}
	for i, c := range choices {
		a.texts[i] = &completionText{prompt: c.stream}
		if i > 0 && choices[i-1].job == c.job {
			a.texts[i].prompt = a.texts[i-1].prompt
		}
	}
	return a
}

// take adds pieces to a whole answer; none are its end.
func (a *completionAnswer) take(c *choice, pieces []engine.Piece) {
	for i := range pieces {
		a.add(c, &pieces[i])
	}
	if len(pieces) == 0 {
		a.end(c)
	}
}

// end adds what was held back of a choice that has no last piece.
func (a *completionAnswer) end(c *choice) {
	t := a.begin(c)
	t.text = c.ending.add(t.text, nil, true, true)
}

// add adds a piece.
func (a *completionAnswer) add(c *choice, p *engine.Piece) {
	t, shown := a.begin(c), c.shows(p)
	t.score += float64(p.Logprob)
	t.count++
	t.text = c.ending.add(t.text, p.Text, shown, p.Last)
	if a.logprobs {
		a.addToken(t, p.ID, p.Logprob, p.Top)
	}
	if shown {
		t.chars += utf8.RuneCount(p.Text)
	}
}

// begin returns the text of c, with the prompt if it is wanted.
func (a *completionAnswer) begin(c *choice) *completionText {
	t := a.texts[c.index]
	if !t.begun {
		t.begun = true
		a.addPrompt(c, t)
	}
	return t
}

// addPrompt puts the prompt before the answer if it is wanted.
func (a *completionAnswer) addPrompt(c *choice, t *completionText) {
	if !a.echo {
		return
	}
	t.text = append(t.text, c.job.inputs...)
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
	t.chars = utf8.RuneCountInString(c.job.inputs)
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
	if logprob != logprob { // the first token of a prompt has none
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
// bytes if they are no text by themselves.
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

// append appends the whole answer of choices that have ended: of those of a
// prompt the best n.
func (a *completionAnswer) append(dst []byte, choices []*choice, n int) []byte {
	dst = append(dst, a.head.open...)
	dst = append(dst, a.head.model...)
	dst = append(dst, `,"choices":[`...)
	index := 0
	for from, to := 0, 0; from < len(choices); from = to {
		for to = from; to < len(choices) && choices[to].job == choices[from].job; to++ {
		}
		for _, c := range a.bestOf(choices[from:to], n) {
			if index > 0 {
				dst = append(dst, ',')
			}
			dst = a.appendChoice(dst, index, a.texts[c.index], c.text.Finish())
			index++
		}
	}
	dst = append(dst, `],"usage":`...)
	dst = usageOf(choices).append(dst)
	return append(dst, '}')
}

// events appends the events of pieces, one for each token. Of no pieces there
// is the one of c's end.
func (a *completionAnswer) events(dst []byte, c *choice, pieces []engine.Piece) []byte {
	for i := range pieces {
		a.add(c, &pieces[i])
		dst = a.appendEvent(dst, c, pieces[i].Last)
	}
	if len(pieces) == 0 {
		a.end(c)
		dst = a.appendEvent(dst, c, true)
	}
	return dst
}

// appendEvent appends the event of what no other has shown of c.
func (a *completionAnswer) appendEvent(dst []byte, c *choice, last bool) []byte {
	t := a.texts[c.index]
	dst = append(dst, "data: "...)
	dst = append(dst, a.head.open...)
	whole := last && !a.usageApart // of the form of a whole answer
	if whole {
		dst = append(dst, a.head.model...)
	}
	reason := engine.NotFinished
	if last {
		reason = c.text.Finish()
	}
	dst = append(dst, `,"choices":[`...)
	dst = a.appendChoice(dst, c.index, t, reason)
	dst = append(dst, ']')
	if !whole {
		dst = append(dst, a.head.model...)
	}
	if whole || a.usageEach {
		dst = append(dst, `,"usage":`...)
		dst = usage{len(c.job.req.Tokens), t.count}.append(dst)
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

// appendList appends a list's elements between its beginning and its end.
func appendList(dst []byte, open string, elements []byte) []byte {
	dst = append(dst, open...)
	dst = append(dst, elements...)
	return append(dst, ']')
}
