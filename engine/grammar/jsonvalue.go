package grammar

import (
	"bytes"
	"encoding/json"
	"strings"
)

// jsonObject is a JSON object that keeps the order of its members. Of two
// members of one name the last counts.
type jsonObject struct {
	keys   []string
	values map[string]any
}

func (o *jsonObject) set(key string, value any) {
	if _, ok := o.values[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.values[key] = value
}

// decodeJSON reads a JSON value: objects as *jsonObject, numbers as they are
// written, the others as encoding/json has them.
func decodeJSON(raw []byte) (any, error) {
	if err := checkJSONDepth(raw); err != nil {
		return nil, err
	}
	if !json.Valid(raw) {
		d := json.NewDecoder(bytes.NewReader(raw))
		var first json.RawMessage
		if err := d.Decode(&first); err != nil {
			return nil, errorf("not JSON: %v", err)
		}
		return nil, errorf("not JSON: text after the schema at byte %d", d.InputOffset())
	}
	p := jsonParser{raw, 0}
	return p.value(), nil
}

// A jsonParser reads text that is known to be JSON.
type jsonParser struct {
	text []byte
	at   int
}

// next returns the first byte that is not white space, without reading it.
func (p *jsonParser) next() byte {
	for ; ; p.at++ {
		switch c := p.text[p.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
}

func (p *jsonParser) value() any {
	switch p.next() {
	case '{':
		o := &jsonObject{values: map[string]any{}}
		for p.at++; p.next() != '}'; {
			if p.next() == ',' {
				p.at++
				p.next()
			}
			key := p.string()
			p.next()
			p.at++ // the colon
			o.set(key, p.value())
		}
		p.at++
		return o
	case '[':
		list := []any{}
		for p.at++; p.next() != ']'; {
			if p.next() == ',' {
				p.at++
			}
			list = append(list, p.value())
		}
		p.at++
		return list
	case '"':
		return p.string()
	}
	from := p.at
	for p.at < len(p.text) && !strings.ContainsRune(" \t\n\r,]}", rune(p.text[p.at])) {
		p.at++
	}
	switch word := string(p.text[from:p.at]); word {
	case "true":
		return true
	case "false":
		return false
	case "null":
		return nil
	default:
		return json.Number(word)
	}
}

func (p *jsonParser) string() (s string) {
	from, escaped := p.at, false
	for p.at++; p.text[p.at] != '"'; p.at++ {
		if p.text[p.at] == '\\' {
			escaped = true
			p.at++
		}
	}
	p.at++
	if !escaped {
		return string(p.text[from+1 : p.at-1])
	}
	json.Unmarshal(p.text[from:p.at], &s) //nolint:errcheck // it is a string
	return s
}

// appendJSON appends a value that decodeJSON has read.
func appendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case *jsonObject:
		dst = append(dst, '{')
		for i, key := range v.keys {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, key), ':')
			dst = appendJSON(dst, v.values[key])
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, e)
		}
		return append(dst, ']')
	case string:
		return appendString(dst, v)
	case json.Number:
		return append(dst, v...)
	case bool:
		if v {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	}
	return append(dst, "null"...)
}

// appendString appends s as a JSON string, without HTML's escapes.
func appendString(dst []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		plain = plain && s[i] >= ' ' && s[i] < 0x7f && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		return append(append(append(dst, '"'), s...), '"')
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(s) //nolint:errcheck // a string into memory
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte{'\n'})...)
}

// checkJSONDepth refuses deep text before anything recurses over it.
func checkJSONDepth(raw []byte) error {
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '['):
			if depth++; depth > maxNesting {
				return errorf("the schema is nested deeper than %d levels", maxNesting)
			}
		case !quoted && (c == '}' || c == ']'):
			depth--
		}
	}
	return nil
}

// pointerEscape writes a name as a part of a JSON pointer.
var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

// pointerUnescape reads it.
var pointerUnescape = strings.NewReplacer("~1", "/", "~0", "~")
