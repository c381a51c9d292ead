package plan

import (
	"slices"
	"strconv"
)

// Vision towers of images of any size: Pixtral's, those of Qwen 2 VL and its successors, and
// Gemma 4's. transformers/models/pixtral, mistral3, qwen2_vl, qwen2_5_vl, qwen3_vl, gemma4.

var pixtral = tower{hidden: 1024, inner: 4096, layers: 24, heads: 16, image: 1024, patch: 16}

// pixtral reads and writes a Pixtral tower up to the hidden state that is projected, def
// unless the config says which.
func (t *tower) pixtral(def int) Var {
	t.shape(pixtral)
	t.act = t.v.activation("hidden_act", "gelu")
	if dim := t.v.integer("head_dim", t.hidden/t.heads); dim != t.hidden/t.heads {
		t.v.fail("head_dim", "must be hidden_size over num_attention_heads, %d, found %d", t.hidden/t.heads, dim)
	}
	theta, n := t.theta(10000, t.hidden/t.heads), t.featureLayer(def)
	if *t.top.err != nil {
		return t.Embed(0, 1)
	}
	// Rows take every other frequency of the whole head, and columns those between.
	all := frequencies(theta, t.hidden/t.heads)
	var rows, columns []float32
	for i, f := range all {
		if i%2 == 0 {
			rows = append(rows, f)
		} else {
			columns = append(columns, f)
		}
	}
	t.rope = axial(rows, columns)
	t.plan.MaxPos = maxTile
	x, _, _ := t.patches(t.conv2d("patch_conv.weight"), 0, 3*t.patch*t.patch, 0)
	norm := func(x Var, name string) Var {
		return t.RMSNorm(x, Norm{Weight: t.Weight(t.prefix+name+".weight", t.hidden), Eps: 1e-5})
	}
	x = norm(x, "ln_pre")
	for i := range n {
		name := "transformer.layers." + strconv.Itoa(i) + "."
		h := norm(x, name+"attention_norm")
		q, k, v := t.dense(h, name+"attention.q_proj", t.hidden, false), t.dense(h, name+"attention.k_proj", t.hidden, false), t.dense(h, name+"attention.v_proj", t.hidden, false)
		x = t.Add(x, t.dense(t.attend(q, k, v, SightAll), name+"attention.o_proj", t.hidden, false))
		x = t.Add(x, t.gatedMLP(norm(x, name+"ffn_norm"), name+"feed_forward.", false))
	}
	for i := n; i < t.layers; i++ {
		t.plan.Spare = append(t.plan.Spare, t.prefix+"transformer.layers."+strconv.Itoa(i)+".")
	}
	return x
}

// gatedMLP is down(act(gate(x)) * up(x)).
func (t *tower) gatedMLP(x Var, name string, bias bool) Var {
	gate, up := t.dense(x, name+"gate_proj", t.inner, bias), t.dense(x, name+"up_proj", t.inner, bias)
	return t.dense(t.Gate(Act{Kind: t.act}, gate, up), name+"down_proj", t.hidden, bias)
}

func writeMistral3Tower(t *tower) {
	act, bias := t.top.activation("projector_hidden_act", "gelu"), t.top.boolean("multimodal_projector_bias", false)
	merge := t.top.dimension("spatial_merge_size", 2, maxSide)
	eps := 1e-6
	if text := t.top.object("text_config"); text != nil {
		eps = text.float("rms_norm_eps", eps)
	}
	if kind := t.v.text("model_type", "pixtral"); kind != "pixtral" {
		t.v.fail("model_type", "%q is not supported as a vision tower of this family", kind)
	}
	x := t.pixtral(-1)
	if *t.top.err != nil {
		return
	}
	at := t.part("patch_merger.merging_layer.weight", "multi_modal_projector.", "model.multi_modal_projector.")
	x = t.JoinedRows(t.RMSNorm(x, Norm{Weight: t.Weight(at+"norm.weight", t.hidden), Eps: eps}), merge*merge)
	// The columns of the matrix that merges patches are those of each channel, patch by
	// patch; the joined row has all channels of each patch.
	var sum Var
	for i := range merge * merge {
		w := t.Tensor([]int{t.hidden, t.hidden}, whole(at+"patch_merger.merging_layer.weight", t.hidden, merge*merge*t.hidden).cols(i, merge*merge, t.hidden))
		part := t.Linear(t.View(x, i*t.hidden, t.hidden), w, 0)
		if i == 0 {
			sum = part
		} else {
			sum = t.Add(sum, part)
		}
	}
	t.end(t.twoLayers(sum, at, act, bias), merge*merge)
}

