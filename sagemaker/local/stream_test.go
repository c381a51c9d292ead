package local

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
)

// event is what the fakes stream, one write each.
const event = "data: {\"token\":{\"text\":\" word\"}}\n\n"

func flushed(w http.ResponseWriter, text string) {
	w.Write([]byte(text))
	w.(http.Flusher).Flush()
}

func TestPartsDoNotLineUpWithWrites(t *testing.T) {
	const events = 200
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range events {
			flushed(w, event)
		}
	})}})
	parts, err := r.stream(streamInput())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(parts, ""); got != strings.Repeat(event, events) {
		t.Fatalf("%d parts of %d bytes do not make the %d bytes that were sent", len(parts), len(got), events*len(event))
	}
	inside, several := 0, 0
	for _, p := range parts {
		if !strings.HasSuffix(p, "\n\n") {
			inside++
		}
		if len(p) > len(event) {
			several++
		}
	}
	if inside == 0 || several == 0 {
		t.Errorf("of %d parts %d end inside an event and %d hold more than one; want some of each", len(parts), inside, several)
	}
}

func TestStreamHeadersComeBackUnderTheirOwnNames(t *testing.T) {
	r := run(t, Config{Variant: "blue", Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set(headerAttributes, "tokens=5")
		flushed(w, event)
	})}})
	out, err := r.InvokeEndpointWithResponseStream(context.Background(), streamInput())
	if err != nil {
		t.Fatal(err)
	}
	defer out.GetStream().Close()
	if aws.ToString(out.ContentType) != "text/event-stream" || aws.ToString(out.CustomAttributes) != "tokens=5" || aws.ToString(out.InvokedProductionVariant) != "blue" {
		t.Errorf("content type %q, attributes %q, variant %q", aws.ToString(out.ContentType), aws.ToString(out.CustomAttributes), aws.ToString(out.InvokedProductionVariant))
	}
}

// A client sees what has been written while the container still works.
func TestPartsArriveAsTheyAreWritten(t *testing.T) {
	more := make(chan struct{})
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, req *http.Request) {
		flushed(w, event)
		wait(req, more)
		flushed(w, event)
	})}})
	out, err := r.InvokeEndpointWithResponseStream(context.Background(), streamInput())
	if err != nil {
		t.Fatal(err)
	}
	defer out.GetStream().Close()
	got := ""
	for ev := range out.GetStream().Events() {
		got += string(ev.(*types.ResponseStreamMemberPayloadPart).Value.Bytes)
		if got == event {
			close(more) // the handler waits for it, so the stream would not end otherwise
		}
	}
	if err := out.GetStream().Err(); err != nil || got != event+event {
		t.Errorf("got %q, %v; want two events", got, err)
	}
}

func TestStreamsThatFail(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for _, tt := range []struct {
		name      string
		container http.HandlerFunc
		limit     time.Duration // 0: SageMaker's
		wantParts string
		wantCode  string // of the ModelStreamError
	}{
		{
			name: "the chunked body is cut off",
			container: func(w http.ResponseWriter, _ *http.Request) {
				flushed(w, event)
				panic(http.ErrAbortHandler)
			},
			wantParts: event, wantCode: "StreamBroken",
		}, {
			name: "the body is shorter than it says",
			container: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000")
				flushed(w, event)
			},
			wantParts: event, wantCode: "StreamBroken",
		}, {
			name: "the stream does not end in time",
			container: func(w http.ResponseWriter, req *http.Request) {
				flushed(w, event)
				wait(req, release)
			},
			limit:     time.Second,
			wantParts: event, wantCode: "ModelInvocationTimeExceeded",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, Config{
				Launcher: &fakes{t: t, handler: healthy(tt.container)},
				Limits:   Limits{Stream: tt.limit},
			})
			parts, err := r.stream(streamInput())
			var m *types.ModelStreamError
			if !errors.As(err, &m) || aws.ToString(m.ErrorCode_) != tt.wantCode || m.ErrorMessage() == "" {
				t.Errorf("got %v, want a ModelStreamError with %s and a message", err, tt.wantCode)
			}
			if got := strings.Join(parts, ""); got != tt.wantParts {
				t.Errorf("parts %q, want %q before the error", got, tt.wantParts)
			}
			eventually(t, "the error is counted", func() bool {
				return strings.Contains(r.metricsText(), "MidStreamErrors{EndpointName=\"demo\",VariantName=\"AllTraffic\"} 1\n")
			})
		})
	}
}

func TestAnErrorBeforeTheFirstByteIsAStatus(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for _, tt := range []struct {
		name       string
		container  http.HandlerFunc
		limit      time.Duration // 0: SageMaker's
		wantStatus int32
	}{
		{"refused", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, 0, 429},
		{"closed", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, 0},
		{"late", func(_ http.ResponseWriter, req *http.Request) { wait(req, release) }, 50 * time.Millisecond, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, Config{
				Launcher: &fakes{t: t, handler: healthy(tt.container)},
				Limits:   Limits{Stream: tt.limit},
			})
			_, err := r.stream(streamInput())
			if got := aws.ToInt32(asModelError(t, err).OriginalStatusCode); got != tt.wantStatus {
				t.Errorf("OriginalStatusCode %d, want %d", got, tt.wantStatus)
			}
		})
	}
}

func TestACallerWhoLeavesEndsTheStream(t *testing.T) {
	ended := make(chan struct{})
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, req *http.Request) {
		flushed(w, event)
		<-req.Context().Done()
		close(ended)
	})}})
	out, err := r.InvokeEndpointWithResponseStream(context.Background(), streamInput())
	if err != nil {
		t.Fatal(err)
	}
	<-out.GetStream().Events()
	out.GetStream().Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the container's connection stays open")
	}
}

// A server that runs on when the endpoint is deleted loses its streams to the
// platform, not to itself.
func TestDeletingTheEndpointEndsStreams(t *testing.T) {
	l := &fakes{t: t, handler: healthy(func(w http.ResponseWriter, req *http.Request) {
		flushed(w, event)
		wait(req, nil)
	})}
	c, err := l.Launch(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, Config{Launcher: Servers{c.Address()}, Limits: Limits{Stop: 50 * time.Millisecond}})
	out, err := r.InvokeEndpointWithResponseStream(context.Background(), streamInput())
	if err != nil {
		t.Fatal(err)
	}
	defer out.GetStream().Close()
	<-out.GetStream().Events()
	r.stop()
	for range out.GetStream().Events() {
		t.Error("a part came after the end")
	}
	var f *types.InternalStreamFailure
	if err := out.GetStream().Err(); !errors.As(err, &f) {
		t.Errorf("got %v, want an InternalStreamFailure", err)
	}
}

func FuzzCutter(f *testing.F) {
	f.Add(uint64(1), []byte("data: {}\n\ndata: {}\n\n"), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, data []byte, step uint8) {
		c := newCutter(seed, 1)
		var got []byte
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			for _, p := range c.push(rest[:n]) {
				if len(p) == 0 || len(p) > longestPart {
					t.Fatalf("a part of %d bytes", len(p))
				}
				got = append(got, p...)
			}
			rest = rest[n:]
		}
		if got = append(got, c.rest()...); string(got) != string(data) {
			t.Errorf("%q came out, %q went in", got, data)
		}
	})
}
