package chat

import "encoding/json"

// scan follows one JSON value byte by byte. It is strict but for control
// characters inside strings, which models write and callers can escape.
type scan struct {
	open   []byte // the brackets that are open
	state  scanState
	key    bool // the string being read is a key
	hex    int  // digits to come of a \u escape
	scalar []byte
}

type scanState int

const (
	scanValue   scanState = iota // a value must come
	scanElement                  // a value or ] must come
	scanMember                   // a key or } must come
	scanKey                      // a key must come
	scanColon
	scanString
	scanEscape
	scanHex
	scanScalar // a number or a literal
	scanAfter  // a value of the innermost brackets has ended
	scanDone   // the whole value has ended
)

// next takes one byte and reports whether it may come here. Behind the end
// nothing may.
func (s *scan) next(c byte) bool {
	switch s.state {
	case scanString:
		switch c {
		case '\\':
			s.state = scanEscape
		case '"':
			s.state = scanColon
			if !s.key {
				s.end()
			}
		}
		return true
	case scanEscape:
		s.state = scanString
		if c == 'u' {
			s.state, s.hex = scanHex, 4
			return true
		}
		return isAny(c, `"\/bfnrt`)
	case scanHex:
		if s.hex--; s.hex == 0 {
			s.state = scanString
		}
		return isAny(c, "0123456789abcdefABCDEF")
	case scanScalar:
		if !isSpace(c) && !isAny(c, ",]}") {
			s.scalar = append(s.scalar, c)
			return len(s.scalar) <= maxScalar
		}
		if !json.Valid(s.scalar) {
			return false
		}
		s.end()
	}
	if isSpace(c) {
		return true
	}
	switch s.state {
	case scanValue, scanElement:
		return s.begin(c)
	case scanMember, scanKey:
		if c == '"' {
			s.state, s.key = scanString, true
			return true
		}
		return s.state == scanMember && s.shut(c)
	case scanColon:
		s.state = scanValue
		return c == ':'
	case scanAfter:
		if c != ',' {
			return s.shut(c)
		}
		s.state = scanValue
		if s.open[len(s.open)-1] == '{' {
			s.state = scanKey
		}
		return true
	}
	return false
}

// The longest number or literal, and the deepest nesting, that a call may have.
const (
	maxScalar = 400
	maxOpen   = 100
)

// begin takes the first byte of a value.
func (s *scan) begin(c byte) bool {
	switch {
	case c == '{' || c == '[':
		s.open = append(s.open, c)
		s.state = scanMember
		if c == '[' {
			s.state = scanElement
		}
		return len(s.open) <= maxOpen
	case c == '"':
		s.state, s.key = scanString, false
	case isAny(c, "-0123456789tfn"):
		s.state, s.scalar = scanScalar, append(s.scalar[:0], c)
	default:
		return s.state == scanElement && s.shut(c)
	}
	return true
}

// shut takes a closing bracket.
func (s *scan) shut(c byte) bool {
	n := len(s.open) - 1
	if c != s.open[n]+2 { // true of {} and [] in ASCII
		return false
	}
	s.open = s.open[:n]
	s.end()
	return true
}

// end ends a value.
func (s *scan) end() {
	s.state = scanAfter
	if len(s.open) == 0 {
		s.state = scanDone
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func isAny(c byte, set string) bool {
	for i := range len(set) {
		if set[i] == c {
			return true
		}
	}
	return false
}
