package engine

import (
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/grammar"
	"github.com/millrace-ai/millrace/engine/grammar/grammartest"
	"github.com/millrace-ai/millrace/engine/sim"
)

// ids returns n tokens from first on.
func ids(first int32, n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = first + int32(i)
	}
	return out
}

// Lists that make no sense are refused by what is wrong with them.
func TestTokenListsChecked(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: testModel})
	for _, tt := range []struct {
		change func(r *Request)
		says   string
	}{
		{func(r *Request) { r.MinNewTokens = 6 }, "min_new_tokens is 6, must be 0 to max_new_tokens, which is 5"},
		{func(r *Request) { r.MinNewTokens = -1 }, "min_new_tokens is -1"},
		{func(r *Request) { r.StopTokens = make([]int32, MaxStopTokens+1) }, "1025 stop tokens, the limit is 1024"},
		{func(r *Request) { r.StopTokens = []int32{1, 500} }, "stop tokens: there is no token 500"},
		{func(r *Request) { r.AllowedTokens = []int32{} }, "allowed tokens is empty"},
		{func(r *Request) { r.AllowedTokens = []int32{-1} }, "allowed tokens: there is no token -1"},
		{func(r *Request) { r.AllowedTokens = make([]int32, MaxAllowedTokens+1) }, "allowed tokens, the limit is 65536"},
		{func(r *Request) { r.BannedTokens = [][]int32{{1}, {}} }, "sequence is empty"},
		{func(r *Request) { r.BannedTokens = [][]int32{{1, 777}} }, "banned tokens: there is no token 777"},
		{func(r *Request) { r.BannedTokens = make([][]int32, MaxBannedSequences+1) }, "1025 token sequences are banned"},
		{func(r *Request) { r.BannedTokens = [][]int32{make([]int32, MaxBannedTokens+1)} }, "4097 banned tokens"},
		{func(r *Request) { r.AllowedTokens, r.BannedTokens = []int32{7}, [][]int32{{7}} }, "leave no token"},
		{func(r *Request) { r.AllowedTokens, r.MinNewTokens = []int32{testModel.EOS}, 1 }, "leave no token"},
		{func(r *Request) {
			r.AllowedTokens, r.StopTokens, r.MinNewTokens = []int32{7, 8}, []int32{8, 7}, 1
		}, "leave no token"},
	} {
		r := greedy(1, 5, 5)
		tt.change(r)
		if _, err := w.submit(r); kind(err) != Invalid || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v, want Invalid and %q", err, tt.says)
		}
	}
	if n := w.e.account.used.Load(); n != 0 || w.e.queued.Load() != 0 {
		t.Errorf("%d bytes and %d requests are counted of what was refused", n, w.e.queued.Load())
	}
}

