package sagemaker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/handler"
	"github.com/millrace-ai/millrace/internal/web"
)

// api is an API whose answers a test writes. Its routes are those of a true
// Server.
type api struct {
	http.HandlerFunc
	routes *handler.Server
}

func (a api) Route(m handler.Methods) http.Handler { return a.routes.Route(m) }

func (a api) AddAdapter(ctx context.Context, x handler.Adapter, load, replace bool) error {
	return a.routes.AddAdapter(ctx, x, load, replace)
}
func (a api) RemoveAdapter(name string) (bool, error) { return a.routes.RemoveAdapter(name) }
func (a api) ListAdapters() []handler.Adapter         { return a.routes.ListAdapters() }
func (a api) Hold(bytes int64) bool                   { return a.routes.Hold(bytes) }
func (a api) Release(bytes int64)                     { a.routes.Release(bytes) }

func newAPI(serve http.HandlerFunc) api {
	return api{serve, handler.New(handler.Options{ModelID: "MODEL", Logger: slog.New(slog.DiscardHandler)})}
}

// echo answers with what it was asked, as JSON.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	out, _ := json.Marshal(map[string]string{"method": r.Method, "path": r.URL.Path, "type": r.Header.Get("Content-Type"), "body": string(body)})
	web.WriteJSON(w, 200, out)
}

// reply is a response in memory.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends one request; headers are "name: value".
func ask(h http.Handler, method, path, body string, headers ...string) reply {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return reply{w.Code, w.Result().Header, w.Body.String()}
}

// mustFail checks that a reply is an error of the API's form, below the 1.5 KB
// that SageMaker hands on, and that its text has want in it.
func mustFail(t *testing.T, got reply, status int, want string) {
	t.Helper()
	var e struct {
		Error string `json:"error"`
		Type  string `json:"error_type"`
	}
	if err := json.Unmarshal([]byte(got.body), &e); err != nil || e.Error == "" || e.Type == "" || len(got.body) > 1500 {
		t.Errorf("no JSON error below 1.5 KB: %d %q", got.status, got.body)
	}
	if got.status != status || !strings.Contains(e.Error, want) {
		t.Errorf("%d %s; want %d with %q", got.status, got.body, status, want)
	}
}

func TestPaths(t *testing.T) {
	h := Wrap(newAPI(echo), Options{Slots: 8})
	for _, tt := range []struct {
		name, method, path, attributes string
		seen                           string // what the API gets
	}{
		{"ping", "GET", "/ping", "", "GET /ping"},
		{"ping by POST", "POST", "/ping", "", "GET /ping"},
		{"ping by HEAD", "HEAD", "/ping", "", "HEAD /ping"},
		{"invocation", "POST", "/invocations", "", "POST /invocations"},
		{"invocation by GET", "GET", "/invocations", "", "GET /invocations"},
		{"OpenAI's path", "POST", "/v1/chat/completions", "", "POST /v1/chat/completions"},
		{"another", "GET", "/metrics", "", "GET /metrics"},
		{"unknown", "POST", "/modelsx", "", "POST /modelsx"},
		{"route", "POST", "/invocations", "route=/v1/completions", "POST /v1/completions"},
		{"route among others", "POST", "/invocations", "user=a, Route=/tokenize;x=1", "POST /tokenize"},
		{"route to a GET", "POST", "/invocations", "route=/info", "GET /info"},
		{"an attribute of the customer's own", "POST", "/invocations", "tenant=7,route=eu-west", "POST /invocations"},
		{"route to itself", "POST", "/invocations", "route=/invocations", "POST /invocations"},
		{"no route", "POST", "/invocations", "tenant=7", "POST /invocations"},
		{"route elsewhere is not ours", "POST", "/generate", "route=/info", "POST /generate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(h, tt.method, tt.path, "{}", headerAttributes+": "+tt.attributes)
			var seen struct{ Method, Path, Type, Body string }
			if err := json.Unmarshal([]byte(got.body), &seen); err != nil || seen.Method+" "+seen.Path != tt.seen {
				t.Fatalf("the API sees %+v, %v; want %s", seen, err, tt.seen)
			}
			if wantBody := map[bool]string{true: "", false: "{}"}[seen.Path == "/info"]; seen.Body != wantBody {
				t.Errorf("body %q, want %q", seen.Body, wantBody)
			}
		})
	}
}

// What a caller's SDK says about a body whose type it was not told counts for
// nothing on the one path that every caller of an endpoint has.
func TestContentTypes(t *testing.T) {
	for _, tt := range []struct {
		path, route, given string
		seen               string
	}{
		{"/invocations", "", "", "application/json"},
		{"/invocations", "", "application/octet-stream", "application/json"},
		{"/invocations", "route=/tokenize", "application/octet-stream", "application/json"},
		{"/invocations", "", "text/csv", "text/csv"},
		{"/generate", "", "application/octet-stream", "application/octet-stream"},
	} {
		got := ask(Wrap(newAPI(echo), Options{}), "POST", tt.path, "{}", headerAttributes+": "+tt.route, "Content-Type: "+tt.given)
		var seen struct{ Type string }
		if err := json.Unmarshal([]byte(got.body), &seen); err != nil || seen.Type != tt.seen {
			t.Errorf("%s %s %q: the API sees %q, %v; want %q", tt.path, tt.route, tt.given, seen.Type, err, tt.seen)
		}
	}
}

