package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program writes a shell script.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPart(t *testing.T) {
	const line = "BenchmarkDecode/0.6B/1-16   \t 100\t 1234 ns/op\t 12.5 host-us\t 800 tokens/s\n"
	for _, tt := range []struct {
		name, script   string
		limit          time.Duration
		result, detail string
		measured       int
	}{
		{"ok", "printf '" + line + "PASS\\n'", time.Minute, resultOK, "", 1},
		{"tests", "echo '    --- PASS: TestGraphs (1.00s)'", time.Minute, resultOK, "", 0},
		{"nothing", "echo '    --- SKIP: TestGraphs (1.00s)'; echo PASS", time.Minute, resultFailed, "it tested and measured nothing", 0},
		{"failed", "echo '--- FAIL: TestGraphs'; echo why >&2; exit 1", time.Minute, resultFailed, "exit status 1: --- FAIL: TestGraphs\nwhy", 0},
		{"out of time", "printf '" + line + "'; exec sleep 60", time.Second, resultLate, "it had 1 s", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := part{name: tt.name, command: []string{program(t, tt.script)}}
			got, measured := p.run(os.Environ(), tt.limit)
			if got.Result != tt.result || got.Detail != tt.detail || len(measured) != tt.measured {
				t.Errorf("%+v, %+v; want %s, %q and %d measurements", got, measured, tt.result, tt.detail, tt.measured)
			}
			for _, m := range measured {
				if m.Name != "Decode/0.6B/1" || m.Metrics["host-us"] != 12.5 || m.Metrics["tokens/s"] != 800 || m.Metrics["ns/op"] != 1234 {
					t.Errorf("measured %+v", m)
				}
			}
		})
	}
	missing := part{command: []string{"no-such-program"}}
	if got, _ := missing.run(nil, time.Minute); got.Result != resultSkipped || got.Detail != "no-such-program is not installed" {
		t.Errorf("a program that is not installed: %+v", got)
	}
	removed := part{command: []string{filepath.Join(t.TempDir(), "cuda.test")}}
	if got, _ := removed.run(nil, time.Minute); got.Result != resultFailed {
		t.Errorf("a program that was not carried here: %+v", got)
	}
}

func TestReport(t *testing.T) {
	r := report{GPU: "NVIDIA L4 sm_89", Date: "2026-12-01", Parts: []result{{Name: "goldens", Result: resultLate}},
		Measurements: []measurement{{"Decode/8B/1", map[string]float64{"tokens/s": 17.25, "ns/op": 5}}}}
	if r.failed() {
		t.Error("a part that ran out of time counts as failed")
	}
	dir := filepath.Join(t.TempDir(), "results")
	var out strings.Builder
	if err := r.write(&out, dir); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "Decode/8B/1  17.25 tokens/s\n") {
		t.Errorf("the table is %s", out.String())
	}
	data, err := os.ReadFile(filepath.Join(dir, "nvidia-l4-sm-89-2026-12-01.json"))
	if err != nil {
		t.Fatal(err)
	}
	var read report
	if err := json.Unmarshal(data, &read); err != nil || read.Measurements[0].Metrics["tokens/s"] != 17.25 {
		t.Errorf("the file has %s: %v", data, err)
	}
	r.Parts[0].Result = resultFailed
	if !r.failed() {
		t.Error("a part that failed does not count")
	}
}

func TestNoGPU(t *testing.T) {
	c := check{library: filepath.Join(t.TempDir(), "libmillrace_cuda.so"), limit: time.Minute}
	if _, err := c.run(&strings.Builder{}); err == nil || !strings.Contains(err.Error(), "libmillrace_cuda.so") {
		t.Errorf("without a library: %v, want an error that names it", err)
	}
}
