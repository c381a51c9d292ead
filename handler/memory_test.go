package handler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/millrace-ai/millrace/engine"
)

// TestMemoryOfRequests fills what requests may hold with some that run, and
// finds it given back.
func TestMemoryOfRequests(t *testing.T) {
	release := make(chan struct{})
	s := newTestServer(&fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		<-release
		out.End(engine.FinishLength, nil, engine.Token{ID: 276})
	}})
	body := `{"inputs":"x","parameters":{"max_new_tokens":1},"x":"` + strings.Repeat("a", 10_000) + `"}`
	s.memory.most.Store(50_000) // such a body is held twice: as it came, and at most as long when decoded
	var running sync.WaitGroup
	for range 2 {
		running.Go(func() {
			if got := post(t, s, "/generate", body); got.status != 200 {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	for s.permits.Load() < 2 {
		waitABit()
	}
	if got := post(t, s, "/generate", body); got.status != 429 {
		t.Errorf("a third: %d %s, want 429", got.status, got.body)
	}
	if got := post(t, s, "/tokenize", `{"inputs":"x"}`); got.status != 200 {
		t.Errorf("a small one: %d %s", got.status, got.body)
	}
	close(release)
	running.Wait()
	if got := post(t, s, "/tokenize", body); got.status != 200 || s.memory.held.Load() != 0 {
		t.Errorf("later: %d %s, %d bytes are held", got.status, got.body, s.memory.held.Load())
	}
}

// TestNeverFits sends what could not be held even by a server without other
// requests: the answer must not be one that asks to try again.
func TestNeverFits(t *testing.T) {
	s := newTestServer(&fake{})
	s.memory.setSize(200_000, 2)
	chat := func(messages int) string {
		return `{"messages":[` + strings.Repeat(`{"role":"user","content":""},`, messages) + `{"role":"user","content":""}]}`
	}
	text := func(n int) string { return fmt.Sprintf(`{"inputs":"%s"}`, strings.Repeat("a", n)) }
	for _, tt := range []struct {
		name, path, body string
		status           int
		want             string // in the message
	}{
		{"a body", "/generate", text(100_001), 413, "there is memory for 100000 bytes"},
		{"what is decoded", "/v1/chat/completions", chat(1000), 422, "more memory than the 100000 bytes"},
		{"what is decoded, to be tokenized", "/chat_tokenize", chat(1000), 422, "more memory than the 100000 bytes"},
		{"what tokenizing takes", "/tokenize", text(2000), 422, "`inputs` has 2000 bytes, which take 696000 bytes of memory to tokenize; there are 75000"},
		{"what tokenizing takes, to generate", "/generate", text(2000), 422, "`inputs` has 2000 bytes, which take 696000 bytes of memory to tokenize; there are 75000"},
		{"what tokenizing a completion takes", "/v1/completions", `{"model":"tgi","prompt":"` + strings.Repeat("a", 2000) + `"}`, 422, "`prompt` has 2000 bytes, which take 696000 bytes of memory to tokenize; there are 75000"},
		{"nothing large", "/tokenize", text(10), 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := post(t, s, tt.path, tt.body)
			if got.status != tt.status || !strings.Contains(got.body, tt.want) {
				t.Errorf("%d %s, want %d and %q", got.status, got.body, tt.status, tt.want)
			}
			if held := s.memory.held.Load(); held != 0 {
				t.Errorf("%d bytes are still held", held)
			}
		})
	}
}

// TestTokenizeTakesPermits fills the server with generations.
func TestTokenizeTakesPermits(t *testing.T) {
	release := make(chan struct{})
	s := newTestServer(&fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		<-release
		out.End(engine.FinishLength, nil, engine.Token{ID: 276})
	}}, func(o *Options) { o.MaxConcurrentRequests = 1 })
	var running sync.WaitGroup
	running.Go(func() { post(t, s, "/generate", oneToken) })
	for s.permits.Load() < 1 {
		waitABit()
	}
	for path, body := range map[string]string{"/tokenize": `{"inputs":"x"}`, "/chat_tokenize": `{"messages":[{"role":"user","content":"x"}]}`} {
		if got := post(t, s, path, body); got.status != 429 {
			t.Errorf("%s on a full server: %d %s, want 429", path, got.status, got.body)
		}
	}
	close(release)
	running.Wait()
	if got := post(t, s, "/tokenize", `{"inputs":"x"}`); got.status != 200 || s.permits.Load() != 0 {
		t.Errorf("later: %d %s, %d permits are taken", got.status, got.body, s.permits.Load())
	}
}

