package grammar

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
)

// meanings are schemas as clients send them, with texts that they mean and
// texts that they do not: what TGI's grammars write, not all that JSON Schema
// would take. What is open is only admitted with SchemaOptions.Open.
var meanings = []struct {
	name, schema    string
	good, bad, open []string
}{
	{"TGI's guide", `{"properties":{"location":{"type":"string"},"activity":{"type":"string"},"animals_seen":{"type":"integer","minimum":1,"maximum":5},"animals":{"type":"array","items":{"type":"string"}}},"required":["location","activity","animals_seen","animals"]}`,
		[]string{`{"location":"a","activity":"b","animals_seen":1,"animals":[]}`},
		[]string{`{"location":"a"}`, `{"location":"a","activity":"b","animals_seen":6,"animals":[]}`},
		[]string{`", "`, `1.5`, `{"location":"a","activity":"b","animals_seen":1,"animals":[],"more":1}`}},
	{"properties are those of an object, inside too", `{"properties":{"a":{"properties":{"b":{"type":"null"}}}}}`,
		[]string{`{}`, `{"a":{}}`, `{"a":{"b":null}}`}, []string{`{"a":{"b":1}}`}, []string{`{"a":1}`, `{"a":{"c":1}}`, `[]`}},
	{"required alone", `{"required":["a"]}`, []string{`{"a":1}`, `{"a":1,"b":2}`}, []string{`{}`}, []string{`1`, `[]`}},
	{"additionalProperties alone", `{"additionalProperties":{"type":"integer"}}`, []string{`{"x":1}`}, []string{`{"x":"a"}`}, []string{`"x"`}},
	{"a type alone is open", `{"type":"object"}`, []string{`{}`, `{"x":[1]}`}, []string{`1`}, nil},
	{"no properties", `{"type":"object","properties":{}}`, []string{`{}`}, []string{`1`}, []string{`{"x":1}`}},
	{"explicitly open", `{"type":"object","properties":{"a":{"type":"null"}},"additionalProperties":true}`, []string{`{"a":null,"x":1}`, `{"x":1}`}, []string{`{"a":1}`}, nil},
	{"open with a schema", `{"type":"object","properties":{"a":{"type":"null"}},"additionalProperties":{"type":"integer"}}`, []string{`{"a":null,"x":1}`}, []string{`{"a":null,"x":"1"}`}, nil},
	{"a type or null", `{"type":["object","null"],"properties":{"a":{"type":"null"}}}`, []string{`null`, `{"a":null}`}, []string{`1`}, []string{`{"b":1}`}},
	{"required, not listed", `{"type":"object","properties":{"a":{"type":"null"}},"required":["a","b"]}`, []string{`{"a":null,"b":[1]}`}, []string{`{"a":null}`}, []string{`{"a":null,"b":1,"c":1}`}},
	{"patterns are closed too", `{"type":"object","patternProperties":{"^n_":{"type":"integer"}}}`, []string{`{"n_a":1}`}, []string{`{"n_a":"x"}`}, []string{`{"q":1}`}},

	{"allOf of two objects", `{"allOf":[{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]},{"properties":{"b":{"type":"null"}},"required":["b"]}]}`,
		[]string{`{"a":null,"b":null}`}, []string{`{"a":null}`, `{"b":null}`}, []string{`{"a":null,"b":null,"c":1}`}},
	{"allOf through references", `{"allOf":[{"$ref":"#/$defs/x"},{"$ref":"#/$defs/y"}],"$defs":{"x":{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]},"y":{"type":"object","properties":{"b":{"type":"null"}}}}}`,
		[]string{`{"a":null}`, `{"a":null,"b":null}`}, []string{`{"b":null}`}, []string{`{"a":null,"c":1}`}},
	{"a reference beside properties", `{"$ref":"#/$defs/x","properties":{"b":{"type":"null"}},"required":["b"],"$defs":{"x":{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]}}}`,
		[]string{`{"a":null,"b":null}`}, []string{`{"a":null}`, `{"b":null}`}, []string{`{"a":null,"b":null,"c":1}`}},
	{"a reference beside annotations", `{"properties":{"x":{"$ref":"#/$defs/x","description":"the x","default":{}}},"$defs":{"x":{"properties":{"a":{"type":"null"}}}}}`,
		[]string{`{"x":{"a":null}}`, `{}`}, []string{`{"x":{"a":1}}`}, []string{`{"x":{"b":1}}`, `{"x":1}`}},
	{"pydantic 1: allOf of one", `{"type":"object","properties":{"x":{"title":"X","allOf":[{"$ref":"#/definitions/x"}]}},"required":["x"],"definitions":{"x":{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]}}}`,
		[]string{`{"x":{"a":null}}`}, []string{`{"x":{}}`, `{}`}, []string{`{"x":{"a":null,"b":1}}`}},
	{"the same property in two parts", `{"allOf":[{"properties":{"p":{"properties":{"a":{"type":"null"}},"required":["a"]}}},{"properties":{"p":{"properties":{"b":{"type":"null"}},"required":["b"]}}}],"required":["p"]}`,
		[]string{`{"p":{"a":null,"b":null}}`}, []string{`{"p":{"a":null}}`, `{}`}, []string{`{"p":{"a":null,"b":null,"c":1}}`}},
	{"anyOf beside properties", `{"type":"object","properties":{"a":{"type":"null"}},"required":["a"],"anyOf":[{"properties":{"b":{"type":"null"}},"required":["b"]},{"properties":{"c":{"type":"null"}},"required":["c"]}]}`,
		[]string{`{"a":null,"b":null}`, `{"a":null,"c":null}`}, []string{`{"a":null}`}, []string{`{"a":null,"b":null,"c":null}`, `{"a":null,"b":null,"x":1}`}},
	{"anyOf of what is required", `{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"anyOf":[{"required":["a"]},{"required":["b"]}]}`,
		[]string{`{"a":null}`, `{"b":null}`, `{"a":null,"b":null}`}, []string{`{}`}, []string{`{"a":null,"c":1}`}},
	{"anyOf with an open branch", `{"anyOf":[{"type":"object","properties":{"a":{"type":"null"}},"required":["a"]},{"type":"object","additionalProperties":{"type":"integer"}}]}`,
		[]string{`{"a":null}`, `{"x":1,"y":2}`}, []string{`{"x":"a"}`}, []string{`{"a":null,"x":"y"}`}},
	{"a union of models", `{"anyOf":[{"$ref":"#/$defs/cat"},{"$ref":"#/$defs/dog"}],"$defs":{"cat":{"type":"object","properties":{"lives":{"type":"integer"}},"required":["lives"]},"dog":{"type":"object","properties":{"barks":{"type":"boolean"}},"required":["barks"]}}}`,
		[]string{`{"lives":9}`, `{"barks":true}`}, []string{`{}`}, []string{`{"lives":9,"barks":1}`}},
	{"a discriminated union", `{"type":"object","discriminator":{"propertyName":"kind"},"oneOf":[{"$ref":"#/$defs/cat"},{"$ref":"#/$defs/dog"}],"$defs":{"cat":{"type":"object","properties":{"kind":{"const":"cat"},"lives":{"type":"integer"}},"required":["kind","lives"]},"dog":{"type":"object","properties":{"kind":{"const":"dog"}},"required":["kind"]}}}`,
		[]string{`{"kind":"cat","lives":9}`, `{"kind":"dog"}`}, []string{`{"kind":"cat"}`, `{"kind":"cow"}`}, []string{`{"kind":"dog","lives":9}`}},
	{"choices that multiply", `{"type":"object","allOf":[{"anyOf":[{"properties":{"a":{"type":"null"}},"required":["a"]},{"properties":{"b":{"type":"null"}},"required":["b"]}]},{"anyOf":[{"properties":{"c":{"type":"null"}},"required":["c"]},{"properties":{"d":{"type":"null"}},"required":["d"]}]}]}`,
		[]string{`{"a":null,"c":null}`, `{"b":null,"d":null}`}, []string{`{"a":null}`, `{"c":null}`}, []string{`{"a":null,"c":null,"d":null}`}},
	{"a recursive model", `{"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v"]}}}`,
		[]string{`{"v":1}`, `{"v":1,"next":{"v":2,"next":null}}`}, []string{`{"next":null}`}, []string{`{"v":1,"x":1}`, `{"v":1,"next":{"v":2,"x":3}}`}},
	{"a recursive model with more beside the reference", `{"$ref":"#/$defs/n","required":["next"],"$defs":{"n":{"type":"object","properties":{"next":{"$ref":"#/$defs/n"}}}}}`,
		[]string{`{"next":{}}`, `{"next":{"next":{}}}`}, []string{`{}`}, []string{`{"next":{},"x":1}`}},
	{"two recursive models at once", `{"allOf":[{"$ref":"#/$defs/t"},{"$ref":"#/$defs/u"}],"$defs":{"t":{"type":"object","properties":{"c":{"$ref":"#/$defs/t"},"a":{"type":"null"}}},"u":{"type":"object","properties":{"c":{"$ref":"#/$defs/u"}},"required":[]}}}`,
		[]string{`{}`, `{"c":{"c":{},"a":null},"a":null}`}, []string{`{"c":1}`}, []string{`{"x":1}`, `{"c":{"x":1}}`}},
	{"unevaluatedProperties", `{"allOf":[{"properties":{"a":{"type":"null"}}}],"properties":{"b":{"type":"null"}},"unevaluatedProperties":false}`,
		[]string{`{"a":null,"b":null}`}, []string{`{"c":1}`, `{"a":1}`}, nil},

	{"annotations", `{"$comment":"c","title":"t","description":"d","type":"object","deprecated":true,"properties":{"p":{"type":"string","format":"password","writeOnly":true,"contentEncoding":"base64","contentMediaType":"image/png","examples":["x"],"x-y":{"type":"null"}}},"required":["p"]}`,
		[]string{`{"p":"x y"}`}, []string{`{"p":1}`}, []string{`{"p":"x","q":1}`}},
	{"pydantic: Path, SecretStr, bytes", `{"type":"object","properties":{"a":{"format":"path","type":"string"},"b":{"format":"password","type":"string","writeOnly":true},"c":{"format":"binary","type":"string"}},"required":["a","b","c"]}`,
		[]string{`{"a":"/tmp","b":"s","c":"x"}`}, []string{`{"a":1,"b":"s","c":"x"}`}, nil},
	{"pydantic: set", `{"type":"object","properties":{"tags":{"items":{"type":"string"},"type":"array","uniqueItems":true}},"required":["tags"]}`,
		[]string{`{"tags":["a","b"]}`, `{"tags":[]}`}, []string{`{"tags":[1]}`}, nil},
	{"a set of few values", `{"type":"array","items":{"enum":["a","b"]},"uniqueItems":true}`, []string{`[]`, `["a"]`, `["b","a"]`, `["a","b"]`}, []string{`["a","a"]`, `["a","b","a"]`}, nil},
	{"a set of booleans, not empty", `{"type":"array","items":{"type":"boolean"},"uniqueItems":true,"minItems":1}`, []string{`[true]`, `[false, true]`}, []string{`[]`, `[true,true]`}, nil},
	{"a set of more values", `{"type":"array","items":{"enum":[1,2,3,4,5,6]},"uniqueItems":true}`, []string{`[6,1]`, `[1,2,3,4,5,6]`}, []string{`[1,2,3,4,5,6,1]`}, nil},
	{"zod: record", `{"type":"object","propertyNames":{"type":"string"},"additionalProperties":{"type":"number"}}`, []string{`{}`, `{"a b":1}`}, []string{`{"a":"x"}`}, nil},
	{"zod: record of an enum", `{"type":"object","propertyNames":{"type":"string","enum":["a","b"]},"additionalProperties":{"type":"number"},"required":["a","b"]}`, []string{`{"a":1,"b":2}`}, []string{`{"a":1}`, `{"a":1,"b":2,"c":3}`}, nil},
	{"pydantic: keys of an enum", `{"type":"object","propertyNames":{"$ref":"#/$defs/c"},"additionalProperties":{"type":"integer"},"$defs":{"c":{"enum":["red","blue"],"type":"string"}}}`, []string{`{}`, `{"red":1}`, `{"red":1,"blue":2}`}, []string{`{"green":1}`, `{"red":"x"}`}, nil},
	{"names of a pattern", `{"type":"object","propertyNames":{"pattern":"^[a-z]+$"},"additionalProperties":{"type":"integer"}}`, []string{`{"ab":1}`}, []string{`{"AB":1}`, `{"ab":"x"}`}, nil},
	{"names of a length", `{"type":"object","propertyNames":{"minLength":2,"maxLength":3}}`, []string{`{"ab":1,"abc":null}`}, []string{`{"a":1}`, `{"abcd":1}`}, nil},
	{"listed names that may not be", `{"type":"object","properties":{"ab":{},"x":{}},"propertyNames":{"minLength":2}}`, []string{`{"ab":1}`}, []string{`{"x":1}`}, []string{`{"cd":1}`}},
	{"zod: never", `{"type":"object","properties":{"a":{"not":{}},"b":{"type":"null"}}}`, []string{`{"b":null}`}, []string{`{"a":1}`}, nil},
	{"zod: tuple", `{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}]}`, []string{`[1,"a"]`}, []string{`["a",1]`}, []string{`[1]`, `[1,"a",2]`}},
	{"a tuple without a type", `{"prefixItems":[{"type":"integer"}]}`, []string{`[1]`}, []string{`["a"]`}, []string{`{}`, `[]`}},
	{"a tuple that says its length", `{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"minItems":1}`, []string{`[1]`, `[1,"a"]`, `[1,"a",2]`}, []string{`[]`}, nil},
	{"draft 7: tuple", `{"$schema":"http://json-schema.org/draft-07/schema#","type":"array","items":[{"type":"integer"}],"additionalItems":{"type":"null"}}`, []string{`[1]`, `[1,null]`}, []string{`["a"]`, `[1,2]`}, nil},
	{"draft 4: exclusive bounds", `{"$schema":"http://json-schema.org/draft-04/schema#","type":"integer","minimum":3,"exclusiveMinimum":true}`, []string{`4`}, []string{`3`}, nil},
	{"at most one of several", `{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"maxProperties":1,"additionalProperties":false}`, []string{`{}`, `{"a":null}`, `{"b":null}`}, []string{`{"a":null,"b":null}`}, nil},
	{"names that need escapes", `{"properties":{"a\"b":{"type":"null"},"c/d~":{"$ref":"#/properties/e"},"e":{"type":"boolean"}},"required":["c/d~"]}`, []string{`{"c/d~":true}`, `{"a\"b":null,"c/d~":false}`}, []string{`{"c/d~":1}`}, nil},
	{"anchors and ids", `{"$id":"https://x.test/root","properties":{"a":{"$ref":"#it"},"b":{"$ref":"other"},"c":{"$ref":"https://x.test/other#/properties/d"}},"$defs":{"i":{"$anchor":"it","type":"null"},"o":{"$id":"other","type":"object","properties":{"d":{"type":"boolean"}}}}}`,
		[]string{`{"a":null,"b":{"d":true},"c":false}`}, []string{`{"a":1}`, `{"b":{"d":1}}`, `{"c":1}`}, nil},
}

