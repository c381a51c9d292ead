package engine_test

import (
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/sim"
)

func TestIdenticalSim(t *testing.T) {
	enginetest.Identical(t, func(t testing.TB, l device.Limits) (device.Backend, int) {
		return sim.New(l, sim.Config{Model: sim.Model{Vocab: 300}}), 300
	})
}