// qwenShape reads what the towers of all Qwens have; width is the key of the width of its
// layers.
func (t *tower) qwenShape(width string, hidden, layers, patch int) (merge int) {
	v := t.v
	t.hidden = v.dimension(width, hidden, maxDimension)
	t.layers, t.heads = v.dimension("depth", layers, maxLayers), v.dimension("num_heads", 16, maxHeads)
	t.patch = v.square("patch_size", patch)
	if n := v.integer("in_channels", 3); n != 3 {
		v.fail("in_channels", "must be 3, found %d", n)
	}
	if t.hidden%t.heads != 0 {
		v.fail(width, "%d is not a multiple of num_heads %d", t.hidden, t.heads)
	}
	merge = v.dimension("spatial_merge_size", 2, maxSide)
	theta := t.theta(10000, t.hidden/t.heads)
	f := frequencies(theta, t.hidden/t.heads/2)
	t.rope = axial(f, f)
	t.plan.MaxPos = maxTile
	return merge
}

// frames reads how many frames of a film a patch has.
func (t *tower) frames() int { return t.v.dimension("temporal_patch_size", 2, 16) }

// conv3d is the weight of a patch convolution over frames, as a matrix.
func (t *tower) conv3d(frames int) Weight {
	return t.Tensor([]int{t.hidden, 3 * frames * t.patch * t.patch}, flat(t.prefix+"patch_embed.proj.weight", t.hidden, 3, frames, t.patch, t.patch))
}

// qkv is the queries, keys and values of one projection.
func (t *tower) qkv(x Var, name string) (q, k, v Var) {
	part := func(i int) Var {
		w := t.Tensor([]int{t.hidden, t.hidden}, whole(t.prefix+name+".weight", 3*t.hidden, t.hidden).rows(i*t.hidden, 1, t.hidden))
		return t.Linear(x, w, t.Tensor([]int{t.hidden}, whole(t.prefix+name+".bias", 3*t.hidden).rows(i*t.hidden, 1, t.hidden)))
	}
	return part(0), part(1), part(2)
}

// merger makes one row of a square of patches, from what has been joined of them.
func (t *tower) merger(x Var, first, second string) Var {
	x = t.Activate(ActGelu, t.dense(x, first, t.width(x), true))
	return t.dense(x, second, t.project, true)
}

func writeQwen2Tower(t *tower) {
	merge := t.qwenShape("embed_dim", 1280, 32, 14)
	t.v.raw("hidden_size") // of the rows that it makes, which the projector tells
	t.act = t.v.activation("hidden_act", "quick_gelu")
	t.inner = t.hidden * t.v.dimension("mlp_ratio", 4, 1<<10)
	frames := t.frames()
	if *t.v.err != nil {
		return
	}
	norm := func(x Var, name string) Var { return t.layerNormOf(x, t.prefix+name, t.hidden, 1e-6) }
	x, _, _ := t.patches(t.conv3d(frames), 0, 3*frames*t.patch*t.patch, 0)
	for i := range t.layers {
		name := "blocks." + strconv.Itoa(i) + "."
		q, k, v := t.qkv(norm(x, name+"norm1"), name+"attn.qkv")
		x = t.Add(x, t.dense(t.attend(q, k, v, SightAll), name+"attn.proj", t.hidden, true))
		h := t.Activate(t.act, t.dense(norm(x, name+"norm2"), name+"mlp.fc1", t.inner, true))
		x = t.Add(x, t.dense(h, name+"mlp.fc2", t.hidden, true))
	}
	x = norm(t.JoinedRows(x, merge*merge), "merger.ln_q")
	t.end(t.merger(x, "merger.mlp.0", "merger.mlp.2"), merge*merge)
}

func writeQwen25Tower(t *tower) {
	merge := t.qwenShape("hidden_size", 1280, 32, 14)
	t.v.raw("out_hidden_size") // which the projector tells
	t.act = t.v.activation("hidden_act", "silu")
	t.inner = t.v.dimension("intermediate_size", 3420, maxDimension)
	full := t.v.integers("fullatt_block_indexes")
	if t.v.absent("fullatt_block_indexes") {
		full = []int{7, 15, 23, 31}
	}
	frames := t.frames()
	if *t.v.err != nil {
		return
	}
	t.Windows = true
	norm := func(x Var, name string) Var {
		return t.RMSNorm(x, Norm{Weight: t.Weight(t.prefix+name+".weight", t.hidden), Eps: 1e-6})
	}
	x, _, _ := t.patches(t.conv3d(frames), 0, 3*frames*t.patch*t.patch, 0)
	for i := range t.layers {
		name, sight := "blocks."+strconv.Itoa(i)+".", SightSpan
		if slices.Contains(full, i) {
			sight = SightAll
		}
		q, k, v := t.qkv(norm(x, name+"norm1"), name+"attn.qkv")
		x = t.Add(x, t.dense(t.attend(q, k, v, sight), name+"attn.proj", t.hidden, true))
		x = t.Add(x, t.gatedMLP(norm(x, name+"norm2"), name+"mlp.", true))
	}
	x = norm(t.JoinedRows(x, merge*merge), "merger.ln_q")
	t.end(t.merger(x, "merger.mlp.0", "merger.mlp.2"), merge*merge)
}

