package plan

import "encoding/json"

// GPT-Neo: GPT-2 with scores that are not scaled and a window on every other
// layer. transformers/models/gpt_neo.

// gptNeoKeys are what GPTNeoConfig calls the common keys.
var gptNeoKeys = map[string]string{
	"num_hidden_layers":   "num_layers",
	"num_attention_heads": "num_heads",
	"hidden_act":          "activation_function",
	"rms_norm_eps":        "layer_norm_epsilon",
}

func readGPTNeo(o *object, c *Config) {
	c.readCommon(o, defaults{
		plain: true,
		vocab: 50257, hidden: 2048, intermediate: 4 * o.dimension("hidden_size", 2048, maxDimension), layers: 24, heads: 16,
		maxPos: 2048, eps: 1e-5, tied: true,
	})
	c.Activation = o.activation("hidden_act", "gelu_new")
	c.QueryScale = 1
	window := o.dimension("window_size", 256, maxPosition)
	for i, kind := range readAttentionTypes(o, c.Layers) {
		switch kind {
		case "global":
		case "local":
			c.Windows[i] = window
		default:
			o.fail("attention_types", "%q is not supported, only global and local", kind)
		}
	}
}

// readAttentionTypes returns the kind of each layer's attention from
// attention_types, a list of pairs: kinds of layers, and how often they repeat.
func readAttentionTypes(o *object, layers int) (kinds []string) {
	const key = "attention_types"
	pairs := [][2]json.RawMessage{{json.RawMessage(`["global","local"]`), json.RawMessage("12")}}
	o.get(key, "a list of pairs", &pairs)
	for _, pair := range pairs {
		var names []string
		times, ok := wholeNumber(pair[1])
		if json.Unmarshal(pair[0], &names) != nil || !ok {
			o.fail(key, "must be pairs of names and a number, found %s", short(o.raw(key)))
			return nil
		}
		for range min(times, layers+1) {
			if kinds = append(kinds, names...); len(kinds) > layers {
				break
			}
		}
	}
	if len(kinds) != layers {
		if *o.err == nil { // else layers is not what the file says
			o.fail(key, "has %d entries, expected num_layers %d", len(kinds), layers)
		}
		return nil
	}
	return kinds
}

func buildGPTNeo(b *Builder, c *Config) {
	x := b.Add(b.embed(), b.EmbedPosition(b.Weight(b.prefix+"wpe.weight", c.MaxPos, c.Hidden), 0))
	for i := range c.Layers {
		l := b.layerOf("h", i)

		h := l.layerNorm(x, "ln_1")
		q := l.linear(h, "attn.attention.q_proj", c.QWidth(), false)
		k := l.linear(h, "attn.attention.k_proj", c.KVWidth(), false)
		v := l.linear(h, "attn.attention.v_proj", c.KVWidth(), false)
		a := l.attention(q, k, v, Attention{})
		x = b.Add(x, l.linear(a, "attn.attention.out_proj", c.Hidden, true))
		x = b.Add(x, l.plainMLP(l.layerNorm(x, "ln_2"), "mlp.c_fc", "mlp.c_proj", true))
	}
	b.layerNormHead(x, "ln_f")
}
