package handler

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

const oneToken = `{"inputs":"x","parameters":{"max_new_tokens":1}}`

func TestAPIKey(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.APIKey = "Key-1" })
	for _, tt := range []struct {
		method, path, key string
		status            int
	}{
		{"POST", "/generate", "", 401},
		{"POST", "/generate", "Bearer key-1", 401},
		{"POST", "/generate", "bearer Key-1", 200}, // RFC 9110: a scheme's case does not count
		{"POST", "/generate", "Basic Key-1", 401},
		{"POST", "/generate", "Bearer  Key-1", 401},
		{"POST", "/generate", "Bearer Key-1 ", 200}, // the header's value is trimmed by HTTP
		{"POST", "/generate", "Key-1", 401},
		{"POST", "/generate", "Bearer Key-12", 401},
		{"POST", "/generate", "Bearer Key-1", 200},
		{"POST", "/generate_stream", "", 401},
		{"POST", "/invocations", "", 401},
		{"POST", "/tokenize", "", 401},
		{"POST", "/chat_tokenize", "", 401},
		{"POST", "/v1/chat/completions", "", 401},
		{"POST", "/vertex", "", 401},
		{"POST", "/", "", 401},
		{"GET", "/", "", 200},
		{"GET", "/generate", "", 401},
		{"GET", "/generate", "Bearer Key-1", 405},
		{"PATCH", "/", "", 401},
		{"GET", "/info", "", 401},
		{"GET", "/v1/models", "", 401},
		{"GET", "/docs", "", 303},
		{"GET", "/docs/", "", 200},
		{"GET", "/docs/swagger-ui.css", "", 200},
		{"GET", "/api-doc/openapi.json", "", 200},
		{"GET", "/health", "", 200},
		{"GET", "/ping", "", 200},
		{"GET", "/metrics", "", 200},
		{"POST", "/metrics", "", 405},
		{"GET", "/nope", "", 404},
		{"OPTIONS", "/generate", "", 200},
	} {
		body := ""
		if tt.method == "POST" {
			body = oneToken
		}
		var headers []string
		if tt.key != "" {
			headers = append(headers, "Authorization: "+strings.TrimSpace(tt.key))
		}
		got := ask(t, s, tt.method, tt.path, body, headers...)
		if got.status != tt.status {
			t.Errorf("%s %s with %q: %d, want %d", tt.method, tt.path, tt.key, got.status, tt.status)
		}
		if got.status == 401 {
			if _, kind := mustError(t, got); kind != "unauthorized" || got.header.Get("Allow") == "" || got.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s %s: %s, allow %q", tt.method, tt.path, got.body, got.header.Get("Allow"))
			}
		}
	}
}

func TestCORSOrigins(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.CORSOrigins = []string{"https://a.example"} })
	for origin, want := range map[string]string{"https://a.example": "https://a.example", "https://b.example": "", "": ""} {
		var headers []string
		if origin != "" {
			headers = append(headers, "Origin: "+origin)
		}
		if got := ask(t, s, "GET", "/health", "", headers...).header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("origin %q: %q, want %q", origin, got, want)
		}
	}
}

