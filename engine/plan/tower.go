package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// Tower is the plan of a vision tower with its projector: patches of an image in, the
// embedding rows that stand for its image tokens out. Its tokens are patches, a
// sequence is a tile, which has to be whole in one step, and each row that the batch asks
// for is made of Merge consecutive patches, of which it names the last.
type Tower struct {
	*Plan
	PatchWidth int  // floats of a patch, the first of a row of Batch.Embeds
	Merge      int  // patches that become one embedding row
	Axes       bool // Batch.Axes are the row and the column of a patch, in patches, and 0
	Windows    bool // Batch.Spans are windows; without them none are needed

	// Newline is the tensor of the row that ends a line of tiles, [width of a row]; "": there
	// is none.
	Newline string

	places  int // rows of the table of learned positions that a patch takes, 0 if there is no table
	columns int // rows of the table by column, which that by row follows, 0 if there is one table
	class   int // the table's row of the class token, 0 if there is none
	bias    int // the table's row that all patches take but that one, 0 if there is none
}

// Patches are the input of a tower for one tile: what comes from its pixels, and where
// each is. Slices are as package vision has them.
type Patches struct {
	Pixels []float32 // [n, PatchWidth]
	Class  int       // of the last rows: they are the class token
	Pos    []int32   // per row, its row of the table of learned positions
	Axes   []int32   // per row, its row and column in patches
	// Rows and Weights are four rows of that table per patch, and how much each counts.
	Rows    []int32
	Weights []float32
}

// AppendRows appends the rows of Batch.Embeds of a tile, of RowWidth floats each.
func (t *Tower) AppendRows(embeds []float32, p Patches) []float32 {
	n := len(p.Pixels) / t.PatchWidth
	numbers, weights := make([]float32, t.places), make([]float32, t.places)
	for i := range n {
		clear(numbers)
		clear(weights)
		switch {
		case t.places == 0:
		case p.Rows != nil:
			for k := range t.places {
				numbers[k], weights[k] = float32(p.Rows[t.places*i+k]), p.Weights[t.places*i+k]
			}
		case t.columns > 0:
			numbers[0], numbers[1] = float32(p.Axes[2*i+1]), float32(t.columns+int(p.Axes[2*i]))
			weights[0], weights[1] = 1, 1
		default:
			numbers[0], weights[0] = float32(p.Pos[i]), 1
			if i >= n-p.Class {
				numbers[1], weights[1] = float32(t.class), 1
			} else if t.bias > 0 {
				numbers[1], weights[1] = float32(t.bias), 1
			}
		}
		embeds = append(embeds, p.Pixels[i*t.PatchWidth:][:t.PatchWidth]...)
		embeds = append(append(embeds, numbers...), weights...)
	}
	return embeds
}

// tower is a vision tower being written.
type tower struct {
	*Builder
	Tower
	v       *object // vision_config
	top     *object // config.json
	project int     // width of the language model's embeddings

	hidden, inner, layers, heads int
	patch, image                 int // sides in pixels
	act                          Activation
	cache                        int32
	rope                         Rope // none: zero
}

// visionFamily is one whose tower is known.
type visionFamily struct {
	prefixes []string // where checkpoints put the tower
	root     string   // a tensor that it has
	write    func(t *tower)
	ignored  []string // keys of vision_config that change no number
}

// headless is where checkpoints put a tower: in a model without or with a head of its
// own, or in one that was named by a newer transformers.
var headless = []string{"vision_tower.vision_model.", "model.vision_tower.vision_model.", "model.vision_tower.", "vision_tower."}

// vitIgnored are of parts of SigLIP and CLIP that a tower does without.
var vitIgnored = []string{
	"vision_use_head", "projection_dim", "vocab_size", "num_image_tokens", "num_positions", "projector_hidden_act", "size",
	"max_image_size", "use_base_siglip", "logit_scale_init_value", "is_composition",
}

// qwenVisionIgnored are read by the image processor, or of films.
var qwenVisionIgnored = []string{"tokens_per_second", "window_size", "in_chans", "spatial_patch_size", "temporal_patch_size"}

// gemma4VisionIgnored are of attention that has no biases and no windows.
var gemma4VisionIgnored = []string{"attention_bias", "max_position_embeddings", "default_output_length", "global_head_dim", "layer_types"}

