package handler

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/millrace-ai/millrace/engine"
)

// FuzzCompletion checks that no body of /v1/completions or of any shape of
// /invocations ends in anything but an answer or an error that is the client's.
func FuzzCompletion(f *testing.F) {
	for _, body := range []string{
		`{"prompt":"a","stream":true,"n":2,"stop":"a","logprobs":2,"stream_options":{"include_usage":true}}`,
		`{"prompt":[[1,2],[3]],"echo":true,"logprobs":0,"best_of":2,"seed":18446744073709551615}`,
		`{"prompt":["a","\ud83d\ude00"],"suffix":null,"logit_bias":{"1":2},"repetition_penalty":1.5}`,
		`{"prompt":["a",[1]],"echo":true,"logprobs":2,"max_tokens":0,"n":2,"prompt_logprobs":1}`, `{"prompt":[[1,2,3]],"echo":true,"truncate_prompt_tokens":2,"stream":true,"min_tokens":2,"stop":"b"}`,
		`{"prompt":"a","guided_regex":"a","response_format":{"type":"text"},"structured_outputs":{"choice":["x"]}}`, `{"prompt":"a","best_of":1,"top_p":0,"bad_words":["x","y z"],"vllm_xargs":{}}`,
		`{"prompt":[1,"a"]}`, `{"prompt":[]}`, `{"prompt":"a","suffix":"b"}`, `{"prompt":[`,
		`{"inputs":"a","parameters":{"grammar":{"type":"regex","value":"a+"},"best_of":2,"do_sample":true}}`,
		`{"inputs":1,"messages":[{"role":"user","content":"a"}],"prompt":"b"}`, `{"messages":5,"prompt":"b","stream":true}`,
	} {
		f.Add([]byte(body))
	}
	gen := &fake{limits: engine.Limits{MaxInput: 100, MaxTotal: 120, MaxTopN: 5, Vocab: 1000, MaxWaiting: 128}, script: says(" b c 😀 d")}
	s := newChatServer(f, plainTemplate, gen, func(o *Options) { o.DefaultMaxTokens = 20 })
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 {
			return
		}
		for _, path := range []string{completionsPath, "/invocations"} {
			switch got := post(t, s, path, string(body)); got.status {
			case 400, 422, 429: // 429: more choices than places
				mustError(t, got)
			case 200:
				if got.header.Get("Content-Type") == "application/json" && !json.Valid([]byte(got.body)) {
					t.Errorf("%s %q: %s", path, body, got.body)
				}
			default:
				t.Errorf("%s %q: %d %s", path, body, got.status, got.body)
			}
		}
		if n := s.permits.Load(); n != 0 {
			t.Errorf("%q: %d permits are lost", body, n)
		}
	})
}

// FuzzEvents checks the streams of arbitrary tokens and stop strings: each
// event is one line of JSON, and the texts of the events are the text that the
// same request without stream is answered with.
func FuzzEvents(f *testing.F) {
	f.Add([]byte{65, 66, 67}, "B", uint8(3))
	f.Add([]byte{10, 13, 0, 34, 92, 240, 159, 152, 128}, "\n\n", uint8(9))
	f.Add([]byte("data: [DONE]\n\ndata: {}"), "", uint8(30))
	f.Fuzz(func(t *testing.T, ids []byte, stop string, limit uint8) {
		if !utf8.ValidString(stop) || len(ids) == 0 {
			return
		}
		script := func(req *engine.Request, out *engine.StreamWriter) {
			for i := range req.MaxNewTokens - 1 {
				out.Emit(engine.Token{ID: int32(ids[i%len(ids)]) * 5 / 2, Logprob: -float32(i)}) // special ones as well
			}
			out.End(engine.FinishLength, nil, engine.Token{ID: int32(ids[0])})
		}
		s := newChatServer(t, plainTemplate, &fake{script: script})
		rest := `"stop":` + string(appendString(nil, stop)) + `,"max_tokens":` + strconv.Itoa(int(limit)%40+1)
		for _, tt := range []struct{ path, body string }{
			{chatPath, chatBody(rest)},
			{completionsPath, `{"prompt":"x",` + rest + `}`},
			{"/", `{"inputs":"x","parameters":{` + strings.Replace(rest, "max_tokens", "max_new_tokens", 1) + `}}`},
		} {
			whole := post(t, s, tt.path, tt.body)
			streamed := post(t, s, tt.path, `{"stream":true,`+tt.body[1:])
			if whole.status != 200 || streamed.status != 200 {
				t.Fatalf("%s: %d %s, %d %s", tt.body, whole.status, whole.body, streamed.status, streamed.body)
			}
			if want, got := answeredText(t, whole.body), streamedText(t, tt.path, streamed.body); got != want {
				t.Errorf("%s %s: streamed %q, whole %q", tt.path, tt.body, got, want)
			}
		}
	})
}

// answeredText is the text of a whole answer of any kind.
func answeredText(t *testing.T, body string) string {
	t.Helper()
	var a struct {
		Generated *string `json:"generated_text"`
		Choices   []struct {
			Text    *string
			Message struct{ Content *string }
		}
	}
	if err := json.Unmarshal([]byte(strings.Trim(body, "[]")), &a); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	switch {
	case a.Generated != nil:
		return *a.Generated
	case a.Choices[0].Text != nil:
		return *a.Choices[0].Text
	}
	return *a.Choices[0].Message.Content
}

// streamedText is the text of a stream: of a generation what its last event
// says, of the others the texts of all events.
func streamedText(t *testing.T, path, body string) (text string) {
	t.Helper()
	rest, ended := strings.CutSuffix(body, done)
	if ended == (path == "/") {
		t.Fatalf("%s ends wrongly: %q", path, body)
	}
	for event := range strings.SplitSeq(strings.TrimSuffix(rest, "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(event, "data: ")
		var e struct {
			Generated *string `json:"generated_text"`
			Choices   []struct {
				Text  string
				Delta struct{ Content string }
			}
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil || !ok || strings.ContainsAny(event, "\n\r") {
			t.Fatalf("no event: %q in %q", event, body)
		}
		for _, c := range e.Choices {
			text += c.Text + c.Delta.Content
		}
		if e.Generated != nil {
			text = *e.Generated
		}
	}
	return text
}
