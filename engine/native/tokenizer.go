package native

/*
#include "millrace_native.h"
*/
import "C"

import (
	"bytes"
	"encoding/binary"
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

// A Vocabulary is all tokens by id, the added ones with the model's own. It is three
// arrays without pointers, so 250,000 tokens cost the garbage collector nothing.
type Vocabulary struct {
	text  string
	ends  []uint32 // of the spellings in text
	flags []uint8
}

// What flags say of a token.
const (
	tokenExists = 1 << iota
	tokenAdded
	tokenSpecial
)

// Len returns the largest id plus one.
func (v *Vocabulary) Len() int { return len(v.ends) }

// Spelling returns how a token is spelled, "" for a gap in the ids.
func (v *Vocabulary) Spelling(id int) string {
	start := uint32(0)
	if id > 0 {
		start = v.ends[id-1]
	}
	return v.text[start:v.ends[id]]
}

// Exists reports whether there is a token of this id.
func (v *Vocabulary) Exists(id int) bool { return v.flags[id]&tokenExists != 0 }

// Added reports whether a token is from added_tokens, not of the model's own vocabulary.
func (v *Vocabulary) Added(id int) bool { return v.flags[id]&tokenAdded != 0 }

// Special reports whether a decode that skips special tokens leaves a token out.
func (v *Vocabulary) Special(id int) bool { return v.flags[id]&tokenSpecial != 0 }

// Bytes returns how many bytes all spellings have.
func (v *Vocabulary) Bytes() int { return len(v.text) }

// LoadTokenizer makes a tokenizer from the text of a tokenizer.json. Truncation
// and padding that the file asks for are switched off. It fails if an id is so large
// that a table by id is out of the question.
func LoadTokenizer(json []byte) (Handle, *Vocabulary, error) {
	p, n := raw(json)
	var vocabulary C.mr_result
	h, err := takeObject(C.mr_tokenizer_new(p, n, &vocabulary))
	defer C.mr_free(vocabulary.data, vocabulary.len)
	if err != nil {
		return nil, nil, err
	}
	all := unsafe.Slice((*byte)(vocabulary.data), vocabulary.len)
	const word = 4
	count, all := int(binary.NativeEndian.Uint32(all)), all[word:]
	v := &Vocabulary{
		ends:  make([]uint32, count),
		flags: bytes.Clone(all[word*count:][:count]),
		text:  string(all[(word+1)*count:]),
	}
	for id := range v.ends {
		v.ends[id] = binary.NativeEndian.Uint32(all[word*id:])
	}
	return Handle(h), v, nil
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

// DecoderJSON returns the decoder part of the tokenizer.json, "null" without one.
func DecoderJSON(h Handle) ([]byte, error) {
	return take(C.mr_decoder_json(unsafe.Pointer(h)))
}
