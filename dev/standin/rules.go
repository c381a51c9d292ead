package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// rulesFile is what rules.py wrote: what the APIs refuse, by resource type.
//
//go:embed rules.json
var rulesFile []byte

// A rule says what a value must be like. Each kind of value has its fields:
// objects members, lists and maps an element, and scalars a shape.
type rule struct {
	Members   map[string]*rule `json:"members"`
	Required  []string         `json:"required"`
	Exclusive [][]string       `json:"exclusive"` // at most one member of each group may be there
	Closed    bool             `json:"closed"`    // there are no other members
	Element   *rule            `json:"element"`
	Max       int              `json:"max"` // elements; 0: any number
	Shape     string           `json:"shape"`

	shape *shape
}

// A shape is a scalar of an API.
type shape struct {
	Type    string   `json:"type"` // "string" or "number"
	Enum    []string `json:"enum"`
	Min     *float64 `json:"min"` // of a number, or the characters of a string
	Max     *float64 `json:"max"`
	Pattern string   `json:"pattern"`

	whole *regexp.Regexp // matches the whole of what Pattern allows
}

// readRules returns the rules by the type that they are for: a resource of
// Terraform's, or a type of CloudFormation's.
func readRules(file []byte) (map[string]*rule, error) {
	var doc struct {
		Resources map[string]*rule  `json:"resources"`
		Shapes    map[string]*shape `json:"shapes"`
	}
	if err := json.Unmarshal(file, &doc); err != nil {
		return nil, fmt.Errorf("rules.json: %w", err)
	}
	for name, s := range doc.Shapes {
		var err error
		if s.whole, err = regexp.Compile(`^(?:` + s.Pattern + `)$`); err != nil {
			return nil, fmt.Errorf("rules.json: %s: %w", name, err)
		}
	}
	for name, r := range doc.Resources {
		if err := r.resolve(doc.Shapes); err != nil {
			return nil, fmt.Errorf("rules.json: %s%w", name, err)
		}
	}
	return doc.Resources, nil
}

func (r *rule) resolve(shapes map[string]*shape) error {
	if r.Shape != "" {
		if r.shape = shapes[r.Shape]; r.shape == nil {
			return fmt.Errorf(": no shape %s", r.Shape)
		}
	}
	for name, member := range r.Members {
		if err := member.resolve(shapes); err != nil {
			return fmt.Errorf(".%s%w", name, err)
		}
	}
	if r.Element != nil {
		return r.Element.resolve(shapes)
	}
	return nil
}

// unknown replaces what Terraform does not know yet. It breaks no rule.
type unknown struct{}

// plainValue returns a value as encoding/json would: maps, slices, strings,
// float64s, bools and nil, and unknown.
func plainValue(v tftypes.Value) (any, error) {
	if !v.IsKnown() {
		return unknown{}, nil
	}
	if v.IsNull() {
		return nil, nil
	}
	var (
		object map[string]tftypes.Value
		list   []tftypes.Value
	)
	switch t := v.Type(); {
	case t.Is(tftypes.String):
		var s string
		return s, v.As(&s)
	case t.Is(tftypes.Bool):
		var b bool
		return b, v.As(&b)
	case t.Is(tftypes.Number):
		var n big.Float
		if err := v.As(&n); err != nil {
			return nil, err
		}
		f, _ := n.Float64()
		return f, nil
	case v.As(&object) == nil:
		out := make(map[string]any, len(object))
		for name, inner := range object {
			var err error
			if out[name], err = plainValue(inner); err != nil {
				return nil, err
			}
		}
		return out, nil
	case v.As(&list) == nil:
		out := make([]any, len(list))
		for i, inner := range list {
			var err error
			if out[i], err = plainValue(inner); err != nil {
				return nil, err
			}
		}
		return out, nil
	default:
		return nil, fmt.Errorf("a value of the type %s", t)
	}
}

