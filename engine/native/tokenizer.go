package native

/*
#include "millrace_native.h"
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"unsafe"
)

// A Handle is a loaded tokenizer: the object that daulet/tokenizers' Go type
// points to, and freed by that type's Close. Any number of goroutines may use
// it until then.
type Handle unsafe.Pointer

// Span is one token of a text: Start and Stop count characters (code points),
// and are 0, 0 for a token that the post-processor added.
type Span struct {
	ID          uint32
	Start, Stop uint32
}

// Token is an entry of the vocabulary. Exists is false for a gap in the ids.
type Token struct {
	Spelling string
	Exists   bool
	Added    bool // from added_tokens, not of the model's own vocabulary
	Special  bool // left out by a decode that skips special tokens
}

// LoadTokenizer makes a tokenizer from the text of a tokenizer.json. Truncation
// and padding that the file asks for are switched off.
func LoadTokenizer(json []byte) (Handle, error) {
	p, n := raw(json)
	h, err := takeObject(C.mr_tokenizer_new(p, n))
	return Handle(h), err
}

// Frame makes the tokenizer put bos before and eos after a text that is
// encoded with special tokens, and nothing else; "" leaves one out. Call it
// before h is shared. It fails if the vocabulary lacks a token.
func Frame(h Handle, bos, eos string) error {
	b, nb := text(bos)
	e, ne := text(eos)
	_, err := take(C.mr_tokenizer_frame(unsafe.Pointer(h), b, nb, e, ne))
	return err
}

// Encode returns the ids of s. Invalid UTF-8 is read as U+FFFD. mark, if it is
// not 0, is a character that is in s only to keep special tokens from being
// found, and is not tokenized.
func Encode(h Handle, s string, addSpecial bool, mark rune) ([]int32, error) {
	p, n := text(s)
	return takeArray[int32](C.mr_encode(unsafe.Pointer(h), p, n, C.bool(addSpecial), C.uint32_t(mark)))
}

// EncodeSpans is Encode with the place of each token in s without marks.
func EncodeSpans(h Handle, s string, addSpecial bool, mark rune) ([]Span, error) {
	p, n := text(s)
	return takeArray[Span](C.mr_encode_spans(unsafe.Pointer(h), p, n, C.bool(addSpecial), C.uint32_t(mark)))
}

// Decode returns the text of ids; an id without a token adds nothing.
func Decode(h Handle, ids []int32, skipSpecial bool) (string, error) {
	p := (*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(ids)))
	return takeString(C.mr_decode(unsafe.Pointer(h), p, C.size_t(len(ids)), C.bool(skipSpecial)))
}

// TokenID returns the id of the token that is spelled s.
func TokenID(h Handle, s string) (int32, bool) {
	p, n := text(s)
	id, err := takeArray[int32](C.mr_token_to_id(unsafe.Pointer(h), p, n))
	if err != nil || len(id) == 0 {
		return 0, false
	}
	return id[0], true
}

// Vocabulary returns all tokens, indexed by id, with the added ones. It fails
// if an id is so large that a table by id is out of the question.
func Vocabulary(h Handle) ([]Token, error) {
	b, err := take(C.mr_vocabulary(unsafe.Pointer(h)))
	if err != nil {
		return nil, err
	}
	const head = 5 // flags, length
	all := string(b)
	var tokens []Token
	for at := 0; at < len(b); {
		if len(b)-at < head {
			return nil, fmt.Errorf("vocabulary: %d bytes after token %d", len(b)-at, len(tokens))
		}
		flags, n := b[at], int(binary.NativeEndian.Uint32(b[at+1:]))
		at += head
		tokens = append(tokens, Token{
			Spelling: all[at : at+n],
			Exists:   flags&1 != 0,
			Added:    flags&2 != 0,
			Special:  flags&4 != 0,
		})
		at += n
	}
	return tokens, nil
}

// DecoderJSON returns the decoder part of the tokenizer.json, "null" without one.
func DecoderJSON(h Handle) ([]byte, error) {
	return take(C.mr_decoder_json(unsafe.Pointer(h)))
}