func TestMeanings(t *testing.T) {
	c := compilerOfBytes(t)
	for _, tt := range meanings {
		t.Run(tt.name, func(t *testing.T) {
			closed := mustCompile(t, c, Spec{Kind: JSONSchema, Text: tt.schema})
			open := mustCompile(t, c, Spec{Kind: JSONSchema, Text: tt.schema, Open: true})
			judge := validator(t, tt.schema)
			for _, text := range tt.good {
				if !admits(t, closed, text) || !admits(t, open, text) {
					t.Errorf("admits %s: %v, open %v", text, admits(t, closed, text), admits(t, open, text))
				}
				if !valid(judge, text) {
					t.Errorf("the validator refuses %s", text)
				}
			}
			for _, text := range tt.bad {
				if admits(t, closed, text) || admits(t, open, text) {
					t.Errorf("admits %s: %v, open %v", text, admits(t, closed, text), admits(t, open, text))
				}
			}
			for _, text := range tt.open {
				if admits(t, closed, text) {
					t.Errorf("admits %s", text)
				}
			}
		})
	}
}

// The normal form is one: what is made of it is the same.
func TestNormalFormIsNormal(t *testing.T) {
	var schemas []string
	for _, tt := range meanings {
		schemas = append(schemas, tt.schema)
	}
	schemas = append(schemas,
		`{"oneOf":[{"$ref":"#/$defs/cat"}],"$defs":{"cat":{"required":[]}}}`,
		// The root is a definition that stands elsewhere too, after others.
		`{"anyOf":[{"$ref":"#/$defs/t"},false],"$defs":{"t":{"properties":{"a":{"$ref":"#/$defs/a"},"t":{"$ref":"#/$defs/t"},"b":{"$ref":"#/$defs/b"}}},"a":{"type":"null"},"b":{"type":"boolean"}}}`,
		`{"anyOf":[{"properties":{"x":{"$ref":"#/$defs/b"},"y":false},"required":["y"]},{"$ref":"#/$defs/t"}],"properties":{"z":{"$ref":"#/$defs/a"}},"$defs":{"t":{"properties":{"a":{"$ref":"#/$defs/a"},"t":{"$ref":"#/$defs/t"},"b":{"$ref":"#/$defs/b"}}},"a":{"type":"null"},"b":{"type":"boolean"}}}`)
	for _, schema := range append(schemas, walkSchemas...) {
		checkNormal(t, schema)
	}
}

