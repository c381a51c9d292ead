package main

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/millrace-ai/millrace/container/source"
	"github.com/millrace-ai/millrace/engine/adapter"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
)

// usualAdapterMemory is what adapters may take if no flag says it.
const usualAdapterMemory = 512 << 20

// adapterMemory is what adapters may take together if so much memory is free: nothing if
// there cannot be any.
func (s *sizing) adapterMemory(free int64) int64 {
	switch {
	case s.cfg.LoraAdapters == "" && !s.cfg.AllowRuntimeLoraUpdating:
		return 0
	case s.cfg.AdapterMemory > 0:
		return int64(s.cfg.AdapterMemory) << 20
	}
	return min(usualAdapterMemory, free/16)
}

// newAdapters returns what keeps the adapters of a model, nil if there cannot be any.
func (s *server) newAdapters(l *loadedModel) (*adapter.Manager, error) {
	list, err := s.cfg.Adapters()
	if err != nil || l.adapters == 0 {
		return nil, err
	}
	if !l.caps.Has(device.FeatureAdapters) {
		if len(list) > 0 {
			return nil, fmt.Errorf("--lora-adapters: not supported by the device %s", l.caps.Name)
		}
		return nil, nil
	}
	m := adapter.NewManager(adapter.Options{
		Engine: l.engine,
		Plan:   loader.Resident(l.replicas[0].backend, s.model.plan),
		Memory: l.adapters,
		Open: func(ctx context.Context, place string) (fs.FS, error) {
			return source.Adapter(ctx, place, l.adapters, s.log)
		},
		Loaded: func(name string, bytes int64, took time.Duration, err error) {
			if err != nil {
				s.log.Warn("an adapter cannot be loaded", "adapter", name, "err", err)
				return
			}
			s.log.Info("adapter loaded", "adapter", name, "memory", size(bytes), "seconds", took.Seconds())
		},
	})
	for _, a := range list {
		if _, err := m.Add(a.Name, a.Place, true); err != nil {
			return nil, fmt.Errorf("--lora-adapters: %w", err)
		}
	}
	return m, nil
}

// preload loads the adapters of --lora-adapters. The engine must run.
func preload(ctx context.Context, m *adapter.Manager) error {
	if m == nil {
		return nil
	}
	for _, name := range m.Names() {
		use, err := m.Use(ctx, name)
		use.Release()
		if err != nil {
			return fmt.Errorf("--lora-adapters: %w", err)
		}
	}
	return nil
}