func TestReadiness(t *testing.T) {
	s := New(Options{ModelID: "MODEL"})
	s.SetPending("loading weights 3 of 7")
	for _, path := range []string{"/ping", "/health", "/"} {
		got := ask(t, s, "GET", path, "")
		if msg, kind := mustError(t, got); got.status != 503 || msg != "unhealthy: loading weights 3 of 7" || kind != "healthcheck" {
			t.Errorf("loading: %s: %d %s", path, got.status, got.body)
		}
	}
	for _, path := range []string{"/generate", "/generate_stream", "/", "/invocations", "/tokenize", "/chat_tokenize", "/v1/chat/completions", "/vertex"} {
		got := post(t, s, path, oneToken)
		if msg, _ := mustError(t, got); got.status != 503 || !strings.Contains(msg, "loading weights 3 of 7") {
			t.Errorf("loading: %s: %d %s", path, got.status, got.body)
		}
	}
	if got := ask(t, s, "GET", "/info", ""); got.status != 503 {
		t.Errorf("loading: /info: %d", got.status)
	}
	for _, path := range []string{"/metrics", "/docs/", "/api-doc/openapi.json", "/v1/models"} {
		if got := ask(t, s, "GET", path, ""); got.status != 200 {
			t.Errorf("loading: %s: %d", path, got.status)
		}
	}

	gen := &fake{limits: engine.Limits{MaxInput: 10, MaxTotal: 20}}
	s.SetReady(Model{Generator: gen, Tokenizer: testTokenizer()})
	if got := ask(t, s, "GET", "/ping", ""); got.status != 200 || got.body != "" {
		t.Errorf("ready: %d %q", got.status, got.body)
	}
	if got := post(t, s, "/generate", oneToken); got.status != 200 {
		t.Errorf("ready: %d %s", got.status, got.body)
	}

	gen.stalled.Store(int64(time.Hour))
	if got := ask(t, s, "GET", "/health", ""); got.status != 503 {
		t.Errorf("stalled: %d", got.status)
	}
	gen.stalled.Store(int64(time.Second))
	if got := ask(t, s, "GET", "/health", ""); got.status != 200 {
		t.Errorf("a second into a step: %d", got.status)
	}

	s.Drain()
	for _, path := range []string{"/ping", "/health"} {
		if got := ask(t, s, "GET", path, ""); got.status != 503 {
			t.Errorf("draining: %s: %d", path, got.status)
		}
	}
	got := post(t, s, "/generate", oneToken)
	if msg, kind := mustError(t, got); got.status != 503 || msg != "The server is shutting down" || kind != "unavailable" {
		t.Errorf("draining: %d %s", got.status, got.body)
	}
}

// TestPermits fills the server and checks that the next request is told at
// once, and that permits come back.
func TestPermits(t *testing.T) {
	const places = 2
	release := make(chan struct{})
	gen := &fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		out.Emit(engine.Token{ID: 276})
		<-release
		out.End(engine.FinishLength, nil, engine.Token{ID: 276})
	}}
	s := newTestServer(gen, func(o *Options) { o.MaxConcurrentRequests = places })
	var wg sync.WaitGroup
	for range places {
		wg.Go(func() {
			if got := post(t, s, "/generate", `{"inputs":"x"}`); got.status != 200 {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
	for s.permits.Load() < places {
		time.Sleep(time.Millisecond)
	}
	for _, path := range []string{"/generate", "/generate_stream"} {
		got := post(t, s, path, `{"inputs":"x","parameters":{"temperature":0}}`) // 429 before 422
		if msg, kind := mustError(t, got); got.status != 429 || msg != "Model is overloaded" || kind != "overloaded" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
		if got := post(t, s, "/generate", `{"inputs":"x","parameters":{"best_of":9}}`); got.status != 422 { // 422 before 429
			t.Errorf("best_of: %d %s", got.status, got.body)
		}
	}
	close(release)
	wg.Wait()
	if got := post(t, s, "/generate", `{"inputs":"x","parameters":{"max_new_tokens":2}}`); got.status != 200 {
		t.Errorf("after release: %d %s", got.status, got.body)
	}
	if n := s.permits.Load(); n != 0 {
		t.Errorf("%d permits are lost", n)
	}
}

func TestPayloadLimit(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.PayloadLimit = 1000 })
	pad := func(n int) string {
		const frame = `{"inputs":"x","parameters":{"max_new_tokens":1},"x":""}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("a", n-len(frame))+`"`, 1)
	}
	url := serve(t, s)
	for _, tt := range []struct {
		size   int
		chunks bool
		status int
	}{{1000, false, 200}, {1001, false, 413}, {1000, true, 200}, {1001, true, 413}, {3_000_000, false, 413}, {3_000_000, true, 413}} {
		var body io.Reader = strings.NewReader(pad(tt.size))
		if tt.chunks {
			body = struct{ io.Reader }{body} // hides the length
		}
		resp, err := http.Post(url+"/invocations", "application/json", body)
		if err != nil {
			t.Fatalf("%+v: %v", tt, err)
		}
		data, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%+v: %d %s", tt, resp.StatusCode, data)
		}
		if tt.status == 413 && string(data) != `{"error":"Failed to buffer the request body: length limit exceeded","error_type":"payload_too_large"}` {
			t.Errorf("%+v: %s", tt, data)
		}
	}
}

