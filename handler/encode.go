package handler

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine/token"
)

// The encoder appends JSON as serde_json prints it, except for the characters
// that Python's splitlines takes for the end of a line: clients that read a
// stream with it, huggingface_hub among them, would break an event there. Token
// events are written by hand because they are the whole cost of a stream: no
// reflection, no allocation.

const hexDigits = "0123456789abcdef"

// escaped tells the bytes that a JSON string cannot hold as they are.
var escaped = func() (t [256]bool) {
	for i := range 0x20 {
		t[i] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

// appendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD; the
// line ends U+0085, U+2028 and U+2029 are escaped.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf && !escaped[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := decodeRune(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(dst, s[start:i]...)
				dst = append(dst, "\uFFFD"...)
			case r == '\u0085':
				dst = append(dst, s[start:i]...)
				dst = append(dst, `\u0085`...)
			case r == '\u2028' || r == '\u2029':
				dst = append(dst, s[start:i]...)
				dst = append(dst, `\u202`...)
				dst = append(dst, hexDigits[r&15])
			default:
				i += n
				continue
			}
			i += n
			start = i
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func decodeRune[T string | []byte](s T) (rune, int) {
	if len(s) > utf8.UTFMax {
		s = s[:utf8.UTFMax]
	}
	return utf8.DecodeRuneInString(string(s)) // four bytes: stays on the stack
}

// appendFloat32 appends f in the shortest form that reads back as the same
// float32, with a point or an exponent; NaN and the infinities as null.
func appendFloat32(dst []byte, f float32) []byte {
	a := max(f, -f)
	switch {
	case a != a || a > math.MaxFloat32:
		return append(dst, "null"...)
	case a != 0 && (a < 1e-6 || a >= 1e13): // where Rust's ryu changes form
		return appendExponent(dst, f)
	}
	from := len(dst)
	dst = strconv.AppendFloat(dst, float64(f), 'f', -1, 32)
	for _, c := range dst[from:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, ".0"...)
}

// appendExponent appends f as 1.5e-7: no plus sign, no leading zero.
func appendExponent(dst []byte, f float32) []byte {
	var buf [24]byte
	s := strconv.AppendFloat(buf[:0], float64(f), 'e', -1, 32)
	for i, c := range s {
		if c != 'e' {
			continue
		}
		dst = append(dst, s[:i+1]...)
		digits := s[i+2:]
		if s[i+1] == '-' {
			dst = append(dst, '-')
		}
		for len(digits) > 1 && digits[0] == '0' {
			digits = digits[1:]
		}
		return append(dst, digits...)
	}
	return append(dst, s...)
}

// appendToken appends {"id","text","logprob","special"}.
func appendToken[T string | []byte](dst []byte, id int32, text T, logprob float32, special bool) []byte {
	dst = append(dst, `{"id":`...)
	dst = strconv.AppendInt(dst, int64(id), 10)
	dst = append(dst, `,"text":`...)
	dst = appendString(dst, text)
	dst = append(dst, `,"logprob":`...)
	dst = appendFloat32(dst, logprob)
	if special {
		return append(dst, `,"special":true}`...)
	}
	return append(dst, `,"special":false}`...)
}

// appendComma appends a comma unless dst is empty.
func appendComma(dst []byte) []byte {
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	return dst
}

// appendList appends a list's elements between its beginning and its end.
func appendList(dst []byte, open string, elements []byte) []byte {
	dst = append(dst, open...)
	dst = append(dst, elements...)
	return append(dst, ']')
}

// textOf is the text of one token by itself.
func textOf(tok *token.Tokenizer, id int32) string { return tok.Decode([]int32{id}, false) }
