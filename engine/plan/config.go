package plan

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// Bounds of what a config may ask for. Far above any model, and small enough
// that no product of two of them overflows.
const (
	maxDimension = 1 << 24
	maxLayers    = 1 << 12
	maxHeads     = 1 << 12
	maxParts     = 1 << 17 // layers times heads, or times experts: each may be a part of a tensor
	maxPosition  = math.MaxInt32
)

// Config is what config.json and generation_config.json say about a model of
// a supported family, with transformers' defaults for what they leave out.
type Config struct {
	Family string // model_type: "llama", …
	DType  string // as the config names it: "bfloat16"; "" when it does not. The tensors decide
	Stored Quantization

	Vocab        int // rows of the embedding, padding included
	Hidden       int // width of the residual stream
	EmbedWidth   int // of the embedding and the output head, where it is another one; 0: Hidden
	Intermediate int // width between the MLP's projections
	Layers       int
	Heads        int
	KVHeads      int // divides Heads
	HeadDim      int // a multiple of 8
	MaxPos       int // longest sequence

	EOS []int32 // token ids that end a generation, within the vocabulary

	Activation    Activation // of the MLP
	NormEps       float64    // of every RMS norm
	NormOffset    float64    // 1 when norms multiply by 1 + weight
	EmbedScale    float64    // embeddings are multiplied by it
	AttentionBias bool       // q, k and v projections have a bias
	OutputBias    bool       // the o projection has one
	HeadBias      bool       // the output head has one, in families where that is optional
	MLPBias       bool       // the MLP's three projections have one
	Tied          bool       // the embedding is the output head, unless the checkpoint has one

	Windows     []int   // per layer: positions seen, its own included; 0 is all
	Rope        Rope    // of all layers, or of those that see everything
	Ropes       []Rope  // per layer, in families where they differ; nil: Rope
	QueryScale  float64 // attention scores are multiplied by it
	QueryGrowth float64 // queries at position p are multiplied by 1 + QueryGrowth * log(1 + p / QueryLength, rounded down)
	QueryLength int
	ClipQKV     float64 // queries, keys and values are clipped to ±ClipQKV; 0: they are not
	ScoreCap    float64 // soft cap of attention scores, 0 is none
	LogitCap    float64 // soft cap of logits, 0 is none
	LogitScale  float64 // logits are multiplied by it, before the cap

	ResidualScale float64 // what a half of a layer adds to the residual stream is multiplied by it

	Slopes []float32 // of each head's bias by distance (ALiBi); nil: none

	RotaryFactor     float64 // default share of a head that is rotated, in families that rotate a part; 0: they rotate all
	ParallelResidual bool    // attention and MLP see the same input
	TwoNorms         bool    // each through a norm of its own
	PostNormResidual bool    // residuals are taken after a norm
	PostNorm         bool    // norms come after the residuals
	PlainNorms       bool    // norms have neither weight nor bias
	NoFinalNorm      bool    // nothing is normalized after the last layer
	ScaleByLayer     bool    // scores of layer i are divided by i + 1
	QKNorm           bool    // queries and keys are normalized, in families where that is optional

	Ternary bool // projections are stored as ternary numbers

	// Draft asks Build for Plan.Draft, if the checkpoint has what it takes. It is the
	// caller's to set.
	Draft bool

	Text   string // of a model that also sees: model_type of the language model inside, in families where there is a choice
	Levels int    // layers after which a part of an embedding row is added (Plan.EmbedsWidth)

	mrope bool // positions have three axes

	draftKinds []string // of the layers that predict one more token, in families where they differ

	MoE   *MoEConfig   // nil: no experts
	MLA   *MLAConfig   // nil: keys and values are cached
	Delta *DeltaConfig // nil: no gated delta net
	SSM   *SSMConfig   // nil: no state space

	Gemma4 *Gemma4Config // of Gemma 3n and 4
	AltUp  *AltUpConfig  // of Gemma 3n
	Llama4 *Llama4Config

	Kinds     []string         // per layer, a name of layer_types, in families whose layers differ in kind
	Shared    *SharedConfig    // nil: layers share nothing
	Scan      *ScanConfig      // nil: no selective scan
	Scales    *ScaleConfig     // nil: there are no such factors
	ShortConv *ShortConvConfig // nil: no convolution instead of attention
}

