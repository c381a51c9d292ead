package plan

import (
	"fmt"
	"strings"
)

// String lists the plan for people: its views, caches and tables, and one
// operation a line, tensors by name.
func (p *Plan) String() string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "%s: vocab %d, hidden %d, max position %d", p.Family, p.Vocab, p.Hidden, p.MaxPos)
	if p.RopeOriginal > 0 {
		fmt.Fprintf(&sb, ", rotations change beyond %d", p.RopeOriginal)
	}
	sb.WriteByte('\n')
	for v, x := range p.Values {
		if x.Of != None {
			fmt.Fprintf(&sb, "v%d = v%d[:, %d:%d]\n", v, x.Of, x.Column, x.Column+x.Width)
		}
	}
	for g, x := range p.Groups {
		fmt.Fprintf(&sb, "group %d: window %d\n", g, x.Window)
	}
	for c, x := range p.Caches {
		fmt.Fprintf(&sb, "cache %d: %v", c, x.Kind)
		if x.Group != None {
			fmt.Fprintf(&sb, ", group %d", x.Group)
		}
		fmt.Fprintf(&sb, ", %d heads of %d and %d", x.Heads, x.KeyWidth, x.ValueWidth)
		if x.Window != 0 {
			fmt.Fprintf(&sb, ", window %d", x.Window)
		}
		if x.Format != F32 {
			fmt.Fprintf(&sb, ", %v", x.Format)
		}
		sb.WriteByte('\n')
	}
	for t, list := range p.Tables {
		fmt.Fprintf(&sb, "table %d: %.6g\n", t, list)
	}
	for i := range p.Ops {
		sb.WriteString(p.line(&p.Ops[i]))
		sb.WriteByte('\n')
	}
	for i := range p.Draft {
		sb.WriteString("draft: " + p.line(&p.Draft[i]))
		sb.WriteByte('\n')
	}
	return sb.String()
}

// line writes one operation.
func (p *Plan) line(op *Op) string {
	var outs, args []string
	for _, v := range op.Out {
		if v != None {
			outs = append(outs, fmt.Sprintf("v%d[%d]", v, p.Width(v)))
		}
	}
	for k, v := range op.In {
		if v != None {
			args = append(args, fmt.Sprintf("%c=v%d", "xyzabc"[k], v))
		}
	}
	for k, w := range op.Weight {
		if w != None {
			args = append(args, fmt.Sprintf("w%d=%s", k, p.Tensors[w]))
		}
	}
	for k, name := range intNames[op.Kind] {
		value := fmt.Sprint(op.I[k])
		if table, ok := strings.CutSuffix(name, "?"); ok { // an optional table
			if op.I[k] == None {
				continue
			}
			args = append(args, table+" "+value)
			continue
		}
		if op.I[k] == 0 && name != "cache" && name != "table" {
			continue
		}
		switch name {
		case "act":
			value = Activation(op.I[k]).String()
		case "gate":
			value = Gate(op.I[k]).String()
		case "score":
			value = Scoring(op.I[k]).String()
		}
		args = append(args, name+" "+value)
	}
	for k, name := range floatNames[op.Kind] {
		if op.F[k] != 0 {
			args = append(args, fmt.Sprintf("%s %.6g", name, op.F[k]))
		}
	}
	line := op.Kind.String() + "(" + strings.Join(args, ", ") + ")"
	if len(outs) > 0 {
		line = strings.Join(outs, ", ") + " = " + line
	}
	return line
}

// intNames and floatNames say what an operation's I and F are, in order.
var (
	intNames = [numKinds][]string{
		OpEmbed:         {"beside", "first"},
		OpEmbedPosition: {"offset"},
		OpRMSNorm:       {"group", "gate"},
		OpLayerNorm:     {"group"},
		OpLinear:        {"act"},
		OpLinearHeads:   {"heads"},
		OpRope:          {"heads", "head dim", "first", "rotary", "table", "interleaved", "long?", "original", "axes?"},
		OpCacheWrite:    {"cache"},
		OpAttention:     {"cache", "heads", "window", "slopes?", "chunk", "sight"},
		OpActivate:      {"act"},
		OpRoute:         {"top", "score", "groups", "top groups", "normalize", "group best"},
		OpExperts:       {"act", "scale input"},
		OpConv:          {"cache", "act"},
		OpGatedDelta:    {"cache", "key heads", "channels", "negative"},
		OpSSM:           {"cache", "groups"},
		OpScale:         {"offset", "length"},
		OpSelectiveScan: {"cache"},
		OpRows:          {"count", "mean"},
	}
	floatNames = [numKinds][]string{
		OpEmbed:      {"scale"},
		OpRMSNorm:    {"eps", "shift"},
		OpLayerNorm:  {"eps", "shift"},
		OpLinear:     {"limit", "alpha", "scale"},
		OpRope:       {"scale", "factor", "theta"},
		OpAttention:  {"scale", "cap"},
		OpActivate:   {"limit", "alpha"},
		OpAdd:        {"scale"},
		OpAllReduce:  {"scale"},
		OpRoute:      {"scale", "eps", "jitter"},
		OpExperts:    {"limit", "alpha"},
		OpGatedDelta: {"eps", "scale"},
		OpSSM:        {"min", "max"},
		OpLogits:     {"cap", "scale"},
		OpScale:      {"factor", "log"},
		OpSparsify:   {"deviations"},
	}
)

func (a Activation) String() string {
	return nameOf(int(a), "none", "silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "clamped_swiglu",
		"tanh", "quick_gelu", "clip", "xielu")
}

func (g Gate) String() string {
	return nameOf(int(g), "none", "after", "before", "sigmoid", "magnitude")
}

func (s Scoring) String() string {
	return nameOf(int(s), "softmax", "softmax_chosen", "sigmoid", "sparse_mixer")
}

func (k CacheKind) String() string { return nameOf(int(k), "kv", "latent", "state") }

func nameOf(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return "unknown"
	}
	return names[i]
}

// String gives a tensor's name and shape or, if it is not just a tensor of the
// checkpoint, the parts of which it is made.
func (t Tensor) String() string {
	if len(t.Parts) == 1 && t.Parts[0].equal(whole(t.Name, t.Shape...)) {
		return fmt.Sprintf("%s %v", t.Name, t.Shape)
	}
	text := fmt.Sprintf("%v of", t.Shape)
	const most = 2 // parts that show the pattern of all
	for i, part := range t.Parts {
		if i == most {
			return fmt.Sprintf("%s … %d parts", text, len(t.Parts))
		}
		text += " " + part.String()
	}
	return text
}

// String gives a part in the notation of Python's slices.
func (p Part) String() string {
	text := fmt.Sprintf("%s%v[%v, %v]", p.Name, p.Shape, p.Rows, p.Cols)
	if p.Transpose {
		text += "ᵀ"
	}
	if p.Encoding == EncodingTernary {
		text += fmt.Sprintf(" quarter %d", p.Quarter)
	}
	if p.Scales != "" {
		text += " by " + p.Scales
	}
	return text
}

func (r Range) String() string {
	if r.Step == 1 {
		return fmt.Sprintf("%d:%d", r.First, r.First+r.N)
	}
	return fmt.Sprintf("%d:%d:%d", r.First, r.First+(r.N-1)*r.Step+1, r.Step)
}
