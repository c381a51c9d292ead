package chat

import (
	"encoding/json"
	"unicode/utf8"
)

// appendString appends s as a JSON string, without HTML's escapes. Invalid
// UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, c := range s {
		dst = appendCharacter(dst, c)
	}
	return append(dst, '"')
}

// appendCharacter appends c as it is written inside a JSON string.
func appendCharacter(dst []byte, c rune) []byte {
	const hex = "0123456789abcdef"
	switch {
	case c == '"' || c == '\\':
		return append(dst, '\\', byte(c))
	case c == '\n':
		return append(dst, `\n`...)
	case c == '\r':
		return append(dst, `\r`...)
	case c == '\t':
		return append(dst, `\t`...)
	case c < 0x20:
		return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
	}
	return utf8.AppendRune(dst, c)
}

// stringList returns a JSON list of strings.
func stringList(list []string) []byte {
	dst := []byte("[")
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = appendString(dst, s)
	}
	return append(dst, ']')
}

// quoted returns s as a JSON string, which is a string of Lark too.
func quoted(s string) string { return string(appendString(nil, s)) }

// asObject returns text if it is a JSON object, and the object inside if text
// is that of a JSON string that holds one; else false.
func asObject(text string) (string, bool) {
	var inner string
	if json.Unmarshal([]byte(text), &inner) == nil {
		text = inner
	}
	return text, isObject([]byte(text))
}
