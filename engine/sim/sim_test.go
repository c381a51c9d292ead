package sim

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/sample"
)

var (
	testLimits = device.Limits{MaxTokens: 32, MaxRows: 32, MaxSlots: 2, MaxPagesPerSlot: 3}
	testModel  = Model{Seed: 1, Vocab: 100, First: 3, EOS: 2}
)

// fill makes ring entry 0 a correct first step: six tokens in slot 1, page 4.
func fill(b *Backend) *device.Batch {
	x := b.Batch(0)
	x.Tokens = append(x.Tokens[:0], 10, 11, 12, 13, 14, 15)
	x.Pos = append(x.Pos[:0], 0, 1, 2, 3, 4, 5)
	x.Seqs = append(x.Seqs[:0], device.Seq{Slot: 1, Count: 6, KVLen: 6})
	x.Rows = append(x.Rows[:0], device.Row{Token: 5, Slot: 1})
	x.Pages = append(x.Pages[:0], device.PageDelta{Slot: 1, Page: 4})
	x.Params = append(x.Params[:0], device.ParamDelta{Slot: 1, Params: sample.Greedy()})
	x.Counts = x.Counts[:0]
	return x
}

func open(t *testing.T, cfg Config) *Backend {
	t.Helper()
	cfg.Model = testModel
	b := New(testLimits, cfg)
	if err := b.InitKV(5); err != nil {
		t.Fatal(err)
	}
	return b
}

func runStep(b *Backend) error {
	if err := b.Forward(0); err != nil {
		return err
	}
	if err := b.Sample(0); err != nil {
		return err
	}
	return b.Wait(0)
}

func TestStep(t *testing.T) {
	b := open(t, Config{})
	x := fill(b)
	if err := runStep(b); err != nil {
		t.Fatal(err)
	}
	want := testModel.Continue(x.Tokens, sample.Greedy(), 0, 1, true)[0]
	if got := x.Results[0]; got.Token != want.Token || got.Logprob != want.Logprob {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A caller who breaks the contract loses the device and is told why.
func TestBrokenContract(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(x *device.Batch)
		says   string
	}{
		{"nothing to do", func(x *device.Batch) { x.Seqs = x.Seqs[:0] }, "without sequences"},
		{"a position skipped", func(x *device.Batch) { x.Pos[2] = 3 }, "position 3, expected 2"},
		{"an unknown token", func(x *device.Batch) { x.Tokens[1] = 100 }, "the vocabulary has 100"},
		{"a slot there is not", func(x *device.Batch) { x.Seqs[0].Slot = 2 }, "slot 2 out of range"},
		{"a slot twice", func(x *device.Batch) {
			x.Seqs[0].Count, x.Seqs[0].KVLen = 3, 3
			x.Seqs = append(x.Seqs, device.Seq{Slot: 1, Start: 3, Count: 3, KVLen: 6})
		}, "in the batch twice"},
		{"tokens of no sequence", func(x *device.Batch) { x.Seqs[0].Count, x.Seqs[0].KVLen = 5, 5 }, "5 belong to sequences"},
		{"a page there is not", func(x *device.Batch) { x.Pages[0].Page = 5 }, "page delta 0"},
		{"no page", func(x *device.Batch) { x.Pages = x.Pages[:0] }, "position 0, which has no page"},
		{"no last token", func(x *device.Batch) { x.Tokens[5] = device.LastToken }, "no last token"},
		{"parameters of another", func(x *device.Batch) { x.Params[0].Slot = 0 }, "not in the batch"},
		{"a row of another", func(x *device.Batch) { x.Rows[0].Slot = 0 }, "row 0"},
		{"a row beyond the tokens", func(x *device.Batch) { x.Rows[0].Token = 6 }, "row 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, Config{})
			tt.change(fill(b))
			if err := runStep(b); !errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want a lost device and %q", err, tt.says)
			}
		})
	}
	t.Run("touched in flight", func(t *testing.T) {
		b := open(t, Config{})
		x := fill(b)
		b.cfg.OnWait = func() { x.Tokens[0] = 11 }
		if err := runStep(b); !errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), "changed while in flight") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("Wait first", func(t *testing.T) {
		if err := open(t, Config{}).Wait(0); !errors.Is(err, device.ErrLost) {
			t.Errorf("got %v", err)
		}
	})
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		fault         Fault
		failed, final bool
		invalid       int32
	}{
		{fault: NoFault},
		{fault: FailStep, failed: true},
		{fault: FailLaunch, failed: true},
		{fault: Invalid, invalid: 1},
		{fault: Lose, failed: true, final: true},
	} {
		b := open(t, Config{Fault: func(int) Fault { return tt.fault }})
		x := fill(b)
		err := runStep(b)
		if (err != nil) != tt.failed || errors.Is(err, device.ErrLost) != tt.final {
			t.Errorf("fault %d: %v", tt.fault, err)
		}
		if x.Results[0].Invalid != tt.invalid {
			t.Errorf("fault %d: %+v", tt.fault, x.Results[0])
		}
	}
}
