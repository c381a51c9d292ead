package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/coder/websocket"
)

// duplexStream is a caller's end of a bidirectional stream.
type duplexStream struct {
	t        *testing.T
	response *http.Response
	body     *io.PipeWriter
	events   chan string // the answer's, as text; closed at its end
}

// openDuplex calls the endpoint over HTTP/2 or HTTP/1.1. Anything but a stream is
// returned as its status, error type and body.
func (r *running) openDuplex(t *testing.T, http2 bool, headers map[string]string) (*duplexStream, string) {
	t.Helper()
	body, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/endpoints/demo/invocations-bidirectional-stream", body)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(func() {
		cancel()
		w.Close()
		transport.CloseIdleConnections()
	})
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if http2 != (resp.ProtoMajor == 2) {
		t.Errorf("the answer comes over %s", resp.Proto)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return nil, fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header.Get("X-Amzn-ErrorType"), text)
	}
	s := &duplexStream{t: t, response: resp, body: w, events: make(chan string)}
	go s.read()
	return s, ""
}

func (s *duplexStream) read() {
	defer close(s.events)
	defer s.response.Body.Close()
	decoder := eventstream.NewDecoder()
	for {
		m, err := decoder.Decode(s.response.Body, nil)
		if err == io.EOF {
			return
		}
		text := fmt.Sprint(err)
		if err == nil {
			var of []string
			for _, name := range []string{":event-type", ":exception-type", memberType, memberState} {
				if v := m.Headers.Get(name); v != nil {
					of = append(of, v.String())
				}
			}
			text = strings.Join(of, " ") + ": " + string(m.Payload)
		}
		s.events <- text
		if err != nil {
			return
		}
	}
}

// say sends a part, signed as SDKs sign it, with headers in pairs of name and value.
func (s *duplexStream) say(payload string, members ...string) {
	s.t.Helper()
	s.sign(payloadPart(s.t, payload, members...))
}

// payloadPart is an event, with headers in pairs of name and value.
func payloadPart(t testing.TB, payload string, members ...string) []byte {
	t.Helper()
	event := eventstream.Message{Payload: []byte(payload)}
	event.Headers.Set(":message-type", eventstream.StringValue("event"))
	event.Headers.Set(":event-type", eventstream.StringValue("PayloadPart"))
	for i := 0; i < len(members); i += 2 {
		event.Headers.Set(members[i], eventstream.StringValue(members[i+1]))
	}
	var out bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&out, event); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// sign sends a signed event; an empty one is the end of the stream.
func (s *duplexStream) sign(event []byte) {
	s.t.Helper()
	signed := eventstream.Message{Payload: event}
	signed.Headers.Set(":date", eventstream.TimestampValue(time.Now()))
	signed.Headers.Set(":chunk-signature", eventstream.BytesValue("nobody checks it"))
	if err := eventstream.NewEncoder().Encode(s.body, signed); err != nil {
		s.t.Fatal(err)
	}
}

// hear returns the answer's next event, "" at its end.
func (s *duplexStream) hear() string {
	s.t.Helper()
	select {
	case event := <-s.events:
		return event
	case <-time.After(patience):
		s.t.Fatal("nothing comes")
		return ""
	}
}

func (s *duplexStream) expect(want ...string) {
	s.t.Helper()
	for _, w := range want {
		if got := s.hear(); got != w {
			s.t.Fatalf("heard %q, want %q", got, w)
		}
	}
}

// echoSocket answers each message of a WebSocket with the same and its type, and does what
// some of them say.
func echoSocket(w http.ResponseWriter, r *http.Request) {
	if status := r.URL.Query().Get("status"); status != "" {
		http.Error(w, "the container's reason", http.StatusTeapot)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.Write(r.Context(), websocket.MessageText, []byte(r.Host+r.URL.String()+" "+r.Header.Get("Content-Type")))
	for {
		kind, data, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		switch string(data) {
		case "close":
			conn.Close(websocket.StatusInternalError, "out of order")
			return
		case "break":
			return
		}
		if conn.Write(r.Context(), kind, data) != nil {
			return
		}
	}
}

func TestBidirectionalStreams(t *testing.T) {
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(echoSocket)}})
	const greeting = "PayloadPart UTF8 COMPLETE: model.aws.local:8080/invocations-bidirectional-stream "
	for _, tt := range []struct {
		name  string
		http2 bool
	}{{"HTTP2", true}, {"HTTP1", false}} {
		t.Run(tt.name, func(t *testing.T) {
			open := func() *duplexStream {
				s, refusal := r.openDuplex(t, tt.http2, map[string]string{"Content-Type": "a/b"})
				if s == nil {
					t.Fatal(refusal)
				}
				s.expect(greeting)
				return s
			}
			s := open()
			if got := s.response.Header.Get("X-Amzn-Invoked-Production-Variant") + " " + s.response.Header.Get("Content-Type"); got != "AllTraffic application/vnd.amazon.eventstream" {
				t.Errorf("the answer's headers are %q", got)
			}
			s.say("one", memberType, typeText, "P", "padding")
			s.expect("PayloadPart UTF8 COMPLETE: one")
			s.say("two")
			s.expect("PayloadPart BINARY COMPLETE: two")
			s.say("th", memberType, typeText, memberState, statePartial)
			s.say("re", memberState, statePartial)
			s.say("e", memberState, stateComplete)
			s.expect("PayloadPart UTF8 COMPLETE: three")
			s.sign(nil)
			s.body.Close()
			s.expect("")

			for _, bad := range []struct {
				name string
				do   func(s *duplexStream)
				want string
			}{
				{"close frame", func(s *duplexStream) { s.say("close") }, `ModelStreamError: {"ErrorCode":"1011","Message":"out of order"}`},
				{"broken", func(s *duplexStream) { s.say("break") }, `ModelStreamError: {"ErrorCode":"StreamBroken","Message":"The connection to the model broke`},
				{"type", func(s *duplexStream) { s.say("x", memberType, "TEXT") }, `InternalStreamFailure: {"Message":"DataType \"TEXT\": expected UTF8 or BINARY."}`},
				{"state", func(s *duplexStream) { s.say("x", memberState, "DONE") }, `InternalStreamFailure: {"Message":"CompletionState \"DONE\": expected PARTIAL or COMPLETE."}`},
				{"event", func(s *duplexStream) { s.say("x", ":event-type", "Part") }, `InternalStreamFailure: {"Message":"The request stream has an event \"Part\": expected PayloadPart."}`},
				{"half a message", func(s *duplexStream) { s.say("x", memberState, statePartial); s.body.Close() }, `InternalStreamFailure: {"Message":"The request stream ended after a PARTIAL part."}`},
				{"no event stream", func(s *duplexStream) { s.body.Write([]byte(`{"inputs": "Hello, is this JSON?"}`)) }, `InternalStreamFailure: {"Message":"The request stream is not an event stream: `},
				{"half an event", func(s *duplexStream) { s.body.Write([]byte{0, 0, 0, 50}); s.body.Close() }, `InternalStreamFailure: {"Message":"The request stream is not an event stream: `},
				{"signed garbage", func(s *duplexStream) { s.sign([]byte{0, 0}) }, `InternalStreamFailure: {"Message":"The request stream is not an event stream: `},
			} {
				t.Run(bad.name, func(t *testing.T) {
					s := open()
					s.t = t
					bad.do(s)
					if got := s.hear(); !strings.HasPrefix(got, bad.want) {
						t.Fatalf("heard %q, want %q", got, bad.want)
					}
					s.expect("")
				})
			}
		})
	}
	eventually(t, "all have ended", func() bool { return strings.Contains(r.metricsText(), `State="in service"} 0`) })
}

