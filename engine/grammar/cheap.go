package grammar

import (
	"encoding/json"
	"strings"
)

// What a grammar may have at most to be compiled without a trial.
const (
	cheapBytes   = 4 << 10
	cheapCount   = 1000 // a length or a number of items
	cheapText    = 200  // bytes of a constant or a name
	cheapDigits  = 6    // of a bound
	cheapPattern = 16   // bytes of a regular expression in Lark
)

// cheap reports whether a source cannot cost much, whatever it says: a trial
// would take longer than the compilation. It is one that the library compiles
// part by part, each in time in proportion to its size: nothing in it is joined
// with anything else, repeated patterns are not there, and numbers are small.
// Most schemas of tools are such.
func cheap(kind Kind, source string) bool {
	if len(source) > cheapBytes {
		return false
	}
	switch kind {
	case JSONSchema:
		return cheapSource(source)
	case Lark:
		return cheapLark(source)
	}
	return false
}

// cheapSource reads a schema as NormalizeSchema writes it: it judges the text that
// the library is given, not what that was made of.
func cheapSource(source string) bool {
	d := json.NewDecoder(strings.NewReader(source))
	d.UseNumber()
	var root map[string]any
	if d.Decode(&root) != nil {
		return false
	}
	delete(root, "x-guidance")
	definitions, _ := root["$defs"].(map[string]any)
	delete(root, "$defs")
	for _, s := range definitions {
		if !cheapSchema(s) {
			return false
		}
	}
	return cheapSchema(root)
}

func cheapSchema(v any) bool {
	s, ok := v.(map[string]any)
	if !ok {
		_, ok = v.(bool)
		return ok
	}
	for keyword, value := range s {
		switch keyword {
		case "type":
		case "anyOf":
			list, ok := value.([]any)
			if !ok || len(s) > 1 || !all(list, cheapSchema) {
				return false
			}
		case "$ref":
			if len(s) > 1 {
				return false
			}
		case "format":
			switch value {
			case "date", "time", "date-time", "uuid", "ipv4":
			default:
				return false
			}
			if len(s) > 2 || s["type"] != "string" {
				return false
			}
		case "properties":
			properties, ok := value.(map[string]any)
			if !ok {
				return false
			}
			for name, s := range properties {
				if len(name) > cheapText || !cheapSchema(s) {
					return false
				}
			}
		case "required", "enum":
			list, ok := value.([]any)
			if !ok || !all(list, cheapValue) {
				return false
			}
		case "const":
			if !cheapValue(value) {
				return false
			}
		case "additionalProperties", "items":
			if !cheapSchema(value) {
				return false
			}
		case "minLength", "maxLength", "minItems", "maxItems":
			n, ok := value.(json.Number)
			if i, err := n.Int64(); !ok || err != nil || i > cheapCount {
				return false
			}
		case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum":
			// A bound is a regular expression, the longer the more digits it has.
			if n, ok := value.(json.Number); !ok || len(n) > cheapDigits || strings.ContainsAny(n.String(), "eE") {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func all(list []any, ok func(any) bool) bool {
	for _, v := range list {
		if !ok(v) {
			return false
		}
	}
	return true
}

func cheapValue(v any) bool {
	switch v := v.(type) {
	case string:
		return len(v) <= cheapText
	case json.Number:
		return len(v) <= 20
	case []any, map[string]any:
		return false
	}
	return true
}

// cheapLark allows rules of texts, of short regular expressions without
// counted repetition, and of cheap schemas.
func cheapLark(source string) bool {
	for source != "" {
		n := 1
		switch c := source[0]; {
		case strings.HasPrefix(source, "%json"):
			d := json.NewDecoder(strings.NewReader(source[len("%json"):]))
			var raw json.RawMessage
			if d.Decode(&raw) != nil || !cheapSource(string(raw)) {
				return false
			}
			n = len("%json") + int(d.InputOffset())
		case c == '"', c == '/':
			for n < len(source) && source[n] != c {
				if source[n] == '\\' {
					n++
				}
				n++
			}
			n = min(n+1, len(source))
			if c == '"' && n > cheapText || c == '/' && (n > cheapPattern || strings.Contains(source[:n], "{")) {
				return false
			}
		case c == '%', c == '&', c == '~', c == '{', c == '@', c == '#':
			return false
		}
		source = source[n:]
	}
	return true
}
