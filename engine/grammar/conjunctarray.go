package grammar

import "slices"

// arrays writes what arrays must be like.
func (c *conjunct) arrays() (*Error, error) {
	if !c.may(typeArray) {
		return nil, nil
	}
	least, most, length := 0, -1, 0
	var last *node
	var rest []*node
	unique, tuple, open := false, false, c.Open
	for i, f := range c.all {
		if !f.array {
			continue
		}
		last = c.nodes[i]
		least = max(least, f.minItems)
		if f.maxItems != nil && (most < 0 || *f.maxItems < most) {
			most = *f.maxItems
		}
		length = max(length, len(f.prefix))
		tuple = tuple || f.prefix != nil
		unique = unique || f.unique
		open = open || f.items != nil || f.minItems > 0 || f.maxItems != nil || f.unevaluatedItems != nil
		if f.items != nil {
			rest = append(rest, f.items)
		}
	}
	if last == nil {
		return nil, nil
	}
	for i, f := range c.all {
		if f.unevaluatedItems == nil || rest != nil {
			continue
		}
		if c.nodes[i] != c.top && len(c.all) > 1 {
			return nil, c.nodes[i].fault("unevaluatedItems", "not supported in a part of allOf, anyOf or oneOf")
		}
		rest = append(rest, f.unevaluatedItems)
	}
	onlyArrays := c.set == typeArray
	if most >= 0 && least > most && onlyArrays {
		return last.fault("", "minItems (%d) is greater than maxItems (%d)", least, most), nil
	}
	if tuple && !open { // as TGI: the tuple, no more and no less
		least, most = length, length
	}
	if unique && !tuple {
		if done, reason, err := c.uniqueItems(last, rest, least, &most); done || reason != nil || err != nil {
			return reason, err
		}
	}
	if tuple {
		c.key("prefixItems")
		c.out = append(c.out, '[')
		for i := range length {
			var schemas []*node
			for _, f := range c.all {
				if i < len(f.prefix) {
					schemas = append(schemas, f.prefix[i])
				} else if f.items != nil {
					schemas = append(schemas, f.items)
				}
			}
			b, err := c.schema(schemas...)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				c.out = append(c.out, ',')
			}
			c.out = append(c.out, b...)
		}
		c.out = append(c.out, ']')
	}
	if rest != nil {
		b, err := c.schema(rest...)
		if err != nil {
			return nil, err
		}
		if string(b) == never && least > length && onlyArrays {
			return last.fault("", "minItems is %d, and there can be no more than %d", least, length), nil
		}
		c.key("items")
		c.out = append(c.out, b...)
	}
	if least > 0 {
		c.number("minItems", least)
	}
	if most >= 0 {
		c.number("maxItems", most)
	}
	return nil, nil
}

// uniqueItems writes all arrays of distinct values, if items are of a set so
// small that this is short. Of a larger set it bounds the length. Where there
// is no such set the keyword has no effect: no grammar can remember what was written.
func (c *conjunct) uniqueItems(n *node, items []*node, least int, most *int) (done bool, reason *Error, err error) {
	set, err := c.finite(items)
	if err != nil || !set.ok {
		return false, nil, err
	}
	values := set.values
	if *most < 0 || *most > len(values) {
		*most = len(values)
	}
	switch {
	case c.set != typeArray || slices.ContainsFunc(c.all, func(f *facts) bool { return f.enums != nil }):
		return false, nil, nil
	case least > *most:
		return false, n.fault("uniqueItems", "minItems is %d, and there are %d different values", least, len(values)), nil
	case len(values) > maxSet:
		return false, nil, nil
	}
	var arrays []any
	var extend func(array, left []any)
	extend = func(array, left []any) {
		if len(array) >= least && len(array) <= *most {
			arrays = append(arrays, slices.Clone(array))
		}
		for i, v := range left {
			extend(append(slices.Clone(array), v), slices.Delete(slices.Clone(left), i, i+1))
		}
	}
	extend([]any{}, values)
	c.key("enum")
	c.out = appendJSON(c.out, arrays)
	return true, nil, nil
}

// finite returns the values that schemas allow, if there are only so many.
func (c *conjunct) finite(schemas []*node) (set valueSet, err error) {
	var items []item
	for _, n := range schemas {
		if items, _, err = c.expand(n, nil, items); err != nil {
			return set, err
		}
	}
	if len(items) == 1 {
		if set, ok := c.sets[items[0].node]; ok {
			return set, nil
		}
		defer func() { c.sets[items[0].node] = set }()
	}
	allowed := types(allTypes)
	var values []any
	for _, i := range items {
		if i.keyword != "" || i.node.members == nil {
			return set, nil
		}
		f, err := c.facts(i.node)
		if err != nil {
			return set, err
		}
		if f.types != 0 {
			allowed &= f.types
		}
		for _, enum := range f.enums {
			if values != nil {
				return set, nil
			}
			values = enum
		}
	}
	switch {
	case values != nil:
		if c.work -= len(values); c.work < 0 {
			return set, c.step(schemas[0])
		}
		seen := map[string]bool{}
		for _, v := range values {
			text := sameValue(v)
			if allowed&valueType(v) != 0 && !seen[text] {
				seen[text] = true
				set.values = append(set.values, v)
			}
		}
	case allowed == 0 || allowed&^(typeBoolean|typeNull) != 0:
		return set, nil
	default:
		if allowed&typeNull != 0 {
			set.values = append(set.values, nil)
		}
		if allowed&typeBoolean != 0 {
			set.values = append(set.values, true, false)
		}
	}
	set.ok = true
	return set, nil
}
