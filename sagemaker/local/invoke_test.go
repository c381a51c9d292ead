package local

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
)

func TestOnlyDocumentedHeadersReachTheContainer(t *testing.T) {
	var seen http.Header
	var host string
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, req *http.Request) {
		seen, host = req.Header.Clone(), req.Host
	})}})
	allowed := map[string]string{
		"Content-Type":         "application/json",
		"Accept":               "application/jsonlines",
		headerAttributes:       "route=/v1/chat/completions a=b",
		headerInference:        "trace 17",
		"Content-Length":       "2",
		"User-Agent":           agent, // the platform's, not the caller's
		"X-Amzn-Sagemaker-Tag": "",
	}
	for name, call := range map[string]func() error{
		"unary": func() error {
			in := input()
			in.ContentType, in.Accept = aws.String("application/json"), aws.String("application/jsonlines")
			in.CustomAttributes, in.InferenceId = aws.String("route=/v1/chat/completions a=b"), aws.String("trace 17")
			in.TargetVariant = aws.String("AllTraffic")
			_, err := r.InvokeEndpoint(context.Background(), in)
			return err
		},
		"stream": func() error {
			in := streamInput()
			in.ContentType, in.Accept = aws.String("application/json"), aws.String("application/jsonlines")
			in.CustomAttributes, in.InferenceId = aws.String("route=/v1/chat/completions a=b"), aws.String("trace 17")
			_, err := r.stream(in)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			seen = nil
			if err := call(); err != nil {
				t.Fatal(err)
			}
			for _, h := range slices.Sorted(maps.Keys(seen)) {
				if got, want := seen.Get(h), allowed[h]; got != want || want == "" {
					t.Errorf("%s: %q reached the container, want %q", h, got, want)
				}
			}
			for h, want := range allowed {
				if want != "" && seen.Get(h) != want {
					t.Errorf("%s: %q reached the container, want %q", h, seen.Get(h), want)
				}
			}
			if host != hostHeader {
				t.Errorf("Host: %q, want %q", host, hostHeader)
			}
		})
	}
}

