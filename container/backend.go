package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/ref"
	"github.com/millrace-ai/millrace/engine/sim"
)

// simStep is the variable that says how long a step of --device sim takes.
const simStep = "MILLRACE_SIM_STEP"

// computeType is what x-compute-type says: as TGI's launcher puts it, how many
// devices of which kind.
func computeType(cfg *config.Serve) string {
	if cfg.ComputeType != "" {
		return cfg.ComputeType
	}
	return strconv.Itoa(cfg.Replicas*gpus(cfg)) + "-" + deviceName(cfg)
}

// gpus is how many GPUs share a copy of the model, 1 on other devices.
func gpus(cfg *config.Serve) int {
	if deviceName(cfg) != "cuda" {
		return 1
	}
	return max(1, cfg.NumShard)
}

// deviceName is the backend that --device names.
func deviceName(cfg *config.Serve) string {
	if cfg.Device == "auto" {
		return "cpu"
	}
	return cfg.Device
}

// runsDrafts reports whether the backend that deviceName returns runs a model's own head
// for drafts (device.FeatureDraft). Others are given a plan without.
func runsDrafts(name string) bool { return name == "cpu" || name == "ref" || name == "cuda" }

// cudaLibraries are the files of the CUDA backend: the one that is named, or those beside the
// program, the one for older drivers last.
func cudaLibraries(cfg *config.Serve) []string {
	if cfg.CUDALibrary != "" {
		return []string{cfg.CUDALibrary}
	}
	names := []string{"libmillrace_cuda.so", "libmillrace_cuda12.so"}
	if program, err := os.Executable(); err == nil {
		for i := range names {
			names[i] = filepath.Join(filepath.Dir(program), names[i])
		}
	}
	return names
}

// chooseLibrary returns the file of the CUDA backend that can use a GPU of this machine, and
// otherwise why none can.
func chooseLibrary(cfg *config.Serve) (string, error) {
	var why error // of the last one that could be opened, or of the first
	for i, name := range cudaLibraries(cfg) {
		caps, err := cuda.Probe(name)
		switch {
		case err != nil && i > 0: // it need not be there
		case err != nil:
			why = fmt.Errorf("%w (--cuda-library names the file; %s)", err, insteadOfCUDA)
		case caps.Name == "":
			why = fmt.Errorf("%s (%s)", caps.Detail, insteadOfCUDA)
		default:
			return name, nil
		}
	}
	return "", fmt.Errorf("--device=cuda: %w", why)
}

const insteadOfCUDA = "--device cpu computes without a GPU"

// checkDevice finds out, before anything is loaded, whether what --device names is there, and
// settles --cuda-library.
func checkDevice(cfg *config.Serve) (err error) {
	if deviceName(cfg) != "cuda" {
		return nil
	}
	if cfg.CUDALibrary, err = chooseLibrary(cfg); err != nil {
		return err
	}
	if gpus(cfg) == 1 && cfg.Replicas == 1 {
		return nil
	}
	least := device.Limits{MaxTokens: 1, MaxRows: 1, MaxSlots: 1, MaxPagesPerSlot: 1}
	for replica := cfg.Replicas - 1; replica >= 0; replica-- { // the last one first: there may be fewer GPUs
		b, err := openGPUs(cfg, least, replica, gpus(cfg))
		if err == nil {
			err = b.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openGPUs opens a backend of the first n GPUs of those that a replica has, which are as many
// as --num-shard says.
func openGPUs(cfg *config.Serve, limits device.Limits, replica, n int) (device.Backend, error) {
	b, err := cuda.OpenOn(cfg.CUDALibrary, limits, replica*gpus(cfg), n)
	if err != nil {
		flags := "--device=cuda"
		if cfg.NumShard > 1 {
			flags += fmt.Sprintf(" --num-shard=%d", cfg.NumShard)
		}
		if cfg.Replicas > 1 {
			flags += fmt.Sprintf(" --replicas=%d", cfg.Replicas)
		}
		return nil, fmt.Errorf("%s: %w", flags, err)
	}
	return device.Checked(b, limits), nil
}

// openBackend opens the backend that deviceName returns, for a replica of the model.
func openBackend(cfg *config.Serve, limits device.Limits, p *plan.Plan, replica int) (device.Backend, error) {
	switch name := deviceName(cfg); name {
	case "cuda":
		n := gpus(cfg)
		if p.Encodes() { // a vision tower is on the first one
			n = 1
		}
		return openGPUs(cfg, limits, replica, n)
	case "cpu":
		b, err := cpu.Open(limits)
		if err != nil {
			return nil, err
		}
		return device.Checked(b, limits), nil
	case "ref":
		b, err := ref.Open(limits)
		if err != nil {
			return nil, err
		}
		return device.Checked(b, limits), nil
	case "sim":
		// Random tokens: what is measured is all the rest. A step takes no
		// time, unless told otherwise to see tokens leave one by one.
		windows := make([]int, len(p.Groups))
		for i, g := range p.Groups {
			windows[i] = int(g.Window)
		}
		c := sim.Config{Model: sim.Model{Seed: 1, Vocab: p.Vocab, EOS: -1, Windows: windows, Recurrent: p.HasState()}, Fast: true}
		if text := os.Getenv(simStep); text != "" {
			step, err := time.ParseDuration(text)
			if err != nil {
				return nil, fmt.Errorf("%s=%q: expected a duration such as 1ms", simStep, text)
			}
			c.RealTime, c.Latency = true, func(int) time.Duration { return step }
		}
		return sim.New(limits, c), nil
	default:
		return nil, fmt.Errorf("--device=%s: no such backend in this build", name)
	}
}
