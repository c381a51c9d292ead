package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/token"
)

// testTokenizer is a byte-level tokenizer whose special tokens are <|…|>; it
// puts <|begin_of_text|> before a text.
var testTokenizer = sync.OnceValue(func() *token.Tokenizer {
	tok, err := token.Load("../engine/token/testdata/llama3")
	if err != nil {
		panic(err)
	}
	return tok
})

// fake is a Generator that runs a script per request.
type fake struct {
	limits  engine.Limits
	stalled atomic.Int64

	// script writes the stream; nil: the word " a" until the limit.
	script func(req *engine.Request, out *engine.StreamWriter)
	// refuse is what Submit fails with, if not nil.
	refuse error
	// guided looks at the guide of a request while its matchers are open.
	guided func(*engine.Constraint)

	mu   sync.Mutex
	last *engine.Request
	all  []*engine.Request
	out  []*engine.StreamWriter
}

// submitted returns which of the requests req is, in the order they came.
func (f *fake) submitted(req *engine.Request) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Index(f.all, req)
}

func (f *fake) SubmitN(_ context.Context, req *engine.Request, seeds []uint64) (streams []*engine.Stream, err error) {
	if g := req.Constraint; g != nil { // ours, as the engine has it
		if f.guided != nil {
			f.guided(g)
		}
		defer g.Close()
	}
	if f.refuse != nil {
		return nil, f.refuse
	}
	script := f.script
	if script == nil {
		script = says(strings.Repeat(" a", req.MaxNewTokens))
	}
	for i, seed := range seeds {
		r := *req
		r.Params.Seed = seed
		r.PromptLogprobs = req.PromptLogprobs && i == 0
		out := engine.NewStreamWriter(r.MaxNewTokens)
		if r.PromptLogprobs {
			out.Prompt(scored(req, req.TopN)) // as the engine: before all of them begin
		}
		f.mu.Lock()
		f.last, f.all, f.out = &r, append(f.all, &r), append(f.out, out)
		f.mu.Unlock()
		go script(&r, out)
		streams = append(streams, out.Stream())
	}
	return streams, nil
}

func (f *fake) Limits() engine.Limits { return f.limits }
func (f *fake) Stats() engine.Stats {
	return engine.Stats{PagesTotal: 10, Slots: 8, Groups: []engine.CacheStats{{}, {Window: 512, Used: 3, Cached: 4, Queries: 7, Hits: 5, Evicted: 1}}}
}
func (f *fake) Stalled() time.Duration { return time.Duration(f.stalled.Load()) }

// request returns the request submitted last.
func (f *fake) request() *engine.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// says is a script that generates the tokens of text, in one go, and ends at
// the model's end token if text has one, at the limit otherwise.
func says(text string) func(*engine.Request, *engine.StreamWriter) {
	return func(req *engine.Request, out *engine.StreamWriter) {
		tokens, why := spell(text, req.MaxNewTokens)
		for i := range tokens {
			for n := range req.TopN {
				tokens[i].Top = append(tokens[i].Top, engine.Alternative{ID: tokens[i].ID + int32(n), Logprob: -0.25 - float32(n)})
			}
		}
		out.End(why, nil, tokens...)
	}
}

// cached is a script whose prompts have so many tokens in the prefix cache.
func cached(tokens int, script func(*engine.Request, *engine.StreamWriter)) func(*engine.Request, *engine.StreamWriter) {
	return func(req *engine.Request, out *engine.StreamWriter) {
		out.Cached(tokens)
		script(req, out)
	}
}

// spell returns the tokens of text, at most limit.
func spell(text string, limit int) (tokens []engine.Token, why engine.FinishReason) {
	tok := testTokenizer()
	ids, err := tok.Encode(text, false)
	if err != nil {
		panic(err)
	}
	eos, _ := tok.EOS()
	for _, id := range ids[:min(len(ids), limit)] {
		tokens = append(tokens, engine.Token{ID: id, Logprob: -0.25})
		if id == eos {
			return tokens, engine.FinishEOS
		}
	}
	return tokens, engine.FinishLength
}

// scored gives a prompt log-probabilities -1, -2 … and top alternatives, of
// which the token itself is the second; the first token has none.
func scored(r *engine.Request, top int) (prompt []engine.Token) {
	for i, id := range r.Tokens {
		t := engine.Token{ID: id, Logprob: float32(-i)}
		none := i == 0 || slices.ContainsFunc(r.Images, func(m engine.Image) bool { return i >= m.First && i < m.First+m.Count })
		if none {
			t.Logprob = nan
		}
		for n := range top {
			if !none {
				t.Top = append(t.Top, engine.Alternative{ID: id + 1 - int32(n), Logprob: float32(-i) + 0.5 - float32(n)/2})
			}
		}
		prompt = append(prompt, t)
	}
	return prompt
}

// newTestServer returns a ready Server with TGI's defaults, 4000 tokens of
// input and 4096 in all.
func newTestServer(gen *fake, edit ...func(*Options)) *Server {
	opt := Options{ModelID: "MODEL", Version: "2.4.1", Logger: slog.New(slog.DiscardHandler)}
	for _, e := range edit {
		e(&opt)
	}
	if gen.limits == (engine.Limits{}) {
		gen.limits = engine.Limits{MaxInput: 4000, MaxTotal: 4096, MaxTopN: 32, Vocab: 1000, MaxWaiting: 128}
	}
	s := New(opt)
	s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer()})
	return s
}

// response is an answer in memory.
type response struct {
	status int
	header http.Header
	body   string
}

// ask sends one request; headers are "name: value".
func ask(t testing.TB, h http.Handler, method, path, body string, headers ...string) response {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, path, r)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return response{w.Code, w.Result().Header, w.Body.String()}
}

// post is ask with POST.
func post(t testing.TB, h http.Handler, path, body string) response {
	t.Helper()
	return ask(t, h, "POST", path, body)
}

// mustError checks that a is a JSON error and returns its fields.
func mustError(t testing.TB, a response) (msg, kind string) {
	t.Helper()
	var e struct {
		Error string `json:"error"`
		Type  string `json:"error_type"`
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil || e.Error == "" || e.Type == "" {
		t.Fatalf("no JSON error: %d %q (%v)", a.status, a.body, err)
	}
	if len(a.body) > 1500 {
		t.Errorf("an error of %d bytes", len(a.body))
	}
	if ct := a.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("content type %q", ct)
	}
	return e.Error, e.Type
}

// newPost returns a request with a body of JSON.
func newPost(path, body string) *http.Request {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

// partsWriter is an http.ResponseWriter that looks at the size of each write.
type partsWriter struct {
	header         http.Header
	status         int
	longest, bytes int
}

func (w *partsWriter) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (w *partsWriter) WriteHeader(status int) { w.status = status }

func (w *partsWriter) Write(b []byte) (int, error) {
	w.longest = max(w.longest, len(b))
	w.bytes += len(b)
	return len(b), nil
}

// mustSpans returns the texts of an answer of /tokenize.
func mustSpans(t testing.TB, body string) (texts []string) {
	t.Helper()
	var spans []struct{ Text string }
	if err := json.Unmarshal([]byte(body), &spans); err != nil {
		t.Fatalf("%v in %.200s", err, body)
	}
	for _, s := range spans {
		texts = append(texts, s.Text)
	}
	return texts
}

// waitABit lets others go on.
func waitABit() { time.Sleep(time.Millisecond) }
