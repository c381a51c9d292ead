package chat

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/millrace-ai/millrace/engine/native"
)

var sampledCalls = flag.Int("calls", 120, "how many calls TestSampledCalls samples")

// schemaMaker makes schemas of arguments at random.
type schemaMaker struct{ *rand.Rand }

func (r schemaMaker) pick(list ...string) string { return list[r.IntN(len(list))] }

func (r schemaMaker) value(depth int) map[string]any {
	kinds := []string{"string", "string", "integer", "number", "boolean", "enum", "null", "length", "pattern", "any", "mixed"}
	if depth < 2 {
		kinds = append(kinds, "array", "array", "object", "object", "anyOf", "tuple")
	}
	switch kind := r.pick(kinds...); kind {
	case "enum":
		return map[string]any{"enum": []any{"a", "b c", "<d>", float64(3), true}[:1+r.IntN(5)]}
	case "length":
		return map[string]any{"type": "string", "minLength": r.IntN(3), "maxLength": 3 + r.IntN(9)}
	case "pattern":
		return map[string]any{"type": "string", "pattern": r.pick(`^[a-z]{2,5}$`, `^\d{3}-\d{2}$`, `^(x|y)+$`, `[0-9]`)}
	case "any":
		return map[string]any{"description": "anything"}
	case "mixed":
		return map[string]any{"type": [][]any{{"string", "null"}, {"integer", "null"}, {"boolean", "string"}}[r.IntN(3)]}
	case "array":
		s := map[string]any{"type": "array", "items": r.value(depth + 1)}
		if r.IntN(2) == 0 {
			s["minItems"], s["maxItems"] = r.IntN(2), 2+r.IntN(3)
		}
		return s
	case "tuple":
		return map[string]any{"type": "array", "prefixItems": []any{r.value(depth + 1), r.value(depth + 1)}, "items": false, "minItems": 2}
	case "object":
		return r.object(depth + 1)
	case "anyOf":
		return map[string]any{"anyOf": []any{r.value(depth + 1), r.value(depth + 1)}}
	case "integer", "number":
		s := map[string]any{"type": kind}
		if r.IntN(2) == 0 {
			s["minimum"], s["maximum"] = r.IntN(10)-5, 5+r.IntN(1000)
		}
		return s
	default:
		return map[string]any{"type": kind}
	}
}

