package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-ai/millrace/engine/grammar"
)

// testCompiler is a compiler for testTokenizer.
var testCompiler = sync.OnceValues(func() (*grammar.Compiler, error) {
	tok := testTokenizer()
	eos, _ := tok.EOS()
	return grammar.NewCompiler(tok, tok.VocabSize(), []int32{eos})
})

// newGrammarServer returns a ready Server that has grammars.
func newGrammarServer(gen *fake, edit ...func(*Options)) *Server {
	s := newTestServer(gen, edit...)
	s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Compiler: testCompiler})
	return s
}

// TestGrammarFaults pins what is said of a grammar that cannot be used.
func TestGrammarFaults(t *testing.T) {
	const (
		shape   = "Failed to deserialize the JSON body into the target type: parameters.grammar"
		support = "Input validation error: grammar is not supported"
		fault   = "Input validation error: grammar is not valid: "
	)
	for _, tt := range []struct{ name, grammar, want string }{
		{"a schema that is a number", `{"type":"json","value":1}`, support},
		{"a schema that is null", `{"type":"json_object","value":null}`, support},
		{"a string that is not JSON", `{"type":"json","value":"nope"}`, fault + "not JSON: invalid character 'o' in literal null (expecting 'u')"},
		{"no properties", `{"type":"json","value":{"type":"object"}}`, fault + "Grammar must have a 'properties' field"},
		{"no properties, in a string", `{"type":"json","value":"{}"}`, fault + "Grammar must have a 'properties' field"},
		{"properties are not an object", `{"type":"json","value":{"properties":1}}`, fault + "#/properties: not an object"},
		{"a keyword that cannot be held", `{"type":"json","value":{"properties":{"a":{"not":{"type":"string"}}}}}`, fault + "#/properties/a/not: the keyword is not supported"},
		{"nothing satisfies it", `{"type":"json_schema","value":{"schema":false}}`, fault + "#: no value is valid"},
		{"a regex that is none", `{"type":"regex","value":"a("}`, fault + "regex: unclosed group"},
		{"a regex that is a number", `{"type":"regex","value":1}`, shape + ".value: invalid type: integer `1`, expected a string at line 1 column 63"},
		{"a regex that is a number, type behind", `{"value":1,"type":"regex"}`, shape + ".value: invalid type: integer `1`, expected a string at line 1 column 48"},
		{"json_schema without a schema", `{"type":"json_schema","value":{}}`, shape + ".value: missing field `schema`"},
		{"json_schema of a string", `{"type":"json_schema","value":"{}"}`, shape + ".value: invalid type: string \"{}\", expected struct JsonSchemaConfig"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"/generate", "/generate_stream"} {
				s := newGrammarServer(&fake{})
				got := post(t, s, path, `{"inputs":"x","parameters":{"grammar":`+tt.grammar+`}}`)
				if msg, kind := mustError(t, got); got.status != 422 || !strings.HasPrefix(msg, tt.want) || kind != "validation" {
					t.Errorf("%d %s\nwant 422 %s", got.status, got.body, tt.want)
				}
				if n := s.permits.Load(); n != 0 {
					t.Errorf("%d permits are lost", n)
				}
			}
		})
	}
}

// TestGrammarsOff refuses all of them, before it looks at what they are.
func TestGrammarsOff(t *testing.T) {
	const body = `{"inputs":"x","parameters":{"grammar":{"type":"json","value":{}}}}`
	broken := func() (*grammar.Compiler, error) { return nil, errors.New("the model names no end") }
	for _, tt := range []struct {
		name, want string
		edit       func(*Options)
		compiler   func() (*grammar.Compiler, error)
	}{
		{"by a flag", "grammar is not supported", func(o *Options) { o.DisableGrammar = true }, testCompiler},
		{"for want of a compiler", "grammar is not supported", func(*Options) {}, nil},
		{"by the model", "grammar is not supported: the model names no end", func(*Options) {}, broken},
	} {
		gen := &fake{}
		s := newTestServer(gen, tt.edit)
		s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Compiler: tt.compiler})
		_, err := s.matcher(t.Context(), grammar.Spec{Kind: grammar.Regex, Text: "a"})
		if e := asError(err); e.Status != 422 || e.Msg != "Input validation error: "+tt.want {
			t.Errorf("%s: %d %s", tt.name, e.Status, e.Msg)
		}
	}
	got := post(t, newGrammarServer(&fake{}, func(o *Options) { o.DisableGrammar = true }), "/generate", body)
	if msg, _ := mustError(t, got); got.status != 422 || msg != "Input validation error: grammar is not supported" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestMatcherOfOneThatLeaves pins that a client that has gone is not told
// about its grammar.
func TestMatcherOfOneThatLeaves(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Not compiled before, so that the compiler looks at the context.
	_, err := newGrammarServer(&fake{}).matcher(ctx, grammar.Spec{Kind: grammar.Regex, Text: "nobody waits for this"})
	if err != nil && !clientGone(ctx, err) {
		t.Error(err)
	}
}

