package abuse

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
)

// guided asks for a text by a JSON schema, on a route that takes one.
func (h *hostile) guided(ctx context.Context, schema any) error {
	text := marshal(schema)
	switch h.rand.IntN(4) {
	case 0:
		return h.post(ctx, "/generate", `{"inputs":"x","parameters":{"max_new_tokens":8,"grammar":{"type":"json","value":`+text+`}}}`)
	case 1:
		return h.post(ctx, "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"max_tokens":8,"tool_choice":"required",`+
			`"tools":[{"type":"function","function":{"name":"f","parameters":`+text+`}}]}`)
	}
	return h.post(ctx, "/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}],"max_tokens":8,`+
		`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":`+text+`}}}`)
}

// schema is one that has taken long to compile, or much memory.
func (h *hostile) schema() any {
	n := h.rand.IntN(1 << 20) // so that no cache knows it
	nest := func(depth int, inner object) object {
		for range depth {
			inner = object{"type": "object", "properties": object{"a": inner}, "required": []string{"a"}}
		}
		return inner
	}
	tree := func(width, depth int) object {
		defs := object{fmt.Sprint("d", depth): object{"type": "integer", "minimum": n}}
		for d := range depth {
			properties := object{}
			for i := range width {
				properties[fmt.Sprint("p", i)] = object{"$ref": fmt.Sprint("#/$defs/d", d+1)}
			}
			defs[fmt.Sprint("d", d)] = object{"type": "object", "properties": properties}
		}
		return object{"$defs": defs, "$ref": "#/$defs/d0"}
	}
	many := func(count int, each func(i int) any) []any {
		all := make([]any, count)
		for i := range all {
			all[i] = each(i)
		}
		return all
	}
	switch h.rand.IntN(12) {
	case 0: // a reference to where no schema is looked for
		return object{"type": "object", "properties": object{"a": object{"$ref": "#/description/0"}}, "required": []string{"a"},
			"description": []any{object{"type": "string", "pattern": fmt.Sprintf("^((a{1,%d}){1,300}){1,300}$", 100+n%100)}}}
	case 1:
		return object{"properties": object{"a": object{"$ref": "#/description/0"}}, "description": []any{object{"type": "integer", "multipleOf": 9_999_991 + n}}}
	case 2:
		return nest(1+n%400, object{"type": "string", "maxLength": n})
	case 3:
		return tree(1+n%40, 1+n%7)
	case 4:
		properties := object{}
		for i := range 8000 {
			properties[fmt.Sprint("p", i, "_", n)] = object{"type": "integer"}
		}
		return object{"type": "object", "properties": properties}
	case 5:
		return object{"enum": many(5000, func(i int) any { return fmt.Sprint("value ", i, " ", n) })}
	case 6:
		return object{"type": "array", "items": nest(5, object{"type": "string", "maxLength": 1000}), "minItems": n, "maxItems": n + 100_000}
	case 7:
		return object{"allOf": many(60, func(i int) any {
			return object{"type": "object", "properties": object{fmt.Sprint("p", i): object{"type": "string", "pattern": fmt.Sprintf("^(a|b){%d,%d}$", i, i+n%1000)}}}
		})}
	case 8:
		return object{"anyOf": many(500, func(i int) any { return nest(i%20, object{"const": fmt.Sprint(n, "_", i)}) })}
	case 9: // recursion through everything
		return object{"$defs": object{"a": object{"anyOf": []any{object{"$ref": "#/$defs/b"}, object{"type": "array", "items": object{"$ref": "#/$defs/a"}}, object{"const": n}}},
			"b": object{"type": "object", "properties": object{"x": object{"$ref": "#/$defs/a"}, "y": object{"$ref": "#/$defs/b"}}}}, "$ref": "#/$defs/a"}
	case 10: // recursion through nothing
		return object{"$defs": object{"a": object{"$ref": "#/$defs/b"}, "b": object{"allOf": []any{object{"$ref": "#/$defs/a"}, object{"title": fmt.Sprint(n)}}}}, "$ref": "#/$defs/a"}
	}
	return object{"type": "string", "minLength": 50_000 + n, "maxLength": 100_000 + n, "pattern": "^[a-z]*$"}
}

// generated is a random schema of at most so many levels, most of which are
// sensible and some of which contradict themselves.
func generated(r *rand.Rand, levels int) any {
	some := func() any { return generated(r, levels-1) }
	if levels <= 0 {
		return []any{
			object{"type": "integer", "minimum": r.IntN(100), "maximum": r.IntN(1000)}, object{"type": "boolean"}, object{"const": r.IntN(1000)}, true,
			object{"type": "string", "maxLength": r.IntN(50), "minLength": r.IntN(20)}, object{"type": "number", "multipleOf": r.Float64()},
			object{"type": "string", "format": []string{"date", "uuid", "email", "x"}[r.IntN(4)]}, object{"$ref": "#"}, object{"enum": []any{1, "a", nil}},
		}[r.IntN(9)]
	}
	several := func() []any {
		all := []any{}
		for range 1 + r.IntN(3) {
			all = append(all, some())
		}
		return all
	}
	switch r.IntN(6) {
	case 0:
		return object{"type": "array", "items": some(), "maxItems": r.IntN(2000), "minItems": r.IntN(5)}
	case 1:
		return object{[]string{"anyOf", "oneOf", "allOf"}[r.IntN(3)]: several()}
	case 2:
		return object{"type": "object", "patternProperties": object{"^[a-z]{1,9}$": some()}, "minProperties": r.IntN(3)}
	}
	properties, required := object{}, []string{}
	for range r.IntN(6) {
		name := fmt.Sprint("k", r.IntN(20))
		properties[name] = some()
		required = append(required, name)
	}
	return object{"type": "object", "properties": properties, "required": required[:r.IntN(len(required)+1)], "additionalProperties": []any{some(), true, false}[r.IntN(3)]}
}

// pattern asks for a regular expression that is small and means much.
func (h *hostile) pattern(ctx context.Context) error {
	n := 1 + h.rand.IntN(1_000_000)
	pattern := h.pick(
		fmt.Sprintf("a{%d}", 99_000_000+n), fmt.Sprintf("((a{100}){100}){%d}", n), fmt.Sprintf("(a|aa|aaa){%d}b", n%5000), fmt.Sprintf("(.*a){%d}", n%60),
		fmt.Sprintf("(x+x+)+y{%d}", n), strings.Repeat("(", n%3000), strings.Repeat("(a?", n%2000)+strings.Repeat(")", n%2000), fmt.Sprintf(`(\p{L}{1,%d}\d)*`, n%3000),
		fmt.Sprintf("[^a]{%d}|(%s)", n%9000, strings.Repeat("ab|", n%9000)), fmt.Sprintf("(.{1,200}a.{1,200}){1,%d}", n%300))
	return h.post(ctx, "/generate", marshal(object{"inputs": "x", "parameters": object{"max_new_tokens": 8, "grammar": object{"type": "regex", "value": pattern}}}))
}

// constant makes the server write up to 100 kB that are known beforehand.
func (h *hostile) constant(ctx context.Context) error {
	text := strings.Repeat(h.pick("a", "word ", "é", "12"), 100_000)[:10_000+h.rand.IntN(90_000)]
	return h.post(ctx, "/generate", marshal(object{"inputs": "x", "parameters": object{"max_new_tokens": 1900, "grammar": object{
		"type": "json", "value": object{"type": "object", "properties": object{"a": object{"const": text}}, "required": []string{"a"}}}}}))
}
