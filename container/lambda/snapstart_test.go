package lambda

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

// The snapshot is taken after all that can be done before, and a copy asks for
// events once it is a copy, also if its connections have not survived.
func TestSnapStart(t *testing.T) {
	for name, answers := range map[string][]int{"restored": {200}, "connection lost": {0, 200}} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			calls := make(chan string, 10)
			p.run(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }, func(o *Options) {
				o.SnapStart = true
				o.BeforeSnapshot = func() { calls <- "before" }
				o.AfterRestore = func() error { calls <- "after"; return nil }
			})
			for _, status := range answers {
				receive(t, p.snapshots, "no snapshot is asked for")
				if len(p.polls) > 0 || len(calls) != 1 {
					t.Fatalf("before the snapshot there are %d requests for events, and %d calls", len(p.polls), len(calls))
				}
				p.restores <- status
			}
			p.send("a", direct1)
			if a := p.answer(); a.path != "/invocation/a/response" || a.all(t) != "hello" {
				t.Errorf("POST %s", a.path)
			}
			if before, after := <-calls, <-calls; before != "before" || after != "after" || len(p.snapshots) > 0 {
				t.Errorf("calls: %s, %s", before, after)
			}
		})
	}
}

// A copy that cannot be used says so, and a runtime that gets no snapshot ends.
func TestSnapStartFails(t *testing.T) {
	start := func(o *Options) {
		o.SnapStart = true
		o.AfterRestore = func() error { return errors.New("another machine") }
	}
	t.Run("after the restoration", func(t *testing.T) {
		p := newPlatform(t)
		r := p.run(refuse, start)
		p.restores <- http.StatusOK
		a := p.answer()
		if body := a.all(t); a.path != "/restore/error" || a.header.Get(headerErrorType) != "Runtime.AfterRestoreError" || !strings.Contains(body, `"errorMessage":"another machine"`) {
			t.Errorf("POST %s, type %s: %s", a.path, a.header.Get(headerErrorType), body)
		}
		if err := receive(t, r.result, "the runtime goes on"); err == nil || !strings.Contains(err.Error(), "another machine") {
			t.Error(err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		p := newPlatform(t)
		r := p.run(refuse, start)
		p.restores <- http.StatusForbidden
		if err := receive(t, r.result, "the runtime goes on"); err == nil || !strings.Contains(err.Error(), "restore: the Lambda Runtime API answers 403") {
			t.Error(err)
		}
	})
	t.Run("ended before", func(t *testing.T) {
		p := newPlatform(t)
		r := p.run(refuse, start)
		receive(t, p.snapshots, "no snapshot is asked for")
		if err := r.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := receive(t, r.result, "the runtime goes on"); err != nil || len(p.polls) > 0 {
			t.Error(err)
		}
	})
}
