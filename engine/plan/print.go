package plan

import (
	"fmt"
	"strings"
)

// String lists the plan for people: its tensors by name, one operation a line.
func (p *Plan) String() string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "%s: vocab %d, hidden %d, %d layers, kv width %d, max position %d\n",
		p.Family, p.Vocab, p.Hidden, p.Layers, p.KVWidth, p.MaxPos)
	for v, w := range p.Widths {
		fmt.Fprintf(&sb, "v%d [T %d]\n", v, w)
	}
	for t, freqs := range p.Tables {
		fmt.Fprintf(&sb, "rope%d %.6g\n", t, freqs)
	}
	for i := range p.Ops {
		sb.WriteString(p.line(&p.Ops[i]))
		sb.WriteByte('\n')
	}
	return sb.String()
}

// line writes one operation.
func (p *Plan) line(op *Op) string {
	var args []string
	add := func(format string, a ...any) { args = append(args, fmt.Sprintf(format, a...)) }
	for _, v := range []int32{op.In, op.In2} {
		if v != None {
			add("v%d", v)
		}
	}
	for _, w := range []int32{op.Weight, op.Bias} {
		if w != None {
			add("%s", p.Tensors[w])
		}
	}
	if op.Table != None {
		add("rope%d", op.Table)
	}
	if op.Layer != None {
		add("layer %d", op.Layer)
	}
	for _, n := range []struct {
		name  string
		value int32
	}{
		{"heads", op.Heads}, {"kv heads", op.KVHeads}, {"head dim", op.HeadDim},
		{"rotary", op.Rotary}, {"group", op.Group}, {"window", op.Window},
	} {
		if n.value != 0 {
			add("%s %d", n.name, n.value)
		}
	}
	for _, f := range []struct {
		name  string
		value float32
	}{
		{floatNames[op.Kind][0], op.F0}, {floatNames[op.Kind][1], op.F1},
	} {
		if f.value != 0 {
			add("%s %.6g", f.name, f.value)
		}
	}
	out := ""
	if op.Out != None {
		out = fmt.Sprintf("v%d = ", op.Out)
	}
	return out + op.Kind.String() + "(" + strings.Join(args, ", ") + ")"
}

// floatNames says what an operation's F0 and F1 are.
var floatNames = map[Kind][2]string{
	OpEmbed:     {"scale"},
	OpRMSNorm:   {"eps", "offset"},
	OpRope:      {"scale"},
	OpAttention: {"scale", "cap"},
	OpLogits:    {"cap"},
}

// String gives a tensor's name and shape, and which rows of a larger one.
func (t Tensor) String() string {
	if len(t.Shape) > 0 && t.Rows != t.Shape[0] {
		return fmt.Sprintf("%s[%d:%d] %v", t.Name, t.FirstRow, t.FirstRow+t.Shape[0], t.Shape)
	}
	return fmt.Sprintf("%s %v", t.Name, t.Shape)
}
