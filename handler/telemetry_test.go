package handler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/millrace-ai/millrace/engine"
)

// traced is the trace that requests of these tests belong to.
const traced = "0af7651916cd43dd8448eb211c80319c"

// watch adds a log and a tracer to a server's options.
func watch(log *bytes.Buffer, level slog.Level) (func(*Options), *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	return func(o *Options) {
		o.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: level}))
		o.Tracer = provider.Tracer("test")
	}, spans
}

func TestRequestLog(t *testing.T) {
	const secret = "xyzzy"
	chat := func(rest string) string {
		return `{"messages":[{"role":"user","content":"` + secret + `"}],"max_tokens":3` + rest + `}`
	}
	fails := func(_ *engine.Request, out *engine.StreamWriter) {
		out.End(engine.NotFinished, &engine.Error{Kind: engine.Failed, Msg: "device is gone", Err: errors.New("why")})
	}
	for _, tt := range []struct {
		name, path, body string
		script           func(*engine.Request, *engine.StreamWriter)
		level, message   string // "": no line
		want             map[string]any
	}{
		{"generate", "/generate", `{"inputs":"` + secret + `","parameters":{"max_new_tokens":2,"seed":7,"do_sample":true,"stop":["` + secret + `"]}}`, nil, "INFO", "Success",
			map[string]any{"status": 200.0, "generated_tokens": 2.0, "finish_reason": "length", "stream": false, "trace_id": traced, "path": "/generate", "request_id": "mine", "session_id": "s-1", "adapter": nil,
				"span.seed": 7.0, "span.parameters.max_new_tokens": 2.0, "span.parameters.do_sample": true}},
		{"stream", "/generate_stream", `{"inputs":"` + secret + `","parameters":{"max_new_tokens":2}}`, nil, "INFO", "Success",
			map[string]any{"status": 200.0, "stream": true, "span.seed": nil}},
		{"chat", chatPath, chat(`,"seed":9`), nil, "INFO", "Success",
			map[string]any{"status": 200.0, "generated_tokens": 3.0, "span.seed": 9.0}},
		{"two choices", chatPath, chat(`,"n":2`), nil, "INFO", "Success",
			map[string]any{"generated_tokens": 6.0}},
		{"completion", "/v1/completions", `{"prompt":"` + secret + `","max_tokens":1,"model":"tgi"}`, nil, "INFO", "Success",
			map[string]any{"generated_tokens": 1.0}},
		{"invalid value", "/generate", `{"inputs":"` + secret + `","parameters":{"top_p":7}}`, nil, "WARN", "Failed",
			map[string]any{"status": 422.0, "error_type": "validation", "error": nil, "generated_tokens": nil}},
		{"wrong type, which the answer quotes", "/generate", `{"inputs":"a","parameters":"` + secret + `"}`, nil, "WARN", "Failed",
			map[string]any{"status": 422.0, "error_type": "validation", "trace_id": traced}},
		{"device", "/generate", `{"inputs":"` + secret + `"}`, fails, "ERROR", "Failed",
			map[string]any{"status": 424.0, "error_type": "generation", "error": "Request failed during generation: device is gone"}},
		{"device, stream", "/generate_stream", `{"inputs":"` + secret + `"}`, fails, "ERROR", "Failed",
			map[string]any{"status": 424.0}},
		{"tokenize", "/tokenize", `{"inputs":"` + secret + `"}`, nil, "", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			with, _ := watch(&log, slog.LevelInfo)
			s := newChatServer(t, plainTemplate, &fake{script: tt.script}, with)
			ask(t, s, "POST", tt.path, tt.body, "traceparent: 00-"+traced+"-b7ad6b7169203331-01", "X-Request-Id: mine", "X-Amzn-SageMaker-Session-Id: s-1", "Authorization: Bearer "+secret)
			if strings.Contains(log.String(), secret) {
				t.Errorf("the log tells the prompt or the key: %s", log.String())
			}
			lines := strings.Split(strings.TrimSpace(log.String()), "\n")
			if tt.level == "" {
				if log.Len() > 0 {
					t.Errorf("a line: %s", log.String())
				}
				return
			}
			var line map[string]any
			if err := json.Unmarshal([]byte(lines[0]), &line); err != nil || len(lines) != 1 {
				t.Fatalf("%d lines, %v: %s", len(lines), err, log.String())
			}
			if line["level"] != tt.level || line["msg"] != tt.message {
				t.Errorf("%s %s, want %s %s", line["level"], line["msg"], tt.level, tt.message)
			}
			for name, want := range tt.want {
				var got any = line
				for part := range strings.SplitSeq(name, ".") {
					fields, _ := got.(map[string]any)
					got = fields[part]
				}
				if got != want {
					t.Errorf("%s is %v, want %v in %s", name, got, want, lines[0])
				}
			}
			if tt.message == "Success" {
				span, _ := line["span"].(map[string]any)
				for _, name := range []string{"total_time", "validation_time", "queue_time", "inference_time", "time_per_token"} {
					if text, _ := span[name].(string); !strings.HasSuffix(text, "s") {
						t.Errorf("span.%s is %v", name, span[name])
					}
				}
				for _, name := range []string{"queue_ms", "inference_ms", "total_ms"} {
					if ms, ok := line[name].(float64); !ok || ms < 0 {
						t.Errorf("%s is %v", name, line[name])
					}
				}
			}
		})
	}
}

