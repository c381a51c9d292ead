package grammar

import (
	"strings"
	"testing"
)

// What counts in a Lark grammar is the grammar, not what its strings and
// schemas say; schemas in it are those of everybody.
func TestLarkSource(t *testing.T) {
	c := compilerOfBytes(t)
	ands := strings.Repeat("& ", 40)
	for _, tt := range []struct{ text, good, bad string }{
		{`start: "` + ands + `"`, ands, "&"},
		{"// " + ands + "\n# \"" + ands + "\nstart: \"x\"", "x", "&"},
		{`start: %json {"const":"` + ands + `"}`, `"` + ands + `"`, `""`},
		{`start: "a" x` + "\n" + `x: %json {"description":"` + ands + `","properties":{"a":{"oneOf":[{"type":"null"},{"type":"boolean"}]}}}` + "\n", `a{"a":null}`, `a{"b":null}`},
		{`start: /a\/"b/ | "[((("`, `a/"b`, `b`},
		{"start: A\nA: /a*/ & /(aa)*/", "aa", "a"},
	} {
		m := mustCompile(t, c, Spec{Kind: Lark, Text: tt.text})
		if !admits(t, m, tt.good) || admits(t, m, tt.bad) {
			t.Errorf("%.60s: admits %.60q: %v, %q: %v", tt.text, tt.good, admits(t, m, tt.good), tt.bad, admits(t, m, tt.bad))
		}
	}
	for text, want := range map[string]string{
		"start: A\nA: /a/" + strings.Repeat(" & /a/", 13):       "lark: more than 12 uses of &",
		"start: /" + strings.Repeat("&", 13) + "/":              "lark: more than 12 uses of &",
		`start: %json {"properties":{"a":{"not":{"const":1}}}}`: "#/properties/a/not: ",
		`start: %json {`: "lark: %json: not JSON",
		`start: "a" %json {"$ref":"https://x.test/a"}`:                "#/$ref: ",
		"start: " + strings.Repeat("(", 70) + strings.Repeat(")", 70): "lark is nested deeper",
		"start: /" + strings.Repeat("(", 70) + "/":                    "lark is nested deeper",
	} {
		if got := refuses(t, c, Spec{Kind: Lark, Text: text}); !strings.HasPrefix(got, want) {
			t.Errorf("%.60s: %s, want %s", text, got, want)
		}
	}
}
