// Package body reads JSON request bodies field by field and says what is
// wrong with them in the words of serde_json, which TGI's clients see: what
// was found, what was expected, the path of the field, line and column.
//
// Why not encoding/json: it decodes leniently (case-folded names, replaced
// invalid UTF-8, duplicate fields) and its errors name neither path nor
// column. The reader looks at each byte once, allocates only what it returns,
// and its recursion is bounded by maxDepth.
package body

import (
	"math/bits"
	"unicode/utf8"
)

// maxDepth is the nesting at which serde_json gives up.
const maxDepth = 128

// Reader reads one JSON value from a body in memory. Methods that read a value
// skip white space before it and leave the Reader after it. After an error
// the Reader must not be used again. Text after the value is not looked at.
type Reader struct {
	data    []byte
	pos     int // bytes consumed
	depth   int // open arrays and objects
	scratch []byte
}

// NewReader returns a Reader of data, which it never changes.
func NewReader(data []byte) *Reader { return &Reader{data: data} }

// Object reads an object. For each field whose name is in fields it calls
// value with the name's index; value must read exactly one value. Other
// fields are skipped, a name in fields that comes twice is an error. want
// names the expected type, as in "struct GenerateRequest". At most 128 fields.
func (r *Reader) Object(want string, fields []string, value func(field int) error) error {
	if r.next() != '{' {
		return r.unexpected(want)
	}
	if err := r.enter(); err != nil {
		return err
	}
	var seen [2]uint64
	for first := true; ; first = false {
		more, err := r.moreFields(first)
		if err != nil {
			return err
		}
		if !more {
			r.leave()
			return nil
		}
		name, err := r.text()
		if err != nil {
			return err
		}
		i := index(fields, name)
		key := ""
		if i < 0 {
			key = string(cut(name, maxEcho)) // scratch may change below
		} else {
			key = fields[i]
			if seen[i/64]>>(i%64)&1 == 1 {
				return r.Errorf("duplicate field `%s`", key)
			}
			seen[i/64] |= 1 << (i % 64)
		}
		if err := r.colon(); err != nil {
			return err
		}
		if i < 0 {
			err = r.Skip()
		} else {
			err = value(i)
		}
		if err != nil {
			return Within(err, key)
		}
	}
}

// Array reads an array and calls elem before each element, with its index;
// elem must read exactly one value. want names the expected type.
func (r *Reader) Array(want string, elem func(i int) error) error {
	if r.next() != '[' {
		return r.unexpected(want)
	}
	if err := r.enter(); err != nil {
		return err
	}
	for i := 0; ; i++ {
		more, err := r.moreElements(i == 0)
		if err != nil {
			return err
		}
		if !more {
			r.leave()
			return nil
		}
		if err := elem(i); err != nil {
			return withinIndex(err, i)
		}
	}
}

// Null reads a null if one is next, and reports whether it was.
func (r *Reader) Null() (bool, error) {
	if r.next() != 'n' {
		return false, nil
	}
	return true, r.ident("null")
}

// Bool reads true or false.
func (r *Reader) Bool() (bool, error) {
	switch r.next() {
	case 't':
		return true, r.ident("true")
	case 'f':
		return false, r.ident("false")
	}
	return false, r.unexpected("a boolean")
}

// String reads a string.
func (r *Reader) String() (string, error) {
	if r.next() != '"' {
		return "", r.unexpected("a string")
	}
	b, err := r.text()
	return string(b), err
}

// IsString reports whether a string is next.
func (r *Reader) IsString() bool { return r.next() == '"' }

// IsArray reports whether an array is next.
func (r *Reader) IsArray() bool { return r.next() == '[' }

// IsObject reports whether an object is next.
func (r *Reader) IsObject() bool { return r.next() == '{' }

// Raw skips a value and returns its text, which is part of the body.
func (r *Reader) Raw() ([]byte, error) {
	r.next()
	from := r.pos
	err := r.Skip()
	return r.data[from:r.pos], err
}

// Offset returns where the next value begins, for Since.
func (r *Reader) Offset() int {
	r.next()
	return r.pos
}

// Since returns the text between an offset and the Reader, part of the body.
func (r *Reader) Since(offset int) []byte { return r.data[offset:r.pos] }

