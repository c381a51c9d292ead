package handler

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
)

// routeBodies are a request of each kind whose last member is another field.
var routeBodies = []struct {
	route      routes
	path, body string
}{
	{onChat, chatPath, `{"messages":[{"role":"user","content":"a"}],%s}`},
	{onCompletion, completionsPath, `{"prompt":"a",%s}`},
	{onGenerate, "/generate", `{"inputs":"a","parameters":{%s}}`},
	{onGenerate, "/", `{"stream":true,"inputs":"a","parameters":{%s}}`},
}

// TestHonouredFields pins what fields of other servers ask of the engine.
func TestHonouredFields(t *testing.T) {
	type request = engine.Request
	words, _ := testTokenizer().Encode("bad", false)
	spaced, _ := testTokenizer().Encode(" bad", false)
	banned := func(r *request) bool { return reflect.DeepEqual(r.BannedTokens, [][]int32{words, spaced}) }
	for _, tt := range []struct {
		routes routes
		fields string
		check  func(*request) bool
	}{
		{onOpenAI, `"top_k":7`, func(r *request) bool { return r.Params.TopK == 7 }},
		{onOpenAI, `"top_k":-1`, func(r *request) bool { return r.Params.TopK == 0 }},
		{onOpenAI, `"top_k":0`, func(r *request) bool { return r.Params.TopK == 0 }},
		{onAll, `"min_p":0.25`, func(r *request) bool { return r.Params.MinP == 0.25 && r.Params.Sample == 1 }},
		{onGenerate, `"min_p":0`, func(r *request) bool { return r.Params.Sample == 0 }},
		{onAll, `"repetition_penalty":1.5`, func(r *request) bool { return r.Params.RepetitionPenalty == 1.5 }},
		{onAll, `"typical_p":0.5`, func(r *request) bool { return r.Params.TypicalP == 0.5 }},
		{onAll, `"presence_penalty":0.5`, func(r *request) bool { return r.Params.PresencePenalty == 0.5 }},
		{onOpenAI, `"temperature":0,"top_k":7,"min_p":0.5,"typical_p":0.5`, func(r *request) bool { return r.Params.Sample == 0 }},
		{onOpenAI, `"top_p":0`, func(r *request) bool { return r.Params.Sample == 0 }},
		{onAll, `"min_tokens":5`, func(r *request) bool { return r.MinNewTokens == 5 }},
		{onGenerate, `"min_new_tokens":5`, func(r *request) bool { return r.MinNewTokens == 5 }},
		{onAll, `"ignore_eos":true`, func(r *request) bool { return r.IgnoreEOS }},
		{onGenerate, `"ignore_eos_token":true`, func(r *request) bool { return r.IgnoreEOS }},
		{onAll, `"stop_token_ids":[7,8]`, func(r *request) bool { return slices.Equal(r.StopTokens, []int32{7, 8}) }},
		{onAll, `"allowed_token_ids":[7,8]`, func(r *request) bool { return slices.Equal(r.AllowedTokens, []int32{7, 8}) }},
		{onAll, `"bad_words":["bad"]`, banned},
		{onGenerate, `"bad_sequences":[" bad"]`, banned},
		{onAll, `"bad_words":[]`, func(r *request) bool { return r.BannedTokens == nil }},
		{onAll, `"cache_salt":"s"`, func(r *request) bool { return r.CacheSalt == "s" }},
		{onAll, `"repetition_detection":{"max_pattern_size":20,"min_pattern_size":2,"min_count":3}`, func(r *request) bool { return r.Repetition == engine.Repetition{Min: 2, Max: 20, Count: 3} }},
		{onAll, `"repetition_detection":{"max_pattern_size":1024,"min_count":4294967295,"mode":"x"}`, func(r *request) bool { return r.Repetition == engine.Repetition{Min: 1, Max: 1024, Count: 1 << 30} }},
		{onAll, `"repetition_detection":{"min_count":3}`, func(r *request) bool { return r.Repetition == engine.Repetition{} }},
		{onOpenAI, `"seed":-1`, func(r *request) bool { return r.Params.Seed < 1<<64-1 }},
		{onOpenAI, `"seed":-2`, func(r *request) bool { return r.Params.Seed == 1<<64-2 }},
		{onOpenAI, `"prompt_logprobs":3`, func(r *request) bool { return r.PromptLogprobs && r.TopN == 3 }},
		{onOpenAI, `"prompt_logprobs":0,"max_tokens":0`, func(r *request) bool { return r.PromptLogprobs && r.MaxNewTokens == 0 }},
		{onChat, `"prompt_logprobs":3,"logprobs":true,"top_logprobs":5`, func(r *request) bool { return r.PromptLogprobs && r.TopN == 5 }},
		{onCompletion, `"echo":true,"logprobs":3`, func(r *request) bool { return r.PromptLogprobs && r.TopN == 3 }},
		{onCompletion, `"echo":true,"max_tokens":0`, func(r *request) bool { return r.PromptLogprobs && r.MaxNewTokens == 0 }},
		{onOpenAI, `"truncate_prompt_tokens":2`, func(r *request) bool { return len(r.Tokens) == 2 }},
		{onOpenAI, `"truncate_prompt_tokens":-1`, func(r *request) bool { return len(r.Tokens) >= 2 }},
		{onCompletion, `"add_special_tokens":false`, func(r *request) bool { return len(r.Tokens) == 1 }},
		{onCompletion, `"add_special_tokens":true`, func(r *request) bool { return len(r.Tokens) == 2 }},
		{onOpenAI, `"grammar":"","guided_decoding_backend":"auto"`, func(r *request) bool { return r.Constraint == nil }},
		{onChat, `"add_special_tokens":true`, func(r *request) bool { return r.Tokens[0] == 640 && r.Tokens[1] == 640 }},
		{onAll, `"user":"u","metadata":{},"store":true,"service_tier":"auto","priority":3,"prediction":{},"verbosity":"low","request_id":"r","kv_transfer_params":{},"guided_decoding_backend":"xgrammar"`,
			func(r *request) bool { return r.TopN == 0 && r.Constraint == nil }},
	} {
		for _, b := range routeBodies {
			if b.route&tt.routes == 0 {
				continue
			}
			gen := &fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
				out.End(engine.FinishEOS, nil, engine.Token{ID: 642})
			}}
			if strings.Contains(tt.fields, `"max_tokens":0`) {
				gen.script = func(_ *engine.Request, out *engine.StreamWriter) { out.End(engine.FinishLength, nil) }
			}
			s := newChatServer(t, plainTemplate, gen)
			got := post(t, s, b.path, fmt.Sprintf(b.body, tt.fields))
			if got.status != 200 || !tt.check(gen.request()) {
				t.Errorf("%s %s: %d %.200s, %+v", b.path, tt.fields, got.status, got.body, gen.request())
			}
			if n := s.permits.Load(); n != 0 {
				t.Errorf("%s %s: %d permits are lost", b.path, tt.fields, n)
			}
		}
	}
}

