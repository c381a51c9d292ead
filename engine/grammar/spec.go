package grammar

import (
	"crypto/sha256"
	"encoding/json"
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
		return larkSource(s.Text, s.Open)
	}
	return "", errorf("unknown kind of grammar %q", s.Kind)
}

// larkSource checks a Lark grammar and normalizes the schemas in it.
func larkSource(text string, open bool) (string, error) {
	const schema = "%json"
	var out strings.Builder
	rest := text
	joins, depth := 0, 0
	for rest != "" {
		n := 1
		switch c := rest[0]; {
		case strings.HasPrefix(rest, schema):
			d := json.NewDecoder(strings.NewReader(rest[len(schema):]))
			var raw json.RawMessage
			if err := d.Decode(&raw); err != nil {
				return "", errorf("lark: %s: not JSON: %v", schema, err)
			}
			normal, err := NormalizeSchema(string(raw), SchemaOptions{Open: open})
			if err != nil {
				return "", err
			}
			out.WriteString(schema + " " + normal)
			rest = rest[len(schema)+int(d.InputOffset()):]
			continue
		case strings.HasPrefix(rest, "//"), c == '#':
			n = max(strings.IndexByte(rest, '\n'), 1)
		case c == '"':
			for n < len(rest) && rest[n] != '"' {
				if rest[n] == '\\' {
					n++
				}
				n++
			}
			n = min(n+1, len(rest))
		case c == '/': // a regular expression, which may have its own &
			for n < len(rest) && rest[n] != '/' && rest[n] != '\n' {
				if rest[n] == '&' {
					joins++
				}
				if rest[n] == '\\' {
					n++
				}
				n++
			}
			n = min(n+1, len(rest))
			if err := checkNesting(rest[:n], "lark"); err != nil {
				return "", err
			}
		case c == '&': // each multiplies the states of its sides
			joins++
		case c == '(' || c == '[' || c == '{':
			if depth++; depth > maxNesting {
				return "", errorf("lark is nested deeper than %d levels", maxNesting)
			}
		case c == ')' || c == ']' || c == '}':
			depth = max(depth-1, 0)
		}
		if joins > maxIntersected {
			return "", errorf("lark: more than %d uses of &", maxIntersected)
		}
		out.WriteString(rest[:n])
		rest = rest[n:]
	}
	return out.String(), nil
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
