package handler

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
)

// TestSecrets looks for what must not be told: the key and what a client sent
// with it, in answers and logs; prompts and outputs in logs of any level but
// debug, where errors are repeated.
func TestSecrets(t *testing.T) {
	const key, wrong, prompt, output = "Key-f00d", "Key-badbad", "in confidence", "a private matter"
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo} {
		var mu sync.Mutex
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: level}))
		edit := func(o *Options) { o.APIKey, o.Logger = key, logger }
		broken := func(_ *engine.Request, out *engine.StreamWriter) {
			out.End(engine.NotFinished, &engine.Error{Kind: engine.Failed, Msg: "device lost"})
		}
		for _, s := range []*Server{newChatServer(t, plainTemplate, &fake{script: says(output)}, edit), newChatServer(t, plainTemplate, &fake{script: broken}, edit)} {
			for _, sent := range []string{key, wrong} {
				for path, body := range map[string]string{
					"/generate": `{"inputs":"` + prompt + `"}`, "/generate_stream": `{"inputs":"` + prompt + `"}`,
					"/v1/completions":      `{"prompt":"` + prompt + `","stream":true}`,
					"/v1/chat/completions": `{"messages":[{"role":"user","content":"` + prompt + `"}]}`,
					"/":                    `{"inputs":"` + prompt + `","parameters":{"top_p":0}}`,
					"/invocations":         `{"inputs":["` + prompt + `"]}`,
					"/nope":                `{"inputs":"` + prompt + `"}`,
				} {
					got := ask(t, s, "POST", path+"?api_key="+sent, body, "Authorization: Bearer "+sent, "X-Api-Key: "+sent)
					if strings.Contains(got.body, sent) {
						t.Errorf("%s answers with the key: %s", path, got.body)
					}
				}
			}
		}
		mu.Lock()
		text := log.String()
		mu.Unlock()
		for _, secret := range []string{key, wrong} {
			if strings.Contains(text, secret) {
				t.Errorf("level %v: %s is told: %s", level, secret, text)
			}
		}
		if strings.Contains(text, prompt) && level > slog.LevelDebug || strings.Contains(text, output) {
			t.Errorf("level %v: a prompt or an output is logged: %s", level, text)
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// TestNoContentType pins that only /invocations does without, and only if
// there is none at all.
func TestNoContentType(t *testing.T) {
	for _, tt := range []struct {
		path   string
		types  []string
		status int
	}{
		{"/invocations", nil, 200},
		{"/invocations", []string{""}, 415},
		{"/invocations", []string{"text/plain"}, 415},
		{"/generate", nil, 415},
	} {
		r, err := http.NewRequest("POST", serve(t, newTestServer(&fake{}))+tt.path, strings.NewReader(oneToken))
		if err != nil {
			t.Fatal(err)
		}
		if tt.types != nil {
			r.Header["Content-Type"] = tt.types
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s with %q: %d, want %d", tt.path, tt.types, resp.StatusCode, tt.status)
		}
	}
}

// TestHeaderLimits sends too many headers, and headers that never end.
func TestHeaderLimits(t *testing.T) {
	serve := func(patience time.Duration) net.Conn {
		srv := NewHTTPServer("", newTestServer(&fake{}))
		srv.ReadHeaderTimeout = patience
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go srv.Serve(l) //nolint:errcheck // it ends with the test
		t.Cleanup(func() { srv.Close() })
		return dial(t, "http://"+l.Addr().String())
	}

	c := serve(time.Minute)
	go fmt.Fprintf(c, "GET /ping HTTP/1.1\r\nhost: x\r\nx: %s\r\n\r\n", strings.Repeat("a", 100<<10))
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 431 {
		t.Errorf("100 kB of headers: %v %v, want 431", resp, err)
	}
	c = serve(50 * time.Millisecond)
	fmt.Fprint(c, "GET /ping HTTP/1.1\r\nhost: x\r\nx: ")
	c.SetReadDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck // it is a socket
	if text, err := io.ReadAll(c); err != nil || bytes.HasPrefix(text, []byte("HTTP/1.1 200")) {
		t.Errorf("headers without an end: %q %v, want the connection closed", text, err)
	}
}

// TestDeepBodies nests where a decoder that recurses would end the process.
func TestDeepBodies(t *testing.T) {
	const depth = 500_000
	s := newGrammarServer(&fake{})
	for _, tt := range []struct{ name, path, open string }{
		{"inputs", "/generate", `{"inputs":`},
		{"a schema", "/generate", `{"inputs":"x","parameters":{"grammar":{"type":"json","value":`},
		{"an unknown field", "/v1/completions", `{"prompt":"x","y":`},
		{"a prompt", "/v1/completions", `{"prompt":`},
		{"a message", "/v1/chat/completions", `{"messages":`},
		{"tools", "/v1/chat/completions", `{"messages":[],"tools":`},
		{"template variables", "/v1/chat/completions", `{"messages":[],"chat_template_kwargs":`},
		{"any shape", "/invocations", `{"x":`},
		{"instances", "/vertex", `{"instances":`},
	} {
		for _, bracket := range []string{"[", `{"a":`} {
			got := post(t, s, tt.path, tt.open+strings.Repeat(bracket, depth/len(bracket)))
			if mustError(t, got); got.status != 400 && got.status != 422 {
				t.Errorf("%s %s: %d %s", tt.name, bracket, got.status, got.body)
			}
		}
	}
	// A schema in a string is read once more.
	inner := strings.Repeat("[", depth)
	got := post(t, s, "/generate", `{"inputs":"x","parameters":{"grammar":{"type":"json","value":"`+inner+`"}}}`)
	if mustError(t, got); got.status != 422 && !strings.Contains(got.body, "not yet") {
		t.Errorf("in a string: %d %s", got.status, got.body)
	}
}

// TestManyElements sends what grows most in memory for its bytes.
func TestManyElements(t *testing.T) {
	s := newTestServer(&fake{})
	list := func(element string, n int) string { return "[" + strings.Repeat(element+",", n) + element + "]" }
	for _, tt := range []struct{ path, body, want string }{
		{"/v1/completions", `{"prompt":` + list(`""`, 400_000) + `}`, "more than 100000 prompts"},
		{"/v1/completions", `{"prompt":` + list(`[]`, 400_000) + `}`, "more than 100000 prompts"},
		{"/v1/completions", `{"prompt":` + list(`7`, 900_000) + `}`, "`prompt` tokens + `max_tokens` must be <= 4096"},
		{"/generate", `{"inputs":"x","parameters":{"stop":` + list(`""`, 400_000) + `}}`, "more than 100000 strings"},
	} {
		got := post(t, s, tt.path, tt.body)
		if msg, _ := mustError(t, got); got.status != 422 || !strings.Contains(msg, tt.want) {
			t.Errorf("%.40s: %d %s", tt.body, got.status, got.body)
		}
	}
}