// KVWidth is the width of a layer's keys, and of its values.
func (c *Config) KVWidth() int { return c.KVHeads * c.HeadDim }

// QWidth is the width of a layer's queries.
func (c *Config) QWidth() int { return c.Heads * c.HeadDim }

// rope is the position embedding of a layer.
func (c *Config) rope(layer int) Rope {
	if c.Ropes != nil {
		return c.Ropes[layer]
	}
	return c.Rope
}

// ParseConfig reads config.json and generation_config.json, the latter nil
// when there is none, as transformers 4 and 5 write them. Anything that would
// change the model's numbers and is not supported is an error that names it.
func ParseConfig(config, generation []byte) (*Config, error) {
	o, err := parseObject("config.json", config)
	if err != nil {
		return nil, err
	}
	c := &Config{Family: o.text("model_type", "")}
	f, ok := families[c.Family]
	switch {
	case *o.err != nil:
		return nil, *o.err
	case c.Family == "":
		return nil, fmt.Errorf("config.json: model_type is missing, expected one of %s", oneOf(familyNames()))
	case leftOut[c.Family] != "":
		return nil, fmt.Errorf("config.json: model_type %q is not supported: %s", c.Family, leftOut[c.Family])
	case !ok:
		return nil, fmt.Errorf("config.json: model_type %q is not supported, only %s", c.Family, oneOf(familyNames()))
	}
	checkArchitectures(o)
	c.DType = o.text("dtype", o.text("torch_dtype", ""))
	c.Stored = readQuantization(o)
	o.names = f.keys
	f.read(o, c)
	refuseUnread(o, f.ignored)
	if *o.err != nil {
		return nil, *o.err
	}
	if err := c.readEOS(o, f, generation); err != nil {
		return nil, err
	}
	return c, nil
}

// defaults are the values of a family's config class in transformers: what
// holds when a key is absent.
type defaults struct {
	vocab, hidden, intermediate, layers, heads int

	plain   bool // the class knows neither num_key_value_heads nor head_dim
	kvHeads int  // 0: as many as heads
	headDim int  // 0: hidden / heads
	maxPos  int
	eps     float64
	tied    bool
}

