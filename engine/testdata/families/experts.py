"""Mixtures of experts, and attention over latents."""

import torch
from transformers import AutoModelForCausalLM
from transformers.models.mistral4.modeling_mistral4 import Mistral4Config, Mistral4ForCausalLM

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
LATENT = dict(
    SMALL,
    num_attention_heads=2,
    num_key_value_heads=2,
    moe_intermediate_size=16,
    q_lora_rank=24,
    kv_lora_rank=16,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=32,
    n_routed_experts=8,
    num_experts_per_tok=3,
    rms_norm_eps=1e-4,
)
# Between its bounds lie some of eight dimensions' four frequencies.
YARN = rope(1000.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=1024, mscale=1.0, mscale_all_dim=0.7)
GLM4_MOE = dict(SMALL, head_dim=16, moe_intermediate_size=16, n_routed_experts=8, num_experts_per_tok=3, first_k_dense_replace=1)
MINIMAX = dict(SMALL, intermediate_size=16, head_dim=16, num_local_experts=8, num_experts_per_tok=3)
OLMOE = dict(SMALL, intermediate_size=16, num_experts=8, num_experts_per_tok=3, pad_token_id=0, eos_token_id=1)
GRANITE = dict(
    SMALL,
    intermediate_size=16,
    num_local_experts=8,
    num_experts_per_tok=3,
    embedding_multiplier=1.7,
    attention_multiplier=0.3,
    residual_multiplier=0.6,
    logits_scaling=0.8,
)
ERNIE = dict(SMALL, moe_intermediate_size=16, moe_num_experts=8, moe_k=3, moe_num_shared_experts=2, tie_word_embeddings=False)
HUNYUAN = dict(SMALL, intermediate_size=16, head_dim=16, num_experts=6, moe_topk=2, pad_token_id=0, eos_token_id=1)
EXAONE = dict(SMALL, head_dim=16, moe_intermediate_size=16, num_experts=8, num_experts_per_tok=3, sliding_window=14, sliding_window_pattern=3, num_hidden_layers=3)
SPARSE = dict(index_head_dim=16, index_n_heads=2, index_topk=128)
GROUPED = dict(n_group=4, topk_group=2)
BF16 = dict(dtype=torch.bfloat16)
AutoModelForCausalLM.register(Mistral4Config, Mistral4ForCausalLM, exist_ok=True)  # which it knows inside a multimodal model alone
MROPE = rope(1e5, partial_rotary_factor=0.25, mrope_section=[2, 1, 1], mrope_interleaved=True)

