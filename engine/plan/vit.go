package plan

import "strconv"

// Vision transformers (arXiv 2010.11929) of fixed images: SigLIP's, CLIP's, Idefics 3's and
// InternVL's, and what makes embedding rows of their last layer.
// transformers/models/siglip, clip, idefics3, internvl.

var (
	siglip      = tower{hidden: 768, inner: 3072, layers: 12, heads: 12, image: 224, patch: 16}
	clip        = tower{hidden: 768, inner: 3072, layers: 12, heads: 12, image: 224, patch: 32}
	clipOfLlava = tower{hidden: 1024, inner: 4096, layers: 24, heads: 16, image: 336, patch: 14}
	idefics3    = tower{hidden: 1152, inner: 3072, layers: 12, heads: 16, image: 224, patch: 32}
	internVL    = tower{hidden: 1024, inner: 4096, layers: 24, heads: 16, image: 448, patch: 14}
)

// siglip reads the shape of a SigLIP tower, and writes what comes before its layers.
func (t *tower) siglip(d tower) Var {
	t.shape(d)
	t.act = t.v.activation("hidden_act", "gelu_pytorch_tanh")
	t.c.NormEps = t.v.float("layer_norm_eps", 1e-6)
	if *t.v.err != nil {
		return t.Embed(0, 1)
	}
	n := t.grid() * t.grid()
	t.plan.MaxPos = n
	x, numbers, weights := t.patches(t.conv2d("embeddings.patch_embedding.weight"), t.Weight(t.prefix+"embeddings.patch_embedding.bias", t.hidden), 3*t.patch*t.patch, 1)
	return t.Add(x, t.EmbeddingBag(numbers, weights, t.Weight(t.prefix+"embeddings.position_embedding.weight", n, t.hidden)))
}

// encoder writes the first n layers of SigLIP and CLIP.
func (t *tower) encoder(x Var, n int) Var {
	for i := range n {
		l := t.layerOf("encoder.layers", i)
		name := l.prefix[len(t.prefix):]
		h := l.layerNorm(x, "layer_norm1")
		q, k, v := t.dense(h, name+"self_attn.q_proj", t.hidden, true), t.dense(h, name+"self_attn.k_proj", t.hidden, true), t.dense(h, name+"self_attn.v_proj", t.hidden, true)
		x = t.Add(x, t.dense(t.attend(q, k, v, SightAll), name+"self_attn.out_proj", t.hidden, true))
		h = t.dense(l.layerNorm(x, "layer_norm2"), name+"mlp.fc1", t.inner, true)
		x = t.Add(x, t.dense(t.Activate(t.act, h), name+"mlp.fc2", t.hidden, true))
	}
	for i := n; i < t.layers; i++ {
		t.plan.Spare = append(t.plan.Spare, t.prefix+"encoder.layers."+strconv.Itoa(i)+".")
	}
	t.plan.Spare = append(t.plan.Spare, t.prefix+"head.")
	return x
}

func writeGemma3Tower(t *tower) {
	x := t.siglip(siglip)
	side := t.top.perfect("mm_tokens_per_image", 256)
	if side == 0 || t.grid()%side != 0 {
		t.top.fail("mm_tokens_per_image", "%d squared does not divide %d patches along an edge", side, t.grid())
	}
	if *t.top.err != nil {
		return
	}
	pool := t.grid() / side
	x = t.layerNorm(t.encoder(x, t.layers), t.prefix+"post_layernorm")
	x = t.MeanRows(x, pool*pool)
	at := t.part("mm_input_projection_weight", "multi_modal_projector.", "model.multi_modal_projector.")
	x = t.RMSNorm(x, Norm{Weight: t.Weight(at+"mm_soft_emb_norm.weight", t.hidden), Eps: t.c.NormEps, Shift: 1})
	w := t.Tensor([]int{t.project, t.hidden}, whole(at+"mm_input_projection_weight", t.hidden, t.project).transposed())
	t.end(t.Linear(x, w, 0), pool*pool)
}

