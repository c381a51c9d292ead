package handler

import (
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine"
)

// TestRepetitionReason pins how the routes say that a text repeated itself, and
// that a request's own repetition_detection wins over the operator's.
func TestRepetitionReason(t *testing.T) {
	gen := &fake{script: func(req *engine.Request, out *engine.StreamWriter) {
		tokens, _ := spell(" a a", req.MaxNewTokens)
		out.End(engine.FinishRepetition, nil, tokens...)
	}}
	usual, err := ParseRepetition(`{"max_pattern_size": 8, "min_count": 4}`)
	if err != nil {
		t.Fatal(err)
	}
	s := newChatServer(t, plainTemplate, gen, func(o *Options) { o.Repetition = usual })
	const openAI, tgi = `"finish_reason":"repetition","stop_reason":"repetition_detected"`, `"finish_reason":"length","cut":"repetition"`
	for _, tt := range []struct{ path, body, want string }{
		{"/v1/chat/completions", chatBody(), openAI},
		{"/v1/chat/completions", chatBody(`"stream":true`), openAI},
		{completionsPath, `{"prompt":"x"}`, openAI},
		{completionsPath, `{"prompt":"x","stream":true}`, openAI},
		{"/generate", `{"inputs":"x","parameters":{"details":true}}`, tgi},
		{"/generate_stream", `{"inputs":"x","parameters":{"details":true}}`, tgi},
	} {
		if got := post(t, s, tt.path, tt.body); !strings.Contains(got.body, tt.want) || gen.request().Repetition != usual {
			t.Errorf("%s %s: %s, %+v", tt.path, tt.body, got.body, gen.request().Repetition)
		}
	}
	post(t, s, completionsPath, `{"prompt":"x","repetition_detection":{"max_pattern_size":0}}`)
	if got := gen.request().Repetition; got != (engine.Repetition{}) {
		t.Errorf("switched off: %+v", got)
	}
	if r, err := ParseRepetition(""); r != (engine.Repetition{}) || err != nil {
		t.Errorf("none: %+v, %v", r, err)
	}
	for _, wrong := range []string{"8", "{", `{"max_pattern_size":-1}`, `{"max_pattern_size":8}`} {
		if r, err := ParseRepetition(wrong); err == nil {
			t.Errorf("%s: %+v", wrong, r)
		}
	}
}
