package engine

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/sim"
)

// countingVocabulary counts the bytes that it makes tokens of.
type countingVocabulary struct {
	grammartest.Vocabulary
	bytes *atomic.Int64
}

func (v countingVocabulary) Encode(text string, special bool) ([]int32, error) {
	v.bytes.Add(int64(len(text)))
	return v.Vocabulary.Encode(text, special)
}

// A long text that a grammar forces costs work in proportion to its length, none of
// it on the loop, and is computed within the budget of steps: a reader beside it has
// a token of each. Its tokens are those of the whole text.
func TestLongForcedText(t *testing.T) {
	const size, budget, forks = 30_000, 256, 4
	text := strings.Repeat("abcab true, xya", size/15)
	want, err := vocabulary.Encode(fmt.Sprintf("%q", text), false)
	if err != nil {
		t.Fatal(err)
	}
	constant := fmt.Sprintf(`{"const":%q}`, text)
	schemas := []string{constant, fmt.Sprintf(`{"anyOf":[%s,{"type":"integer","minimum":0}]}`, constant)}

	for _, synchronous := range []bool{false, true} {
		t.Run(fmt.Sprintf("synchronous=%v", synchronous), func(t *testing.T) {
			var encoded atomic.Int64
			c, err := grammar.NewCompiler(countingVocabulary{vocabulary, &encoded}, int(vocabulary), []int32{grammartest.EOS})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			pages := len(want)/device.PageTokens + 2
			w := newWorld(t, Config{
				Device: device.Limits{MaxTokens: budget, MaxRows: budget, MaxSlots: 16, MaxPagesPerSlot: pages},
				Pages:  pages * (len(schemas)*forks + 1), Memory: 1 << 30,
			}, sim.Config{Model: grammarModel, Synchronous: synchronous, Fast: true})
			w.e.cfg.Compiler = func() (Compiler, error) { return c, nil }

			reader := mustSubmit(t, w.e, constrainedRequest(10_000))
			var streams []*Stream
			for _, schema := range schemas {
				r := constrainedRequest(len(want) + 1)
				r.Constraint = &Constraint{Grammar: grammartest.Compile(t, c, grammar.JSONSchema, schema)}
				family, err := w.e.SubmitN(t.Context(), r, make([]uint64, forks))
				if err != nil {
					t.Fatal(err)
				}
				streams = append(streams, family...)
			}
			got := make([][]int32, len(streams))
			turns, stalls := 0, 0
			for open := len(streams); open > 0; turns++ {
				before := reader.state.Load()
				if _, err := w.e.tick(); err != nil || turns > 20_000 {
					t.Fatalf("after %d turns: %v", turns, err)
				}
				if reader.state.Load() == before {
					stalls++
				}
				for i, s := range streams {
					if s == nil || s.state.Load() == int64(s.read)<<1 {
						continue // nothing new
					}
					tokens, err := s.Next(t.Context())
					switch {
					case errors.Is(err, io.EOF):
						open--
						streams[i] = nil
					case err != nil || len(tokens) > budget:
						t.Fatalf("%d tokens at once, %v", len(tokens), err)
					}
					for _, token := range tokens {
						got[i] = append(got[i], token.ID)
					}
				}
			}
			if stalls > 3 {
				t.Errorf("who reads beside them had nothing in %d of %d turns", stalls, turns)
			}
			for i, ids := range got {
				if ids = ids[:min(len(ids), len(want))]; (i < forks || len(ids) == len(want)) && !slices.Equal(ids, want) {
					t.Errorf("sequence %d: %d tokens that are not those of the whole text", i, len(ids))
				}
			}
			// Once where a schema is compiled, once for each sequence at most.
			if n := encoded.Load(); n > int64(2+len(streams))*size {
				t.Errorf("%d bytes were shown to the tokenizer for texts of %d", n, size)
			}
		})
	}
}

// Beside a sequence that someone reads, steps with forced text are not as long as
// those with prompts may be.
func TestForcedTextIsPaced(t *testing.T) {
	text := strings.Repeat("abcab true, xya", 100)
	pages := 60
	w := newWorld(t, Config{
		Device: device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 4, MaxPagesPerSlot: pages}, Pages: 4 * pages,
	}, sim.Config{Model: grammarModel, Fast: true, Latency: func(tokens int) time.Duration { return time.Duration(tokens) * time.Millisecond }})
	w.e.cfg.Compiler = lateIf(onTime) // else the other sequence may end before the text is there
	mustSubmit(t, w.e, constrainedRequest(900))
	r := constrainedRequest(900)
	r.Constraint = &Constraint{Grammar: grammartest.Compile(t, compiler(t), grammar.JSONSchema, fmt.Sprintf(`{"const":%q}`, text))}
	s := mustSubmit(t, w.e, r)
	longest, total := 0, 0
	w.onStep = func(st *step) {
		total += len(st.batch.Tokens)
		longest = max(longest, len(st.batch.Tokens))
	}
	for !s.Done() && s.state.Load()&1 == 0 {
		if _, err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	if total < 500 || longest > 50 {
		t.Errorf("%d tokens in steps of up to %d, want no more than what takes 50 ms", total, longest)
	}
}
