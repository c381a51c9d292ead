package grammar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// refuses compiles a spec that must be an *Error within a generous time.
func refuses(t *testing.T, c *Compiler, spec Spec) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := c.Compile(ctx, spec)
	if err == nil {
		m.Close()
		t.Fatalf("compiles %.80s", spec.Text)
	}
	var fault *Error
	if !errors.As(err, &fault) {
		t.Fatalf("%.80s: %v is not an *Error", spec.Text, err)
	}
	return fault.Error()
}

func TestFaultsAreNamed(t *testing.T) {
	c := compilerOfBytes(t)
	for _, tt := range []struct {
		kind       Kind
		text, want string
	}{
		{JSONSchema, `{"not":{"type":"string"}}`, "#/not: the keyword"},
		{JSONSchema, `{"not":{}}`, "#/not: no value is valid"},
		{JSONSchema, `{"if":{},"then":{}}`, "#/if: the keyword"},
		{JSONSchema, `{"type":"array","contains":{"type":"integer"}}`, "#/contains"},
		{JSONSchema, `{"type":"object","dependentRequired":{"a":["b"]}}`, "#/dependentRequired"},
		{JSONSchema, `{"properties":{"a":{"type":"array","items":{"not":{"const":1}}}}}`, "#/properties/a/items/not: "},
		{JSONSchema, `{"properties":{"a/b~":{"dependentSchemas":{"c":{}}}}}`, "#/properties/a~1b~0/dependentSchemas: "},
		{JSONSchema, `{"properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"type":"string","pattern":"a(?=b)"}}}`, "#/$defs/x/pattern: look-around"},
		{JSONSchema, `{"properties":{"a":{"pattern":"^[a-z]+$"},"b":{"pattern":"(x"}}}`, "#/properties/b/pattern: unclosed group"},
		{JSONSchema, `{"type":"object","propertyNames":{"format":"date"}}`, "#/propertyNames/format: "},
		{JSONSchema, `{"type":"object","propertyNames":{"anyOf":[{"pattern":"a"},{"pattern":"b"}]}}`, "#/propertyNames/anyOf: "},
		{JSONSchema, `{"allOf":[{"properties":{"a":true},"unevaluatedProperties":false},{"properties":{"b":true}}]}`, "#/allOf/0/unevaluatedProperties: "},
		{JSONSchema, `{"$dynamicRef":"#x"}`, "#/$dynamicRef: "},
		{JSONSchema, `{"type":"strin"}`, `#/type: "strin" is not a type`},
		{JSONSchema, `{"type":[]}`, "#/type: is empty"},
		{JSONSchema, `{"enum":[]}`, "#/enum: is empty"},
		{JSONSchema, `{"properties":{"a":{"anyOf":[]}}}`, "#/properties/a/anyOf: is empty"},
		{JSONSchema, `false`, "#: no value is valid"},
		{JSONSchema, `[]`, "object or a boolean"},
		{JSONSchema, ``, "not JSON"},
		{JSONSchema, `{"type":`, "not JSON"},
		{JSONSchema, `{} {}`, "text after the schema"},
		{JSONSchema, "{\"a\":\"\xff\"}", "UTF-8"},
		{JSONSchema, `{"$ref":"https://example.com/s"}`, "#/$ref: \"https://example.com/s\" is not in the schema"},
		{JSONSchema, `{"$ref":"#/$defs/none"}`, "#/$ref: \"#/$defs/none\" is not found"},
		{JSONSchema, `{"$ref":"#none"}`, "#/$ref: \"#none\" is not found"},
		{JSONSchema, `{"$ref":"#/description","description":"a"}`, "#/description: a schema is an object or a boolean"},
		{JSONSchema, `{"$ref":"#"}`, "#: the schema refers to itself"},
		{JSONSchema, `{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`, "#/$defs/a: the schema refers to itself"},
		{JSONSchema, `{"properties":{"a":{"$ref":"#"}},"required":["a"]}`, "#: no value is valid: each would contain another"},
		{JSONSchema, `{"type":"object","additionalProperties":{"$ref":"#"},"minProperties":1}`, "#: no value is valid: each would contain another"},
		{JSONSchema, `{"type":"array","items":{"$ref":"#"},"minItems":1}`, "#: no value is valid: each would contain another"},
		{JSONSchema, `{"type":"integer","minimum":5,"maximum":3}`, "minimum (5) is greater than maximum (3)"},
		{JSONSchema, `{"type":"integer","minimum":1.5,"maximum":1.7}`, "no integer"},
		{JSONSchema, `{"type":"string","minLength":5,"maxLength":3}`, "minLength"},
		{JSONSchema, `{"type":"array","minItems":5,"maxItems":3}`, "minItems"},
		{JSONSchema, `{"type":"array","items":{"enum":[1,2]},"minItems":3,"uniqueItems":true}`, "#/uniqueItems: minItems is 3"},
		{JSONSchema, `{"type":"object","minProperties":5,"maxProperties":3}`, "minProperties"},
		{JSONSchema, `{"type":"object","properties":{"a":{}},"minProperties":2}`, "#/minProperties: there are no more than 1"},
		{JSONSchema, `{"type":"object","properties":{"a":{},"b":{},"c":{}},"minProperties":2}`, "#/minProperties: only supported where"},
		{JSONSchema, `{"type":"object","properties":{"a":false},"required":["a"]}`, "#/properties/a: "},
		{JSONSchema, `{"allOf":[{"type":"string"},{"type":"integer"}]}`, "#/allOf/1/type: no value has this type"},
		{JSONSchema, `{"type":"string","pattern":"a(?=b)"}`, "#/pattern: look-around"},
		{JSONSchema, `{"type":"string","pattern":"(a"}`, "#/pattern: unclosed group"},
		{JSONSchema, `{"type":"string","pattern":"^a$","minLength":3}`, "#/pattern: no text matches"},
		{JSONSchema, `{"patternProperties":{"^a":{},"a$":{}}}`, "patternProperties: /^a/ and /a$/ may match the same name"},
		{JSONSchema, `{"type":"integer","multipleOf":0}`, "#/multipleOf"},
		{JSONSchema, `{"type":"number","maximum":1e19}`, "#/maximum: 1e19 is not supported"},
		{JSONSchema, `{"type":"number","minimum":"a"}`, "#/minimum"},
		{JSONSchema, `{"type":"string","minLength":-1}`, "#/minLength: -1 is not a count"},
		{JSONSchema, `{"properties":[]}`, "#/properties: not an object"},
		{JSONSchema, `{"properties":{"a":1}}`, "#/properties/a: a schema is an object"},
		{JSONSchema, `{"required":"a"}`, "#/required: not a list"},
		{Regex, `a(?=b)`, "regex: look-around"},
		{Regex, `(?<=b)a`, "regex: look-around"},
		{Regex, `\bfoo\b`, "regex: lookarounds"},
		{Regex, `(a)\1`, "regex: backreferences"},
		{Regex, `(foo`, "regex: unclosed group"},
		{Regex, `[^\x00-\x{10FFFF}]`, "no text satisfies it"},
		{Regex, `(?s-u:.)`, "invalid UTF-8"},
		{Regex, "a\x00b", "NUL"},
		{Lark, `start: foo`, "lark: at 1(8): unknown name"},
		{Lark, `start: start`, "no text satisfies it"},
		{"yacc", `x`, `unknown kind of grammar "yacc"`},
	} {
		t.Run(fmt.Sprintf("%s %.40s", tt.kind, tt.text), func(t *testing.T) {
			got := refuses(t, c, Spec{Kind: tt.kind, Text: tt.text})
			if !strings.Contains(got, tt.want) || strings.Contains(got, "\n") || len(got) > 400 {
				t.Errorf("error %q, want one short line with %q", got, tt.want)
			}
		})
	}
}

