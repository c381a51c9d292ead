package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakeServer speaks both APIs: as many tokens as asked for, at most limit.
type fakeServer struct {
	limit   int
	wait    time.Duration // before each token
	mu      sync.Mutex
	prompts []string
	active  atomic.Int64
	most    atomic.Int64 // most requests at once
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := f.active.Add(1)
	defer f.active.Add(-1)
	for m := f.most.Load(); n > m && !f.most.CompareAndSwap(m, n); m = f.most.Load() {
	}
	var req struct {
		Inputs     string
		Prompt     string
		Messages   []struct{ Content string }
		MaxTokens  int `json:"max_tokens"`
		Parameters struct {
			MaxNewTokens int `json:"max_new_tokens"`
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, `{"error":"bad","error_type":"validation"}`, http.StatusUnprocessableEntity)
		return
	}
	text := req.Inputs + req.Prompt
	if len(req.Messages) > 0 {
		text = req.Messages[0].Content
	}
	f.mu.Lock()
	f.prompts = append(f.prompts, text)
	f.mu.Unlock()
	if text == "overload me" {
		http.Error(w, `{"error":"Model is overloaded","error_type":"overloaded"}`, http.StatusTooManyRequests)
		return
	}
	tokens := min(f.limit, req.MaxTokens+req.Parameters.MaxNewTokens)
	flush := http.NewResponseController(w).Flush
	send := func(format string, args ...any) {
		fmt.Fprintf(w, "data:"+format+"\n\n", args...)
		_ = flush()
	}
	for i := range tokens {
		time.Sleep(f.wait)
		switch r.URL.Path {
		case "/generate_stream":
			switch {
			case text == "fail me" && i == 1:
				send(`{"error":"Request failed during generation","error_type":"generation"}`)
				return
			case text == "cut me" && i == 1:
				panic(http.ErrAbortHandler)
			case text == "long event":
				send(` {"index":%d,"token":{"id":1,"text":"%s"}}`, i, strings.Repeat("x", 100_000))
			case i == tokens-1:
				send(`{"index":%d,"token":{"id":1,"text":"x"},"generated_text":"x","details":{"generated_tokens":%d}}`, i, tokens)
			default:
				send(`{"index":%d,"token":{"id":1,"text":"x"},"generated_text":null,"details":null}`, i)
			}
		case "/v1/chat/completions":
			send(` {"choices":[{"delta":{"role":"assistant","content":"x"}}]}`)
		case "/v1/completions":
			send(` {"choices":[{"text":"x"}]}`)
		case "/generate":
			if i == tokens-1 {
				fmt.Fprintf(w, `{"generated_text":"x","details":{"generated_tokens":%d}}`, tokens)
			}
		}
	}
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		send(` {"choices":[],"usage":{"completion_tokens":%d}}`, tokens)
		send(" [DONE]")
	}
}

func serve(t *testing.T, f *fakeServer) (url string) {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s.URL
}

// options are small; a test changes what it is about.
func options(url string) Options {
	return Options{URL: url, API: "tgi", Stream: true, Model: "tgi", Requests: 10, Concurrency: 3,
		PromptWords: Lengths{lo: 4, hi: 8}, MaxNewTokens: Lengths{lo: 5, hi: 5}, Seed: 1, Timeout: 10 * time.Second}
}

