package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/vision"
)

// Tower is an Encoder: a vision tower on a backend of its own, which computes one tile
// after the other, each alone.
type Tower struct {
	backend device.Backend
	plan    *plan.Tower
	newline []float32
	width   int // of an embedding row
	rows    []float32
}

// TowerLimits are what the backend of a tower is to be opened with, for tiles of so many
// patches at most.
func TowerLimits(t *plan.Tower, patches, threads int) device.Limits {
	return device.Limits{MaxTokens: patches, MaxRows: max(1, patches/max(1, t.Merge)), MaxSlots: 1, MaxPagesPerSlot: pagesFor(patches), Threads: threads}
}

// NewTower returns the encoder of a tower that the backend has been given, opened with
// the limits; it reserves its caches. newline is the row that ends a line of tiles, nil if
// the model has none.
func NewTower(b device.Backend, limits device.Limits, t *plan.Tower, newline []float32) (*Tower, error) {
	if err := b.InitCache(max(1, len(t.Groups))*limits.MaxPagesPerSlot, 0); err != nil {
		return nil, fmt.Errorf("the vision tower: %w", err)
	}
	return &Tower{backend: b, plan: t, newline: newline, width: t.Width(t.Ops[len(t.Ops)-1].In[0])}, nil
}

// Encode implements Encoder.
func (t *Tower) Encode(ctx context.Context, m *Image, rows []float32) error {
	in, err := m.Input(ctx)
	if err != nil {
		return err
	}
	if len(in.Inputs) != len(in.Tiles) {
		return errors.New("an image without the tower's input")
	}
	t.rows = t.rows[:0]
	for i := range in.Tiles {
		if err := t.abandonable(ctx, &in.Tiles[i], &in.Inputs[i]); err != nil {
			return fmt.Errorf("tile %d: %w", i+1, err)
		}
	}
	return t.arrange(in, rows)
}

// abandonable is tile, which it abandons when ctx ends.
func (t *Tower) abandonable(ctx context.Context, tile *vision.Tile, in *vision.Input) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var abandoned sync.WaitGroup
	abandoned.Add(1)
	stop := context.AfterFunc(ctx, func() {
		t.backend.Abandon(true)
		abandoned.Done()
	})
	defer func() { // also after a panic
		if !stop() {
			abandoned.Wait()
			t.backend.Abandon(false)
		}
	}()
	return t.tile(tile, in)
}

// arrange puts the rows of all tiles into the order of the image tokens.
func (t *Tower) arrange(in *vision.Image, rows []float32) error {
	if in.Order == nil {
		if len(t.rows) != len(rows) {
			return fmt.Errorf("the vision tower returned %d floats for %d", len(t.rows), len(rows))
		}
		copy(rows, t.rows)
		return nil
	}
	if len(in.Order)*t.width != len(rows) {
		return fmt.Errorf("an image of %d tokens has %d floats of rows, %d each", len(in.Order), len(rows), t.width)
	}
	for i, at := range in.Order {
		from := t.newline
		if at != vision.Newline {
			from = t.rows[int(at)*t.width:][:t.width]
		}
		if copy(rows[i*t.width:][:t.width], from) != t.width {
			return errors.New("the model has no row for the end of a line of tiles")
		}
	}
	return nil
}

// tile appends the rows of a tile.
func (t *Tower) tile(tile *vision.Tile, in *vision.Input) error {
	x := t.backend.Batch(0)
	n := tile.Len()
	if n > cap(x.Tokens) {
		return fmt.Errorf("%d patches, the limit is %d", n, cap(x.Tokens))
	}
	x.Clear()
	x.Embeds = t.plan.AppendRows(x.Embeds, plan.Patches{Pixels: in.Patches, Class: tile.Class, Pos: in.Pos, Axes: in.Axes, Rows: in.InterpRows, Weights: in.InterpWeights})
	x.Params = append(x.Params, device.ParamDelta{Params: sample.Greedy()})
	x.Seqs = append(x.Seqs, device.Seq{Count: int32(n), KVLen: int32(n)})
	for i := range n {
		x.Tokens, x.Pos = append(x.Tokens, device.EmbedRow(i)), append(x.Pos, int32(i))
		if (i+1)%tile.Merge == 0 && i < tile.Patches {
			x.Rows = append(x.Rows, device.Row{Token: int32(i), Kind: device.RowOutput})
		}
	}
	if t.plan.Axes {
		x.Axes = x.Axes[:3*n]
		clear(x.Axes)
		for i := range n {
			x.Axes[i], x.Axes[n+i] = in.Axes[2*i], in.Axes[2*i+1]
		}
	}
	start := int32(0)
	for _, count := range tile.Windows {
		if t.plan.Windows {
			x.Spans = append(x.Spans, device.Span{Start: start, Count: count})
		}
		start += count
	}
	pages := int32(pagesFor(n))
	for g := range t.plan.Groups {
		for i := range pages {
			x.Pages = append(x.Pages, device.PageDelta{Group: int32(g), Index: i, Page: int32(g)*pages + i})
		}
	}
	for _, do := range []func(int) error{t.backend.Forward, t.backend.Sample, t.backend.Wait} {
		if err := do(0); err != nil {
			return err
		}
	}
	t.rows = append(t.rows, x.Outputs[:len(x.Rows)*t.width]...)
	return nil
}