// joined writes n elements, each made from its number.
func joined(n int, element func(i int) string) string {
	var parts []string
	for i := range n {
		parts = append(parts, element(i))
	}
	return strings.Join(parts, ",")
}

// Each of these would take the library minutes, gigabytes or the whole stack.
func TestHostileGrammarsAreRefused(t *testing.T) {
	c := compilerOfBytes(t)
	nested := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	for _, tt := range []struct {
		name string
		spec Spec
	}{
		{"a megabyte", Spec{Kind: JSONSchema, Text: `{"description":"` + strings.Repeat("x", 1<<20) + `"}`}},
		{"a megabyte of regex", Spec{Kind: Regex, Text: strings.Repeat("x", 1<<20)}},
		{"deep schema", Spec{Kind: JSONSchema, Text: nested(`{"items":`, "true", "}", 20_000)}},
		{"deep value", Spec{Kind: JSONSchema, Text: `{"const":` + nested("[", "", "]", 20_000) + `}`}},
		{"unclosed brackets", Spec{Kind: JSONSchema, Text: strings.Repeat("[", 200_000)}},
		{"deep regex", Spec{Kind: Regex, Text: nested("(", "a", ")*", 2_000)}},
		{"deep pattern", Spec{Kind: JSONSchema, Text: `{"pattern":"` + nested("(", "a", ")*", 2_000) + `"}`}},
		{"deep lark", Spec{Kind: Lark, Text: "start: " + nested("(", `"a"`, ")", 5_000)}},
		{"chain of references", Spec{Kind: JSONSchema, Text: `{"$ref":"#/$defs/d0","$defs":{` +
			joined(3_000, func(i int) string { return fmt.Sprintf(`"d%d":{"$ref":"#/$defs/d%d"}`, i, i+1) }) + `,"d3000":{"type":"integer"}}}`}},
		{"intersection of patterns", Spec{Kind: JSONSchema, Text: `{"allOf":[` +
			joined(60, func(i int) string { return fmt.Sprintf(`{"type":"string","pattern":"(a|b)*a(a|b){%d}"}`, i) }) + `]}`}},
		{"intersection through references", Spec{Kind: JSONSchema, Text: `{"$ref":"#/$defs/d0","$defs":{` +
			joined(60, func(i int) string {
				return fmt.Sprintf(`"d%d":{"pattern":"(a|b)*a(a|b){%d}","$ref":"#/$defs/d%d"}`, i, i, i+1)
			}) + `,"d60":{"type":"string"}}}`}},
		{"product of choices", Spec{Kind: JSONSchema, Text: `{"allOf":[` +
			joined(40, func(int) string { return `{"anyOf":[{"type":"string"},{"minimum":1},{"properties":{"a":{}}}]}` }) + `]}`}},
		{"common multiples", Spec{Kind: JSONSchema, Text: `{"allOf":[{"multipleOf":65537},{"multipleOf":65539},{"multipleOf":65543}]}`}},
		{"huge multiple", Spec{Kind: JSONSchema, Text: `{"multipleOf":4294967291,"minimum":1}`}},
		{"huge exponent", Spec{Kind: JSONSchema, Text: `{"multipleOf":1e999999999}`}},
		{"patterns where no keyword leads", Spec{Kind: JSONSchema, Text: `{"$ref":"#/description/0","description":[{"allOf":[` +
			joined(60, func(i int) string { return fmt.Sprintf(`{"type":"string","pattern":"(a|b)*a(a|b){%d}"}`, i) }) + `]}]}`}},
		{"patterns behind an unknown keyword", Spec{Kind: JSONSchema, Text: `{"properties":{"a":{"$ref":"#/x-foo/bar"}},"x-foo":{"bar":{"allOf":[` +
			joined(60, func(i int) string { return fmt.Sprintf(`{"type":"string","pattern":"(a|b)*a(a|b){%d}"}`, i) }) + `]}}}`}},
		{"patterns in a value", Spec{Kind: JSONSchema, Text: `{"$ref":"#/$defs/a/enum/0","$defs":{"a":{"enum":[{"allOf":[` +
			joined(60, func(i int) string { return fmt.Sprintf(`{"type":"string","pattern":"(a|b)*a(a|b){%d}"}`, i) }) + `]}]}}}`}},
		{"patterns behind anchors", Spec{Kind: JSONSchema, Text: `{"$id":"https://x.test/","allOf":[` +
			joined(30, func(i int) string { return fmt.Sprintf(`{"$ref":"#a%d"}`, i) }) + `],"$defs":{` +
			joined(30, func(i int) string {
				return fmt.Sprintf(`"%d":{"$anchor":"a%d","type":"string","pattern":"(a|b)*a(a|b){%d}"}`, i, i, i)
			}) + `}}`}},
		{"a multiple where no keyword leads", Spec{Kind: JSONSchema, Text: `{"$ref":"#/description/0","description":[{"multipleOf":4294967291,"minimum":1}]}`}},
		{"multiples by way of references", Spec{Kind: JSONSchema, Text: `{"$ref":"#/x/0","multipleOf":65537,"x":[{"$ref":"#/x/1","multipleOf":65539},{"multipleOf":65543}]}`}},
		{"lark conjunctions", Spec{Kind: Lark, Text: `start: A` + "\nA: " + strings.Repeat(`/(a|b)*a(a|b){9}/ & `, 60) + "/a/"}},
	} {
		t.Run(tt.name, func(t *testing.T) { t.Log(refuses(t, c, tt.spec)) })
	}
}

