package grammar

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
