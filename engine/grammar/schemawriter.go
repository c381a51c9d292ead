package grammar

import (
	"fmt"
	"slices"
	"strings"
)

// schema writes what all of several schemas allow.
func (w *schemaWriter) schema(nodes ...*node) ([]byte, error) {
	var items []item
	referred := false
	for _, n := range nodes {
		var r bool
		var err error
		if items, r, err = w.expand(n, nil, items); err != nil {
			return nil, err
		}
		referred = referred || r
	}
	if len(items) > 1 {
		seen := map[item]bool{}
		items = slices.DeleteFunc(items, func(i item) bool {
			i.path = nil
			again := seen[i]
			seen[i] = true
			return again
		})
	}
	if len(items) == 0 {
		return []byte(anything), nil
	}
	var top *node // where it matters
	if n := nodes[0]; len(nodes) == 1 && n.members != nil && (n.members.values["unevaluatedProperties"] != nil || n.members.values["unevaluatedItems"] != nil) {
		top = n
	}
	// What only stands in one place is written there. All else is a definition,
	// which others share and which may contain itself.
	simple, err := w.simple(items)
	if err != nil {
		return nil, err
	}
	leaf := len(items) == 1 && items[0].keyword == "" && w.isLeaf(items[0].node)
	if !referred && (leaf || simple && w.inside == 0) {
		return w.body(items, top, false)
	}
	var key strings.Builder
	for _, i := range items {
		fmt.Fprintf(&key, "%d%s,", i.node.id, i.keyword)
	}
	if top != nil {
		fmt.Fprintf(&key, "!%d", top.id)
	}
	if w.without[key.String()] {
		return []byte(never), nil
	}
	name, ok := w.definitions[key.String()]
	if !ok {
		name = len(w.pending)
		if name >= maxReferences {
			return nil, items[0].node.fault("", "the schema needs more than %d definitions", maxReferences)
		}
		w.definitions[key.String()] = name
		w.pending = append(w.pending, definition{key.String(), items, top})
	}
	return fmt.Appendf(nil, `{"$ref":"#/$defs/%d"}`, name), nil
}

// simple reports whether items are the keywords of one schema, with further
// patterns in its allOf, or one choice.
func (w *schemaWriter) simple(items []item) (bool, error) {
	var first *node
	for _, i := range items {
		if i.keyword == "" && i.node.members != nil {
			f, err := w.facts(i.node)
			if err != nil {
				return false, err
			}
			if f.onlyTypes() || first != nil && i.node.parent == first && w.isLeaf(i.node) {
				continue
			}
		}
		if first != nil {
			return false, nil
		}
		first = i.node
	}
	return true, nil
}

// isLeaf reports whether n has no schemas inside. Its facts were read.
func (w *schemaWriter) isLeaf(n *node) bool {
	return n.members == nil || n.read != nil && !n.read.object && !n.read.array
}

func (f *facts) onlyTypes() bool {
	return f.types != 0 && !f.never && f.enums == nil && !f.object && !f.array && !f.text && !f.digit
}

// body writes what items allow. For the root the
// options say more.
func (w *schemaWriter) body(items []item, top *node, root bool) ([]byte, error) {
	var alternatives [][]byte
	if err := w.alternatives(items, top, root, &alternatives); err != nil {
		return nil, err
	}
	switch len(alternatives) {
	case 0:
		return []byte(never), nil
	case 1:
		return alternatives[0], nil
	}
	out := []byte(`{"anyOf":[`)
	for i, a := range alternatives {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, a...)
	}
	return append(out, "]}"...), nil
}

// alternatives appends the schemas one of which a value must have. A choice
// beside other keywords is written out: each of its branches together with
// them, since a branch decides which members an object may have.
func (w *schemaWriter) alternatives(items []item, top *node, root bool, out *[][]byte) error {
	if len(items) > 0 {
		w.work -= len(items) - 1
		if err := w.step(items[0].node); err != nil {
			return err
		}
	}
	at := slices.IndexFunc(items, func(i item) bool { return i.keyword != "" })
	if at < 0 {
		b, err := w.conjunction(items, top, root)
		if err == nil && string(b) != never {
			w.size += len(b)
			*out = append(*out, b)
		}
		return err
	}
	choice := items[at]
	branches, err := w.schemaList(choice.node, choice.keyword, choice.node.members.values[choice.keyword])
	if err != nil {
		return err
	}
	rest := slices.Delete(slices.Clone(items), at, at+1)
	alone, outer, err := w.typesAlone(rest)
	if err != nil {
		return err
	}
	alone = alone && !(root && w.Object)
	for _, branch := range branches {
		expanded, _, err := w.expand(branch, choice.path, nil)
		if alone && err == nil {
			var inner types
			if inner, err = w.typesOf(expanded); err == nil && inner&^outer == 0 {
				b, err := w.schema(branch)
				if err != nil {
					return err
				}
				if string(b) != never {
					*out = append(*out, b)
				}
				continue
			}
		}
		if err != nil {
			return err
		}
		all := slices.Concat(items[:at], expanded, items[at+1:])
		if len(branches) > 1 {
			w.inside++
		}
		err = w.alternatives(all, top, root, out)
		if len(branches) > 1 {
			w.inside--
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// typesAlone reports whether items are nothing but types, and which.
func (w *schemaWriter) typesAlone(items []item) (alone bool, set types, err error) {
	set = allTypes
	for _, i := range items {
		if i.keyword != "" || i.node.members == nil {
			return false, 0, nil
		}
		f, err := w.facts(i.node)
		if err != nil || !f.onlyTypes() {
			return false, 0, err
		}
		set &= f.types
	}
	return true, set, nil
}

// typesOf returns the types that items allow, or more of them.
func (w *schemaWriter) typesOf(items []item) (types, error) {
	set := types(allTypes)
	var all []*facts
	for _, i := range items {
		if i.keyword != "" {
			continue
		}
		if i.node.members == nil {
			return 0, nil
		}
		f, err := w.facts(i.node)
		if err != nil {
			return 0, err
		}
		if f.types != 0 {
			set &= f.types
		}
		all = append(all, f)
	}
	if t := w.impliedType(all); t != 0 && len(all) == len(items) {
		set &= t
	}
	return set, nil
}

// impliedType returns the type of schemas that name none, 0 for all: TGI's
// grammars take properties for those of an object and prefixItems for those of
// an array.
func (w *schemaWriter) impliedType(all []*facts) types {
	if w.Open {
		return 0
	}
	var object, array, other, properties bool
	for _, f := range all {
		if f.types != 0 {
			return 0
		}
		properties = properties || f.properties != nil
		object = object || f.object
		array = array || f.prefix != nil
		other = other || f.enums != nil || f.text || f.digit || f.array && f.prefix == nil
	}
	switch {
	case properties, object && !array && !other:
		return typeObject
	case array && !object && !other:
		return typeArray
	}
	return 0
}
