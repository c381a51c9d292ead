package handler

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
)

// TestBestOf pins TGI's answer: the likeliest sequence by its tokens' mean, the
// others in their order, seeds of their own.
func TestBestOf(t *testing.T) {
	const best = `{"inputs":"x","parameters":{"best_of":%d,"do_sample":true%s}}`
	sequence := func(id int32, logprob string, extra string) string {
		return fmt.Sprintf(`"finish_reason":"length","generated_tokens":1,"seed":0,"prefill":[%s],"tokens":[{"id":%d,"text":%q,"logprob":%s,"special":false}]`, extra, id, textOf(testTokenizer(), id), logprob)
	}
	scores := []float32{-2, -0.5, -0.5}
	gen := func() *fake {
		gen := new(fake)
		gen.script = func(req *engine.Request, out *engine.StreamWriter) {
			i := gen.submitted(req)
			if req.PromptLogprobs {
				out.Prompt(scored(req, 0))
			}
			out.End(engine.FinishLength, nil, engine.Token{ID: 276 + int32(i), Logprob: scores[i]})
		}
		return gen
	}
	text := func(i int) string { return textOf(testTokenizer(), 276+int32(i)) }
	seeds := regexp.MustCompile(`"seed":(\d+)`)
	const prefill = `{"id":640,"text":"<|begin_of_text|>","logprob":null},{"id":87,"text":"x","logprob":-1.0}`
	for _, tt := range []struct{ name, path, body, want string }{
		{"two", "/generate", fmt.Sprintf(best, 2, ""), `{"generated_text":"` + text(1) + `"}`},
		{"three, with details", "/generate", fmt.Sprintf(best, 3, `,"details":true`), `{"generated_text":"` + text(1) + `","details":{` + sequence(277, "-0.5", "") +
			`,"best_of_sequences":[{"generated_text":"` + text(0) + `",` + sequence(276, "-2.0", "") + `},{"generated_text":"` + text(2) + `",` + sequence(278, "-0.5", "") + `}]}}`},
		{"the prompt before all", "/", fmt.Sprintf(best, 2, `,"details":true`), `[{"generated_text":"x` + text(1) + `","details":{` + sequence(277, "-0.5", "") +
			`,"best_of_sequences":[{"generated_text":"x` + text(0) + `",` + sequence(276, "-2.0", "") + `}]}}]`},
		{"the prompt's tokens with all", "/generate", fmt.Sprintf(best, 2, `,"decoder_input_details":true`), `{"generated_text":"` + text(1) + `","details":{` + sequence(277, "-0.5", prefill) +
			`,"best_of_sequences":[{"generated_text":"` + text(0) + `",` + sequence(276, "-2.0", prefill) + `}]}}`},
		{"one is a plain answer", "/generate", fmt.Sprintf(best, 1, `,"details":true`), `{"generated_text":"` + text(0) + `","details":{` + sequence(276, "-2.0", "") + `}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTestServer(gen(), func(o *Options) { o.MaxBestOf = 3 })
			got := post(t, s, tt.path, tt.body)
			different := map[string]bool{}
			for _, m := range seeds.FindAllStringSubmatch(got.body, -1) {
				if different[m[1]] {
					t.Errorf("seed %s twice", m[1])
				}
				different[m[1]] = true
			}
			if body := seeds.ReplaceAllString(got.body, `"seed":0`); got.status != 200 || body != tt.want {
				t.Errorf("%s\n got %d %s\nwant 200 %s", tt.body, got.status, body, tt.want)
			}
			if n := s.permits.Load(); n != 0 {
				t.Errorf("%d permits are lost", n)
			}
		})
	}
}

// TestBestOfTopTokens puts them where TGI does: behind the other sequences.
func TestBestOfTopTokens(t *testing.T) {
	got := post(t, newTestServer(&fake{}), "/generate", `{"inputs":"x","parameters":{"best_of":2,"do_sample":true,"details":true,"top_n_tokens":1,"max_new_tokens":1}}`)
	var answer struct {
		Details struct {
			Top  [][]struct{ ID int } `json:"top_tokens"`
			Best []struct {
				Top [][]struct{ ID int } `json:"top_tokens"`
			} `json:"best_of_sequences"`
		}
	}
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || len(answer.Details.Top) != 1 || len(answer.Details.Best) != 1 || len(answer.Details.Best[0].Top) != 1 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if !regexp.MustCompile(`"best_of_sequences":\[\{.*"top_tokens":\[\[.*\]\]\}\],"top_tokens":`).MatchString(got.body) {
		t.Errorf("order: %s", got.body)
	}
}

// TestBestOfPermits takes one for each sequence, and refuses more than there
// can be.
func TestBestOfPermits(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.MaxConcurrentRequests, o.MaxBestOf = 2, 3 })
	for best, want := range map[int]int{2: 200, 3: 422} {
		got := post(t, s, "/generate", fmt.Sprintf(`{"inputs":"x","parameters":{"best_of":%d,"do_sample":true,"max_new_tokens":1}}`, best))
		if got.status != want {
			t.Errorf("best_of %d: %d %s, want %d", best, got.status, got.body, want)
		}
	}
	got := post(t, newTestServer(&fake{}, func(o *Options) { o.MaxBestOf = 1 }), "/generate", `{"inputs":"x","parameters":{"best_of":2}}`)
	if msg, _ := mustError(t, got); got.status != 422 || msg != "Input validation error: `best_of` != 1 is not allowed for this endpoint" {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestBestOfFailure ends all with the one that fails.
func TestBestOfFailure(t *testing.T) {
	gen := &fake{}
	gen.script = func(req *engine.Request, out *engine.StreamWriter) {
		if gen.submitted(req) == 1 {
			out.End(engine.NotFinished, &engine.Error{Kind: engine.Failed, Msg: "device lost"})
		} // the other never ends by itself
	}
	s := newTestServer(gen)
	got := post(t, s, "/generate", `{"inputs":"x","parameters":{"best_of":2,"do_sample":true}}`)
	if msg, _ := mustError(t, got); got.status != 424 || !strings.Contains(msg, "device lost") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if !gen.out[0].Closed() || !gen.out[1].Closed() || s.permits.Load() != 0 {
		t.Errorf("left open: %d permits", s.permits.Load())
	}
}
