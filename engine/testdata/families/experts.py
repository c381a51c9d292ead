"""Mixtures of experts, and attention over latents."""

import torch

from . import SHAPE, rope

SMALL = dict(SHAPE, hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2)
QWEN2_MOE = dict(SMALL, moe_intermediate_size=16, shared_expert_intermediate_size=24, num_experts=8, num_experts_per_tok=3)
DELTA = dict(
    SMALL,
    num_hidden_layers=4,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    moe_intermediate_size=16,
    shared_expert_intermediate_size=24,
    num_experts=8,
    num_experts_per_tok=3,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=8,
    rms_norm_eps=1e-4,
    rope_parameters=rope(1e5, partial_rotary_factor=0.25),
)
VISION = dict(
    depth=1,
    hidden_size=8,
    intermediate_size=8,
    num_heads=1,
    patch_size=2,
    spatial_merge_size=1,
    temporal_patch_size=1,
    out_hidden_size=32,
    num_position_embeddings=4,
)
MROPE = rope(1e5, partial_rotary_factor=0.25, mrope_section=[2, 1, 1], mrope_interleaved=True)

COMMITTED = [
    ("qwen2-moe", "qwen2_moe", dict(QWEN2_MOE, num_hidden_layers=3, decoder_sparse_step=2, use_sliding_window=True, sliding_window=14, max_window_layers=2, norm_topk_prob=True), dict(dtype=torch.bfloat16)),
    ("qwen2-moe-v4", "qwen2_moe", dict(QWEN2_MOE, mlp_only_layers=[1], qkv_bias=False, tie_word_embeddings=True), dict(dtype=torch.bfloat16, v4=True)),
    ("qwen3_5-moe", "qwen3_5_moe_text", dict(DELTA, rope_parameters=MROPE), dict(dtype=torch.bfloat16, prompt=75)),
    ("qwen3_5-moe-vision-hub", "qwen3_5_moe", dict(text_config=dict(DELTA, num_hidden_layers=2, full_attention_interval=2, rope_parameters=MROPE), vision_config=VISION), dict(dtype=torch.bfloat16, published=True, prompt=64)),
    ("qwen3-next", "qwen3_next", dict(DELTA, num_hidden_layers=3, full_attention_interval=3, norm_topk_prob=False, mlp_only_layers=[0]), dict(dtype=torch.bfloat16, prompt=70)),
    ("qwen3-next-hub-v4", "qwen3_next", dict(DELTA, num_hidden_layers=2, full_attention_interval=2, linear_num_key_heads=1, linear_num_value_heads=3, tie_word_embeddings=True), dict(dtype=torch.bfloat16, v4=True, published=True)),
]
FAMILIES = ["qwen2_moe", "qwen3_5_moe_text", "qwen3_5_moe", "qwen3_next"]


def noise(kind, name, p, noise, config):
    if "embed_tokens" in name and config.tie_word_embeddings:
        return noise * 1.2 / config.hidden_size**0.5
    if kind == "qwen3_next" and name.endswith("norm.weight") and "linear_attn" not in name:
        return noise * 0.3
    return None


def fused(tensors, gate_up, down):
    """Experts' projections in two tensors a layer, as some checkpoints have them."""
    for name in [n for n in tensors if ".experts.0.gate_proj" in n]:
        prefix = name.removesuffix("0.gate_proj.weight")
        count = sum(n.startswith(prefix) and n.endswith("gate_proj.weight") for n in tensors)
        each = [[tensors.pop(f"{prefix}{e}.{p}_proj.weight") for p in ("gate", "up", "down")] for e in range(count)]
        tensors[prefix + gate_up] = torch.stack([torch.cat([g, u]) for g, u, _ in each])
        tensors[prefix + down] = torch.stack([d for _, _, d in each])