// What each list does to a text, as compared with the model by the world, and the
// reason why it ends.
func TestTokenRules(t *testing.T) {
	ending := sim.Model{Seed: 1, Vocab: 40, First: 3, EOS: 2, EOSRate: 0.5}
	for _, tt := range []struct {
		name   string
		change func(r *Request)
		check  func(got []int32) bool
		finish FinishReason
	}{
		{"no end before the minimum", func(r *Request) { r.MinNewTokens = 20 },
			func(got []int32) bool { return len(got) > 20 && !slices.Contains(got[:20], 2) }, FinishEOS},
		{"no stop token before the minimum", func(r *Request) { r.IgnoreEOS, r.MinNewTokens, r.StopTokens = true, 10, ids(3, 30) },
			func(got []int32) bool {
				return len(got) > 10 && !slices.ContainsFunc(got[:10], func(t int32) bool { return t > 2 && t < 33 })
			}, FinishStopToken},
		{"the first stop token ends", func(r *Request) { r.IgnoreEOS, r.StopTokens = true, ids(3, 37) },
			func(got []int32) bool {
				return len(got) > 0 && !slices.ContainsFunc(got[:len(got)-1], func(t int32) bool { return t > 2 })
			}, FinishStopToken},
		{"nothing else is allowed", func(r *Request) { r.AllowedTokens = []int32{5, 6, 7} },
			func(got []int32) bool {
				return !slices.ContainsFunc(got, func(t int32) bool { return t < 5 || t > 7 })
			}, FinishLength},
		{"a token is banned", func(r *Request) { r.BannedTokens = [][]int32{{2}} },
			func(got []int32) bool { return !slices.Contains(got, 2) }, FinishLength},
		{"a sequence is banned", func(r *Request) {
			r.AllowedTokens, r.BannedTokens = []int32{5, 6, 7}, [][]int32{{5, 5}, {6, 5, 6}}
		}, func(got []int32) bool {
			text := ""
			for _, t := range got {
				text += string('0' + t)
			}
			return !strings.Contains(text, "55") && !strings.Contains(text, "656") && len(got) == 40
		}, FinishLength},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: ending})
			r := greedy(1, 5, 40)
			r.Tokens, r.Params.Sample = ids(3, 5), 1
			tt.change(r)
			cs, err := w.submitN(t, r, nil, []uint64{1, 2, 3})
			if err != nil {
				t.Fatal(err)
			}
			w.finish(t)
			for _, c := range cs {
				var got []int32
				for _, tok := range c.got {
					got = append(got, tok.ID)
				}
				if !tt.check(got) || c.stream.Finish() != tt.finish {
					t.Errorf("%v, finish %d, want %d", got, c.stream.Finish(), tt.finish)
				}
			}
		})
	}
}

// A list and a grammar, or two lists, that leave no token fail the request when it
// comes to that, and no other; a grammar that has nothing else to come may end.
func TestTokenRulesConflict(t *testing.T) {
	digit := func(s string) int32 { return tokenOf(t, s) }
	for _, tt := range []struct {
		name    string
		grammar string
		change  func(r *Request)
		text    string
		fails   bool
	}{
		{name: "forced and not allowed", grammar: `[12]true`, text: "1", fails: true,
			change: func(r *Request) { r.AllowedTokens = []int32{digit("1")} }},
		{name: "forced and banned after another", grammar: `1true`, text: "1", fails: true,
			change: func(r *Request) { r.BannedTokens = [][]int32{{digit("1"), tokenOf(t, "true")}} }},
		{name: "the first one is banned", grammar: `1true`, fails: true,
			change: func(r *Request) { r.BannedTokens = [][]int32{{digit("1")}} }},
		{name: "the end is not allowed", grammar: `[12]`, text: "1</s>",
			change: func(r *Request) { r.AllowedTokens = []int32{digit("1")} }},
		{name: "the end comes before the minimum", grammar: `[12]3`, text: "13</s>",
			change: func(r *Request) { r.AllowedTokens, r.MinNewTokens = []int32{digit("1"), digit("3")}, 9 }},
		{name: "not the end while there is more", grammar: `1{1,5}`, text: "11111</s>",
			change: func(r *Request) { r.MinNewTokens = 9 }},
		{name: "two lists", text: "1", fails: true,
			change: func(r *Request) {
				r.AllowedTokens, r.BannedTokens = []int32{digit("1")}, [][]int32{{digit("1"), digit("1")}}
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: grammarModel})
			r := constrainedRequest(20)
			tt.change(r)
			var spec *constraintSpec
			if tt.grammar != "" {
				spec = &constraintSpec{grammar: regex(tt.grammar)}
			}
			cs, err := w.submitN(t, r, spec, []uint64{1})
			if err != nil {
				t.Fatal(err)
			}
			other := w.ask(t, []int32{9}, 20)
			w.finish(t)
			text := ""
			for _, tok := range cs[0].got {
				text += vocabulary.Text(tok.ID)
			}
			if err := cs[0].err; text != tt.text || tt.fails != (kind(err) == Failed) || !tt.fails && err != io.EOF {
				t.Errorf("%q, then %v; want %q, failed %v", text, err, tt.text, tt.fails)
			}
			if other.err != io.EOF {
				t.Errorf("the other ended with %v", other.err)
			}
		})
	}
}

