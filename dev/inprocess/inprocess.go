// Package inprocess runs the engine on a checkpoint inside the program that
// measures it, without a server around it.
package inprocess

import (
	"context"
	"errors"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/weights"
)

// Options say what is run and for how much there is memory.
type Options struct {
	Path     string // of a checkpoint
	Quantize plan.Quantize
	Cache    plan.Format // of keys and values; F32: as the plan has them
	Threads  int
	Rows     int // of logits in a step
	Slots    int // sequences at once
	Pages    int // of caches
}

// Engine is one that runs.
type Engine struct {
	*engine.Engine
	Caps    device.Caps
	Info    device.ModelInfo
	Plan    *plan.Plan
	backend device.Backend
	stopped chan error
}

// stepTokens is how many tokens a step computes.
const stepTokens = 512

// MissingError says that this build cannot read the checkpoint, or not in this
// format.
type MissingError struct{ error }

func (e *MissingError) Unwrap() error { return e.error }

// Missing makes a MissingError of err.
func Missing(err error) error { return &MissingError{err} }

// Start loads the checkpoint and runs an engine on it until Stop.
func Start(o Options) (*Engine, error) {
	c, err := weights.Open(o.Path)
	if err != nil {
		return nil, Missing(err)
	}
	defer c.Close()
	cfg, p, err := loader.Plan(c, false)
	if err != nil {
		return nil, Missing(err)
	}
	p.Quantize = o.Quantize
	if o.Cache != plan.F32 {
		p.SetCacheFormat(o.Cache)
	}
	limits := device.Limits{MaxTokens: stepTokens, MaxRows: o.Rows, MaxSlots: o.Slots, MaxPagesPerSlot: 1024, Threads: o.Threads}
	b, err := cpu.Open(limits)
	if err != nil {
		return nil, err
	}
	info, err := loader.Load(b, p, c, nil)
	if err != nil {
		return nil, Missing(errors.Join(err, b.Close()))
	}
	// No prefix cache: each prompt is computed whole, as llama.cpp's are.
	e, err := engine.New(engine.Config{Backend: b, Device: limits, Plan: p, Pages: o.Pages, States: 2 * o.Slots, EOS: cfg.EOS,
		Root: page.Root(), MaxBatchTokens: stepTokens, NoPrefixCache: true})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	s := &Engine{Engine: e, Caps: b.Caps(), Info: info, Plan: p, backend: b, stopped: make(chan error, 1)}
	go func() { s.stopped <- e.Run(context.Background()) }()
	return s, nil
}

// Stop ends the engine once its requests have ended, and frees its memory.
func (e *Engine) Stop() error {
	return errors.Join(e.Drain(context.Background()), <-e.stopped, e.backend.Close())
}