// checkNormal returns the normal forms of a schema, closed and open, "" where
// it is refused.
func checkNormal(t testing.TB, schema string) (closed, open string) {
	t.Helper()
	for _, o := range []SchemaOptions{{}, {Open: true}} {
		once, err := NormalizeSchema(schema, o)
		if err != nil {
			var fault *Error
			if !errors.As(err, &fault) {
				t.Fatalf("%s: %v is not an *Error", schema, err)
			}
			continue
		}
		if !json.Valid([]byte(once)) {
			t.Fatalf("%s: not JSON: %s", schema, once)
		}
		if len(once) > maxSchemaBytes {
			continue // the normal form is larger than what is taken
		}
		if twice, err := NormalizeSchema(once, o); err != nil || twice != once {
			t.Fatalf("%s\nonce  %s\ntwice %s, %v", schema, once, twice, err)
		}
		if o.Open {
			open = once
		} else {
			closed = once
		}
	}
	return closed, open
}

// FuzzNormalize: whatever the text, there is an *Error or a normal form.
func FuzzNormalize(f *testing.F) {
	for _, tt := range meanings {
		f.Add(tt.schema)
	}
	f.Add("{\"properties\":{\"\x93\":{}}}")
	f.Add(`{"$ref":"#/description/0","description":[{"multipleOf":3}]}`)
	f.Add(`{"allOf":[{"anyOf":[{"$ref":"#"},{"properties":{"a":{"$ref":"#/allOf/0"}}}]},true,false]}`)
	f.Fuzz(func(t *testing.T, schema string) { checkNormal(t, schema) })
}

