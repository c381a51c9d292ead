package grammar

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Kind is the language of a grammar.
type Kind string

// The languages.
const (
	JSONSchema Kind = "json_schema" // draft 2020-12 unless $schema says otherwise
	Regex      Kind = "regex"       // Rust's regex syntax; the whole text must match
	Lark       Kind = "lark"        // llguidance's variant. It can name single tokens: not for a client's text
)

// A Spec is a grammar in its source form.
type Spec struct {
	Kind Kind
	Text string
	Open bool // of schemas: see SchemaOptions
}

// Error is a grammar that cannot be used, with the reason in words for the
// client: one line that names the keyword or construct at fault.
type Error struct {
	Place  string // in a JSON schema, a JSON pointer that begins with #; or ""
	Reason string
}

func (e *Error) Error() string {
	if e.Place == "" {
		return e.Reason
	}
	return oneLine(e.Place) + ": " + e.Reason
}

func errorf(format string, args ...any) *Error {
	return &Error{Reason: oneLine(fmt.Sprintf(format, args...))}
}

// oneLine joins the lines of a text and cuts it to a length that suits an error message.
func oneLine(s string) string {
	const limit = 300
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "")
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

const (
	maxSchemaBytes  = 256 << 10
	maxPatternBytes = 8 << 10 // a regular expression, alone or in a schema
	maxNesting      = 64      // brackets inside brackets
)

// schemaOptions is what the library is told about every schema: one space may
// stand where JSON may have any.
const schemaOptions = `"x-guidance":{"whitespace_pattern":" ?"}`

// key identifies a Spec in the cache.
func (s Spec) key() [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(s.Kind))
	if s.Open {
		h.Write([]byte{1})
	}
	h.Write([]byte{0})
	h.Write([]byte(s.Text))
	return [sha256.Size]byte(h.Sum(nil))
}

// source checks s and returns the text for the library. What it refuses could
// take the library unbounded time, memory or stack, or would be refused there
// in words that do not help.
func (s Spec) source() (string, error) {
	limit := maxSchemaBytes
	if s.Kind == Regex {
		limit = maxPatternBytes
	}
	switch {
	case len(s.Text) > limit:
		return "", errorf("%s of %d bytes, the limit is %d", s.Kind, len(s.Text), limit)
	case !utf8.ValidString(s.Text):
		return "", errorf("%s is not valid UTF-8", s.Kind)
	case strings.ContainsRune(s.Text, 0):
		return "", errorf("%s contains a NUL character", s.Kind)
	}
	switch s.Kind {
	case JSONSchema:
		return NormalizeSchema(s.Text, SchemaOptions{Open: s.Open})
	case Regex:
		return s.Text, checkNesting(s.Text, string(Regex))
	case Lark:
		// Each & multiplies the states of its sides.
		if n := strings.Count(s.Text, "&"); n > maxIntersected {
			return "", errorf("lark: %d uses of &, the limit is %d", n, maxIntersected)
		}
		return s.Text, checkNesting(s.Text, string(Lark))
	}
	return "", errorf("unknown kind of grammar %q", s.Kind)
}

// Check returns the *Error that Compile would return without trying: what is
// not of the Spec's language, or would cost too much.
func (s Spec) Check() error {
	_, err := s.source()
	return err
}

// checkNesting bounds the depth of brackets, counted without regard to quotes
// and escapes: rather too many than too few.
func checkNesting(text, what string) error {
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '(', '[', '{':
			if depth++; depth > maxNesting {
				return errorf("%s is nested deeper than %d levels", what, maxNesting)
			}
		case ')', ']', '}':
			depth = max(depth-1, 0)
		}
	}
	return nil
}
