package plan

import (
	"fmt"
	"math"
)

// Zamba 2: Mamba 2's mixer in every layer. Some have before it a block of
// attention and MLP that sees the layer's input and the embeddings; a few such
// blocks serve in turn, with adapters for each use. transformers/models/zamba2.

// SharedConfig is what layers share.
type SharedConfig struct {
	Blocks  int // that serve in turn
	Rank    int // of the adapters
	Adapter bool
	Bias    bool // of the MLP's projections
}

const hybridLayer = "hybrid"

var (
	zamba2Keys = map[string]string{
		"mamba_num_heads": "n_mamba_heads", "n_groups": "mamba_ngroups", "state_size": "mamba_d_state", "conv_kernel": "mamba_d_conv",
		"use_bias": "add_bias_linear", "expand": "mamba_expand", "layer_types": "layers_block_type",
	}
	zamba2Ignored = []string{
		"attention_head_dim", "attention_hidden_size", "chunk_size", "head_dim", "hybrid_layer_ids", "kv_channels", "mamba_headdim",
		"num_logits_to_keep", "num_query_groups", "time_step_floor", "time_step_max", "use_mamba_kernels", "use_mem_eff_path",
		"use_shared_mlp_adapter", "ffn_hidden_size", "gated_linear_unit", "state_size",
	}
)

func readZamba2(o *object, c *Config) {
	intermediate := 4 * o.dimension("hidden_size", 2560, maxDimension/4)
	c.readCommon(o, defaults{
		vocab: 32000, hidden: 2560, intermediate: intermediate, layers: 54, heads: 32, plain: true, headDim: 160, maxPos: 4096, eps: 1e-5, tied: true,
	})
	c.KVHeads = o.dimension("num_key_value_heads", c.Heads, maxHeads)
	c.HeadDim = 2 * c.Hidden / c.Heads
	c.QueryScale = 1 / math.Sqrt(float64(c.HeadDim)/2)
	c.Activation = o.activation("hidden_act", "gelu")
	c.readSSM(o, SSMConfig{Heads: 8, Groups: 1, State: 64}, o.dimension("expand", 2, maxDimension)*c.Hidden)
	if *o.err != nil {
		return
	}
	c.SSM.ConvBias = true // whatever use_conv_bias is
	c.SSM.NormEps = 1e-5  // whatever rms_norm_eps is
	if c.SSM.Min != 0 || !math.IsInf(c.SSM.Max, 1) {
		o.fail("time_step_limit", "is not supported by this family, only 0 to infinity")
	}
	if c.SSM.Min = o.float("time_step_min", 0.001); c.SSM.Min < 0 {
		o.fail("time_step_min", "must be 0 or more, found %g", c.SSM.Min)
	}
	c.readKinds(o, func(layer int) string {
		if layer < 48 && layer%6 == 0 && layer > 0 || layer == 47 || layer == 51 {
			return hybridLayer
		}
		return linearAttention
	}, linearAttention, hybridLayer)
	c.Shared = &SharedConfig{
		Blocks:  o.dimension("num_mem_blocks", 1, maxLayers),
		Rank:    o.dimension("adapter_rank", 128, maxDimension),
		Adapter: o.boolean("use_shared_attention_adapter", false),
		Bias:    c.SSM.Bias,
	}
	switch {
	case *o.err != nil:
		return
	case 2*c.Hidden%c.Heads != 0 || c.HeadDim%8 != 0:
		o.fail("num_attention_heads", "%d must divide twice hidden_size %d into multiples of 8", c.Heads, c.Hidden)
	case c.Heads%c.KVHeads != 0:
		o.fail("num_attention_heads", "%d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case c.Shared.Adapter && c.KVHeads != c.Heads:
		o.fail("num_key_value_heads", "%d is not supported beside use_shared_attention_adapter, only num_attention_heads %d", c.KVHeads, c.Heads)
	}
	if rope := readRope(o, c); o.boolean("use_mem_rope", false) {
		c.Rope = rope
	}
}

func buildZamba2(b *Builder, c *Config) {
	first := b.embed()
	x := first
	var blocks []string // prefixes of those that are in the checkpoint
	uses := 0
	for i := range c.Layers {
		l := b.layer(i)
		in := x
		if c.Kinds[i] == hybridLayer {
			block := layer{b, i, l.prefix + "shared_transformer."}
			// What is not needed: copies, and in them adapters of other uses.
			b.plan.Spare = append(b.plan.Spare, block.prefix)
			if uses < c.Shared.Blocks {
				blocks = append(blocks, block.prefix)
			} else if c.Tied || !b.has(block.prefix+"input_layernorm.weight") { // transformers ties all or nothing
				block.prefix = blocks[uses%c.Shared.Blocks]
			}
			in = b.Add(x, l.linear(block.sharedBlock(b.Join(x, first), uses), "linear", c.Hidden, false))
			l.prefix += "mamba_decoder."
			uses++
		}
		x = b.Add(x, l.mamba2(l.norm(in, "input_layernorm"), "mamba."))
	}
	b.normHead(x, "final_layernorm")
}

// sharedBlock is a block of attention and MLP without residuals, in its use'th use.
func (l layer) sharedBlock(x Var, use int) Var {
	c, s := l.c, l.c.Shared
	// narrow is the first half of an adapter for this use.
	narrow := func(h Var, adapter string, adapts bool) Var {
		if !adapts {
			return 0
		}
		return l.linear(h, fmt.Sprintf("%s.%d.0", adapter, use), s.Rank, false)
	}
	// project is a projection of h to columns first to first+n of what name makes,
	// and what the adapter makes of small.
	project := func(h, small Var, name, adapter string, first, n, of int, bias bool) Var {
		w, wBias := l.Tensor([]int{n, l.width(h)}, whole(l.prefix+name+".weight", of, l.width(h)).rows(first, 1, n)), Weight(0)
		if bias {
			wBias = l.Tensor([]int{n}, whole(l.prefix+name+".bias", of).rows(first, 1, n))
		}
		y := l.Linear(h, w, wBias)
		if small == 0 {
			return y
		}
		up := whole(fmt.Sprintf("%s%s.%d.1.weight", l.prefix, adapter, use), of, s.Rank)
		return l.Add(y, l.Linear(small, l.Tensor([]int{n, s.Rank}, up.rows(first, 1, n)), 0))
	}
	h := l.norm(x, "input_layernorm")
	head := func(name string, width int) Var {
		adapter := "self_attn.linear_" + name + "_adapter_list"
		return project(h, narrow(h, adapter, s.Adapter), "self_attn."+name+"_proj", adapter, 0, width, width, false)
	}
	q, k, v := head("q", c.QWidth()), head("k", c.KVWidth()), head("v", c.KVWidth())
	h = l.linear(l.attend(q, k, v, c.Rope), "self_attn.o_proj", c.Hidden, false)

	const both, adapter = "feed_forward.gate_up_proj", "feed_forward.gate_up_proj_adapter_list"
	h = l.norm(h, "pre_ff_layernorm")
	n, small := c.Intermediate, narrow(h, adapter, true)
	gate, up := project(h, small, both, adapter, 0, n, 2*n, s.Bias), project(h, small, both, adapter, n, n, 2*n, s.Bias)
	return l.linear(l.Gate(Act{Kind: c.Activation}, gate, up), "feed_forward.down_proj", c.Hidden, s.Bias)
}
