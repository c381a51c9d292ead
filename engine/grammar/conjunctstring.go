package grammar

import (
	"slices"
	"strings"
)

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