// writeQwen3Tower writes a tower whose rows have a part for the language model's input, and
// one for each of its first layers.
func writeQwen3Tower(t *tower) {
	merge := t.qwenShape("hidden_size", 1152, 27, 16)
	t.v.raw("out_hidden_size") // which the projector tells
	t.act = t.v.activation("hidden_act", "gelu_pytorch_tanh")
	t.inner = t.v.dimension("intermediate_size", 4304, maxDimension)
	side, levels, frames := t.v.perfect("num_position_embeddings", 2304), t.v.deepLevels(t.c.Family), t.frames()
	if *t.v.err != nil {
		return
	}
	norm := func(x Var, name string) Var { return t.layerNormOf(x, t.prefix+name, t.hidden, 1e-6) }
	x, numbers, weights := t.patches(t.conv3d(frames), t.Weight(t.prefix+"patch_embed.proj.bias", t.hidden), 3*frames*t.patch*t.patch, 4)
	x = t.Add(x, t.EmbeddingBag(numbers, weights, t.Weight(t.prefix+"pos_embed.weight", side*side, t.hidden)))
	kept := make([]Var, len(levels)) // what is projected for each layer of the language model
	for i := range t.layers {
		name := "blocks." + strconv.Itoa(i) + "."
		q, k, v := t.qkv(norm(x, name+"norm1"), name+"attn.qkv")
		x = t.Add(x, t.dense(t.attend(q, k, v, SightAll), name+"attn.proj", t.hidden, true))
		h := t.Activate(t.act, t.dense(norm(x, name+"norm2"), name+"mlp.linear_fc1", t.inner, true))
		x = t.Add(x, t.dense(h, name+"mlp.linear_fc2", t.hidden, true))
		if l := slices.Index(levels, i); l >= 0 {
			kept[l] = x
		}
	}
	if slices.Contains(kept, 0) {
		t.v.fail("deepstack_visual_indexes", "%v: expected layers of %d, each once", levels, t.layers)
		return
	}
	if len(levels) == 0 {
		x = norm(t.JoinedRows(x, merge*merge), "merger.norm")
		t.end(t.merger(x, "merger.linear_fc1", "merger.linear_fc2"), merge*merge)
		return
	}
	rows := t.JoinedRows(t.join(append([]Var{x}, kept...)...), merge*merge)
	level := func(l int) Var { // of all patches of a row
		var parts []Var
		for i := range merge * merge {
			parts = append(parts, t.View(rows, (i*(1+len(levels))+l)*t.hidden, t.hidden))
		}
		return t.join(parts...)
	}
	out := []Var{t.merger(norm(level(0), "merger.norm"), "merger.linear_fc1", "merger.linear_fc2")}
	for l := range levels {
		name := "deepstack_merger_list." + strconv.Itoa(l) + "."
		h := t.layerNormOf(level(1+l), t.prefix+name+"norm", merge*merge*t.hidden, 1e-6)
		out = append(out, t.merger(h, name+"linear_fc1", name+"linear_fc2"))
	}
	t.end(t.join(out...), merge*merge)
}

// join is Join of any number of values.
func (t *tower) join(list ...Var) Var {
	for len(list) > 1 {
		n := min(len(list), MaxIn)
		list = append([]Var{t.Join(list[:n]...)}, list[n:]...)
	}
	return list[0]
}

// deepLevels reads after which layers of a tower its patches go to layers of the language
// model, too.
func (v *object) deepLevels(family string) []int {
	levels := v.integers("deepstack_visual_indexes")
	if v.absent("deepstack_visual_indexes") && (family == "qwen3_vl" || family == "qwen3_vl_moe") {
		levels = []int{8, 16, 24}
	}
	return levels
}

