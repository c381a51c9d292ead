package plan

// Models that also see: the language model inside, whose config is read and whose layers
// are written by its own family. Their vision towers are plans of their own (Tower).
// transformers/models/llava, llava_next, idefics3, smolvlm, internvl, paligemma, qwen2_vl,
// qwen2_5_vl, qwen3_vl, qwen3_vl_moe.

// textModels are the language models inside, by model_type.
var textModels = map[string]struct {
	read  func(o *object, c *Config)
	build func(b *Builder, c *Config)
}{
	"llama":   {readLlama, buildLlama},
	"mistral": {readMistral, buildLlama},
	"qwen2":   {readQwen2, buildLlama},
	"qwen3":   {readQwen3, buildQwen3},
	"gemma":   {readGemma, buildGemma},
	"gemma2":  {readGemma2, buildGemma2},
}

// readText reads the language model inside, of one of these types. tied is the default of
// tie_word_embeddings beside it.
func (c *Config) readText(o *object, tied bool, kinds ...string) {
	text, kind := o.textConfig(kinds...)
	if *o.err != nil {
		return
	}
	c.Text = kind
	textModels[kind].read(text, c)
	// The head of a checkpoint tells whether it is the embedding: configs contradict
	// themselves here.
	c.Tied = o.boolean("tie_word_embeddings", tied) || c.Tied
}

func buildText(b *Builder, c *Config) { textModels[c.Text].build(b, c) }

func readLlava(o *object, c *Config)    { c.readText(o, false, "llama", "mistral", "qwen2") }
func readIdefics3(o *object, c *Config) { c.readText(o, false, "llama") }
func readInternVL(o *object, c *Config) { c.readText(o, true, "qwen2", "llama", "qwen3") }

func readPaliGemma(o *object, c *Config) {
	if text := o.object("text_config"); text != nil {
		text.raw("use_bidirectional_attention") // of the prompt, which spans are for
	}
	c.readText(o, true, "gemma", "gemma2")
}

// qwenText is the config of the language model of a Qwen that sees, which is beside that
// of the tower in files of transformers 4.
func (o *object) qwenText(kind string) *object {
	text := o
	if o.object("text_config") != nil {
		text, _ = o.textConfig(kind)
	}
	o.raw("vision_config") // BuildTower reads it
	return text
}

// readQwen2VL reads the language models of Qwen 2 and 2.5 VL: Qwen 2, whose positions have
// three axes.
func readQwen2VL(o *object, c *Config) {
	text := o.qwenText(c.Family + "_text")
	c.readCommon(text, defaults{
		vocab: 152064, hidden: 8192, intermediate: 29568, layers: 80, heads: 64, kvHeads: 8, maxPos: 32768, eps: 1e-5,
	})
	c.Activation = text.activation("hidden_act", "silu")
	c.AttentionBias = true
	text.raw("attention_bias") // is ignored in this family
	readQwenWindows(text, c)
	c.readAxes(text, []int{16, 24, 24}, 1e6)
	c.Tied = o.boolean("tie_word_embeddings", false)
}

// readQwen3VL reads the language model of Qwen 3 VL: Qwen 3, whose positions have three
// axes, and whose first layers are given more of what the tower sees.
func readQwen3VL(o *object, c *Config) {
	text := o.qwenText("qwen3_vl_text")
	c.readCommon(text, defaults{
		vocab: 151936, hidden: 4096, intermediate: 22016, layers: 32, heads: 32, kvHeads: 32, headDim: 128, maxPos: 128000, eps: 1e-6,
	})
	c.Activation = text.activation("hidden_act", "silu")
	c.readDeepText(o, text)
}

// readQwen3VLMoE reads the same with experts.
func readQwen3VLMoE(o *object, c *Config) {
	text := o.qwenText("qwen3_vl_moe_text")
	c.readCommon(text, defaults{
		vocab: 151936, hidden: 2048, intermediate: 5632, layers: 24, heads: 16, kvHeads: 16, maxPos: 128000, eps: 1e-6,
	})
	c.Activation = text.activation("hidden_act", "silu")
	c.readQwenExperts(text, 60, 4, 1408, true)
	c.MoE.Normalize = true // whatever norm_topk_prob says
	c.readDeepText(o, text)
}

// readDeepText reads what the language models of Qwen 3 VL have in common.
func (c *Config) readDeepText(o, text *object) {
	c.AttentionBias = text.boolean("attention_bias", false)
	c.OutputBias = c.AttentionBias
	c.readAxes(text, []int{24, 20, 20}, 5e5)
	c.Tied = o.boolean("tie_word_embeddings", false)
	v := o.object("vision_config")
	if v == nil {
		v = o.nothing("vision_config")
	}
	if c.Levels = len(v.deepLevels(c.Family)); c.Levels > c.Layers {
		v.fail("deepstack_visual_indexes", "has %d entries for %d layers", c.Levels, c.Layers)
	}
	v.values = nil // BuildTower reads it
}

// readAxes reads a rotation by three axes: time, row and column. By default sections are
// how many frequencies follow each, and theta is their base.
func (c *Config) readAxes(o *object, sections []int, theta float64) {
	params := o.ropeParams()
	if list := params.integers("mrope_section"); list != nil {
		sections = list
	}
	c.mrope = true
	interleaved := c.Family != "qwen2_vl" && c.Family != "qwen2_5_vl"
	params.boolean("mrope_interleaved", interleaved) // which each family is or is not, whatever it says
	c.Rope = readRopeOf(o, c, theta)
	if *o.err != nil {
		return
	}
	axes, err := ropeAxes(sections, interleaved, len(c.Rope.Freqs))
	if err != "" {
		params.fail("mrope_section", "%v %s", sections, err)
		return
	}
	c.Rope.Axes = axes
}

// ropeAxes is the axis that each of n frequencies follows. Interleaved, the second axis
// has every third frequency from the second on, and the third from the third, up to three
// times its section; the first has the rest.
func ropeAxes(sections []int, interleaved bool, n int) (axes []float32, problem string) {
	if len(sections) != 3 {
		return nil, "must be three numbers"
	}
	for _, s := range sections {
		if s < 0 || s > maxDimension {
			return nil, "must be numbers of frequencies"
		}
	}
	axes = make([]float32, n)
	if interleaved {
		for axis := 1; axis <= 2; axis++ {
			for i := axis; i < min(3*sections[axis], n); i += 3 {
				axes[i] = float32(axis)
			}
		}
		return axes, ""
	}
	if sections[0]+sections[1]+sections[2] != n {
		return nil, "does not sum up to the frequencies of a head"
	}
	i := 0
	for axis, count := range sections {
		for range count {
			axes[i] = float32(axis)
			i++
		}
	}
	return axes, ""
}
