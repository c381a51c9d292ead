package sagemaker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/millrace-ai/millrace/internal/web"
)

// message is what a socket says.
type message struct {
	ID              *string
	Data            json.RawMessage
	Status          int
	Error           string
	ErrorType       string `json:"error_type"`
	Done, Cancelled bool
}

func (m message) String() string {
	id := "null"
	if m.ID != nil {
		id = *m.ID
	}
	return fmt.Sprintf("%s %s %d %s done=%v cancelled=%v", id, m.Data, m.Status, m.ErrorType, m.Done, m.Cancelled)
}

// client is one end of a socket.
type client struct {
	t    *testing.T
	conn *websocket.Conn
}

// dial opens a socket of h, after edit.
func dial(t *testing.T, h http.Handler, headers http.Header) client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	conn, _, err := websocket.Dial(context.Background(), "ws"+strings.TrimPrefix(srv.URL, "http")+duplexPath, &websocket.DialOptions{HTTPHeader: headers}) //nolint:bodyclose // there is none
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return client{t, conn}
}

func (c client) say(messages ...string) {
	c.t.Helper()
	for _, m := range messages {
		if err := c.conn.Write(context.Background(), websocket.MessageText, []byte(m)); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c client) hear() message {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	kind, data, err := c.conn.Read(ctx)
	if err != nil || kind != websocket.MessageText {
		c.t.Fatalf("%v %v", kind, err)
	}
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		c.t.Fatalf("%v: %s", err, data)
	}
	return m
}

func (c client) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.hear().String(); got != w {
			c.t.Fatalf("heard %q, want %q", got, w)
		}
	}
}

// scripted answers by what a body says to do.
func scripted(w http.ResponseWriter, r *http.Request) {
	var body struct{ Do string }
	data, _ := io.ReadAll(r.Body)
	json.Unmarshal(data, &body) //nolint:errcheck // what is wrong has nothing to do
	switch body.Do {
	case "stream":
		stream("data: {\"n\":1}\n\ndata: {\"n\":2}\n\n", ":\n\n", "data: [DONE]\n\n")(w, r)
	case "wait": // one event, then nothing until the request is cancelled
		stream("data: {\"n\":1}\n\n")(flushless{w}, r)
		<-r.Context().Done()
	case "silence":
		<-r.Context().Done()
	case "fail":
		web.WriteJSON(w, 422, []byte(`{"error":"no","error_type":"validation"}`))
	case "panic":
		panic("a fault")
	default:
		web.WriteJSON(w, 200, fmt.Appendf(nil, `[%q,%q]`, r.Method, r.URL.Path))
	}
}

// flushless has no Flush, as an answer in memory.
type flushless struct{ http.ResponseWriter }

func (flushless) Flush() {}

func TestSocket(t *testing.T) {
	c := dial(t, Wrap(newAPI(scripted), Options{}), nil)
	for _, tt := range []struct {
		name string
		say  []string
		hear []string
	}{
		{"answer", []string{`{"id":"a"}`}, []string{`a ["POST","/invocations"] 0  done=true cancelled=false`}},
		{"without a name", []string{`{}`}, []string{`1 ["POST","/invocations"] 0  done=true cancelled=false`}},
		{"null is not a name", []string{`{"id":null}`}, []string{`2 ["POST","/invocations"] 0  done=true cancelled=false`}},
		{"error", []string{`{"id":"é\"","do":"fail"}`}, []string{`é"  422 validation done=true cancelled=false`}},
		{"panic", []string{`{"id":"a","do":"panic"}`}, []string{`a  500 internal done=true cancelled=false`}},
		{"cancel in a stream", []string{`{"id":"a","do":"wait"}`, `{"cancel":"a"}`},
			[]string{`a {"n":1} 0  done=false cancelled=false`, `a  0  done=true cancelled=true`}},
		{"cancel before an answer", []string{`{"id":"a","do":"silence"}`, `{"cancel":"a"}`}, []string{`a  0  done=true cancelled=true`}},
		{"cancel of none, then another", []string{`{"cancel":"zz"}`, `{"id":"b"}`}, []string{`b ["POST","/invocations"] 0  done=true cancelled=false`}},
		{"not JSON", []string{`{"id":`}, []string{`null  400 bad_request done=true cancelled=false`}},
		{"no object", []string{`[1]`}, []string{`null  400 bad_request done=true cancelled=false`}},
		{"name is not text", []string{`{"id":7}`}, []string{`null  400 bad_request done=true cancelled=false`}},
		{"long name", []string{`{"id":"` + strings.Repeat("x", 65) + `"}`}, []string{`null  400 bad_request done=true cancelled=false`}},
		{"same name twice", []string{`{"id":"a","do":"silence"}`, `{"id":"a"}`, `{"cancel":"a"}`},
			[]string{`a  409 conflict done=true cancelled=false`, `a  0  done=true cancelled=true`}},
		{"others go on beside one that runs", []string{`{"id":"a","do":"silence"}`, `{"id":"b"}`},
			[]string{`b ["POST","/invocations"] 0  done=true cancelled=false`}},
		{"until it is cancelled", []string{`{"cancel":"a"}`}, []string{`a  0  done=true cancelled=true`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := client{t, c.conn}
			c.say(tt.say...)
			c.expect(tt.hear...)
		})
	}
	if err := c.conn.Write(context.Background(), websocket.MessageBinary, []byte(`{"id":"bytes"}`)); err != nil {
		t.Fatal(err)
	}
	c.expect(`bytes ["POST","/invocations"] 0  done=true cancelled=false`)
	if err := c.conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

// An answer in memory cannot be flushed, which the API must take; the events
// of a stream are messages all the same.
func TestSocketStreams(t *testing.T) {
	c := dial(t, Wrap(newAPI(func(w http.ResponseWriter, r *http.Request) { scripted(flushless{w}, r) }), Options{}), nil)
	c.say(`{"id":"a","do":"stream"}`)
	c.expect(`a {"n":1} 0  done=false cancelled=false`, `a {"n":2} 0  done=false cancelled=false`, `a  0  done=true cancelled=false`)
}

func TestSocketRoute(t *testing.T) {
	h := Wrap(newAPI(scripted), Options{})
	c := dial(t, h, http.Header{headerAttributes: {"route=/v1/completions"}})
	c.say(`{}`)
	c.expect(`1 ["POST","/v1/completions"] 0  done=true cancelled=false`)
}

// A client that leaves ends all its requests.
func TestSocketWhoseClientLeaves(t *testing.T) {
	ended := make(chan struct{})
	c := dial(t, Wrap(newAPI(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ended <- struct{}{}
	}), Options{}), nil)
	c.say(`{}`, `{}`)
	c.conn.CloseNow()
	<-ended
	<-ended
}

