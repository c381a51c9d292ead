package chat

import (
	"encoding/json"
	"strings"
)

// valueType says what a value may be that stands as plain text.
type valueType struct {
	known bool // the schema says something
	text  bool // a string
	other bool // any other type
	flag  bool // a boolean or null, which models write as Python does
}

// types returns those of the arguments that the tool's schema names.
func (t *Tool) types() map[string]valueType {
	var root schemaNode
	if json.Unmarshal(t.Parameters, &root) != nil {
		return nil
	}
	found := map[string]valueType{}
	root.properties(&root, 0, func(name string, s *schemaNode) {
		v := found[name]
		s.addTo(&v, &root, 0)
		found[name] = v
	})
	return found
}

// schemaNode is what types need of a JSON schema.
type schemaNode struct {
	Ref         string                 `json:"$ref"`
	Type        any                    `json:"type"`
	Enum        []any                  `json:"enum"`
	Const       json.RawMessage        `json:"const"`
	Nullable    bool                   `json:"nullable"`
	AnyOf       []*schemaNode          `json:"anyOf"`
	OneOf       []*schemaNode          `json:"oneOf"`
	AllOf       []*schemaNode          `json:"allOf"`
	Properties  map[string]*schemaNode `json:"properties"`
	Defs        map[string]*schemaNode `json:"$defs"`
	Definitions map[string]*schemaNode `json:"definitions"`
}

// UnmarshalJSON takes true and false for schemas that say nothing.
func (s *schemaNode) UnmarshalJSON(data []byte) error {
	type plain schemaNode
	if data[0] != '{' {
		return nil
	}
	return json.Unmarshal(data, (*plain)(s))
}

// maxReferred bounds a chain of references.
const maxReferred = 20

// target returns what a reference of s leads to, nil if that is not a definition.
func (s *schemaNode) target(root *schemaNode) *schemaNode {
	if s.Ref == "#" {
		return root
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/$defs/"); ok {
		return root.Defs[name]
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		return root.Definitions[name]
	}
	return nil
}

// parts calls f for what counts with s.
func (s *schemaNode) parts(root *schemaNode, f func(*schemaNode)) {
	if t := s.target(root); t != nil {
		f(t)
	}
	for _, list := range [][]*schemaNode{s.AnyOf, s.OneOf, s.AllOf} {
		for _, part := range list {
			if part != nil {
				f(part)
			}
		}
	}
}

func (s *schemaNode) properties(root *schemaNode, depth int, f func(string, *schemaNode)) {
	for name, p := range s.Properties {
		if p != nil {
			f(name, p)
		}
	}
	if depth < maxReferred {
		s.parts(root, func(part *schemaNode) { part.properties(root, depth+1, f) })
	}
}

// addTo adds the types of s to v.
func (s *schemaNode) addTo(v *valueType, root *schemaNode, depth int) {
	add := func(name any) {
		v.known = true
		switch name {
		case "string":
			v.text = true
		case "boolean", "null":
			v.flag, v.other = true, true
		default:
			v.other = true
		}
	}
	switch t := s.Type.(type) {
	case string:
		add(t)
	case []any:
		for _, name := range t {
			add(name)
		}
	}
	values := s.Enum
	if s.Const != nil {
		var value any
		if json.Unmarshal(s.Const, &value) == nil {
			values = append(values, value)
		}
	}
	for _, value := range values {
		switch value.(type) {
		case string:
			add("string")
		case bool, nil:
			add("null")
		default:
			add("number")
		}
	}
	if s.Nullable {
		add("null")
	}
	if s.Properties != nil {
		add("object")
	}
	if depth < maxReferred {
		s.parts(root, func(part *schemaNode) { part.addTo(v, root, depth+1) })
	}
}

// ends reports whether text may be a whole value. What ends it may also stand in
// a string inside of it.
func (v valueType) ends(text string) bool {
	trimmed := strings.TrimSpace(text)
	if v.text || !v.other || trimmed == "" || trimmed[0] != '{' && trimmed[0] != '[' || json.Valid([]byte(trimmed)) {
		return true
	}
	_, err := pythonLiteral(trimmed)
	return err == nil
}

// json returns the value that stands as text, in JSON.
func (v valueType) json(text string) []byte {
	trimmed := strings.TrimSpace(text)
	if (v.other || !v.known) && json.Valid([]byte(trimmed)) && (!v.text || trimmed[0] != '"') {
		return []byte(trimmed)
	}
	if v.other {
		switch {
		case v.flag && (trimmed == "True" || trimmed == "False"):
			return []byte(strings.ToLower(trimmed))
		case v.flag && trimmed == "None":
			return []byte("null")
		case !v.text:
			// Some templates show lists and mappings as Python prints them.
			if value, err := pythonLiteral(trimmed); err == nil {
				return []byte(value)
			}
		}
	}
	return appendString(nil, text)
}
