package cpu_test

import (
	"testing"

	"github.com/millrace-ai/millrace/engine/device/backendtest"
)

// FuzzPlan: no plan that is valid crashes the backend.
func FuzzPlan(f *testing.F) { backendtest.Fuzz(f, open) }