// A request with rules that do not depend on the last token is sampled as early as one
// asks for none.
func TestStaticRulesDoNotWait(t *testing.T) {
	for _, tt := range []struct {
		change func(r *Request)
		waits  bool
	}{
		{func(r *Request) { r.MinNewTokens, r.AllowedTokens, r.BannedTokens = 4, ids(3, 100), [][]int32{{9}} }, false},
		{func(r *Request) { r.BannedTokens = [][]int32{{9, 9}} }, true},
	} {
		w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: testModel})
		r := greedy(1, 5, 10)
		tt.change(r)
		if _, err := w.submit(r); err != nil {
			t.Fatal(err)
		}
		w.onStep = func(st *step) {
			if st.awaitsMasks != tt.waits {
				t.Errorf("step %d waits: %v, want %v", st.number, st.awaitsMasks, tt.waits)
			}
		}
		w.finish(t)
	}
}

// A prompt that is only scored takes one step where it fits, has alternatives, and
// ends with no token; also if it is a single one.
func TestScoreOnly(t *testing.T) {
	for _, tt := range []struct{ prompt, budget, steps int }{{1, 64, 0}, {2, 64, 1}, {40, 64, 1}, {64, 64, 1}, {65, 64, 1}, {66, 64, 2}, {40, 10, 4}} {
		w := newWorld(t, Config{Device: small, Pages: 40, MaxBatchTokens: tt.budget}, sim.Config{Model: testModel})
		r := greedy(1, tt.prompt, 0)
		r.PromptLogprobs, r.TopN = true, 3
		c, err := w.submit(r)
		if err != nil {
			t.Fatal(err)
		}
		w.finish(t) // compares scores and alternatives
		prompt := c.stream.Prompt()
		if c.err != io.EOF || len(c.got) != 0 || c.stream.Finish() != FinishLength || len(prompt) != tt.prompt || len(w.steps) != tt.steps {
			t.Errorf("%d tokens in steps of %d: %v, %d generated, finish %d, %d scored, %d steps, want %d",
				tt.prompt, tt.budget, c.err, len(c.got), c.stream.Finish(), len(prompt), len(w.steps), tt.steps)
		}
		if !math.IsNaN(float64(prompt[0].Logprob)) || prompt[0].Top != nil || tt.prompt > 1 && len(prompt[1].Top) != 3 {
			t.Errorf("prompt %+v", prompt[:min(2, len(prompt))])
		}
	}
	w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: testModel})
	r := greedy(1, 5, 0)
	if _, err := w.submit(r); kind(err) != Invalid {
		t.Errorf("neither a token nor a score: %v", err)
	}
	r.PromptLogprobs = true
	if _, err := w.submitN(t, r, nil, []uint64{1, 2}); kind(err) != Invalid {
		t.Errorf("two sequences of nothing: %v", err)
	}
}

// A trigger whose text is refused is asked again for the next token, and the text
// goes on free meanwhile.
func TestTriggerIsAskedAgain(t *testing.T) {
	w := newWorld(t, Config{Device: small, Pages: 40}, sim.Config{Model: grammarModel})
	r := constrainedRequest(40)
	r.AllowedTokens = []int32{tokenOf(t, "a{"), tokenOf(t, `{"`), tokenOf(t, "x"), tokenOf(t, "1")}
	spec := &constraintSpec{triggers: []triggerSpec{{"{", false, &testGrammar{grammar.Regex, `1x1`, matching(`1x1`)}}, {"a", false, regex(`y`)}}}
	spec.compile(t).Close() // into the cache
	open := compiler(t).Open()
	for seed := range uint64(20) {
		r := *r
		r.Params.Sample = 1
		if _, err := w.submitN(t, &r, spec, []uint64{seed}); err != nil {
			t.Fatal(err)
		}
		w.finish(t)
	}
	grammartest.CheckClosed(t, compiler(t), open)
}