// visionFamilies are those whose towers are written, by model_type of config.json.
var visionFamilies = map[string]visionFamily{
	"gemma3":     {headless, "embeddings.patch_embedding.weight", writeGemma3Tower, vitIgnored},
	"gemma4":     {[]string{"model.vision_tower.", "vision_tower."}, "patch_embedder.input_proj.weight", writeGemma4Tower, gemma4VisionIgnored},
	"paligemma":  {headless, "embeddings.patch_embedding.weight", writePaliGemmaTower, vitIgnored},
	"llava":      {headless, "", writeLlavaTower, vitIgnored},
	"llava_next": {headless, "embeddings.patch_embedding.weight", writeLlavaTower, vitIgnored},
	"idefics3":   {[]string{"model.vision_model.", "vision_model."}, "embeddings.patch_embedding.weight", writeIdefics3Tower, vitIgnored},
	"smolvlm":    {[]string{"model.vision_model.", "vision_model."}, "embeddings.patch_embedding.weight", writeIdefics3Tower, vitIgnored},
	"internvl": {
		[]string{"vision_tower.", "model.vision_tower."}, "embeddings.cls_token", writeInternVLTower,
		[]string{"use_mean_pooling", "layer_scale_init_value", "hidden_dropout_prob", "projection_dropout", "drop_path_rate"},
	},
	"mistral3":     {headless, "patch_conv.weight", writeMistral3Tower, vitIgnored},
	"qwen2_vl":     {qwenVisual, "patch_embed.proj.weight", writeQwen2Tower, qwenVisionIgnored},
	"qwen2_5_vl":   {qwenVisual, "patch_embed.proj.weight", writeQwen25Tower, qwenVisionIgnored},
	"qwen3_vl":     {qwenVisual, "patch_embed.proj.weight", writeQwen3Tower, qwenVisionIgnored},
	"qwen3_vl_moe": {qwenVisual, "patch_embed.proj.weight", writeQwen3Tower, qwenVisionIgnored},
	"qwen3_5":      {qwenVisual, "patch_embed.proj.weight", writeQwen3Tower, qwenVisionIgnored},
	"qwen3_5_moe":  {qwenVisual, "patch_embed.proj.weight", writeQwen3Tower, qwenVisionIgnored},
}

var qwenVisual = []string{"visual.", "model.visual."}

// HasTower reports whether the vision tower of a family is known.
func HasTower(family string) bool {
	_, ok := visionFamilies[family]
	return ok
}

// BuildTower writes the vision tower of the model that config.json describes, which
// ParseConfig has read as c. names is as in Build.
func BuildTower(config []byte, c *Config, names func(string) (shape []int, ok bool)) (*Tower, error) {
	f, ok := visionFamilies[c.Family]
	if !ok {
		return nil, fmt.Errorf("the vision tower of model family %q is not supported, only those of %s", c.Family, oneOf(slices.Collect(maps.Keys(visionFamilies))))
	}
	o, err := parseObject("config.json", config)
	if err != nil {
		return nil, err
	}
	t := &tower{top: o, v: o.object("vision_config"), project: c.Hidden}
	if t.v == nil {
		t.v = o.nothing("vision_config")
	}
	root := f.root
	if root == "" {
		root = "embeddings.patch_embedding.weight"
		if t.v.text("model_type", "") == "pixtral" {
			root = "patch_conv.weight"
		}
	}
	t.Builder = newBuilder(&Config{Family: c.Family, Stored: c.Stored, Hidden: 1}, family{prefixes: f.prefixes, root: root}, names)
	t.plan.Spare = []string{".inv_freq", ".position_ids"}
	f.write(t)
	if *o.err == nil {
		refuseUnread(t.v, f.ignored)
	}
	if *o.err != nil {
		return nil, *o.err
	}
	p, err := t.finish()
	if err != nil {
		return nil, err
	}
	t.Plan = p
	return &t.Tower, nil
}

// shape reads what all towers have, under the names that most give it.
func (t *tower) shape(d tower) {
	t.hidden = t.v.dimension("hidden_size", d.hidden, maxDimension)
	t.inner = t.v.dimension("intermediate_size", d.inner, maxDimension)
	t.layers = t.v.dimension("num_hidden_layers", d.layers, maxLayers)
	t.heads = t.v.dimension("num_attention_heads", d.heads, maxHeads)
	t.pixels(d)
}

// pixels reads the sizes of patches and images.
func (t *tower) pixels(d tower) {
	t.patch = t.v.square("patch_size", d.patch)
	t.image = t.v.square("image_size", d.image)
	if n := t.v.integer("num_channels", 3); n != 3 {
		t.v.fail("num_channels", "must be 3, found %d", n)
	}
	if t.hidden%t.heads != 0 {
		t.v.fail("hidden_size", "%d is not a multiple of num_attention_heads %d", t.hidden, t.heads)
	}
	if t.image < t.patch {
		t.v.fail("image_size", "%d is smaller than patch_size %d", t.image, t.patch)
	}
}

// square reads the side of a square, which may be written as its two equal sides.
func (o *object) square(key string, def int) int {
	const most = 1 << 15
	if raw := o.raw(key); raw != nil && raw[0] == '[' {
		list := o.integers(key)
		if len(list) != 2 || list[0] != list[1] {
			o.fail(key, "must be a number, or two that are equal, found %s", short(raw))
			return 1
		}
		o.values[key] = json.RawMessage(strconv.Itoa(list[0]))
	}
	return o.dimension(key, def, most)
}

// grid is the patches along an edge of an image.
func (t *tower) grid() int { return t.image / t.patch }

