package engine

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/page"
)

// account is the memory of requests: prompts, keys and tokens. Submit takes what a
// request needs from the start, or refuses it; what it generates is added as it comes,
// so that a request which may generate much costs only what it does generate. That is
// bounded too: a sequence that generates has pages in the cache.
type account struct {
	used   atomic.Int64 // bytes
	open   atomic.Int64 // sequences that hold some of it
	budget int64
}

// hold is one request's part of an account. It is given back when neither the loop nor
// the reader needs it any more.
type hold struct {
	account *account
	bytes   int64        // written by the loop, and before by Submit
	parties atomic.Int32 // 2 at first: the engine and the reader
}

// take reserves n bytes.
func (a *account) take(n int64) error {
	if n > a.budget {
		return &Error{Kind: Invalid, Msg: fmt.Sprintf("the request takes %d bytes of memory, the limit is %d", n, a.budget)}
	}
	if used := a.used.Add(n); used > a.budget {
		a.used.Add(-n)
		return &Error{Kind: Overloaded, Msg: fmt.Sprintf("requests would take %d bytes of memory, the limit is %d", used, a.budget)}
	}
	return nil
}

// open makes h hold n bytes that were taken.
func (h *hold) open(a *account, n int64) {
	h.account, h.bytes = a, n
	a.open.Add(1)
	h.parties.Store(2)
}

// grow adds n bytes of a request that runs.
func (h *hold) grow(n int64) {
	if h.account != nil {
		h.bytes += n
		h.account.used.Add(n)
	}
}

// letGo says that one of the two needs it no more.
func (h *hold) letGo() {
	if h.account != nil && h.parties.Add(-1) == 0 {
		h.account.used.Add(-h.bytes)
		h.account.open.Add(-1)
	}
}

// Sizes that are accounted for.
const (
	tokenBytes       = int64(unsafe.Sizeof(Token{}))
	alternativeBytes = int64(unsafe.Sizeof(Alternative{}))
	keyBytes         = int64(unsafe.Sizeof(page.Key{}))
	listBytes        = int64(unsafe.Sizeof([]int32{}))
	pictureBytes     = int64(unsafe.Sizeof(Image{}) + unsafe.Sizeof(picture{}) + unsafe.Sizeof(device.Span{}))
	// A sequence, its Stream and its context.
	sequenceBytes = int64(unsafe.Sizeof(sequence{})+unsafe.Sizeof(Stream{})) + 512
)

// requestBytes is what a sequence of r takes before it generates. Forks of one
// prompt share it and its keys.
func requestBytes(r *Request, vocab int, fork bool) int64 {
	mask := int64(device.MaskWords(vocab)) * 4
	n := sequenceBytes + int64(min(r.MaxNewTokens, firstChunk))*tokenBytes
	if r.Constraint != nil {
		n += mask + int64(r.Constraint.Reasoning.tokens())*4
	}
	n += int64(r.Repetition.sizes()) * 4
	if fork {
		return n
	}
	n += int64(len(r.Tokens))*4 + int64(keysRoom(r))*keyBytes + int64(len(r.LogitBias))*8
	n += int64(len(r.StopTokens)+len(r.AllowedTokens)) * 4
	for _, ban := range r.BannedTokens {
		n += listBytes + int64(len(ban))*4
	}
	n += int64(len(r.Prediction)) * 4
	for i := range r.Images {
		n += r.Images[i].Bytes + pictureBytes
	}
	if r.AllowedTokens != nil || len(r.BannedTokens) > 0 {
		n += mask
	}
	if r.PromptLogprobs {
		n += int64(len(r.Tokens)) * (tokenBytes + int64(r.TopN)*alternativeBytes)
	}
	return n
}

// keysRoom is how many keys a request has room for from the start: for the pages of
// its prompt and of its first chunk of tokens.
func keysRoom(r *Request) int {
	return (len(r.Tokens) + min(r.MaxNewTokens, firstChunk)) / page.Tokens
}

// Tokens are generated into chunks: a short one, which is there from the start, then
// long ones. A chunk is written once and never reused, since the reader of a Stream may
// keep what Next returned.
const (
	firstChunk = 64
	laterChunk = 256
)

type chunk struct {
	tokens []Token
	next   *chunk // written before a token of it is published
}

// output is the loop's side of what a Stream hands out.
type output struct {
	stream    *Stream
	chunks    []*chunk
	generated int // tokens in chunks
	most      int // tokens that may come
}

// newOutput returns the output of most tokens.
func newOutput(stream *Stream, most int) output {
	stream.chunk = &chunk{tokens: make([]Token, min(most, firstChunk))}
	return output{stream: stream, most: most, chunks: append(make([]*chunk, 0, 4), stream.chunk)}
}

// append adds a token, which publish will show.
func (o *output) append(t Token) {
	at, c := o.place(o.generated)
	if c == len(o.chunks) {
		next := &chunk{tokens: make([]Token, min(laterChunk, o.most-o.generated))}
		o.stream.hold.grow(int64(len(next.tokens)) * tokenBytes)
		o.chunks[c-1].next = next
		o.chunks = append(o.chunks, next)
	}
	o.chunks[c].tokens[at] = t
	o.generated++
}

// place returns where token i is: its chunk, and its place there.
func (o *output) place(i int) (at, chunk int) {
	if i < firstChunk {
		return i, 0
	}
	i -= firstChunk
	return i % laterChunk, 1 + i/laterChunk
}

// id returns the id of token i.
func (o *output) id(i int) int32 {
	at, c := o.place(i)
	return o.chunks[c].tokens[at].ID
}
