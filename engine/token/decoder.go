package token

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// promptContext is how many tokens of the prompt the text of the first ones depends on.
const promptContext = 5

// A Decoder turns the ids of one generated sequence into pieces of text as
// they come. It is not safe for concurrent use.
//
// The rule is vLLM's and TGI's: with P the text of the ids emitted last and T
// the text of those and all since, T's addition to P is emitted once T is
// longer than P and does not end in U+FFFD, which may be a character that the
// next id completes. So each piece is whole characters, spaces between words
// come out right, and most ids give their piece at once. Special tokens appear
// as they are spelled.
//
// The pieces and Flush together are the text of the prompt's end and the ids,
// less the text of the prompt's end, and less a character cut off at the end.
// (One exception, by the rule: with byte fallback, a run of byte tokens that
// turns out invalid after a part of it was emitted as text.)
type Decoder struct {
	tok *Tokenizer

	// ids[:read] are the ids of P: first the prompt's end, then what was
	// emitted last. ids[read:] were not emitted yet.
	ids  []int32
	read int

	// direct: nothing is held, and the next piece does not depend on what came
	// before, unless both are byte tokens.
	direct   bool
	lastByte bool

	before, after []byte // P and T, kept for their memory

	ahead *Decoder // of Peek
}

// NewDecoder returns a Decoder for what is generated after promptIDs. It keeps
// no reference to them.
func NewDecoder(tok *Tokenizer, promptIDs []int32) *Decoder {
	context := tok.context(promptIDs, promptContext)
	d := &Decoder{tok: tok, ids: append(make([]int32, 0, len(context)+8), context...), read: len(context)}
	d.before = d.appendText(d.before, d.ids, true)
	d.direct = tok.table.scheme != schemeLibrary && len(d.before) > 0 && !endsReplaced(d.before)
	d.lastByte = d.read > 0 && tok.table.has(d.ids[d.read-1], flagByte)
	return d
}

// context returns the end of prompt: n tokens, more if they begin inside a
// run of byte tokens, whose text is only known as a whole.
func (t *Tokenizer) context(prompt []int32, n int) []int32 {
	start := max(0, len(prompt)-n)
	for start > 0 && t.table.has(prompt[start], flagByte) {
		start--
	}
	return prompt[start:]
}

// Append appends to dst the text that id made certain, and returns it: nothing
// while a character is incomplete.
func (d *Decoder) Append(dst []byte, id int32) []byte {
	table := d.tok.table
	isByte := table.has(id, flagByte)
	if d.direct && table.has(id, flagWhole) && (!isByte || !d.lastByte) {
		d.ids = append(d.ids[:0], id)
		d.read, d.lastByte = 1, isByte
		return append(dst, table.bytes(id)...)
	}
	d.ids = append(d.ids, id)
	d.direct, d.lastByte = false, isByte
	d.before = d.appendText(d.before[:0], d.ids[:d.read], true)
	d.after = d.appendText(d.after[:0], d.ids, true)
	piece := addition(d.before, d.after)
	if len(piece) == 0 || endsReplaced(piece) {
		return dst
	}
	d.advance()
	return append(dst, piece...)
}

// Peek appends to dst the text that Append would for ids, one after the other, and
// leaves d as it is.
func (d *Decoder) Peek(dst []byte, ids ...int32) []byte {
	if d.ahead == nil {
		d.ahead = &Decoder{tok: d.tok}
	}
	a := d.ahead
	a.ids, a.read, a.direct, a.lastByte = append(a.ids[:0], d.ids...), d.read, d.direct, d.lastByte
	for _, id := range ids {
		dst = a.Append(dst, id)
	}
	return dst
}

// Flush appends what is still held, and returns it: all but the bytes at the
// end that begin a character without finishing it.
func (d *Decoder) Flush(dst []byte) []byte {
	if d.read == len(d.ids) {
		return dst
	}
	d.before = d.appendText(d.before[:0], d.ids[:d.read], true)
	d.after = d.appendText(d.after[:0], d.ids, false)
	d.advance()
	return append(dst, addition(d.before, d.after)...)
}

// advance counts the ids that were held as emitted.
func (d *Decoder) advance() {
	d.ids = d.ids[:copy(d.ids, d.ids[d.read:])]
	d.read = len(d.ids)
	d.direct = d.tok.table.scheme != schemeLibrary
}

func (d *Decoder) appendText(dst []byte, ids []int32, keepCut bool) []byte {
	switch {
	case d.tok.table.scheme != schemeLibrary:
		return d.tok.table.appendText(dst, ids, false, keepCut)
	case keepCut:
		return append(dst, d.tok.Decode(ids, false)...)
	}
	return append(dst, d.tok.decodeUncut(ids, false)...)
}

// addition returns what after has after as many characters as before has.
func addition(before, after []byte) []byte {
	if bytes.HasPrefix(after, before) {
		return after[len(before):]
	}
	for range utf8.RuneCount(before) {
		_, n := utf8.DecodeRune(after)
		after = after[n:]
	}
	return after
}

// GeneratedText returns the text of a finished generation: one decode of the
// prompt's last token and ids, less the text of that token, without special
// tokens if skipSpecial says so. A character cut off at the end is left out.
// Where the decoder takes the first space off a text, so does this after a
// prompt whose last token is skipped.
func (t *Tokenizer) GeneratedText(promptIDs, ids []int32, skipSpecial bool) string {
	context := t.context(promptIDs, 1)
	before := t.Decode(context, skipSpecial)
	all := append(append(make([]int32, 0, len(context)+len(ids)), context...), ids...)
	after := t.decodeUncut(all, skipSpecial)
	if rest, ok := strings.CutPrefix(after, before); ok {
		return rest
	}
	return string(addition([]byte(before), []byte(after)))
}