// TestRefusedFields walks the table: values that ask for nothing are taken,
// others are refused by name.
func TestRefusedFields(t *testing.T) {
	s := newChatServer(t, plainTemplate, &fake{script: says("<|eot_id|>")}, func(o *Options) { o.ErrorObject = true })
	for _, f := range refusedFields {
		for _, b := range routeBodies {
			if b.route&f.routes == 0 {
				continue
			}
			for neutral := range strings.FieldsSeq(f.neutral + " null") {
				if got := post(t, s, b.path, fmt.Sprintf(b.body, `"`+f.name+`":`+neutral)); got.status != 200 {
					t.Errorf("%s %s %s: %d %s", b.path, f.name, neutral, got.status, got.body)
				}
			}
			for _, value := range []string{`17`, `"seventeen"`, `{"a":[1]}`, `["a"]`} {
				got := post(t, s, b.path, fmt.Sprintf(b.body, `"`+f.name+`": `+value))
				if b.route == onGenerate {
					msg, kind := mustError(t, got)
					if want := "Input validation error: `" + f.name + "` is not supported"; got.status != 422 || !strings.HasPrefix(msg, want) || kind != "validation" {
						t.Errorf("%s %s: %d %s", b.path, f.name, got.status, got.body)
					}
					continue
				}
				if e := mustErrorObject(t, got); got.status != 422 || *e.Param != f.name || e.Code != "unsupported_parameter" {
					t.Errorf("%s %s: %d %s", b.path, f.name, got.status, got.body)
				}
			}
		}
	}
	// An honoured field never stands in the table as well.
	for _, fields := range [][]string{chatFields.names, completionFields.names, generateParameters.names} {
		if len(fields) > 128 {
			t.Errorf("%d fields are more than body.Reader takes", len(fields))
		}
		sorted := slices.Sorted(slices.Values(fields))
		for i := range sorted[1:] {
			if sorted[i] == sorted[i+1] {
				t.Errorf("%q is there twice", sorted[i])
			}
		}
	}
}

