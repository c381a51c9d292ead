package grammar

import (
	"fmt"
	"testing"
)

// A Lark grammar names special tokens by their ids: they come where it says and
// nowhere else, are forced where nothing else may come, and end a text of any
// characters before them.
func TestSpecialTokensByID(t *testing.T) {
	c := compilerOfBytes(t)
	for _, tt := range []struct {
		name, text string
		tokens     []int32
		forced     string // what must come at the beginning
	}{
		{name: "first", text: fmt.Sprintf(`start: <[%d]> "ab"`, bytesSpecial), tokens: []int32{bytesSpecial, 'a', 'b'}, forced: "[256 97 98]"},
		{name: "last", text: fmt.Sprintf(`start: "ab" <[%d]>`, bytesSpecial), tokens: []int32{'a', 'b', bytesSpecial}, forced: "[97 98 256]"},
		{name: "after any text", text: fmt.Sprintf("start: TEXT <[%d]> \"c\"\nTEXT: /(?s:.*)/", bytesSpecial), tokens: []int32{'a', '<', bytesSpecial, 'c'}, forced: "[]"},
		{name: "after JSON", text: fmt.Sprintf("start: %%json {\"type\":\"integer\"} <[%d]>", bytesSpecial), tokens: []int32{'1', '2', bytesSpecial}, forced: "[]"},
		{name: "in a loop", text: fmt.Sprintf(`start: "a" (<[%d]> "a")*`, bytesSpecial), tokens: []int32{'a', bytesSpecial, 'a', bytesSpecial, 'a'}, forced: "[97]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := mustCompile(t, c, Spec{Kind: Lark, Text: tt.text})
			if got := fmt.Sprint(m.Forced(nil)); got != tt.forced {
				t.Errorf("forced %s, want %s", got, tt.forced)
			}
			mask := make([]uint32, c.MaskWords())
			for i, id := range tt.tokens {
				if err := m.Mask(mask); err != nil {
					t.Fatal(err)
				}
				if !isSet(mask, id) {
					t.Fatalf("token %d is not allowed after %v", id, tt.tokens[:i])
				}
				if err := m.Accept(id); err != nil {
					t.Fatal(err)
				}
			}
			if !m.Accepting() {
				t.Error("the text is not whole")
			}
		})
	}
}
