//go:build !kernels

// The engine brings a library of Rust along, which .ci/arm64 does not cross-compile.

package cpu_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/vision"
)

// BenchmarkImageGap: the longest time that a reader of one of eight streams waits for a
// token while an image is encoded, while the prompt about it is read after that, and without
// any image; and what encoding takes alone and beside the streams. A span is computed in one
// step, for which a reader waits.
func BenchmarkImageGap(b *testing.B) {
	const siglip = `{"model_type":"gemma3","mm_tokens_per_image":144,"text_config":{"hidden_size":896,"num_hidden_layers":1},
		"vision_config":{"model_type":"siglip_vision_model","image_size":384,"patch_size":16}}`
	for _, t := range []struct {
		name, config, root string
		side, merge        int // in patches
		attends            vision.Bidirectional
	}{
		{"siglip-base-384", siglip, "vision_tower.vision_model.", 24, 2, vision.Causal},
		{"siglip-base-384-span", siglip, "vision_tower.vision_model.", 24, 2, vision.WithinImage},
		{
			"qwen2-vl-1024", `{"model_type":"qwen2_vl","hidden_size":896,"num_hidden_layers":1,"num_attention_heads":7,"num_key_value_heads":7,
				"vision_config":{"depth":32,"embed_dim":1280,"num_heads":16,"mlp_ratio":4,"hidden_size":896}}`,
			"visual.", 32, 2, vision.Causal,
		},
	} {
		b.Run(t.name, func(b *testing.B) { benchGap(b, t.config, t.root, t.side, t.merge, t.attends) })
	}
}

func benchGap(b *testing.B, config, root string, side, merge int, attends vision.Bidirectional) {
	const streams, image = 8, 5
	n := side * side
	c, err := plan.ParseConfig([]byte(config), nil)
	if err != nil {
		b.Fatal(err)
	}
	tower, err := plan.BuildTower([]byte(config), c, func(name string) ([]int, bool) { return nil, strings.HasPrefix(name, root) })
	if err != nil {
		b.Fatal(err)
	}
	lowered := *tower
	lowered.Plan = plan.Share(plan.Lower(tower.Plan))
	sees := engine.TowerLimits(&lowered, n, threads())
	backend, err := cpu.Open(sees)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { backend.Close() })
	load(b, backend, lowered.Plan, plan.BF16)
	if _, err := backend.SetModel(lowered.Plan); err != nil {
		b.Fatal(err)
	}
	encoder, err := engine.NewTower(backend, sees, &lowered, nil)
	if err != nil {
		b.Fatal(err)
	}

	limits := device.Limits{MaxTokens: 512, MaxRows: 32, MaxSlots: 16, MaxPagesPerSlot: 512, Threads: threads()}
	reads, err := cpu.Open(limits)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { reads.Close() })
	p := qwen05.plan()
	load(b, reads, p, plan.W8)
	if _, err := reads.SetModel(p); err != nil {
		b.Fatal(err)
	}
	e, err := engine.New(engine.Config{Backend: reads, Device: limits, Plan: p, Pages: 4096, Vision: &engine.Vision{Encoder: encoder, Token: image, Memory: 64 << 20, Bidirectional: attends}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()

	picture := &vision.Image{Layout: &vision.Layout{Tiles: []vision.Tile{{Patches: n, Merge: merge * merge, Rows: side, Columns: side}}}}
	in := vision.Input{Patches: make([]float32, n*tower.PatchWidth), Pos: make([]int32, n), Axes: make([]int32, 2*n)}
	for i := range in.Patches {
		in.Patches[i] = float32(i%255)/127 - 1
	}
	for i := range n {
		in.Pos[i], in.Axes[2*i], in.Axes[2*i+1] = int32(i), int32(i/side), int32(i%side)
	}
	picture.Inputs = []vision.Input{in}
	seen := uint64(0)
	look := func() (start, encoded time.Time) {
		seen++
		r := &engine.Request{Tokens: make([]int32, n/merge/merge+8), MaxNewTokens: 1, IgnoreEOS: true, Params: sample.Greedy()}
		for i := range r.Tokens {
			if r.Tokens[i] = 100 + int32(i); i < n/merge/merge {
				r.Tokens[i] = image
			}
		}
		r.Images = []engine.Image{{Hash: sha256.Sum256(binary.LittleEndian.AppendUint64(nil, seen)), Count: n / merge / merge, Input: func(context.Context) (*vision.Image, error) { return picture, nil }}}
		start = time.Now()
		return start, read(context.Background(), b, e, r, func() {}).Admitted
	}
	start, encoded := look()
	alone := encoded.Sub(start)

	var mu sync.Mutex
	type gap struct {
		end  time.Time
		took time.Duration
	}
	var gaps []gap
	reading, stop := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	for s := range streams {
		readers.Go(func() {
			r := &engine.Request{Tokens: []int32{int32(10 + s), 20, 30}, MaxNewTokens: 8000, IgnoreEOS: true, Params: sample.Greedy()}
			last := time.Now()
			read(reading, b, e, r, func() {
				now := time.Now()
				mu.Lock()
				gaps = append(gaps, gap{now, now.Sub(last)})
				mu.Unlock()
				last = now
			})
		})
	}
	longest := func(from, to time.Time) (most time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		for _, g := range gaps {
			if g.end.After(from) && !g.end.After(to) {
				most = max(most, g.took)
			}
		}
		return most
	}
	time.Sleep(3 * time.Second)
	start = time.Now()
	time.Sleep(5 * time.Second)
	without := longest(start, time.Now())
	var beside, with, prompt time.Duration
	for b.Loop() {
		start, encoded := look()
		beside += encoded.Sub(start)
		with, prompt = max(with, longest(start, encoded)), max(prompt, longest(encoded, time.Now()))
	}
	stop()
	readers.Wait()
	b.ReportMetric(float64(with.Milliseconds()), "gap-ms")
	b.ReportMetric(float64(prompt.Milliseconds()), "gap-prompt-ms")
	b.ReportMetric(float64(without.Milliseconds()), "gap-without-ms")
	b.ReportMetric(float64(alone.Milliseconds()), "image-alone-ms")
	b.ReportMetric(float64(beside.Milliseconds())/float64(b.N), "image-beside-ms")
}

// read calls each for every token of r, until ctx ends, and returns when things happened.
func read(ctx context.Context, b *testing.B, e *engine.Engine, r *engine.Request, each func()) (times engine.Times) {
	stream, err := e.Submit(ctx, r)
	if err != nil {
		b.Error(err)
		return times
	}
	defer stream.Close()
	for {
		switch _, err := stream.Next(ctx); {
		case ctx.Err() != nil, errors.Is(err, io.EOF):
			return stream.Times()
		case err != nil:
			b.Error(err)
			return times
		}
		each()
	}
}
