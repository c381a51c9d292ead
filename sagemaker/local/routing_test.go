package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
)

// numbered answers with the number of its instance; a request "wait" does not
// end before release is closed.
func numbered(release <-chan struct{}, also func(f *fake, w http.ResponseWriter, body string)) func(*fake) http.Handler {
	return func(f *fake) http.Handler {
		return healthy(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			if string(body) == "wait" {
				wait(req, release)
			}
			if also != nil {
				also(f, w, string(body))
			}
			fmt.Fprint(w, f.number)
		})(f)
	}
}

// invokedBy makes a call and returns which instance answered.
func (r *running) invokedBy(body, session string) (string, error) {
	in := input()
	in.Body = []byte(body)
	if session != "" {
		in.SessionId = aws.String(session)
	}
	out, err := r.InvokeEndpoint(context.Background(), in)
	if err != nil {
		return "", err
	}
	return string(out.Body), nil
}

func TestTheLeastBusyInstanceGetsTheCall(t *testing.T) {
	for seed := range uint64(6) { // another instance is left idle
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			release := make(chan struct{})
			r := run(t, Config{Instances: 3, Seed: seed, Launcher: &fakes{t: t, handler: numbered(release, nil)}})
			defer close(release)
			for range 2 {
				go r.invokedBy("wait", "")
			}
			eventually(t, "two instances are busy", func() bool {
				return strings.Count(r.metricsText(), `State="in service"} 1`) == 2
			})
			idle, err := r.invokedBy("{}", "")
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if got, err := r.invokedBy("{}", ""); got != idle {
					t.Fatalf("instance %s answered (%v), want %s, the only one that is idle", got, err, idle)
				}
			}
		})
	}
}

func TestEqualsShareTheCalls(t *testing.T) {
	r := run(t, Config{Instances: 2, Launcher: &fakes{t: t, handler: numbered(nil, nil)}})
	seen := map[string]int{}
	for range 40 {
		got, err := r.invokedBy("{}", "")
		if err != nil {
			t.Fatal(err)
		}
		seen[got]++
	}
	if len(seen) != 2 {
		t.Errorf("calls per instance: %v; want some for each of two", seen)
	}
}

func TestSessionsStick(t *testing.T) {
	var serial atomic.Int64
	open := func(f *fake, w http.ResponseWriter, body string) {
		switch {
		case strings.HasPrefix(body, "open for "):
			life, _ := time.ParseDuration(strings.TrimPrefix(body, "open for "))
			expires := time.Now().Add(life).UTC().Format("2006-01-02T15:04:05Z")
			w.Header().Set(headerNewSession, fmt.Sprintf("session-%d; Expires=%s", serial.Add(1), expires))
		case strings.HasPrefix(body, "close "):
			w.Header().Set(headerClosed, strings.TrimPrefix(body, "close "))
		}
	}
	r := run(t, Config{Instances: 4, Launcher: &fakes{t: t, handler: numbered(nil, open)}})
	in := input()
	in.Body, in.SessionId = []byte("open for 1h"), aws.String(newSession)
	out, err := r.InvokeEndpoint(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(aws.ToString(out.NewSessionId), "session-1; Expires=") {
		t.Fatalf("NewSessionId %q, want the container's", aws.ToString(out.NewSessionId))
	}
	home := string(out.Body)
	for range 20 {
		if got, err := r.invokedBy("{}", "session-1"); got != home {
			t.Fatalf("instance %s answered (%v), want %s, which has the session", got, err, home)
		}
	}
	s := streamInput()
	s.SessionId = aws.String("session-1")
	if parts, err := r.stream(s); err != nil || strings.Join(parts, "") != home {
		t.Errorf("a stream got %q, %v; want %s", parts, err, home)
	}

	var v *types.ValidationError
	if _, err := r.invokedBy("close session-1", "session-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.invokedBy("{}", "session-1"); !errors.As(err, &v) {
		t.Errorf("after its end the session got %v, want a ValidationError", err)
	}
	if _, err := r.invokedBy("open for -1s", newSession); err != nil {
		t.Fatal(err)
	}
	if _, err := r.invokedBy("{}", "session-2"); !errors.As(err, &v) {
		t.Errorf("an expired session got %v, want a ValidationError", err)
	}
}

func FuzzNewSessionHeader(f *testing.F) {
	f.Add("a1-b; Expires=2026-11-24T15:00:00Z")
	f.Add("a; Expires=2026-13-24T15:00:00Z")
	f.Fuzz(func(t *testing.T, header string) {
		id, expires, ok := parseNewSession(header)
		if !ok {
			return
		}
		if again := id + "; Expires=" + expires.Format("2006-01-02T15:04:05Z"); strings.Replace(again, " ", "", 1) != strings.Replace(header, header[len(id)+1:len(id)+2], "", 1) {
			t.Errorf("%q was read as %q", header, again)
		}
		if !namePattern.MatchString(id) {
			t.Errorf("%q: the id %q cannot be sent back", header, id)
		}
	})
}