// TestTokenizeInParts asks for an answer of many times the text's size and
// counts what the server keeps of it before it leaves.
func TestTokenizeInParts(t *testing.T) {
	s := newTestServer(&fake{})
	w := &partsWriter{}
	text := strings.Repeat("xq", 10_000)
	s.ServeHTTP(w, newPost("/tokenize", `{"inputs":"`+text+`"}`))
	if w.status != 200 || w.longest > partBytes+1000 || w.bytes < 5*len(text) {
		t.Errorf("status %d, a part of %d bytes, %d in all", w.status, w.longest, w.bytes)
	}
	whole := post(t, s, "/tokenize", `{"inputs":"`+text+`"}`)
	if spans := mustSpans(t, whole.body); strings.Join(spans, "") != text {
		t.Errorf("%d spans do not make the text", len(spans))
	}
	if short := post(t, s, "/tokenize", `{"inputs":"x"}`); short.header.Get("Content-Length") == "" {
		t.Error("a short answer has no length")
	}
}

// TestTurns has work wait for one of two workers, long and short, and looks at
// the order.
func TestTurns(t *testing.T) {
	const long, short = 20 << 20, shortWork
	synctest.Test(t, func(t *testing.T) {
		var turns turns
		turns.reset(100<<20, 2)
		var (
			mu    sync.Mutex
			order []string
			all   sync.WaitGroup
		)
		begin := func(name string, bytes int64) {
			all.Go(func() {
				if err := turns.take(context.Background(), bytes); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
			})
			synctest.Wait()
		}
		begin("long 1", long)
		begin("long 2", long) // waits: the other worker is for short work
		begin("short 1", short)
		begin("longer", 2*long) // waits, after the shorter one whenever it comes
		begin("long 3", long)
		begin("short 2", short) // waits for a worker
		if want := []string{"long 1", "short 1"}; !slices.Equal(order, want) {
			t.Errorf("before any has ended: %q, want %q", order, want)
		}
		turns.give(short)
		synctest.Wait()
		for range 3 {
			turns.give(long)
			synctest.Wait()
		}
		turns.give(short)
		turns.give(2 * long)
		all.Wait()
		if want := []string{"long 1", "short 1", "short 2", "long 2", "long 3", "longer"}; !slices.Equal(order, want) {
			t.Errorf("%q, want %q", order, want)
		}
		if turns.workers != 2 || turns.long != 1 || turns.free != 100<<20 {
			t.Errorf("at the end: %d workers, %d for long work, %d bytes", turns.workers, turns.long, turns.free)
		}
	})
}

// TestTurnsShareMemory has three long works of which two find memory, and one
// that leaves while it waits.
func TestTurnsShareMemory(t *testing.T) {
	const size = 100 << 20
	synctest.Test(t, func(t *testing.T) {
		var turns turns
		turns.reset(size, 8)
		most := turns.longest()
		if err := turns.take(context.Background(), most/2); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		left := make(chan error, 1)
		go func() { left <- turns.take(ctx, most) }()
		synctest.Wait()
		third := make(chan error, 1)
		go func() { third <- turns.take(context.Background(), most/2+1) }()
		synctest.Wait()
		for range 8 - 1 { // short work passes both
			if err := turns.take(context.Background(), shortWork); err != nil {
				t.Fatal(err)
			}
		}
		for range 8 - 1 {
			turns.give(shortWork)
		}
		cancel()
		if err := <-left; err == nil {
			t.Error("work began after its client had left")
		}
		turns.give(most / 2)
		if err := <-third; err != nil {
			t.Error(err)
		}
		turns.give(most/2 + 1)
		if turns.free != size || turns.workers != 8 || len(turns.waiting) != 0 {
			t.Errorf("at the end: %d bytes, %d workers, %d wait", turns.free, turns.workers, len(turns.waiting))
		}
	})
}

