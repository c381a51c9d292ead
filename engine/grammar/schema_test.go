package grammar

import "testing"

// Each schema with texts that it admits and texts that it refuses, walked
// byte by byte. The validator must agree: with all that are admitted, and that
// the refused are invalid, except those that are valid but not in our form
// (order, white space), which stand under otherForm.
func TestSchemas(t *testing.T) {
	c := compilerOfBytes(t)
	for _, tt := range []struct {
		name, schema         string
		good, bad, otherForm []string
	}{
		{"null", `{"type":"null"}`, []string{`null`}, []string{`0`, `"null"`, ``}, nil},
		{"boolean", `{"type":"boolean"}`, []string{`true`, `false`}, []string{`True`, `1`, `tru`}, nil},
		{"integer", `{"type":"integer"}`, []string{`0`, `-7`, `123456789012345678901234567890`}, []string{`1.5`, `01`, `+1`, `-`, `"1"`}, nil},
		{"number", `{"type":"number"}`, []string{`0`, `-1.25`, `6e23`, `1E-5`}, []string{`.5`, `1.`, `NaN`, `0x1`}, nil},
		{"string", `{"type":"string"}`, []string{`""`, `"a b"`, `"\"\\\n\u0001"`, `"日本 🎉"`}, []string{`"a`, "\"a\nb\"", `'a'`, `"\x"`}, []string{`"\u00e9"`}},
		{"array", `{"type":"array"}`, []string{`[]`, `[1,"a",null,[{}]]`}, []string{`[1,]`, `[,1]`, `{}`}, nil},
		{"object", `{"type":"object"}`, []string{`{}`, `{"a":1,"b":{"c":[]}}`}, []string{`{a:1}`, `{"a"}`, `[]`}, nil},
		{"several types", `{"type":["integer","null"]}`, []string{`3`, `null`}, []string{`"3"`, `true`}, nil},
		{"anything", `{}`, []string{`1`, `"a"`, `{"a":[true]}`, `null`}, []string{`undefined`, ``}, nil},
		{"true", `true`, []string{`1`, `{"a":2}`}, []string{`x`}, nil},
		{"annotations only", `{"title":"t","description":"d","default":3,"examples":[1]}`, []string{`1`, `"x"`}, []string{`x`}, nil},
		{"unknown keywords", `{"type":"integer","nullable":true,"discriminator":{},"x-order":1}`, []string{`1`}, []string{`null`}, nil},

		{"enum of strings", `{"enum":["red","green"]}`, []string{`"red"`, `"green"`}, []string{`"blue"`, `"re"`, `red`}, nil},
		{"enum of kinds", `{"enum":[1,"a",null,true,[1,2],{"k":"v"}]}`, []string{`1`, `"a"`, `null`, `true`, `[1,2]`, `{"k":"v"}`}, []string{`2`, `false`, `[2,1]`, `{}`}, nil},
		{"enum within a type", `{"type":"string","enum":["a",1]}`, []string{`"a"`}, []string{`1`}, nil},
		{"const string", `{"const":"a\"b"}`, []string{`"a\"b"`}, []string{`"ab"`}, nil},
		{"const object", `{"const":{"a":[1,null]}}`, []string{`{"a":[1,null]}`}, []string{`{"a":[1]}`, `{}`}, nil},
		{"const number", `{"const":5}`, []string{`5`}, []string{`6`, `55`}, nil},
		{"const of a special token's name", `{"const":"<special>"}`, []string{`"<special>"`}, []string{`"<s>"`}, nil},

		{"minimum", `{"type":"integer","minimum":5}`, []string{`5`, `10`, `999`}, []string{`4`, `-5`, `0`}, nil},
		{"maximum", `{"type":"integer","maximum":5}`, []string{`5`, `0`, `-100`}, []string{`6`, `50`}, nil},
		{"both bounds", `{"type":"integer","minimum":-3,"maximum":12}`, []string{`-3`, `0`, `12`}, []string{`-4`, `13`, `100`}, nil},
		{"exclusive bounds", `{"type":"integer","exclusiveMinimum":1,"exclusiveMaximum":4}`, []string{`2`, `3`}, []string{`1`, `4`}, nil},
		{"number bounds", `{"type":"number","minimum":0.5,"maximum":1.25}`, []string{`0.5`, `1`, `1.25`, `0.75`}, []string{`0.4`, `1.26`, `2`}, nil},
		{"draft 4 exclusive", `{"$schema":"http://json-schema.org/draft-04/schema#","type":"integer","minimum":3}`, []string{`3`, `4`}, []string{`2`}, nil},
		{"multiple of integer", `{"type":"integer","multipleOf":7}`, []string{`0`, `7`, `21`, `700`}, []string{`6`, `22`}, nil},
		{"multiple of decimal", `{"type":"number","multipleOf":0.01}`, []string{`0.01`, `3.14`, `2`}, []string{`0.001`, `3.145`}, nil},

		{"lengths", `{"type":"string","minLength":2,"maxLength":4}`, []string{`"ab"`, `"日本語"`, `"abcd"`}, []string{`"a"`, `"abcde"`}, nil},
		{"pattern anchored", `{"type":"string","pattern":"^[a-z]{2,3}[0-9]$"}`, []string{`"ab1"`, `"abc9"`}, []string{`"a1"`, `"abcd1"`, `"AB1"`}, nil},
		{"pattern inside", `{"type":"string","pattern":"b+"}`, []string{`"abc"`, `"bb"`}, []string{`"ac"`, `""`}, nil},
		{"pattern with lengths", `{"type":"string","pattern":"^a*b*$","minLength":1,"maxLength":3}`, []string{`"aab"`, `"b"`}, []string{`""`, `"aabb"`, `"ba"`}, nil},
		{"pattern of escapes", `{"type":"string","pattern":"^\\d\\.\\w$"}`, []string{`"1.a"`, `"0._"`}, []string{`"1xa"`, `"a.a"`}, nil},
		{"date", `{"type":"string","format":"date"}`, []string{`"2026-11-24"`}, []string{`"2026-13-01"`, `"24.11.2026"`}, nil},
		{"date-time", `{"type":"string","format":"date-time"}`, []string{`"2026-11-24T06:00:00Z"`}, []string{`"2026-11-24"`}, nil},
		{"uuid", `{"type":"string","format":"uuid"}`, []string{`"123e4567-e89b-12d3-a456-426614174000"`}, []string{`"123e4567"`}, nil},
		{"email", `{"type":"string","format":"email"}`, []string{`"a@example.com"`}, []string{`"a.example.com"`}, nil},
		{"ipv4", `{"type":"string","format":"ipv4"}`, []string{`"127.0.0.1"`}, []string{`"127.0.0.256"`, `"1.2.3"`}, nil},

		{"items", `{"type":"array","items":{"type":"integer"}}`, []string{`[]`, `[1,2,3]`}, []string{`["a"]`, `[1,null]`}, nil},
		{"items counted", `{"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":2}`, []string{`[true]`, `[true,false]`}, []string{`[]`, `[true,true,true]`}, nil},
		{"tuple", `{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false,"minItems":2}`, []string{`[1,"a"]`}, []string{`[1]`, `["a",1]`, `[1,"a",2]`}, nil},
		{"tuple and rest", `{"type":"array","prefixItems":[{"type":"integer"}],"items":{"type":"string"}}`, []string{`[]`, `[1]`, `[1,"a","b"]`}, []string{`["a"]`, `[1,2]`}, nil},
		{"array of arrays", `{"type":"array","items":{"type":"array","items":{"type":"integer"},"minItems":1}}`, []string{`[[1],[2,3]]`, `[]`}, []string{`[[]]`, `[1]`}, nil},

		{"properties in order", `{"type":"object","properties":{"z":{"type":"integer"},"a":{"type":"integer"}},"required":["z","a"],"additionalProperties":false}`,
			[]string{`{"z":1,"a":2}`}, []string{`{"z":1}`, `{"a":2}`}, []string{`{"a":2,"z":1}`}},
		{"one space", `{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"required":["a","b"],"additionalProperties":false}`,
			[]string{`{"a":1,"b":2}`, `{"a": 1, "b": 2}`, `{ "a" : 1 , "b" : 2 }`}, nil,
			[]string{`{"a":  1,"b":2}`, "{\"a\":\n1,\"b\":2}", "{\"a\":1,\t\"b\":2}", ` {"a":1,"b":2}`, `{"a":1,"b":2} `}},
		{"optional properties", `{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"},"c":{"type":"integer"}},"required":["b"],"additionalProperties":false}`,
			[]string{`{"b":1}`, `{"a":0,"b":1}`, `{"b":1,"c":2}`, `{"a":0,"b":1,"c":2}`}, []string{`{}`, `{"a":1}`, `{"b":1,"d":2}`}, nil},
		{"no properties", `{"type":"object","additionalProperties":false}`, []string{`{}`}, []string{`{"a":1}`}, nil},
		{"additional typed", `{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"string"}}`, []string{`{"a":1,"b":"x"}`, `{"b":"x"}`}, []string{`{"a":"x"}`, `{"b":1}`}, nil},
		{"additional only", `{"type":"object","additionalProperties":{"type":"integer"}}`, []string{`{}`, `{"x":1,"y":2}`}, []string{`{"x":"1"}`}, nil},
		{"pattern properties", `{"type":"object","patternProperties":{"^n_":{"type":"integer"},"^s_":{"type":"string"}},"additionalProperties":false}`, []string{`{"n_a":1}`, `{"s_a":"x","n_b":2}`}, []string{`{"n_a":"x"}`, `{"q":1}`}, nil},
		{"required without a property", `{"type":"object","required":["a"]}`, []string{`{"a":1}`, `{"a":null,"b":2}`}, []string{`{}`, `{"b":2}`}, nil},
		{"unicode names", `{"type":"object","properties":{"größe":{"type":"integer"},"名前":{"type":"string"}},"required":["größe","名前"],"additionalProperties":false}`, []string{`{"größe":1,"名前":"ü"}`}, []string{`{"grosse":1,"名前":"ü"}`}, nil},
		{"names with quotes", `{"type":"object","properties":{"a\"b\\c":{"type":"integer"}},"required":["a\"b\\c"],"additionalProperties":false}`, []string{`{"a\"b\\c":1}`}, []string{`{"abc":1}`}, nil},
		{"nested objects", `{"type":"object","properties":{"p":{"type":"object","properties":{"q":{"type":"array","items":{"type":"object","properties":{"r":{"const":1}},"required":["r"],"additionalProperties":false}}},"required":["q"],"additionalProperties":false}},"required":["p"],"additionalProperties":false}`,
			[]string{`{"p":{"q":[]}}`, `{"p":{"q":[{"r":1},{"r":1}]}}`}, []string{`{"p":{}}`, `{"p":{"q":[{"r":2}]}}`}, nil},
		{"property named like a keyword", `{"type":"object","properties":{"enum":{"type":"integer"},"$ref":{"type":"string"},"allOf":{"type":"null"}},"required":["enum","$ref","allOf"],"additionalProperties":false}`, []string{`{"enum":1,"$ref":"x","allOf":null}`}, []string{`{"enum":[],"$ref":"x","allOf":null}`}, nil},

		{"anyOf", `{"anyOf":[{"type":"integer"},{"type":"string","maxLength":2}]}`, []string{`1`, `"ab"`}, []string{`"abc"`, `true`}, nil},
		{"anyOf beside keywords", `{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"anyOf":[{"properties":{"b":{"const":1}},"required":["b"]},{"properties":{"c":{"const":2}},"required":["c"]}]}`, []string{`{"a":0,"b":1}`, `{"a":0,"c":2}`}, []string{`{"a":0}`, `{"b":1}`, `{"a":0,"b":2}`}, nil},
		{"oneOf of types", `{"oneOf":[{"type":"integer"},{"type":"string"}]}`, []string{`1`, `"a"`}, []string{`null`}, nil},
		{"oneOf by a discriminator", `{"oneOf":[{"$ref":"#/$defs/cat"},{"$ref":"#/$defs/dog"}],"$defs":{"cat":{"type":"object","properties":{"kind":{"const":"cat"},"lives":{"type":"integer"}},"required":["kind","lives"],"additionalProperties":false},"dog":{"type":"object","properties":{"kind":{"const":"dog"},"barks":{"type":"boolean"}},"required":["kind","barks"],"additionalProperties":false}}}`,
			[]string{`{"kind":"cat","lives":9}`, `{"kind":"dog","barks":true}`}, []string{`{"kind":"cat","barks":true}`, `{"kind":"cow"}`}, nil},
		{"union of tool calls", `{"anyOf":[{"type":"object","properties":{"name":{"const":"get_weather"},"arguments":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}},"required":["name","arguments"],"additionalProperties":false},{"type":"object","properties":{"name":{"const":"get_time"},"arguments":{"type":"object","properties":{},"additionalProperties":false}},"required":["name","arguments"],"additionalProperties":false}]}`,
			[]string{`{"name":"get_weather","arguments":{"city":"Oslo"}}`, `{"name": "get_time", "arguments": {}}`}, []string{`{"name":"get_time","arguments":{"city":"Oslo"}}`, `{"name":"get_weather","arguments":{}}`, `{"name":"get_w"}`}, nil},
		{"allOf", `{"allOf":[{"type":"integer","minimum":3},{"maximum":5}]}`, []string{`3`, `5`}, []string{`2`, `6`}, nil},
		{"allOf of objects", `{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{"type":"string"}},"required":["b"]}]}`, []string{`{"a":1,"b":"x"}`}, []string{`{"a":1}`, `{"b":"x"}`}, nil},
		{"allOf of patterns", `{"type":"string","allOf":[{"pattern":"^a"},{"pattern":"z$"}]}`, []string{`"az"`, `"abcz"`}, []string{`"a"`, `"z"`, `"za"`}, nil},

		{"reference to a definition", `{"type":"object","properties":{"a":{"$ref":"#/$defs/n"},"b":{"$ref":"#/$defs/n"}},"required":["a","b"],"additionalProperties":false,"$defs":{"n":{"type":"integer","maximum":9}}}`, []string{`{"a":1,"b":9}`}, []string{`{"a":1,"b":10}`}, nil},
		{"old definitions", `{"$ref":"#/definitions/n","definitions":{"n":{"type":"boolean"}}}`, []string{`true`}, []string{`1`}, nil},
		{"recursive tree", `{"$ref":"#/$defs/t","$defs":{"t":{"type":"object","properties":{"v":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/$defs/t"}}},"required":["v"],"additionalProperties":false}}}`, []string{`{"v":1}`, `{"v":1,"kids":[{"v":2,"kids":[{"v":3}]},{"v":4}]}`}, []string{`{"kids":[]}`, `{"v":1,"kids":[{}]}`}, nil},
		{"recursive root", `{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["next"],"additionalProperties":false}`, []string{`{"next":null}`, `{"next":{"next":{"next":null}}}`}, []string{`{"next":1}`, `{}`}, nil},
		{"mutual recursion", `{"$ref":"#/$defs/a","$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/b"}},"b":{"type":"object","additionalProperties":{"$ref":"#/$defs/a"}}}}`, []string{`[]`, `[{"x":[]},{"y":[{}]}]`}, []string{`{}`, `[[]]`}, nil},
		{"impossible option left out", `{"type":"object","properties":{"a":false,"b":{"type":"integer"}},"additionalProperties":false}`, []string{`{}`, `{"b":1}`}, []string{`{"a":1}`}, nil},
		{"a client's own options do not count", `{"type":"array","items":{"type":"integer"},"x-guidance":{"whitespace_flexible":true}}`, []string{`[1, 2]`}, nil, []string{"[1,\n2]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mustCompile(t, c, Spec{Kind: JSONSchema, Text: tt.schema})
			judge := validator(t, tt.schema)
			for _, text := range tt.good {
				if !admits(t, m, text) {
					t.Errorf("refuses %s", text)
				}
				if !valid(judge, text) {
					t.Errorf("the validator refuses %s", text)
				}
			}
			for _, text := range tt.bad {
				if admits(t, m, text) {
					t.Errorf("admits %s", text)
				}
				if valid(judge, text) {
					t.Errorf("the validator admits %s", text)
				}
			}
			for _, text := range tt.otherForm {
				if admits(t, m, text) {
					t.Errorf("admits the form of %s", text)
				}
				if !valid(judge, text) {
					t.Errorf("the validator refuses %s", text)
				}
			}
		})
	}
}
