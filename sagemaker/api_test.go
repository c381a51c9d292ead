package sagemaker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/sim"
	"github.com/millrace-ai/millrace/engine/token"
	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/handler/chat"
)

// logged is a log that goroutines write and a test reads.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const simSlots = 4

// simulated is the true API over the engine with the simulated backend, within
// the contract.
func simulated(t *testing.T, opt Options) (h *Hosting, e *engine.Engine, log *logged) {
	t.Helper()
	tok, err := token.Load("../engine/token/testdata/llama3")
	if err != nil {
		t.Fatal(err)
	}
	limits := device.Limits{MaxTokens: 256, MaxRows: 64, MaxSlots: simSlots, MaxPagesPerSlot: 64}
	model := sim.Model{Vocab: tok.VocabSize(), EOS: -1}
	e = enginetest.Run(t, engine.Config{
		Backend: sim.New(limits, sim.Config{Model: model}).Checked(),
		Device:  limits, Plan: model.Plan(), Pages: simSlots * 64,
	})
	template, err := chat.Load(fstest.MapFS{"tokenizer_config.json": {Data: []byte(
		`{"chat_template":"{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"}`)}}, chat.Override{})
	if err != nil {
		t.Fatal(err)
	}
	log = new(logged)
	s := handler.New(handler.Options{ModelID: "sim", DiscardPrompt: true, Logger: slog.New(slog.NewJSONHandler(log, nil))})
	s.SetReady(handler.Model{Generator: e, Tokenizer: tok, Template: template})
	opt.Slots = simSlots
	return Wrap(s, opt), e, log
}

func generate(text string, tokens int, rest string) string {
	return fmt.Sprintf(`{"inputs":%q,"parameters":{"max_new_tokens":%d}%s}`, text, tokens, rest)
}

func TestAPI(t *testing.T) {
	h, _, log := simulated(t, Options{Usage: true, SessionLife: time.Minute})
	const message = `"messages":[{"role":"user","content":"hi"}],"max_tokens":2`
	for _, tt := range []struct {
		name, path, body string
		headers          []string
		contentType      string
		has              string // in the body
		header           string // name: beginning of the value
	}{
		{"no content type", "/invocations", generate("a", 2, ""), nil, "application/json", `[{"generated_text":`, headerAttributes + ": prompt_tokens=2;generated_tokens=2;total_ms="},
		{"chat by route", "/invocations", `{"model":"","stream":false,` + message + `}`, []string{headerAttributes + ": route=/v1/chat/completions"}, "application/json", `"object":"chat.completion"`, headerAttributes + ": prompt_tokens="},
		{"OpenAI's path with an empty model", "/v1/chat/completions", `{"model":"",` + message + `}`, []string{"Content-Type: application/json"}, "application/json", `"model":"sim"`, ""},
		{"a model's description by route", "/invocations", ``, []string{headerAttributes + ": route=/info"}, "application/json", `"model_id":"sim"`, ""},
		{"a stream as lines", "/invocations", generate("a", 2, `,"stream":true`), []string{"Accept: application/jsonlines"}, linesType, "{\"index\":1,", ""},
		{"a chat's stream as lines", "/v1/chat/completions", `{"model":"tgi","stream":true,` + message + `}`, []string{"Accept: application/jsonlines", "Content-Type: application/json"}, linesType, `"finish_reason":"length"`, ""},
		{"a batch, with an error in it", "/invocations", generate("a", 1, "") + "\n" + generate("b", 0, "") + "\n" + `{"prompt":"c","max_tokens":1}`,
			[]string{"Content-Type: application/jsonlines"}, linesType, "]\n{\"error\":\"Input validation error: ", ""},
		{"a session", "/invocations", generate("a", 1, ""), []string{headerSession + ": NEW_SESSION"}, "application/json", "generated_text", headerNewSession + ": "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(h, "POST", tt.path, tt.body, tt.headers...)
			name, value, _ := strings.Cut(tt.header, ": ")
			if got.status != 200 || got.header.Get("Content-Type") != tt.contentType || !strings.Contains(got.body, tt.has) || !strings.HasPrefix(got.header.Get(name), value) {
				t.Errorf("%d %v %s; want %s, %q, %q", got.status, got.header, got.body, tt.contentType, tt.has, tt.header)
			}
			if tt.contentType == linesType {
				for line := range strings.Lines(got.body) {
					if !json.Valid([]byte(line)) {
						t.Errorf("a line that is not JSON: %q", line)
					}
				}
			}
		})
	}
	for _, method := range []string{"GET", "POST", "HEAD"} {
		if got := ask(h, method, "/ping", ""); got.status != 200 || got.body != "" {
			t.Errorf("%s /ping: %d %q", method, got.status, got.body)
		}
	}
	if strings.Contains(log.String(), "/ping") || !strings.Contains(log.String(), `"session_id":"NEW_SESSION"`) {
		t.Errorf("the log has pings, or no sessions: %s", log.String())
	}
}

// Each kind of answer has its own deadline; one that has passed when a request
// comes leaves no time for a token.
func TestDeadlines(t *testing.T) {
	for _, tt := range []struct {
		name           string
		answer, stream time.Duration
		status         [2]int // of an answer in one piece and of a stream
	}{
		{"none", 0, 0, [2]int{200, 200}},
		{"of answers", time.Nanosecond, time.Hour, [2]int{504, 200}},
		{"of streams", 0, time.Nanosecond, [2]int{200, 504}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, _, _ := simulated(t, Options{AnswerDeadline: tt.answer, StreamDeadline: tt.stream})
			for i, rest := range []string{"", `,"stream":true`} {
				if got := ask(h, "POST", "/invocations", generate("a", 2, rest)); got.status != tt.status[i] {
					t.Errorf("%s: %d %s; want %d", rest, got.status, got.body, tt.status[i])
				}
			}
		})
	}
}

// Many requests on one socket stream side by side, and one that is cancelled
// gives its place in the engine back.
func TestSocketOfAPI(t *testing.T) {
	h, e, _ := simulated(t, Options{})
	c := dial(t, h, nil)
	c.say(generate("a", 3, `,"stream":true,"id":"s"`), `{"id":"c","model":"tgi","max_tokens":2,"messages":[{"role":"user","content":"x"}]}`, `{"id":"bad","inputs":7}`)
	events := map[string]int{}
	for done := 0; done < 3; {
		m := c.hear()
		if m.Data != nil {
			events[*m.ID]++
		}
		if m.Done {
			done++
		}
		if want := map[string]int{"bad": 422}[*m.ID]; m.Status != want {
			t.Errorf("%s, want status %d", m, want)
		}
	}
	if events["s"] != 3 || events["c"] != 1 || events["bad"] != 0 {
		t.Errorf("messages with data: %v; want 3 events of s and an answer of c", events)
	}

	c.say(generate("a", 900, `,"stream":true,"id":"long"`))
	c.hear()
	c.say(`{"cancel":"long"}`)
	for m := c.hear(); !m.Done; m = c.hear() {
		if *m.ID != "long" {
			t.Fatal(m)
		}
	}
	for e.Stats().Running > 0 {
		time.Sleep(time.Millisecond)
	}
}