func promptFile(t *testing.T, lines ...string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "prompts.txt")
	if err := os.WriteFile(p, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMeasure(t *testing.T) {
	for _, tt := range []struct {
		name     string
		change   func(*Options)
		limit    int // tokens the server gives
		requests int64
		tokens   int64
		gaps     int64
		errors   map[string]int64
	}{
		{name: "closed loop", requests: 10, tokens: 50, gaps: 40},
		{name: "open loop", change: func(o *Options) { o.Rate = 1000 }, requests: 10, tokens: 50, gaps: 40},
		{name: "chat", change: func(o *Options) { o.API = "chat" }, requests: 10, tokens: 50, gaps: 40},
		{name: "completions", change: func(o *Options) { o.API = "completions" }, requests: 10, tokens: 50, gaps: 40},
		{name: "whole answers", change: func(o *Options) { o.Stream = false }, requests: 10, tokens: 50},
		{name: "one client", change: func(o *Options) { o.Concurrency, o.Requests = 1, 2 }, requests: 2, tokens: 10, gaps: 8},
		{name: "server ends early", limit: 2, requests: 10, tokens: 20, gaps: 10},
		{name: "event longer than the buffer", change: func(o *Options) { o.Prompt = promptFile(t, "long event"); o.Requests = 2 }, requests: 2, tokens: 10, gaps: 8},
		{name: "full server", change: func(o *Options) { o.Prompt = promptFile(t, "fine", "overload me") }, requests: 5, tokens: 25, gaps: 20,
			errors: map[string]int64{"429 overloaded": 5}},
		{name: "failure inside a stream", change: func(o *Options) { o.Prompt = promptFile(t, "fine", "fail me") }, requests: 5, tokens: 25,
			errors: map[string]int64{"error event: generation": 5}},
		{name: "cut stream", change: func(o *Options) { o.Prompt = promptFile(t, "fine", "cut me") }, requests: 5, tokens: 25,
			errors: map[string]int64{"connection: cut inside an answer": 5}},
		{name: "no tokens", limit: -1, errors: map[string]int64{"a stream without tokens": 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeServer{limit: 1000}
			if tt.limit != 0 {
				f.limit = max(0, tt.limit)
			}
			o := options(serve(t, f))
			if tt.change != nil {
				tt.change(&o)
			}
			rep, err := Measure(context.Background(), o, nil)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Requests != tt.requests || rep.Tokens != tt.tokens {
				t.Errorf("%d requests, %d tokens; want %d, %d", rep.Requests, rep.Tokens, tt.requests, tt.tokens)
			}
			if tt.gaps != 0 && rep.InterToken.Count != tt.gaps {
				t.Errorf("%d gaps between tokens; want %d", rep.InterToken.Count, tt.gaps)
			}
			if fmt.Sprint(rep.Errors) != fmt.Sprint(tt.errors) {
				t.Errorf("errors %v; want %v", rep.Errors, tt.errors)
			}
		})
	}
}

func TestConcurrency(t *testing.T) {
	f := &fakeServer{limit: 1000, wait: time.Millisecond}
	o := options(serve(t, f))
	o.Requests = 12
	rep, err := Measure(context.Background(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.most.Load(); got > int64(o.Concurrency) {
		t.Errorf("%d requests at once; want at most %d", got, o.Concurrency)
	}
	// The server sleeps before each token, so these hold on any machine.
	if rep.FirstToken.P50 < 1 || rep.InterToken.Mean < 0.5 || rep.Total.P50 < 5 {
		t.Errorf("latencies shorter than the server's waits: first %v, between %v, total %v", rep.FirstToken, rep.InterToken, rep.Total)
	}
}

func TestSameSeedSameLoad(t *testing.T) {
	prompts := func(seed uint64) []string {
		f := &fakeServer{limit: 1}
		o := options(serve(t, f))
		o.Concurrency, o.Seed = 1, seed
		if _, err := Measure(context.Background(), o, nil); err != nil {
			t.Fatal(err)
		}
		return f.prompts
	}
	first := prompts(7)
	if again := prompts(7); !slices.Equal(first, again) {
		t.Errorf("same seed, other prompts:\n%q\n%q", first, again)
	}
	if other := prompts(8); slices.Equal(first, other) {
		t.Error("another seed, same prompts")
	}
}

func TestDurationAndInterrupt(t *testing.T) {
	f := &fakeServer{limit: 3, wait: time.Millisecond}
	o := options(serve(t, f))
	o.Duration, o.Requests = 50*time.Millisecond, 0
	rep, err := Measure(context.Background(), o, nil)
	if err != nil || rep.Requests == 0 {
		t.Fatalf("%d requests, err %v; want some", rep.Requests, err)
	}

	o.Duration = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	var n atomic.Int64
	rep, err = Measure(ctx, o, func() {
		if n.Add(1) == 5 {
			cancel()
		}
	})
	if err != nil || rep.Requests < 4 || len(rep.Errors) != 0 {
		t.Errorf("interrupted: %d requests, errors %v, err %v; want what was done and no errors", rep.Requests, rep.Errors, err)
	}
}

func TestFaults(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, tt := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{name: "no clients", change: func(o *Options) { o.Concurrency = 0 }, want: "--concurrency=0"},
		{name: "no requests", change: func(o *Options) { o.Requests = 0 }, want: "--requests=0"},
		{name: "negative rate", change: func(o *Options) { o.Rate = -1 }, want: "--rate=-1"},
		{name: "empty prompt file", change: func(o *Options) { o.Prompt = promptFile(t, "", " ") }, want: "no prompts"},
		{name: "nobody listens", change: func(o *Options) { o.Warmup = 1; o.URL = closed.URL }, want: "connection refused"},
		{name: "wrong route", change: func(o *Options) { o.Warmup = 1; o.Prompt = promptFile(t, "overload me") }, want: "429 overloaded: Model is overloaded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(serve(t, &fakeServer{limit: 1}))
			tt.change(&o)
			if _, err := Measure(context.Background(), o, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err %v; want %q in it", err, tt.want)
			}
		})
	}
}

func TestOutput(t *testing.T) {
	o := options(serve(t, &fakeServer{limit: 3}))
	o.Prompt = promptFile(t, "fine", "overload me")
	o.JSON = filepath.Join(t.TempDir(), "result.json")
	var out bytes.Buffer
	if err := Run(context.Background(), o, &out, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"requests", "tokens", "429 overloaded: Model is overloaded", "first token (TTFT)", "per token (TPOT)", "between tokens (ITL)", "whole request (E2EL)", "p95"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, out.String())
		}
	}
	data, err := os.ReadFile(o.JSON)
	if err != nil {
		t.Fatal(err)
	}
	var rep Report
	if err := json.Unmarshal(data, &rep); err != nil || rep.Requests != 5 || rep.Errors["429 overloaded"] != 5 {
		t.Errorf("JSON: %v, %+v; want 5 answers and 5 errors", err, rep)
	}
}

