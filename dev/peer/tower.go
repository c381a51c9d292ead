package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-ai/millrace/engine"
	"github.com/millrace-ai/millrace/engine/cpu"
	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/vision"
	"github.com/millrace-ai/millrace/engine/weights"
)

// The vision tower that tower.py writes.
const (
	towerShape = "siglip-base"
	towerSide  = 384 // pixels
	towerRuns  = 3   // of each program in a round; the best counts
)

// towerPairs are its formats. Ours is always that of the checkpoint.
var towerPairs = []pair{{"bf16", "BF16"}, {"bf16", "F16"}, {"bf16", "F32"}}

// measureTower encodes one image by both programs in turns, and compares the rows that
// they make of it.
func (s *settings) measureTower(r *result) error {
	dir := filepath.Join(s.dir, towerShape)
	m := &model{name: towerShape, dir: dir, settings: s}
	if _, err := os.Stat(m.gguf("F32")); err != nil {
		if err := m.run(filepath.Join(s.dir, "venv/bin/python"), "dev/peer/tower.py", dir); err != nil {
			return err
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	px := &vision.Pixels{Width: towerSide, Height: towerSide, RGB: make([]byte, 3*towerSide*towerSide)}
	var read bytes.Buffer // as the tower does
	for i := range px.RGB {
		px.RGB[i] = byte(rng.Uint32())
		if err := binary.Write(&read, binary.LittleEndian, float32(px.RGB[i])/127.5-1); err != nil {
			return err
		}
	}
	picture := filepath.Join(dir, "image")
	if err := os.WriteFile(picture, read.Bytes(), 0o600); err != nil {
		return err
	}
	t, err := s.openTower(m.checkpoint(), px)
	if err != nil {
		return err
	}
	defer t.Close()
	r.Kernels = t.Caps().Detail
	for range s.rounds {
		for _, p := range towerPairs {
			rows, best, err := t.encode()
			if err != nil {
				return err
			}
			r.add(measurement{Shape: towerShape, Test: testImage, Streams: 1, Engine: millrace, Format: p.ours, Unit: seconds, Value: best})
			theirs, best, err := m.mtmd(p.theirs, picture)
			if err != nil {
				return err
			}
			r.add(measurement{Shape: towerShape, Test: testImage, Streams: 1, Engine: llama, Format: p.theirs, Unit: seconds, Value: best})
			if d := distance(rows, theirs); !(d < 0.02) {
				return fmt.Errorf("the rows of %s differ from ours by %.3g of their length", p.theirs, d)
			}
		}
	}
	return nil
}

// distance is how far b is from a, as a part of a's length; NaN if they have other lengths.
func distance(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.NaN()
	}
	var apart, long float64
	for i := range a {
		apart += math.Pow(float64(b[i])-float64(a[i]), 2)
		long += math.Pow(float64(a[i]), 2)
	}
	return math.Sqrt(apart / long)
}

// openedTower is ours with an image.
type openedTower struct {
	device.Backend
	plan *plan.Tower
	tile *vision.Tile
	in   *vision.Input
}

// openTower loads the tower of a checkpoint and prepares an image for it.
func (s *settings) openTower(folder string, px *vision.Pixels) (t *openedTower, err error) {
	var files vision.Files
	for name, data := range map[string]*[]byte{"config.json": &files.Config, "preprocessor_config.json": &files.Preprocessor} {
		if *data, err = os.ReadFile(filepath.Join(folder, name)); err != nil {
			return nil, err
		}
	}
	processor, err := vision.New(files)
	if err != nil {
		return nil, err
	}
	img, err := processor.Process(px)
	if err != nil {
		return nil, err
	}
	c, err := weights.Open(folder)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	cfg, err := loader.Config(c)
	if err != nil {
		return nil, err
	}
	t = &openedTower{tile: &img.Tiles[0], in: &img.Inputs[0]}
	if t.plan, err = loader.Tower(c, cfg); err != nil {
		return nil, err
	}
	limits := engine.TowerLimits(t.plan, processor.Config.MaxTile, s.threads)
	if t.Backend, err = cpu.Open(limits); err != nil {
		return nil, err
	}
	if _, err = loader.Load(t, t.plan.Plan, c, nil); err == nil {
		err = t.InitCache(limits.MaxPagesPerSlot, 0)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// encode returns the rows of the image, and the seconds that the best of some runs took.
func (t *openedTower) encode() (rows []float32, best float64, err error) {
	n := t.tile.Len()
	for i := range towerRuns {
		begin := time.Now()
		x := t.Batch(0)
		x.Clear()
		x.Embeds = t.plan.AppendRows(x.Embeds, plan.Patches{Pixels: t.in.Patches, Pos: t.in.Pos})
		x.Params = append(x.Params, device.ParamDelta{Params: sample.Greedy()})
		x.Seqs = append(x.Seqs, device.Seq{Count: int32(n), KVLen: int32(n)})
		for i := range n {
			x.Tokens, x.Pos = append(x.Tokens, device.EmbedRow(i)), append(x.Pos, int32(i))
			if (i+1)%t.tile.Merge == 0 {
				x.Rows = append(x.Rows, device.Row{Token: int32(i), Kind: device.RowOutput})
			}
		}
		for i := range (n + device.PageTokens - 1) / device.PageTokens {
			x.Pages = append(x.Pages, device.PageDelta{Index: int32(i), Page: int32(i)})
		}
		for _, do := range []func(int) error{t.Forward, t.Sample, t.Wait} {
			if err := do(0); err != nil {
				return nil, 0, err
			}
		}
		rows = append(rows[:0], x.Outputs...)
		if took := time.Since(begin).Seconds(); i == 0 || took < best {
			best = took
		}
	}
	return rows, best, nil
}

// mtmd is the same of llama.cpp, by the program that llama.sh makes of mtmd/tower.cc.
func (m *model) mtmd(format, picture string) (rows []float32, best float64, err error) {
	file := filepath.Join(m.dir, "rows")
	cmd := exec.Command(m.llama("tower"), m.gguf(format), picture, strconv.Itoa(towerSide), strconv.Itoa(m.settings.threads), strconv.Itoa(towerRuns), file)
	out, err := cmd.Output()
	if err != nil {
		return nil, 0, fmt.Errorf("tower %s: %w", format, err)
	}
	for line := range strings.Lines(string(out)) {
		took, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		if err != nil {
			return nil, 0, fmt.Errorf("tower %s: %w", format, err)
		}
		if best == 0 || took < best {
			best = took
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, 0, err
	}
	rows = make([]float32, len(data)/4)
	return rows, best, binary.Read(bytes.NewReader(data), binary.LittleEndian, rows)
}
