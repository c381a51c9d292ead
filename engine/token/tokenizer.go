package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
	"unsafe"

	"github.com/daulet/tokenizers"

	"github.com/millrace-ai/millrace/engine/native"
)

var errClosed = errors.New("tokenizer is closed")

// A Tokenizer turns text into ids and back. All its methods may be called by
// any number of goroutines at once.
type Tokenizer struct {
	// The owner of the library's object. Encoding holds mu for reading, so that
	// Close cannot free the object under it; after Close lib is nil.
	mu  sync.RWMutex
	lib *tokenizers.Tokenizer

	vocabulary *native.Vocabulary
	table      *table
	named      namedTokens
	leading    int
	longest    int  // bytes of a text that become one token, at most; 0: not known
	cuts       bool // long texts are encoded in pieces
}

// Span is one token of a text. Start and Stop count the characters (code
// points) of ToValid(text), and text[Start:Stop] is what the token was made
// from: tokens that share a character share its range. A special token that is
// spelled out in the text has its range; one that the post-processor adds has 0, 0.
type Span struct {
	ID, Start, Stop int32
}

// newTokenizer reads a tokenizer.json. Its errors do not name the file.
func newTokenizer(tokenizerJSON []byte, config config) (*Tokenizer, error) {
	h, vocabulary, err := native.LoadTokenizer(tokenizerJSON)
	if err != nil {
		return nil, explain(tokenizerJSON, err)
	}
	t := &Tokenizer{lib: adopt(h), vocabulary: vocabulary}
	if err := t.init(h, config); err != nil {
		t.Close()
		return nil, err
	}
	t.longest = t.findLongest(tokenizerJSON)
	go native.Trim() // of what reading took; nobody waits for it
	return t, nil
}

func (t *Tokenizer) init(h native.Handle, config config) (err error) {
	decoder, err := native.DecoderJSON(h)
	if err != nil {
		return err
	}
	if t.table, err = newTable(t.vocabulary, decoder); err != nil {
		return fmt.Errorf("decoder: %w", err)
	}
	t.named = config.tokens(t)
	return t.frame(h, config)
}

// frame counts the tokens that the post-processor puts before a text, after
// changing it where tokenizer_config.json asks for others.
func (t *Tokenizer) frame(h native.Handle, config config) error {
	framed, err := native.Encode(h, "", true, 0)
	if err != nil {
		return err
	}
	if config.AddBOS != nil || config.AddEOS != nil {
		// As transformers: one of the two settings makes both of them count.
		var want []int32
		var bos, eos string
		if id := t.named.bos; isTrue(config.AddBOS) && id != none {
			bos, want = t.Token(id), append(want, id)
		}
		if id := t.named.eos; isTrue(config.AddEOS) && id != none {
			eos, want = t.Token(id), append(want, id)
		}
		// Only if the ids differ: the post-processor also shapes the offsets.
		if !slices.Equal(framed, want) {
			if err := native.Frame(h, bos, eos); err != nil {
				return fmt.Errorf("add_bos_token, add_eos_token: %w", err)
			}
		}
	}
	spans, err := native.EncodeSpans(h, "a", true, 0)
	if err != nil {
		return err
	}
	for _, s := range spans {
		if s.Stop > 0 {
			break
		}
		t.leading++
	}
	return nil
}

// adopt puts an object of the library under its Go type, which owns it from
// then on. The type's own loaders are not safe for a file from anywhere, as of
// v1.24: a panic of the library, or an error text with a NUL in it, aborts the
// process, and what the file says of truncation and padding stays in force.
func adopt(h native.Handle) *tokenizers.Tokenizer {
	t := new(tokenizers.Tokenizer)
	*(*unsafe.Pointer)(unsafe.Pointer(t)) = unsafe.Pointer(h)
	return t
}

// The type that adopt fills is one pointer: either line stops compiling if it is not.
var (
	_ [unsafe.Sizeof(tokenizers.Tokenizer{}) - unsafe.Sizeof(unsafe.Pointer(nil))]struct{}
	_ [unsafe.Sizeof(unsafe.Pointer(nil)) - unsafe.Sizeof(tokenizers.Tokenizer{})]struct{}
)

// Close frees the library's memory. Encoding and decoding through the library
// fail from then on; the tables, and Decoders that use them, stay usable.
func (t *Tokenizer) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lib == nil {
		return nil
	}
	err := t.lib.Close()
	t.lib = nil
	return err
}

// handle returns the library's object; the caller holds mu.
func (t *Tokenizer) handle() (native.Handle, error) {
	if t.lib == nil {
		return nil, errClosed
	}
	return native.Handle(*(*unsafe.Pointer)(unsafe.Pointer(t.lib))), nil
}

// Encode returns the ids of text. With addSpecial the post-processor adds its
// tokens (usually a BOS). Special tokens that text spells out are recognised
// either way. Invalid UTF-8 is read as ToValid says.
func (t *Tokenizer) Encode(text string, addSpecial bool) ([]int32, error) {
	return t.EncodeMarked(text, addSpecial, 0)
}

// EncodeMarked is Encode for a text in which mark, unless it is 0, stands inside
// of what is spelled like a special token and is not one. The ids are those of
// the text without the marks.
func (t *Tokenizer) EncodeMarked(text string, addSpecial bool, mark rune) ([]int32, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h, err := t.handle()
	if err != nil {
		return nil, err
	}
	ids, err := native.Encode(h, text, addSpecial, mark)
	trim(len(text))
	if err != nil {
		return nil, fmt.Errorf("encode %d bytes: %w", len(text), err)
	}
	return ids, nil
}