func TestRefusals(t *testing.T) {
	h := Wrap(newAPI(echo), Options{Slots: 8, PayloadLimit: 100})
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		name, method, path, body, header string
		status                           int
		want                             string
	}{
		{"unknown route", "POST", "/invocations", "{}", headerAttributes + ": route=/v1/embeddings", 400, `"/v1/embeddings" here; expected one of /, /chat_tokenize, /generate,`},
		{"endless route", "POST", "/invocations", "{}", headerAttributes + ": route=/" + long, 400, "expected one of"},
		{"target model", "POST", "/invocations", "{}", headerTargetModel + ": m.tar.gz", 422, `no model "m.tar.gz"`},
		{"load a model", "POST", "/models", `{"model_name":"m","url":"/opt"}`, "", 400, "serves one model"},
		{"unknown model", "GET", "/models/m", "", "", 404, `model "m" is not loaded`},
		{"unload a model", "DELETE", "/models/m", "", "", 404, `model "m" is not loaded`},
		{"invoke a model", "POST", "/models/m/invoke", "{}", "", 404, `model "m" is not loaded`},
		{"load an adapter", "POST", "/adapters", `{"name":"a","src":"/tmp/a","preload":true}`, "", 403, "--allow-runtime-lora-updating"},
		{"load an adapter by query", "POST", "/adapters?name=a&src=b", "", "", 403, "--allow-runtime-lora-updating"},
		{"load an adapter of a model", "POST", "/models/m/adapters", `{"name":"a","src":"/tmp/a"}`, "", 403, "--allow-runtime-lora-updating"},
		{"adapter without a source", "POST", "/adapters", `{"name":"a"}`, "", 400, `found name "a" and src ""`},
		{"adapter that is not JSON", "POST", "/adapters", `{"name":`, "", 400, "expected a JSON object"},
		{"unknown adapter", "GET", "/adapters/a%2Fb", "", "", 404, `adapter "a/b" is not registered`},
		{"update an adapter", "POST", "/models/m/adapters/a/update", `{"src":"b"}`, "", 403, "--allow-runtime-lora-updating"},
		{"below an adapter", "GET", "/adapters/a/x", "", "", 404, "no route"},
		{"escaped slash instead of one", "GET", "/models%2Fm", "", "", 404, "no route"},
		{"method", "PUT", "/models/m", "", "", 405, "PUT is not allowed"},
		{"execution parameters by POST", "POST", "/execution-parameters", "", "", 405, "only GET,HEAD"},
		{"no WebSocket", "GET", duplexPath, "", "", 426, "Upgrade: websocket"},
		{"session while off", "POST", "/invocations", `{"requestType":"NEW_SESSION"}`, "", 400, "SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true"},
		{"session id while off", "POST", "/invocations", "{}", headerSession + ": x", 400, "SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true"},
		{"large batch", "POST", "/invocations", "{}\n{}" + long, "Content-Type: application/jsonlines", 413, "(100 bytes, --payload-limit)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mustFail(t, ask(h, tt.method, tt.path, tt.body, tt.header), tt.status, tt.want)
		})
	}
}

func TestRegistryThatIsEmpty(t *testing.T) {
	h := Wrap(newAPI(echo), Options{})
	for _, tt := range []struct{ method, path, want string }{
		{"GET", "/models", `{"models":[]}`},
		{"GET", "/adapters", `{"adapters":[]}`},
		{"GET", "/adapters?limit=3", `{"adapters":[]}`},
		{"GET", "/models/m/adapters", `{"adapters":[]}`},
	} {
		if got := ask(h, tt.method, tt.path, ""); got.status != 200 || got.body != tt.want {
			t.Errorf("%s %s: %d %s; want %s", tt.method, tt.path, got.status, got.body, tt.want)
		}
	}
}

// The platform multiplies both sizes and fails a job beyond 100 MB.
func TestExecutionParameters(t *testing.T) {
	for _, tt := range []struct {
		slots            int
		limit            int64
		transforms, size int
	}{
		{1, 25 << 20, 1, 25}, {4, 100 << 20, 4, 25}, {16, 25 << 20, 16, 6}, {64, 25 << 20, 16, 6}, {500, 25 << 20, 16, 6}, {2, 2_000_000, 2, 1}, {64, 2_000_000, 64, 1},
	} {
		got := ask(Wrap(newAPI(echo), Options{Slots: tt.slots, PayloadLimit: tt.limit}), "GET", "/execution-parameters", "")
		want := fmt.Sprintf(`{"MaxConcurrentTransforms":%d,"BatchStrategy":"SINGLE_RECORD","MaxPayloadInMB":%d}`, tt.transforms, tt.size)
		if got.body != want || tt.transforms*tt.size > 100 {
			t.Errorf("%d slots, %d bytes: %s; want %s", tt.slots, tt.limit, got.body, want)
		}
	}
}

