package grammar

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// SchemaOptions says how a JSON schema is read.
type SchemaOptions struct {
	// Open keeps JSON Schema's own meaning: a schema without a type is one for
	// all types, an object may have members that no keyword names.
	Open bool
	// Object asks for an object, whatever the schema says about types.
	Object bool
	// Member, if it is not "", is a member that comes before all others of the
	// object; its value is Value.
	Member, Value string
}

// ErrMemberTaken says that the schema has a property of the name that
// SchemaOptions want to give to another.
var ErrMemberTaken = errors.New("the schema has a property of this name")

// NormalizeSchema returns a schema of the same values, as the package comment
// has it, made of nothing but what the parser enforces: annotations are left
// out, references lead to definitions of its own, alternatives are written
// out, objects say whether they are open. It is its own normal form. The error
// is an *Error with the place of the fault, or ErrMemberTaken.
func NormalizeSchema(text string, o SchemaOptions) (string, error) {
	w, err := normalize(text, o)
	if err != nil {
		return "", err
	}
	return string(w.text), nil
}

const (
	// maxReferences bounds the definitions, along which the library recurses.
	maxReferences = 500
	// maxIntersected bounds how many regular expressions may apply to one
	// string: the library multiplies them out, two choices each.
	maxIntersected = 12
	// maxRemainders bounds the states of multipleOf: one for each remainder.
	maxRemainders = 100_000
	// maxNormal bounds the bytes of a normal form.
	maxNormal = 1 << 20
	// maxSet is the size of a set of which all arrangements are written out.
	maxSet = 4
)

// A schemaWriter writes the normal form of a document.
type schemaWriter struct {
	*document
	SchemaOptions
	text []byte

	definitions map[string]int // names, by what applies to the value
	pending     []definition
	work        int // how many schemas may still be looked at: allOf of anyOf multiplies
	size        int // what was written for them
	inside      int // alternatives with a common part: it is written for each

	sets map[*node]valueSet // of items that are to be unique
	// without are the definitions that have no values.
	without map[string]bool
	// unsatisfiable is the first reason why a part of the schema has no value.
	unsatisfiable *Error
	// patterns tell where a pattern stands that the library refuses.
	patterns []placedPattern
}

type definition struct {
	key   string // in definitions
	items []item
	top   *node
}

type valueSet struct {
	values []any
	ok     bool // there is no other value
}

type placedPattern struct{ text, place string }

func normalize(text string, o SchemaOptions) (*schemaWriter, error) {
	if len(text) > maxSchemaBytes {
		return nil, errorf("the schema has %d bytes, the limit is %d", len(text), maxSchemaBytes)
	}
	if !utf8.ValidString(text) {
		return nil, errorf("the schema is not valid UTF-8")
	}
	v, err := decodeJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	d, err := newDocument(v)
	if err != nil {
		return nil, err
	}
	w := &schemaWriter{document: d, SchemaOptions: o, work: 2000 + 2*len(text), without: map[string]bool{}, sets: map[*node]valueSet{}}
	for {
		if err := w.write(); err != nil {
			return nil, err
		}
		if found, err := w.withoutValues(); err != nil || !found {
			return w, err
		}
	}
}

// write writes the normal form, as if the definitions in without had no values.
func (w *schemaWriter) write() error {
	w.text, w.definitions, w.pending, w.patterns = nil, map[string]int{}, nil, nil
	items, _, err := w.expand(w.root, nil, nil)
	if err != nil {
		return err
	}
	root, err := w.body(items, w.root, true)
	if err != nil {
		return err
	}
	if string(root) == never {
		if w.unsatisfiable != nil {
			return w.unsatisfiable
		}
		return w.root.fault("", "no value is valid")
	}
	w.text = append(w.text, `{`+schemaOptions...)
	if string(root) != anything {
		w.text = append(append(w.text, ','), root[1:len(root)-1]...)
	}
	for i := 0; i < len(w.pending); i++ {
		if i == 0 {
			w.text = append(w.text, `,"$defs":{`...)
		} else {
			w.text = append(w.text, ',')
		}
		w.text = fmt.Appendf(w.text, `"%d":`, i)
		body, err := w.body(w.pending[i].items, w.pending[i].top, false)
		if err != nil {
			return err
		}
		w.text = append(w.text, body...)
	}
	if len(w.pending) > 0 {
		w.text = append(w.text, '}')
	}
	w.text = append(w.text, '}')
	return nil
}

