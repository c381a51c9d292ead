package main

import (
	"fmt"

	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/ref"
	"github.com/millrace-ai/millrace/engine/sim"
)

// openBackend opens the backend that --device names; auto is the best there is.
func openBackend(name string, limits device.Limits, p *plan.Plan) (device.Backend, error) {
	switch name {
	case "auto", "cpu":
		return cpu.Open(limits)
	case "ref":
		return ref.Open(limits)
	case "sim":
		// Tokens at once and no end token: what is measured is all the rest.
		return sim.New(limits, sim.Config{Model: sim.Model{Seed: 1, Vocab: p.Vocab, EOS: -1}, Fast: true}), nil
	}
	return nil, fmt.Errorf("--device=%s: no such backend in this build", name)
}