def as_published(kind, tensors, config):
    text = config.get("text_config", config)
    some = next(iter(tensors.values()))
    hidden = text["hidden_size"]
    if kind.startswith("qwen3_"):
        tensors["mtp.fc.weight"] = torch.full((hidden, 2 * hidden), 7.0).to(some.dtype)
        tensors["mtp.layers.0.mlp.gate.weight"] = torch.full((8, hidden), 7.0).to(some.dtype)
    if kind.startswith("qwen3_5"):
        fused(tensors, "gate_up_proj", "down_proj")
        text.update(full_attention_interval=4, attn_output_gate=True, mamba_ssm_dtype="float32", mtp_num_hidden_layers=1, mtp_use_dedicated_embeddings=False)
    return tensors, config


def experts(r, count, chosen):
    n = r.choice([1, 2, 3, 4, 6, 8])
    return {count: n, chosen: r.randint(1, n)}


def variation(kind, r, c, how):
    window, layer_types, scalings = c.pop("sliding_window"), c.pop("layer_types"), c.pop("rope_parameters")
    layers, hidden = c["num_hidden_layers"], c["hidden_size"]
    small = r.choice([8, 16, 24, 37])
    how.update(published=r.random() < 0.4)
    c["rope_parameters"] = r.choice(scalings)
    if kind in ("qwen2_moe", "qwen3_next") or kind.startswith("qwen3_5_moe"):
        c.update(experts(r, "num_experts", "num_experts_per_tok"), moe_intermediate_size=small, shared_expert_intermediate_size=r.choice([8, 24, 30]))
        if not kind.startswith("qwen3_5"):
            c.update(norm_topk_prob=r.random() < 0.5, decoder_sparse_step=r.choice([1, 1, 2]), mlp_only_layers=r.choice([None, [], [r.randrange(layers)]]))
    if kind == "qwen2_moe":
        c["qkv_bias"] = r.random() < 0.7
        c["rope_parameters"] = scalings[0]  # its config has no head_dim, without which YaRN fails
        if r.random() < 0.5:
            c.update(use_sliding_window=r.random() < 0.7, sliding_window=window, max_window_layers=r.randint(0, layers))
            if c["use_sliding_window"] and r.random() < 0.5:
                c["layer_types"] = layer_types
    elif kind.startswith("qwen3"):
        delta(kind, r, c, how)
    if how["published"]:
        how.update(short=False, shard="1GB")
    if kind == "qwen3_5_moe":
        how.update(v4=False, short=False)
        c = dict(text_config=c, vision_config=dict(VISION, out_hidden_size=hidden), tie_word_embeddings=c["tie_word_embeddings"])
    return c, how


def delta(kind, r, c, how):
    """Gated delta nets beside gated attention."""
    keys = r.choice([1, 2, 3])
    c.update(head_dim=r.choice([16, 32, 64]), attention_bias=r.random() < 0.2, linear_num_key_heads=keys, linear_num_value_heads=keys * r.choice([1, 2, 3]))
    c.update(linear_key_head_dim=r.choice([8, 16, 24, 32]), linear_value_head_dim=r.choice([8, 16, 32]), linear_conv_kernel_dim=r.choice([2, 3, 4, 4, 5]))
    part = r.choice([0.25, 0.25, 0.5, 1.0])
    half = int(c["head_dim"] * part) // 2
    c["rope_parameters"] = rope(r.choice([1e4, 1e7]), partial_rotary_factor=part)
    if kind != "qwen3_next" and r.random() < 0.7:
        c["rope_parameters"].update(mrope_section=[half - 2 * (half // 3), half // 3, half // 3], mrope_interleaved=True)
    c["num_hidden_layers"] = r.choice([2, 3, 4, 5])
    if c.get("mlp_only_layers"):
        c["mlp_only_layers"] = [0]
    if r.random() < 0.5:
        c["full_attention_interval"] = r.choice([1, 2, 3, 4])
    else:
        c["layer_types"] = [r.choice(["linear_attention", "linear_attention", "full_attention"]) for _ in range(c["num_hidden_layers"])]
    how.update(prompt=r.choice([1, 2, 5, 63, 64, 65, 100, 129, 200]))