func TestOnlyDocumentedHeadersComeBack(t *testing.T) {
	r := run(t, Config{Variant: "blue", Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/jsonlines")
		h.Set(headerAttributes, "tokens=5")
		h.Set("X-Request-Id", "17")
		h.Set("X-Compute-Type", "cpu")
		w.WriteHeader(http.StatusCreated)
		w.Write([]byte("answer"))
	})}})
	resp, err := http.Post(r.url+"/endpoints/demo/invocations", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d, want 200 for any 2xx", resp.StatusCode)
	}
	want := map[string]string{"Content-Type": "application/jsonlines", headerAttributes: "tokens=5", headerInvoked: "blue"}
	for name, values := range resp.Header {
		if name == "Date" || name == "Content-Length" || name == "X-Amzn-Requestid" {
			continue
		}
		if values[0] != want[name] {
			t.Errorf("%s: %q came back, want %q", name, values[0], want[name])
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestErrorsOfTheContainer(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	long := strings.Repeat("é", 3000)
	for _, tt := range []struct {
		name         string
		container    http.HandlerFunc
		limit        time.Duration // 0: long
		wantStatus   int32
		wantOriginal string // of OriginalMessage
		wantMessage  string // a part of Message
	}{
		{
			name: "a client error",
			container: func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusUnprocessableEntity)
				w.Write([]byte(`{"error":"bad"}`))
			},
			wantStatus: 422, wantOriginal: `{"error":"bad"}`,
			wantMessage: `Received client error (422) from primary with message "{"error":"bad"}". See https://us-east-1.console.aws.amazon.com/cloudwatch/`,
		}, {
			name: "a server error",
			container: func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusServiceUnavailable)
			},
			wantStatus: 503, wantMessage: `Received server error (503) from primary with message "". See`,
		}, {
			name: "a redirect is not followed",
			container: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/ping")
				w.WriteHeader(http.StatusFound)
			},
			wantStatus: 302, wantMessage: "(302)",
		}, {
			name: "a long message is cut between characters",
			container: func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusBadRequest)
				w.Write([]byte("x" + long))
			},
			wantStatus: 400, wantOriginal: "x" + long[:2046], wantMessage: "in account 123456789012 for more information.",
		}, {
			name:       "no answer in time",
			container:  func(w http.ResponseWriter, req *http.Request) { wait(req, release) },
			limit:      50 * time.Millisecond,
			wantStatus: 0, wantMessage: "Received server error (0) from primary with message \"Your invocation timed out",
		}, {
			name: "half an answer in time",
			container: func(w http.ResponseWriter, req *http.Request) {
				w.Write([]byte("half"))
				w.(http.Flusher).Flush()
				wait(req, release)
			},
			limit:      50 * time.Millisecond,
			wantStatus: 0, wantMessage: "Your invocation timed out",
		}, {
			name:       "the connection closed without an answer",
			container:  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			wantStatus: 0, wantMessage: "the model process exited",
		}, {
			name: "the connection closed in mid-answer",
			container: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				w.Write([]byte("half"))
			},
			wantStatus: 200, wantMessage: "could not load the entire response body",
		}, {
			name: "an answer over the limit",
			container: func(w http.ResponseWriter, _ *http.Request) {
				w.Write(make([]byte, 9000))
			},
			wantStatus: 200, wantMessage: "could not load the entire response body",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, Config{
				Launcher: &fakes{t: t, handler: healthy(tt.container)},
				Limits:   Limits{Unary: tt.limit, Body: 8192, Stop: time.Millisecond},
			})
			_, err := r.InvokeEndpoint(context.Background(), input())
			m := asModelError(t, err)
			if got := aws.ToInt32(m.OriginalStatusCode); got != tt.wantStatus {
				t.Errorf("OriginalStatusCode %d, want %d", got, tt.wantStatus)
			}
			if got := aws.ToString(m.OriginalMessage); tt.wantOriginal != "" && got != tt.wantOriginal {
				t.Errorf("OriginalMessage %q, want %q", got, tt.wantOriginal)
			}
			if !strings.Contains(m.ErrorMessage(), tt.wantMessage) || len(m.ErrorMessage()) > messageLimit {
				t.Errorf("Message %q, want at most %d bytes with %q", m.ErrorMessage(), messageLimit, tt.wantMessage)
			}
			if want := "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/demo"; aws.ToString(m.LogStreamArn) != want {
				t.Errorf("LogStreamArn %q, want %q", aws.ToString(m.LogStreamArn), want)
			}
		})
	}
}

