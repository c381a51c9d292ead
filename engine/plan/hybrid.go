package plan

import "slices"

// Kinds of layers that layer_types names, beside those of attention.
const (
	convLayer = "conv"
	moeLayer  = "moe"
	mlpLayer  = "mlp"
)

// olderKinds are what transformers 4 called some of them.
var olderKinds = map[string]string{"mamba": linearAttention, "attention": fullAttention}

// readKinds reads layer_types in families whose layers differ in kind. def gives
// the kinds of a config that has none.
func (c *Config) readKinds(o *object, def func(layer int) string, kinds ...string) {
	types := o.texts("layer_types")
	switch {
	case *o.err != nil:
		return
	case types != nil && len(types) != c.Layers:
		o.fail("layer_types", "has %d entries, expected num_hidden_layers %d", len(types), c.Layers)
		return
	}
	c.Kinds = make([]string, c.Layers)
	for i := range c.Kinds {
		if types == nil {
			c.Kinds[i] = def(i)
			continue
		}
		c.Kinds[i] = types[i]
		if kind, ok := olderKinds[types[i]]; ok {
			c.Kinds[i] = kind
		}
		if !slices.Contains(kinds, c.Kinds[i]) {
			o.fail("layer_types", "%q is not supported by this family, only %s", types[i], oneOf(kinds))
		}
	}
}

// override lets what the file says under alias, if anything, count for key.
func (o *object) override(key, alias string) {
	if value := o.raw(alias); value != nil {
		o.values[key] = value
	}
}
