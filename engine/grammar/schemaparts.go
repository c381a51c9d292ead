package grammar

import (
	"encoding/json"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

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

// numbers writes the bounds of numbers.
func (c *conjunct) numbers() (*Error, error) {
	if !c.may(typeNumber | typeInteger) {
		return nil, nil
	}
	var low, high, above, below *big.Rat
	var lowText, highText, aboveText, belowText json.Number
	var multiples []json.Number
	var last *node
	for i, f := range c.all {
		if !f.digit {
			continue
		}
		last = c.nodes[i]
		tighten := func(bound **big.Rat, text *json.Number, number json.Number, sign int) {
			if number == "" {
				return
			}
			if r := rational(number); *bound == nil || r.Cmp(*bound) == sign {
				*bound, *text = r, number
			}
		}
		tighten(&low, &lowText, f.minimum, 1)
		tighten(&high, &highText, f.maximum, -1)
		tighten(&above, &aboveText, f.above, 1)
		tighten(&below, &belowText, f.below, -1)
		if f.multiple != "" && !slices.Contains(multiples, f.multiple) {
			multiples = append(multiples, f.multiple)
		}
	}
	if last == nil {
		return nil, nil
	}
	numbersOnly := c.set != 0 && c.set&^(typeNumber|typeInteger) == 0
	if numbersOnly {
		switch {
		case low != nil && high != nil && low.Cmp(high) > 0:
			return last.fault("", "minimum (%s) is greater than maximum (%s)", lowText, highText), nil
		case above != nil && high != nil && above.Cmp(high) >= 0:
			return last.fault("", "exclusiveMinimum (%s) is not less than maximum (%s)", aboveText, highText), nil
		case low != nil && below != nil && low.Cmp(below) >= 0:
			return last.fault("", "minimum (%s) is not less than exclusiveMaximum (%s)", lowText, belowText), nil
		case above != nil && below != nil && above.Cmp(below) >= 0:
			return last.fault("", "exclusiveMinimum (%s) is not less than exclusiveMaximum (%s)", aboveText, belowText), nil
		}
	}
	for _, bound := range []struct {
		name string
		text json.Number
	}{{"minimum", lowText}, {"maximum", highText}, {"exclusiveMinimum", aboveText}, {"exclusiveMaximum", belowText}} {
		if bound.text != "" {
			c.key(bound.name)
			c.out = append(c.out, bound.text...)
		}
	}
	if err := checkRemainders(last, multiples); err != nil {
		return nil, err
	}
	if len(multiples) > 0 {
		// The library multiplies them in floating point; one is enough.
		c.key("multipleOf")
		c.out = append(c.out, commonMultiple(multiples)...)
	}
	return nil, nil
}

// strings writes what strings must be like. Patterns and formats beyond the
// first stand in allOf.
func (c *conjunct) strings() (*Error, error) {
	if !c.may(typeString) {
		return nil, nil
	}
	shortest, longest := 0, -1
	var patterns, formats []string
	var last *node
	for i, f := range c.all {
		if !f.text {
			continue
		}
		last = c.nodes[i]
		shortest = max(shortest, f.minLength)
		if f.maxLength != nil && (longest < 0 || *f.maxLength < longest) {
			longest = *f.maxLength
		}
		if f.pattern != "" && !slices.Contains(patterns, f.pattern) {
			patterns = append(patterns, f.pattern)
			c.patterns = append(c.patterns, placedPattern{f.pattern, last.place() + "/pattern"})
		}
		if f.format != "" && !slices.Contains(formats, f.format) {
			formats = append(formats, f.format)
		}
	}
	if last == nil {
		return nil, nil
	}
	if n := len(patterns) + len(formats); n > maxIntersected {
		return nil, last.fault("", "%d patterns and formats apply to one string, the limit is %d", n, maxIntersected)
	}
	if longest >= 0 && shortest > longest && c.set == typeString {
		return last.fault("", "minLength (%d) is greater than maxLength (%d)", shortest, longest), nil
	}
	if shortest > 0 {
		c.number("minLength", shortest)
	}
	if longest >= 0 {
		c.number("maxLength", longest)
	}
	more := 0
	for _, list := range []struct {
		name  string
		texts []string
	}{{"pattern", patterns}, {"format", formats}} {
		if len(list.texts) > 0 {
			c.key(list.name)
			c.out = appendString(c.out, list.texts[0])
			more += len(list.texts) - 1
		}
	}
	if more == 0 {
		return nil, nil
	}
	entry := func(name, text string) string {
		if c.set == 0 {
			return string(appendString([]byte(`{"`+name+`":`), text)) + "}"
		}
		return string(appendString([]byte(`{"type":`+c.typeList()+`,"`+name+`":`), text)) + "}"
	}
	var entries []string
	for _, p := range patterns[min(1, len(patterns)):] {
		entries = append(entries, entry("pattern", p))
	}
	for _, f := range formats[min(1, len(formats)):] {
		entries = append(entries, entry("format", f))
	}
	c.key("allOf")
	c.out = append(c.out, "["+strings.Join(entries, ",")+"]"...)
	return nil, nil
}

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
// is no set the keyword has no effect: no grammar can remember what was written.
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

// member is a member of an object, and all schemas of its value.
type member struct {
	name    string
	schemas []*node
	never   bool
}

// objects writes what objects must be like.
func (c *conjunct) objects() (*Error, error) {
	if !c.may(typeObject) {
		return nil, nil
	}
	o := objectParts{named: map[string]int{}, required: map[string]bool{}, most: -1}
	if err := o.gather(c); err != nil {
		return nil, err
	}
	if o.last == nil && !c.named {
		return nil, nil
	}
	if o.last == nil {
		o.last = c.root
	}
	if err := o.members(c); err != nil {
		return nil, err
	}
	if err := o.names(c); err != nil {
		return nil, err
	}
	return o.write(c)
}

// objectParts are the keywords for objects of several schemas.
type objectParts struct {
	last         *node // one that has such keywords
	listed       []member
	named        map[string]int // where in listed a name is
	patterns     []member
	required     map[string]bool
	order        []string // of required
	additional   []*node  // what applies to members that are not listed
	closed       bool     // there are none, because nothing says that there may be
	namesSchemas []*node  // propertyNames
	least, most  int
}

func (o *objectParts) gather(c *conjunct) error {
	listing, enum := false, false
	for i, f := range c.all {
		enum = enum || f.enums != nil
		if !f.object {
			continue
		}
		o.last = c.nodes[i]
		listing = listing || f.properties != nil || f.patterns != nil
		o.least = max(o.least, f.minProperties)
		if f.maxProperties != nil && (o.most < 0 || *f.maxProperties < o.most) {
			o.most = *f.maxProperties
		}
		for _, name := range f.required {
			if !o.required[name] {
				o.required[name] = true
				o.order = append(o.order, name)
			}
		}
		if f.additional != nil {
			o.additional = append(o.additional, f.additional)
		}
		if f.names != nil {
			o.namesSchemas = append(o.namesSchemas, f.names)
		}
	}
	if o.additional == nil {
		for i, f := range c.all {
			if f.unevaluated == nil {
				continue
			}
			if c.nodes[i] != c.top && len(c.all) > 1 {
				return c.nodes[i].fault("unevaluatedProperties", "not supported in a part of allOf, anyOf or oneOf")
			}
			o.additional = append(o.additional, f.unevaluated)
		}
	}
	o.closed = o.additional == nil && listing && !enum && !c.Open
	return nil
}

// members lists the members that have a name or a pattern, each with all
// schemas that apply to its value.
func (o *objectParts) members(c *conjunct) error {
	list := func(list *[]member, at map[string]int, p property) {
		i, ok := at[p.name]
		if !ok {
			i = len(*list)
			at[p.name] = i
			*list = append(*list, member{name: p.name})
		}
		(*list)[i].schemas = append((*list)[i].schemas, p.node)
	}
	pattern := map[string]int{}
	for i, f := range c.all {
		if f.patterns != nil && f.additional == nil && len(o.additional) > 0 && len(c.all) > 1 {
			return c.nodes[i].fault("patternProperties", "not supported beside additionalProperties in another part of allOf, anyOf or oneOf")
		}
		for _, p := range f.properties {
			list(&o.listed, o.named, p)
		}
		for _, p := range f.patterns {
			list(&o.patterns, pattern, p)
			c.schemaWriter.patterns = append(c.schemaWriter.patterns,
				placedPattern{p.name, c.nodes[i].place() + "/patternProperties/" + pointerEscape.Replace(p.name)})
		}
	}
	// What one schema does not list is additional there.
	for _, f := range c.all {
		if f.additional == nil || f.additional.members == nil && !f.additional.never || len(c.all) == 1 {
			continue
		}
		if f.patterns != nil {
			return o.last.fault("patternProperties", "not supported beside properties in another part of allOf, anyOf or oneOf")
		}
		if c.work -= len(o.listed); c.work < 0 {
			return c.step(o.last)
		}
		own := map[string]bool{}
		for _, p := range f.properties {
			own[p.name] = true
		}
		for i, m := range o.listed {
			if !own[m.name] {
				o.listed[i].schemas = append(o.listed[i].schemas, f.additional)
			}
		}
	}
	if o.closed { // what is required is allowed
		for _, name := range o.order {
			if _, ok := o.named[name]; !ok {
				o.named[name] = len(o.listed)
				o.listed = append(o.listed, member{name: name})
			}
		}
	}
	return nil
}

// names applies propertyNames: listed names are checked, a set of names becomes
// properties, and what else there is about names a pattern.
func (o *objectParts) names(c *conjunct) error {
	if o.namesSchemas == nil {
		return nil
	}
	at := o.namesSchemas[0]
	var items []item
	for _, n := range o.namesSchemas {
		var err error
		if items, _, err = c.expand(n, nil, items); err != nil {
			return err
		}
	}
	var patterns []string
	var allowed map[string]bool // nil: all
	var order []string
	none := false
	shortest, longest := 0, -1
	for _, i := range items {
		if i.keyword != "" {
			return i.node.fault(i.keyword, "not supported in propertyNames")
		}
		if i.node.members == nil {
			none = true
			continue
		}
		f, err := c.facts(i.node)
		if err != nil {
			return err
		}
		none = none || f.types != 0 && f.types&typeString == 0
		if f.format != "" {
			return i.node.fault("format", "not supported in propertyNames")
		}
		if f.pattern != "" {
			patterns = append(patterns, f.pattern)
		}
		shortest = max(shortest, f.minLength)
		if f.maxLength != nil && (longest < 0 || *f.maxLength < longest) {
			longest = *f.maxLength
		}
		for _, enum := range f.enums {
			set := map[string]bool{}
			order = nil
			for _, v := range enum {
				if name, ok := v.(string); ok && (allowed == nil || allowed[name]) && !set[name] {
					set[name] = true
					order = append(order, name)
				}
			}
			allowed = set
		}
	}
	if none {
		allowed, order = map[string]bool{}, nil
	}
	if patterns == nil && allowed == nil && shortest == 0 && longest < 0 {
		return nil
	}
	if o.patterns != nil {
		return at.fault("", "propertyNames is not supported beside patternProperties")
	}
	check := make([]*regexp.Regexp, len(patterns))
	fits := func(name string) (bool, error) {
		if n := utf8.RuneCountInString(name); n < shortest || longest >= 0 && n > longest {
			return false, nil
		}
		if allowed != nil && !allowed[name] {
			return false, nil
		}
		for i, p := range patterns {
			if check[i] == nil {
				var err error
				if check[i], err = regexp.Compile(p); err != nil {
					return false, at.fault("pattern", "not supported in propertyNames beside names that are listed")
				}
			}
			if !check[i].MatchString(name) {
				return false, nil
			}
		}
		return true, nil
	}
	for i, m := range o.listed {
		ok, err := fits(m.name)
		if err != nil {
			return err
		}
		o.listed[i].never = !ok
	}
	forbidden := o.closed || slices.ContainsFunc(o.additional, func(n *node) bool { return n.never })
	switch {
	case forbidden:
	case allowed != nil:
		for _, name := range order {
			ok, err := fits(name)
			if err != nil {
				return err
			}
			if _, listed := o.named[name]; ok && !listed {
				o.named[name] = len(o.listed)
				o.listed = append(o.listed, member{name: name, schemas: o.additional})
			}
		}
		o.closed = true
	case len(patterns) > 1, len(patterns) == 1 && (shortest > 0 || longest >= 0):
		return at.fault("", "a pattern beside another, or beside a length, is not supported in propertyNames")
	case len(patterns) == 1:
		o.patterns = []member{{name: patterns[0], schemas: o.additional}}
		c.schemaWriter.patterns = append(c.schemaWriter.patterns, placedPattern{patterns[0], at.place() + "/pattern"})
		o.closed = true
	default:
		upTo := ""
		if longest >= 0 {
			upTo = strconv.Itoa(longest)
		}
		o.patterns = []member{{name: "^(?s:.{" + strconv.Itoa(shortest) + "," + upTo + "})$", schemas: o.additional}}
		o.closed = true
	}
	return nil
}

// write writes the keywords. A member that cannot have a value is left out of
// what may come, unless it is required.
func (o *objectParts) write(c *conjunct) (*Error, error) {
	if c.named {
		if _, ok := o.named[c.Member]; ok {
			return nil, ErrMemberTaken
		}
		o.required[c.Member] = true
		o.order = slices.Insert(o.order, 0, c.Member)
		o.least++
		if o.most >= 0 {
			o.most++
		}
	}
	optional := 0
	begun := false
	name := func(name string) {
		if !begun {
			c.key("properties")
			c.out = append(c.out, '{')
			begun = true
		} else {
			c.out = append(c.out, ',')
		}
		c.out = append(appendString(c.out, name), ':')
	}
	if c.named {
		name(c.Member)
		c.out = append(appendJSON(append(c.out, `{"type":"string","enum":[`...), c.Value), "]}"...)
	}
	for _, m := range o.listed {
		b := []byte(never)
		if !m.never {
			var err error
			if b, err = c.schema(m.schemas...); err != nil {
				return nil, err
			}
		}
		if string(b) == never && o.required[m.name] && c.set == typeObject {
			return o.last.fault("properties/"+pointerEscape.Replace(m.name), "the property is required and no value is valid"), nil
		}
		if !o.required[m.name] && string(b) != never {
			optional++
		}
		name(m.name)
		c.out = append(c.out, b...)
	}
	if begun {
		c.out = append(c.out, '}')
	}
	if len(o.patterns) > 0 {
		c.key("patternProperties")
		c.out = append(c.out, '{')
		for i, m := range o.patterns {
			if i > 0 {
				c.out = append(c.out, ',')
			}
			b, err := c.schema(m.schemas...)
			if err != nil {
				return nil, err
			}
			c.out = append(append(appendString(c.out, m.name), ':'), b...)
		}
		c.out = append(c.out, '}')
	}
	rest := []byte(never)
	switch {
	case o.closed:
	case len(o.additional) == 0:
		rest = []byte("true")
	default:
		var err error
		if rest, err = c.schema(o.additional...); err != nil {
			return nil, err
		}
	}
	if string(rest) == anything {
		rest = []byte("true")
	}
	if string(rest) != "true" || begun || len(o.patterns) > 0 {
		c.key("additionalProperties")
		c.out = append(c.out, rest...)
	}
	if len(o.order) > 0 {
		c.key("required")
		list := make([]any, len(o.order))
		for i, name := range o.order {
			list[i] = name
		}
		c.out = appendJSON(c.out, list)
	}
	return o.counts(c, optional, string(rest) == never && len(o.patterns) == 0)
}

// counts writes how many members there may be, unless the other keywords say it.
func (o *objectParts) counts(c *conjunct, optional int, closed bool) (*Error, error) {
	required := len(o.order)
	if o.least <= required {
		o.least = 0
	}
	if closed && o.most >= required+optional {
		o.most = -1
	}
	if c.set == typeObject {
		switch {
		case o.most >= 0 && o.least > o.most:
			return o.last.fault("", "minProperties (%d) is greater than maxProperties (%d)", o.least, o.most), nil
		case o.most >= 0 && required > o.most:
			return o.last.fault("maxProperties", "%d properties are required", required), nil
		case closed && o.least > required+optional:
			return o.last.fault("minProperties", "there are no more than %d properties", required+optional), nil
		}
	}
	one := o.least-required <= 1 && (o.most < 0 || o.most-required == 1) && closed
	if optional > 0 && (o.least > 0 || o.most >= 0) && !one {
		keyword := "minProperties"
		if o.least == 0 {
			keyword = "maxProperties"
		}
		return nil, o.last.fault(keyword, "only supported where all properties are required, or for one of those that are not")
	}
	if o.least > 0 {
		c.number("minProperties", o.least)
	}
	if o.most >= 0 {
		c.number("maxProperties", o.most)
	}
	return nil, nil
}

// checkRemainders bounds the least common multiple of all multipleOf, in
// units of the last decimal.
func checkRemainders(n *node, multiples []json.Number) error {
	if len(multiples) == 0 {
		return nil
	}
	scale := big.NewInt(1)
	for _, m := range multiples {
		for new(big.Int).Rem(scale, rational(m).Denom()).Sign() != 0 {
			if scale.BitLen() > 64 {
				return n.fault("multipleOf", "%s has too many decimals", m)
			}
			scale.Mul(scale, big.NewInt(10))
		}
	}
	states := big.NewInt(1)
	for _, m := range multiples {
		r := rational(m)
		steps := new(big.Int).Mul(r.Num(), new(big.Int).Quo(scale, r.Denom()))
		states.Mul(states, new(big.Int).Quo(steps, new(big.Int).GCD(nil, nil, states, steps)))
		if states.Cmp(big.NewInt(maxRemainders)) > 0 {
			return n.fault("multipleOf", "the common multiple is more than %d units of the last decimal", maxRemainders)
		}
	}
	return nil
}

// commonMultiple returns the least common multiple, as it is written if there is one.
func commonMultiple(multiples []json.Number) string {
	if len(multiples) == 1 {
		return multiples[0].String()
	}
	num, den := big.NewInt(1), new(big.Int)
	for _, m := range multiples {
		r := rational(m)
		num.Mul(num, new(big.Int).Quo(r.Num(), new(big.Int).GCD(nil, nil, num, r.Num())))
		den.GCD(nil, nil, den, r.Denom())
	}
	r := new(big.Rat).SetFrac(num, den)
	digits, _ := r.FloatPrec()
	return r.FloatString(digits)
}
