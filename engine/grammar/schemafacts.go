package grammar

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// types is a set of JSON's types.
type types uint8

const (
	typeNull types = 1 << iota
	typeBoolean
	typeInteger
	typeNumber // numbers that are not integers
	typeString
	typeArray
	typeObject
	allTypes = 1<<iota - 1
)

var typeNames = []struct {
	name string
	set  types
}{
	{"null", typeNull},
	{"boolean", typeBoolean},
	{"number", typeNumber | typeInteger},
	{"integer", typeInteger},
	{"string", typeString},
	{"array", typeArray},
	{"object", typeObject},
}

func typeOf(name string) (types, bool) {
	for _, t := range typeNames {
		if t.name == name {
			return t.set, true
		}
	}
	return 0, false
}

// facts are what the keywords of one schema say, without those that apply
// other schemas to the same value.
type facts struct {
	none  bool  // nothing
	never bool  // no value is valid, by not
	types types // 0 if there is no type
	enums [][]any

	properties, patterns       []property
	additional, unevaluated    *node
	names                      *node
	required                   []string
	minProperties              int
	maxProperties              *int
	prefix                     []*node
	items, unevaluatedItems    *node
	unique                     bool
	minItems                   int
	maxItems                   *int
	pattern, format            string
	minLength                  int
	maxLength                  *int
	minimum, maximum           json.Number
	above, below               json.Number // exclusiveMinimum, exclusiveMaximum
	multiple                   json.Number
	object, array, text, digit bool // has keywords for that type
}

type property struct {
	name string
	node *node
}

// formats are those that are enforced; others are annotations.
var formats = []string{"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"}

// facts reads a schema.
func (d *document) facts(n *node) (*facts, error) {
	if n.read != nil {
		return n.read, nil
	}
	f := &facts{none: true}
	for _, key := range n.members.keys {
		relevant, err := d.keyword(n, f, key, n.members.values[key])
		if err != nil {
			return nil, err
		}
		f.none = f.none && !relevant
	}
	n.read = f
	return f, nil
}

// keyword reads one and reports whether it says anything about values.
func (d *document) keyword(n *node, f *facts, key string, v any) (relevant bool, err error) {
	switch key {
	case "type":
		f.types, err = readTypes(n, v)
	case "enum":
		list, ok := v.([]any)
		switch {
		case !ok:
			return false, n.fault(key, "not a list")
		case len(list) == 0:
			return false, n.fault(key, "is empty: no value is valid")
		}
		f.enums = append(f.enums, list)
	case "const":
		f.enums = append(f.enums, []any{v})

	case "properties":
		f.object = true
		f.properties, err = d.schemaMap(n, key, v)
		if f.properties == nil {
			f.properties = []property{}
		}
	case "patternProperties":
		f.object = true
		if f.patterns, err = d.schemaMap(n, key, v); err != nil {
			return false, err
		}
		for _, p := range f.patterns {
			if err := checkPattern(n, key+"/"+pointerEscape.Replace(p.name), p.name); err != nil {
				return false, err
			}
		}
	case "additionalProperties":
		f.object = true
		f.additional, err = d.node(n, "/"+key, v)
	case "unevaluatedProperties":
		f.object = true
		f.unevaluated, err = d.node(n, "/"+key, v)
	case "propertyNames":
		f.object = true
		f.names, err = d.node(n, "/"+key, v)
	case "required":
		f.object = true
		list, ok := v.([]any)
		for _, e := range list {
			name, isString := e.(string)
			ok = ok && isString
			f.required = append(f.required, name)
		}
		if !ok {
			return false, n.fault(key, "not a list of names")
		}
	case "minProperties":
		f.object = true
		f.minProperties, err = count(n, key, v)
	case "maxProperties":
		f.object = true
		f.maxProperties, err = limit(n, key, v)

	case "items", "prefixItems", "additionalItems", "unevaluatedItems", "minItems", "maxItems", "uniqueItems":
		f.array = true
		return d.arrayKeyword(n, f, key, v)

	case "pattern":
		f.text = true
		var ok bool
		if f.pattern, ok = v.(string); !ok {
			return false, n.fault(key, "not a string")
		}
		err = checkPattern(n, key, f.pattern)
	case "format":
		name, ok := v.(string)
		if !ok {
			return false, n.fault(key, "not a string")
		}
		if !slices.Contains(formats, name) {
			return false, nil
		}
		f.text, f.format = true, name
	case "minLength":
		f.text = true
		f.minLength, err = count(n, key, v)
	case "maxLength":
		f.text = true
		f.maxLength, err = limit(n, key, v)

	case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf":
		f.digit = true
		return true, numberKeyword(n, f, key, v)

	default:
		return unsupported(n, f, key, v)
	}
	return true, err
}

// unsupported refuses the keywords that cannot be enforced, unless they say
// nothing, or something simple. All others are annotations, or unknown.
func unsupported(n *node, f *facts, key string, v any) (relevant bool, err error) {
	has := func(key string) bool { _, ok := n.members.values[key]; return ok }
	switch o, _ := v.(*jsonObject); key {
	case "not":
		if v == true || o != nil && len(o.keys) == 0 {
			f.never = true
			return true, nil
		}
		if v == false {
			return false, nil
		}
	case "if":
		if !has("then") && !has("else") {
			return false, nil
		}
	case "dependentRequired", "dependentSchemas", "dependencies":
		if o != nil && len(o.keys) == 0 {
			return false, nil
		}
	case "contains":
	default:
		return false, nil
	}
	return false, n.fault(key, "the keyword is not supported")
}

