package body

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error says what is wrong with a body.
type Error struct {
	Syntax bool   // not JSON at all; else JSON of the wrong shape
	Path   string // of the field, as in parameters.stop[1]; "" at the top
	Msg    string
	Line   int // from 1
	Column int // bytes of the line read so far, so from 0
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s at line %d column %d", e.Msg, e.Line, e.Column)
	if e.Path != "" {
		s = e.Path + ": " + s
	}
	return s
}

// maxEcho is how many bytes of a client's text an error repeats.
const maxEcho = 100

// Errorf returns a shape error at the Reader's position.
func (r *Reader) Errorf(format string, args ...any) error {
	return r.at(r.pos, false, fmt.Sprintf(format, args...))
}

// Missing returns the error for a required field that did not come; call it
// after the object.
func (r *Reader) Missing(field string) error { return r.Errorf("missing field `%s`", field) }

// syntax returns a syntax error at the Reader's position.
func (r *Reader) syntax(msg string) error { return r.at(r.pos, true, msg) }

// syntaxAhead returns a syntax error that points at the next byte.
func (r *Reader) syntaxAhead(msg string) error {
	return r.at(min(r.pos+1, len(r.data)), true, msg)
}

func (r *Reader) at(pos int, syntax bool, msg string) error {
	e := &Error{Syntax: syntax, Msg: msg, Line: 1, Column: pos}
	for i, c := range r.data[:pos] {
		if c == '\n' {
			e.Line++
			e.Column = pos - i - 1
		}
	}
	return e
}

// noValue is the error for a byte that begins no value.
func (r *Reader) noValue() error {
	if r.atEnd() {
		return r.syntaxAhead("EOF while parsing a value")
	}
	return r.syntaxAhead("expected value")
}

// unexpected reads the value that is next, which is of the wrong kind, and
// returns the error that says so.
func (r *Reader) unexpected(want string) error {
	var found string
	switch c := r.next(); {
	case c == '{':
		found = "map" // not read: the error points at its beginning
	case c == '[':
		found = "sequence"
	case c == '"':
		s, err := r.text()
		if err != nil {
			return err
		}
		found = "string " + quote(s)
	case c == 'n':
		if err := r.ident("null"); err != nil {
			return err
		}
		found = "null"
	case c == 't' || c == 'f':
		b, err := r.Bool()
		if err != nil {
			return err
		}
		found = "boolean `" + strconv.FormatBool(b) + "`"
	case c == '-' || isDigit(c):
		n, err := r.number()
		if err != nil {
			return err
		}
		found = n.String()
	default:
		return r.noValue()
	}
	return r.Errorf("invalid type: %s, expected %s", found, want)
}

// Within puts a field's name before the path of err, if it is an *Error; for
// values that are read after their object.
func Within(err error, field string) error {
	var e *Error
	if errors.As(err, &e) {
		switch {
		case e.Path == "":
			e.Path = field
		case e.Path[0] == '[':
			e.Path = field + e.Path
		default:
			e.Path = field + "." + e.Path
		}
	}
	return err
}

// withinIndex puts an element's index before the path of err.
func withinIndex(err error, i int) error {
	var e *Error
	if errors.As(err, &e) {
		at := "[" + strconv.Itoa(i) + "]"
		if e.Path != "" && e.Path[0] != '[' {
			at += "."
		}
		e.Path = at + e.Path
	}
	return err
}

// quote prints s, cut if it is long, in quotes and with escapes as Rust does.
func quote(s []byte) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range string(cut(s, maxEcho)) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == 0:
			b.WriteString(`\0`)
		case !strconv.IsPrint(c):
			fmt.Fprintf(&b, `\u{%x}`, c)
		default:
			b.WriteRune(c)
		}
	}
	if len(s) > maxEcho {
		b.WriteString("…")
	}
	b.WriteByte('"')
	return b.String()
}

// cut returns the first n bytes of s, less if a character would be cut.
func cut(s []byte, n int) []byte {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Cut shortens a client's text for use in an error.
func Cut(s string) string {
	if len(s) <= maxEcho {
		return s
	}
	return string(cut([]byte(s), maxEcho)) + "…"
}
