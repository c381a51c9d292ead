package grammar

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Whatever the text, Compile returns a matcher that gives a mask, or an error
// of one of the kinds that it promises.
func FuzzCompile(f *testing.F) {
	kinds := []Kind{JSONSchema, Regex, Lark}
	for _, schema := range walkSchemas {
		f.Add(uint8(0), schema)
	}
	for _, text := range []string{`{"$ref":"#"}`, `{"allOf":[{"pattern":"a"},{"format":"date"}],"multipleOf":1e-3}`, `{"patternProperties":{"^a":false},"required":["a"]}`, `{"enum":[{"a":[1.5e3,null]}]}`, `true`} {
		f.Add(uint8(0), text)
	}
	f.Add(uint8(1), `(a|[^b]\d{2,5})*?\p{L}`)
	f.Add(uint8(2), "start: a | \"x\" /y+/\na: %json {\"type\":\"null\"}")
	c := compilerOfBytes(f)
	mask := make([]uint32, c.MaskWords())
	f.Fuzz(func(t *testing.T, kind uint8, text string) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		m, err := c.Compile(ctx, Spec{Kind: kinds[int(kind)%len(kinds)], Text: text})
		if err != nil {
			var fault *Error
			if !errors.As(err, &fault) && !errors.Is(err, ErrBusy) {
				t.Fatalf("error %v of an unknown kind", err)
			}
			return
		}
		defer m.Close()
		if err := m.Mask(mask); err != nil {
			t.Fatalf("compiles, but has no mask: %v", err)
		}
		for _, id := range m.Forced(nil) {
			if err := m.Accept(id); err != nil {
				t.Fatalf("forced token %d: %v", id, err)
			}
		}
	})
}