COMMITTED = [
    ("qwen2-moe", "qwen2_moe", dict(QWEN2_MOE, num_hidden_layers=3, decoder_sparse_step=2, use_sliding_window=True, sliding_window=14, max_window_layers=2, norm_topk_prob=True), dict(BF16, salt="c")),
    ("qwen2-moe-v4", "qwen2_moe", dict(QWEN2_MOE, mlp_only_layers=[1], qkv_bias=False, tie_word_embeddings=True), dict(BF16, v4=True, salt="f")),
    ("qwen3_5-moe", "qwen3_5_moe_text", dict(DELTA, rope_parameters=MROPE), dict(BF16, prompt=75)),
    ("qwen3_5-moe-vision-hub", "qwen3_5_moe", dict(text_config=dict(DELTA, num_hidden_layers=2, full_attention_interval=2, rope_parameters=MROPE), vision_config=VISION), dict(BF16, published=True, prompt=64, salt="h")),
    ("qwen3-next", "qwen3_next", dict(DELTA, num_hidden_layers=3, full_attention_interval=3, norm_topk_prob=False, mlp_only_layers=[0]), dict(BF16, prompt=70)),
    ("glm4-moe", "glm4_moe", dict(GLM4_MOE, use_qk_norm=True, routed_scaling_factor=1.5, **GROUPED), dict(BF16, salt="m")),
    ("glm4-moe-hub-v4", "glm4_moe", dict(GLM4_MOE, num_hidden_layers=3, attention_bias=True, n_shared_experts=2, rope_parameters=rope(1e6, partial_rotary_factor=0.5)), dict(BF16, v4=True, published=True, salt="z")),
    ("glm4-moe-lite-hub", "glm4_moe_lite", dict(LATENT, num_hidden_layers=3, mlp_layer_types=["dense", "sparse", "dense"]), dict(BF16, published=True, salt="n")),
    ("dots1", "dots1", dict(GLM4_MOE, n_shared_experts=2, norm_topk_prob=True, sliding_window=14, max_window_layers=1, num_hidden_layers=3), dict(BF16, salt="s")),
    ("solar-open", "solar_open", dict(GLM4_MOE, routed_scaling_factor=1.5, rope_parameters=rope(1e6)), dict(BF16, salt="w")),
    ("deepseek-v2", "deepseek_v2", dict(LATENT, first_k_dense_replace=1, topk_method="group_limited_greedy", routed_scaling_factor=1.7, rope_parameters=YARN, **GROUPED), dict(BF16, salt="a")),
    ("deepseek-v2-hub-v4", "deepseek_v2", dict(LATENT, q_lora_rank=None, first_k_dense_replace=1, n_group=1, topk_group=1, rope_parameters=YARN), dict(BF16, v4=True, published=True, salt="d")),
    ("kimi-k2", "deepseek_v3", dict(LATENT, first_k_dense_replace=1, n_group=1, topk_group=1, rope_parameters=YARN), dict(BF16, renamed="kimi_k2")),
    ("deepseek-v32", "deepseek_v32", dict(LATENT, first_k_dense_replace=1, rope_parameters=YARN, **GROUPED, **SPARSE), dict(BF16, salt="c")),
    ("glm-moe-dsa-hub", "glm_moe_dsa", dict(LATENT, first_k_dense_replace=1, indexer_types=["full", "shared"], **SPARSE), dict(BF16, published=True, salt="p")),
    ("mistral4", "mistral4", dict(LATENT, qk_nope_head_dim=24, first_k_dense_replace=1, n_group=2, topk_group=1, rope_parameters=dict(YARN, original_max_position_embeddings=16, llama_4_scaling_beta=0.4)), dict(BF16, prompt=50, salt="b")),
    ("minimax-m2", "minimax_m2", dict(MINIMAX, rope_parameters=rope(1e5, partial_rotary_factor=0.5)), dict(BF16, salt="c")),
    ("minimax-m2-hub-v4", "minimax_m2", dict(MINIMAX, num_key_value_heads=1, rope_parameters=rope(1e5, partial_rotary_factor=0.25)), dict(BF16, v4=True, published=True, salt="h")),
    ("olmoe", "olmoe", dict(OLMOE, clip_qkv=0.9, norm_topk_prob=True), dict(BF16, salt="n")),
    ("olmoe-v4", "olmoe", dict(OLMOE, tie_word_embeddings=True), dict(BF16, v4=True, salt="a")),
    ("flex-olmo", "flex_olmo", dict(OLMOE, attention_bias=True), dict(BF16, salt="z")),
    ("granite-moe-v4", "granitemoe", GRANITE, dict(BF16, v4=True, salt="a")),
    ("granite-moe-shared", "granitemoeshared", dict(GRANITE, shared_intermediate_size=24, attention_bias=True), BF16),
    ("ernie4_5-moe-hub", "ernie4_5_moe", dict(ERNIE, num_hidden_layers=3, moe_layer_end_index=1), dict(BF16, published=True, salt="d")),
    ("ernie4_5-moe-bias", "ernie4_5_moe", dict(ERNIE, use_bias=True, moe_layer_start_index=0, moe_num_shared_experts=0), dict(BF16, salt="g")),
    ("hunyuan-moe", "hunyuan_v1_moe", dict(HUNYUAN, attention_bias=True), dict(BF16, salt="s")),
    ("hunyuan-moe-hub-v4", "hunyuan_v1_moe", dict(HUNYUAN, tie_word_embeddings=True, rope_parameters=rope(rope_type="dynamic", alpha=1000.0, beta_fast=32, beta_slow=1, factor=1.0, mscale=1.0, mscale_all_dim=1.0)), dict(BF16, v4=True, published=True, salt="g")),
    ("exaone-moe-hub", "exaone_moe", dict(EXAONE, n_group=2), dict(BF16, published=True, salt="y")),
    ("qwen3-next-hub-v4", "qwen3_next", dict(DELTA, num_hidden_layers=2, full_attention_interval=2, linear_num_key_heads=1, linear_num_value_heads=3, tie_word_embeddings=True), dict(BF16, v4=True, published=True)),
]
LATENTS = ["glm4_moe_lite", "deepseek_v2", "deepseek_v32", "glm_moe_dsa", "mistral4"]
FAMILIES = ["qwen2_moe", "qwen3_5_moe_text", "qwen3_5_moe", "qwen3_next", "glm4_moe", "dots1", "solar_open", *LATENTS]
FAMILIES += ["minimax_m2", "olmoe", "flex_olmo", "granitemoe", "granitemoeshared", "ernie4_5_moe", "hunyuan_v1_moe", "exaone_moe"]


def noise(kind, name, p, noise, config):
    if "embed_tokens" in name and config.tie_word_embeddings:
        return noise * 1.2 / config.hidden_size**0.5
    if name.endswith("_layernorm.weight"):  # of queries and keys that were rotated
        return noise * 0.3 + 1.0
    if name.endswith("gate.wg.weight"):
        return noise * 2.0 / p.shape[1] ** 0.5
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


