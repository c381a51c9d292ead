// Package cpu is the backend that computes on the host's own cores. Package kernels
// has its C++, which does not depend on the engine's Go: what is changed here
// compiles in a moment, and what is changed there takes minutes.
package cpu

import (
	"github.com/millrace-ai/millrace/engine/cpu/kernels"
	"github.com/millrace-ai/millrace/engine/device"
)

// Open returns a backend without a model.
func Open(limits device.Limits) (*device.Native, error) {
	return device.NewNative(kernels.Backend(), limits)
}

// Probe says what this machine offers: the instruction set and how many
// threads the process may keep busy.
func Probe() (device.Caps, error) { return device.ProbeNative(kernels.Backend()) }