// check returns what is wrong with a value, each problem with the path to it.
// An argument that is left out breaks no rule but "required": null, an empty
// list of blocks and "" are that.
func (r *rule) check(path string, value any) []string {
	var problems []string
	switch v := value.(type) {
	case map[string]any:
		problems = r.checkMembers(path, v)
		for _, name := range slices.Sorted(maps.Keys(v)) {
			inner := r.Element // of a map
			if member, ok := r.Members[name]; ok {
				inner = member
			}
			if inner != nil {
				problems = append(problems, inner.check(join(path, name), v[name])...)
			}
		}
		if r.Max > 0 && len(v) > r.Max {
			problems = append(problems, fmt.Sprintf("%s has %d entries, %d are allowed", path, len(v), r.Max))
		}
	case []any:
		if r.Max > 0 && len(v) > r.Max {
			problems = append(problems, fmt.Sprintf("%s has %d elements, %d are allowed", path, len(v), r.Max))
		}
		if r.Element == nil {
			break
		}
		for i, inner := range v {
			problems = append(problems, r.Element.check(fmt.Sprintf("%s[%d]", path, i), inner)...)
		}
	case string:
		if r.shape != nil && r.shape.Type == "string" && v != "" {
			problems = r.shape.checkString(path, v)
		}
	case float64:
		if r.shape != nil && r.shape.Type == "number" {
			problems = r.shape.checkRange(path, "is "+strconv.FormatFloat(v, 'g', -1, 64), v)
		}
	}
	return problems
}

func (r *rule) checkMembers(path string, object map[string]any) []string {
	var problems []string
	for _, name := range r.Required {
		if isLeftOut(object[name]) {
			problems = append(problems, join(path, name)+" is missing")
		}
	}
	for _, group := range r.Exclusive {
		given := slices.DeleteFunc(slices.Clone(group), func(name string) bool {
			_, later := object[name].(unknown)
			return later || isLeftOut(object[name])
		})
		if len(given) > 1 {
			problems = append(problems, strings.TrimPrefix(path+": ", ": ")+strings.Join(given, " and ")+" exclude each other")
		}
	}
	if r.Closed {
		for _, name := range slices.Sorted(maps.Keys(object)) {
			if _, ok := r.Members[name]; !ok {
				problems = append(problems, join(path, name)+" does not exist")
			}
		}
	}
	return problems
}

func isLeftOut(value any) bool {
	list, ok := value.([]any)
	return value == nil || value == "" || ok && len(list) == 0
}

func (s *shape) checkString(path, v string) []string {
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		allowed := strings.Join(s.Enum[:min(len(s.Enum), 8)], ", ")
		if len(s.Enum) > 8 {
			allowed += ", …"
		}
		return []string{fmt.Sprintf("%s is %q, which is not one of %s", path, v, allowed)}
	}
	length := utf8.RuneCountInString(v)
	problems := s.checkRange(path, fmt.Sprintf("has %d characters", length), float64(length))
	if !s.whole.MatchString(v) && s.Pattern != "" {
		problems = append(problems, fmt.Sprintf("%s is %q, which does not match %s", path, v, s.Pattern))
	}
	return problems
}

func (s *shape) checkRange(path, what string, v float64) []string {
	format := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	switch {
	case s.Min != nil && v < *s.Min:
		return []string{fmt.Sprintf("%s %s, the least is %s", path, what, format(*s.Min))}
	case s.Max != nil && v > *s.Max:
		return []string{fmt.Sprintf("%s %s, the most is %s", path, what, format(*s.Max))}
	}
	return nil
}

func join(path, name string) string {
	return strings.TrimPrefix(path+"."+name, ".")
}

// checkTemplate checks what a template of CloudFormation's says of the types
// that there are rules for. It reads JSON only, the form that modules here write.
func checkTemplate(rules map[string]*rule, template string) []string {
	var doc struct {
		Resources map[string]struct {
			Type       string
			Properties map[string]any
		}
	}
	if err := json.Unmarshal([]byte(template), &doc); err != nil {
		return []string{"template_body is not a template in JSON: " + err.Error()}
	}
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(doc.Resources)) {
		if r := rules[doc.Resources[name].Type]; r != nil {
			problems = append(problems, r.check("template_body: "+name, doc.Resources[name].Properties)...)
		}
	}
	return problems
}
