package ref_test

import (
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/device/backendtest"
	"github.com/millrace-ai/millrace/engine/ref"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(t *testing.T, limits device.Limits) device.Backend {
		b, err := ref.Open(limits)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}, backendtest.Options{BitExact: true})
}

func TestOpenRefusesLimits(t *testing.T) {
	if _, err := ref.Open(device.Limits{MaxTokens: 1, MaxRows: 0, MaxSlots: 1, MaxPagesPerSlot: 1}); err == nil || !strings.Contains(err.Error(), "MaxRows is 0") {
		t.Errorf("Open without rows: %v", err)
	}
}