func TestPanic(t *testing.T) {
	gen := &fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		out.Emit(engine.Token{ID: 276})
		out.End(engine.FinishLength, nil, engine.Token{ID: -5}) // no such token
	}}
	s := newTestServer(gen)
	s.model.Load().tok = nil // as if a bug had been there
	got := post(t, s, "/generate", oneToken)
	if msg, kind := mustError(t, got); got.status != 500 || msg != "Internal error" || kind != "internal" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if n := s.permits.Load(); n != 0 {
		t.Errorf("%d permits are lost", n)
	}
}

// TestTruncate pins what the model sees of a truncated prompt: the special
// tokens in front, and the end.
func TestTruncate(t *testing.T) {
	gen := &fake{}
	s := newTestServer(gen)
	for n, want := range map[int]string{1: "[640]", 2: "[640 311]", 3: "[640 289 311]", 9: "[640 276 289 311]"} {
		post(t, s, "/generate", fmt.Sprintf(`{"inputs":" a b c","parameters":{"truncate":%d,"max_new_tokens":1}}`, n))
		if got := fmt.Sprint(gen.request().Tokens); got != want {
			t.Errorf("truncate %d: %s, want %s", n, got, want)
		}
	}
}

// TestParameters pins what reaches the engine.
func TestParameters(t *testing.T) {
	gen := &fake{}
	s := newTestServer(gen)
	for _, tt := range []struct {
		name, body string
		check      func(*engine.Request) bool
	}{
		{"absent: greedy, 100 tokens", `{"inputs":"x"}`, func(r *engine.Request) bool {
			return r.Params.Sample == 0 && r.MaxNewTokens == 100 && r.Params.TopP == 1 && !r.PromptLogprobs && r.TopN == 0
		}},
		{"empty: the same", `{"inputs":"x","parameters":{}}`, func(r *engine.Request) bool { return r.Params.Sample == 0 && r.MaxNewTokens == 100 }},
		{"null: what is left", `{"inputs":"x","parameters":{"max_new_tokens":null}}`, func(r *engine.Request) bool { return r.MaxNewTokens == 4094 }},
		{"temperature 1 alone stays greedy", `{"inputs":"x","parameters":{"temperature":1.0}}`, func(r *engine.Request) bool { return r.Params.Sample == 0 }},
		{"temperature samples", `{"inputs":"x","parameters":{"temperature":0.5}}`, func(r *engine.Request) bool { return r.Params.Sample == 1 && r.Params.Temperature == 0.5 }},
		{"top_k samples", `{"inputs":"x","parameters":{"top_k":3}}`, func(r *engine.Request) bool { return r.Params.Sample == 1 && r.Params.TopK == 3 }},
		{"top_p samples", `{"inputs":"x","parameters":{"top_p":0.9}}`, func(r *engine.Request) bool { return r.Params.Sample == 1 && r.Params.TopP == 0.9 }},
		{"top_p 1 is off", `{"inputs":"x","parameters":{"top_p":1.0}}`, func(r *engine.Request) bool { return r.Params.Sample == 0 }},
		{"typical_p samples", `{"inputs":"x","parameters":{"typical_p":0.9}}`, func(r *engine.Request) bool { return r.Params.Sample == 1 && r.Params.TypicalP == 0.9 }},
		{"penalties do not sample", `{"inputs":"x","parameters":{"repetition_penalty":1.1,"frequency_penalty":-0.5}}`, func(r *engine.Request) bool {
			return r.Params.Sample == 0 && r.Params.RepetitionPenalty == 1.1 && r.Params.FrequencyPenalty == -0.5
		}},
		{"seed", `{"inputs":"x","parameters":{"do_sample":true,"seed":7}}`, func(r *engine.Request) bool { return r.Params.Sample == 1 && r.Params.Seed == 7 }},
		{"watermark does not sample", `{"inputs":"x","parameters":{"watermark":true}}`, func(r *engine.Request) bool { return r.Params.Watermark == 1 && r.Params.Sample == 0 }},
		{"prefill and alternatives", `{"inputs":"x","parameters":{"decoder_input_details":true,"top_n_tokens":5}}`, func(r *engine.Request) bool { return r.PromptLogprobs && r.TopN == 5 }},
	} {
		if got := post(t, s, "/generate", tt.body); got.status != 200 {
			t.Errorf("%s: %d %s", tt.name, got.status, got.body)
		}
		if r := gen.request(); !tt.check(r) {
			t.Errorf("%s: %+v", tt.name, *r)
		}
	}
	seeds := map[uint64]bool{}
	for range 10 {
		post(t, s, "/generate", `{"inputs":"x","parameters":{"do_sample":true,"max_new_tokens":1}}`)
		seeds[gen.request().Params.Seed] = true
	}
	if len(seeds) != 10 {
		t.Errorf("%d seeds in 10 requests", len(seeds))
	}
}