func TestSpans(t *testing.T) {
	var log bytes.Buffer
	with, recorder := watch(&log, slog.LevelError)
	s := newChatServer(t, plainTemplate, &fake{}, with)
	spans := func(path, body string, headers ...string) []sdktrace.ReadOnlySpan {
		recorder.Reset()
		ask(t, s, "POST", path, body, headers...)
		return recorder.Ended()
	}
	names := func(all []sdktrace.ReadOnlySpan) string {
		var n []string
		for _, span := range all {
			n = append(n, span.Name())
		}
		return strings.Join(n, " ")
	}
	t.Run("children", func(t *testing.T) {
		all := spans("/generate", `{"inputs":"a","parameters":{"max_new_tokens":2}}`, "traceparent: 00-"+traced+"-b7ad6b7169203331-01")
		if got := names(all); got != "queue prefill decode validation POST /generate" {
			t.Fatalf("spans %s", got)
		}
		root := all[len(all)-1]
		if root.SpanContext().TraceID().String() != traced || root.Parent().SpanID().String() != "b7ad6b7169203331" {
			t.Errorf("not a child of the caller's span: %v", root.Parent())
		}
		for _, child := range all[:len(all)-1] {
			if child.Parent().SpanID() != root.SpanContext().SpanID() {
				t.Errorf("%s is not a child of the request's span", child.Name())
			}
			if child.StartTime().Before(root.StartTime()) || child.EndTime().After(root.EndTime()) || child.EndTime().Before(child.StartTime()) {
				t.Errorf("%s lasts from %v to %v, the request from %v to %v", child.Name(), child.StartTime(), child.EndTime(), root.StartTime(), root.EndTime())
			}
		}
		if !all[0].EndTime().Equal(all[1].StartTime()) || !all[1].EndTime().Equal(all[2].StartTime()) || !all[3].EndTime().Equal(all[0].StartTime()) {
			t.Error("validation, queue, prefill and decode do not follow each other")
		}
	})
	t.Run("choices", func(t *testing.T) {
		all := spans(chatPath, `{"messages":[{"role":"user","content":"a"}],"max_tokens":1,"n":2}`)
		if got := names(all); got != "queue prefill decode queue prefill decode validation POST /v1/chat/completions" {
			t.Errorf("spans %s", got)
		}
	})
	t.Run("a caller who does not sample", func(t *testing.T) {
		if all := spans("/generate", `{"inputs":"a"}`, "traceparent: 00-"+traced+"-b7ad6b7169203331-00"); len(all) > 0 {
			t.Errorf("spans %s", names(all))
		}
	})
	t.Run("refused", func(t *testing.T) {
		if got := names(spans("/generate", `{"inputs":""}`)); got != "validation POST /generate" {
			t.Errorf("spans %s", got)
		}
	})
	t.Run("health", func(t *testing.T) {
		recorder.Reset()
		ask(t, s, "GET", "/health", "")
		if all := recorder.Ended(); len(all) > 0 {
			t.Errorf("spans %s", names(all))
		}
	})
}