// These are strange but cheap enough: they may compile or not, and their
// masks may fail, but everything returns and others are not harmed.
func TestExpensiveGrammarsReturn(t *testing.T) {
	c := compilerOfBytes(t)
	mask := make([]uint32, c.MaskWords())
	for _, spec := range []Spec{
		{Kind: Regex, Text: `(a{1,1000}){1,1000}`},
		{Kind: Regex, Text: `((a{1,100}){1,100}){1,100}`},
		{Kind: Regex, Text: `(a|aa)*b(a|b){200}`},
		{Kind: Regex, Text: `(.*a){50}(.*b){50}`},
		{Kind: Regex, Text: strings.Repeat(`a?`, 2000) + strings.Repeat(`a`, 2000)},
		{Kind: Regex, Text: strings.Repeat(`\p{L}{0,100}`, 300)},
		{Kind: Regex, Text: `(a|b)*a(a|b){5000}c`},
		{Kind: JSONSchema, Text: `{"type":"string","pattern":"(a|b)*a(a|b){200}","format":"email","minLength":100}`},
		{Kind: JSONSchema, Text: `{"type":"string","minLength":1000000000}`},
		{Kind: JSONSchema, Text: `{"type":"array","minItems":1000000}`},
		{Kind: JSONSchema, Text: `{"enum":[` + joined(20_000, func(i int) string { return fmt.Sprint(i) }) + `]}`},
		{Kind: JSONSchema, Text: `{"$ref":"#/$defs/d0","$defs":{` + joined(480, func(i int) string {
			return fmt.Sprintf(`"d%d":%s{"$ref":"#/$defs/d%d"}%s`, i, strings.Repeat(`{"items":`, 50), i+1, strings.Repeat(`}`, 50))
		}) + `,"d480":true}}`},
	} {
		t.Run(fmt.Sprintf("%.40s", spec.Text), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			m, err := c.Compile(ctx, spec)
			if err != nil {
				t.Log(err)
				return
			}
			defer m.Close()
			for range 50 {
				if err := m.Mask(mask); err != nil {
					t.Log(err)
					return
				}
				next := int32(-1)
				for _, id := range []int32{'a', 'b', '"', '[', '1', ','} {
					if isSet(mask, id) {
						next = id
						break
					}
				}
				if next < 0 || m.Accept(next) != nil {
					return
				}
			}
		})
	}
	if m := mustCompile(t, c, Spec{Kind: JSONSchema, Text: `{"type":"integer"}`}); !admits(t, m, "12") {
		t.Error("an innocent grammar is harmed")
	}
}