// schemaGenerator writes small random schemas, and texts near them.
type schemaGenerator struct{ r *rand.Rand }

func (g schemaGenerator) pick(texts ...string) string { return texts[g.r.IntN(len(texts))] }

func (g schemaGenerator) schema(depth int) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch kind := g.r.IntN(10); {
	case depth <= 0 && kind < 7, kind < 2:
		return g.pick(`true`, `{"type":"null"}`, `{"type":"integer","minimum":1}`, `{"enum":["x",1]}`, `{"type":["boolean","null"]}`, `{"const":"y"}`, `{"type":"string","maxLength":1}`)
	case kind < 4:
		return fmt.Sprintf(`{"$ref":"#/$defs/%d"}`, g.r.IntN(3))
	case kind < 5:
		add(`"type":"array","items":%s,"maxItems":2`, g.schema(depth-1))
	default:
		if g.r.IntN(2) == 0 {
			add(`"type":%s`, g.pick(`"object"`, `"object"`, `["object","null"]`))
		}
		var members []string
		for _, name := range []string{"a", "b", "c"} {
			if g.r.IntN(2) == 0 {
				members = append(members, fmt.Sprintf("%q:%s", name, g.schema(depth-1)))
			}
		}
		if len(members) > 0 || g.r.IntN(4) == 0 {
			add(`"properties":{%s}`, strings.Join(members, ","))
		}
		if g.r.IntN(3) == 0 {
			add(`"required":[%q]`, g.pick("a", "b", "c"))
		}
		if g.r.IntN(4) == 0 {
			add(`"additionalProperties":%s`, g.pick(`false`, `true`, g.schema(depth-1)))
		}
	}
	for _, keyword := range []string{"allOf", "anyOf", "oneOf"} {
		if depth > 0 && g.r.IntN(6) == 0 {
			add(`%q:[%s,%s]`, keyword, g.schema(depth-1), g.schema(depth-1))
		}
	}
	if depth > 0 && g.r.IntN(8) == 0 {
		add(`"$ref":"#/$defs/%d"`, g.r.IntN(3))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (g schemaGenerator) document() string {
	s := g.schema(3)
	if s == "true" || s == "{}" {
		s = `{"type":"object"}`
	}
	return fmt.Sprintf(`%s,"$defs":{"0":%s,"1":%s,"2":%s}}`, s[:len(s)-1], g.schema(2), g.schema(2), g.schema(1))
}

func (g schemaGenerator) value(depth int) any {
	switch g.r.IntN(9) {
	case 0, 1, 2, 3:
		if depth <= 0 {
			return nil
		}
		o := &jsonObject{values: map[string]any{}}
		for _, name := range []string{"a", "b", "c", "d"} {
			if g.r.IntN(5) < 2 {
				o.set(name, g.value(depth-1))
			}
		}
		return o
	case 4:
		if depth <= 0 {
			return "x"
		}
		return []any{g.value(depth - 1)}
	case 5:
		return json.Number("1")
	case 6:
		return g.r.IntN(2) == 0
	case 7:
		return g.pick("x", "y")
	}
	return nil
}

// closedBy adds to a schema, wherever a value's schema stands, what closes it
// in JSON Schema's own words, if it has properties whatever branch is taken.
func closedBy(root, o *jsonObject, value bool) *jsonObject {
	out := &jsonObject{values: map[string]any{}}
	for _, key := range o.keys {
		v := o.values[key]
		switch members, _ := v.(*jsonObject); key {
		case "properties", "$defs":
			copied := &jsonObject{values: map[string]any{}}
			for _, name := range members.keys {
				copied.set(name, closedSchema(root, members.values[name], key == "properties"))
			}
			v = copied
		case "items", "additionalProperties":
			v = closedSchema(root, v, true)
		case "allOf", "anyOf", "oneOf":
			var list []any
			for _, e := range v.([]any) {
				list = append(list, closedSchema(root, e, false))
			}
			v = list
		}
		out.set(key, v)
	}
	allowed := &jsonObject{values: map[string]any{}}
	if !value || !lists(root, o, allowed, 0) {
		return out
	}
	extra := &jsonObject{values: map[string]any{}}
	extra.set("properties", allowed)
	whole := &jsonObject{values: map[string]any{}}
	if defs, ok := out.values["$defs"]; ok {
		whole.set("$defs", defs)
	}
	whole.set("allOf", []any{out, extra})
	whole.set("unevaluatedProperties", false)
	return whole
}

func closedSchema(root *jsonObject, v any, value bool) any {
	if o, ok := v.(*jsonObject); ok {
		return closedBy(root, o, value)
	}
	return v
}

// lists reports whether o or what always applies with it has properties, and
// adds what any of it requires to allowed.
func lists(root, o *jsonObject, allowed *jsonObject, depth int) bool {
	if depth > 10 {
		return false
	}
	_, found := o.values["properties"]
	visit := func(v any, always bool) {
		if part, ok := v.(*jsonObject); ok && lists(root, part, allowed, depth+1) {
			found = found || always
		}
	}
	if list, ok := o.values["required"].([]any); ok {
		for _, name := range list {
			allowed.set(name.(string), true)
		}
	}
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := o.values[key].([]any)
		for _, e := range list {
			visit(e, key == "allOf")
		}
	}
	if ref, ok := o.values["$ref"].(string); ok {
		visit(root.values["$defs"].(*jsonObject).values[strings.TrimPrefix(ref, "#/$defs/")], true)
	}
	return found
}