// TestFieldsAreDocumented looks for every field that is honoured in the document
// that a server serves.
func TestFieldsAreDocumented(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(newTestServer(&fake{}).document(), &doc); err != nil {
		t.Fatal(err)
	}
	for schema, route := range map[string]routes{"ChatRequest": onChat, "CompletionRequest": onCompletion, "GenerateParameters": onGenerate} {
		for i := range parameterFields {
			f := &parameterFields[i]
			refused := slices.ContainsFunc(refusedFields, func(r refusedField) bool { return r.name == f.name && r.routes&route != 0 })
			if f.routes&route != 0 && !refused && doc.Components.Schemas[schema].Properties[f.name] == nil {
				t.Errorf("%s has no %s", schema, f.name)
			}
		}
	}
}

// TestFieldValues pins what is said of values that cannot be.
func TestFieldValues(t *testing.T) {
	const valid = "Input validation error: "
	for _, tt := range []struct {
		routes       routes
		fields, want string
	}{
		{onAll, `"min_p":1.5`, valid + "`min_p` must be >= 0.0 and <= 1.0"},
		{onAll, `"presence_penalty":3`, valid + "`presence_penalty` must be >= -2.0 and <= 2.0"},
		{onChat, `"max_completion_tokens":4,"min_tokens":5`, valid + "`min_tokens` must be <= `max_completion_tokens`. Given: 5 and 4"},
		{onCompletion, `"max_tokens":4,"min_tokens":5`, valid + "`min_tokens` must be <= `max_tokens`. Given: 5 and 4"},
		{onGenerate, `"max_new_tokens":4,"min_tokens":5`, valid + "`min_new_tokens` must be <= `max_new_tokens`. Given: 5 and 4"},
		{onAll, `"stop_token_ids":[7,1000]`, valid + "`stop_token_ids` must name tokens below 1000. Given: 1000 at 1"},
		{onAll, `"allowed_token_ids":[1001]`, valid + "`allowed_token_ids` must name tokens below 1000. Given: 1001 at 0"},
		{onAll, `"allowed_token_ids":[]`, valid + "`allowed_token_ids` must not be empty"},
		{onAll, `"bad_words":[""]`, valid + "`bad_words` must have 1 to 256 bytes each. Given: 0"},
		{onAll, `"bad_words":["` + strings.Repeat("a", 257) + `"]`, valid + "`bad_words` must have 1 to 256 bytes each. Given: 257"},
		{onAll, `"bad_words":["` + strings.Repeat("😀", 64) + strings.Repeat(`","`+strings.Repeat("😀", 64), 19) + `"]`, valid + "`bad_words` must have at most 4096 tokens"},
		{onAll, `"cache_salt":"` + strings.Repeat("a", 1025) + `"`, valid + "`cache_salt` must have at most 1024 bytes. Given: 1025"},
		{onAll, `"repetition_detection":{"max_pattern_size":1025,"min_count":2}`, valid + "`repetition_detection`: `max_pattern_size` must be <= 1024. Given: 1025"},
		{onAll, `"repetition_detection":{"max_pattern_size":2,"min_pattern_size":3,"min_count":2}`, valid + "`repetition_detection`: `min_pattern_size` must be <= `max_pattern_size`. Given: 3 and 2"},
		{onAll, `"repetition_detection":{"max_pattern_size":2,"min_count":1}`, valid + "`repetition_detection`: `min_count` must be >= 2. Given: 1"},
		{onAll, `"cache_salt":""`, valid + "`cache_salt` must not be empty"},
		{onOpenAI, `"top_k":-2`, valid + "`top_k` must be strictly positive"},
		{onOpenAI, `"truncate_prompt_tokens":0`, valid + "`truncate_prompt_tokens` must be strictly positive and less than 4000. Given: 0"},
		{onOpenAI, `"truncate_prompt_tokens":4001`, valid + "`truncate_prompt_tokens` must be strictly positive and less than 4000. Given: 4001"},
		{onOpenAI, `"prompt_logprobs":21`, valid + "`prompt_logprobs` must be >= 0 and <= 20. Given: 21"},
		{onOpenAI, `"prompt_logprobs":1,"stream":true`, valid + "`prompt_logprobs` is not supported with `stream`"},
		{onOpenAI, `"skip_special_tokens":false,"spaces_between_special_tokens":true`, valid + "`spaces_between_special_tokens` is not supported with"},
		{onGenerate, `"stop":["a"],"include_stop_str_in_output":false`, valid + "`include_stop_str_in_output` is not supported, except for true"},
		{onOpenAI, `"guided_json":{},"response_format":{"type":"json_object"}`, valid + "`guided_json` and `response_format` are mutually exclusive"},
		{onOpenAI, `"structured_outputs":{"regex":"a","choice":["a"]}`, valid + "`structured_outputs.regex` and `structured_outputs.choice` are mutually exclusive"},
		{onOpenAI, `"structured_outputs":{"grammar":"a"}`, valid + "`structured_outputs.grammar` is not supported"},
		{onOpenAI, `"structured_outputs":{"json":{},"disable_any_whitespace":true}`, valid + "`structured_outputs.disable_any_whitespace` is not supported"},
		{onOpenAI, `"structured_outputs":{"json":{},"whitespace_pattern":" *"}`, valid + "`structured_outputs.whitespace_pattern` is not supported"},
		{onOpenAI, `"guided_choice":[]`, valid + "`guided_choice` must not be empty"},
		{onOpenAI, `"grammar":"root ::= \"a\""`, valid + "`grammar` in GBNF or Lark is not supported"},
		{onOpenAI, `"grammar":{"type":"json","value":{}}`, valid + "grammar is not valid: "},
		{onChat, `"chat_template_kwargs":{"a":1,"m\u0065ssages":[]}`, valid + "`chat_template_kwargs` cannot set `messages`"},
		{onChat, `"chat_template_kwargs":{"bos_token":"x"}`, valid + "`chat_template_kwargs` cannot set `bos_token`"},
		{onChat, `"documents":[{"title":"t","text":"x"}]`, valid + "`documents` is not supported: the model's chat template does not show them"},
		{onChat, `"continue_final_message":true`, valid + "`continue_final_message` needs a last message of the assistant that has a text"},
		{onChat, `"continue_final_message":true,"add_generation_prompt":true`, valid + "`continue_final_message` and `add_generation_prompt` are mutually exclusive"},
		{onChat, `"reasoning_effort":"huge"`, "Failed to deserialize the JSON body into the target type: reasoning_effort: unknown variant `huge`"},
	} {
		s := newChatServer(t, plainTemplate, &fake{script: says("<|eot_id|>")})
		for _, b := range routeBodies {
			if b.route&tt.routes == 0 {
				continue
			}
			got := post(t, s, b.path, fmt.Sprintf(b.body, tt.fields))
			if msg, _ := mustError(t, got); got.status != 422 || !strings.HasPrefix(msg, tt.want) || b.route != onGenerate && namesOfTGI.MatchString(msg) {
				t.Errorf("%s %.100s: %d %s\nwant 422 %s", b.path, tt.fields, got.status, got.body, tt.want)
			}
			if n := s.permits.Load(); n != 0 {
				t.Errorf("%s %s: %d permits are lost", b.path, tt.fields, n)
			}
		}
	}
	// A number of choices that can never run is refused, also while others run.
	busy := newChatServer(t, plainTemplate, &fake{}, func(o *Options) { o.MaxConcurrentRequests = 7 })
	busy.permits.Store(7)
	for n, want := range map[string]int{"1": 429, "7": 429, "0": 422, "8": 422, "1000": 422} {
		for _, b := range routeBodies[:2] {
			if got := post(t, busy, b.path, fmt.Sprintf(b.body, `"n":`+n)); got.status != want {
				t.Errorf("%s: n %s: %d %s, want %d", b.path, n, got.status, got.body, want)
			}
		}
	}
	for body, want := range map[string]int{`{"inputs":"a","adapters":""}`: 200, `{"inputs":"a","adapters":["tgi"]}`: 200, `{"inputs":"a","adapters":"lora"}`: 422, `{"inputs":"a","adapters":["a","b"]}`: 422} {
		if got := post(t, newTestServer(&fake{}), "/invocations", body); got.status != want {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
}

// TestFieldsOfText pins which text is shown with the fields that say so.
func TestFieldsOfText(t *testing.T) {
	ends := func(reason engine.FinishReason) func(*engine.Request, *engine.StreamWriter) {
		return func(req *engine.Request, out *engine.StreamWriter) {
			tokens, _ := spell(" b<|begin_of_text|> c d<|eot_id|>", req.MaxNewTokens)
			if reason == engine.FinishStopToken {
				tokens = tokens[:len(tokens)-1]
			}
			out.End(reason, nil, tokens...)
		}
	}
	for _, tt := range []struct {
		fields, want string
		reason       engine.FinishReason
	}{
		{`"user":"u"`, " b c d", engine.FinishEOS},
		{`"skip_special_tokens":false`, " b<|begin_of_text|> c d", engine.FinishEOS},
		{`"skip_special_tokens":false,"include_stop_str_in_output":true`, " b<|begin_of_text|> c d<|eot_id|>", engine.FinishEOS},
		{`"stop":"c"`, " b ", engine.FinishEOS},
		{`"stop":["","c",""]`, " b ", engine.FinishEOS},
		{`"stop":"","n":1`, " b c d", engine.FinishEOS},
		{`"stop":"c","include_stop_str_in_output":true`, " b c", engine.FinishEOS},
		{`"stop":["b","d"],"min_tokens":2`, " b c ", engine.FinishEOS},
		{`"stop":["b"," c"],"min_tokens":3`, " b c d", engine.FinishEOS},
		{`"stop_token_ids":[7]`, " b c", engine.FinishStopToken},
		{`"stop_token_ids":[7],"include_stop_str_in_output":true`, " b c d", engine.FinishStopToken},
	} {
		for _, b := range routeBodies[:2] {
			for _, stream := range []string{"", `,"stream":true`} {
				s := newChatServer(t, plainTemplate, &fake{script: ends(tt.reason)})
				got := post(t, s, b.path, fmt.Sprintf(b.body, tt.fields+stream))
				text := ""
				if stream != "" {
					text = streamedText(t, b.path, got.body)
				} else {
					text = answeredText(t, got.body)
				}
				if text != tt.want || !strings.Contains(got.body, `"finish_reason":"stop"`) {
					t.Errorf("%s %s: %q, want %q in %s", b.path, tt.fields+stream, text, tt.want, got.body)
				}
			}
		}
	}
	got := post(t, newTestServer(&fake{script: ends(engine.FinishStopToken)}), "/generate", `{"inputs":"x","parameters":{"stop_token_ids":[7],"details":true}}`)
	if !strings.Contains(got.body, `"finish_reason":"stop_sequence"`) || !strings.Contains(got.body, `"generated_text":" b c d"`) {
		t.Error(got.body)
	}
	got = post(t, newTestServer(&fake{script: ends(engine.FinishEOS)}), "/generate", `{"inputs":"x","parameters":{"stop":["c"],"stop_sequences":["b","d"],"min_new_tokens":3}}`)
	if !strings.Contains(got.body, `"generated_text":" b c d"`) {
		t.Error(got.body)
	}
}

// TestFieldGuides pins what the fields of grammars hold an answer to, on both
// routes and under all of their names.
func TestFieldGuides(t *testing.T) {
	const object = `{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}`
	inString, _ := json.Marshal(object)
	for _, tt := range []struct{ fields, yes, no string }{
		{`"response_format":{"type":"json_object"}`, `{"b":1}`, `[1]`},
		{`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":` + object + `}}`, `{"a":1}`, `{"b":1}`},
		{`"guided_json":` + object, `{"a":1}`, `{"b":1}`},
		{`"guided_json":` + string(inString), `{"a":1}`, `{"b":1}`},
		{`"json_schema":` + object, `{"a":1}`, `{"b":1}`},
		{`"guided_regex":"a+b"`, `aab`, `ba`},
		{`"guided_choice":["a.b","c|d","\n(e"]`, `a.b`, `axb`},
		{`"guided_choice":["a.b","c|d","\n(e"]`, "\n(e", `c`},
		{`"guided_choice":["a.b","c|d","\n(e"]`, "c|d", `|`},
		{`"structured_outputs":{"json":` + object + `,"regex":null}`, `{"a":1}`, `{"b":1}`},
		{`"structured_outputs":{"json_object":true}`, `{"b":1}`, `[1]`},
		{`"structured_outputs":{"regex":"a+b","disable_any_whitespace":false}`, `aab`, `ba`},
		{`"structured_outputs":{"choice":["a","b"]}`, `b`, `ab`},
		{`"grammar":{"type":"regex","value":"a+b"}`, `aab`, `ba`},
		{`"grammar":{"type":"json","value":` + object + `}`, `{"a":1}`, `{"b":1}`},
		{`"grammar":{"type":"json_schema","value":{"name":"n","schema":` + object + `}}`, `{"a":1}`, `{"b":1}`},
	} {
		for _, b := range routeBodies[:2] {
			guides := 0
			gen := &fake{script: says("<|eot_id|>")}
			gen.guided = func(g *engine.Constraint) {
				if guides++; !accepts(t, g, tt.yes) || accepts(t, g, tt.no) {
					t.Errorf("%s %s: takes %q: %v, %q: %v", b.path, tt.fields, tt.yes, accepts(t, g, tt.yes), tt.no, accepts(t, g, tt.no))
				}
			}
			s := newTestServer(gen)
			s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Template: loadTemplate(t, plainTemplate), Compiler: testCompiler})
			body := strings.Replace(b.body, `"prompt":"a"`, `"prompt":["a","b"]`, 1)
			if got := post(t, s, b.path, fmt.Sprintf(body, tt.fields)); got.status != 200 {
				t.Errorf("%s %s: %d %s", b.path, tt.fields, got.status, got.body)
			}
			if want := 1 + strings.Count(body, "prompt"); guides != want {
				t.Errorf("%s %s: %d guides, want %d", b.path, tt.fields, guides, want)
			}
		}
	}
	// The matchers of prompts that come to nothing are closed.
	compiler, err := testCompiler()
	if err != nil {
		t.Fatal(err)
	}
	before := compiler.Open()
	gen := &fake{refuse: &engine.Error{Kind: engine.Overloaded}}
	s := newTestServer(gen)
	s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer(), Template: loadTemplate(t, plainTemplate), Compiler: testCompiler})
	for body, want := range map[string]int{`{"prompt":["a","b"],"guided_regex":"a+b"}`: 429, `{"prompt":["a",""],"guided_regex":"a+b"}`: 422} {
		if got := post(t, s, completionsPath, body); got.status != want {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
	if after := compiler.Open(); after != before {
		t.Errorf("%d matchers are open, %d before", after, before)
	}
}
