package local

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
)

func TestAnEndpointThatIsNotInServiceIsNotFound(t *testing.T) {
	loaded := make(chan struct{})
	r, ready := begin(t, Config{Launcher: &fakes{t: t, handler: func(*fake) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			select {
			case <-loaded:
			default:
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
	}}})
	_, err := r.InvokeEndpoint(context.Background(), input())
	var v *types.ValidationError
	if !errors.As(err, &v) || v.ErrorMessage() != "Endpoint demo of account 123456789012 not found." {
		t.Errorf("while loading: %v, want a ValidationError that it is not found", err)
	}
	close(loaded)
	<-ready
	if _, err := r.InvokeEndpoint(context.Background(), input()); err != nil {
		t.Errorf("in service: %v", err)
	}
	r.stop()
	if _, err := r.InvokeEndpoint(context.Background(), input()); !errors.As(err, &v) {
		t.Errorf("deleted: %v, want a ValidationError", err)
	}
}

func TestContainersThatDoNotStart(t *testing.T) {
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	for _, tt := range []struct {
		name    string
		handler func(*fake) http.Handler
		limits  Limits
		want    string
	}{
		{
			name: "a ping of 404",
			handler: func(*fake) http.Handler {
				return http.NotFoundHandler()
			},
			limits: Limits{Startup: 300 * time.Millisecond},
			want:   "did not pass the ping health check within 300ms; the last answer: /ping answered 404, expected 200: 404 page not found",
		}, {
			name: "a slow ping",
			handler: func(*fake) http.Handler {
				return http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { wait(req, never) })
			},
			limits: Limits{Startup: 300 * time.Millisecond, Ping: 100 * time.Millisecond},
			want:   "/ping was not answered within 100ms",
		}, {
			name:    "a connection that is not accepted",
			handler: func(f *fake) http.Handler { f.deaf = true; return http.NotFoundHandler() },
			limits:  Limits{Startup: 300 * time.Millisecond, Connect: 20 * time.Millisecond},
			want:    "the container did not accept a connection within 20ms",
		}, {
			name: "an exit",
			handler: func(f *fake) http.Handler {
				return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					go f.exit(2)
					<-f.exited
				})
			},
			want: "the container of instance 1 ended with status 2 before it was healthy",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := begin(t, Config{Launcher: &fakes{t: t, handler: tt.handler}, Limits: tt.limits})
			<-r.done
			if r.err == nil || !strings.Contains(r.err.Error(), tt.want) {
				t.Errorf("got %v, want %q", r.err, tt.want)
			}
		})
	}
}

// sick is an endpoint of one instance whose first container can be made ill.
func sick(t *testing.T, ill func(f *fake, w http.ResponseWriter, req *http.Request)) (r *running, l *fakes, fallIll, getWell func()) {
	var isIll atomic.Bool
	l = &fakes{t: t, handler: func(f *fake) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/ping" && f.number == 1 && isIll.Load() {
				ill(f, w, req)
			}
		})
	}}
	r = run(t, Config{Launcher: l, Limits: Limits{PingEvery: 20 * time.Millisecond, Ping: 50 * time.Millisecond, Stop: 100 * time.Millisecond}})
	return r, l, func() { isIll.Store(true) }, func() { isIll.Store(false) }
}

func TestAnUnhealthyInstanceIsReplaced(t *testing.T) {
	for _, tt := range []struct {
		name string
		ill  func(f *fake, w http.ResponseWriter, req *http.Request)
	}{
		{"ping of 503", func(_ *fake, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }},
		{"ping too slow", func(f *fake, _ http.ResponseWriter, req *http.Request) { wait(req, f.exited) }},
		{"exit", func(f *fake, _ http.ResponseWriter, _ *http.Request) { go f.exit(139) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, l, fallIll, getWell := sick(t, tt.ill)
			fallIll()
			eventually(t, "a second container is started", func() bool { return l.launched() > 1 })
			getWell()
			eventually(t, "calls are answered again", func() bool {
				_, err := r.InvokeEndpoint(context.Background(), input())
				return err == nil
			})
			if report := r.stop(); len(report.Instances) < 2 {
				t.Errorf("stopped: %v; want the first container and its successor", report.Instances)
			}
		})
	}
}