// TestGuides pins that a grammar reaches the engine.
func TestGuides(t *testing.T) {
	for _, grammar := range []string{
		`{"type":"json","value":{"properties":{"a":{"type":"integer"}}}}`,
		`{"type":"json_object","value":"{\"properties\":{}}"}`,
		`{"type":"json_schema","value":{"name":"n","schema":{"type":"array"}}}`,
		`{"type":"json_schema","value":{"schema":"{\"type\":\"string\"}"}}`,
		`{"value":"a|b","type":"regex"}`,
	} {
		gen := &fake{}
		s := newGrammarServer(gen)
		got := post(t, s, "/generate", `{"inputs":"x","parameters":{"max_new_tokens":1,"best_of":2,"do_sample":true,"grammar":`+grammar+`}}`)
		if got.status != 200 || len(gen.all) != 2 {
			t.Fatalf("%s: %d %s", grammar, got.status, got.body)
		}
		if g := gen.request().Constraint; g == nil || g.Grammar == nil || len(g.Triggers) > 0 {
			t.Errorf("%s: guide %v", grammar, g)
		}
		post(t, s, "/generate", `{"inputs":"x","parameters":{"max_new_tokens":1,"grammar":null}}`)
		if g := gen.request().Constraint; g != nil {
			t.Errorf("without a grammar: guide %v", g)
		}
	}
}

// constrained asks for a token under a grammar, again while the compilations
// before it, which go on behind their answers, take all there is to compile with.
func constrained(t *testing.T, s *Server, grammar string) (got response) {
	t.Helper()
	for range 60 {
		got = post(t, s, "/generate", `{"inputs":"x","parameters":{"max_new_tokens":1,"grammar":`+grammar+`}}`)
		if got.status != http.StatusTooManyRequests {
			break
		}
	}
	return got
}

// TestHostileGrammars sends what would take a careless compiler for ever, or
// all memory: each is a clear 422, and others are still answered.
func TestHostileGrammars(t *testing.T) {
	nested := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	manyOf := func(format string, n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(format, i))
		}
		return strings.Join(all, ",")
	}
	schema := func(s string) string { return `{"type":"json_schema","value":{"schema":` + s + `}}` }
	regex := func(s string) string { return `{"type":"regex","value":` + string(appendString(nil, s)) + `}` }
	s := newGrammarServer(&fake{})
	for _, tt := range []struct{ name, grammar string }{
		{"repeated repetitions", regex(`((((((a{1000}){1000}){1000}){1000}){1000}){1000})`)},
		{"groups in groups", regex(nested("(", "a", ")*", 5000))},
		{"a megabyte of pattern", regex(strings.Repeat("a|", 500_000))},
		{"no text", regex(`[^\s\S]`)},
		{"a look-ahead", regex(`(?=a)b`)},
		{"a back reference", regex(`(a)\1`)},
		{"a schema that is itself", schema(`{"$ref":"#"}`)},
		{"schemas that are one another", schema(`{"$ref":"#/$defs/a","$defs":{"a":{"allOf":[{"$ref":"#/$defs/b"}]},"b":{"allOf":[{"$ref":"#/$defs/a"}]}}}`)},
		{"a megabyte of schema", schema(`{"properties":{` + manyOf(`"a%d":{"type":"string"}`, 50_000) + `}}`)},
		{"arrays in arrays", schema(nested(`{"type":"array","items":`, `{}`, `}`, 100))},
		{"patterns that all apply", schema(`{"type":"string","allOf":[` + manyOf(`{"pattern":".*a%d.*"}`, 40) + `]}`)},
		{"references without end", schema(`{"$defs":{` + manyOf(`"a%d":{"$ref":"#/$defs/a0"}`, 2000) + `},"anyOf":[` + manyOf(`{"$ref":"#/$defs/a%d"}`, 2000) + `]}`)},
		{"a document elsewhere", schema(`{"$ref":"http://169.254.169.254/latest/meta-data"}`)},
		{"a file", schema(`{"$ref":"file:///etc/passwd"}`)},
		{"a huge multiple", schema(`{"type":"number","multipleOf":1e300}`)},
		{"multiples that multiply", schema(`{"allOf":[{"type":"integer","multipleOf":99991},{"multipleOf":99989}]}`)},
		{"a huge length of a pattern", schema(`{"type":"string","pattern":"^([a-z]{1,9}x){1,999}$","minLength":100000}`)},
		{"lark in a schema's options", schema(`{"not":{},"x-guidance":{"whitespace_pattern":"((((a{999}){999}){999}){999})"}}`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := constrained(t, s, tt.grammar)
			if msg, kind := mustError(t, got); got.status != 422 || kind != "validation" || !strings.HasPrefix(msg, "Input validation error: grammar is not valid: ") {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	// These have automata that would be too large whole; only what is walked is made.
	for _, pattern := range []string{`yes|no`, `(.*a.{200}){50}`, "(" + strings.Repeat(`\w{1,500}|`, 500) + "a)"} {
		if got := constrained(t, s, regex(pattern)); got.status != 200 {
			t.Errorf("%.40s: %d %s", pattern, got.status, got.body)
		}
	}
}
