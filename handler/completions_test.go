package handler

import (
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/handler/chat"
)

const completionsPath = "/v1/completions"

// TestCompletionAnswers holds complete answers: TGI's members in TGI's order,
// with what COMPAT.md says of them.
func TestCompletionAnswers(t *testing.T) {
	whole := func(choices string) string {
		return `{"object":"text_completion","id":"ID","created":0,"choices":[` + choices + `],"usage":{}}`
	}
	choice := func(index int, text, why string) string {
		return fmt.Sprintf(`{"index":%d,"text":%s,"logprobs":null,"finish_reason":"%s"}`, index, text, why)
	}
	for _, tt := range []struct{ name, body, says, want string }{
		{"a text", `{"prompt":"x"}`, " b c<|eot_id|>", whole(choice(0, `" b c"`, "stop"))},
		{"a length", `{"prompt":"x","max_tokens":1}`, " b c", whole(choice(0, `" b"`, "length"))},
		{"the stop string is left out (OpenAI stop)", `{"prompt":"x","stop":"c"}`, " b c d", whole(choice(0, `" b "`, "stop"))},
		{"a stop string inside a token", `{"prompt":"x","stop":["el"]}`, "hello", whole(choice(0, `"h"`, "stop"))},
		{"texts", `{"prompt":["x","y"],"max_tokens":1}`, " b", whole(choice(0, `" b"`, "length") + "," + choice(1, `" b"`, "length"))},
		{"tokens (token prompts)", `{"prompt":[87,276],"max_tokens":1}`, " b", whole(choice(0, `" b"`, "length"))},
		{"lists of tokens (token prompts)", `{"prompt":[[87],[276]],"max_tokens":1}`, " b", whole(choice(0, `" b"`, "length") + "," + choice(1, `" b"`, "length"))},
		{"n of each (n)", `{"prompt":["x","y"],"max_tokens":1,"n":2}`, " b",
			whole(choice(0, `" b"`, "length") + "," + choice(1, `" b"`, "length") + "," + choice(2, `" b"`, "length") + "," + choice(3, `" b"`, "length"))},
		{"the prompt first (echo)", `{"prompt":"x \"y","max_tokens":1,"echo":true}`, " b", whole(choice(0, `"x \"y b"`, "length"))},
		{"tokens first (echo)", `{"prompt":[640,87,276],"max_tokens":1,"echo":true}`, " b", whole(choice(0, `"x a b"`, "length"))},
		{"nulls", `{"prompt":"x","max_tokens":null,"echo":null,"n":null,"best_of":null,"logprobs":null,"suffix":null,"stop":null,"stream":null,"logit_bias":null,"user":null,"repetition_penalty":null}`,
			" b<|eot_id|>", whole(choice(0, `" b"`, "stop"))},
		{"fields that nobody knows", `{"prompt":"x","user":"u","x":[{}],"model":"tgi"}`, " b<|eot_id|>", whole(choice(0, `" b"`, "stop"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{completionsPath, "/invocations"} {
				s := newTestServer(&fake{script: says(tt.says)})
				got := post(t, s, path, tt.body)
				if got.status != 200 || fixed(got.body) != tt.want {
					t.Errorf("%s %s\n got %d %s\nwant 200 %s", path, tt.body, got.status, fixed(got.body), tt.want)
				}
				if n := s.permits.Load(); n != 0 {
					t.Errorf("%d permits are lost", n)
				}
			}
		})
	}
}

// TestCompletionLogprobs pins OpenAI's older form of them.
func TestCompletionLogprobs(t *testing.T) {
	for _, tt := range []struct{ name, body, says, want string }{
		{"with alternatives", `{"prompt":"x","logprobs":2}`, " a b<|eot_id|>",
			`{"tokens":[" a"," b","<|eot_id|>"],"token_logprobs":[-0.25,-0.25,-0.25],"top_logprobs":[{" a":-0.25," d":-1.25},{" b":-0.25," f":-1.25},{"<|eot_id|>":-0.25,"<tool call>":-1.25}],"text_offset":[0,2,4]}`},
		{"without", `{"prompt":"x","logprobs":0,"max_tokens":1}`, " a", `{"tokens":[" a"],"token_logprobs":[-0.25],"top_logprobs":null,"text_offset":[0]}`},
		{"parts of characters", `{"prompt":"x","logprobs":0}`, "é😀b<|eot_id|>",
			`{"tokens":["é","bytes:\\xf0\\x9f","bytes:\\x98","bytes:\\x80","b","<|eot_id|>"],"token_logprobs":[-0.25,-0.25,-0.25,-0.25,-0.25,-0.25],"top_logprobs":null,"text_offset":[0,1,1,1,2,3]}`},
		{"after the prompt", `{"prompt":"é x","logprobs":0,"echo":true,"max_tokens":1}`, " a",
			`{"tokens":["<|begin_of_text|>","é"," ","x"," a"],"token_logprobs":[null,-1.0,-2.0,-3.0,-0.25],"top_logprobs":null,"text_offset":[0,0,1,2,3]}`},
		{"of the prompt, too (echo)", `{"prompt":"x a","logprobs":1,"echo":true,"max_tokens":1}`, " a",
			`{"tokens":["<|begin_of_text|>","x"," a"," a"],"token_logprobs":[null,-1.0,-2.0,-0.25],"top_logprobs":[null,{"y":-0.5,"x":-1.0},{" d":-1.5," a":-2.0},{" a":-0.25}],"text_offset":[0,0,1,3]}`},
		{"of the prompt alone (echo)", `{"prompt":[640,87],"logprobs":2,"echo":true,"max_tokens":0}`, "",
			`{"tokens":["<|begin_of_text|>","x"],"token_logprobs":[null,-1.0],"top_logprobs":[null,{"y":-0.5,"x":-1.0}],"text_offset":[0,0]}`},
		{"no more than were asked for", `{"prompt":"x","logprobs":1,"prompt_logprobs":3,"max_tokens":1}`, " a",
			`{"tokens":[" a"],"token_logprobs":[-0.25],"top_logprobs":[{" a":-0.25}],"text_offset":[0]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got struct {
				Choices []struct{ Logprobs json.RawMessage }
			}
			a := post(t, newTestServer(&fake{script: says(tt.says)}), completionsPath, tt.body)
			if err := json.Unmarshal([]byte(a.body), &got); err != nil || len(got.Choices) != 1 || string(got.Choices[0].Logprobs) != tt.want {
				t.Errorf("%s: got %d %s\nwant %s", tt.body, a.status, a.body, tt.want)
			}
		})
	}
}

// TestPromptLogprobs pins vLLM's form of them, on both routes, and that a
// request may ask for nothing else.
func TestPromptLogprobs(t *testing.T) {
	const (
		x     = `"87":{"logprob":-1.0,"rank":2,"decoded_token":"x"}`
		above = `"88":{"logprob":-0.5,"rank":1,"decoded_token":"y"}`
		alone = `"87":{"logprob":-1.0,"rank":null,"decoded_token":"x"}`
	)
	for _, tt := range []struct{ fields, want string }{
		{`"prompt_logprobs":2`, `"prompt_logprobs":[null,{` + x + `,` + above + `}]`},
		{`"prompt_logprobs":1`, `"prompt_logprobs":[null,{` + alone + `,` + above + `}]`},
		{`"prompt_logprobs":0`, `"prompt_logprobs":[null,{` + alone + `}]`},
	} {
		for _, most := range []string{"0", "1"} {
			s := newChatServer(t, `{{ messages[0].content }}`, &fake{script: says(" a")})
			for path, body := range map[string]string{
				chatPath:        `{"messages":[{"role":"user","content":"<|begin_of_text|>x"}],"max_tokens":` + most + `,` + tt.fields + `}`,
				completionsPath: `{"prompt":[[640,87],[640,87]],"n":2,"max_tokens":` + most + `,` + tt.fields + `}`,
			} {
				if most == "0" {
					body = strings.Replace(body, `"n":2`, `"n":1`, 1)
					s = newChatServer(t, `{{ messages[0].content }}`, &fake{script: func(_ *engine.Request, out *engine.StreamWriter) { out.End(engine.FinishLength, nil) }})
				}
				got := post(t, s, path, body)
				want := 1
				if path == completionsPath {
					want = 2 + 2*len(strings.Trim(most, "0"))
				}
				if got.status != 200 || strings.Count(got.body, tt.want) != want || !json.Valid([]byte(got.body)) || !strings.Contains(got.body, `"finish_reason":"length"`) {
					t.Errorf("%s %s: %d %s\nwant %s", path, body, got.status, got.body, tt.want)
				}
				if got := got.header.Get("X-Generated-Tokens"); path == chatPath && got != most {
					t.Errorf("%s: %s tokens, want %s", body, got, most)
				}
			}
		}
	}
	for _, body := range []string{`{"prompt":"x","echo":true,"max_tokens":0,"stream":true}`, `{"prompt":["x","x"],"echo":true,"max_tokens":0,"stream":true}`} {
		got := post(t, newTestServer(&fake{script: func(_ *engine.Request, out *engine.StreamWriter) { out.End(engine.FinishLength, nil) }}), completionsPath, body)
		if n := strings.Count(body, `"x"`); got.status != 200 || strings.Count(got.body, `"text":"x","logprobs":null,"finish_reason":"length"`) != n {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
	if got := appendPromptLogprobs(nil, testTokenizer(), []engine.Token{{Logprob: nan}, {ID: 87, Logprob: float32(math.Inf(-1))}}, 0); string(got) != `"prompt_logprobs":[null,{"87":{"logprob":-9999.0,"rank":null,"decoded_token":"x"}}]` {
		t.Errorf("of what cannot be: %s", got)
	}
}

// completionEvent is an event of a stream before its last.
func completionEvent(index int, text string) string {
	return fmt.Sprintf(`data: {"object":"text_completion","id":"ID","created":0,"choices":[{"index":%d,"text":"%s","logprobs":null,"finish_reason":""}]}`, index, text)
}

// completionEnd is the last event of a choice.
func completionEnd(index int, text, why string) string {
	return fmt.Sprintf(`data: {"object":"text_completion","id":"ID","created":0,"choices":[{"index":%d,"text":"%s","logprobs":null,"finish_reason":"%s"}],"usage":{}}`, index, text, why)
}

// TestCompletionEvents holds complete streams. Those of several choices are
// compared without regard to how they are interleaved.
func TestCompletionEvents(t *testing.T) {
	for _, tt := range []struct {
		name, body, says string
		want             []string
	}{
		{"an end token has no text (completion streams)", `{"prompt":"x","stream":true}`, " b c<|eot_id|>",
			[]string{completionEvent(0, " b"), completionEvent(0, " c"), completionEnd(0, "", "stop")}},
		{"a length", `{"prompt":"x","stream":true,"max_tokens":2}`, " b c", []string{completionEvent(0, " b"), completionEnd(0, " c", "length")}},
		{"what may begin a stop string is held", `{"prompt":"x","stream":true,"stop":["b c"]}`, " b d b c e",
			[]string{completionEvent(0, " "), completionEvent(0, "b d"), completionEvent(0, " "), completionEnd(0, "", "stop")}},
		{"the prompt first (echo)", `{"prompt":"x","stream":true,"echo":true,"max_tokens":2}`, " b c", []string{completionEvent(0, "x b"), completionEnd(0, " c", "length")}},
		{"usage apart", `{"prompt":"x","stream":true,"max_tokens":1,"stream_options":{"include_usage":true}}`, " b", []string{
			strings.Replace(completionEvent(0, " b"), `"finish_reason":""`, `"finish_reason":"length"`, 1),
			`data: {"object":"text_completion","id":"ID","created":0,"choices":[],"usage":{}}`}},
		{"several prompts", `{"prompt":["x","y"],"stream":true,"max_tokens":2}`, " b c", []string{
			completionEvent(0, " b"), completionEnd(0, " c", "length"), completionEvent(1, " b"), completionEnd(1, " c", "length")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{completionsPath, "/invocations"} {
				got := post(t, newTestServer(&fake{script: says(tt.says)}), path, tt.body)
				body, ended := strings.CutSuffix(fixed(got.body), "\n\n"+done)
				events := strings.Split(body, "\n\n")
				sort.SliceStable(events, func(i, j int) bool {
					return strings.Contains(events[i], `"index":0`) && strings.Contains(events[j], `"index":1`)
				})
				if got.status != 200 || !ended || strings.Join(events, "\n") != strings.Join(tt.want, "\n") {
					t.Errorf("%s %s\n got %d %s\nwant %s", path, tt.body, got.status, fixed(got.body), strings.Join(tt.want, "\n"))
				}
				if ct := got.header.Get("Content-Type"); ct != "text/event-stream" {
					t.Errorf("content type %q", ct)
				}
			}
		})
	}
}

// TestCompletionProbes holds answers of TGI's own router to the same requests,
// or what the row of COMPAT.md in parentheses says instead; want "" is a 200.
func TestCompletionProbes(t *testing.T) {
	const (
		shape = "Failed to deserialize the JSON body into the target type: "
		valid = "Input validation error: "
	)
	for _, tt := range []struct{ name, body, want, kind string }{
		{"no prompt", `{}`, shape + "missing field `prompt` at line 1 column 2", "validation"},
		{"prompt null", `{"prompt":null}`, shape + "prompt: data did not match any variant of untagged enum PromptDeserializer at line 1 column 15", "validation"},
		{"prompt a number", `{"prompt":1}`, shape + "prompt: data did not match any variant of untagged enum PromptDeserializer at line 1 column 12", "validation"},
		{"no prompts", `{"prompt":[]}`, shape + "prompt: Empty array detected. Do not use an empty array for the prompt. at line 1 column 13", "validation"},
		{"a prompt of no tokens", `{"prompt":[[1],[]]}`, shape + "prompt: Empty array detected. Do not use an empty array for the prompt. at line 1 column 19", "validation"},
		{"texts and tokens", `{"prompt":["a",1]}`, shape + "prompt[1]: invalid type: integer `1`, expected a string at line 1 column 16", "validation"},
		{"tokens and texts", `{"prompt":[1,"a"]}`, shape + "prompt[1]: invalid type: string \"a\", expected i32 at line 1 column 16", "validation"},
		{"a negative token", `{"prompt":[-1]}`, shape + "prompt[0]: invalid value: integer `-1`, expected a token id at line 1 column 13", "validation"},
		{"a token beyond the vocabulary", `{"prompt":[5,1000]}`, valid + "`prompt` must name tokens below 1000. Given: 1000 at 1", "validation"},
		{"tokens (token prompts)", `{"prompt":[1,2],"max_tokens":1}`, "", ""},
		{"a suffix without a template", `{"prompt":"a","suffix":"b"}`, "Suffix is not supported and can be achieved by preprocessing the prompt.", "suffix not supported"},
		{"an empty suffix without a template", `{"prompt":"a","suffix":""}`, "Suffix is not supported and can be achieved by preprocessing the prompt.", "suffix not supported"},
		{"suffix before batch", `{"prompt":["a","b","c","d","e"],"suffix":""}`, "Suffix is not supported and can be achieved by preprocessing the prompt.", "suffix not supported"},
		{"five prompts", `{"prompt":["a","b","c","d","e"]}`, "Number of prompts exceeds the maximum allowed batch size of 4", "batch size exceeded"},
		{"an empty prompt", `{"prompt":""}`, valid + "`prompt` cannot be empty", "validation"},
		{"an empty prompt among others", `{"prompt":["a",""],"max_tokens":1}`, valid + "`prompt` cannot be empty", "validation"},
		{"an empty prompt among others, stream (true status)", `{"prompt":["a",""],"max_tokens":1,"stream":true}`, valid + "`prompt` cannot be empty", "validation"},
		{"echo and n (n)", `{"prompt":"a","echo":true,"n":2,"max_tokens":1}`, "", ""},
		{"max_tokens 0", `{"prompt":"a","max_tokens":0}`, valid + "`max_tokens` must be strictly positive", "validation"},
		{"max_tokens too large", `{"prompt":"a","max_tokens":4096}`, valid + "`prompt` tokens + `max_tokens` must be <= 4096. Given: 2 `prompt` tokens and 4096 `max_tokens`", "validation"},
		{"temperature 0", `{"prompt":"a","temperature":0,"max_tokens":1}`, "", ""},
		{"temperature -1", `{"prompt":"a","temperature":-1}`, valid + "`temperature` must be strictly positive", "validation"},
		{"repetition_penalty 0", `{"prompt":"a","repetition_penalty":0}`, valid + "`repetition_penalty` must be strictly positive", "validation"},
		{"frequency_penalty 2.1", `{"prompt":"a","frequency_penalty":2.1}`, valid + "`frequency_penalty` must be >= -2.0 and <= 2.0", "validation"},
		{"presence_penalty 2.1 (presence penalty)", `{"prompt":"a","presence_penalty":2.1}`, valid + "`presence_penalty` must be >= -2.0 and <= 2.0", "validation"},
		{"top_p 1 (upper ends)", `{"prompt":"a","top_p":1.0,"max_tokens":1}`, "", ""},
		{"top_p 0 (greedy chat)", `{"prompt":"a","top_p":0,"max_tokens":1}`, "", ""},
		{"five stop strings", `{"prompt":"a","stop":["a","b","c","d","e"]}`, valid + "`stop` supports up to 4 stop sequences. Given: 5", "validation"},
		{"logprobs 20 (top_logprobs)", `{"prompt":"a","logprobs":20,"max_tokens":1}`, "", ""},
		{"logprobs 21 (top_logprobs)", `{"prompt":"a","logprobs":21}`, valid + "`logprobs` must be >= 0 and <= 20. Given: 21", "validation"},
		{"no tokens, twice", `{"prompt":"a","echo":true,"max_tokens":0,"n":2}`, valid + "`n` must be 1 where no tokens are generated. Given: 2", "validation"},
		{"the best of no tokens", `{"prompt":"a","echo":true,"max_tokens":0,"best_of":2}`, valid + "`best_of` must be 1 where no tokens are generated. Given: 2", "validation"},
		{"logprobs true", `{"prompt":"a","logprobs":true}`, shape + "logprobs: invalid type: boolean `true`, expected u32 at line 1 column 29", "validation"},
		{"alternatives to the prompt (echo)", `{"prompt":"a","logprobs":1,"echo":true,"max_tokens":1}`, "", ""},
		{"the prompt alone (echo)", `{"prompt":"a","logprobs":1,"echo":true,"max_tokens":0}`, "", ""},
		{"best_of below n (completion best_of)", `{"prompt":"a","n":2,"best_of":1}`, valid + "`best_of` must be >= `n`. Given: 1 and 2", "validation"},
		{"best_of 3 (completion best_of)", `{"prompt":"a","best_of":3}`, valid + "`best_of` must be > 0 and <= 2. Given: 3", "validation"},
		{"best_of, stream (completion best_of)", `{"prompt":"a","best_of":2,"stream":true}`, valid + "`best_of` != 1 is not supported when streaming tokens", "validation"},
		{"too many sequences (n)", `{"prompt":["a","b"],"n":65}`, valid + "2 prompts with `best_of` or `n` 65 are more than the 128 sequences that may run at once", "validation"},
		{"stream a string", `{"prompt":"a","stream":"yes"}`, shape + "stream: invalid type: string \"yes\", expected a boolean at line 1 column 28", "validation"},
		{"not JSON", `{"prompt":["a"}`, "Failed to parse the request body as JSON: prompt: expected `,` or `]` at line 1 column 15", "bad_request"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTestServer(&fake{})
			got := post(t, s, completionsPath, tt.body)
			if n := s.permits.Load(); n != 0 {
				t.Errorf("%d permits are lost", n)
			}
			if tt.want == "" {
				if got.status != 200 {
					t.Errorf("got %d %.200s, want 200", got.status, got.body)
				}
				return
			}
			status := 422
			if tt.kind == "bad_request" {
				status = 400
			}
			if msg, kind := mustError(t, got); got.status != status || msg != tt.want || kind != tt.kind || namesOfTGI.MatchString(msg) {
				t.Errorf("%.100s\n got %d %s\nwant %d %s %s", tt.body, got.status, got.body, status, tt.want, tt.kind)
			}
		})
	}
}

// TestCompletionParameters pins what reaches the engine.
func TestCompletionParameters(t *testing.T) {
	gen := &fake{script: says("<|eot_id|>")}
	s := newTestServer(gen)
	for _, tt := range []struct {
		name, fields string
		check        func(*engine.Request) bool
	}{
		{"draws unless told otherwise, 100 tokens", ``, func(r *engine.Request) bool {
			return r.Params.Sample == 1 && r.Params.Temperature == 1 && r.MaxNewTokens == 100
		}},
		{"null: the same", `,"max_tokens":null`, func(r *engine.Request) bool { return r.MaxNewTokens == 100 }},
		{"temperature 0 is greedy", `,"temperature":0,"top_p":0.5`, func(r *engine.Request) bool { return r.Params.Sample == 0 && r.Params.TopP == 1 }},
		{"seed", `,"seed":7`, func(r *engine.Request) bool { return r.Params.Seed == 7 }},
		{"penalties", `,"repetition_penalty":1.5,"frequency_penalty":0.5,"presence_penalty":0.25`, func(r *engine.Request) bool {
			return r.Params.RepetitionPenalty == 1.5 && r.Params.FrequencyPenalty == 0.5 && r.Params.PresencePenalty == 0.25
		}},
		{"logit_bias", `,"logit_bias":{"7":-100}`, func(r *engine.Request) bool { return fmt.Sprint(r.LogitBias) == "[{7 -100}]" }},
		{"special tokens are added", ``, func(r *engine.Request) bool { return fmt.Sprint(r.Tokens) == "[640 87]" }},
		{"logprobs", `,"logprobs":3`, func(r *engine.Request) bool { return r.TopN == 3 && !r.PromptLogprobs }},
		{"logprobs of the prompt", `,"logprobs":0,"echo":true`, func(r *engine.Request) bool { return r.TopN == 0 && r.PromptLogprobs }},
	} {
		if got := post(t, s, completionsPath, `{"prompt":"x"`+tt.fields+`}`); got.status != 200 || !tt.check(gen.request()) {
			t.Errorf("%s: %d %s, %+v", tt.name, got.status, got.body, gen.request())
		}
	}
	post(t, s, completionsPath, `{"prompt":[87,276]}`)
	if got := fmt.Sprint(gen.request().Tokens); got != "[87 276]" {
		t.Errorf("tokens are taken as they are: %s", got)
	}
}

// TestCompletionTotals pins sums over prompts: usage, headers, and that a
// prompt counts once however many choices it has.
func TestCompletionTotals(t *testing.T) {
	s := newTestServer(&fake{script: cached(1, says(" b c"))})
	for body, want := range map[string][5]int{
		`{"prompt":"é x","max_tokens":2}`:                                                           {4, 2, 3, 0, 1},
		`{"prompt":["é x","y"],"max_tokens":2}`:                                                     {6, 4, 4, 0, 2},
		`{"prompt":["é x","y"],"max_tokens":2,"n":3}`:                                               {6, 12, 4, 0, 2},
		`{"prompt":"y","max_tokens":2,"best_of":2}`:                                                 {2, 4, 1, 0, 1},
		`{"prompt":[[87],[87,276,87]],"max_tokens":1}`:                                              {4, 2, 5, 0, 2},
		`{"prompt":"y","max_tokens":1,"stream":true}`:                                               {2, 1, 1, 1, 1},
		`{"prompt":["y","z"],"max_tokens":1,"stream":true,"stream_options":{"include_usage":true}}`: {4, 2, 2, 1, 2},
	} {
		got := post(t, s, completionsPath, body)
		usage := fmt.Sprintf(`"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}}`, want[0], want[1], want[0]+want[1], want[4])
		if !strings.Contains(got.body, usage) {
			t.Errorf("%s: %s, want %s", body, got.body, usage)
		}
		headers := map[string]int{"X-Compute-Characters": want[2]}
		if want[3] == 0 {
			headers["X-Prompt-Tokens"], headers["X-Generated-Tokens"] = want[0], want[1]
		}
		for name, n := range headers {
			if v := got.header.Get(name); v != fmt.Sprint(n) {
				t.Errorf("%s: %s is %q, want %d", body, name, v, n)
			}
		}
	}
}

// TestCompletionBestOf pins that the likeliest are answered, the best first.
func TestCompletionBestOf(t *testing.T) {
	gen := &fake{}
	gen.script = func(req *engine.Request, out *engine.StreamWriter) {
		// The second sequence is better, though longer.
		if gen.submitted(req) == 0 {
			out.End(engine.FinishLength, nil, engine.Token{ID: 276, Logprob: -2})
			return
		}
		out.End(engine.FinishLength, nil, engine.Token{ID: 277, Logprob: -1}, engine.Token{ID: 277, Logprob: -1.5})
	}
	got := post(t, newTestServer(gen), completionsPath, `{"prompt":"x","max_tokens":2,"best_of":2,"seed":3}`)
	if got.status != 200 || !strings.Contains(got.body, `"choices":[{"index":0,"text":"`+textOf(testTokenizer(), 277)+textOf(testTokenizer(), 277)+`",`) || strings.Contains(got.body, `"index":1`) {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestCompletionFailures pins errors before and after the first event; an
// error of one prompt leaves the others alone.
func TestCompletionFailures(t *testing.T) {
	broken := &engine.Error{Kind: engine.Failed, Msg: "device lost"}
	const message = "Request failed during generation: device lost"
	for _, body := range []string{`{"prompt":"x"}`, `{"prompt":"x","stream":true}`, `{"prompt":["x","y"]}`, `{"prompt":["x","y"],"stream":true}`} {
		s := newTestServer(&fake{script: func(_ *engine.Request, out *engine.StreamWriter) { out.End(engine.NotFinished, broken) }})
		got := post(t, s, completionsPath, body)
		if msg, kind := mustError(t, got); got.status != 424 || msg != message || kind != "generation" {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
		if n := s.permits.Load(); n != 0 {
			t.Errorf("%s: %d permits are lost", body, n)
		}
	}

	late := func(req *engine.Request, out *engine.StreamWriter) {
		out.Emit(engine.Token{ID: 276})
		if req.Tokens[1] == 87 {
			out.End(engine.NotFinished, broken)
			return
		}
		out.End(engine.FinishLength, nil, engine.Token{ID: 276})
	}
	const event = `data: {"error":{"message":"` + message + `","http_status_code":424,"type":"generation"}}` + "\n\n"
	got := post(t, newTestServer(&fake{script: late}), completionsPath, `{"prompt":["x","y"],"stream":true,"max_tokens":2}`)
	if got.status != 200 || strings.Count(got.body, event) != 1 || !strings.HasSuffix(got.body, done) || !strings.Contains(fixed(got.body), completionEnd(1, " a", "length")) {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestCompletionTemplate fills gaps as the checkpoint's template says.
func TestCompletionTemplate(t *testing.T) {
	gen := &fake{script: says(" b<|eot_id|>")}
	s := newTestServer(gen)
	config := `{"bos_token":"<|begin_of_text|>","completion_template":"<|start_header_id|>{{ prompt }}<|end_header_id|>{{ suffix }}{% if prompt == 'bad' %}{{ raise_exception('no') }}{% endif %}"}`
	template, err := chat.Load(fstest.MapFS{"tokenizer_config.json": {Data: []byte(config)}}, chat.Override{})
	if err != nil {
		t.Fatal(err)
	}
	s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Template: template})
	for body, want := range map[string]string{
		`{"prompt":"x\n","suffix":"\"y"}`: "<|begin_of_text|><|start_header_id|>x\n<|end_header_id|>\"y",
		`{"prompt":"x","suffix":""}`:      "<|begin_of_text|><|start_header_id|>x<|end_header_id|>",
		`{"prompt":"x"}`:                  "<|begin_of_text|>x",
	} {
		got := post(t, s, completionsPath, body)
		if text := testTokenizer().Decode(gen.request().Tokens, false); got.status != 200 || text != want {
			t.Errorf("%s: %d %s, the model reads %q", body, got.status, got.body, text)
		}
	}
	for body, want := range map[string]string{
		`{"prompt":"bad","suffix":""}`: "Template error: no",
		`{"prompt":[87],"suffix":""}`:  "Input validation error: `suffix` needs a `prompt` that is a text",
	} {
		got := post(t, s, completionsPath, body)
		if msg, _ := mustError(t, got); got.status != 422 || msg != want {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
}

// TestEchoOfChoices pins that each choice shows the prompt's scores, which the
// engine gives to the first alone.
func TestEchoOfChoices(t *testing.T) {
	got := post(t, newTestServer(&fake{script: says(" b")}), completionsPath, `{"prompt":"x","n":2,"logprobs":0,"echo":true,"max_tokens":1}`)
	const want = `"tokens":["<|begin_of_text|>","x"," b"],"token_logprobs":[null,-1.0,-0.25]`
	if got.status != 200 || strings.Count(got.body, want) != 2 {
		t.Errorf("%d %s, want twice %s", got.status, got.body, want)
	}
}
