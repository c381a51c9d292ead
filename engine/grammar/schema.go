package grammar

import (
	"encoding/json"
	"maps"
	"math/big"
	"slices"
)

const (
	// maxReferences bounds how far the library recurses along $ref.
	maxReferences = 500
	// maxIntersected bounds how many regular expressions may apply to one
	// string: the library multiplies them out, two choices each.
	maxIntersected = 12
	// maxRemainders bounds the states of multipleOf: one for each remainder.
	maxRemainders = 100_000
)

// schemaCheck collects what costs the library more than time in proportion to
// the schema's size.
type schemaCheck struct {
	references map[string]bool
	strings    map[string]bool // pattern, format: each distinct one may be joined with the others
	joins      int             // places where two schemas apply to the same value
	multiples  []*big.Rat
}

// checkSchema refuses schemas that would cost too much, and contradictions
// that the library would report without naming the keyword.
func checkSchema(schema map[string]any) error {
	c := schemaCheck{references: map[string]bool{}, strings: map[string]bool{}}
	if err := c.object(schema); err != nil {
		return err
	}
	if n := len(c.references); n > maxReferences {
		return errorf("$ref: %d different references, the limit is %d", n, maxReferences)
	}
	if n := min(len(c.strings), c.joins+1); n > maxIntersected {
		return errorf("allOf: %d patterns and formats might apply to one string, the limit is %d", n, maxIntersected)
	}
	return c.checkMultiples()
}

func (c *schemaCheck) schema(v any) error {
	if object, ok := v.(map[string]any); ok {
		return c.object(object)
	}
	return nil // true and false, or a mistake that the library names
}

func (c *schemaCheck) object(schema map[string]any) error {
	// In place applicators meet the keywords beside them, and one another.
	meets := -1
	for _, keyword := range []string{"$ref", "allOf", "anyOf", "oneOf", "patternProperties"} {
		if _, ok := schema[keyword]; ok {
			meets++
		}
	}
	if _, ok := schema["pattern"]; ok {
		meets++
	}
	if _, ok := schema["format"]; ok {
		meets++
	}
	c.joins += max(meets, 0)

	// In a fixed order, so that the same schema always has the same error.
	for _, keyword := range slices.Sorted(maps.Keys(schema)) {
		if err := c.keyword(keyword, schema[keyword]); err != nil {
			return err
		}
	}
	return nil
}

func (c *schemaCheck) keyword(keyword string, value any) error {
	switch keyword {
	case "$ref":
		if s, ok := value.(string); ok {
			c.references[s] = true
		}
	case "pattern", "format":
		if s, ok := value.(string); ok {
			c.strings[keyword+s] = true
			return checkPattern(keyword, s)
		}
	case "multipleOf":
		return c.multiple(value)
	case "enum", "allOf", "anyOf", "oneOf", "type":
		list, ok := value.([]any)
		if !ok {
			return nil
		}
		if len(list) == 0 {
			return errorf("%s is empty: no value is valid", keyword)
		}
		if keyword == "enum" || keyword == "type" {
			return nil
		}
		c.joins += len(list) - 1
		return c.all(list)
	case "prefixItems":
		if list, ok := value.([]any); ok {
			return c.all(list)
		}
	case "items": // a list in drafts before 2020-12
		if list, ok := value.([]any); ok {
			return c.all(list)
		}
		return c.schema(value)
	case "additionalItems", "additionalProperties":
		return c.schema(value)
	case "properties", "$defs", "definitions", "patternProperties":
		schemas, _ := value.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(schemas)) {
			if keyword == "patternProperties" {
				c.strings[name] = true
				if err := checkPattern(keyword, name); err != nil {
					return err
				}
			}
			if err := c.schema(schemas[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *schemaCheck) all(schemas []any) error {
	for _, s := range schemas {
		if err := c.schema(s); err != nil {
			return err
		}
	}
	return nil
}

func checkPattern(keyword, pattern string) error {
	if len(pattern) > maxPatternBytes {
		return errorf("%s of %d bytes, the limit is %d", keyword, len(pattern), maxPatternBytes)
	}
	return checkNesting(pattern, keyword)
}

func (c *schemaCheck) multiple(value any) error {
	number, ok := value.(json.Number)
	if !ok {
		return nil
	}
	const digits = 30 // beyond any use; 1e999999999 would fill the memory
	f, err := number.Float64()
	if err != nil || len(number) > digits || f < 1e-9 || f > 1e9 {
		return errorf("multipleOf: %.40s is not supported", number)
	}
	r, ok := new(big.Rat).SetString(number.String())
	if !ok {
		return errorf("multipleOf: %.40s is not supported", number)
	}
	c.multiples = append(c.multiples, r)
	return nil
}

// checkMultiples bounds the least common multiple of all multipleOf, or of
// each by itself where they cannot meet, in units of the last decimal.
func (c *schemaCheck) checkMultiples() error {
	if c.joins > 0 {
		return checkRemainders(c.multiples)
	}
	for i := range c.multiples {
		if err := checkRemainders(c.multiples[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

func checkRemainders(multiples []*big.Rat) error {
	scale := big.NewInt(1)
	for _, r := range multiples {
		for new(big.Int).Rem(scale, r.Denom()).Sign() != 0 {
			if scale.BitLen() > 64 {
				return errorf("multipleOf: %s has too many decimals", r.FloatString(9))
			}
			scale.Mul(scale, big.NewInt(10))
		}
	}
	states := big.NewInt(1)
	for _, r := range multiples {
		n := new(big.Int).Mul(r.Num(), new(big.Int).Quo(scale, r.Denom()))
		states.Mul(states, new(big.Int).Quo(n, new(big.Int).GCD(nil, nil, states, n)))
		if states.Cmp(big.NewInt(maxRemainders)) > 0 {
			return errorf("multipleOf: the common multiple %s exceeds %d", states, maxRemainders)
		}
	}
	return nil
}