func writePaliGemmaTower(t *tower) {
	x := t.siglip(siglip)
	if *t.top.err != nil {
		return
	}
	x = t.Rows(t.layerNorm(t.encoder(x, t.layers), t.prefix+"post_layernorm"))
	at := t.part("linear.weight", "multi_modal_projector.", "model.multi_modal_projector.")
	t.end(t.denseAt(x, at+"linear", t.project, true), 1)
}

// clip reads and writes what comes before CLIP's layers: patches, and a token for the
// whole image.
func (t *tower) clip(d tower) Var {
	t.shape(d)
	t.act = t.v.activation("hidden_act", "quick_gelu")
	t.c.NormEps = t.v.float("layer_norm_eps", 1e-5)
	if *t.v.err != nil {
		return t.Embed(0, 1)
	}
	n := t.grid()*t.grid() + 1
	t.plan.MaxPos, t.class = n, n
	x, numbers, weights := t.patches(t.conv2d("embeddings.patch_embedding.weight"), 0, 3*t.patch*t.patch, 2)
	table := t.Tensor([]int{n + 1, t.hidden}, whole(t.prefix+"embeddings.position_embedding.weight", n, t.hidden),
		whole(t.prefix+"embeddings.class_embedding", t.hidden).transposed())
	x = t.Add(x, t.EmbeddingBag(numbers, weights, table))
	t.plan.Spare = append(t.plan.Spare, t.prefix+"post_layernorm.")
	return t.layerNorm(x, t.prefix+"pre_layrnorm")
}

// featureLayer reads which hidden state is projected, as the number of layers before it.
func (t *tower) featureLayer(def int) int {
	layer := t.top.integer("vision_feature_layer", def)
	if layer < 0 {
		layer += t.layers + 1
	}
	if layer < 1 || layer > t.layers {
		t.top.fail("vision_feature_layer", "is outside of %d layers", t.layers)
		return 1
	}
	return layer
}

func writeLlavaTower(t *tower) {
	act, bias := t.top.activation("projector_hidden_act", "gelu"), t.top.boolean("multimodal_projector_bias", true)
	strategy, want := t.top.text("vision_feature_select_strategy", "default"), "full"
	var x Var
	switch kind := t.v.text("model_type", "clip_vision_model"); {
	case kind == "pixtral" && t.c.Family == "llava":
		x = t.pixtral(-2)
	case kind == "siglip_vision_model":
		x = t.siglip(siglip)
		t.plan.Spare = append(t.plan.Spare, t.prefix+"post_layernorm.")
	case kind == "clip_vision_model":
		d := clip
		if len(t.v.values) == 0 {
			d = clipOfLlava
		}
		x, want = t.clip(d), "default"
	default:
		t.v.fail("model_type", "%q is not supported as a vision tower", kind)
	}
	if strategy != want {
		t.top.fail("vision_feature_select_strategy", "%q is not supported with this vision tower, only %q", strategy, want)
	}
	if *t.top.err != nil {
		return
	}
	if t.rope.Freqs == nil {
		x = t.encoder(x, t.featureLayer(-2))
	}
	at := t.part("linear_1.weight", "multi_modal_projector.", "model.multi_modal_projector.")
	if t.c.Family == "llava_next" {
		t.Newline = t.part("image_newline", "", "model.") + "image_newline"
	}
	t.end(t.twoLayers(t.Rows(x), at, act, bias), 1)
}

func writeIdefics3Tower(t *tower) {
	x := t.siglip(idefics3)
	merge := t.top.dimension("scale_factor", 2, maxSide)
	if *t.top.err != nil {
		return
	}
	t.plan.MaxPos = maxTile // tiles may be larger than the images that positions were learned on
	x = t.layerNorm(t.encoder(x, t.layers), t.prefix+"post_layernorm")
	x = t.JoinedRows(x, merge*merge)
	t.end(t.denseAt(x, t.part("modality_projection.proj.weight", "model.connector.", "connector.")+"modality_projection.proj", t.project, false), merge*merge)
}

// maxSide bounds the patches along an edge of the square that becomes one embedding row.
const maxSide = 1 << 5

