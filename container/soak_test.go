package main

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/dev/abuse"
)

// Good and hostile clients at once, under full load: see package abuse.
// MILLRACE_SOAK says for how long, as in `make soak`. Memory is flat once caches
// are full, which takes some minutes.
func TestSoak(t *testing.T) {
	o := abuse.Options{Duration: 20 * time.Second, Phase: 4 * time.Second, Good: 16, Hostile: 8, Deck: 48, Seed: 1, Log: t.Output()}
	text, long := os.LookupEnv("MILLRACE_SOAK")
	switch {
	case long:
		var err error
		if o.Duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("MILLRACE_SOAK: %v", err)
		}
		o.Phase = min(time.Minute, o.Duration/10)
	case testing.Short():
		o.Duration, o.Phase = 6*time.Second, 3*time.Second
	}
	// With a cache that is soon full: memory that the server took when it began, and
	// that only now comes into use, would look like a leak.
	p := start(t, nil, "--max-batch-total-tokens", "32768").ready()
	o.URL = p.url
	report, err := abuse.Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range report.Failures {
		if i == 20 {
			t.Errorf("and %d failures more", len(report.Failures)-i)
			break
		}
		t.Error(f)
	}
	if report.Leaked { // its goroutines show what
		p.cmd.Process.Signal(syscall.SIGQUIT)
		p.wait()
	}
	if grown := report.Growth(); o.Duration >= 20*time.Minute && grown > 0.05 {
		t.Errorf("memory grew by %.1f %%", 100*grown)
	}
}
