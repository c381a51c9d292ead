package chat

import (
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	errLiteral   = errors.New("not a literal")
	pythonName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(?:[-.][A-Za-z0-9_]+)*`)
	pythonNumber = regexp.MustCompile(`^-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`)
)

// literals reads values in the notation of Python or of Gemma and writes them
// as JSON. It takes what transformers' parser python-call-list takes, and in
// addition what JSON takes: large numbers, names that are repeated, halves of
// surrogate pairs.
type literals struct {
	text  string
	at    int
	gemma bool
	out   []byte
	depth int
}

// gemmaQuote stands around strings in Gemma's notation.
const gemmaQuote = `<|"|>`

// pythonArguments writes the keyword arguments of a call, without the
// parentheses around them, as a JSON object.
func pythonArguments(text string) (string, error) {
	l := &literals{text: text}
	if err := l.arguments(""); err != nil {
		return "", err
	}
	return string(l.out), l.end()
}

// gemmaArguments writes an object in Gemma's notation as JSON.
func gemmaArguments(text string) (string, error) {
	l := &literals{text: text, gemma: true}
	if l.space(); !strings.HasPrefix(l.text[l.at:], "{") {
		return "", errLiteral
	}
	if err := l.value(); err != nil {
		return "", err
	}
	return string(l.out), l.end()
}

// pythonLiteral writes one literal as JSON.
func pythonLiteral(text string) (string, error) {
	l := &literals{text: text}
	if err := l.value(); err != nil {
		return "", err
	}
	return string(l.out), l.end()
}

func (l *literals) space() {
	for l.at < len(l.text) && isSpace(l.text[l.at]) {
		l.at++
	}
}

// take reads a sign if it comes next.
func (l *literals) take(sign string) bool {
	l.space()
	if !strings.HasPrefix(l.text[l.at:], sign) {
		return false
	}
	l.at += len(sign)
	return true
}

func (l *literals) end() error {
	if l.space(); l.at < len(l.text) {
		return errLiteral
	}
	return nil
}

// list reads items up to a closing sign; "" is the end of the text.
func (l *literals) list(closing string, item func() error) error {
	closed := func() bool {
		l.space()
		return closing == "" && l.at == len(l.text) || closing != "" && l.take(closing)
	}
	if closed() {
		return nil
	}
	for n := 0; ; n++ {
		if n > 0 {
			if !l.take(",") {
				return errLiteral
			}
			l.out = append(l.out, ", "...)
		}
		if err := item(); err != nil {
			return err
		}
		if closed() {
			return nil
		}
	}
}

// arguments reads name=value, … up to a closing sign.
func (l *literals) arguments(closing string) error {
	l.out = append(l.out, '{')
	err := l.list(closing, func() error {
		l.space()
		name := pythonName.FindString(l.text[l.at:])
		l.at += len(name)
		if name == "" || !l.take("=") {
			return errLiteral
		}
		l.out = append(appendString(l.out, name), ": "...)
		return l.value()
	})
	l.out = append(l.out, '}')
	return err
}

func (l *literals) value() error {
	l.space()
	rest := l.text[l.at:]
	if rest == "" {
		return errLiteral
	}
	switch rest[0] {
	case '[', '{':
		return l.compound(rest[0])
	}
	if l.gemma && strings.HasPrefix(rest, gemmaQuote) {
		body, _, ok := strings.Cut(rest[len(gemmaQuote):], gemmaQuote)
		if !ok {
			return errLiteral
		}
		l.at += 2*len(gemmaQuote) + len(body)
		l.out = appendString(l.out, body)
		return nil
	}
	if rest[0] == '"' || rest[0] == '\'' {
		s, err := l.string()
		l.out = appendString(l.out, s)
		return err
	}
	if m := pythonNumber.FindString(rest); m != "" {
		l.at += len(m)
		l.out = append(l.out, m...)
		return nil
	}
	name := pythonName.FindString(rest)
	l.at += len(name)
	switch name {
	case "True", "true":
		l.out = append(l.out, "true"...)
	case "False", "false":
		l.out = append(l.out, "false"...)
	case "None", "null":
		l.out = append(l.out, "null"...)
	default:
		return errLiteral
	}
	return nil
}

// compound reads a list or a mapping.
func (l *literals) compound(open byte) error {
	if l.depth++; l.depth > maxOpen {
		return errLiteral
	}
	l.at++
	l.out = append(l.out, open)
	closing := open + 2 // true of {} and [] in ASCII
	err := l.list(string([]byte{closing}), func() (err error) {
		if open == '[' {
			return l.value()
		}
		l.space()
		var key string
		switch rest := l.text[l.at:]; {
		case l.gemma && strings.HasPrefix(rest, gemmaQuote):
			var ok bool
			if key, _, ok = strings.Cut(rest[len(gemmaQuote):], gemmaQuote); !ok {
				return errLiteral
			}
			l.at += 2*len(gemmaQuote) + len(key)
		case rest != "" && (rest[0] == '"' || rest[0] == '\''):
			key, err = l.string()
		case l.gemma:
			n := strings.IndexAny(rest, ":,{}[]")
			if n <= 0 {
				return errLiteral
			}
			key = strings.TrimSpace(rest[:n])
			l.at += n
		default:
			return errLiteral
		}
		if err != nil || !l.take(":") {
			return errLiteral
		}
		l.out = append(appendString(l.out, key), ": "...)
		return l.value()
	})
	l.out = append(l.out, closing)
	l.depth--
	return err
}

// string reads a string in quotes.
func (l *literals) string() (string, error) {
	quote := l.text[l.at]
	var b strings.Builder
	for i := l.at + 1; i < len(l.text); i++ {
		switch c := l.text[i]; {
		case c == quote:
			l.at = i + 1
			return b.String(), nil
		case c == '\n' || c == '\r':
			return "", errLiteral
		case c != '\\':
			b.WriteByte(c)
		default:
			r, n, ok := escape(l.text[i+1:])
			if !ok {
				return "", errLiteral
			}
			b.WriteRune(r)
			i += n
		}
	}
	return "", errLiteral
}

// escape reads what comes after a backslash, n bytes of text.
func escape(text string) (r rune, n int, ok bool) {
	if text == "" {
		return 0, 0, false
	}
	switch c := text[0]; c {
	case '\\', '\'', '"', '/':
		return rune(c), 1, true
	case 'b':
		return '\b', 1, true
	case 'f':
		return '\f', 1, true
	case 'n':
		return '\n', 1, true
	case 'r':
		return '\r', 1, true
	case 't':
		return '\t', 1, true
	case 'u':
		// As JSON has it, pairs of surrogates included.
		n = 5
		if len(text) >= 11 && text[5] == '\\' && text[6] == 'u' {
			var s string
			if json.Unmarshal([]byte(`"\`+text[:11]+`"`), &s) == nil && utf8.RuneCountInString(s) == 1 {
				r, _ = utf8.DecodeRuneInString(s)
				return r, 11, true
			}
		}
		if len(text) < n {
			return 0, 0, false
		}
		v, err := strconv.ParseUint(text[1:n], 16, 32)
		return rune(v), n, err == nil
	}
	return 0, 0, false
}
