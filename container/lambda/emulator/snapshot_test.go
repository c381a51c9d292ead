package emulator

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/container/lambda"
)

// restorable is a function that serves echo from a snapshot.
func restorable(afterRestore func() error) *function {
	return &function{start: func(ctx context.Context, _ int, api string) string {
		return serveAs(ctx, lambda.Options{API: api, Handler: http.HandlerFunc(echo), SnapStart: true, AfterRestore: afterRestore})
	}}
}

// A stopped process is restored once, and the next environment is initialized again.
func TestSnapStart(t *testing.T) {
	f := restorable(nil)
	log := &strings.Builder{}
	m := New(Options{Function: "f", Region: "eu-west-1", MemoryMB: 512, Timeout: patience, InitTimeout: patience, SnapStart: true, Launcher: f, Log: log})
	defer m.Close()
	if err := m.Publish(); err != nil {
		t.Fatal(err)
	}
	if got := f.noted(); got != "launch freeze" {
		t.Errorf("the version is published by: %s", got)
	}
	for range 2 {
		inv := m.invoke(t.Context(), []byte(`{"inputs":"Hi"}`))
		if body, _ := io.ReadAll(inv.body); string(body) != `{"inputs":"Hi"}` {
			t.Errorf("%s", body)
		}
		<-inv.ended
		m.discard(m.env)
	}
	if got := f.noted(); !strings.HasPrefix(strings.ReplaceAll(got, "freeze ", ""), "launch thaw launch thaw") {
		t.Errorf("two environments: %s", got)
	}
	for text, n := range map[string]int{"RESTORE_REPORT Restore Duration: ": 2, "Phase: init\n": 2, "\tRestore Duration: ": 2, "Version: 1\n": 2, "Init Duration: ": 2} {
		if strings.Count(log.String(), text) != n {
			t.Errorf("the log has not %d times %q:\n%s", n, text, log)
		}
	}
}

// copying launches sandboxes of which copies can be made: others that start as it did.
type copying struct {
	*function
	failing error
}

type copiedSandbox struct {
	Sandbox
	c         *copying
	variables []string
}

func (c *copying) Launch(variables []string, log io.Writer) (Sandbox, error) {
	s, err := c.function.Launch(variables, log)
	return &copiedSandbox{s, c, variables}, err
}

func (s *copiedSandbox) Snapshot() (Snapshot, error) {
	s.Kill()
	return s, s.c.failing
}

func (s *copiedSandbox) Restore(log io.Writer) (Sandbox, error) {
	return s.c.function.Launch(s.variables, log)
}

func (s *copiedSandbox) Close() { s.c.note("delete") }

// Of a snapshot in files, each environment is a copy, at the same Runtime API.
func TestCopies(t *testing.T) {
	c := &copying{function: restorable(nil)}
	m := New(Options{Function: "f", Region: "eu-west-1", MemoryMB: 512, Timeout: patience, InitTimeout: patience, SnapStart: true, Launcher: c, Log: io.Discard})
	for range 3 {
		inv := m.invoke(t.Context(), []byte(`{"inputs":"Hi"}`))
		if inv.body == nil {
			t.Fatalf("%s", inv.failed().data())
		}
		io.ReadAll(inv.body)
		<-inv.ended
		m.discard(m.env)
	}
	m.Close()
	if got := strings.ReplaceAll(c.noted(), "freeze ", ""); got != "launch launch launch launch delete" {
		t.Errorf("one snapshot and three copies: %s", got)
	}
	c.failing = errors.New("no room")
	m = New(Options{Function: "f", InitTimeout: patience, SnapStart: true, Launcher: c, Log: io.Discard})
	defer m.Close()
	if err := m.Publish(); err == nil || !strings.Contains(err.Error(), "no snapshot can be taken: no room") {
		t.Error(err)
	}
}

// What a function does wrong fails where Lambda has it fail.
func TestSnapStartFails(t *testing.T) {
	get := func(api, path string) {
		if resp, err := http.Get("http://" + api + apiVersion + path); err == nil {
			resp.Body.Close()
		}
	}
	for _, tt := range []struct {
		name            string
		start           func(ctx context.Context, api string)
		publish, invoke string // errors, "": none
	}{
		{name: "asks for an event first", start: func(_ context.Context, api string) { get(api, "/invocation/next") },
			publish: "asks for an event before /restore/next"},
		{name: "fails before", start: func(_ context.Context, api string) {
			lambda.FailInit(api, "Runtime.ModelNotLoaded", errors.New("no model"))
		},
			publish: "no model"},
		{name: "fails after", start: func(ctx context.Context, api string) {
			serveAs(ctx, lambda.Options{API: api, SnapStart: true, AfterRestore: func() error { return errors.New("another machine") }})
		}, invoke: "another machine"},
		{name: "never asks", start: func(_ context.Context, api string) { get(api, "/restore/next") },
			invoke: "timed out after 0.30 seconds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &function{start: func(ctx context.Context, _ int, api string) string {
				tt.start(ctx, api)
				<-ctx.Done()
				return "exit status 1"
			}}
			m := New(Options{Function: "f", Timeout: patience, InitTimeout: patience, SnapStart: true, Launcher: f, Log: io.Discard, restore: 300 * time.Millisecond})
			defer m.Close()
			err := m.Publish()
			if tt.publish == "" && err != nil || tt.publish != "" && (err == nil || !strings.Contains(err.Error(), tt.publish)) {
				t.Errorf("publishing: %v; want %q", err, tt.publish)
			}
			if tt.invoke == "" {
				return
			}
			if failed := m.invoke(t.Context(), []byte("{}")).failed(); failed == nil || !strings.Contains(string(failed.data()), tt.invoke) {
				t.Errorf("the event: %v; want %q", failed, tt.invoke)
			}
		})
	}
}
