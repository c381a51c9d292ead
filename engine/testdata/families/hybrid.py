"""Recurrent decoders, and those with attention beside."""

import torch

from . import SHAPE, rope

LFM2 = dict(
    SHAPE,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    block_multiple_of=8,
    norm_eps=1e-3,
    layer_types=["conv", "full_attention", "conv"],
    rope_parameters=rope(1e6),
    tie_word_embeddings=False,
)
BAMBA = dict(
    SHAPE,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
    attn_layer_indices=[1],
    mamba_n_heads=8,
    mamba_d_head=8,
    mamba_d_state=16,
    rms_norm_eps=1e-3,
)
GRANITE_HYBRID = dict(
    SHAPE,
    hidden_size=32,
    intermediate_size=16,
    shared_intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    layer_types=["linear_attention", "full_attention", "linear_attention"],
    mamba_n_heads=8,
    mamba_d_state=16,
    embedding_multiplier=3.0,
    attention_multiplier=0.3,
    residual_multiplier=0.6,
    logits_scaling=1.5,
    num_local_experts=6,
    num_experts_per_tok=3,
    rms_norm_eps=1e-3,
)

LFM2_MOE = dict(
    LFM2,
    intermediate_size=40,
    moe_intermediate_size=16,
    num_dense_layers=1,
    num_experts=6,
    num_experts_per_tok=2,
    routed_scaling_factor=1.3,
)
LFM2_MOE.pop("block_multiple_of")
NEMOTRON_H = dict(
    vocab_size=120,
    hidden_size=32,
    intermediate_size=40,
    max_position_embeddings=256,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    layers_block_type=["linear_attention", "mlp", "full_attention", "moe"],
    mamba_num_heads=8,
    mamba_head_dim=8,
    ssm_state_size=16,
    n_groups=2,
    n_routed_experts=6,
    num_experts_per_tok=3,
    moe_intermediate_size=16,
    moe_shared_expert_intermediate_size=24,
    routed_scaling_factor=1.5,
    layer_norm_epsilon=1e-3,
)
FALCON_H1 = dict(
    SHAPE,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    mamba_d_ssm=48,
    mamba_n_heads=6,
    mamba_d_head=8,
    mamba_d_state=16,
    mamba_n_groups=2,
    rms_norm_eps=1e-3,
    embedding_multiplier=5.6,
    lm_head_multiplier=0.9,
    mlp_multipliers=[0.88, 0.7],
    key_multiplier=0.6,
    attention_in_multiplier=1.2,
    attention_out_multiplier=0.9,
    ssm_multipliers=[0.7, 0.9, 0.8, 1.3, 0.6],
    ssm_in_multiplier=1.25,
    ssm_out_multiplier=0.8,
)
MAMBA = dict(vocab_size=120, hidden_size=32, num_hidden_layers=3, state_size=8, layer_norm_epsilon=1e-3, tie_word_embeddings=False)
JAMBA = dict(
    SHAPE,
    hidden_size=32,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_experts=4,
    attn_layer_period=3,
    attn_layer_offset=2,
    mamba_d_state=8,
    rms_norm_eps=1e-3,
)
KIMI_LINEAR = dict(
    SHAPE,
    hidden_size=32,
    intermediate_size=40,
    moe_intermediate_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=2,
    kv_lora_rank=16,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=16,
    num_local_experts=6,
    num_experts_per_tok=2,
    layer_types=["linear_attention", "full_attention", "linear_attention"],
    linear_head_dim=8,
    linear_num_heads=4,
    rms_norm_eps=1e-3,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
OLMO_HYBRID = dict(
    SHAPE,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    layer_types=["linear_attention", "full_attention", "linear_attention"],
    linear_num_key_heads=3,
    linear_num_value_heads=3,
    linear_key_head_dim=8,
    linear_value_head_dim=16,
    rms_norm_eps=1e-3,
    pad_token_id=0,
    eos_token_id=2,
)
ZAMBA2 = dict(
    SHAPE,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=5,
    num_attention_heads=4,
    layers_block_type=["linear_attention", "hybrid", "hybrid", "linear_attention", "hybrid"],
    n_mamba_heads=8,
    mamba_d_state=16,
    mamba_ngroups=2,
    num_mem_blocks=2,
    adapter_rank=4,
    rms_norm_eps=1e-3,
)
LFM3 = dict(
    SHAPE,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    sliding_window=11,
    layer_types=["sliding_attention", "conv", "full_attention", "conv"],
    conv_L_cache=4,
    norm_eps=1e-3,
    tie_word_embeddings=False,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)

COMMITTED = [
    ("lfm2", "lfm2", LFM2, {}),
    ("lfm2-hub-v4", "lfm2", dict(LFM2, layer_types=None, full_attn_idxs=[0, 2], conv_bias=True, conv_L_cache=4, tie_word_embeddings=True), dict(dtype=torch.bfloat16, v4=True, published=True, salt="d")),
    ("lfm2-moe", "lfm2_moe", LFM2_MOE, dict(dtype=torch.bfloat16, salt="m")),
    ("lfm3", "lfm3", LFM3, dict(dtype=torch.bfloat16, salt="a")),
    ("lfm3-plain", "lfm3", dict(LFM3, use_sandwich_norm=False, use_attention_gate=False, attention_bias=True, conv_bias=True, layer_types=["full_attention", "conv", "sliding_attention"], num_hidden_layers=3), dict(dtype=torch.bfloat16, salt="k")),
    ("nemotron-h", "nemotron_h", NEMOTRON_H, dict(dtype=torch.bfloat16)),
    ("nemotron-h-latent-v4", "nemotron_h", dict(NEMOTRON_H, moe_latent_size=16, n_group=2, n_routed_experts=8, use_bias=True, mlp_bias=True, use_conv_bias=False), dict(dtype=torch.bfloat16, v4=True)),
    ("bamba", "bamba", BAMBA, dict(dtype=torch.bfloat16, salt="k")),
    ("bamba-v4", "bamba", dict(BAMBA, mamba_n_groups=2, mamba_proj_bias=True, mamba_conv_bias=False, attention_bias=True, mlp_bias=True, time_step_limit=[0.2, 1.1], tie_word_embeddings=True), dict(dtype=torch.bfloat16, v4=True)),
    ("granitemoehybrid", "granitemoehybrid", GRANITE_HYBRID, dict(dtype=torch.bfloat16)),
    ("granitemoehybrid-dense-v4", "granitemoehybrid", dict(GRANITE_HYBRID, num_local_experts=0, num_experts_per_tok=0, mamba_n_groups=2, position_embedding_type="rope", attention_bias=True, tie_word_embeddings=True), dict(dtype=torch.bfloat16, v4=True)),
    ("falcon-h1", "falcon_h1", FALCON_H1, {}),
    ("falcon-h1-norm-v4", "falcon_h1", dict(FALCON_H1, mamba_rms_norm=True, mamba_norm_before_gate=False, projectors_bias=True, attention_bias=True, mlp_bias=True, mamba_proj_bias=True, rope_parameters=rope(1e11)), dict(dtype=torch.bfloat16, v4=True)),
    ("mamba", "mamba", MAMBA, {}),
    ("falcon-mamba-v4", "falcon_mamba", dict(MAMBA, use_bias=True, use_conv_bias=False, time_step_rank=4, mixer_rms_eps=1e-3), dict(dtype=torch.bfloat16, v4=True)),
    ("jamba", "jamba", JAMBA, dict(dtype=torch.bfloat16)),
    ("kimi-linear", "kimi_linear", KIMI_LINEAR, dict(dtype=torch.bfloat16)),
    ("kimi-linear-hub-v4", "kimi_linear", dict(KIMI_LINEAR, n_group=2, num_local_experts=8, n_shared_experts=2, norm_topk_prob=False), dict(dtype=torch.bfloat16, v4=True, published=True)),
    ("olmo-hybrid", "olmo_hybrid", OLMO_HYBRID, dict(dtype=torch.bfloat16, published=True)),
    ("olmo-hybrid-nope", "olmo_hybrid", dict(OLMO_HYBRID, rope_parameters=dict(rope_theta=None, rope_type="default"), linear_allow_neg_eigval=False, attention_bias=True), dict(dtype=torch.bfloat16, published=True)),
    ("zamba2", "zamba2", ZAMBA2, dict(dtype=torch.bfloat16)),
    ("zamba2-rope-v4", "zamba2", dict(ZAMBA2, use_mem_rope=True, use_shared_attention_adapter=True, add_bias_linear=True, num_mem_blocks=1), dict(dtype=torch.bfloat16, v4=True)),
]
FAMILIES = ["lfm2", "lfm2_moe", "lfm3", "nemotron_h", "bamba", "granitemoehybrid", "falcon_h1", "mamba", "falcon_mamba", "jamba", "kimi_linear", "olmo_hybrid", "zamba2"]

LEGACY = dict(linear_attention="mamba", full_attention="attention")


def variation(kind, r, c, how):
    layers, hidden = c["num_hidden_layers"], c["hidden_size"]
    rope_parameters = r.choice(c["rope_parameters"])
    common = {k: c[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "tie_word_embeddings")}
    eps = c["rms_norm_eps"]
    how.update(prompt=r.choice([1, 2, 5, 63, 64, 65, 100, 129, 200]))
    experts = r.choice([1, 2, 3, 4, 6, 8])
    chosen = r.randint(1, experts)
    if kind == "lfm2":
        c = dict(common, norm_eps=eps, rope_parameters=rope_parameters, conv_bias=r.random() < 0.3, conv_L_cache=r.choice([2, 3, 3, 4, 5]))
        c.update(block_auto_adjust_ff_dim=r.random() < 0.7, block_multiple_of=r.choice([1, 8, 24]), block_ffn_dim_multiplier=r.choice([1.0, 1.0, 0.7, 1.6]))
        if r.random() < 0.6:
            c["layer_types"] = [r.choice(["conv", "conv", "full_attention"]) for _ in range(layers)]
        elif r.random() < 0.7:
            c["full_attn_idxs"] = [i for i in range(layers) if r.random() < 0.4]
    elif kind in ("bamba", "granitemoehybrid"):
        groups = r.choice([1, 1, 2, 4])
        heads = groups * r.choice([1, 2, 3])
        dim, expand = r.choice([8, 16, 24]), r.choice([1, 2])
        hidden = heads * dim // expand
        attention = r.choice([a for a in (1, 2, 3, 4) if hidden % (8 * a) == 0] or [0])
        if not attention:
            return variation(kind, r, dict(c, rope_parameters=[rope_parameters]), how)
        c = dict(common, hidden_size=hidden, num_attention_heads=attention, num_key_value_heads=r.choice([k for k in (1, 2, 3, 4) if attention % k == 0]), rms_norm_eps=eps)
        c.update(mamba_n_heads=heads, mamba_d_head=r.choice([dim, "auto"]), mamba_n_groups=groups, mamba_d_state=r.choice([8, 16, 24, 64, 128]), mamba_d_conv=r.choice([2, 3, 4, 4]), mamba_expand=expand)
        c.update(mamba_conv_bias=r.random() < 0.7, mamba_proj_bias=r.random() < 0.3, attention_bias=r.random() < 0.3, mamba_chunk_size=r.choice([16, 64, 256]))
        c["time_step_limit"] = r.choice([[0.0, float("inf")], [0.0, float("inf")], [0.1, 1.0], [0.3, float("inf")]])
        if kind == "bamba":
            c.update(mlp_bias=r.random() < 0.3, attn_layer_indices=r.choice([None, [i for i in range(layers) if r.random() < 0.4]]), rope_parameters=rope_parameters)
        else:
            c.update(num_local_experts=r.choice([0, experts]), num_experts_per_tok=chosen, shared_intermediate_size=r.choice([8, 24, 37]), intermediate_size=r.choice([8, 16, 37]))
            c.update(position_embedding_type=r.choice([None, "nope", "rope"]), rope_parameters=rope_parameters)
            c.update(embedding_multiplier=r.choice([1.0, 12.0]), attention_multiplier=r.choice([0.3, 0.1]), residual_multiplier=r.choice([1.0, 0.22]), logits_scaling=r.choice([1.0, 8.0, 0.5]))
            if r.random() < 0.8:
                c["layer_types"] = [r.choice(["linear_attention", "linear_attention", "full_attention"]) for _ in range(layers)]
    elif kind == "lfm2_moe":
        c = dict(common, norm_eps=eps, rope_parameters=rope_parameters, conv_bias=r.random() < 0.3, conv_L_cache=r.choice([2, 3, 3, 4, 5]))
        c["layer_types"] = [r.choice(["conv", "conv", "full_attention"]) for _ in range(layers)]
        c.update(num_experts=experts, num_experts_per_tok=chosen, moe_intermediate_size=r.choice([8, 16, 37]), num_dense_layers=r.randint(0, layers))
        c.update(use_expert_bias=r.random() < 0.7, norm_topk_prob=r.random() < 0.7, routed_scaling_factor=r.choice([1.0, 2.5]))
    elif kind == "lfm3":
        c = dict(common, norm_eps=eps, conv_bias=r.random() < 0.3, conv_L_cache=r.choice([2, 4, 7]), head_dim=r.choice([8, 16, 24, 32]), attention_bias=r.random() < 0.3)
        how.update(v4=False)
        c.update(use_sandwich_norm=r.random() < 0.7, use_attention_gate=r.random() < 0.7, sliding_window=r.choice([1, 3, 16, 50]), pad_token_id=0, bos_token_id=1, eos_token_id=2)
        if r.random() < 0.7:
            c["layer_types"] = [r.choice(["conv", "conv", "full_attention", "sliding_attention"]) for _ in range(layers)]
        if r.random() < 0.5:
            full = r.choice([rope_parameters, rope(1e6, rope_type="proportional", partial_rotary_factor=r.choice([0.25, 0.5, 0.7]))])
            c["rope_parameters"] = dict(full_attention=full, sliding_attention=rope(r.choice([1e4, 500.0])))
    elif kind == "nemotron_h":
        groups, routing = r.choice([1, 1, 2, 4]), r.choice([1, 1, 2])
        each, kept = r.choice([2, 3, 4]), r.randint(1, routing)
        c = {k: v for k, v in common.items() if k != "num_hidden_layers"}
        c.update(layer_norm_epsilon=eps, head_dim=r.choice([8, 16, 32]), layers_block_type=[r.choice(["linear_attention", "full_attention", "moe", "mlp"]) for _ in range(layers)])
        c.update(mamba_num_heads=groups * r.choice([1, 2, 3]), mamba_head_dim=r.choice([8, 16, 24]), n_groups=groups, ssm_state_size=r.choice([8, 16, 64]), conv_kernel=r.choice([2, 3, 4]))
        c.update(use_bias=r.random() < 0.3, use_conv_bias=r.random() < 0.7, mlp_bias=r.random() < 0.3, mlp_hidden_act=r.choice(["relu2", "relu2", "silu"]), time_step_min=r.choice([0.001, 0.2]))
        c.update(n_group=routing, topk_group=kept, n_routed_experts=routing * each, num_experts_per_tok=r.randint(1, kept * each), norm_topk_prob=r.random() < 0.7)
        c.update(moe_intermediate_size=r.choice([8, 16, 37]), moe_shared_expert_intermediate_size=r.choice([8, 24, 37]), moe_latent_size=r.choice([None, 8, 24]), routed_scaling_factor=r.choice([1.0, 2.5]))
    elif kind == "falcon_h1":
        groups = r.choice([1, 1, 2, 4])
        heads, dim = groups * r.choice([1, 2, 3]), r.choice([8, 16, 24])
        c = dict(common, rms_norm_eps=eps, rope_parameters=rope_parameters, mamba_d_ssm=heads * dim, mamba_n_heads=heads, mamba_d_head=r.choice([dim, "auto"]), mamba_n_groups=groups)
        c.update(mamba_d_state=r.choice([8, 16, 64]), mamba_d_conv=r.choice([2, 3, 4]), mamba_conv_bias=r.random() < 0.7, mamba_proj_bias=r.random() < 0.3, projectors_bias=r.random() < 0.3)
        c.update(mamba_rms_norm=r.random() < 0.5, mamba_norm_before_gate=r.random() < 0.5, attention_bias=r.random() < 0.3, mlp_bias=r.random() < 0.3)
        c["time_step_limit"] = r.choice([[0.0, float("inf")], [0.1, 1.0]])
        c.update({f"{k}_multiplier": r.choice([1.0, 0.5, 1.3]) for k in ("lm_head", "embedding", "key", "attention_out", "attention_in", "ssm_in", "ssm_out")})
        if r.random() < 0.7:
            c.update(ssm_multipliers=[r.choice([1.0, 0.4, 1.2]) for _ in range(5)], mlp_multipliers=[r.choice([1.0, 0.6]) for _ in range(2)])
    elif kind in ("mamba", "falcon_mamba", "jamba"):
        shape = dict(state_size=r.choice([4, 8, 16, 24]), conv_kernel=r.choice([2, 3, 4]), expand=r.choice([1, 2, 3]), time_step_rank=r.choice(["auto", 1, 5, 8]), use_bias=r.random() < 0.3, use_conv_bias=r.random() < 0.7)
        c = {k: common[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers", "tie_word_embeddings")}
        if kind == "jamba":
            names = dict(state_size="mamba_d_state", conv_kernel="mamba_d_conv", expand="mamba_expand", time_step_rank="mamba_dt_rank", use_bias="mamba_proj_bias", use_conv_bias="mamba_conv_bias")
            c = dict(common, rms_norm_eps=eps, num_experts=experts, num_experts_per_tok=chosen, **{names[k]: v for k, v in shape.items()})
            for what in ("attn_layer", "expert_layer"):
                period = r.choice([1, 2, 3])
                c.update({f"{what}_period": period, f"{what}_offset": r.randrange(period)})
        else:
            c.update(shape, layer_norm_epsilon=eps, residual_in_fp32=r.random() < 0.5)
            if kind == "falcon_mamba":
                c["mixer_rms_eps"] = r.choice([1e-6, 1e-3])
    elif kind == "kimi_linear":
        heads, routing = r.choice([1, 2, 3]), r.choice([1, 1, 2])
        each, kept = r.choice([2, 3, 4]), r.randint(1, routing)
        c = dict(common, rms_norm_eps=eps, num_key_value_heads=common["num_attention_heads"], pad_token_id=0, bos_token_id=1, eos_token_id=2, attention_bias=r.random() < 0.2)
        c.update(kv_lora_rank=r.choice([16, 24]), q_lora_rank=r.choice([None, 16]), qk_nope_head_dim=r.choice([8, 16]), qk_rope_head_dim=r.choice([8, 16]), v_head_dim=r.choice([8, 16, 24]))
        c.update(linear_num_heads=heads, linear_head_dim=r.choice([8, 16, 24]), linear_conv_kernel_dim=r.choice([2, 3, 4]), n_shared_experts=r.choice([1, 2]), moe_intermediate_size=r.choice([8, 16, 37]))
        c.update(n_group=routing, topk_group=kept, num_local_experts=routing * each, num_experts_per_tok=r.randint(1, kept * each), norm_topk_prob=r.random() < 0.7, routed_scaling_factor=r.choice([1.0, 2.4]))
        if r.random() < 0.7:
            c["layer_types"] = [r.choice(["linear_attention", "full_attention"]) for _ in range(layers)]
        if r.random() < 0.5:
            c["mlp_layer_types"] = [r.choice(["dense", "sparse"]) for _ in range(layers)]
    elif kind == "olmo_hybrid":
        heads = r.choice([1, 2, 3, 4])
        c = dict(common, num_hidden_layers=max(layers, 2), rms_norm_eps=eps, attention_bias=r.random() < 0.3, linear_num_key_heads=heads, linear_num_value_heads=heads, pad_token_id=0, eos_token_id=2)
        c.update(linear_key_head_dim=r.choice([8, 16, 24]), linear_value_head_dim=r.choice([None, 8, 16]), linear_conv_kernel_dim=r.choice([2, 3, 4]), linear_allow_neg_eigval=r.random() < 0.6)
        c["rope_parameters"] = r.choice([rope_parameters, dict(rope_theta=None, rope_type="default")])
        if r.random() < 0.6:
            c["layer_types"] = ["linear_attention", "full_attention"] + [r.choice(["linear_attention", "full_attention"]) for _ in range(c["num_hidden_layers"] - 2)]
        how.update(v4=False, short=False, published=True, shard="1GB")
    elif kind == "zamba2":
        groups = r.choice([1, 1, 2])
        heads, dim, expand = groups * r.choice([1, 2, 3]), r.choice([8, 16, 24]), r.choice([1, 2])
        hidden = heads * dim // expand
        attention = r.choice([a for a in (1, 2, 3, 4) if 2 * hidden % (8 * a) == 0])
        c = dict(common, hidden_size=hidden, num_hidden_layers=max(layers, 2), num_attention_heads=attention, num_key_value_heads=attention, rms_norm_eps=eps, n_mamba_heads=heads, mamba_ngroups=groups)
        c.update(mamba_d_state=r.choice([8, 16, 64]), mamba_d_conv=r.choice([2, 3, 4]), mamba_expand=expand, add_bias_linear=r.random() < 0.3, num_mem_blocks=r.choice([1, 2]), adapter_rank=r.choice([3, 8]))
        c["layers_block_type"] = ["hybrid"] + [r.choice(["linear_attention", "hybrid"]) for _ in range(c["num_hidden_layers"] - 1)]
        c.update(use_shared_attention_adapter=r.random() < 0.5, use_mem_rope=r.random() < 0.5, hidden_act=r.choice(["gelu", "silu"]), rope_parameters=rope_parameters, time_step_min=r.choice([0.001, 0.2]))
    return c, how


def noise(kind, name, p, noise, config):
    if "embed_tokens" in name or "embeddings.weight" in name:
        spread = 1.2 if config.tie_word_embeddings else 2.5
        return noise * spread / config.hidden_size**0.5 / getattr(config, "embedding_multiplier", 1.0)
    if name.endswith("gate.weight"):
        return noise * 2.0 / p.shape[1] ** 0.5
    if name.endswith("expert_bias"):
        return noise * 0.1
    return None


def plain(c):
    """A configuration of transformers 4, with rope_theta beside rope_scaling and an Infinity that is not JSON."""
    parameters = dict(c.pop("rope_parameters", None) or {})
    if "rope_theta" in parameters:
        c["rope_theta"] = parameters.pop("rope_theta")
    parameters.pop("partial_rotary_factor", None)
    c["rope_scaling"] = parameters if "default" not in parameters.values() else None
    if "time_step_limit" in c:
        c["time_step_limit"] = [float("inf") if isinstance(x, dict) else x for x in c["time_step_limit"]]
    return c


def as_v4(kind, c):
    plain(c)
    for key in ("layer_types", "layers_block_type"):
        if kind in ("bamba", "granitemoehybrid", "zamba2") and c.get(key):
            c[key] = [LEGACY.get(t, t) for t in c[key]]
    if kind == "lfm2":
        c["tie_embedding"] = c.pop("tie_word_embeddings")
        c["block_ff_dim"] = c.pop("intermediate_size")
        if c.get("full_attn_idxs"):
            c.pop("layer_types")
    elif kind == "nemotron_h":
        types = c.pop("layers_block_type", None) or c.pop("layer_types")
        c["hybrid_override_pattern"] = "".join(dict(linear_attention="M", full_attention="*", mlp="-", moe="E")[t] for t in types)
        c.update(num_hidden_layers=len(types), attention_head_dim=c["head_dim"], rms_norm_eps=c["layer_norm_epsilon"], rope_theta=10000, time_step_rank=256)
        c.pop("mtp_layers_block_type", None)
    return c


def as_published(kind, tensors, config):
    if kind == "lfm2":
        config.update(block_dim=config["hidden_size"], block_use_swiglu=True, conv_dim=config["hidden_size"], num_heads=config["num_attention_heads"], use_pos_enc=True)
    elif kind == "olmo_hybrid":
        # transformers 5 saves equal thirds of what it has joined; published files have one tensor for each projection.
        for name in [n for n in tensors if n.endswith("q_conv1d.weight")]:
            names = [name.replace("q_conv1d", f"{x}_conv1d") for x in "qkv"]
            joined, at = torch.cat([tensors[n] for n in names]), 0
            for n in names:
                rows = len(tensors[n.replace("conv1d", "proj")])
                tensors[n], at = joined[at : at + rows].clone(), at + rows
    elif kind == "kimi_linear":
        types = config.pop("layer_types")
        layers = {t: [i + 1 for i, u in enumerate(types) if u == t] for t in LEGACY}
        config["linear_attn_config"] = dict(
            full_attn_layers=layers["full_attention"],
            kda_layers=layers["linear_attention"],
            head_dim=config.pop("linear_head_dim"),
            num_heads=config.pop("linear_num_heads"),
            short_conv_kernel_size=config.pop("linear_conv_kernel_dim"),
        )
        config.pop("mlp_layer_types")
        config.pop("qk_head_dim", None)
        config.update(first_k_dense_replace=1, mla_use_nope=True, moe_layer_freq=1, moe_router_activation_func="sigmoid", use_grouped_topk=True, num_nextn_predict_layers=0, rope_theta=10000.0)
    return tensors, config