// Skip reads a value of any kind and drops it.
func (r *Reader) Skip() error {
	var stack [maxDepth]byte // the closing brackets to come
	open := 0
	for {
		switch c := r.next(); c {
		case '{', '[':
			if err := r.enter(); err != nil {
				return err
			}
			stack[open] = c + 2
			open++
			more, err := r.more(c+2, true)
			if err != nil {
				return err
			}
			if more {
				continue
			}
			r.leave()
			open--
		case '"':
			if err := r.skipText(); err != nil {
				return err
			}
		case 'n':
			if err := r.ident("null"); err != nil {
				return err
			}
		case 't':
			if err := r.ident("true"); err != nil {
				return err
			}
		case 'f':
			if err := r.ident("false"); err != nil {
				return err
			}
		default:
			if c != '-' && (c < '0' || c > '9') {
				return r.noValue()
			}
			if _, err := r.number(); err != nil {
				return err
			}
		}
		for open > 0 {
			more, err := r.more(stack[open-1], false)
			if err != nil {
				return err
			}
			if more {
				break
			}
			r.leave()
			open--
		}
		if open == 0 {
			return nil
		}
	}
}

// more moves to the next value of an object or array that ends with closing,
// past an object's key, and reports whether there is one.
func (r *Reader) more(closing byte, first bool) (bool, error) {
	if closing == ']' {
		return r.moreElements(first)
	}
	more, err := r.moreFields(first)
	if !more || err != nil {
		return false, err
	}
	if err := r.skipText(); err != nil {
		return false, err
	}
	return true, r.colon()
}

// moreFields moves to the next key of an object, or past its end.
func (r *Reader) moreFields(first bool) (bool, error) {
	c := r.next()
	switch {
	case c == '}':
		r.pos++
		return false, nil
	case r.atEnd():
		return false, r.syntaxAhead("EOF while parsing an object")
	case !first && c != ',':
		return false, r.syntaxAhead("expected `,` or `}`")
	case !first:
		r.pos++
		c = r.next()
	}
	switch {
	case c == '"':
		return true, nil
	case r.atEnd():
		return false, r.syntaxAhead("EOF while parsing a value")
	case c == '}':
		return false, r.syntaxAhead("trailing comma")
	}
	return false, r.syntaxAhead("key must be a string")
}

// moreElements moves to the next element of an array, or past its end.
func (r *Reader) moreElements(first bool) (bool, error) {
	c := r.next()
	switch {
	case c == ']':
		r.pos++
		return false, nil
	case r.atEnd():
		return false, r.syntaxAhead("EOF while parsing a list")
	case first:
		return true, nil
	case c != ',':
		return false, r.syntaxAhead("expected `,` or `]`")
	}
	r.pos++
	switch c = r.next(); {
	case c == ']':
		return false, r.syntaxAhead("trailing comma")
	case r.atEnd():
		return false, r.syntaxAhead("EOF while parsing a value")
	}
	return true, nil
}

func (r *Reader) colon() error {
	switch c := r.next(); {
	case c == ':':
		r.pos++
		return nil
	case r.atEnd():
		return r.syntaxAhead("EOF while parsing an object")
	}
	return r.syntaxAhead("expected `:`")
}

// enter consumes an opening bracket.
func (r *Reader) enter() error {
	if r.depth++; r.depth >= maxDepth {
		return r.syntaxAhead("recursion limit exceeded")
	}
	r.pos++
	return nil
}

func (r *Reader) leave() { r.depth-- }

// next skips white space and returns the byte that follows, 0 at the end.
func (r *Reader) next() byte {
	for r.pos < len(r.data) {
		switch c := r.data[r.pos]; c {
		case ' ', '\n', '\t', '\r':
			r.pos++
		default:
			return c
		}
	}
	return 0
}

func (r *Reader) atEnd() bool { return r.pos >= len(r.data) }

// ident consumes a literal whose first byte is next.
func (r *Reader) ident(word string) error {
	for i := range len(word) {
		if r.atEnd() {
			return r.syntax("EOF while parsing a value")
		}
		r.pos++
		if r.data[r.pos-1] != word[i] {
			return r.syntax("expected ident")
		}
	}
	return nil
}

