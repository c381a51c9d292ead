package handler

import (
	"context"
	"io"
	"strconv"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/stop"
	"github.com/millrace-ai/millrace/engine/token"
)

// generation is one sequence as the generate routes show it.
type generation struct {
	tok    *token.Tokenizer
	stream *engine.Stream // nil: there is none
	text   engine.Text
	seed   optional[uint64] // of its draws, if it draws
	score  float64          // sum of the tokens' log-probabilities

	// Elements of the lists of details.
	tokens []byte
	top    []byte
}

// reset makes g read stream, which generates for j; nil for none. It keeps its
// buffers unless they are large.
func (g *generation) reset(tok *token.Tokenizer, j *job, stream *engine.Stream) {
	g.tok, g.stream, g.seed, g.score, g.tokens, g.top = tok, stream, optional[uint64]{}, 0, g.tokens[:0], g.top[:0]
	if stream != nil {
		g.seed = j.seed
		g.text.Reset(stream, token.NewDecoder(tok, j.req.Tokens), tok, stop.New(j.stops))
		g.text.StopAfter(j.req.MinNewTokens)
		return
	}
	g.text.Reset(nil, nil, nil, nil)
	for _, b := range []*[]byte{&g.tokens, &g.top} {
		if cap(*b) > maxKept {
			*b = nil
		}
	}
}

// read reads the sequence to its end.
func (g *generation) read(ctx context.Context, x *exchange, j *job) error {
	for {
		pieces, err := g.text.Next(ctx)
		if err == io.EOF {
			return incomplete(err)
		}
		if isExpired(err) && g.text.Tokens() > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := x.holdPieces(pieces); err != nil {
			return err
		}
		g.collect(j, pieces)
		if pieces[len(pieces)-1].Last {
			return nil
		}
	}
}

// collect appends pieces to the lists of details.
func (g *generation) collect(j *job, pieces []engine.Piece) {
	for i := range pieces {
		p := &pieces[i]
		g.score += float64(p.Logprob)
		if !j.details {
			continue
		}
		g.tokens = appendComma(g.tokens)
		g.tokens = appendToken(g.tokens, p.ID, p.Text, p.Logprob, p.Special)
		if j.req.TopN > 0 {
			g.top = appendComma(g.top)
			g.top = appendTop(g.top, g.tok, p.Top)
		}
	}
}

func appendComma(dst []byte) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	return dst
}

// appendTop appends a token's alternatives as a list of tokens.
func appendTop(dst []byte, tok *token.Tokenizer, top []engine.Alternative) []byte {
	dst = append(dst, '[')
	for i, a := range top {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendToken(dst, a.ID, textOf(tok, a.ID), a.Logprob, tok.IsSpecial(a.ID))
	}
	return append(dst, ']')
}

// appendText appends the generated text, behind the prompt if wanted.
func (g *generation) appendText(dst []byte, j *job) []byte {
	if !j.fullText {
		return appendString(dst, g.text.Generated())
	}
	dst = appendString(dst, j.inputs)
	from := len(dst) - 1 // the two strings become one: the quotes between them go
	dst = appendString(dst[:from], g.text.Generated())
	return append(dst[:from], dst[from+1:]...)
}

// appendEnding appends the first members of details.
func (g *generation) appendEnding(dst []byte) []byte {
	dst = appendReason(dst, finishReason(g.text.Finish()), g.text.Finish())
	dst = append(dst, `,"generated_tokens":`...)
	dst = strconv.AppendInt(dst, int64(g.text.Tokens()), 10)
	dst = append(dst, `,"seed":`...)
	if !g.seed.set {
		return append(dst, "null"...)
	}
	return strconv.AppendUint(dst, g.seed.v, 10)
}

// appendTokens appends the members that list the tokens of prompt, which are
// there if they were scored, and those of the sequence.
func (g *generation) appendTokens(dst []byte, prompt []engine.Token) []byte {
	dst = append(dst, `,"prefill":[`...)
	for i, t := range prompt {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = strconv.AppendInt(dst, int64(t.ID), 10)
		dst = append(dst, `,"text":`...)
		dst = appendString(dst, textOf(g.tok, t.ID))
		dst = append(dst, `,"logprob":`...)
		dst = appendFloat32(dst, t.Logprob)
		dst = append(dst, '}')
	}
	return appendList(dst, `],"tokens":[`, g.tokens)
}

// appendTopTokens appends the member with the alternatives, if there are any.
func (g *generation) appendTopTokens(dst []byte) []byte {
	if len(g.top) == 0 {
		return dst
	}
	return appendList(dst, `,"top_tokens":[`, g.top)
}