// Every answer names its request, as the client did or as the log will.
func TestRequestIDs(t *testing.T) {
	var log bytes.Buffer
	watched, _ := watch(&log, slog.LevelDebug)
	s := newTestServer(&fake{}, watched, func(o *Options) { o.APIKey = "k" })
	seen := map[string]bool{}
	for _, tt := range []struct {
		method, path, body string
		headers            []string
		want               string // "": one that the server makes
	}{
		{"POST", "/generate", `{"inputs":"a","parameters":{"max_new_tokens":1}}`, []string{"Authorization: Bearer k"}, ""},
		{"POST", "/generate", `{"inputs":""}`, []string{"Authorization: Bearer k"}, ""},
		{"POST", "/generate_stream", `{"inputs":"a","parameters":{"max_new_tokens":1}}`, []string{"Authorization: Bearer k", "X-Request-Id: mine"}, "mine"},
		{"POST", "/generate", `{"inputs":""}`, []string{"Authorization: Bearer k", "X-Amzn-Sagemaker-Inference-Id: theirs", "X-Request-Id: mine"}, "theirs"},
		{"POST", "/generate", `{"inputs":""}`, []string{"Authorization: Bearer k", "X-Request-Id: two words"}, ""},
		{"POST", "/generate", `{}`, nil, ""},
		{"GET", "/nowhere", "", []string{"X-Request-Id: lost"}, "lost"},
		{"GET", "/health", "", nil, ""},
		{"OPTIONS", "/generate", "", nil, ""},
	} {
		log.Reset()
		got := ask(t, s, tt.method, tt.path, tt.body, tt.headers...)
		ids := got.header.Values("X-Request-Id")
		if len(ids) != 1 || tt.want != "" && ids[0] != tt.want || tt.want == "" && (!requestID.MatchString(ids[0]) || seen[ids[0]]) {
			t.Errorf("%s %s %q: X-Request-Id is %q", tt.method, tt.path, tt.headers, ids)
			continue
		}
		seen[ids[0]] = true
		if line := log.String(); line != "" && !strings.Contains(line, `"request_id":"`+ids[0]+`"`) {
			t.Errorf("%s has another request_id: %s", ids[0], line)
		}
	}
}

