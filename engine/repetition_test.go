package engine

import (
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/sim"
)

// A sequence ends with the token that completes a repetition, the reason says so,
// and what is not one goes on. The texts are those of vLLM's
// check_sequence_repetition.
func TestRepetition(t *testing.T) {
	for _, tt := range []struct {
		name string
		text string
		r    Repetition
		want int // tokens
	}{
		{"one token", "xyaaaab", Repetition{1, 1, 3}, 5},
		{"two tokens", "xababab", Repetition{1, 4, 3}, 7},
		{"twice is not three times", "xababxabab", Repetition{2, 4, 3}, 0},
		{"a shorter repetition does not count", "aaaaaaa", Repetition{4, 4, 2}, 0},
		{"a multiple of a shorter one does", "aaaaaaaaa", Repetition{4, 4, 2}, 8},
		{"from the first token on", "abcabc", Repetition{3, 3, 2}, 6},
		{"interrupted", "abababxab", Repetition{2, 2, 4}, 0},
		{"the shortest counts", "abcabcabc", Repetition{1, 3, 3}, 9},
		{"never", strings.Repeat("a", 30), Repetition{}, 0},
		{"a long one", "x" + strings.Repeat("abcdefghij", 3), Repetition{1, 10, 3}, 31},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := &Request{Tokens: []int32{1}, MaxNewTokens: 64, Repetition: tt.r}
			s := &sequence{req: req, output: newOutput(new(Stream), 64), equal: make([]int32, tt.r.sizes())}
			got := 0
			for i := range len(tt.text) {
				s.append(Token{ID: int32(tt.text[i])})
				if s.repeats() && got == 0 {
					got = i + 1
				}
			}
			if got != tt.want {
				t.Errorf("%q: a repetition after %d tokens, want %d", tt.text, got, tt.want)
			}
		})
	}
}

// A model with few tokens repeats itself soon. Not before its minimum, though.
func TestRepetitionEnds(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: sim.Model{Seed: 1, Vocab: 6, First: 3, EOS: 2}})
	for least, want := range map[int]int{0: 0, 30: 30} {
		r := greedy(1, 5, 40)
		r.Tokens, r.Params.Sample, r.MinNewTokens = ids(3, 3), 1, least
		r.Repetition = Repetition{1, 8, 2}
		c, err := w.submit(r)
		if err != nil {
			t.Fatal(err)
		}
		w.finish(t)
		if c.stream.Finish() != FinishRepetition || len(c.got) < want || len(c.got) == 40 {
			t.Errorf("at least %d: %d tokens, reason %d", least, len(c.got), c.stream.Finish())
		}
	}
	for _, r := range []Repetition{{0, 1, 2}, {2, 1, 2}, {1, MaxRepeated + 1, 2}, {1, 1, 1}, {Count: 2}, {Min: 1}} {
		req := greedy(1, 5, 5)
		req.Repetition = r
		if _, err := w.submit(req); kind(err) != Invalid {
			t.Errorf("%+v: %v, want Invalid", r, err)
		}
	}
}
