package engine

import (
	"github.com/millrace-ai/millrace/engine/grammar"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
)

func TestWatch(t *testing.T) {
	for _, tt := range []struct {
		name     string
		triggers []string // ^ before one: at the start only
		text     []string // of each token
		fires    int      // at which token; -1: never
		next     string   // what the grammar, (abc|x)y of the last trigger, then allows
		over     bool
	}{
		{name: "in one token", triggers: []string{"true"}, text: []string{"x", "true"}, fires: 1, next: "abcy"},
		{name: "across tokens", triggers: []string{"<call>"}, text: []string{"<ca", "l", "l", ">"}, fires: 3, next: "xy"},
		{name: "a special token", triggers: []string{"<call>"}, text: []string{"x", "<call>"}, fires: 1, next: "xy"},
		{name: "an overlap", triggers: []string{"aab"}, text: []string{"a", "a", "a", "b"}, fires: 3, next: "xy"},
		{name: "never", triggers: []string{"aab"}, text: []string{"a", "b", "a", "x"}, fires: -1},
		{name: "rest accepted", triggers: []string{"<c"}, text: []string{"b", "<ca"}, fires: 1, next: "bcy"},
		{name: "rest refused", triggers: []string{"<"}, text: []string{"b", "<ca"}, fires: -1},
		{name: "rest refused once", triggers: []string{"{"}, text: []string{`{"`, "a{"}, fires: 1, next: "xy"},
		{name: "up to a token's end", triggers: []string{"<c"}, text: []string{"<", "c", "abc"}, fires: 1, next: "xy"},
		{name: "at the start", triggers: []string{"^{"}, text: []string{" ", "{"}, fires: 1, next: "xy"},
		{name: "not at the start", triggers: []string{"^{"}, text: []string{"x", "{"}, fires: -1, over: true},
		{name: "not at the start, another", triggers: []string{"^{", "1"}, text: []string{"x", "{", "1"}, fires: 2, next: "xy"},
		{name: "the longer of two", triggers: []string{"b", "ab"}, text: []string{"a", "b"}, fires: 1, next: "xy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var triggers []Trigger
			for _, text := range tt.triggers {
				atStart := text[0] == '^'
				if atStart {
					text = text[1:]
				}
				triggers = append(triggers, Trigger{text, atStart, matcher(t, `(abc|x)y`)})
			}
			w := newWatch(triggers)
			fired := -1
			for i, text := range tt.text {
				w.read([]byte(text))
				var m *grammar.Matcher
				for fires, rest := w.next(); fires != nil; fires, rest = w.next() {
					compiler(t).Enter(fires.Grammar, rest, 0)
					compiler(t).Moves([]*grammar.Matcher{fires.Grammar}, time.Time{})
					move, ok, err := compiler(t).Moved(fires.Grammar)
					if !ok || err != nil {
						t.Fatal(ok, err)
					}
					if !move.Refused {
						m = fires.Grammar
						break
					}
				}
				if m == nil {
					continue
				}
				fired = i
				if err := m.AcceptText([]byte(tt.next)); err != nil || !m.Accepting() {
					t.Errorf("%q does not follow: %v", tt.next, err)
				}
				break
			}
			if fired != tt.fires || w.over() != tt.over {
				t.Errorf("fired at token %d, want %d; over is %v, want %v", fired, tt.fires, w.over(), tt.over)
			}
		})
	}
}

// tokenOf returns the token with the text.
func tokenOf(t testing.TB, text string) int32 {
	t.Helper()
	for id := range int32(grammartest.MinSize) {
		if vocabulary.Text(id) == text {
			return id
		}
	}
	t.Fatalf("no token is %q", text)
	return 0
}