// Each answer is counted once, by route, method and status.
func TestHTTPMetrics(t *testing.T) {
	s := newTestServer(&fake{}, func(o *Options) { o.APIKey = "k" })
	count := func(series string) (n int) {
		for line := range strings.Lines(ask(t, s, "GET", "/metrics", "").body) {
			if value, ok := strings.CutPrefix(line, "millrace_http_requests_total{"+series+"} "); ok {
				if _, err := fmt.Sscan(value, &n); err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
		return -1
	}
	beside := s.Route(Methods{"POST": func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.Path == "/fails" {
			return errors.New("a fault")
		}
		r.URL.Path = "/generate"
		s.ServeHTTP(w, r)
		return nil
	}})
	const key = "Authorization: Bearer k"
	const body = `{"inputs":"a","parameters":{"max_new_tokens":1}}`
	for _, tt := range []struct {
		h                       http.Handler
		method, path, body, key string
		series                  string
		before                  int // -1: it is not there yet
	}{
		{s, "POST", "/generate", body, key, `code="200",method="POST",route="/generate"`, 0},
		{s, "POST", "/generate", `{"inputs":""}`, key, `code="422",method="POST",route="/generate"`, -1},
		{s, "POST", "/generate", `{`, key, `code="400",method="POST",route="/generate"`, -1},
		{s, "POST", "/generate", body, "", `code="401",method="POST",route="/generate"`, -1},
		{s, "PATCH", "/generate", body, key, `code="405",method="other",route="/generate"`, -1},
		{s, "OPTIONS", "/generate", "", "", `code="200",method="OPTIONS",route="/generate"`, -1},
		{s, "GET", "/v1/models/a", "", key, `code="404",method="GET",route="/v1/models/"`, -1},
		{s, "GET", "/nowhere/a", "", "", `code="404",method="GET",route="none"`, -1},
		{s, "OPTIONS", "/nowhere", "", "", `code="200",method="OPTIONS",route="none"`, -1},
		{s, "GET", "/health", "", "", `code="200",method="GET",route="/health"`, 0},
		{beside, "POST", "/x", body, key, `code="200",method="POST",route="/generate"`, 1},
		{beside, "POST", "/fails", body, key, `code="500",method="POST",route="hosting"`, -1},
		{beside, "POST", "/x", body, "", `code="401",method="POST",route="hosting"`, -1},
	} {
		if n := count(tt.series); n != tt.before {
			t.Errorf("%s before %s %s: %d, want %d", tt.series, tt.method, tt.path, n, tt.before)
		}
		ask(t, tt.h, tt.method, tt.path, tt.body, tt.key)
		if n := count(tt.series); n != max(0, tt.before)+1 {
			t.Errorf("%s after %s %s: %d", tt.series, tt.method, tt.path, n)
		}
	}
	if n := count(`code="200",method="POST",route="hosting"`); n != -1 {
		t.Errorf("what was passed on is counted twice, %d times", n)
	}
}

// What the server is and whether it serves.
func TestStateMetrics(t *testing.T) {
	pending := New(Options{ModelID: "x"})
	s := New(Options{Version: "1.2.3", SHA: "abc", Device: "sim", ModelID: "org/name"})
	s.SetReady(Model{Generator: &fake{limits: engine.Limits{MaxInput: 4000, MaxTotal: 4096}}, Tokenizer: testTokenizer(), Revision: "def", Hardware: "avx2"})
	check := func(s *Server, lines ...string) {
		t.Helper()
		body := ask(t, s, "GET", "/metrics", "").body
		for _, line := range lines {
			if !strings.Contains(body, line+"\n") {
				t.Errorf("missing: %s", line)
			}
		}
	}
	check(pending, "millrace_ready 0", "millrace_draining 0", "millrace_slots 0")
	check(s, `millrace_build_info{commit="abc",device="sim",version="1.2.3"} 1`, `millrace_model_info{hardware="avx2",model="org/name",revision="def"} 1`,
		"millrace_ready 1", "millrace_draining 0", "millrace_slots 8")
	if got := ask(t, s, "GET", "/info", "").body; !strings.HasSuffix(got, `,"hardware":"avx2"}`) { // COMPAT.md: hardware
		t.Errorf("/info is %s, want the hardware", got)
	}
	s.Drain()
	check(s, "millrace_ready 0", "millrace_draining 1")
}

func TestOwnMetrics(t *testing.T) {
	s := newTestServer(&fake{})
	fresh := ask(t, s, "GET", "/metrics", "").body
	for _, line := range []string{
		"millrace_time_to_first_token_seconds_count 0", "millrace_inter_token_latency_seconds_count 0", "millrace_prompt_tokens_total 0",
		"millrace_cache_hit_tokens_total 0", "millrace_generated_tokens_total 0", "millrace_preemptions_total 0", "millrace_kv_pages 10",
		"millrace_kv_pages_used 0", `tgi_request_failure{err="timeout"} 0`, "millrace_kv_pages_cached 0", "millrace_states 0", "millrace_states_used 0", "millrace_state_snapshots 0",
		"millrace_state_snapshot_queries_total 0", "millrace_state_snapshot_hits_total 0", "millrace_state_snapshot_evictions_total 0",
		`millrace_kv_group_pages_used{group="1",window="512"} 3`, `millrace_kv_group_pages_cached{group="1",window="512"} 4`,
		`millrace_kv_group_page_queries_total{group="1",window="512"} 7`, `millrace_kv_group_page_hits_total{group="1",window="512"} 5`,
		`millrace_kv_group_page_evictions_total{group="1",window="512"} 1`, `millrace_kv_group_page_hits_total{group="0",window="0"} 0`, "millrace_kv_usage_ratio 0", "# TYPE millrace_preemptions_total counter",
		"# HELP millrace_kv_usage_ratio Part of the key-value cache that running sequences hold, 0 to 1",
	} {
		if !strings.Contains(fresh, line+"\n") {
			t.Errorf("missing at the start: %s", line)
		}
	}
	post(t, s, "/generate", `{"inputs":"a","parameters":{"max_new_tokens":2}}`)
	post(t, s, "/generate", `{"inputs":""}`)
	s.Metrics().Step(engine.StepInfo{Method: engine.Prefill, Sequences: 4, Decodes: 3})
	s.Metrics().Step(engine.StepInfo{Method: engine.Decode, Sequences: 2, Decodes: 2, Tokens: 7, Accepted: []int{3, 0}})
	used := ask(t, s, "GET", "/metrics", "").body
	for _, line := range []string{"millrace_time_to_first_token_seconds_count 1", "millrace_inter_token_latency_seconds_count 8", "tgi_request_skipped_tokens_sum 3", "tgi_request_skipped_tokens_count 2"} {
		if !strings.Contains(used, line+"\n") {
			t.Errorf("missing after use: %s", line)
		}
	}
}
