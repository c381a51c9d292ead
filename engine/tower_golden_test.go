package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/cuda"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/vision"
)

// seen is what transformers computed of an image and of a prompt with it;
// testdata/vision.py describes and makes it.
type seen struct {
	Tiles []struct {
		Pixels  []float32
		Class   int
		Pos     []int32
		Rows    []int32
		Weights []float32
		Axes    []int32
		Windows []int32
		Merge   int
	}
	Order      []int
	Embeds     []float32
	Prompt     []int32
	ImageToken int32 `json:"image_token"`
	Axes       [][]int32
	Spans      [][2]int32
	Logprobs   []*float64
}

var towerLimits = device.Limits{MaxTokens: 256, MaxRows: 256, MaxSlots: 4, MaxPagesPerSlot: 16, Threads: 2}

// TestTowers compares vision towers and the language models behind them with
// transformers: rows of image tokens, and log-probabilities of a prompt with an image.
func TestTowers(t *testing.T) { runTowers(t, goldenBackends, nil) }

// TestCUDATowers runs some of them, by the CUDA backend's shim, that between them have all
// that towers alone ask of a backend.
func TestCUDATowers(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector sees nothing of the library")
	}
	library := cudaLibrary(t)
	open := func(l device.Limits) (device.Backend, error) { return cuda.Open(library, l) }
	runTowers(t, []goldenBackend{{"cuda", open, 2e-2, 0.05}}, []string{"gemma3-images", "qwen2_5-vl", "qwen3-vl", "llava-next", "gemma4-images", "gemma4-clipped"})
}

// runTowers runs those of testdata that are named, or all.
func runTowers(t *testing.T, backends []goldenBackend, names []string) {
	files, err := filepath.Glob(filepath.Join("testdata", "*", "vision.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens of images: %v", err)
	}
	for _, file := range files {
		if names != nil && !slices.Contains(names, filepath.Base(filepath.Dir(file))) {
			continue
		}
		var want seen
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &want)
		}
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(file)
		for _, b := range backends {
			t.Run(filepath.Base(dir)+"/"+b.name, func(t *testing.T) { compareTower(t, dir, b, &want) })
		}
	}
}

// TestTowersAndProcessors: what the image processor of a checkpoint says of an image's
// patches is what the tower takes, and what transformers has for an image of that size.
func TestTowersAndProcessors(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*", "vision.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens of images: %v", err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			read := func(name string) []byte {
				data, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				return data
			}
			var want seen
			if err := json.Unmarshal(read("vision.json"), &want); err != nil {
				t.Fatal(err)
			}
			processor, err := vision.New(vision.Files{Config: read("config.json"), Preprocessor: read("preprocessor_config.json")})
			if err != nil {
				t.Fatal(err)
			}
			c, cfg, _ := openPlan(t, dir, false)
			tower, err := loader.Tower(c, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if p := processor.Config; p.PatchWidth != tower.PatchWidth || p.MergeSize*p.MergeSize != tower.Merge || p.MaxTile > tower.MaxPos {
				t.Fatalf("the processor's patches are %d wide, %d squared make a row, up to %d; the tower's %d, %d make one, up to %d",
					p.PatchWidth, p.MergeSize, p.MaxTile, tower.PatchWidth, tower.Merge, tower.MaxPos)
			}
			tile := &want.Tiles[0]
			rows, columns := 0, 0
			for i := 0; i < len(tile.Axes); i += 2 {
				rows, columns = max(rows, int(tile.Axes[i])+1), max(columns, int(tile.Axes[i+1])+1)
			}
			size := processor.Config.PatchSize
			px := &vision.Pixels{Width: columns * size, Height: rows * size, RGB: make([]byte, 3*rows*columns*size*size)}
			img, err := processor.Process(px)
			if err != nil {
				t.Fatal(err)
			}
			in, got := &img.Inputs[0], &img.Tiles[0]
			if tower.Axes && !slices.Equal(in.Axes, tile.Axes) || in.Pos != nil && !slices.Equal(in.Pos, tile.Pos) || !slices.Equal(in.InterpRows, tile.Rows) ||
				!slices.Equal(got.Windows, tile.Windows) || got.Class != tile.Class {
				t.Errorf("axes %v\nwant %v\npositions %v, rows %v, windows %v\nwant %v, %v, %v", in.Axes, tile.Axes, in.Pos, in.InterpRows, got.Windows, tile.Pos, tile.Rows, tile.Windows)
			}
			for i, w := range tile.Weights {
				if math.Abs(float64(w-in.InterpWeights[i])) > 1e-5 {
					t.Fatalf("weight %d of positions: %v, want %v", i, in.InterpWeights[i], w)
				}
			}
			if n := len(tower.AppendRows(nil, plan.Patches{Pixels: in.Patches, Class: got.Class, Pos: in.Pos, Axes: in.Axes, Rows: in.InterpRows, Weights: in.InterpWeights})); n != got.Len()*tower.RowWidth() {
				t.Errorf("%d floats for %d rows of %d", n, got.Len(), tower.RowWidth())
			}
		})
	}
}