// TestMoreThanThereAre asks each route for more sequences than may ever run:
// to send that again would not help, so it is no 429.
func TestMoreThanThereAre(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.MaxConcurrentRequests, o.MaxBestOf = 2, 3 })
	for path, body := range map[string]string{
		"/generate":            `{"inputs":"x","parameters":{"best_of":3,"do_sample":true}}`,
		"/v1/chat/completions": `{"messages":[{"role":"user","content":"x"}],"n":3}`,
		"/v1/completions":      `{"model":"tgi","prompt":["x","x","x"]}`,
		"/vertex":              `{"instances":[{"inputs":"x"},{"inputs":"x"},{"inputs":"x"}]}`,
	} {
		if got := post(t, s, path, body); got.status != 422 || !strings.Contains(got.body, " that may run at once") {
			t.Errorf("%s: %d %s, want 422", path, got.status, got.body)
		}
	}
}

// TestRefusedByBytes sends prompts that have too many tokens however they are
// cut, while all workers are busy: the answer must not wait for them.
func TestRefusedByBytes(t *testing.T) {
	s := newTestServer(&fake{})
	for range s.opt.ValidationWorkers {
		if err := s.memory.turns.take(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	bytes, known := testTokenizer().MaxBytes(4001)
	if !known {
		t.Fatal("the tokenizer is not one whose bound is known")
	}
	text := strings.Repeat("a", bytes)
	var ids strings.Builder
	for range 4001 {
		ids.WriteString("276,")
	}
	for _, tt := range []struct{ name, path, body, want string }{
		{"generate", "/generate", `{"inputs":"` + text + `"}`, "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: at least 4001 `inputs` tokens and 100 `max_new_tokens`"},
		{"generate what is left", "/generate", `{"inputs":"` + text + `","parameters":{"max_new_tokens":null}}`, "`inputs` must have less than 4000 tokens. Given: at least 4001"},
		{"invocations", "/invocations", `{"inputs":"` + text + `"}`, "at least 4001 `inputs` tokens"},
		{"completions", "/v1/completions", `{"prompt":"` + text + `"}`, "at least 4001 `prompt` tokens"},
		{"token ids", "/v1/completions", `{"prompt":[` + ids.String() + `276]}`, "Given: 4002 `prompt` tokens"},
		{"vertex", "/vertex", `{"instances":[{"inputs":"` + text + `"}]}`, "at least 4001"},
		{"more messages than tokens", "/v1/chat/completions", `{"messages":[` + strings.Repeat(`{"role":"user","content":""},`, 4000) + `{"role":"user","content":""}]}`,
			"`messages` must have less than 4000 tokens. Given: 4001 messages"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := post(t, s, tt.path, tt.body); got.status != 422 || !strings.Contains(got.body, tt.want) {
				t.Errorf("%d %s, want 422 and %q", got.status, got.body, tt.want)
			}
		})
	}
}

// TestAnswerIsHeld grows an answer beyond what requests may hold together.
func TestAnswerIsHeld(t *testing.T) {
	gen := &fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		out.End(engine.FinishLength, nil, make([]engine.Token, 1000)...)
	}}
	s := newTestServer(gen)
	s.memory.most.Store(100_000)
	for body, want := range map[string]int{
		`{"inputs":"x","parameters":{"max_new_tokens":1000}}`:                                                           200,
		`{"inputs":"x","parameters":{"max_new_tokens":1000,"details":true}}`:                                            422, // 200 kB, more than there is
		`{"inputs":"x y z","parameters":{"max_new_tokens":1,"decoder_input_details":true}}`:                             200,
		`{"inputs":"` + strings.Repeat("x ", 600) + `","parameters":{"max_new_tokens":1,"decoder_input_details":true}}`: 422,
	} {
		if got := post(t, s, "/generate", body); got.status != want {
			t.Errorf("%.80s: %d %.200s, want %d", body, got.status, got.body, want)
		}
		if held := s.memory.held.Load(); held != 0 {
			t.Errorf("%.80s: %d bytes are still held", body, held)
		}
	}
}