def as_v4(kind, c):
    parameters = c.get("rope_parameters") or {}
    if kind == "deepseek_v2":
        c.pop("rope_parameters")
        c["rope_theta"] = parameters.pop("rope_theta")
        kind = parameters.pop("rope_type")
        c["rope_scaling"] = None if kind == "default" else dict(parameters, type=kind)
        return c
    return None


def as_published(kind, tensors, config):
    text = config.get("text_config", config)
    some = next(iter(tensors.values()))
    hidden = text["hidden_size"]
    further = f"model.layers.{text['num_hidden_layers']}."  # predicts further tokens
    if kind in ("glm4_moe", "glm4_moe_lite", "glm_moe_dsa"):
        tensors[further + "eh_proj.weight"] = torch.full((hidden, 2 * hidden), 7.0).to(some.dtype)
        tensors[further + "shared_head.norm.weight"] = torch.full((hidden,), 7.0).to(some.dtype)
        config.pop("num_mtp_layers", None)
        config["num_nextn_predict_layers"] = 1
    if kind in LATENTS:
        for key in ("head_dim", "qk_head_dim"):
            config.pop(key, None)
    if kind in (*LATENTS, "exaone_moe"):
        softmax = kind in ("deepseek_v2", "mistral4")
        config.update(scoring_func="softmax" if softmax else "sigmoid", topk_method=config.get("topk_method") if softmax else "noaux_tc")
        config.update(ep_size=1, moe_layer_freq=1)
    if kind == "minimax_m2":
        c = config.pop("rope_parameters")
        config.update(rope_theta=c["rope_theta"], rotary_dim=int(config["head_dim"] * c["partial_rotary_factor"]))
        config.update(use_qk_norm=True, qk_norm_type="per_layer", use_routing_bias=True, scoring_func="sigmoid", attn_type_list=[1, 1])
        config.update(layernorm_mlp_beta=1.0, num_mtp_modules=3, use_mtp=True, shared_intermediate_size=0, mlp_intermediate_size=64)
    if kind == "ernie4_5_moe":
        tensors["model.mtp_linear_proj.0.weight"] = torch.full((hidden, 2 * hidden), 7.0).to(some.dtype)
        config.update(moe_capacity=[64, 64, 64], moe_use_aux_free=True, num_nextn_predict_layers=1)
    if kind == "hunyuan_v1_moe":
        for key, one in (("moe_topk", config["moe_topk"]), ("moe_intermediate_size", config["intermediate_size"]), ("num_shared_expert", 1)):
            config[key] = [one] * config["num_hidden_layers"]
        config.update(use_qk_norm=True, use_mixed_mlp_moe=True, norm_type="rms", use_cla=False, cla_share_factor=2)
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
    elif kind in LATENTS:
        latent(kind, r, c)
    elif kind in ("glm4_moe", "dots1", "solar_open", "exaone_moe"):
        c.update(grouped(r), head_dim=r.choice([8, 16, 32]), moe_intermediate_size=small, attention_bias=r.random() < 0.3)
        c.update(routed_scaling_factor=r.choice([1.0, 2.5]), norm_topk_prob=r.random() < 0.7, n_shared_experts=r.choice([1, 1, 2]))
        if kind != "solar_open":
            c["first_k_dense_replace"] = r.randint(0, layers)
        if kind == "glm4_moe":
            c["use_qk_norm"] = r.random() < 0.5
        if kind == "glm4_moe" and r.random() < 0.7:
            c["rope_parameters"] = rope(1e5, partial_rotary_factor=r.choice([0.25, 0.5, 1.0]))
        if kind == "dots1":
            c.update(sliding_window=r.choice([None, window]), max_window_layers=r.randint(0, layers))
        if kind == "exaone_moe":
            c.pop("attention_bias")
            c.update(num_experts=c.pop("n_routed_experts"), num_shared_experts=c.pop("n_shared_experts"), sliding_window=window, sliding_window_pattern=r.choice([1, 2, 4]))
            if r.random() < 0.4:
                c["layer_types"] = layer_types
    elif kind == "minimax_m2":
        c.update(experts(r, "num_local_experts", "num_experts_per_tok"), intermediate_size=small, head_dim=r.choice([16, 32]))
        c["rope_parameters"] = rope(r.choice([1e4, 5e6]), partial_rotary_factor=r.choice([0.25, 0.5, 1.0]))
    elif kind in ("olmoe", "flex_olmo"):
        c.update(experts(r, "num_experts", "num_experts_per_tok"), intermediate_size=small, norm_topk_prob=r.random() < 0.5, attention_bias=r.random() < 0.3)
        c.update(pad_token_id=0, eos_token_id=1, rope_parameters=scalings[0])
        if kind == "olmoe":
            c["clip_qkv"] = r.choice([None, 0.5, 1.5])
    elif kind.startswith("granitemoe"):
        c.update(experts(r, "num_local_experts", "num_experts_per_tok"), intermediate_size=small, rope_parameters=scalings[0], attention_bias=r.random() < 0.3)
        c.update(embedding_multiplier=r.choice([1.0, 2.0]), attention_multiplier=r.choice([0.2, 0.5]), residual_multiplier=r.choice([1.0, 0.4]), logits_scaling=r.choice([1.0, 1.5, 0.5]))
        if kind.endswith("shared"):
            c["shared_intermediate_size"] = r.choice([0, 24, 31])
    elif kind == "ernie4_5_moe":
        c.update(experts(r, "moe_num_experts", "moe_k"), moe_intermediate_size=small, moe_num_shared_experts=r.choice([0, 1, 2]), use_bias=r.random() < 0.3)
        c.update(moe_layer_start_index=r.randint(0, layers), moe_layer_end_index=r.choice([-1, layers - 1, 0]), moe_layer_interval=r.choice([1, 1, 2]))
        c["rope_parameters"] = scalings[0]
        if c["use_bias"]:
            c["tie_word_embeddings"] = False
    elif kind == "hunyuan_v1_moe":
        c.update(experts(r, "num_experts", "moe_topk"), intermediate_size=small, head_dim=r.choice([8, 16, 32]), attention_bias=r.random() < 0.3, pad_token_id=0, eos_token_id=1)
        if r.random() < 0.5:
            c["rope_parameters"] = rope(rope_type="dynamic", alpha=r.choice([2.0, 1000.0]), factor=1.0)
    if how["published"]:
        how.update(short=False, shard="1GB")
    if kind == "qwen3_5_moe":
        how.update(v4=False, short=False)
        c = dict(text_config=c, vision_config=dict(VISION, out_hidden_size=hidden), tie_word_embeddings=c["tie_word_embeddings"])
    return c, how


