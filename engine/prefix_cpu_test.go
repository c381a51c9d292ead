package engine_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/enginetest"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/page"
	"github.com/millrace-ai/millrace/engine/sample"
)

// cpuConfig is an engine on the CPU for the checkpoint in dir.
func cpuConfig(t testing.TB, dir string) (engine.Config, engine.PrefixOrigin) {
	t.Helper()
	limits := device.Limits{MaxTokens: 64, MaxRows: 64, MaxSlots: 2, MaxPagesPerSlot: 12, Threads: 2}
	c, _, p := openPlan(t, dir, false)
	b, err := cpu.Open(limits)
	if err != nil {
		t.Fatal(err)
	}
	checked := device.Checked(b, limits)
	t.Cleanup(func() { checked.Close() })
	info, err := loader.Load(checked, p, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := engine.Config{Backend: checked, Device: limits, Plan: p, Pages: 60 * max(1, len(p.Groups)), States: 6, Root: page.Root()}
	return cfg, engine.PrefixOrigin{PageBytes: info.PageBytes, StateBytes: info.StateBytes}
}

// A request that starts from a prefix file gets what one gets that computes the
// prefix, to the bit, whatever the model keeps.
func TestPrefixFileCPU(t *testing.T) {
	for _, name := range []string{"llama-tied-bf16", "gemma3", "gpt-oss", "deepseek-v3", "falcon-mamba-v4", "jamba", "kimi-linear", "lfm2"} {
		for _, kv := range []string{"", "f16"} {
			t.Run(name+"/"+kv, func(t *testing.T) {
				t.Setenv("MILLRACE_CPU_KV", kv)
				dir := filepath.Join("testdata", name)
				cfg, origin := cpuConfig(t, dir)
				rng := rand.New(rand.NewPCG(4, 4))
				prompt := make([]int32, 90)
				for i := range prompt {
					prompt[i] = int32(rng.IntN(cfg.Plan.Vocab))
				}
				request := &engine.Request{Tokens: prompt, MaxNewTokens: 20, Params: sample.Greedy(), TopN: 3, IgnoreEOS: true}
				request.Params.Sample, request.Params.Seed = 1, 3

				maker, err := engine.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				ran := make(chan error, 1)
				go func() { ran <- maker.Run(t.Context()) }()
				want, times := answerOf(t, maker, request)
				if times.CachedTokens != 0 {
					t.Errorf("%d tokens came from an empty cache", times.CachedTokens)
				}
				prefix, err := maker.ComputePrefix(t.Context(), prompt[:70])
				if err != nil {
					t.Fatal(err)
				}
				if err := maker.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := <-ran; err != nil {
					t.Fatal(err)
				}
				var file bytes.Buffer
				if err := maker.WritePrefix(&file, prefix, origin); err != nil {
					t.Fatal(err)
				}

				cfg, origin = cpuConfig(t, dir)
				reader, err := engine.New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := reader.ReadPrefix(&file, origin); n != 64 || err != nil {
					t.Fatalf("%d tokens, error %v", n, err)
				}
				enginetest.Start(t, reader)
				got, times := answerOf(t, reader, request)
				if times.CachedTokens != 64 {
					t.Errorf("%d tokens came from the cache, want 64", times.CachedTokens)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("with the prefix file %v, without %v", got, want)
				}
			})
		}
	}
}

func answerOf(t testing.TB, e *engine.Engine, r *engine.Request) (tokens []engine.Token, times engine.Times) {
	t.Helper()
	s, err := e.Submit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for {
		next, err := s.Next(t.Context())
		if err == io.EOF {
			return tokens, s.Times()
		}
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, next...)
	}
}
