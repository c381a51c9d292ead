package grammar

import (
	"regexp"
	"slices"
	"strconv"
	"unicode/utf8"
)

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
