package engine

import (
	"context"
	"io"

	"github.com/millrace-ai/millrace/engine/stop"
)

// FinishStop is the reason Text gives when a stop string ended the sequence.
const FinishStop FinishReason = FinishRepetition + 1

// Detokenizer turns ids into text, one at a time; a token.Decoder is one.
type Detokenizer interface {
	// Append appends to dst the text that id completes: whole characters, or
	// nothing while a character's bytes are still coming.
	Append(dst []byte, id int32) []byte
	// Peek appends what Append would for ids, one after the other, and changes
	// nothing.
	Peek(dst []byte, ids ...int32) []byte
	// Flush appends what is still held, less an unfinished character.
	Flush(dst []byte) []byte
}

// Specials knows the tokens that are shown but are not part of the generated text; a
// token.Tokenizer does.
type Specials interface {
	IsSpecial(id int32) bool
}

// Piece is one generated token and its text.
type Piece struct {
	Token
	// Text is the characters that the token completed, empty if it completed
	// none. It is valid until the next call of Text.Next.
	Text    []byte
	Special bool
	// Last is set on the sequence's last piece, and only there. It may be
	// missing: a sequence that fails, or ends without a token, has none.
	Last bool
}

// Text reads a Stream as characters and ends it at a stop string.
//
// There is one Piece per token, and none waits for the next: the text of a sequence
// includes the stop string that ends it, as TGI's does, so nothing has to be held
// back. The piece that completes a stop string is cut after
// it; the tokens after it are dropped and not counted. The pieces of tokens
// that are not special, joined, are the generated text.
//
// A Text belongs to one goroutine. Its zero value needs a Reset.
type Text struct {
	stream   *Stream
	dec      Detokenizer
	specials Specials
	stops    *stop.Matcher
	pieces   []Piece
	text     []byte // of pieces
	out      []byte // generated text
	n        int    // tokens
	free     int    // tokens in which no stop string is looked for
	stopped  bool   // a stop string was found
}

// Reset makes t read stream, which it closes when it has found a stop string;
// closing it otherwise stays with the caller. stops may be nil. A Text may be
// used again: it keeps its buffers.
func (t *Text) Reset(stream *Stream, dec Detokenizer, specials Specials, stops *stop.Matcher) {
	*t = Text{
		stream: stream, dec: dec, specials: specials, stops: stops,
		pieces: t.pieces[:0], text: t.text[:0], out: t.out[:0],
	}
}

// StopAfter makes t look for stop strings only after the first n tokens. Call
// it after Reset.
func (t *Text) StopAfter(n int) { t.free = n }

// Next returns the pieces of all tokens that have become ready, waiting for
// one if there are none. The slice is valid until the next call. After the
// last piece it returns io.EOF, or the *Error that ended the sequence.
func (t *Text) Next(ctx context.Context) ([]Piece, error) {
	if t.stopped {
		return nil, io.EOF
	}
	tokens, err := t.stream.Next(ctx)
	if err != nil {
		return nil, err
	}
	t.pieces, t.text = t.pieces[:0], t.text[:0]
	for i := range tokens {
		last := i == len(tokens)-1 && t.stream.Done() && t.stream.err == nil
		if t.add(tokens[i], last) {
			break
		}
	}
	return t.pieces, nil
}

// add appends the piece of one token and reports whether it is the last one.
func (t *Text) add(token Token, last bool) bool {
	t.n++
	from := len(t.text)
	t.text = t.dec.Append(t.text, token.ID)
	p := Piece{Token: token, Special: t.specials.IsSpecial(token.ID), Last: last}
	end, hit := 0, false
	if t.n > t.free {
		end, _, hit = t.stops.Find(t.text[from:])
	}
	// TGI looks for the model's end token before it looks for stop strings.
	if hit && !(last && t.stream.Finish() == FinishEOS) {
		t.stopped, p.Last = true, true
		t.text = t.text[:from+end]
		t.stream.Close()
	}
	if p.Last && !t.stopped {
		t.text = t.dec.Flush(t.text)
	}
	p.Text = t.text[from:]
	if !p.Special {
		t.out = append(t.out, p.Text...)
	}
	t.pieces = append(t.pieces, p)
	return p.Last
}

// Generated returns the text generated so far, without special tokens. It is
// valid until the next call of Next or Reset.
func (t *Text) Generated() []byte { return t.out }

// Tokens returns the number of tokens read so far.
func (t *Text) Tokens() int { return t.n }

// Finish says why the sequence ended; valid after the last piece.
func (t *Text) Finish() FinishReason {
	if t.stopped {
		return FinishStop
	}
	return t.stream.Finish()
}
