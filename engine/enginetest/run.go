package enginetest

import (
	"context"
	"testing"

	"github.com/millrace-ai/millrace/engine"
)

// Run runs an engine of cfg until the test ends.
func Run(t testing.TB, cfg engine.Config) *engine.Engine {
	t.Helper()
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	Start(t, e)
	return e
}

// Start runs e until the test ends.
func Start(t testing.TB, e *engine.Engine) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