func (r schemaMaker) object(depth int) map[string]any {
	properties, required := map[string]any{}, []any{}
	for i := range r.IntN(5) {
		name := r.pick("city", "a", "max_items", "Name", "x-y") + fmt.Sprint(i)
		if depth == 0 {
			name = strings.ReplaceAll(name, "-", "_")
		}
		properties[name] = r.value(depth)
		if r.IntN(2) == 0 {
			required = append(required, name)
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "required": required}
	if r.IntN(6) == 0 {
		s["additionalProperties"] = map[string]any{"type": r.pick("integer", "string", "boolean")}
	}
	return s
}

// sampler draws texts of a grammar, byte by byte, at a temperature of 1.5. The
// scores are those of a model that knows its marks and little else.
type sampler struct {
	*rand.Rand
	trie  *native.TokenTrie
	marks []string // what the model is inclined to finish
}

func (r *sampler) score(b int, text []byte, closing float64) float64 {
	score := 2 * r.NormFloat64()
	switch c := byte(b); {
	case b == 256:
		return score + 4 + closing
	case c < 0x20 || c == 0x7f:
		score -= 7
	case c >= 0x80:
		score -= 4
	case c == '\\':
		score--
	case strings.IndexByte(`"'}])`, c) >= 0:
		score += closing
	case strings.IndexByte(`{[(`, c) >= 0:
		score -= closing
	}
	for _, mark := range r.marks {
		for n := min(len(mark)-1, len(text)); n >= 0; n-- {
			if mark[n] == byte(b) && bytes.HasSuffix(text, []byte(mark[:n])) {
				if n == 0 {
					score += closing - 1
				} else {
					score += 6 + closing
				}
				break
			}
		}
	}
	return score
}

// text draws a text; ok is false if it does not end.
func (r *sampler) text(t *testing.T, g Grammar) (string, bool) {
	m, err := r.trie.NewMatcher(string(g.Kind), g.Text, native.MatcherLimits{}, 0)
	if err != nil {
		t.Fatalf("%v in\n%s", err, g.Text)
	}
	defer m.Free()
	mask := make([]uint32, r.trie.Words())
	var text []byte
	for len(text) < 6000 {
		if err := m.Mask(mask); err != nil {
			t.Fatal(err)
		}
		best, highest := -1, math.Inf(-1)
		closing := float64(len(text)) / 40
		for b := range 257 {
			if mask[b/32]>>(b%32)&1 == 0 {
				continue
			}
			// The highest of scores with Gumbel's noise is a draw from their softmax.
			if s := r.score(b, text, closing)/1.5 - math.Log(r.ExpFloat64()); s > highest {
				best, highest = b, s
			}
		}
		if best == 256 {
			return string(text), true
		}
		if best < 0 {
			t.Fatalf("nothing is allowed after %q by\n%s", text, g.Text)
		}
		if err := m.Accept(int32(best)); err != nil {
			t.Fatal(err)
		}
		text = append(text, byte(best))
	}
	return string(text), false
}

// However wild the model, a call in any format is one of a tool, its arguments
// are those of the tool's schema, and a stream of it is the whole.
func TestSampledCalls(t *testing.T) {
	const schemas = 200
	trie := byteTrie(t)
	all := testedFormats(t)
	random := schemaMaker{rand.New(rand.NewPCG(7, 1))}
	var tools []Tool
	var valid []*jsonschema.Schema
	for i := range schemas {
		text, err := json.Marshal(random.object(0))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource("s.json", doc); err != nil {
			t.Fatal(err)
		}
		tools = append(tools, Tool{Name: fmt.Sprintf("tool_%d", i), Parameters: text})
		valid = append(valid, c.MustCompile("s.json"))
	}
	calls, endless, refused := 0, 0, 0
	for i := 0; calls < *sampledCalls; i++ {
		f := all[i%len(all)]
		at := i % schemas
		s := Selection{Tools: tools[at : at+1], Required: true, Parallel: i%3 == 0}
		c, err := s.Constraint(f)
		if err != nil {
			refused++
			continue
		}
		r := &sampler{Rand: rand.New(rand.NewPCG(uint64(i), 2)), trie: trie, marks: []string{strings.TrimSpace(f.Calls.Tags.End), f.Calls.End, f.Calls.Close, gemmaQuote, "<|end|><|start|>assistant"}}
		r.marks = r.marks[:len(r.marks):len(r.marks)]
		for j := len(r.marks) - 1; j >= 0; j-- {
			if m := r.marks[j]; m == "" || m == gemmaQuote && f.Calls.Arguments != GemmaArguments || strings.HasPrefix(m, "<|end|>") && !f.Reasoning.Channels {
				r.marks = append(r.marks[:j:j], r.marks[j+1:]...)
			}
		}
		text, ok := r.text(t, c.Grammar)
		if !ok {
			endless++
			continue
		}
		if !utf8.ValidString(text) {
			t.Fatalf("%s: %q is not UTF-8", f.Name, text)
		}
		whole := answerOfText(f, s, text, len(text))
		if f.Template != nil {
			// transformers ends a region or an argument at its mark, also inside of a string.
			end, tags := strings.TrimLeft(unspaced(f.Calls.End+f.Calls.Close), "}])"), f.Calls.Tags
			if strings.Count(text, end) != max(1, len(whole.Calls)) || tags.End != "" && strings.Count(text, tags.Begin) != strings.Count(text, tags.End) {
				continue
			}
		}
		if strings.TrimSpace(whole.Content) != "" || len(whole.Calls) == 0 {
			t.Errorf("%s: %q is %s by %s", f.Name, text, whole, tools[at].Parameters)
		}
		for _, call := range whole.Calls {
			calls++
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(call.Arguments))
			if err == nil {
				err = valid[at].Validate(v)
			}
			if err != nil || call.Name != tools[at].Name {
				t.Errorf("%s: %q is %s by %s: %v", f.Name, text, whole, tools[at].Parameters, err)
			}
		}
		if n := 1 + i%7; !reflect.DeepEqual(answerOfText(f, s, text, n), whole) {
			t.Errorf("%s: %q in pieces of %d bytes is %s, whole %s", f.Name, text, n, answerOfText(f, s, text, n), whole)
		}
		if len(whole.Calls) > 30 {
			t.Fatalf("%s: %d calls", f.Name, len(whole.Calls))
		}
	}
	if endless > calls/10 || refused > calls/10 {
		t.Errorf("%d calls, %d texts without an end, %d schemas refused", calls, endless, refused)
	}
	t.Logf("%d calls, %d texts without an end, %d schemas refused", calls, endless, refused)
}