// Random schemas, held by the matcher of their own meaning as a plain
// validator holds them, and by that of TGI's at least: what is admitted is
// valid, and what is written has no member that no keyword names.
func TestRandomSchemas(t *testing.T) {
	c := compilerOfBytes(t)
	n := 300
	if testing.Short() {
		n = 100
	}
	accepted, admitted := 0, 0
	for seed := range n {
		g := schemaGenerator{rand.New(rand.NewPCG(uint64(seed), 7))}
		schema := g.document()
		if strings.Contains(schema, `"oneOf"`) && strings.Contains(schema, `"anyOf"`) {
			continue
		}
		if closed, open := checkNormal(t, schema); closed == "" || open == "" {
			continue
		}
		// oneOf is anyOf here.
		schema = strings.ReplaceAll(schema, `"oneOf"`, `"anyOf"`)
		judge := validator(t, schema)
		open, err := c.Compile(t.Context(), Spec{Kind: JSONSchema, Text: schema, Open: true})
		if err != nil {
			continue
		}
		closed, err := c.Compile(t.Context(), Spec{Kind: JSONSchema, Text: schema})
		if err != nil {
			open.Close()
			continue
		}
		accepted++
		document, err := decodeJSON([]byte(schema))
		if err != nil {
			t.Fatal(err)
		}
		root := document.(*jsonObject)
		strict := validator(t, string(appendJSON(nil, closedBy(root, root, true))))
		for range 25 {
			v := g.value(2)
			texts := spellings(v)
			if len(texts) > 150 {
				continue // there may be more, and each takes its time
			}
			any := func(m *Matcher) (text string, ok bool) {
				for _, text := range texts {
					if admits(t, m, text) {
						return text, true
					}
				}
				return "", false
			}
			narrow, isNarrow := any(closed)
			_, isOpen := any(open)
			if isNarrow {
				admitted++
			}
			if isNarrow && !isOpen {
				t.Errorf("%s\nadmits %s, but not where objects are open", schema, narrow)
			}
			if isNarrow && !valid(strict, narrow) {
				t.Errorf("%s\nadmits %s, which has members that nothing names", schema, narrow)
			}
			if isOpen != valid(judge, texts[0]) {
				t.Errorf("%s\nadmits %s where objects are open: %v, the validator: %v", schema, texts[0], isOpen, !isOpen)
			}
		}
		open.Close()
		closed.Close()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d of %d schemas are accepted; %d texts are admitted", accepted, n, admitted)
	if accepted < n/4 || admitted < n {
		t.Error("too few to say anything")
	}
}

// allocated returns how many bytes it takes to normalize a schema.
func allocated(schema string) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	NormalizeSchema(schema, SchemaOptions{}) //nolint:errcheck // it may be too large
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// What a schema costs before it is compiled is in proportion to its size.
func TestNormalizingIsLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("tested without the race detector: it is arithmetic on one goroutine")
	}
	for name, write := range map[string]func(n int) string{
		"properties": func(n int) string {
			return `{"properties":{` + joined(n, func(i int) string { return fmt.Sprintf(`"p%d":{"type":"string"}`, i) }) + `}}`
		},
		"required": func(n int) string {
			return `{"type":"object","required":[` + joined(n, func(i int) string { return fmt.Sprintf(`"p%d"`, i) }) + `]}`
		},
		"references": func(n int) string {
			return `{"properties":{` + joined(n, func(i int) string { return fmt.Sprintf(`"p%d":{"$ref":"#/$defs/x"}`, i) }) + `},"$defs":{"x":{"type":"object"}}}`
		},
		"definitions": func(n int) string {
			return `{"$defs":{` + joined(n, func(i int) string { return fmt.Sprintf(`"p%d":{"$ref":"#/$defs/p%d"}`, i, i+1) }) + `}}`
		},
		"branches": func(n int) string {
			return `{"anyOf":[` + joined(n, func(i int) string { return fmt.Sprintf(`{"const":"%d"}`, i) }) + `]}`
		},
		"parts": func(n int) string {
			return `{"allOf":[` + joined(n, func(i int) string { return fmt.Sprintf(`{"properties":{"p%d":{}}}`, i) }) + `]}`
		},
		"sets": func(n int) string {
			return `{"properties":{` + joined(n, func(i int) string {
				return fmt.Sprintf(`"p%d":{"type":"array","items":{"$ref":"#/$defs/e"},"uniqueItems":true}`, i)
			}) + `},"$defs":{"e":{"enum":[` + joined(n, func(i int) string { return fmt.Sprint(i) }) + `]}}}`
		},
		"names": func(n int) string {
			return `{"properties":{` + joined(n, func(i int) string { return fmt.Sprintf(`"p%d":{"propertyNames":{"$ref":"#/$defs/e"}}`, i) }) +
				`},"$defs":{"e":{"enum":[` + joined(n, func(i int) string { return fmt.Sprintf(`"%d"`, i) }) + `]}}}`
		},
		"chains": func(n int) string {
			return `{"allOf":[` + joined(n, func(i int) string { return `{"$ref":"#/$defs/d0"}` }) + `],"$defs":{` +
				joined(400, func(i int) string { return fmt.Sprintf(`"d%d":{"$ref":"#/$defs/d%d"}`, i, i+1) }) + `,"d400":{}}}`
		},
		"products": func(n int) string {
			return `{"allOf":[` + joined(n, func(i int) string { return fmt.Sprintf(`{"anyOf":[{"required":["a%d"]},{"required":["b%d"]}]}`, i, i) }) + `]}`
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Four times the schema: what is too large ends at a limit that is as much larger.
			if once, more := allocated(write(500)), allocated(write(2000)); more > 8*once+1<<20 {
				t.Errorf("four times the schema takes %d bytes of memory, once %d", more, once)
			}
			const limit = 20 * time.Second // only so that a hang is a failure
			start := time.Now()
			_, err := NormalizeSchema(write(4000), SchemaOptions{})
			if took := time.Since(start); took > limit {
				t.Errorf("takes %v", took)
			}
			t.Log(time.Since(start), err)
		})
	}
}
