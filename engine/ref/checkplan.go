package ref

import (
	"fmt"
	"slices"

	"github.com/millrace-ai/millrace/engine/plan"
)

// rowsOf says what the rows of a value are.
type rowsOf int

const (
	unset rowsOf = iota
	tokens
	logitRows
)

// planChecker walks a plan in order, knowing what each value holds.
type planChecker struct {
	*plan.Plan
	tensors []*tensor
	holds   []rowsOf
	rows    rowsOf // of the values that operations make now
}

// checkPlan verifies that every operation refers to what exists, with the
// right shape, after it was computed.
func checkPlan(p *plan.Plan, tensors []*tensor) error {
	if p.Vocab <= 0 || p.Layers < 0 || p.KVWidth < 0 || len(p.Ops) == 0 {
		return fmt.Errorf("plan of %d operations, %d layers, vocabulary %d, KV width %d", len(p.Ops), p.Layers, p.Vocab, p.KVWidth)
	}
	for v, width := range p.Widths {
		if width <= 0 {
			return fmt.Errorf("value %d has width %d", v, width)
		}
	}
	c := &planChecker{Plan: p, tensors: tensors, holds: make([]rowsOf, len(p.Widths)), rows: tokens}
	for i := range p.Ops {
		if err := c.op(&p.Ops[i], i == len(p.Ops)-1); err != nil {
			return fmt.Errorf("operation %d, %v: %w", i, p.Ops[i].Kind, err)
		}
	}
	return nil
}

func (c *planChecker) op(op *plan.Op, last bool) error {
	if (op.Kind == plan.OpLogits) != last {
		return fmt.Errorf("logits are the last operation and only that")
	}
	width := func(v int32) int { return int(c.Widths[v]) }
	heads, kv, dim := int(op.Heads), int(op.KVHeads), int(op.HeadDim)
	switch op.Kind {
	case plan.OpEmbed:
		return first(c.tokensOnly(), c.output(op.Out), func() error {
			return c.weight(op.Weight, c.Vocab, width(op.Out))
		})
	case plan.OpRMSNorm:
		return first(c.input(op.In), c.outputLike(op.Out, op.In), func() error {
			if op.Group <= 0 || width(op.In)%int(op.Group) != 0 {
				return fmt.Errorf("groups of %d in a width of %d", op.Group, width(op.In))
			}
			return c.weight(op.Weight, int(op.Group))
		})
	case plan.OpLinear:
		return first(c.input(op.In), c.output(op.Out), func() error {
			if op.Out == op.In {
				return fmt.Errorf("output is the input")
			}
			if op.Bias != plan.None {
				if err := c.weight(op.Bias, width(op.Out)); err != nil {
					return err
				}
			}
			return c.weight(op.Weight, width(op.Out), width(op.In))
		})
	case plan.OpRope:
		return first(c.tokensOnly(), c.input(op.In), func() error {
			if op.Out != op.In || heads*dim != width(op.In) || op.Rotary < 0 || op.Rotary%2 != 0 || int(op.Rotary) > dim {
				return fmt.Errorf("%d of %d dimensions of %d heads rotated in a width of %d", op.Rotary, dim, heads, width(op.In))
			}
			if op.Table < 0 || int(op.Table) >= len(c.Tables) || len(c.Tables[op.Table]) < int(op.Rotary)/2 {
				return fmt.Errorf("no table %d of %d frequencies", op.Table, op.Rotary/2)
			}
			return nil
		})
	case plan.OpKVWrite:
		return first(c.tokensOnly(), c.input(op.In), c.input(op.In2), func() error {
			if kv*dim != c.KVWidth || width(op.In) != c.KVWidth || width(op.In2) != c.KVWidth {
				return fmt.Errorf("%d heads of %d, keys %d and values %d wide, expected %d", kv, dim, width(op.In), width(op.In2), c.KVWidth)
			}
			return c.layer(op.Layer)
		})
	case plan.OpAttention:
		return first(c.tokensOnly(), c.input(op.In), c.outputLike(op.Out, op.In), func() error {
			if kv <= 0 || heads%kv != 0 || kv*dim != c.KVWidth || heads*dim != width(op.In) || op.Window < 0 {
				return fmt.Errorf("%d heads on %d of %d, window %d, queries %d wide, KV width %d", heads, kv, dim, op.Window, width(op.In), c.KVWidth)
			}
			return c.layer(op.Layer)
		})
	case plan.OpSiluMul, plan.OpGeluMul, plan.OpAdd:
		return first(c.input(op.In), c.input(op.In2), c.outputLike(op.Out, op.In), func() error {
			if width(op.In2) != width(op.In) {
				return fmt.Errorf("operands %d and %d wide", width(op.In), width(op.In2))
			}
			return nil
		})
	case plan.OpRows:
		return first(func() error {
			if op.In < 0 || int(op.In) >= len(c.holds) || c.holds[op.In] != tokens || op.Out == op.In {
				return fmt.Errorf("value %d has no row per token, or is the output too", op.In)
			}
			c.rows = logitRows
			return nil
		}, c.outputLike(op.Out, op.In))
	case plan.OpLogits:
		return first(c.input(op.In), func() error {
			if c.rows != logitRows {
				return fmt.Errorf("no rows operation before it")
			}
			return c.weight(op.Weight, c.Vocab, width(op.In))
		})
	}
	return fmt.Errorf("unknown kind %d", op.Kind)
}

// first runs checks until one fails.
func first(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *planChecker) tokensOnly() func() error {
	return func() error {
		if c.rows != tokens {
			return fmt.Errorf("needs a row per token, after rows were picked")
		}
		return nil
	}
}

func (c *planChecker) input(v int32) func() error {
	return func() error {
		if v < 0 || int(v) >= len(c.holds) || c.holds[v] == unset {
			return fmt.Errorf("value %d is not computed yet", v)
		}
		if c.rows == logitRows && c.holds[v] == tokens {
			return fmt.Errorf("value %d has a row per token, after rows were picked", v)
		}
		return nil
	}
}

func (c *planChecker) output(v int32) func() error {
	return func() error {
		if v < 0 || int(v) >= len(c.holds) {
			return fmt.Errorf("no value %d", v)
		}
		c.holds[v] = c.rows
		return nil
	}
}

func (c *planChecker) outputLike(v, in int32) func() error {
	return func() error {
		if err := c.output(v)(); err != nil {
			return err
		}
		if c.Widths[v] != c.Widths[in] {
			return fmt.Errorf("output %d wide, input %d", c.Widths[v], c.Widths[in])
		}
		return nil
	}
}

func (c *planChecker) layer(l int32) error {
	if l < 0 || int(l) >= c.Layers {
		return fmt.Errorf("layer %d of %d", l, c.Layers)
	}
	return nil
}

func (c *planChecker) weight(w int32, shape ...int) error {
	if w < 0 || int(w) >= len(c.tensors) {
		return fmt.Errorf("no tensor %d", w)
	}
	if t := c.tensors[w]; !slices.Equal(t.shape, shape) {
		return fmt.Errorf("tensor %s has shape %v, expected %v", t.name, t.shape, shape)
	}
	return nil
}