func compareTower(t *testing.T, dir string, b goldenBackend, want *seen) {
	c, cfg, p := openPlan(t, dir, false)
	tower, err := loader.Tower(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	width := p.RowWidth()
	if n := tower.Width(tower.Ops[len(tower.Ops)-1].In[0]); n != width {
		t.Fatalf("the tower makes rows of %d, the language model takes %d", n, width)
	}
	open := func() device.Backend {
		backend, err := b.open(towerLimits)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { backend.Close() })
		return device.Checked(backend, towerLimits)
	}
	text, sees := open(), open()
	loaded, err := loader.LoadSeeing(text, p, sees, tower, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := text.InitCache(64, states(p, 2)); err != nil {
		t.Fatal(err)
	}
	if err := sees.InitCache(64, 0); err != nil {
		t.Fatal(err)
	}
	all := make([]int, len(want.Tiles))
	for i := range all {
		all[i] = i
	}
	rows := runTiles(t, sees, tower, want, all...)
	var embeds []float32
	for _, at := range want.Order {
		if at < 0 {
			embeds = append(embeds, loaded.Newline...)
			continue
		}
		embeds = append(embeds, rows[at*width:][:width]...)
	}
	if len(embeds) != len(want.Embeds) {
		t.Fatalf("%d floats of rows, want %d", len(embeds), len(want.Embeds))
	}
	scale := 1.0
	for _, v := range want.Embeds {
		scale = max(scale, math.Abs(float64(v)))
	}
	for i, v := range embeds {
		if d := math.Abs(float64(v - want.Embeds[i])); !(d <= b.tolerance*scale) {
			t.Fatalf("row %d, column %d: %v, want %v", i/width, i%width, v, want.Embeds[i])
		}
	}
	var alone []float32
	for i := range want.Tiles {
		alone = append(alone, runTiles(t, sees, tower, want, i)...)
	}
	if !slices.Equal(alone, rows) {
		t.Error("a tile alone has other rows than among others")
	}
	comparePrompt(t, text, p, want, embeds, b.tolerance)
}

// runTiles runs tiles in one step and returns their rows.
func runTiles(t *testing.T, b device.Backend, tower *plan.Tower, s *seen, tiles ...int) []float32 {
	t.Helper()
	x := b.Batch(0)
	x.Clear()
	page := int32(0)
	var axes []int32
	for slot, i := range tiles {
		tile := &s.Tiles[i]
		before := len(x.Embeds) / tower.RowWidth()
		x.Embeds = tower.AppendRows(x.Embeds, plan.Patches{Pixels: tile.Pixels, Class: tile.Class, Pos: tile.Pos, Axes: tile.Axes, Rows: tile.Rows, Weights: tile.Weights})
		n := len(x.Embeds)/tower.RowWidth() - before
		start := int32(len(x.Tokens))
		x.Params = append(x.Params, device.ParamDelta{Slot: int32(slot), Params: sample.Greedy()})
		for j := range n {
			x.Tokens, x.Pos = append(x.Tokens, device.EmbedRow(before+j)), append(x.Pos, int32(j))
			if (j+1)%tower.Merge == 0 && j < n-tile.Class {
				x.Rows = append(x.Rows, device.Row{Token: start + int32(j), Slot: int32(slot), Kind: device.RowOutput})
			}
		}
		axes = append(axes, tile.Axes...)
		at := start
		for _, w := range tile.Windows {
			x.Spans = append(x.Spans, device.Span{Start: at, Count: w})
			at += w
		}
		for index := range (n + device.PageTokens - 1) / device.PageTokens {
			x.Pages = append(x.Pages, device.PageDelta{Slot: int32(slot), Index: int32(index), Page: page})
			page++
		}
		x.Seqs = append(x.Seqs, device.Seq{Slot: int32(slot), Start: start, Count: int32(n), KVLen: int32(n)})
	}
	if tower.Axes {
		n := len(x.Tokens)
		x.Axes = x.Axes[:3*n]
		clear(x.Axes)
		for i := range n {
			x.Axes[i], x.Axes[n+i] = axes[2*i], axes[2*i+1]
		}
	}
	step(t, b)
	return slices.Clone(x.Outputs)
}

func step(t *testing.T, b device.Backend) {
	t.Helper()
	for _, do := range []func(int) error{b.Forward, b.Sample, b.Wait} {
		if err := do(0); err != nil {
			t.Fatal(err)
		}
	}
}

// comparePrompt runs the prompt with its image through the language model.
func comparePrompt(t *testing.T, b device.Backend, p *plan.Plan, s *seen, embeds []float32, tolerance float64) {
	t.Helper()
	x := b.Batch(0)
	x.Clear()
	x.Params = append(x.Params, device.ParamDelta{Params: sample.Greedy()})
	x.Embeds = append(x.Embeds, embeds...)
	row := 0
	for i, id := range s.Prompt {
		if id == s.ImageToken {
			id = device.EmbedRow(row)
			row++
		}
		x.Tokens, x.Pos = append(x.Tokens, id), append(x.Pos, int32(i))
		if i+1 < len(s.Prompt) && s.Logprobs[i+1] != nil {
			x.Rows = append(x.Rows, device.Row{Token: int32(i), Kind: device.RowScore, Target: s.Prompt[i+1]})
		}
	}
	for _, axis := range s.Axes {
		x.Axes = append(x.Axes, axis...)
	}
	for _, span := range s.Spans {
		x.Spans = append(x.Spans, device.Span{Start: span[0], Count: span[1]})
	}
	if p.HasState() {
		x.States = append(x.States, device.StateDelta{From: device.ZeroState, Save: device.NoState})
	}
	page := int32(0)
	for g := range p.Groups {
		for index := range (len(s.Prompt) + device.PageTokens - 1) / device.PageTokens {
			x.Pages = append(x.Pages, device.PageDelta{Group: int32(g), Index: int32(index), Page: page})
			page++
		}
	}
	x.Seqs = append(x.Seqs, device.Seq{Count: int32(len(s.Prompt)), KVLen: int32(len(s.Prompt))})
	step(t, b)
	for i, r := range x.Rows {
		want := *s.Logprobs[r.Token+1]
		if got := float64(x.Results[i].Logprob); !(math.Abs(got-want) <= tolerance) {
			t.Errorf("token %d: log-probability %v, want %v", r.Token+1, got, want)
		}
	}
	if len(x.Rows) == 0 {
		t.Error(fmt.Errorf("nothing was compared"))
	}
}

// A tower stops when nobody waits for its rows, whenever that is, and the next image is as
// if it had not been.
func TestTowerStops(t *testing.T) {
	dir := filepath.Join("testdata", "gemma3-images")
	c, cfg, p := openPlan(t, dir, false)
	tower, err := loader.Tower(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var files vision.Files
	for name, data := range map[string]*[]byte{"config.json": &files.Config, "preprocessor_config.json": &files.Preprocessor} {
		if *data, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	processor, err := vision.New(files)
	if err != nil {
		t.Fatal(err)
	}
	px := &vision.Pixels{Width: 20, Height: 30, RGB: make([]byte, 3*20*30)}
	for i := range px.RGB {
		px.RGB[i] = byte(37 * i)
	}
	img, err := processor.Process(px)
	if err != nil {
		t.Fatal(err)
	}
	limits := engine.TowerLimits(tower, processor.Config.MaxTile, 2)
	var backends []device.Backend
	for _, l := range []device.Limits{towerLimits, limits} {
		b, err := cpu.Open(l)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		backends = append(backends, device.Checked(b, l))
	}
	loaded, err := loader.LoadSeeing(backends[0], p, backends[1], tower, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := engine.NewTower(backends[1], limits, tower, loaded.Newline)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(stop func(cancel func())) ([]float32, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		rows := make([]float32, img.Tokens*p.RowWidth())
		err := encoder.Encode(ctx, &engine.Image{Input: func(context.Context) (*vision.Image, error) {
			stop(cancel)
			return img, nil
		}}, rows)
		return rows, err
	}
	want, err := encode(func(func()) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encode(func(cancel func()) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("an image that nobody waits for: %v", err)
	}
	for range 30 {
		var stopping sync.WaitGroup
		if rows, err := encode(func(cancel func()) { stopping.Go(cancel) }); err == nil && !slices.Equal(rows, want) {
			t.Error("an image that was stopped has other rows")
		}
		stopping.Wait()
		if rows, err := encode(func(func()) {}); err != nil || !slices.Equal(rows, want) {
			t.Errorf("after one that was stopped: %v, or other rows", err)
		}
	}
}