// serve runs s on a port of its own and returns its URL.
func serve(t testing.TB, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := NewHTTPServer("", s)
	go srv.Serve(Guard(l)) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String()
}

// TestDisconnect checks that a client that leaves ends its generation and
// gives its permit back.
func TestDisconnect(t *testing.T) {
	for _, path := range []string{"/generate", "/generate_stream"} {
		gen := &fake{script: func(_ *engine.Request, out *engine.StreamWriter) { out.Emit(engine.Token{ID: 276}) }}
		s := newTestServer(gen)
		url := serve(t, s)
		ctx, cancel := context.WithCancel(context.Background())
		req, _ := http.NewRequestWithContext(ctx, "POST", url+path, strings.NewReader(`{"inputs":"x"}`))
		req.Header.Set("Content-Type", "application/json")
		go func() {
			for s.permits.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if resp, err := http.DefaultClient.Do(req); err == nil {
			io.Copy(io.Discard, resp.Body) //nolint:errcheck // it ends with the cancellation
			resp.Body.Close()
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			gen.mu.Lock()
			closed := len(gen.out) == 1 && gen.out[0].Closed()
			gen.mu.Unlock()
			if closed && s.permits.Load() == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: closed %v, %d permits taken", path, closed, s.permits.Load())
			}
		}
		if got := ask(t, s, "GET", "/metrics", ""); !strings.Contains(got.body, `tgi_request_failure{err="dropped"} 1`) {
			t.Errorf("%s: not counted as dropped", path)
		}
	}
}

// TestEventsLeaveAtOnce reads each event before the next token exists, and
// finds tokens that were ready together in one piece.
func TestEventsLeaveAtOnce(t *testing.T) {
	next := make(chan struct{})
	gen := &fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		for range 3 {
			<-next
			out.Emit(engine.Token{ID: 276})
		}
		<-next
		out.End(engine.FinishLength, nil, engine.Token{ID: 276}, engine.Token{ID: 276})
	}}
	url := serve(t, newTestServer(gen))
	resp := make(chan *http.Response, 1)
	go func() {
		r, err := http.Post(url+"/generate_stream", "application/json", strings.NewReader(`{"inputs":"x","parameters":{"max_new_tokens":5}}`))
		if err != nil {
			t.Error(err)
		}
		resp <- r
	}()
	next <- struct{}{}
	r := <-resp
	defer r.Body.Close()
	lines := bufio.NewReader(r.Body)
	read := func(index int) {
		t.Helper()
		line, err := lines.ReadString('\n')
		if want := fmt.Sprintf(`data: {"index":%d,`, index); err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("read %q (%v), want %s", line, err, want)
		}
		lines.ReadString('\n') //nolint:errcheck // the empty line
	}
	read(1)
	for i := 2; i <= 3; i++ {
		next <- struct{}{}
		read(i)
	}
	next <- struct{}{}
	read(4)
	if n := lines.Buffered(); n == 0 {
		t.Error("two tokens that were ready together came in two pieces")
	}
	read(5)
	if _, err := lines.ReadByte(); err != io.EOF {
		t.Errorf("after the last event: %v, want the end", err)
	}
}