// Shutdown lets requests end and closes the socket after their answers.
func TestSocketShutdown(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	h := Wrap(newAPI(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), "slow") {
			close(begun)
			<-release
		}
		web.WriteJSON(w, 200, []byte("[]"))
	}), Options{})
	c := dial(t, h, nil)
	c.say(`{"id":"a","do":"slow"}`)
	<-begun
	down := make(chan error, 1)
	go func() { down <- h.Shutdown(context.Background()) }()
	for m := range 1000 { // until the shutdown has begun
		c.say(fmt.Sprintf(`{"id":"late %d"}`, m))
		if got := c.hear(); got.Status == 503 {
			break
		} else if got.Status != 0 {
			t.Fatal(got)
		}
	}
	close(release)
	c.expect(`a [] 0  done=true cancelled=false`)
	_, _, err := c.conn.Read(context.Background())
	if websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the socket ends with %v", err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	mustFail(t, ask(h, "GET", duplexPath, "", "Upgrade: websocket"), 503, "shutting down")
}

// A peer that answers no ping loses its socket; one that does keeps it.
func TestSocketPings(t *testing.T) {
	h := Wrap(newAPI(scripted), Options{})
	h.duplex.pingEvery = time.Millisecond
	c := dial(t, h, nil) // and does not read, so it sends no pongs
	h.duplex.ended.Wait()
	if _, _, err := c.conn.Read(context.Background()); err == nil {
		t.Error("the socket of a silent peer is open")
	}
	h = Wrap(newAPI(scripted), Options{})
	h.duplex.lifetime = 50 * time.Millisecond
	c = dial(t, h, nil)
	_, _, err := c.conn.Read(context.Background())
	if websocket.CloseStatus(err) != websocket.StatusGoingAway || !strings.Contains(err.Error(), "time is over") {
		t.Errorf("at the end of its life a socket ends with %v", err)
	}
}

func TestSocketOrigins(t *testing.T) {
	const page = "Origin: https://b.example"
	for _, tt := range []struct {
		origins []string
		status  int
	}{{[]string{"https://a.example"}, 403}, {nil, 501}, {[]string{"https://b.example"}, 501}} { // 501: no connection to take over
		got := ask(Wrap(newAPI(scripted), Options{Origins: tt.origins}), "GET", duplexPath, "", page, "Upgrade: websocket",
			"Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
		if got.status != tt.status {
			t.Errorf("origins %q: %d %s, want %d", tt.origins, got.status, got.body, tt.status)
		}
	}
}

// A handshake that is none is answered as every other fault is.
func TestSocketHandshake(t *testing.T) {
	srv := httptest.NewServer(Wrap(newAPI(scripted), Options{}))
	defer srv.Close()
	good := map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
	for _, tt := range []struct {
		name, header, value string
		status              int
		want                string
	}{
		{"an ordinary request", "Upgrade", "", 426, "Upgrade: websocket"},
		{"no Connection: Upgrade", "Connection", "keep-alive", 426, "Connection"},
		{"an old version", "Sec-WebSocket-Version", "8", 400, `"8"`},
		{"no key", "Sec-WebSocket-Key", "", 400, "Sec-WebSocket-Key"},
		{"a key that is none", "Sec-WebSocket-Key", strings.Repeat("x", 4000), 400, "Sec-WebSocket-Key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, srv.URL+duplexPath, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range good {
				req.Header.Set(name, value)
			}
			req.Header.Set(tt.header, tt.value)
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			mustFail(t, reply{resp.StatusCode, resp.Header, string(body)}, tt.status, tt.want)
			if kind := resp.Header.Get("Content-Type"); kind != "application/json" {
				t.Errorf("Content-Type %q", kind)
			}
		})
	}
}
