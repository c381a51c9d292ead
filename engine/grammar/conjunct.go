package grammar

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// conjunction writes the schema of the values that the keywords of all items allow.
func (w *schemaWriter) conjunction(items []item, top *node, root bool) ([]byte, error) {
	asObject := root && w.Object
	if len(items) == 0 && !asObject {
		return []byte(anything), nil
	}
	set := types(0)
	var all []*facts
	var nodes []*node
	seen := map[*node]bool{}
	for _, i := range items {
		if err := w.step(i.node); err != nil {
			return nil, err
		}
		if i.node.members == nil { // false
			return w.impossible(i.node.fault("", "no value is valid")), nil
		}
		if seen[i.node] {
			continue
		}
		seen[i.node] = true
		f, err := w.facts(i.node)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
		nodes = append(nodes, i.node)
		switch {
		case f.never:
			return w.impossible(i.node.fault("not", "no value is valid")), nil
		case f.types == 0:
		case set == 0:
			set = f.types
		default:
			set &= f.types
			if set == 0 {
				return w.impossible(i.node.fault("type", "no value has this type and those of the schemas beside it")), nil
			}
		}
	}
	if set == 0 {
		set = w.impliedType(all)
	}
	if asObject {
		if set != 0 && set&typeObject == 0 {
			return w.impossible(nodes[0].fault("type", "the schema must be one of an object")), nil
		}
		set = typeObject
	}
	c := conjunct{w, all, nodes, top, asObject && w.Member != "", set, nil}
	c.begin()
	for _, part := range []func() (*Error, error){c.values, c.numbers, c.strings, c.arrays, c.objects} {
		reason, err := part()
		if err != nil {
			return nil, err
		}
		if reason != nil {
			return w.impossible(reason), nil
		}
	}
	if len(c.out) == 0 {
		return []byte(anything), nil
	}
	return append(append([]byte{'{'}, c.out...), '}'), nil
}

// A conjunct writes the keywords of several schemas as those of one. Its
// methods return the reason if no value is left.
type conjunct struct {
	*schemaWriter
	all   []*facts
	nodes []*node // of all
	top   *node   // the schema that all the others are part of, nil if it does not matter
	named bool    // begins with the member of the options
	set   types   // 0 for all, as it is written
	out   []byte
}

// key begins a keyword.
func (c *conjunct) key(name string) {
	if len(c.out) > 0 {
		c.out = append(c.out, ',')
	}
	c.out = append(appendString(c.out, name), ':')
}

func (c *conjunct) number(name string, n int) {
	c.key(name)
	c.out = strconv.AppendInt(c.out, int64(n), 10)
}

func (c *conjunct) may(t types) bool { return c.set == 0 || c.set&t != 0 }

// begin writes the types.
func (c *conjunct) begin() {
	if c.set == 0 {
		return
	}
	c.key("type")
	c.out = append(c.out, c.typeList()...)
}

func (c *conjunct) typeList() string {
	var names []string
	rest := c.set
	for _, t := range typeNames {
		if rest&t.set == t.set {
			names = append(names, strconv.Quote(t.name))
			rest &^= t.set
		}
	}
	if len(names) == 1 {
		return names[0]
	}
	return "[" + strings.Join(names, ",") + "]"
}

// values writes enum and const: the values that all have, and that have the types.
func (c *conjunct) values() (*Error, error) {
	var left []any
	begun := false
	for i, f := range c.all {
		for _, enum := range f.enums {
			c.work -= len(enum)
			var next []any
			var have map[string]bool
			if begun {
				have = map[string]bool{}
				for _, v := range left {
					have[sameValue(v)] = true
				}
			}
			for _, v := range enum {
				if (c.set == 0 || c.set&valueType(v) != 0) && (!begun || have[sameValue(v)]) {
					next = append(next, v)
				}
			}
			if left, begun = next, true; len(left) == 0 {
				return c.nodes[i].fault("", "none of the values of enum or const is valid"), nil
			}
		}
	}
	if begun {
		c.key("enum")
		c.out = appendJSON(c.out, left)
	}
	return nil, nil
}

// sameValue returns a text that equal values have in common.
func sameValue(v any) string {
	switch v := v.(type) {
	case json.Number:
		if f, err := v.Float64(); err == nil && len(v) < 60 && abs(f) < 1e60 && (f == 0 || abs(f) > 1e-60) {
			return rational(v).RatString()
		}
	case []any:
		var b strings.Builder
		for _, e := range v {
			b.WriteString(sameValue(e) + ",")
		}
		return "[" + b.String() + "]"
	case *jsonObject:
		var b strings.Builder
		for _, key := range slices.Sorted(slices.Values(v.keys)) {
			b.WriteString(strconv.Quote(key) + ":" + sameValue(v.values[key]) + ",")
		}
		return "{" + b.String() + "}"
	}
	return string(appendJSON(nil, v))
}

func valueType(v any) types {
	switch v := v.(type) {
	case nil:
		return typeNull
	case bool:
		return typeBoolean
	case string:
		return typeString
	case []any:
		return typeArray
	case json.Number:
		if f, err := v.Float64(); err == nil && f == float64(int64(f)) {
			return typeInteger
		}
		return typeNumber
	}
	return typeObject
}