func TestBidirectionalStreamsFindTheirPath(t *testing.T) {
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(echoSocket)}})
	s, refusal := r.openDuplex(t, true, map[string]string{headerPath: "v1/realtime", headerQuery: "a=b&c=%20d"})
	if s == nil {
		t.Fatal(refusal)
	}
	s.expect("PayloadPart UTF8 COMPLETE: model.aws.local:8080/v1/realtime?a=b&c=%20d ")
	for name, tt := range map[string]struct {
		headers map[string]string
		want    string
	}{
		"variant": {map[string]string{headerVariant: "blue"}, "400 InputValidationError {\"Message\":\"Variant blue not found"},
		"path":    {map[string]string{headerPath: "/v1"}, "400 InputValidationError {\"Message\":\"1 validation error detected: Value '/v1' at 'modelInvocationPath'"},
		"query":   {map[string]string{headerQuery: "a"}, "400 InputValidationError {\"Message\":\"1 validation error detected: Value 'a' at 'modelQueryString'"},
	} {
		if _, got := r.openDuplex(t, true, tt.headers); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
	_, got := r.openDuplex(t, true, map[string]string{headerQuery: "status=1"})
	var model struct {
		OriginalStatusCode int
		OriginalMessage    string
	}
	data, isModel := strings.CutPrefix(got, "424 ModelError ")
	if err := json.Unmarshal([]byte(data), &model); !isModel || err != nil || model.OriginalStatusCode != http.StatusTeapot || model.OriginalMessage != "the container's reason\n" {
		t.Errorf("a container that refuses: %s", got)
	}
}

func TestBidirectionalStreamsThatThePlatformEnds(t *testing.T) {
	t.Run("their time is up", func(t *testing.T) {
		r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(echoSocket)}, Limits: Limits{Duplex: 50 * time.Millisecond}})
		s, refusal := r.openDuplex(t, true, nil)
		if s == nil {
			t.Fatal(refusal)
		}
		for got := s.hear(); !strings.HasPrefix(got, `ModelStreamError: {"ErrorCode":"ModelInvocationTimeExceeded"`); got = s.hear() {
			if got == "" {
				t.Fatal("the stream ends without an error")
			}
		}
	})
	t.Run("their caller leaves", func(t *testing.T) {
		r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(echoSocket)}})
		for _, http2 := range []bool{true, false} {
			s, refusal := r.openDuplex(t, http2, nil)
			if s == nil {
				t.Fatal(refusal)
			}
			s.hear()
			s.body.CloseWithError(io.ErrClosedPipe)
			s.response.Body.Close()
			eventually(t, "the call has ended", func() bool { return strings.Contains(r.metricsText(), `State="in service"} 0`) })
		}
	})
}

// Whatever a caller sends is parts, and then an end or an error that says what is wrong.
func FuzzParts(f *testing.F) {
	whole := payloadPart(f, "text", memberType, typeText, memberState, statePartial)
	f.Add(whole)
	f.Add(append(whole, whole...))
	f.Add(whole[:len(whole)-1])
	f.Add(payloadPart(f, string(whole), ":chunk-signature", "none"))
	f.Add(payloadPart(f, "x", memberState, "DONE"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parts := &partReader{decoder: eventstream.NewDecoder(), body: bytes.NewReader(data)}
		total := 0
		for {
			p, err := parts.next()
			var bad *partError
			switch {
			case err == nil:
				if total += len(p.payload); total > len(data) {
					t.Fatalf("%d bytes of parts in %d", total, len(data))
				}
				continue
			case err != io.EOF && (!errors.As(err, &bad) || bad.message == ""):
				t.Fatalf("the error is %v", err)
			}
			return
		}
	})
}
