package handler

import (
	"bufio"
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/stop"
)

// TestEnding holds what each piece shows; pieces in brackets are special.
func TestEnding(t *testing.T) {
	for _, tt := range []struct {
		name          string
		pieces, stops []string
		want          []string
	}{
		{"nothing to look for", []string{"a", "[b]", "c"}, nil, []string{"a", "", "c"}},
		{"not found", []string{"a", "b"}, []string{"x"}, []string{"a", "b"}},
		{"a piece", []string{"a", "b"}, []string{"b"}, []string{"a", ""}},
		{"inside of a piece", []string{"abc"}, []string{"c"}, []string{"ab"}},
		{"across pieces", []string{"ab", "c", "d"}, []string{"bcd"}, []string{"a", "", ""}},
		{"held and let go", []string{"ab", "c", "x"}, []string{"bcd"}, []string{"a", "", "bcx"}},
		{"held and let go at the end", []string{"ab", "c"}, []string{"bcd"}, []string{"a", "bc"}},
		{"a part goes on", []string{"aa", "b"}, []string{"ab"}, []string{"a", ""}},
		{"the longest is held", []string{"xab", "c"}, []string{"abz", "bc"}, []string{"x", "a"}},
		{"characters", []string{"hé", "é"}, []string{"éé"}, []string{"h", ""}},
		{"special tokens are not text", []string{"a", "[b]", "c"}, []string{"x"}, []string{"a", "", "c"}},
		{"but count", []string{"ab", "[c]", "d"}, []string{"bcd"}, []string{"a", "", ""}},
		{"and are left out of what is let go", []string{"ab", "[c]", "x"}, []string{"bcd"}, []string{"a", "", "bx"}},
		{"an empty stop string", []string{"ab"}, []string{""}, []string{"ab"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := ending{stops: stop.New(tt.stops)}
			var got []string
			for i, p := range tt.pieces {
				text, special := strings.CutPrefix(p, "[")
				text = strings.TrimSuffix(text, "]")
				got = append(got, string(e.add(nil, []byte(text), !special, i == len(tt.pieces)-1)))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestChoicesLeaveTogether checks that a client that leaves ends all choices.
func TestChoicesLeaveTogether(t *testing.T) {
	for _, more := range []string{"", `,"stream":true`} {
		gen := &fake{script: func(_ *engine.Request, out *engine.StreamWriter) { out.Emit(engine.Token{ID: 276}) }}
		s := newChatServer(t, plainTemplate, gen)
		ctx, cancel := context.WithCancel(context.Background())
		req, err := http.NewRequestWithContext(ctx, "POST", serve(t, s)+chatPath, strings.NewReader(chatBody(`"n":3`+more)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		go func() {
			for s.permits.Load() < 3 {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			gen.mu.Lock()
			open := slices.ContainsFunc(gen.out, func(out *engine.StreamWriter) bool { return !out.Closed() })
			gen.mu.Unlock()
			if !open && s.permits.Load() == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q: open %v, %d permits taken", more, open, s.permits.Load())
			}
		}
		if got := ask(t, s, "GET", "/metrics", ""); !strings.Contains(got.body, `tgi_request_failure{err="dropped"} 1`) {
			t.Errorf("%q: not counted as dropped", more)
		}
	}
}

// TestChoicesKeepAlive waits for comments: one an interval, however many
// choices are silent, and the choices' events behind them.
func TestChoicesKeepAlive(t *testing.T) {
	next := make(chan struct{})
	gen := &fake{script: func(_ *engine.Request, out *engine.StreamWriter) {
		<-next
		out.End(engine.FinishLength, nil, engine.Token{ID: 276})
	}}
	url := serve(t, newChatServer(t, plainTemplate, gen, func(o *Options) { o.KeepAlive = 20 * time.Millisecond }))
	begun := time.Now()
	resp, err := http.Post(url+chatPath, "application/json", strings.NewReader(chatBody(`"n":8,"stream":true,"max_tokens":1`)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var seen []string
	released := false
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if line := lines.Text(); line != "" {
			seen = append(seen, line[:min(len(line), 8)])
		}
		if len(seen) == 3 && !released {
			if most := int(time.Since(begun) / (20 * time.Millisecond)); most < 3 {
				t.Errorf("3 comments in %d intervals", most)
			}
			close(next)
			released = true
		}
	}
	comments := slices.IndexFunc(seen, func(line string) bool { return line != ":" })
	if got := seen[comments:]; comments < 3 || len(got) != 9 || got[8] != "data: [D" {
		t.Errorf("got %q, want comments, 8 events and [DONE]", seen)
	}
}