// Several numbers of clients are measured one after the other.
func TestSweep(t *testing.T) {
	o := options(serve(t, &fakeServer{limit: 3}))
	o.Clients, o.Requests = []int{1, 2}, 4
	o.JSON = filepath.Join(t.TempDir(), "result.json")
	var out bytes.Buffer
	if err := Run(context.Background(), o, &out, nil); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 3 || !strings.Contains(lines[0], "TTFT p50") {
		t.Errorf("want a heading and two lines:\n%s", out.String())
	}
	data, err := os.ReadFile(o.JSON)
	if err != nil {
		t.Fatal(err)
	}
	var all []Report
	if err := json.Unmarshal(data, &all); err != nil || len(all) != 2 || all[0].Concurrency != 1 || all[1].Concurrency != 2 || all[1].Requests != 4 {
		t.Errorf("JSON: %v, %+v", err, all)
	}
}

func TestLengths(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Lengths
		ok   bool
	}{
		{"128", Lengths{lo: 128, hi: 128}, true},
		{"1-4", Lengths{lo: 1, hi: 4}, true},
		{"1-400~20", Lengths{lo: 1, hi: 400, median: 20}, true},
		{"1-400~0", Lengths{}, false},
		{"1-400~500", Lengths{}, false},
		{"1-400~", Lengths{}, false},
		{"4-1", Lengths{}, false},
		{"0", Lengths{}, false},
		{"-3", Lengths{}, false},
		{"many", Lengths{}, false},
	} {
		var l Lengths
		if err := l.UnmarshalText([]byte(tt.text)); (err == nil) != tt.ok || tt.ok && l != tt.want {
			t.Errorf("%q: %v, err %v; want %v, ok %v", tt.text, l, err, tt.want, tt.ok)
		}
		if tt.ok && l.String() != tt.text {
			t.Errorf("%q is written %q", tt.text, l)
		}
	}
}

// Half of the lengths with a median are below it, their logarithms deviate by
// spread, and none is outside the range.
func TestLengthsWithMedian(t *testing.T) {
	l, r := Lengths{lo: 2, hi: 100_000, median: 100}, rand.New(rand.NewPCG(1, 2))
	var logs []float64
	for range 20_000 {
		n := l.draw(r)
		if n < l.lo || n > l.hi {
			t.Fatalf("%d is not in %v", n, l)
		}
		logs = append(logs, math.Log(float64(n)))
	}
	slices.Sort(logs)
	at := func(q float64) float64 { return logs[int(q*float64(len(logs)))] }
	if m := math.Exp(at(0.5)); m < 97 || m > 103 {
		t.Errorf("the median is %.1f, want 100", m)
	}
	if d := (at(0.8413) - at(0.1587)) / 2; math.Abs(d-spread) > 0.03 {
		t.Errorf("the logarithms deviate by %.3f, want %v", d, spread)
	}
}

func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var a, b Histogram
	var all []time.Duration
	for i := range 10_000 {
		d := time.Duration(r.ExpFloat64() * float64(10*time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			a.Add(d)
		} else {
			b.Add(d)
		}
	}
	a.merge(&b)
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		exact := all[max(0, int(q*float64(len(all)))-1)]
		if got := a.quantile(q); float64(got) < 0.989*float64(exact) || float64(got) > 1.011*float64(exact)+float64(time.Microsecond) {
			t.Errorf("quantile %g: %v; exactly %v", q, got, exact)
		}
	}
	if l := (&Histogram{}).Latency(); !reflect.DeepEqual(l, Latency{}) {
		t.Errorf("empty: %+v", l)
	}
}
