package plan

import "slices"

// Bamba: Mamba 2's mixer and, in some layers, attention; an MLP in all.
// transformers/models/bamba.

// bambaKeys are what families after Bamba call the keys of the state space.
var (
	bambaKeys = map[string]string{
		"mamba_num_heads": "mamba_n_heads", "mamba_head_dim": "mamba_d_head", "n_groups": "mamba_n_groups", "state_size": "mamba_d_state",
		"conv_kernel": "mamba_d_conv", "use_conv_bias": "mamba_conv_bias", "use_bias": "mamba_proj_bias", "expand": "mamba_expand",
		"layer_types": "layers_block_type",
	}
	bambaIgnored = []string{"attn_rotary_emb", "mamba_chunk_size", "num_logits_to_keep", "z_loss_coefficient"}
)

func readBamba(o *object, c *Config) {
	c.readCommon(o, defaults{
		vocab: 128000, hidden: 4096, intermediate: 14336, layers: 32, heads: 32, kvHeads: 8, maxPos: 262144, eps: 1e-5,
	})
	c.readBambaMixer(o, o.dimension("expand", 2, maxDimension)*c.Hidden)
	c.AttentionBias = o.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.MLPBias = o.boolean("mlp_bias", false)
	attends := o.integers("attn_layer_indices")
	c.readKinds(o, func(layer int) string {
		if slices.Contains(attends, layer) {
			return fullAttention
		}
		return linearAttention
	}, linearAttention, fullAttention)
	c.RotaryFactor = 0.5
	if f := o.float("partial_rotary_factor", 0.5); f != 0.5 {
		o.fail("partial_rotary_factor", "%g is not supported by this family, only 0.5", f)
	}
	c.Rope = readRope(o, c)
}

// readBambaMixer reads the state space of Bamba and of families after it, and
// the activation, which its convolution has too.
func (c *Config) readBambaMixer(o *object, inner int) {
	c.Activation = o.activation("hidden_act", "silu")
	if c.Activation != ActSilu {
		o.fail("hidden_act", "must be silu in this family, whose convolution has it too")
	}
	c.readSSM(o, SSMConfig{Heads: 128, Groups: 1, State: 256}, inner)
}

func buildBamba(b *Builder, c *Config) {
	x := b.embed()
	for i := range c.Layers {
		l := b.layer(i)

		x = b.Add(x, l.mamba2OrAttention(l.norm(x, "input_layernorm")))
		x = b.Add(x, l.mlpOf(l.norm(x, "pre_ff_layernorm"), "feed_forward.", c.Intermediate))
	}
	b.normHead(x, "final_layernorm")
}