// withoutValues notes the definitions that no value satisfies, and reports
// whether there are any: what requires itself is without end.
func (w *schemaWriter) withoutValues() (bool, error) {
	if len(w.pending) == 0 {
		return false, nil
	}
	v, err := decodeJSON(w.text)
	if err != nil {
		return false, err
	}
	root := v.(*jsonObject)
	bodies := root.values["$defs"].(*jsonObject)
	const passes = 20 // of a chain that is not in order; then it is left to the library
	ends := map[string]bool{}
	for range passes {
		before := len(ends)
		for i := len(w.pending) - 1; i >= 0; i-- {
			name := strconv.Itoa(i)
			if ref := "#/$defs/" + name; !ends[ref] && hasEnd(bodies.values[name], ends) {
				ends[ref] = true
			}
		}
		switch len(ends) {
		case len(w.pending):
			w.renumber(root, bodies)
			return false, nil
		case before:
			for i, d := range w.pending {
				if !ends["#/$defs/"+strconv.Itoa(i)] {
					w.without[d.key] = true
					w.impossible(d.items[0].node.fault("", "no value is valid: each would contain another, without end"))
				}
			}
			return true, nil
		}
	}
	w.renumber(root, bodies)
	return false, nil
}

// renumber leaves out the definitions that only parts without values used, and
// numbers the others in the order in which they are used.
func (w *schemaWriter) renumber(root, bodies *jsonObject) {
	names := map[string]int{}
	var used []definition
	ordered := &jsonObject{values: map[string]any{}}
	same := true
	definition := func(ref string) (name string) {
		for range maxReferences { // what is nothing but a reference is its target
			name = strings.TrimPrefix(ref, "#/$defs/")
			body, _ := bodies.values[name].(*jsonObject)
			if body == nil || len(body.keys) != 1 || body.values["$ref"] == nil {
				break
			}
			ref, same = body.values["$ref"].(string), false
		}
		return name
	}
	if ref, ok := root.values["$ref"].(string); ok {
		if body, ok := bodies.values[definition(ref)].(*jsonObject); ok {
			whole := &jsonObject{values: map[string]any{}}
			whole.set(root.keys[0], root.values[root.keys[0]])
			for _, key := range body.keys {
				whole.set(key, body.values[key])
			}
			root, same = whole, false
		}
	}
	done := map[*jsonObject]bool{} // the root and a definition may have some in common
	var visit func(v any)
	visit = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				visit(e)
			}
		case *jsonObject:
			if done[v] {
				return
			}
			done[v] = true
			if ref, ok := v.values["$ref"].(string); ok {
				old := definition(ref)
				if body, ok := bodies.values[old].(*jsonObject); ok && len(body.keys) == 0 { // any value
					v.keys, v.values, same = nil, map[string]any{}, false
					return
				}
				name, ok := names[old]
				if !ok {
					i, _ := strconv.Atoi(old)
					name = len(used)
					names[old] = name
					used = append(used, w.pending[i])
					ordered.set(strconv.Itoa(name), bodies.values[old])
					same = same && name == i
				}
				v.values["$ref"] = "#/$defs/" + strconv.Itoa(name)
				return
			}
			for _, key := range v.keys {
				switch key {
				case "enum", "$defs", "required":
				case "properties", "patternProperties":
					members := v.values[key].(*jsonObject)
					for _, name := range members.keys {
						visit(members.values[name])
					}
				default:
					visit(v.values[key])
				}
			}
		}
	}
	visit(root)
	for i := 0; i < len(used); i++ {
		visit(ordered.values[strconv.Itoa(i)])
	}
	if same && len(used) == len(w.pending) {
		return
	}
	w.pending = used
	if root.set("$defs", ordered); len(used) == 0 {
		delete(root.values, "$defs")
		root.keys = slices.DeleteFunc(root.keys, func(key string) bool { return key == "$defs" })
	}
	w.text = appendJSON(nil, root)
}

// hasEnd reports whether a schema in normal form has a value, if the
// references in ends have.
func hasEnd(v any, ends map[string]bool) bool {
	o, ok := v.(*jsonObject)
	if !ok {
		return v != false
	}
	if ref, ok := o.values["$ref"].(string); ok {
		return ends[ref]
	}
	if list, ok := o.values["anyOf"].([]any); ok {
		return slices.ContainsFunc(list, func(e any) bool { return hasEnd(e, ends) })
	}
	if o.values["enum"] != nil {
		return true
	}
	list, ok := o.values["type"].([]any)
	if !ok {
		list = []any{o.values["type"]}
	}
	return slices.ContainsFunc(list, func(t any) bool {
		switch t {
		case "object":
			properties, _ := o.values["properties"].(*jsonObject)
			required, _ := o.values["required"].([]any)
			if o.values["minProperties"] != nil && !anyEnds(o.values["properties"], ends) && !anyEnds(o.values["patternProperties"], ends) {
				if rest, ok := o.values["additionalProperties"]; ok && !hasEnd(rest, ends) {
					return false
				}
			}
			return !slices.ContainsFunc(required, func(name any) bool {
				if properties == nil {
					return false
				}
				property, ok := properties.values[name.(string)]
				return ok && !hasEnd(property, ends)
			})
		case "array":
			prefix, _ := o.values["prefixItems"].([]any)
			number, _ := o.values["minItems"].(json.Number)
			least, _ := strconv.Atoi(number.String())
			if least > len(prefix) {
				if items, ok := o.values["items"]; ok && !hasEnd(items, ends) {
					return false
				}
			}
			return !slices.ContainsFunc(prefix[:min(least, len(prefix))], func(e any) bool { return !hasEnd(e, ends) })
		}
		return true
	})
}