func writeInternVLTower(t *tower) {
	t.shape(internVL)
	v := t.v
	t.act = v.activation("hidden_act", "gelu")
	eps := v.float("layer_norm_eps", 1e-6)
	t.c.NormEps = eps
	bias, normed := v.boolean("attention_bias", false), v.boolean("use_qk_norm", false)
	norm := v.text("norm_type", "layer_norm")
	if norm != "layer_norm" && norm != "rms_norm" {
		v.fail("norm_type", "%q is not supported, only layer_norm and rms_norm", norm)
	}
	if !v.boolean("use_absolute_position_embeddings", true) || v.boolean("use_mask_token", false) || !v.boolean("use_mean_pooling", true) {
		v.fail("use_absolute_position_embeddings", "false, use_mask_token true and use_mean_pooling false are not supported")
	}
	ratio := t.top.float("downsample_ratio", 0.5)
	merge := int(1/ratio + 0.5)
	if ratio <= 0 || merge < 1 || merge > maxSide || float64(merge)*ratio != 1 {
		t.top.fail("downsample_ratio", "must be 1 over a whole number, found %g", ratio)
	}
	if s := t.top.text("vision_feature_select_strategy", "default"); s != "default" {
		t.top.fail("vision_feature_select_strategy", "%q is not supported, only default", s)
	}
	layers, act := t.featureLayer(-1), t.top.activation("projector_hidden_act", "gelu")
	if *v.err != nil {
		return
	}
	n := t.grid()*t.grid() + 1
	t.plan.MaxPos, t.class = n, n
	w := t.conv2d("embeddings.patch_embeddings.projection.weight")
	x, numbers, weights := t.patches(w, 0, 3*t.patch*t.patch, 2)
	// The class token has no patch, so that the bias of patches is in the table: each patch
	// takes it as its second row.
	x = t.Add(x, t.EmbeddingBag(numbers, weights, t.Tensor([]int{n + 2, t.hidden},
		whole(t.prefix+"embeddings.position_embeddings", 1, n, t.hidden), whole(t.prefix+"embeddings.cls_token", 1, 1, t.hidden),
		whole(t.prefix+"embeddings.patch_embeddings.projection.bias", t.hidden).transposed())))
	t.bias = n + 1
	for i := range layers {
		name := "encoder.layer." + strconv.Itoa(i) + "."
		normal := func(x Var, which string) Var {
			if norm == "rms_norm" {
				return t.RMSNorm(x, Norm{Weight: t.Weight(t.prefix+name+which+".weight", t.hidden), Eps: eps})
			}
			return t.layerNorm(x, t.prefix+name+which)
		}
		scaled := func(x Var, which string) Var { return t.Scale(x, 1, t.Weight(t.prefix+name+which, t.hidden)) }
		h := normal(x, "layernorm_before")
		q, k, val := t.dense(h, name+"attention.q_proj", t.hidden, bias), t.dense(h, name+"attention.k_proj", t.hidden, bias), t.dense(h, name+"attention.v_proj", t.hidden, bias)
		if normed {
			q = t.RMSNorm(q, Norm{Weight: t.Weight(t.prefix+name+"attention.q_norm.weight", t.hidden), Eps: 1e-6})
			k = t.RMSNorm(k, Norm{Weight: t.Weight(t.prefix+name+"attention.k_norm.weight", t.hidden), Eps: 1e-6})
		}
		a := t.dense(t.attend(q, k, val, SightAll), name+"attention.projection_layer", t.hidden, true)
		x = t.Add(x, scaled(a, "lambda_1"))
		h = t.Activate(t.act, t.dense(normal(x, "layernorm_after"), name+"mlp.fc1", t.inner, true))
		x = t.Add(x, scaled(t.dense(h, name+"mlp.fc2", t.hidden, true), "lambda_2"))
	}
	for i := layers; i < t.layers; i++ {
		t.plan.Spare = append(t.plan.Spare, t.prefix+"encoder.layer."+strconv.Itoa(i)+".")
	}
	at := t.part("linear_1.weight", "multi_modal_projector.", "model.multi_modal_projector.")
	x = t.JoinedRows(x, merge*merge)
	x = t.layerNormOf(x, at+"layer_norm", merge*merge*t.hidden, 1e-5)
	t.end(t.twoLayers(x, at, act, true), merge*merge)
}