// writeGemma4Tower writes a tower with two tables of positions, one by column and one by
// row, whose rows are means of squares of patches.
func writeGemma4Tower(t *tower) {
	v := t.v
	t.hidden, t.inner = v.dimension("hidden_size", 768, maxDimension), v.dimension("intermediate_size", 3072, maxDimension)
	t.layers, t.heads = v.dimension("num_hidden_layers", 16, maxLayers), v.dimension("num_attention_heads", 12, maxHeads)
	kvHeads, dim := v.dimension("num_key_value_heads", 12, maxHeads), v.dimension("head_dim", 64, maxDimension)
	t.act = v.activation("hidden_activation", "gelu_pytorch_tanh")
	t.patch = v.square("patch_size", 16)
	eps, theta := v.float("rms_norm_eps", 1e-6), t.theta(100, dim)
	pool, places := v.dimension("pooling_kernel_size", 3, maxSide), v.dimension("position_embedding_size", 10240, maxPosition)
	clipped, standardized := v.boolean("use_clipped_linears", false), v.boolean("standardize", false)
	if *v.err == nil && t.heads%kvHeads != 0 {
		v.fail("num_key_value_heads", "%d must divide num_attention_heads %d", kvHeads, t.heads)
	}
	if text := t.top.object("text_config"); text != nil && text.integer("pad_token_id", 0) != 0 && text.integer("hidden_size_per_layer_input", 256) != 0 {
		// Image tokens take its embeddings of each layer, which OpEmbed finds in row 0.
		text.fail("pad_token_id", "is not supported beside hidden_size_per_layer_input, only 0")
	}
	if *v.err != nil {
		return
	}
	t.plan.MaxPos, t.columns = min(maxTile, places), places
	norm := func(x Var, name string, width int) Var {
		return t.RMSNorm(x, Norm{Weight: t.Weight(t.prefix+name+".weight", width), Eps: eps})
	}
	linear := func(x Var, name string, out int) Var {
		bound := func(which string) Weight {
			p := whole(t.prefix+name+"."+which, 1)
			p.Stored = []int{}
			return t.Tensor([]int{1}, p)
		}
		if clipped {
			x = t.ClipTo(x, bound("input_min"), bound("input_max"))
		}
		x = t.dense(x, name+".linear", out, false)
		if clipped {
			x = t.ClipTo(x, bound("output_min"), bound("output_max"))
		}
		return x
	}
	// The first half of a head follows the column, the second the row.
	f := frequencies(theta, dim/2)
	column, row := Rope{Freqs: f, Scale: 1, Axes: make([]float32, len(f))}, Rope{First: dim / 2, Freqs: f, Scale: 1, Axes: make([]float32, len(f))}
	for i := range column.Axes {
		column.Axes[i] = 1
	}
	rotated := func(x Var) Var { return t.Rope(t.Rope(x, column, dim), row, dim) }

	width := 3 * t.patch * t.patch
	x, numbers, weights := t.patches(t.Weight(t.prefix+"patch_embedder.input_proj.weight", t.hidden, width), 0, width, 2)
	x = t.Add(x, t.EmbeddingBag(numbers, weights, t.Tensor([]int{2 * places, t.hidden}, whole(t.prefix+"patch_embedder.position_embedding_table", 2, places, t.hidden))))
	cache := t.Cache(Cache{Kind: CacheKV, Heads: int32(kvHeads), KeyWidth: int32(dim), ValueWidth: int32(dim)})
	for i := range t.layers {
		name := "encoder.layers." + strconv.Itoa(i) + "."
		h := norm(x, name+"input_layernorm", t.hidden)
		q := rotated(norm(linear(h, name+"self_attn.q_proj", t.heads*dim), name+"self_attn.q_norm", dim))
		k := rotated(norm(linear(h, name+"self_attn.k_proj", kvHeads*dim), name+"self_attn.k_norm", dim))
		t.CacheWrite(cache, k, t.RMSNorm(linear(h, name+"self_attn.v_proj", kvHeads*dim), Norm{Group: dim, Eps: eps}))
		a := t.Attention(q, Attention{Cache: cache, Heads: t.heads, Scale: 1, Sight: SightAll})
		x = t.Add(x, norm(linear(a, name+"self_attn.o_proj", t.hidden), name+"post_attention_layernorm", t.hidden))
		h = norm(x, name+"pre_feedforward_layernorm", t.hidden)
		h = t.Gate(Act{Kind: t.act}, linear(h, name+"mlp.gate_proj", t.inner), linear(h, name+"mlp.up_proj", t.inner))
		x = t.Add(x, norm(linear(h, name+"mlp.down_proj", t.hidden), name+"post_feedforward_layernorm", t.hidden))
	}
	scale := Weight(0)
	if standardized {
		// Subtracted before means and scale are taken. In a table beside the embedding patches
		// have no row of their own, so that all take row 0.
		bias := t.Tensor([]int{1, t.hidden}, whole(t.prefix+"std_bias", t.hidden).transposed())
		x, scale = t.Add(x, t.EmbedBeside(bias, -1/sqrt(t.hidden))), t.Weight(t.prefix+"std_scale", t.hidden)
	}
	x = t.RMSNorm(t.Scale(t.MeanRows(x, pool*pool), sqrt(t.hidden), scale), Norm{Eps: eps})
	t.end(t.denseAt(x, t.part("embedding_projection.weight", "model.embed_vision.", "embed_vision.")+"embedding_projection", t.project, false), pool*pool)
}
