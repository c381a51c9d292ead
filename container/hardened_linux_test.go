package main

import (
	"testing"

	"github.com/millrace-ai/millrace/dev/harness"
)

// The program is linked so that a fault in its C++ or Rust is hard to use.
func TestHardened(t *testing.T) {
	missing, err := harness.Weaknesses(millrace)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range missing {
		t.Errorf("not so: %s", what)
	}
}