func TestRequestsThePlatformRefuses(t *testing.T) {
	r := run(t, Config{
		Launcher: &fakes{t: t, handler: healthy(func(http.ResponseWriter, *http.Request) {
			t.Error("the request reached the container")
		})},
		Limits: Limits{Body: 1000},
	})
	type in = sagemakerruntime.InvokeEndpointInput
	for _, tt := range []struct {
		name   string
		change func(*in)
		want   string // a part of the message
	}{
		{"an unknown endpoint", func(in *in) { in.EndpointName = aws.String("other") }, "Endpoint other of account 123456789012 not found."},
		{"a malformed endpoint name", func(in *in) { in.EndpointName = aws.String("-a") }, "at 'endpointName'"},
		{"a body over the limit", func(in *in) { in.Body = make([]byte, 1001) }, "1001 bytes is too large: the payload may have at most 1000"},
		{"custom attributes over 1024 characters", func(in *in) { in.CustomAttributes = aws.String(strings.Repeat("a", 1025)) }, "at 'customAttributes'"},
		{"custom attributes that are not ASCII", func(in *in) { in.CustomAttributes = aws.String("ü") }, "at 'customAttributes'"},
		{"an inference id over 64 characters", func(in *in) { in.InferenceId = aws.String(strings.Repeat("a", 65)) }, "at 'inferenceId'"},
		{"a prefix id over 64 characters", func(in *in) { in.PrefixAwareId = aws.String(strings.Repeat("a", 65)) }, "at 'prefixAwareId'"},
		{"a malformed session id", func(in *in) { in.SessionId = aws.String("a_b") }, "at 'sessionId'"},
		{"an unknown session", func(in *in) { in.SessionId = aws.String("abc") }, "Session abc does not exist"},
		{"an unknown variant", func(in *in) { in.TargetVariant = aws.String("green") }, "Variant green not found"},
		{"a model of a multi-model endpoint", func(in *in) { in.TargetModel = aws.String("a.tar.gz") }, "TargetModel"},
		{"a container of a multi-container endpoint", func(in *in) { in.TargetContainerHostname = aws.String("a") }, "TargetContainerHostname"},
		{"an explainer", func(in *in) { in.EnableExplanations = aws.String("`true`") }, "EnableExplanations"},
		{"an inference component", func(in *in) { in.InferenceComponentName = aws.String("a") }, "does not host inference components"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := input()
			tt.change(in)
			_, err := r.InvokeEndpoint(context.Background(), in)
			var v *types.ValidationError
			if !errors.As(err, &v) || !strings.Contains(v.ErrorMessage(), tt.want) {
				t.Errorf("got %v, want a ValidationError with %q", err, tt.want)
			}
		})
	}
	t.Run("a session that is opened by a stream", func(t *testing.T) {
		in := streamInput()
		in.SessionId = aws.String(newSession)
		_, err := r.stream(in)
		var v *types.ValidationError
		if !errors.As(err, &v) {
			t.Errorf("got %v, want a ValidationError", err)
		}
	})
}

func TestAnUnknownOperation(t *testing.T) {
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(http.NotFound)}})
	resp, err := http.Get(r.url + "/endpoints/demo/invocations")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("X-Amzn-ErrorType"); resp.StatusCode != 404 || got != "UnknownOperationException" {
		t.Errorf("%d %q, want 404 UnknownOperationException", resp.StatusCode, got)
	}
}

func TestHeadersTheContainerMayNotSend(t *testing.T) {
	r := run(t, Config{Launcher: &fakes{t: t, handler: healthy(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(headerAttributes, strings.Repeat("a", 1025))
		w.Header().Set(headerNewSession, "id without an expiry")
	})}})
	out, err := r.InvokeEndpoint(context.Background(), input())
	if err != nil {
		t.Fatal(err)
	}
	if out.CustomAttributes != nil || out.NewSessionId != nil {
		t.Errorf("attributes %q, session %q came back; want none", aws.ToString(out.CustomAttributes), aws.ToString(out.NewSessionId))
	}
}

// The container goes on when the caller's time is up: it counts as busy for
// the routing, not for the caller's concurrency.
func TestTheContainerIsNotToldThatTheTimeIsUp(t *testing.T) {
	release, ended := make(chan struct{}), make(chan error, 1)
	r := run(t, Config{
		Launcher: &fakes{t: t, handler: healthy(func(_ http.ResponseWriter, req *http.Request) {
			wait(req, release)
			ended <- req.Context().Err()
		})},
		Limits: Limits{Unary: 50 * time.Millisecond},
	})
	_, err := r.InvokeEndpoint(context.Background(), input())
	asModelError(t, err)
	metrics := r.metricsText()
	for _, want := range []string{
		`ConcurrentRequestsPerModel{EndpointName="demo",VariantName="AllTraffic"} 0`,
		`OutstandingRequests{EndpointName="demo",VariantName="AllTraffic",Instance="1",State="in service"} 1`,
		`InvocationModelErrors{EndpointName="demo",VariantName="AllTraffic"} 1`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("missing %s in:\n%s", want, metrics)
		}
	}
	close(release)
	if err := <-ended; err != nil {
		t.Errorf("the container's request ended with %v", err)
	}
}

// metricsText returns GET /metrics.
func (r *running) metricsText() string {
	r.t.Helper()
	resp, err := http.Get(r.url + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}