// anyEnds reports whether one of several schemas has a value.
func anyEnds(v any, ends map[string]bool) bool {
	o, ok := v.(*jsonObject)
	return ok && slices.ContainsFunc(o.keys, func(name string) bool { return hasEnd(o.values[name], ends) })
}

// never is a schema without values, anything one of all.
const (
	never    = `false`
	anything = `{}`
)

// impossible notes why no value is valid, and returns that schema.
func (w *schemaWriter) impossible(reason *Error) []byte {
	if w.unsatisfiable == nil {
		w.unsatisfiable = reason
	}
	return []byte(never)
}

// An item is what applies to a value: the keywords of one schema, or one of
// several schemas.
type item struct {
	node    *node
	keyword string // anyOf or oneOf; "" for the keywords
	path    *trail
}

// trail leads to a schema through those that apply to the same value.
type trail struct {
	node *node
	up   *trail
	n    int
}

func (t *trail) has(n *node) bool {
	for ; t != nil; t = t.up {
		if t.node == n {
			return true
		}
	}
	return false
}

// step counts a schema that is looked at.
func (w *schemaWriter) step(n *node) error {
	if w.work--; w.work < 0 || w.size > maxNormal {
		return n.fault("", "the schema is too large when its references and alternatives are written out")
	}
	return nil
}

// expand appends what n asks of a value, in the order of its keywords, and
// reports whether a reference led there.
func (w *schemaWriter) expand(n *node, path *trail, items []item) (_ []item, referred bool, err error) {
	if err := w.step(n); err != nil {
		return nil, false, err
	}
	if n.members == nil {
		if n.never {
			items = append(items, item{node: n})
		}
		return items, false, nil
	}
	if path.has(n) {
		return nil, false, n.fault("", "the schema refers to itself without anything in between")
	}
	depth := 1
	if path != nil {
		depth = path.n + 1
	}
	if depth > maxReferences {
		return nil, false, n.fault("", "more than %d schemas in a row refer to one another", maxReferences)
	}
	w.work -= depth / 8 // it was searched
	path = &trail{n, path, depth}
	f, err := w.facts(n)
	if err != nil {
		return nil, false, err
	}
	placed := false
	for _, key := range n.members.keys {
		var more bool
		switch key {
		case "$ref", "$dynamicRef":
			target := n.targets[key]
			if target == nil {
				if target, err = w.target(n, key); err != nil {
					return nil, false, err
				}
				if n.targets == nil {
					n.targets = map[string]*node{}
				}
				n.targets[key] = target
			}
			items, _, err = w.expand(target, path, items)
			more = true
		case "allOf":
			var list []*node
			if list, err = w.schemaList(n, key, n.members.values[key]); err != nil {
				return nil, false, err
			}
			for _, part := range list {
				var r bool
				if items, r, err = w.expand(part, path, items); err != nil {
					return nil, false, err
				}
				more = more || r
			}
		case "anyOf", "oneOf":
			if _, err = w.schemaList(n, key, n.members.values[key]); err != nil {
				return nil, false, err
			}
			items = append(items, item{n, key, path})
		default:
			// The keywords count where the first of them stands that orders
			// properties, or the first of all.
			if !placed && !f.none && keywordMatters(key) && (key == "properties" || f.properties == nil) {
				placed = true
				items = append(items, item{node: n})
			}
		}
		if err != nil {
			return nil, false, err
		}
		referred = referred || more
	}
	return items, referred, nil
}

// keywordMatters reports whether a keyword may be one of those in facts.
func keywordMatters(key string) bool {
	switch key {
	case "type", "enum", "const", "properties", "patternProperties", "additionalProperties", "unevaluatedProperties",
		"propertyNames", "required", "minProperties", "maxProperties", "items", "prefixItems", "additionalItems",
		"unevaluatedItems", "minItems", "maxItems", "uniqueItems", "pattern", "format", "minLength", "maxLength",
		"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "not":
		return true
	}
	return false
}

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
