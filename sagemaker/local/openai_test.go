package local

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func (r *running) chat(path, authorization, body string) (*http.Response, string, error) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), err
}

func TestOpenAI(t *testing.T) {
	const unary = time.Second // where it matters
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	cfg := Config{
		Adapters: map[string]string{"tuned": "/tuned"},
		Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/adapters" {
				return
			}
			body, _ := io.ReadAll(req.Body)
			if req.URL.Path != "/v1/chat/completions" || req.Header.Get("Authorization") != "" {
				t.Errorf("the container got %s with authorization %q", req.URL.Path, req.Header.Get("Authorization"))
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Request-Id", "17")
			switch string(body) {
			case "stream":
				w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
				flushed(w, event)
				time.Sleep(unary + 100*time.Millisecond)
				flushed(w, event)
			case "break":
				w.Header().Set("Content-Type", "text/event-stream")
				flushed(w, event)
				panic(http.ErrAbortHandler)
			case "refuse":
				w.WriteHeader(http.StatusUnprocessableEntity)
			case "hang":
				wait(req, release)
			default:
				w.Write([]byte(req.Header.Get(headerAdapter) + "{}"))
			}
		})},
	}
	const path = "/endpoints/demo/openai/v1/chat/completions"
	for _, tt := range []struct {
		name, path, authorization, body string
		limit                           time.Duration // of unary answers; 0: long
		wantStatus                      int
		wantBody                        string // a part of it
		wantBroken                      bool
	}{
		{name: "a bearer token", authorization: "Bearer " + SampleKey, wantStatus: 200, wantBody: "{}"},
		{name: "a signature", authorization: "AWS4-HMAC-SHA256 Credential=local", wantStatus: 200, wantBody: "{}"},
		{name: "no authorization", wantStatus: 403, wantBody: "Missing Authentication Token"},
		{name: "another service's key", authorization: "Bearer sk-123", wantStatus: 403, wantBody: "bearer token is invalid"},
		{name: "a key that is not base64", authorization: "Bearer sagemaker-api-key-!", wantStatus: 403, wantBody: "bearer token is invalid"},
		{name: "a stream", authorization: "Bearer " + SampleKey, body: "stream", limit: unary, wantStatus: 200, wantBody: event + event},
		{name: "a broken stream", authorization: "Bearer " + SampleKey, body: "break", wantStatus: 200, wantBody: event, wantBroken: true},
		{name: "an error", authorization: "Bearer " + SampleKey, body: "refuse", wantStatus: 424, wantBody: `"OriginalStatusCode":422`},
		{name: "no answer in time", authorization: "Bearer " + SampleKey, body: "hang", limit: unary, wantStatus: 424, wantBody: "Your invocation timed out"},
		{name: "an adapter", path: "/endpoints/demo/inference-components/tuned/openai/v1/chat/completions", authorization: "Bearer " + SampleKey, wantStatus: 200, wantBody: "tuned{}"},
		{name: "an unknown component", path: "/endpoints/demo/inference-components/other/openai/v1/chat/completions", authorization: "Bearer " + SampleKey, wantStatus: 400, wantBody: "Inference Component other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.path == "" {
				tt.path = path
			}
			cfg.Limits.Unary = tt.limit
			resp, text, err := run(t, cfg).chat(tt.path, tt.authorization, tt.body)
			if resp.StatusCode != tt.wantStatus || !strings.Contains(text, tt.wantBody) {
				t.Errorf("%d %q, want %d %q", resp.StatusCode, text, tt.wantStatus, tt.wantBody)
			}
			if (err != nil) != tt.wantBroken {
				t.Errorf("the body ended with %v, want an error: %v", err, tt.wantBroken)
			}
			if resp.Header.Get("X-Request-Id") != "" {
				t.Error("X-Request-Id came back")
			}
		})
	}
}

func TestACallerWhoLeavesAChatIsNoErrorOfTheStream(t *testing.T) {
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		flushed(w, event)
		wait(req, nil)
	})}})
	req, err := http.NewRequest(http.MethodPost, r.url+"/endpoints/demo/openai/v1/chat/completions", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+SampleKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	eventually(t, "the call has ended", func() bool {
		return strings.Contains(r.metricsText(), "ConcurrentRequestsPerModel{EndpointName=\"demo\",VariantName=\"AllTraffic\"} 0\n")
	})
	if !strings.Contains(r.metricsText(), "MidStreamErrors{EndpointName=\"demo\",VariantName=\"AllTraffic\"} 0\n") {
		t.Errorf("the caller's leaving is counted as an error of the stream:\n%s", r.metricsText())
	}
}
