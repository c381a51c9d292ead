package token

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine/native"
)

// scheme is how a tokenizer makes text of token spellings.
type scheme uint8

const (
	// schemeLibrary: a decoder that the table does not know; the library decodes.
	schemeLibrary scheme = iota
	// schemeByteLevel: a letter of the spelling stands for a byte. The bytes of
	// all tokens are joined, then made valid UTF-8.
	schemeByteLevel
	// schemeByteFallback: spellings are text with a mark for the space, except
	// <0xNN>. A run of those is text if it is valid UTF-8 as a whole, and one
	// U+FFFD for each byte otherwise.
	schemeByteFallback
)

const (
	flagExists  = 1 << iota
	flagSpecial // left out when special tokens are skipped
	flagByte    // one byte of a byte-fallback run
	flagWhole   // not empty, complete characters, the last one not U+FFFD
)

// table decodes ids without the library. It is never changed once made.
type table struct {
	scheme     scheme
	stripSpace bool // a text that begins with a space loses it

	// Token id has the bytes text[at[id]:at[id+1]]. One array without
	// pointers, so 250,000 tokens cost the garbage collector nothing.
	text  []byte
	at    []uint32
	flags []uint8
}

// newTable makes the table of a vocabulary. decoder is the decoder part of the tokenizer.json.
func newTable(vocabulary *native.Vocabulary, decoder []byte) (*table, error) {
	var spec decoderSpec
	if err := json.Unmarshal(decoder, &spec); err != nil {
		return nil, err
	}
	n := vocabulary.Len()
	t := &table{at: make([]uint32, 1, n+1), flags: make([]uint8, n), text: make([]byte, 0, vocabulary.Bytes())}
	var space string
	t.scheme, space, t.stripSpace = spec.scheme()
	for id := range n {
		flags := uint8(0)
		if vocabulary.Exists(id) {
			flags |= flagExists
		}
		if vocabulary.Special(id) {
			flags |= flagSpecial
		}
		spelling := vocabulary.Spelling(id)
		start := len(t.text)
		switch t.scheme {
		case schemeByteLevel:
			t.text = appendByteLevel(t.text, spelling)
		case schemeByteFallback:
			s := spelling
			if space != "" {
				s = strings.ReplaceAll(s, space, " ")
			}
			if b, ok := fallbackByte(s); ok {
				flags |= flagByte
				t.text = append(t.text, b)
			} else {
				t.text = append(t.text, s...)
			}
		default:
			t.text = append(t.text, spelling...)
		}
		if piece := t.text[start:]; t.scheme != schemeLibrary && isWhole(piece) {
			flags |= flagWhole
		}
		t.at = append(t.at, uint32(len(t.text)))
		t.flags[id] = flags
	}
	return t, nil
}

func isWhole(b []byte) bool {
	return len(b) > 0 && utf8.Valid(b) && !endsReplaced(b)
}

func endsReplaced(b []byte) bool {
	return len(b) >= len(replacement) && string(b[len(b)-len(replacement):]) == replacement
}

// bytes returns the table's own bytes of a token; an unknown id has none.
func (t *table) bytes(id int32) []byte {
	if uint(id) >= uint(len(t.flags)) {
		return nil
	}
	return t.text[t.at[id]:t.at[id+1]]
}

func (t *table) has(id int32, flag uint8) bool {
	return uint(id) < uint(len(t.flags)) && t.flags[id]&flag != 0
}

// appendText appends the text of ids to dst, exactly as the library decodes
// them. With keepCut false it leaves out the bytes at the end that begin a
// character which ids do not finish. Not for schemeLibrary.
func (t *table) appendText(dst []byte, ids []int32, skipSpecial, keepCut bool) []byte {
	start := len(dst)
	if t.scheme == schemeByteLevel {
		dst = t.appendJoined(dst, ids, skipSpecial, keepCut)
	} else {
		dst = t.appendRuns(dst, ids, skipSpecial, keepCut)
	}
	if t.stripSpace && len(dst) > start && dst[start] == ' ' {
		dst = append(dst[:start], dst[start+1:]...)
	}
	return dst
}

// appendJoined is appendText for schemeByteLevel.
func (t *table) appendJoined(dst []byte, ids []int32, skipSpecial, keepCut bool) []byte {
	start := len(dst)
	for _, id := range ids {
		if skipSpecial && t.has(id, flagSpecial) {
			continue
		}
		dst = append(dst, t.bytes(id)...)
	}
	if !keepCut {
		dst = dst[:len(dst)-cutCharacter(dst[start:])]
	}
	if utf8.Valid(dst[start:]) {
		return dst
	}
	// The valid form may be longer: it is written after, then moved to the front.
	end := len(dst)
	dst = appendValid(dst, dst[start:end])
	n := copy(dst[start:], dst[end:])
	return dst[:start+n]
}

// appendRuns is appendText for schemeByteFallback.
func (t *table) appendRuns(dst []byte, ids []int32, skipSpecial, keepCut bool) []byte {
	run := -1 // where in dst the present run of byte tokens begins
	for _, id := range ids {
		if skipSpecial && t.has(id, flagSpecial) || !t.has(id, flagExists) {
			continue
		}
		if isByte := t.has(id, flagByte); isByte && run < 0 {
			run = len(dst)
		} else if !isByte && run >= 0 {
			dst = closeRun(dst, run)
			run = -1
		}
		dst = append(dst, t.bytes(id)...)
	}
	if run < 0 {
		return dst
	}
	if !keepCut {
		dst = dst[:len(dst)-cutCharacter(dst[run:])]
	}
	return closeRun(dst, run)
}

// closeRun makes text of the bytes from run on.
func closeRun(dst []byte, run int) []byte {
	if utf8.Valid(dst[run:]) {
		return dst
	}
	n := len(dst) - run
	dst = dst[:run]
	for range n {
		dst = append(dst, replacement...)
	}
	return dst
}

// fallbackByte reads a token of the form <0xNN>.
func fallbackByte(s string) (byte, bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	hi, ok1 := hexDigit(s[3])
	lo, ok2 := hexDigit(s[4])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
