// Package calibrate measures what the matrices of a model are multiplied with while it
// reads a text, so that they can be rounded where it does least harm (quant.Rounding).
package calibrate

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/millrace-ai/millrace/engine/device"
	"github.com/millrace-ai/millrace/engine/loader"
	"github.com/millrace-ai/millrace/engine/plan"
	"github.com/millrace-ai/millrace/engine/quant"
	"github.com/millrace-ai/millrace/engine/sample"
	"github.com/millrace-ai/millrace/engine/weights"
)

const (
	// stepTokens is how many tokens are computed at once.
	stepTokens = 64
	// passColumns bounds what is measured while the text is read once, since all of it is
	// kept for each token of a step.
	passColumns = 1 << 17
)

// Measurement is what is measured, and how.
type Measurement struct {
	Open       func(device.Limits) (device.Backend, error)
	Threads    int // of the backend; 0: it chooses
	Plan       *plan.Plan
	Checkpoint *weights.Checkpoint
	Windows    [][]int32             // tokens of texts, each of which begins as a text does; their lengths are up to Plan.MaxPos
	Progress   func(done, total int) // tokens; may be nil

	moments map[string]*quant.Moments // by names of tensors
}

// input is what some matrices are multiplied with.
type input struct {
	value   int32
	width   int
	moments *quant.Moments
}

// Run returns moments for the matrices of the plan's projections and the first ones of
// its experts, by their names in the checkpoint.
func (m *Measurement) Run(ctx context.Context) (map[string]*quant.Moments, error) {
	return m.run(ctx, passColumns)
}