def grouped(r):
    """Experts in groups, some of which take part."""
    groups, each = r.choice([1, 2, 4]), r.choice([2, 3, 4])
    kept = r.randint(1, groups)
    return dict(n_group=groups, topk_group=kept, n_routed_experts=groups * each, num_experts_per_tok=r.randint(1, kept * each))


def latent(kind, r, c):
    """Attention over latents."""
    layers, heads = c["num_hidden_layers"], c["num_attention_heads"]
    ranks = [16, 24, 40] if kind in ("deepseek_v32", "glm_moe_dsa") else [None, 16, 24, 40]
    c.update(grouped(r), num_key_value_heads=heads, moe_intermediate_size=r.choice([8, 16, 24, 37]), n_shared_experts=r.choice([1, 1, 2]))
    c.update(q_lora_rank=r.choice(ranks), kv_lora_rank=r.choice([16, 24, 48]), qk_nope_head_dim=r.choice([8, 16, 32]))
    c.update(qk_rope_head_dim=r.choice([8, 16]), v_head_dim=r.choice([8, 16, 24, 40]), attention_bias=r.random() < 0.2, routed_scaling_factor=r.choice([1.0, 2.5]))
    yarn = rope(10000.0, rope_type="yarn", factor=r.choice([2.0, 40.0]), original_max_position_embeddings=r.choice([16, 64, 4096]), mscale=1.0, mscale_all_dim=r.choice([1.0, 0.7]))
    c["rope_parameters"] = r.choice([yarn, yarn, rope(1e5)])
    if kind == "glm4_moe_lite":
        c["mlp_layer_types"] = r.choice([None, [r.choice(["dense", "sparse"]) for _ in range(layers)]])
        c["rope_interleave"] = r.random() < 0.8
    else:
        c["first_k_dense_replace"] = r.randint(0, layers)
    if kind == "deepseek_v2":
        c.update(topk_method=r.choice(["greedy", "group_limited_greedy"]), mlp_bias=r.random() < 0.2)
    else:
        c["norm_topk_prob"] = r.random() < 0.7
    if kind in ("deepseek_v32", "glm_moe_dsa"):
        c.update(index_head_dim=r.choice([16, 24]), index_n_heads=r.choice([1, 2]), index_topk=256)
    if kind == "glm_moe_dsa":
        c["indexer_types"] = ["full"] + [r.choice(["full", "shared"]) for _ in range(layers - 1)]
    if kind == "mistral4":
        c["rope_parameters"] = dict(yarn, llama_4_scaling_beta=r.choice([0.0, 0.1, 0.4]))


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
