package engine_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/adapter"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
)

// TestAdapterGoldens compares adapters with what PEFT computes with them;
// testdata/adapters.py makes them.
func TestAdapterGoldens(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "adapters", "*", "golden.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens of adapters: %v", err)
	}
	for _, file := range files {
		var g struct {
			Base string
			golden
		}
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &g)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range goldenBackends {
			t.Run(fmt.Sprintf("%s/%s", filepath.Base(filepath.Dir(file)), b.name), func(t *testing.T) {
				limits := device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 4, MaxPagesPerSlot: 16, Threads: 2}
				open, err := b.open(limits)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { open.Close() })
				backend := floats{device.Checked(open, limits)} // MXFP4 in four bits rounds activations
				cfg, p := loadCheckpoint(t, filepath.Join("testdata", g.Base), backend)
				e := enginetest.Run(t, engine.Config{
					Backend: backend, Device: limits, Plan: p, Pages: 40 * max(1, len(p.Groups)), States: states(p, 8),
					EOS: cfg.EOS, Root: page.Root(), MaxBatchTokens: 256,
				})
				a, err := adapter.Read(os.DirFS(filepath.Dir(file)), 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				fitted, err := a.Fit(loader.Resident(backend, p))
				if err != nil {
					t.Fatal(err)
				}
				id, err := e.LoadAdapter(fitted)
				if err != nil {
					t.Fatal(err)
				}
				compareGolden(t, e, &g.golden, id, b.tolerance, b.margin)
			})
		}
	}
}