func TestBoundsAreNotTooTight(t *testing.T) {
	c := compilerOfBytes(t)
	for name, schema := range map[string]string{
		"many definitions": `{"$ref":"#/$defs/d0","$defs":{` + joined(300, func(i int) string {
			return fmt.Sprintf(`"d%d":{"type":"object","properties":{"v":{"type":"string","pattern":"^x%d"},"n":{"$ref":"#/$defs/d%d"}}}`, i, i, i+1)
		}) + `,"d300":{"type":"object"}}}`,
		"many properties": `{"type":"object","properties":{` + joined(500, func(i int) string {
			return fmt.Sprintf(`"p%d":{"type":"string","maxLength":%d}`, i, i+1)
		}) + `},"additionalProperties":false}`,
		"several multiples": `{"properties":{"a":{"multipleOf":0.01},"b":{"multipleOf":86400},"c":{"multipleOf":0.5}}}`,
		"nesting":           strings.Repeat(`{"properties":{"a":`, 30) + `{"type":"integer"}` + strings.Repeat(`}}`, 30),
	} {
		t.Run(name, func(t *testing.T) {
			if m := mustCompile(t, c, Spec{Kind: JSONSchema, Text: schema}); !admits(t, m, "{}") {
				t.Error("refuses {}")
			}
		})
	}
}