// text reads the string that is next; the result is valid until the next call.
func (r *Reader) text() ([]byte, error) {
	r.pos++ // the quote
	from := r.pos
	for r.pos < len(r.data) && plain[r.data[r.pos]] {
		r.pos++
	}
	out := r.data[from:r.pos]
	if r.atEnd() || r.data[r.pos] != '"' {
		r.scratch = append(r.scratch[:0], out...)
		if err := r.escapedText(); err != nil {
			return nil, err
		}
		out = r.scratch
	} else {
		r.pos++
	}
	if !utf8.Valid(out) {
		return nil, r.syntax("invalid unicode code point")
	}
	return out, nil
}

// escapedText reads the rest of a string into scratch.
func (r *Reader) escapedText() error {
	for {
		from := r.pos
		for r.pos < len(r.data) && plain[r.data[r.pos]] {
			r.pos++
		}
		r.scratch = append(r.scratch, r.data[from:r.pos]...)
		if r.atEnd() {
			return r.syntax("EOF while parsing a string")
		}
		r.pos++
		switch r.data[r.pos-1] {
		case '"':
			return nil
		case '\\':
			if err := r.escape(); err != nil {
				return err
			}
		default:
			return r.syntax(`control character (\u0000-\u001F) found while parsing a string`)
		}
	}
}

// plain tells the bytes of a string that stand for themselves.
var plain = func() (t [256]bool) {
	for i := range t {
		t[i] = i >= 0x20 && i != '"' && i != '\\'
	}
	return t
}()

var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape reads what follows a backslash into scratch.
func (r *Reader) escape() error {
	if r.atEnd() {
		return r.syntax("EOF while parsing a string")
	}
	c := r.data[r.pos]
	r.pos++
	if c != 'u' {
		if escapes[c] == 0 {
			return r.syntax("invalid escape")
		}
		r.scratch = append(r.scratch, escapes[c])
		return nil
	}
	n, err := r.hex4()
	if err != nil {
		return err
	}
	switch {
	case n >= 0xDC00 && n <= 0xDFFF:
		return r.syntax("lone leading surrogate in hex escape")
	case n >= 0xD800 && n <= 0xDBFF:
		for _, want := range []byte(`\u`) {
			if r.atEnd() {
				return r.syntax("EOF while parsing a string")
			}
			r.pos++
			if r.data[r.pos-1] != want {
				return r.syntax("unexpected end of hex escape")
			}
		}
		low, err := r.hex4()
		if err != nil {
			return err
		}
		if low < 0xDC00 || low > 0xDFFF {
			return r.syntax("lone leading surrogate in hex escape")
		}
		n = (n-0xD800)<<10 | (low - 0xDC00) + 0x10000
	}
	r.scratch = utf8.AppendRune(r.scratch, n)
	return nil
}

// hex4 reads four hexadecimal digits.
func (r *Reader) hex4() (rune, error) {
	if len(r.data)-r.pos < 4 {
		r.pos = len(r.data)
		return 0, r.syntax("EOF while parsing a string")
	}
	digits := r.data[r.pos : r.pos+4]
	r.pos += 4
	n := rune(0)
	for _, c := range digits {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			n = n<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, r.syntax("invalid escape")
		}
	}
	return n, nil
}

// skipText passes a string without decoding it.
func (r *Reader) skipText() error {
	r.pos++
	for {
		for r.pos < len(r.data) && plain[r.data[r.pos]] {
			r.pos++
		}
		if r.atEnd() {
			return r.syntax("EOF while parsing a string")
		}
		r.pos++
		switch r.data[r.pos-1] {
		case '"':
			return nil
		case '\\':
			if r.atEnd() {
				return r.syntax("EOF while parsing a string")
			}
			c := r.data[r.pos]
			r.pos++
			if c == 'u' {
				if _, err := r.hex4(); err != nil {
					return err
				}
			} else if escapes[c] == 0 {
				return r.syntax("invalid escape")
			}
		default:
			return r.syntax(`control character (\u0000-\u001F) found while parsing a string`)
		}
	}
}

// index returns the place of name in fields, -1 if it is not there.
func index(fields []string, name []byte) int {
	for i, f := range fields {
		if len(f) == len(name) && f == string(name) {
			return i
		}
	}
	return -1
}

// mulOverflows reports whether a*10+b does not fit 64 bits.
func mulOverflows(a, b uint64) bool {
	hi, lo := bits.Mul64(a, 10)
	_, carry := bits.Add64(lo, b, 0)
	return hi != 0 || carry != 0
}