// run is Run with passes of about so many columns.
func (m *Measurement) run(ctx context.Context, columns int) (map[string]*quant.Moments, error) {
	m.moments = map[string]*quant.Moments{}
	passes := m.passes(columns)
	total, done := 0, 0
	for _, w := range m.Windows {
		if len(w) > m.Plan.MaxPos {
			return nil, fmt.Errorf("a window of %d tokens, the model reads %d", len(w), m.Plan.MaxPos)
		}
		total += len(w) * len(passes)
	}
	for _, inputs := range passes {
		err := m.pass(ctx, inputs, func(n int) {
			if done += n; m.Progress != nil {
				m.Progress(done, total)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return m.moments, nil
}

// passes are all inputs, divided so that each pass has at most so many columns, or one
// input.
func (m *Measurement) passes(most int) (passes [][]input) {
	p := m.Plan
	known := map[int32]*quant.Moments{}
	columns := most
	for _, op := range p.Ops {
		var matrices []int32
		switch op.Kind {
		case plan.OpRows: // what follows is the output head, which is not rounded to four bits
			return passes
		case plan.OpLinear:
			matrices = op.Weight[:1]
		case plan.OpExperts:
			matrices = []int32{op.Weight[0], op.Weight[2]}
		}
		for _, w := range matrices {
			if w == plan.None {
				continue
			}
			x := op.In[0]
			of := known[x]
			for _, part := range p.Tensors[w].Parts {
				if of == nil {
					of = m.moments[part.Name] // several layers share the matrix
				}
			}
			width := p.Width(x)
			if of == nil {
				of = quant.NewMoments(width)
			}
			for _, part := range p.Tensors[w].Parts {
				m.moments[part.Name] = of
			}
			if known[x] != nil {
				continue
			}
			known[x] = of
			if columns += width; columns > most {
				passes, columns = append(passes, nil), width
			}
			last := &passes[len(passes)-1]
			*last = append(*last, input{x, width, of})
		}
	}
	return passes
}

// tap returns a plan that answers with the inputs, one after the other.
func (m *Measurement) tap(inputs []input) *plan.Plan {
	p := *m.Plan
	p.Quantize = plan.QuantizeNone
	p.Ops, p.Values = nil, append([]plan.Value(nil), p.Values...)
	used := make([]bool, len(p.Tensors))
	for _, op := range m.Plan.Ops {
		if op.Kind == plan.OpRows {
			break
		}
		p.Ops = append(p.Ops, op)
		for _, w := range op.Weight {
			if w != plan.None {
				used[w] = true
			}
		}
	}
	emit := func(kind plan.Kind, in []int32, width int) int32 {
		op := plan.NewOp(kind)
		copy(op.In[:], in)
		p.Values = append(p.Values, plan.Value{Width: int32(width), Of: plan.None})
		op.Out[0] = int32(len(p.Values) - 1)
		p.Ops = append(p.Ops, op)
		return op.Out[0]
	}
	var list []int32
	for _, in := range inputs {
		list = append(list, in.value)
	}
	for len(list) > 1 {
		var joined []int32
		for len(list) > 0 {
			n := min(plan.MaxIn, len(list))
			width := 0
			for _, v := range list[:n] {
				width += p.Width(v)
			}
			v := list[0]
			if n > 1 {
				v = emit(plan.OpJoin, list[:n], width)
			}
			joined, list = append(joined, v), list[n:]
		}
		list = joined
	}
	rows := emit(plan.OpRows, list, p.Width(list[0]))
	output := plan.NewOp(plan.OpOutput)
	output.In[0] = rows
	p.Ops = append(p.Ops, output)

	// What only the head needs is not loaded.
	renumbered := make([]int32, len(p.Tensors))
	p.Tensors, p.Spare = nil, append([]string(nil), p.Spare...)
	for i, t := range m.Plan.Tensors {
		if used[i] {
			renumbered[i] = int32(len(p.Tensors))
			p.Tensors = append(p.Tensors, t)
			continue
		}
		for _, part := range t.Parts {
			p.Spare = append(p.Spare, part.Name)
		}
	}
	for i := range p.Ops {
		for k, w := range p.Ops[i].Weight {
			if w != plan.None {
				p.Ops[i].Weight[k] = renumbered[w]
			}
		}
	}
	return &p
}

// pass reads the text once and adds to the moments of some inputs.
func (m *Measurement) pass(ctx context.Context, inputs []input, progress func(tokens int)) (err error) {
	p := m.tap(inputs)
	longest := 1
	for _, w := range m.Windows {
		longest = max(longest, len(w))
	}
	limits := device.Limits{MaxTokens: stepTokens, MaxRows: stepTokens, MaxSlots: 1, Threads: m.Threads,
		MaxPagesPerSlot: (longest + device.PageTokens - 1) / device.PageTokens}
	b, err := m.Open(limits)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if _, err := loader.Load(b, p, m.Checkpoint, nil); err != nil {
		return err
	}
	states := 0
	if p.HasState() {
		states = 1
	}
	if err := b.InitCache(len(p.Groups)*limits.MaxPagesPerSlot, states); err != nil {
		return err
	}
	for _, window := range m.Windows {
		for at := 0; at < len(window); at += stepTokens {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := window[at:min(at+stepTokens, len(window))]
			outputs, err := step(b, p, limits, part, at, len(window))
			if err != nil {
				return err
			}
			add(inputs, outputs, len(part))
			progress(len(part))
		}
	}
	return nil
}

// step computes tokens that follow at others, of a text of length tokens.
func step(b device.Backend, p *plan.Plan, limits device.Limits, tokens []int32, at, length int) ([]float32, error) {
	x := b.Batch(0)
	x.Clear()
	for i, id := range tokens {
		x.Tokens, x.Pos = append(x.Tokens, id), append(x.Pos, int32(at+i))
		x.Rows = append(x.Rows, device.Row{Token: int32(i), Kind: device.RowOutput})
	}
	x.Seqs = append(x.Seqs, device.Seq{Count: int32(len(tokens)), KVLen: int32(at + len(tokens)), RopeLen: int32(length)})
	from := device.NoState
	if at == 0 {
		from = device.ZeroState
		x.Params = append(x.Params, device.ParamDelta{Params: sample.Greedy()})
		for g := range p.Groups {
			for i := range limits.MaxPagesPerSlot {
				x.Pages = append(x.Pages, device.PageDelta{Group: int32(g), Index: int32(i), Page: int32(g*limits.MaxPagesPerSlot + i)})
			}
		}
	}
	if p.HasState() {
		x.States = append(x.States, device.StateDelta{From: from, Save: device.NoState})
	}
	for _, do := range []func(int) error{b.Forward, b.Sample, b.Wait} {
		if err := do(0); err != nil {
			return nil, err
		}
	}
	return x.Outputs, nil
}

// add counts n rows of outputs, which are all inputs one after the other.
func add(inputs []input, outputs []float32, n int) {
	stride := len(outputs) / n
	jobs := make(chan func())
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for job := range jobs {
				job()
			}
		})
	}
	column := 0
	for _, in := range inputs {
		part := outputs[column:]
		jobs <- func() { in.moments.Add(part, n, stride) }
		column += in.width
	}
	close(jobs)
	workers.Wait()
}