func (d *document) arrayKeyword(n *node, f *facts, key string, v any) (relevant bool, err error) {
	switch key {
	case "prefixItems":
		f.prefix, err = d.schemaList(n, key, v)
	case "items":
		if _, ok := v.([]any); ok { // drafts before 2020-12
			f.prefix, err = d.schemaList(n, key, v)
			if v, ok := n.members.values["additionalItems"]; ok && err == nil {
				f.items, err = d.node(n, "/additionalItems", v)
			}
			break
		}
		f.items, err = d.node(n, "/"+key, v)
	case "additionalItems":
		_, list := n.members.values["items"].([]any)
		return list, nil
	case "unevaluatedItems":
		f.unevaluatedItems, err = d.node(n, "/"+key, v)
	case "uniqueItems":
		var ok bool
		if f.unique, ok = v.(bool); !ok {
			return false, n.fault(key, "not a boolean")
		}
	case "minItems":
		f.minItems, err = count(n, key, v)
	case "maxItems":
		f.maxItems, err = limit(n, key, v)
	}
	return true, err
}

func (d *document) schemaMap(n *node, key string, v any) (list []property, err error) {
	o, ok := v.(*jsonObject)
	if !ok {
		return nil, n.fault(key, "not an object")
	}
	for _, name := range o.keys {
		child, err := d.node(n, "/"+key+"/"+pointerEscape.Replace(name), o.values[name])
		if err != nil {
			return nil, err
		}
		list = append(list, property{name, child})
	}
	return list, nil
}

func (d *document) schemaList(n *node, key string, v any) (list []*node, err error) {
	elements, ok := v.([]any)
	switch {
	case !ok:
		return nil, n.fault(key, "not a list of schemas")
	case len(elements) == 0 && key != "prefixItems" && key != "items":
		return nil, n.fault(key, "is empty: no value is valid")
	}
	for i, e := range elements {
		child, err := d.node(n, fmt.Sprintf("/%s/%d", key, i), e)
		if err != nil {
			return nil, err
		}
		list = append(list, child)
	}
	return list, nil
}

func readTypes(n *node, v any) (types, error) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var set types
	for _, e := range list {
		name, _ := e.(string)
		t, ok := typeOf(name)
		if !ok {
			return 0, n.fault("type", "%.40s is not a type", appendJSON(nil, e))
		}
		set |= t
	}
	if set == 0 {
		return 0, n.fault("type", "is empty: no value is valid")
	}
	return set, nil
}

// maxCount is more than any text can hold.
const maxCount = 1 << 30

// count reads a number that counts something; 2.0 is 2.
func count(n *node, key string, v any) (int, error) {
	number, _ := v.(json.Number)
	f, err := number.Float64()
	switch {
	case err != nil || f < 0 || f != float64(int64(f)):
		return 0, n.fault(key, "%.40s is not a count", appendJSON(nil, v))
	case f > maxCount:
		return 0, n.fault(key, "%.40s is larger than %d", number, maxCount)
	}
	return int(f), nil
}

func limit(n *node, key string, v any) (*int, error) {
	if number, ok := v.(json.Number); ok {
		if f, err := number.Float64(); err == nil && f > maxCount {
			return nil, nil // no limit
		}
	}
	c, err := count(n, key, v)
	return &c, err
}

// numberKeyword reads a bound. In draft 4 the exclusive ones are booleans.
func numberKeyword(n *node, f *facts, key string, v any) error {
	if exclusive, ok := v.(bool); ok && strings.HasPrefix(key, "exclusive") {
		plain := strings.ToLower(strings.TrimPrefix(key, "exclusive"))
		if v, ok = n.members.values[plain]; !exclusive || !ok {
			return nil
		}
	}
	number, ok := v.(json.Number)
	if !ok {
		return n.fault(key, "%.40s is not a number", appendJSON(nil, v))
	}
	// Digits are states of the library's, and it counts them in 64 bits.
	value, err := number.Float64()
	if err != nil || len(number) > 40 || value != 0 && abs(value) < 1e-30 || abs(value) > 9e18 {
		return n.fault(key, "%.60s is not supported", number)
	}
	switch key {
	case "minimum":
		f.minimum = number
	case "maximum":
		f.maximum = number
	case "exclusiveMinimum":
		f.above = number
	case "exclusiveMaximum":
		f.below = number
	case "multipleOf":
		const digits = 30 // beyond any use
		if len(number) > digits || value < 1e-9 || value > 1e9 {
			return n.fault(key, "%.40s is not supported", number)
		}
		f.multiple = number
	}
	return nil
}

func abs(f float64) float64 { return max(f, -f) }

func checkPattern(n *node, keyword, pattern string) error {
	if len(pattern) > maxPatternBytes {
		return n.fault(keyword, "%d bytes, the limit is %d", len(pattern), maxPatternBytes)
	}
	if err := checkNesting(pattern, "the pattern"); err != nil {
		return n.fault(keyword, "%v", err)
	}
	return nil
}

// rational returns the value of a number whose size was checked.
func rational(number json.Number) *big.Rat {
	r, ok := new(big.Rat).SetString(number.String())
	if !ok {
		return new(big.Rat)
	}
	return r
}