// readCommon reads the keys that every family has.
func (c *Config) readCommon(o *object, d defaults) {
	c.Vocab = o.dimension("vocab_size", d.vocab, maxDimension)
	c.Hidden = o.dimension("hidden_size", d.hidden, maxDimension)
	c.Intermediate = o.dimension("intermediate_size", d.intermediate, maxDimension)
	c.Layers = o.dimension("num_hidden_layers", d.layers, maxLayers)
	c.Heads = o.dimension("num_attention_heads", d.heads, maxHeads)
	c.MaxPos = o.dimension("max_position_embeddings", d.maxPos, maxPosition)
	if c.Heads*c.Layers > maxParts {
		o.fail("num_attention_heads", "%d times num_hidden_layers %d exceeds %d", c.Heads, c.Layers, maxParts)
	}

	kvHeads, headDim := d.kvHeads, d.headDim
	if kvHeads == 0 || !o.absent("num_key_value_heads") {
		kvHeads = c.Heads // null means this even where a class has another default
	}
	given := !d.plain && o.raw("head_dim") != nil
	if !given && !d.plain && !o.absent("head_dim") {
		headDim = 0 // null, again whatever the default
	}
	if headDim == 0 && *o.err == nil {
		headDim = c.Hidden / c.Heads
		if !given && c.Hidden%c.Heads != 0 {
			o.fail("hidden_size", "%d is not a multiple of num_attention_heads %d, and head_dim is not given", c.Hidden, c.Heads)
		}
	}
	if c.KVHeads, c.HeadDim = c.Heads, headDim; !d.plain {
		c.KVHeads = o.dimension("num_key_value_heads", kvHeads, maxHeads)
		c.HeadDim = o.dimension("head_dim", headDim, maxDimension)
	}
	if *o.err == nil && c.Heads%c.KVHeads != 0 {
		o.fail("num_attention_heads", "%d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	}
	if c.HeadDim%8 != 0 {
		o.fail("head_dim", "must be a multiple of 8, found %d", c.HeadDim)
	}
	if c.Heads*c.HeadDim > maxDimension {
		o.fail("head_dim", "%d times num_attention_heads %d exceeds %d", c.HeadDim, c.Heads, maxDimension)
	}

	c.NormEps = o.float("rms_norm_eps", d.eps)
	if c.NormEps < 0 || c.NormEps >= 1 {
		o.fail("rms_norm_eps", "must be 0 to 1, found %g", c.NormEps)
	}
	c.Tied = o.boolean("tie_word_embeddings", d.tied)
	c.EmbedScale, c.ResidualScale, c.LogitScale = 1, 1, 1
	c.QueryScale = 1 / math.Sqrt(float64(c.HeadDim))
	c.Windows = make([]int, c.Layers)
}

// activationNames are the names of transformers' ACT2FN that stand for a function
// known here. It has four for the tanh approximation of GELU.
var activationNames = map[string]Activation{
	"silu": ActSilu, "swish": ActSilu,
	"gelu":              ActGelu,
	"gelu_pytorch_tanh": ActGeluTanh, "gelu_python_tanh": ActGeluTanh, "gelu_new": ActGeluTanh, "gelu_fast": ActGeluTanh,
	"relu": ActRelu, "relu2": ActRelu2, "sigmoid": ActSigmoid, "tanh": ActTanh, "quick_gelu": ActQuickGelu,
}

// activation returns the activation named under key.
func (o *object) activation(key, def string) Activation {
	name := o.text(key, def)
	act, ok := activationNames[name]
	if !ok {
		o.fail(key, "%q is not supported, only %s", name, oneOf(slices.Collect(maps.Keys(activationNames))))
	}
	return act
}

// Names of layer_types.
const (
	fullAttention    = "full_attention"
	slidingAttention = "sliding_attention"
)

// readWindows sets the window of each layer: layer_types decides, or else
// sliding, asked for each layer.
func (c *Config) readWindows(o *object, window int, sliding func(layer int) bool) {
	if *o.err != nil {
		return
	}
	types := o.texts("layer_types")
	if types == nil {
		for i := range c.Layers {
			types = append(types, fullAttention)
			if sliding(i) {
				types[i] = slidingAttention
			}
		}
	}
	if len(types) != c.Layers {
		o.fail("layer_types", "has %d entries, expected num_hidden_layers %d", len(types), c.Layers)
		return
	}
	for i, t := range types {
		switch t {
		case fullAttention:
		case slidingAttention:
			c.Windows[i] = window
			if window == 0 {
				o.fail("layer_types", "has %q for layer %d, but there is no sliding_window", t, i)
			}
		default:
			o.fail("layer_types", "%q is not supported, only %s and %s", t, fullAttention, slidingAttention)
		}
	}
}

// readWindow gives all layers a window; 0 is none.
func (c *Config) readWindow(o *object, window int) {
	for i := range c.Windows {
		c.Windows[i] = window
	}
	for i, t := range o.texts("layer_types") {
		if (t == slidingAttention) != (window > 0) {
			o.fail("layer_types", "%q for layer %d is not supported: this family has sliding_window on all layers or on none", t, i)
		}
	}
}

// readEOS takes the end-of-sequence ids where transformers takes them: from
// generation_config.json, else from config.json. A generation_config.json
// without any leaves it to config.json, so that the model can stop. Ids that
// the vocabulary does not have can never be sampled and are dropped.
func (c *Config) readEOS(o *object, f family, generation []byte) error {
	var ids []int
	if generation != nil {
		g, err := parseObject("generation_config.json", generation)
		if err != nil {
			return err
		}
		ids = g.tokens("eos_token_id")
		if *g.err != nil {
			return *g.err
		}
	}
	if ids == nil {
		ids = o.tokens("eos_token_id")
		if text := o.object("text_config"); ids == nil && text != nil {
			ids = text.tokens("eos_token_id")
		}
		if *o.err != nil {
			return *o.err
		}
		if ids == nil && o.absent("eos_token_id") && f.eos >= 0 {
			ids = []int{f.eos}
		}
	}
	for _, id := range ids {
		if id >= 0 && id < c.Vocab && !slices.Contains(c.EOS, int32(id)) {
			c.EOS = append(c.EOS, int32(id))
		}
	}
	return nil
}
