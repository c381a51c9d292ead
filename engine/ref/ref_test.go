package ref_test

import (
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