// patches is the first value, [patches, hidden]: the patch convolution, as a matrix of
// weights w [hidden, patch width], of rows that have so many places beside the patch.
func (t *tower) patches(w, bias Weight, width, places int) (x, numbers, weights Var) {
	t.PatchWidth, t.places = width, places
	t.plan.Hidden = width + 2*places
	in := t.Embed(0, 1)
	pixels := in
	if places > 0 {
		pixels = t.View(in, 0, width)
		numbers, weights = t.View(in, width, places), t.View(in, width+places, places)
	}
	return t.Linear(pixels, w, bias), numbers, weights
}

// conv2d is the weight of a patch convolution, as a matrix.
func (t *tower) conv2d(name string) Weight {
	return t.Tensor([]int{t.hidden, 3 * t.patch * t.patch}, flat(t.prefix+name, t.hidden, 3, t.patch, t.patch))
}

// part is the name of the prefix below which a tensor root is.
func (t *tower) part(root string, prefixes ...string) string {
	for _, p := range prefixes {
		if t.has(p + root) {
			return p
		}
	}
	return prefixes[0]
}

// attend is attention of every patch to those that sight says.
func (t *tower) attend(q, k, v Var, sight Sight) Var {
	dim := t.hidden / t.heads
	if t.rope.Freqs != nil {
		q, k = t.Rope(q, t.rope, dim), t.Rope(k, t.rope, dim)
	}
	if len(t.plan.Caches) == 0 {
		t.cache = t.Cache(Cache{Kind: CacheKV, Heads: int32(t.heads), KeyWidth: int32(dim), ValueWidth: int32(dim)})
	}
	t.CacheWrite(t.cache, k, v)
	return t.Attention(q, Attention{Cache: t.cache, Heads: t.heads, Scale: 1 / sqrt(dim), Sight: sight})
}

// axial is a rotation by the row of a patch, for the first half of a head's dimensions,
// and by its column. Each has frequencies of its own.
func axial(rows, columns []float32) Rope {
	r := Rope{Freqs: slices.Concat(rows, columns), Scale: 1, Axes: make([]float32, len(rows)+len(columns))}
	for i := len(rows); i < len(r.Axes); i++ {
		r.Axes[i] = 1
	}
	return r
}

// theta reads the base of a rotation by axes of heads of dim, def by default.
func (t *tower) theta(def float64, dim int) float64 {
	params := t.v.object("rope_parameters")
	if params == nil {
		params = t.v.nothing("rope_parameters")
	}
	theta := params.float("rope_theta", t.v.float("rope_theta", def))
	if theta <= 1 {
		params.fail("rope_theta", "must be above 1, found %g", theta)
	}
	if kind := params.text("rope_type", "axial"); kind != "axial" && kind != "default" {
		params.fail("rope_type", "%q is not supported in a vision tower, only axial", kind)
	}
	if dim%4 != 0 {
		t.v.fail("hidden_size", "has heads of %d, expected a multiple of 4", dim)
	}
	t.Axes = true
	return theta
}

// end ends the plan with what is made of the rows that were picked.
func (t *tower) end(x Var, merge int) {
	t.Merge = merge
	if n := t.width(x); *t.v.err == nil && n%t.project != 0 {
		t.fail("the vision tower makes rows of %d, the language model takes %d", n, t.project)
	}
	t.Output(x)
}

// dense is x times a matrix below the tower's prefix.
func (t *tower) dense(x Var, name string, out int, bias bool) Var {
	return t.denseAt(x, t.prefix+name, out, bias)
}

// denseAt is the same of a whole name.
func (t *tower) denseAt(x Var, name string, out int, bias bool) Var {
	w, wBias := t.Weight(name+".weight", out, t.width(x)), Weight(0)
	if bias {
		wBias = t.Weight(name+".bias", out)
	}
	return t.Linear(x, w, wBias)
}

// layerNormOf is a layer norm over groups of a row that are as wide as its weight.
func (t *tower) layerNormOf(x Var, name string, width int, eps float64) Var {
	return t.LayerNorm(x, Norm{Weight: t.Weight(name+".weight", width), Bias: t.Weight(name+".bias", width), Eps: eps})
}

// twoLayers is linear_1, an activation and linear_2.
func (t *tower) twoLayers(x Var, prefix string, act Activation, bias bool) Var {
	x = t.Activate(act, t.denseAt(x, prefix+"linear_1", t.project, bias))
	return t.denseAt(x, prefix+"linear_2", t.project, bias)
}

// maxTile bounds the patches of a tile of an image whose size is free.
const maxTile = 1 << 16

// perfect reads a square number and returns its root.
func (o *object) perfect(key string, def int) int {
	n := o.dimension(key, def, maxPosition)
	root := int(math.Round(math.Sqrt(float64(n))))
	if root*root != n {
		o.fail(key, "must be the square of a whole number, found %d", n)
	}
	return root
}
