package sim

import (
	"errors"
	"slices"
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
	x.Biases, x.Masks = x.Biases[:0], x.Masks[:0]
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

// Masks and biases count, the former also when they come after Forward; what
// is beyond the vocabulary does not.
func TestSteering(t *testing.T) {
	biases := []sample.Bias{{Token: 40, Bias: 2}, {Token: 41, Bias: -2}}
	greedy := sample.Greedy()
	for _, tt := range []struct {
		name   string
		biases []sample.Bias
		mask   []uint32
	}{
		{name: "biases", biases: biases},
		{name: "some are allowed", mask: []uint32{0xf0, 0, 1, 0xffffffff}},
		{name: "one is allowed", mask: []uint32{0, 0, 0, 0x2}},
		{name: "the last is allowed", mask: []uint32{0, 0, 0, 0xfffffff8}, biases: biases},
		{name: "none is allowed", mask: []uint32{0, 0, 0, 0xfffffff0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, Config{})
			x := fill(b)
			x.Rows[0].TopN = 6
			for _, bias := range tt.biases {
				x.Biases = append(x.Biases, device.BiasDelta{Slot: 1, Token: bias.Token, Bias: bias.Bias})
			}
			if err := b.Forward(0); err != nil {
				t.Fatal(err)
			}
			if tt.mask != nil {
				x.Masks = append(x.Masks, tt.mask...)
				x.Rows[0].Mask = 1
			}
			if err := b.Sample(0); err != nil {
				t.Fatal(err)
			}
			if err := b.Wait(0); err != nil {
				t.Fatal(err)
			}
			by := Steering{Biases: tt.biases, Mask: func([]Choice) []uint32 { return tt.mask }}
			want := testModel.ContinueSteered(x.Tokens, greedy, by, 6, 1, true)
			got := x.Results[0]
			if len(want) == 0 {
				if got.Invalid != 1 {
					t.Errorf("got %+v, want an invalid row", got)
				}
				return
			}
			if got.Token != want[0].Token || got.Logprob != want[0].Logprob || !slices.Equal(x.Top[:got.TopCount], want[0].Top) {
				t.Errorf("got %+v %v, want %+v", got, x.Top[:got.TopCount], want[0])
			}
			for _, a := range x.Top[:got.TopCount] {
				if tt.mask != nil && (!sample.Allowed(tt.mask, a.Token) || int(a.Token) >= testModel.Vocab) {
					t.Errorf("token %d is not allowed", a.Token)
				}
			}
			if tt.biases != nil && tt.mask == nil && got.Logprob == testModel.Continue(x.Tokens, greedy, 0, 1, true)[0].Logprob {
				t.Error("the biases changed nothing")
			}
		})
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
		{"biases without parameters", func(x *device.Batch) {
			x.Params = x.Params[:0]
			x.Biases = append(x.Biases, device.BiasDelta{Slot: 1, Token: 5, Bias: 1})
		}, "bias 0: slot 1 has no parameters"},
		{"a bias of an unknown token", func(x *device.Batch) { x.Biases = append(x.Biases, device.BiasDelta{Slot: 1, Token: 100}) }, "bias 0: token 100"},
		{"a bias out of range", func(x *device.Batch) { x.Biases = append(x.Biases, device.BiasDelta{Slot: 1, Bias: 101}) }, "bias 0: 101"},
		{"a mask there is not", func(x *device.Batch) { x.Rows[0].Mask = 1 }, "mask 1 of 0"},
		{"half a mask", func(x *device.Batch) { x.Masks = append(x.Masks, 1, 2) }, "2 words of masks"},
		{"an unknown kind", func(x *device.Batch) { x.Rows[0].Kind = 2 }, "row 0: kind 2"},
		{"a target there is not", func(x *device.Batch) { x.Rows[0].Kind, x.Rows[0].Target = device.RowScore, 100 }, "target 100"},
		{"a slot sampled twice", func(x *device.Batch) { x.Rows = append(x.Rows, x.Rows[0]) }, "sampled twice"},
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
	for name, change := range map[string]func(x *device.Batch){
		"kind touched after Sample":  func(x *device.Batch) { x.Rows[0].Kind = device.RowScore },
		"mask touched after Sample":  func(x *device.Batch) { x.Rows[0].Mask = 0 },
		"masks touched after Sample": func(x *device.Batch) { x.Masks[3] = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, Config{})
			x := fill(b)
			x.Masks = append(x.Masks, 1<<5, 0, 0, 1)
			x.Rows[0].Mask = 1
			b.cfg.OnWait = func() { change(x) }
			if err := runStep(b); !errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), "changed while in flight") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("Forward before the Sample before", func(t *testing.T) {
		b := open(t, Config{})
		fill(b)
		if err := b.Forward(0); err != nil {
			t.Fatal(err)
		}
		*b.Batch(1) = *fill(b)
		if err := b.Forward(1); !errors.Is(err, device.ErrLost) || !strings.Contains(err.Error(), "Forward(1) before Sample(0)") {
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
