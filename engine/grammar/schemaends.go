package grammar

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

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