// TestKeepAlive waits for comments, before the first token and between tokens.
func TestKeepAlive(t *testing.T) {
	next := make(chan struct{})
	gen := &fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		<-next
		out.Emit(engine.Token{ID: 276})
		<-next
		out.End(engine.NotFinished, &engine.Error{Kind: engine.Failed, Msg: "late"})
	}}
	url := serve(t, newTestServer(gen, func(o *Options) { o.KeepAlive = 20 * time.Millisecond }))
	resp, err := http.Post(url+"/generate_stream", "application/json", strings.NewReader(`{"inputs":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	line := func() string {
		for lines.Scan() {
			if lines.Text() != "" {
				return lines.Text()
			}
		}
		return "end"
	}
	for i := range 3 {
		if got := line(); got != ":" {
			t.Fatalf("line %d: %q, want a comment", i, got)
		}
	}
	next <- struct{}{}
	for got := ":"; got == ":"; {
		if got = line(); got != ":" && !strings.HasPrefix(got, `data: {"index":1,`) {
			t.Fatalf("%q, want the token", got)
		}
	}
	if got := line(); got != ":" {
		t.Fatalf("%q, want a comment", got)
	}
	next <- struct{}{}
	for got := ":"; got == ":"; {
		if got = line(); got != ":" && got != `data: {"error":"Request failed during generation: late","error_type":"generation"}` {
			t.Fatalf("%q, want the error", got)
		}
	}
	if got := line(); got != "end" {
		t.Errorf("after the error: %q", got)
	}
}

func TestProtocols(t *testing.T) {
	url := serve(t, newTestServer(&fake{}))
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	for name, transport := range map[string]*http.Transport{"HTTP/1.1": {}, "HTTP/2.0": h2c} {
		client := &http.Client{Transport: transport}
		resp, err := client.Post(url+"/generate_stream", "application/json", strings.NewReader(oneToken))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.Proto != name || !strings.HasPrefix(string(data), `data: {"index":1,`) {
			t.Errorf("%s: %s %q (%v)", name, resp.Proto, data, err)
		}
		client.CloseIdleConnections()
	}
}

func TestMetrics(t *testing.T) {
	gen := &fake{}
	s := newTestServer(gen)
	fresh := ask(t, s, "GET", "/metrics", "").body
	for _, name := range []string{
		"tgi_request_count 0", "tgi_request_success 0", `tgi_request_failure{err="overloaded"} 0`, `tgi_request_failure{err="dropped"} 0`,
		`tgi_request_duration_bucket{le="0.00015000000000000001"} 0`, "tgi_request_validation_duration_count 0", "tgi_request_queue_duration_count 0",
		"tgi_request_inference_duration_count 0", "tgi_request_mean_time_per_token_duration_count 0", `tgi_request_input_length_bucket{le="40"} 0`,
		`tgi_request_input_length_bucket{le="4000"} 0`, `tgi_request_max_new_tokens_bucket{le="4096"} 0`, "tgi_request_generated_tokens_count 0",
		"tgi_request_skipped_tokens_count 0", "tgi_queue_size 0", "tgi_batch_current_size 0", "tgi_batch_current_max_tokens 0", "tgi_batch_max_total_tokens 160",
		`tgi_batch_next_size_bucket{le="1024"} 0`, `tgi_batch_inference_count{method="prefill"} 0`, `tgi_batch_inference_success{method="decode"} 0`,
		`tgi_batch_inference_failure{method="decode"} 0`, `tgi_batch_inference_duration_count{method="decode"} 0`, `tgi_batch_forward_duration_count{method="prefill"} 0`,
		`tgi_batch_decode_duration_count{method="decode"} 0`, `tgi_batch_filter_duration_count{method="decode"} 0`, `tgi_batch_concat_duration_count{method="decode"} 0`,
		`tgi_batch_concat{reason="chunking"} 0`, "# HELP tgi_queue_size Current queue size", "# TYPE tgi_request_skipped_tokens summary", "# TYPE tgi_request_count counter",
	} {
		if !strings.Contains(fresh, name+"\n") {
			t.Errorf("fresh: no %q", name)
		}
	}

	post(t, s, "/generate", `{"inputs":"x","parameters":{"max_new_tokens":3}}`)
	post(t, s, "/generate_stream", `{"inputs":"x","parameters":{"max_new_tokens":3}}`)
	post(t, s, "/generate", `{"inputs":""}`)
	post(t, s, "/generate", `{"inputs":`)
	s.Metrics().Step(engine.StepInfo{Method: engine.Prefill, Sequences: 3, Admitted: 2, Decodes: 1, Forward: time.Millisecond})
	used := ask(t, s, "GET", "/metrics", "").body
	for _, name := range []string{
		"tgi_request_count 3", "tgi_request_success 2", `tgi_request_failure{err="validation"} 1`, "tgi_request_generated_tokens_sum 6",
		"tgi_request_max_new_tokens_sum 6", "tgi_request_input_length_sum 4", "tgi_request_duration_count 2",
		`tgi_batch_inference_count{method="prefill"} 1`, "tgi_batch_next_size_sum 2", `tgi_batch_concat{reason="chunking"} 1`,
	} {
		if !strings.Contains(used, name+"\n") {
			t.Errorf("used: no %q", name)
		}
	}
}

// TestErrorBodies sends what a client could use to blow an error up.
func TestErrorBodies(t *testing.T) {
	s := newTestServer(&fake{})
	for _, body := range []string{
		`{"inputs":"x","parameters":{"top_k":"` + strings.Repeat(`\u0001`, 5000) + `"}}`,
		`{"inputs":"x","parameters":{"grammar":{"type":"` + strings.Repeat("é", 5000) + `"}}}`,
		`{"` + strings.Repeat(`\u0001`, 5000) + `":nope}`,
	} {
		mustError(t, post(t, s, "/generate", body))
	}
	mustError(t, ask(t, s, "GET", "/"+strings.Repeat("%01", 5000), ""))
	mustError(t, ask(t, s, strings.Repeat("X", 5000), "/generate", ""))
}

func TestDocument(t *testing.T) {
	got := ask(t, newTestServer(&fake{}), "GET", "/api-doc/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]any
		}
	}
	if err := json.Unmarshal([]byte(got.body), &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			body := ""
			if method == "post" {
				body = `{"inputs":"x","messages":[],"prompt":"x","instances":[{"inputs":"x"}]}`
			}
			a := ask(t, newChatServer(t, plainTemplate, &fake{}), strings.ToUpper(method), strings.Replace(path, "{model}", "tgi", 1), body)
			if a.status != 200 {
				t.Errorf("%s %s is documented and answers %d", method, path, a.status)
			}
			if method == "post" && (op.Responses["400"] == nil || op.Responses["413"] == nil || op.Responses["422"] == nil) {
				t.Errorf("%s %s lacks an error: %v", method, path, op.Responses)
			}
		}
	}
	for _, path := range []string{"/ping", "/v1/chat/completions", "/chat_tokenize", "/vertex"} {
		if doc.Paths[path] == nil {
			t.Errorf("%s is not documented", path)
		}
	}
}