func TestAnInstanceThatFailsOnePingGetsNoCalls(t *testing.T) {
	release := make(chan struct{})
	var pings atomic.Int64
	l := &fakes{t: t, handler: func(*fake) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/ping" {
				return
			}
			switch pings.Add(1) {
			case 1: // starts
			case 2:
				w.WriteHeader(503)
			default:
				wait(req, release)
			}
		})
	}}
	r := run(t, Config{Launcher: l, Limits: Limits{PingEvery: 20 * time.Millisecond, Ping: patience}})
	eventually(t, "the ping has failed", func() bool { return pings.Load() > 2 })
	_, err := r.InvokeEndpoint(context.Background(), input())
	var s *types.ServiceUnavailable
	if !errors.As(err, &s) {
		t.Errorf("got %v, want ServiceUnavailable", err)
	}
	close(release)
	eventually(t, "calls are answered again", func() bool {
		_, err := r.InvokeEndpoint(context.Background(), input())
		return err == nil
	})
	if l.launched() != 1 {
		t.Errorf("%d containers were started, want 1", l.launched())
	}
}

func TestStoppingUnderLoad(t *testing.T) {
	for _, tt := range []struct {
		name      string
		container func(f *fake, w http.ResponseWriter, req *http.Request)
		stubborn  bool
		wantError bool // at the caller
		want      Stopped
	}{
		{
			name: "streams that end in order",
			container: func(f *fake, w http.ResponseWriter, req *http.Request) {
				<-f.term
				flushed(w, "data: [DONE]\n\n")
			},
			want: Stopped{Instance: 1, InFlight: 3, Ending: Ending{Complete: 3}},
		}, {
			name:      "streams that are cut off",
			container: func(f *fake, _ http.ResponseWriter, _ *http.Request) { <-f.term; panic(http.ErrAbortHandler) },
			wantError: true,
			want:      Stopped{Instance: 1, InFlight: 3, Ending: Ending{Broken: 3}},
		}, {
			name:      "a container that does not end",
			container: func(f *fake, _ http.ResponseWriter, req *http.Request) { wait(req, f.exited) },
			stubborn:  true,
			wantError: true,
			want:      Stopped{Instance: 1, InFlight: 3, Ending: Ending{Broken: 3}, Killed: true, ExitStatus: 137},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var streams atomic.Int64
			l := &fakes{t: t, handler: func(f *fake) http.Handler {
				f.stubborn = tt.stubborn
				return healthy(func(w http.ResponseWriter, req *http.Request) {
					flushed(w, event)
					streams.Add(1)
					tt.container(f, w, req)
				})(f)
			}}
			limits := Limits{}
			if tt.stubborn {
				limits.Stop = 100 * time.Millisecond
			}
			r := run(t, Config{Launcher: l, Limits: limits})
			var callers sync.WaitGroup
			errs := make(chan error, 3)
			for range 3 {
				callers.Go(func() {
					_, err := r.stream(streamInput())
					errs <- err
				})
			}
			eventually(t, "three streams run", func() bool { return streams.Load() == 3 })
			report := r.stop()
			callers.Wait()
			got := report.Instances[0]
			got.Took = 0
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if report.Clean() == tt.wantError {
				t.Errorf("clean: %v, want %v", report.Clean(), !tt.wantError)
			}
			for range 3 {
				if err := <-errs; (err != nil) != tt.wantError {
					t.Errorf("a caller got %v, want an error: %v", err, tt.wantError)
				}
			}
		})
	}
}

func TestConfigsThatCannotWork(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no launcher", Config{}, "needs a launcher"},
		{"a bad name", Config{Name: "a_b", Launcher: Servers{}}, `endpoint name "a_b": expected at most 63 letters`},
		{"a bad component", Config{Component: "-", Launcher: Servers{}}, `inference component name "-"`},
		{"an adapter called as its base", Config{Component: "a", Adapters: map[string]string{"a": "/x"}, Launcher: Servers{}}, "choose another"},
		{"less than no instances", Config{Instances: -1, Launcher: Servers{}}, "instances -1: expected at least 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