// EncodeSpans is Encode with the place of each token in the text.
func (t *Tokenizer) EncodeSpans(text string, addSpecial bool) ([]Span, error) {
	return t.EncodeSpansMarked(text, addSpecial, 0)
}

// EncodeSpansMarked is EncodeMarked with the place of each token in the text
// without the marks.
func (t *Tokenizer) EncodeSpansMarked(text string, addSpecial bool, mark rune) ([]Span, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h, err := t.handle()
	if err != nil {
		return nil, err
	}
	raw, err := native.EncodeSpans(h, text, addSpecial, mark)
	trim(len(text))
	if err != nil {
		return nil, fmt.Errorf("encode %d bytes: %w", len(text), err)
	}
	spans := make([]Span, len(raw))
	for i, s := range raw {
		spans[i] = Span{int32(s.ID), int32(s.Start), int32(s.Stop)}
	}
	return spans, nil
}

// trimmed is how long a text must be for the memory that it took to be worth
// giving back to the system.
const trimmed = 64 << 10

// trim gives back what encoding a text of so many bytes took.
func trim(bytes int) {
	if bytes >= trimmed {
		native.Trim()
	}
}

// Decode returns the text of ids as the library decodes them: bytes that make
// no character become U+FFFD, also at the end. Ids without a token add nothing.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	if t.table.scheme != schemeLibrary {
		return string(t.table.appendText(nil, ids, skipSpecial, true))
	}
	return t.decodeByLibrary(ids, skipSpecial)
}

// decodeByLibrary returns "" when the library fails: its decoders do so on a
// broken configuration alone, and a generation must not end for it.
func (t *Tokenizer) decodeByLibrary(ids []int32, skipSpecial bool) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h, err := t.handle()
	if err != nil {
		return ""
	}
	s, err := native.Decode(h, ids, skipSpecial)
	if err != nil {
		return ""
	}
	return s
}

// decodeUncut is Decode without the beginning of a character at the end that ids do not finish.
func (t *Tokenizer) decodeUncut(ids []int32, skipSpecial bool) string {
	if t.table.scheme != schemeLibrary {
		return string(t.table.appendText(nil, ids, skipSpecial, false))
	}
	// The library does not tell a cut character from a replaced one. Cut is
	// what ends well with a few tokens less: a character has four bytes.
	whole := t.Decode(ids, skipSpecial)
	s := whole
	for n := len(ids) - 1; n >= 0 && n > len(ids)-utf8.UTFMax && strings.HasSuffix(s, replacement); n-- {
		s = t.Decode(ids[:n], skipSpecial)
	}
	if strings.HasSuffix(s, replacement) {
		return whole
	}
	return s
}

// VocabSize returns the largest id plus one, added tokens included. A model's
// embedding may have more rows.
func (t *Tokenizer) VocabSize() int { return t.vocabulary.Len() }

// Special returns how the special tokens are spelled.
func (t *Tokenizer) Special() []string {
	var spellings []string
	for id := range t.vocabulary.Len() {
		if t.vocabulary.Exists(id) && t.vocabulary.Special(id) {
			spellings = append(spellings, t.vocabulary.Spelling(id))
		}
	}
	return spellings
}

// IsSpecial reports whether id is an added token that is marked special.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.table.has(id, flagSpecial) }

// ID returns the id of the token that is spelled exactly so in the vocabulary. After
// Close no token has one.
func (t *Tokenizer) ID(token string) (id int32, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h, err := t.handle()
	if err != nil {
		return 0, false
	}
	return native.TokenID(h, token)
}

// Token returns how a token is spelled in the vocabulary ("Ġthe", "▁the",
// "<0x0A>"), which is not its text; "" for an unknown id.
func (t *Tokenizer) Token(id int32) string {
	if uint(id) >= uint(t.vocabulary.Len()) {
		return ""
	}
	return t.vocabulary.Spelling(int(id))
}

// TokenBytes returns the bytes that a token adds to a text, possibly a part of
// a character; nil for an unknown id. Where only the library can decode, they
// are the bytes of the spelling. The caller must not change them.
func (t *Tokenizer) TokenBytes(id int32) []byte {
	b := t.table.bytes(id)
	return b[:len(b):len(b)]
}

// BOS returns the id that begins a text, if tokenizer_config.json (or
// special_tokens_map.json) names one that is in the vocabulary. So do EOS for
// the end, Unknown and Pad.
func (t *Tokenizer) BOS() (id int32, ok bool) { return t.named.bos, t.named.bos != none }

// EOS returns the id that ends a text; see BOS.
func (t *Tokenizer) EOS() (id int32, ok bool) { return t.named.eos, t.named.eos != none }

// Unknown returns the id of what the vocabulary lacks; see BOS.
func (t *Tokenizer) Unknown() (id int32, ok bool) { return t.named.unk, t.named.unk != none }

// Pad returns the id that fills up a batch; see BOS.
func (t *Tokenizer) Pad() (id int32, ok bool) { return t.named.pad, t.named.pad != none }

// LeadingSpecial returns how many tokens Encode with addSpecial puts before a text.
func (t *Tokenizer) LeadingSpecial() int { return t.leading }

// TruncateLeft shortens ids to at most n by taking tokens out of the left
// side, but not the first leading ones: those (a BOS) stay, with the last
// n-leading. It returns ids itself if it is short enough, and never changes it.
func TruncateLeft(ids []int32, n, leading int) []int32 {
	n = max(n, 0)
	if len(ids) <= n {
		return ids
	}
	leading = max(0, min(leading, n))
	if leading == 0 {
		return ids[len(ids)-n:]
	}
	short := make([]int32, 0, n)
	short = append(short, ids[:leading]...)
	return append(short, ids[len(ids)-(n-leading):]...)
}