// The key of the API covers what stands around it, before anything is told.
func TestKey(t *testing.T) {
	s := handler.New(handler.Options{ModelID: "MODEL", APIKey: "k", Logger: slog.New(slog.DiscardHandler)})
	h := Wrap(s, Options{SessionLife: time.Minute})
	for _, tt := range []struct{ method, path, body, header string }{
		{"GET", "/execution-parameters", "", ""},
		{"GET", "/models", "", ""},
		{"DELETE", "/adapters/a", "", ""},
		{"GET", duplexPath, "", "Upgrade: websocket"},
		{"POST", "/invocations", `{"requestType":"NEW_SESSION"}`, ""},
		{"POST", "/invocations", "{}", headerAttributes + ": route=/nowhere"},
		{"POST", "/invocations", "{}", headerAttributes + ": route=/info"},
		{"POST", "/invocations", "{}\n{}", "Content-Type: application/jsonlines"},
		{"POST", "/invocations", "{}", headerAdapter + ": a"},
		{"POST", "/invocations", "{}", headerSession + ": a"},
	} {
		mustFail(t, ask(h, tt.method, tt.path, tt.body, tt.header), 401, "API key")
	}
	for _, method := range []string{"GET", "POST", "HEAD"} {
		if got := ask(h, method, "/ping", ""); got.status != 503 {
			t.Errorf("%s /ping without a key: %d, want 503 while loading", method, got.status)
		}
	}
}

// stream answers with the given writes of an event stream, a flush after each.
func stream(writes ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, s := range writes {
			if _, err := io.WriteString(w, s); err != nil {
				return
			}
			if err := http.NewResponseController(w).Flush(); err != nil {
				panic(err)
			}
		}
	}
}

func TestAcceptLines(t *testing.T) {
	events := []string{"data: {\"a\":1}\n\n", ":\n\n", "data:{\"b\":2}\r\n\r\ndata: {\"c\"", ":3}\n\n", "data: {\"error\":\"x\"}\n\ndata: [DONE]\n\n"}
	for _, tt := range []struct{ name, accept, contentType, body string }{
		{"lines", "application/jsonlines", linesType, "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n{\"error\":\"x\"}\n"},
		{"one of several", "application/x-ndjson;q=0.9, */*", linesType, "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n{\"error\":\"x\"}\n"},
		{"events as well", "application/jsonlines, text/event-stream", "text/event-stream", strings.Join(events, "")},
		{"anything", "*/*", "text/event-stream", strings.Join(events, "")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(Wrap(newAPI(stream(events...)), Options{}), "POST", "/invocations", "{}", "Accept: "+tt.accept)
			if got.body != tt.body || got.header.Get("Content-Type") != tt.contentType {
				t.Errorf("%s %q; want %s %q", got.header.Get("Content-Type"), got.body, tt.contentType, tt.body)
			}
		})
	}
	got := ask(Wrap(newAPI(echo), Options{}), "POST", "/invocations", "{}", "Accept: application/jsonlines")
	if got.header.Get("Content-Type") != "application/json" {
		t.Errorf("an answer in one piece is %s", got.header.Get("Content-Type"))
	}
}

// Each line is with the client before the next event exists.
func TestLinesLeaveAtOnce(t *testing.T) {
	read := make(chan struct{})
	srv := httptest.NewServer(Wrap(newAPI(func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			stream("data: "+strconv.Itoa(i)+"\n\n")(w, r)
			<-read
		}
	}), Options{}))
	defer srv.Close()
	req, err := http.NewRequest("POST", srv.URL+"/invocations", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/jsonlines")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		if !lines.Scan() || lines.Text() != strconv.Itoa(i) {
			t.Fatalf("line %d: %q, %v", i, lines.Text(), lines.Err())
		}
		read <- struct{}{}
	}
}

func TestUsage(t *testing.T) {
	counted := func(w http.ResponseWriter, _ *http.Request) {
		for i, name := range []string{"X-Prompt-Tokens", "X-Generated-Tokens", "X-Total-Time", "X-Queue-Time", "X-Inference-Time"} {
			w.Header().Set(name, strconv.Itoa(i+1))
		}
		web.WriteJSON(w, 200, []byte("{}"))
	}
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		opt   Options
		want  string
	}{
		{"answer", counted, Options{Usage: true}, "prompt_tokens=1;generated_tokens=2;total_ms=3;queue_ms=4;inference_ms=5"},
		{"off", counted, Options{}, ""},
		{"no generation", echo, Options{Usage: true}, ""},
		{"stream", stream("data: 1\n\n"), Options{Usage: true}, ""},
	} {
		if got := ask(Wrap(newAPI(tt.serve), tt.opt), "POST", "/invocations", "{}").header.Get(headerAttributes); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
