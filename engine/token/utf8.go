package token

import "unicode/utf8"

const replacement = "\uFFFD"

// ToValid returns text as the tokenizer reads it: U+FFFD in place of each
// maximal part of a character that is not one (the Unicode standard's
// recommendation, and Rust's from_utf8_lossy). Valid text comes back as it is.
func ToValid(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	return string(appendValid(nil, []byte(text)))
}

// appendValid appends b to dst, replacing as ToValid does.
func appendValid(dst, b []byte) []byte {
	if utf8.Valid(b) {
		return append(dst, b...)
	}
	for len(b) > 0 {
		if r, n := utf8.DecodeRune(b); r != utf8.RuneError || n > 1 {
			dst = append(dst, b[:n]...)
			b = b[n:]
			continue
		}
		dst = append(dst, replacement...)
		n, _ := brokenPrefix(b)
		b = b[n:]
	}
	return dst
}

// brokenPrefix looks at bytes that do not begin with a character. It returns
// how many of them are the beginning of one (at least 1: a byte that begins
// nothing stands alone), and whether more bytes could still complete it.
func brokenPrefix(b []byte) (n int, unfinished bool) {
	lo, hi := byte(0x80), byte(0xBF) // of the second byte
	var size int
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		size = 2
	case c >= 0xE0 && c <= 0xEF:
		size = 3
		switch c {
		case 0xE0:
			lo = 0xA0 // shorter forms exist below
		case 0xED:
			hi = 0x9F // surrogates above
		}
	case c >= 0xF0 && c <= 0xF4:
		size = 4
		switch c {
		case 0xF0:
			lo = 0x90
		case 0xF4:
			hi = 0x8F // beyond U+10FFFF
		}
	default:
		return 1, false
	}
	for n = 1; n < size; n++ {
		if n == len(b) {
			return n, true
		}
		if b[n] < lo || b[n] > hi {
			return n, false
		}
		lo, hi = 0x80, 0xBF
	}
	return n, false
}

// cutCharacter returns how many bytes at the end of b are the beginning of a character that b does not finish.
func cutCharacter(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		tail := b[len(b)-n:]
		if !utf8.RuneStart(tail[0]) {
			continue
		}
		if tail[0] < utf8.RuneSelf {
			return 0
		}
		if m, unfinished := brokenPrefix(tail); unfinished && m == n {
			return n
		}
		return 0
	}
	return 0
}
