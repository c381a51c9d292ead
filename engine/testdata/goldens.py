"""Writes tiny random checkpoints and what transformers computes from them.

    python goldens.py [DIR [NAME...]]                  the committed set, into
                                                       this folder
    python goldens.py --fuzz N DIR [SEED [FAMILY...]]  N random variations of
                                                       each family

Each checkpoint is a folder with config.json, model.safetensors (or shards and
an index) and golden.json:

    prompt           token ids
    prompt_logprobs  of each prompt token given those before it, null first
    tokens           the greedy continuation
    logprobs         of each of those
    margins          best minus second-best log-probability at each
    routing_gap      of experts: the least difference between the scores of the
                     last one chosen and the first one left out
    cached           tokens, logprobs and margins computed with a cache, where
                     these are others (the -beyond of a dynamic rope)

Everything is computed in float32 with eager attention and without a cache, one
full forward pass per token, from the files as they were written, so that the
configuration is read back the way a user's is. Folders ending in -v4 have the
config.json of transformers 4, those with -hub the tensors' names and the extra
keys and tensors of what is published on the hub. Needs torch, transformers and
safetensors; the Go tests only read the folders. MILLRACE_HIDDEN names a folder
for what each module of each model returned for the prompt (NAME/hidden.npz).
"""

import json
import math
import os
import pathlib
import random
import shutil
import sys
import zlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config
from transformers.utils import logging

from families import LLAMA, SHAPE, dense, experts, hybrid, older, rope

MODULES = (older, dense, experts, hybrid)
GEMMA = dict(SHAPE, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)

# Between its bounds lie some of eight dimensions' four frequencies.
LOW_YARN = dict(YARN, rope_theta=1000.0, original_max_position_embeddings=1024)
LONGROPE = dict(
    rope_type="longrope",
    short_factor=[1.0, 1.1, 1.3, 1.8],
    long_factor=[1.2, 2.0, 4.5, 9.0],
)
GPT2 = dict(vocab_size=120, n_positions=256, n_embd=40, n_layer=2, n_head=5)
NEOX = dict(SHAPE, num_attention_heads=5)
BLOOM = dict(vocab_size=120, hidden_size=40, n_layer=2, n_head=5)
MIXTRAL = dict(SHAPE, hidden_size=32, intermediate_size=16, num_attention_heads=4, num_key_value_heads=2)
QWEN3_MOE = dict(MIXTRAL, intermediate_size=40, moe_intermediate_size=16, head_dim=16, num_experts=8, num_experts_per_tok=3)
GPT_OSS = dict(
    vocab_size=120,
    num_hidden_layers=2,
    hidden_size=32,
    intermediate_size=24,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    num_local_experts=4,
    num_experts_per_tok=2,
    sliding_window=14,
    swiglu_limit=2.5,
    max_position_embeddings=131072,
    rope_parameters=rope(150000.0, rope_type="yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False, original_max_position_embeddings=4096),
)
DEEPSEEK = dict(
    SHAPE,
    hidden_size=32,
    intermediate_size=40,
    moe_intermediate_size=16,
    num_attention_heads=2,
    num_key_value_heads=2,
    q_lora_rank=24,
    kv_lora_rank=16,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=32,
    n_routed_experts=8,
    n_group=4,
    topk_group=2,
    num_experts_per_tok=3,
    first_k_dense_replace=1,
    rms_norm_eps=1e-4,
    rope_parameters=rope(**dict(LOW_YARN, mscale=1.0, mscale_all_dim=0.7)),
)
QWEN3_5 = dict(
    SHAPE,
    hidden_size=32,
    intermediate_size=24,
    num_hidden_layers=4,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=8,
    rms_norm_eps=1e-4,
    rope_parameters=rope(1e5, partial_rotary_factor=0.25, mrope_section=[2, 1, 1], mrope_interleaved=True),
)
QWEN3_5_VISION = dict(
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
MAMBA2 = dict(
    vocab_size=120,
    hidden_size=32,
    num_hidden_layers=3,
    num_heads=8,
    head_dim=8,
    state_size=16,
    n_groups=1,
    pad_token_id=0,
)

# name, model type, config, and how it is stored
COMMITTED = [
    ("llama", "llama", LLAMA, {}),
    ("llama-llama3-v4", "llama", dict(LLAMA, rope_parameters=rope(5000.0, **LLAMA3)), dict(v4=True)),
    ("llama-yarn-sharded", "llama", dict(LLAMA, head_dim=16, rope_parameters=rope(**YARN)), dict(shard="60KB")),
    ("llama-linear-bias-v4", "llama", dict(LLAMA, num_key_value_heads=5, attention_bias=True, mlp_bias=True, rope_parameters=rope(rope_type="linear", factor=3.0)), dict(v4=True)),
    ("llama-tied-bf16", "llama", dict(LLAMA, hidden_size=72, num_attention_heads=3, tie_word_embeddings=True), dict(dtype=torch.bfloat16)),
    ("mistral-window", "mistral", dict(LLAMA, sliding_window=17), {}),
    ("mistral-f16-v4", "mistral", dict(LLAMA, head_dim=24, hidden_size=56, num_attention_heads=4, num_key_value_heads=2, sliding_window=None), dict(dtype=torch.float16, v4=True)),
    ("qwen2-tied-v4", "qwen2", dict(LLAMA, tie_word_embeddings=True), dict(v4=True)),
    ("qwen2-window", "qwen2", dict(LLAMA, use_sliding_window=True, sliding_window=9, max_window_layers=1), {}),
    ("qwen3", "qwen3", dict(LLAMA, head_dim=24, num_attention_heads=4, num_key_value_heads=2, rope_parameters=rope(1e6)), {}),
    ("qwen3-yarn-v4", "qwen3", dict(LLAMA, head_dim=16, tie_word_embeddings=True, rope_parameters=rope(**YARN)), dict(v4=True)),
    ("gemma", "gemma", dict(GEMMA, num_key_value_heads=1), {}),
    ("gemma2-v4", "gemma2", dict(GEMMA, sliding_window=12, query_pre_attn_scalar=24, attn_logit_softcapping=2.5, final_logit_softcapping=6.0), dict(v4=True)),
    ("gemma3", "gemma3_text", dict(GEMMA, num_hidden_layers=3, sliding_window=11, query_pre_attn_scalar=20, layer_types=["sliding_attention", "full_attention", "sliding_attention"]), {}),
    ("gemma3-linear-v4", "gemma3_text", dict(GEMMA, num_hidden_layers=3, sliding_window=20, sliding_window_pattern=2, rope_parameters=dict(full_attention=rope(1e6, rope_type="linear", factor=8.0), sliding_attention=rope())), dict(v4=True)),
    ("gemma3-vision", "gemma3", dict(text_config=dict(GEMMA, sliding_window=16, layer_types=["sliding_attention", "full_attention"]), vision_config=VISION), {}),
    ("phi3", "phi3", dict(LLAMA, num_attention_heads=5, num_key_value_heads=5, sliding_window=30, pad_token_id=0, eos_token_id=1), {}),
    ("phi3-partial-v4", "phi3", dict(LLAMA, hidden_size=48, num_attention_heads=2, num_key_value_heads=1, pad_token_id=0, eos_token_id=1, rope_parameters=rope(partial_rotary_factor=0.75)), dict(v4=True)),
]

# The salts were chosen for results far from ties, of tokens as of experts.
COMMITTED += [
    ("gpt2", "gpt2", dict(GPT2, n_inner=64, eos_token_id=7, bos_token_id=7), dict(salt="l")),
    ("gpt2-hub", "gpt2", dict(GPT2, n_positions=80), dict(dtype=torch.float16, published=True, prompt=48, salt="d")),
    ("gpt2-layer-scale", "gpt2", dict(GPT2, n_embd=48, n_head=6, n_layer=3, n_inner=40, scale_attn_by_inverse_layer_idx=True, activation_function="gelu", layer_norm_epsilon=1e-3, tie_word_embeddings=False), dict(dtype=torch.bfloat16, salt="v")),
    ("gpt-neox", "gpt_neox", dict(NEOX, layer_norm_eps=1e-3, rope_parameters=rope(partial_rotary_factor=0.5)), dict(salt="c")),
    ("gpt-neox-serial", "gpt_neox", dict(NEOX, hidden_size=48, num_attention_heads=2, use_parallel_residual=False, tie_word_embeddings=True), dict(dtype=torch.bfloat16, salt="k")),
    ("gpt-neox-hub-v4", "gpt_neox", dict(NEOX, hidden_size=48, num_attention_heads=3, intermediate_size=56, max_position_embeddings=128, rope_parameters=rope(5000.0, partial_rotary_factor=0.25)), dict(dtype=torch.float16, v4=True, published=True, salt="n")),
    ("bloom", "bloom", BLOOM, dict(dtype=torch.bfloat16, salt="i")),
    ("bloom-post-layernorm", "bloom", dict(BLOOM, hidden_size=32, n_head=4, layer_norm_epsilon=1e-3, apply_residual_connection_post_layernorm=True), dict(salt="n")),
    ("bloom-hub-v4", "bloom", dict(BLOOM, hidden_size=48, n_head=6), dict(dtype=torch.float16, v4=True, published=True, salt="m")),
    ("mixtral", "mixtral", MIXTRAL, dict(dtype=torch.bfloat16, salt="m")),
    ("mixtral-window-v4", "mixtral", dict(MIXTRAL, num_local_experts=4, sliding_window=19, rms_norm_eps=1e-3, rope_parameters=rope(30000.0)), dict(v4=True, shard="60KB", salt="x")),
    ("qwen3-moe", "qwen3_moe", dict(QWEN3_MOE, norm_topk_prob=True, rms_norm_eps=1e-3), dict(dtype=torch.bfloat16)),
    ("qwen3-moe-mixed-hub-v4", "qwen3_moe", dict(QWEN3_MOE, num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3], num_experts=6, num_experts_per_tok=2, tie_word_embeddings=True, rope_parameters=rope(1e6)), dict(dtype=torch.bfloat16, v4=True, published=True, salt="e")),
    ("gpt-oss", "gpt_oss", GPT_OSS, dict(salt="u")),
    ("gpt-oss-bf16", "gpt_oss", dict(GPT_OSS, num_hidden_layers=3, num_key_value_heads=1, intermediate_size=32, num_local_experts=6, num_experts_per_tok=4, swiglu_limit=7.0, sliding_window=20, rms_norm_eps=1e-3), dict(dtype=torch.bfloat16, salt="u")),
    ("gpt-oss-mxfp4-hub-v4", "gpt_oss", dict(GPT_OSS, hidden_size=64, intermediate_size=96, num_attention_heads=8, head_dim=8, num_local_experts=5, swiglu_limit=7.0), dict(dtype=torch.bfloat16, v4=True, published=True, salt="s")),
    ("deepseek-v3", "deepseek_v3", DEEPSEEK, dict(salt="o")),
    ("deepseek-v3-hub-v4", "deepseek_v3", dict(DEEPSEEK, num_hidden_layers=3, n_shared_experts=2, n_group=2, topk_group=1, num_experts_per_tok=2, rope_parameters=rope(**dict(LOW_YARN, factor=40.0, mscale=1.0, mscale_all_dim=1.0, beta_fast=32.0, beta_slow=1.0))), dict(dtype=torch.bfloat16, v4=True, published=True, prompt=40, salt="u")),
    ("deepseek-v3-q-v4", "deepseek_v3", dict(DEEPSEEK, q_lora_rank=None, n_group=1, topk_group=1, v_head_dim=16, norm_topk_prob=False, attention_bias=True, routed_scaling_factor=1.7, rope_parameters=rope()), dict(v4=True, salt="l")),
    ("gemma3-long", "gemma3_text", dict(GEMMA, hidden_size=32, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=7, sliding_window=24, query_pre_attn_scalar=16), dict(dtype=torch.bfloat16, prompt=120, salt="i")),
    ("qwen3_5", "qwen3_5_text", QWEN3_5, dict(prompt=75, salt="i")),
    ("qwen3_5-long", "qwen3_5_text", dict(QWEN3_5, layer_types=["linear_attention", "full_attention", "linear_attention"], num_hidden_layers=3, linear_num_key_heads=1, linear_num_value_heads=3, linear_conv_kernel_dim=3, attention_bias=True, tie_word_embeddings=True, rope_parameters=rope(partial_rotary_factor=0.5, mrope_section=[3, 3, 2])), dict(dtype=torch.bfloat16, prompt=200, salt="g")),
    ("qwen3_5-vision-hub", "qwen3_5", dict(text_config=QWEN3_5, vision_config=QWEN3_5_VISION), dict(dtype=torch.bfloat16, published=True, prompt=64, salt="o")),
    ("mamba2", "mamba2", MAMBA2, dict(prompt=70, salt="e")),
    ("mamba2-groups-v4", "mamba2", dict(MAMBA2, n_groups=2, conv_kernel=3, tie_word_embeddings=True, use_bias=True), dict(v4=True, prompt=130, salt="g")),
    ("mamba2-long", "mamba2", dict(MAMBA2, n_groups=2, head_dim=16, num_heads=6, expand=3, time_step_limit=[0.2, 1.1], use_conv_bias=False, chunk_size=64, residual_in_fp32=False), dict(dtype=torch.bfloat16, prompt=200, salt="m")),
    ("phi3-longrope", "phi3", dict(LLAMA, num_key_value_heads=5, max_position_embeddings=1024, original_max_position_embeddings=128, pad_token_id=0, eos_token_id=1, rope_parameters=rope(**LONGROPE)), dict(salt="l")),
    ("phi3-longrope-beyond-v4", "phi3", dict(LLAMA, num_key_value_heads=5, max_position_embeddings=1024, original_max_position_embeddings=64, pad_token_id=0, eos_token_id=1, rope_parameters=rope(**LONGROPE)), dict(v4=True, prompt=100, salt="x")),
    ("llama-dynamic", "llama", dict(LLAMA, max_position_embeddings=128, rope_parameters=rope(rope_type="dynamic", factor=4.0)), dict(salt="i")),
    ("llama-dynamic-beyond", "llama", dict(LLAMA, max_position_embeddings=64, rope_parameters=rope(rope_type="dynamic", factor=4.0)), dict(prompt=100, cached=True, salt="m")),
]

COMMITTED += [row for m in MODULES for row in m.COMMITTED]


def module(kind):
    """The module that has a family, or None."""
    return next((m for m in MODULES if kind in m.FAMILIES), None)


def own(kind, function):
    """What a family's module has in place of, or after, the common way; or None."""
    return getattr(module(kind), function, None)


NORMS = ("norm.weight", "norm_f.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "word_embeddings.", "embed_in", "backbone.embeddings")
QUERIES = ("q_proj", "k_proj", "q_b_proj", "query_key_value", "c_attn")


def randomise(model, generator):
    """Weights that make logits differ clearly and every parameter matter."""
    config = model.config.get_text_config()
    kind = config.model_type
    # A tied head sees each token's own embedding again: it must not drown the rest.
    spread = 0.7 if kind.startswith("gemma") and config.tie_word_embeddings else 2.5
    if kind in ("gpt2", "bloom", "gpt_neox", "qwen3_moe", "qwen3_5_text", "mamba2") and config.tie_word_embeddings:
        spread = 1.2
    buffers = ((n, b) for n, b in model.named_buffers() if n.endswith(("e_score_correction_bias", "expert_bias", "layer_scalar")))
    for name, p in (*model.named_parameters(), *buffers):
        noise = torch.randn(p.shape, generator=generator)
        special = own(kind, "noise") and own(kind, "noise")(kind, name, p, noise, config)
        if special is not None:
            noise = special
        elif "word_embeddings_layernorm" in name:
            noise = noise * 0.1 + (0.3 if name.endswith("weight") else 0.0)
        elif name.endswith(NORMS):
            centred = kind.startswith(("gemma", "qwen3_5")) and "linear_attn" not in name
            noise = noise * 0.3 + (0.0 if centred else 1.0)
        elif name.endswith("e_score_correction_bias"):
            noise = noise * 0.1
        elif name.endswith("dt_bias"):
            noise = noise * 0.5 - 1.0
        elif name.endswith("A_log"):
            noise = noise * 1.2 - 0.5
        elif name.endswith("gate_up_proj_bias"):
            noise = noise * 1.5  # some beyond the clamp
        elif name.endswith((".bias", "_bias")):
            noise = noise * (0.2 if "ln_" in name or "norm" in name else 0.5)
        elif p.dim() < 2:
            pass
        elif any(e in name for e in EMBEDDINGS):
            noise = noise * spread / config.hidden_size**0.5
        elif "wpe" in name:
            noise = noise * 0.15
        elif kind == "gpt2" and "visual" not in name:
            noise = noise * (1.5 if "attn." in name else 1.0) / p.shape[0] ** 0.5
        elif kind == "gpt_oss" and ".experts." in name:
            noise = noise * (1.5 if "gate_up" in name else 1.0) / p.shape[1] ** 0.5
        elif any(q in name for q in QUERIES) or name.endswith("attention.dense.weight"):
            noise = noise * 1.5 / p.shape[1] ** 0.5
        elif name.endswith(("mlp.gate.weight", "router.weight")):
            noise = noise * 2.0 / p.shape[1] ** 0.5
        else:
            noise = noise / p.shape[-1] ** 0.5
        p.data.copy_(noise)


def plain(config):
    """The configuration without transformers 5's spelling of an infinity."""
    limit = [math.inf if isinstance(x, dict) else x for x in config.get("time_step_limit", [])]
    return dict(config, time_step_limit=limit) if limit else config


def as_v4(config):
    """The config.json that transformers 4 would have written."""
    c = dict(config)
    c["torch_dtype"] = c.pop("dtype")
    c["transformers_version"] = "4.46.3"
    c.pop("_sliding_window_pattern", None)
    if (change := own(c["model_type"], "as_v4")) and (changed := change(c["model_type"], c)):
        return changed
    if c["model_type"] == "mamba2":
        c = plain(c)  # with an Infinity that is not JSON, but was written
    parameters = c.pop("rope_parameters", None)
    if parameters is None:
        return c
    if "full_attention" in parameters:
        c["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
    parameters = dict(parameters)
    if c["model_type"] == "gpt_neox":
        c["rotary_emb_base"] = parameters.pop("rope_theta")
        c["rotary_pct"] = parameters.pop("partial_rotary_factor")
    else:
        c["rope_theta"] = parameters.pop("rope_theta")
    if c["model_type"] in ("deepseek_v3", "phi3"):
        parameters["type"] = parameters.pop("rope_type")
    if c["model_type"] == "phi3":
        parameters.pop("original_max_position_embeddings", None)
    if "partial_rotary_factor" in parameters:
        c["partial_rotary_factor"] = parameters.pop("partial_rotary_factor")
    c["rope_scaling"] = parameters if "default" not in parameters.values() else None
    default = AutoConfig.for_model(**{k: v for k, v in config.items() if k != "layer_types"})
    if getattr(default, "layer_types", None) == c.get("layer_types"):
        c.pop("layer_types", None)  # follows from the other keys, as it did then
    return c


def terse(config):
    """Only what differs from the defaults, as some checkpoints have it."""
    different = AutoConfig.for_model(config["model_type"]).from_dict(plain(config)).to_diff_dict()
    keep = {"model_type", "architectures", "dtype", "rope_parameters", "layer_types"}
    return {k: v for k, v in config.items() if k in different or k in keep}


# Kept in float32 beside half-precision weights, as published ones are.
FLOAT32 = ("e_score_correction_bias", "A_log", "mixer.D", "dt_bias", "linear_attn.norm.weight")


def as_published(tensors, config):
    """Names, keys and extra tensors as files on the hub have them."""
    kind = config["model_type"]
    text = config.get("text_config", config)
    some = next(iter(tensors.values()))
    if change := own(kind, "as_published"):
        return change(kind, tensors, config)
    if kind in ("gpt2", "bloom"):
        tensors = {name.removeprefix("transformer."): t for name, t in tensors.items()}
    if kind == "gpt2":
        config["n_ctx"] = n = config["n_positions"]
        for i in range(config["n_layer"]):
            tensors[f"h.{i}.attn.bias"] = torch.ones(n, n).tril().view(1, 1, n, n).to(some.dtype)
            tensors[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4).to(some.dtype)
    elif kind == "bloom":
        config.update(n_embed=config.pop("hidden_size"), num_attention_heads=config.pop("n_head"), seq_length=2048, n_inner=None, offset_alibi=100)
    elif kind == "gpt_neox":
        n = config["max_position_embeddings"]
        for i in range(config["num_hidden_layers"]):
            prefix = f"gpt_neox.layers.{i}.attention."
            tensors[prefix + "bias"] = torch.ones(n, n).tril().view(1, 1, n, n).to(torch.uint8)
            tensors[prefix + "masked_bias"] = torch.tensor(-1e9).to(torch.float32)
            tensors[prefix + "rotary_emb.inv_freq"] = torch.full((3,), 7.0)
    elif kind == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")
    elif kind == "deepseek_v3":
        for key in ("head_dim", "qk_head_dim"):
            config.pop(key, None)
        config.update(moe_layer_freq=1, scoring_func="sigmoid", topk_method="noaux_tc", ep_size=1)
        hidden = config["hidden_size"]
        prefix = f"model.layers.{config['num_hidden_layers']}."
        for name in ("enorm", "hnorm", "input_layernorm", "shared_head.norm"):
            tensors[f"{prefix}{name}.weight"] = torch.full((hidden,), 7.0).to(some.dtype)
        tensors[prefix + "eh_proj.weight"] = torch.full((hidden, 2 * hidden), 7.0).to(some.dtype)
    elif kind in ("qwen3_5", "qwen3_5_text"):
        hidden = text["hidden_size"]
        text.update(full_attention_interval=4, attn_output_gate=True, mamba_ssm_dtype="float32", mtp_num_hidden_layers=1)
        tensors["mtp.fc.weight"] = torch.full((hidden, 2 * hidden), 7.0).to(some.dtype)
        tensors["mtp.norm.weight"] = torch.full((hidden,), 7.0).to(some.dtype)
        for name in ("input_layernorm", "self_attn.q_norm"):
            tensors[f"mtp.layers.0.{name}.weight"] = torch.full((hidden,), 7.0).to(some.dtype)
    elif kind == "gpt_oss":
        for name in [name for name in tensors if name.endswith("_proj") and ".experts." in name]:
            tensors[name + "_blocks"], tensors[name + "_scales"] = mxfp4(tensors.pop(name).float().mT)
        keep = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
        config["quantization_config"] = dict(quant_method="mxfp4", modules_to_not_convert=keep)
        config.update(experts_per_token=config["num_experts_per_tok"], initial_context_length=4096)
    return tensors, config


def mxfp4(weights):
    """The blocks and scales nearest to weights [experts, outputs, inputs]."""
    values = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    w = weights.unflatten(-1, (-1, 32))
    exponents = w.abs().amax(-1, keepdim=True).log2().floor().clamp(-100, 100) - 2
    w = torch.ldexp(w, -exponents)
    codes = (w.abs().unsqueeze(-1) - values).abs().argmin(-1) + 8 * (w < 0)
    blocks = codes[..., 0::2] | codes[..., 1::2] << 4
    return blocks.to(torch.uint8), (exponents.squeeze(-1) + 127).to(torch.uint8)


def routing_gaps(model, gaps):
    """Appends to gaps how near each choice of experts was to another."""

    def hook(router, _, output):
        scores = output[0].float()
        if hasattr(router, "e_score_correction_bias"):
            scores = scores.sigmoid() + router.e_score_correction_bias
            grouped = scores.unflatten(-1, (router.num_group, -1))
            if router.topk_group < router.num_group:
                best = grouped.topk(2).values.sum(-1).topk(router.topk_group + 1)
                gaps.append((best.values[:, -2] - best.values[:, -1]).min().item())
                chosen = torch.zeros_like(grouped[..., 0]).scatter(1, best.indices[:, :-1], 1)
                scores = grouped.masked_fill(chosen.unsqueeze(-1) == 0, -math.inf).flatten(-2)
        if router.top_k < router.num_experts:
            best = scores.topk(router.top_k + 1).values
            gaps.append((best[:, -2] - best[:, -1]).min().item())

    for module in model.modules():
        if type(module).__name__.lower().endswith("topkrouter"):
            module.register_forward_hook(hook)


def write_hidden(model, ids, folder):
    """What each module returned, for finding out where a result departs."""
    import numpy

    seen = {}

    def keep(name):
        def hook(_, __, output):
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, torch.Tensor):
                seen[name] = output.detach().float().numpy()

        return hook

    hooks = [m.register_forward_hook(keep(n)) for n, m in model.named_modules() if n and "visual" not in n]
    with torch.no_grad():
        out = model(torch.tensor([ids]), use_cache=False, output_hidden_states=True)
    for h in hooks:
        h.remove()
    for i, h in enumerate(out.hidden_states):
        seen[f"hidden_states.{i}"] = h.float().numpy()
    folder.mkdir(parents=True, exist_ok=True)
    numpy.savez_compressed(folder / "hidden.npz", logits=out.logits.float().numpy(), prompt=numpy.array(ids), **seen)


def generate(golden, count, next_scores, scores):
    """The greedy continuation: next_scores are those after the given token."""
    for _ in range(count):
        best, at = scores[-1].topk(2)
        golden["tokens"].append(at[0].item())
        golden["logprobs"].append(round(best[0].item(), 6))
        golden["margins"].append(round((best[0] - best[1]).item(), 6))
        scores = next_scores(golden["tokens"][-1])


def write(folder, kind, config, seed, dtype=torch.float32, v4=False, short=False, shard="1GB", prompt=None, count=28, published=False, cached=False, renamed=None):
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))
    with torch.no_grad():
        randomise(model, generator)
    exact = {n: p.data.clone() for n, p in (*model.named_parameters(), *model.named_buffers()) if n.endswith(FLOAT32)}
    model.to(dtype)
    for n, p in (*model.named_parameters(), *model.named_buffers()):
        if n in exact:
            p.data = exact[n]
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    if published:
        tensors, saved = as_published(load_file(folder / "model.safetensors"), saved)
        save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    if short:
        saved = terse(saved)
    if v4:
        saved = as_v4(dict(saved, **{k: config[k] for k in ("sliding_window_pattern",) if k in config}))
    saved.pop("_attn_implementation", None)
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")

    def load():
        how = dict(dtype=torch.float32, attn_implementation="eager")
        if "quantization_config" in saved:
            how["quantization_config"] = Mxfp4Config(dequantize=True)
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **how)
        if info["missing_keys"] or info["mismatched_keys"]:
            raise SystemExit(f"{folder.name}: {info}")
        model.eval()
        if prepare := own(kind, "prepare"):
            prepare(kind, model, folder)
        if hasattr(model, "set_experts_implementation"):
            model.set_experts_implementation("eager")
        return model

    model = load()
    length = prompt or int(torch.randint(40, 71, (1,), generator=generator))
    vocab = model.config.get_text_config().vocab_size
    ids = torch.randint(0, vocab, (length,), generator=generator).tolist()
    golden = dict(family=kind, prompt=list(ids), tokens=[], logprobs=[], margins=[])
    gaps = []
    routing_gaps(model, gaps)

    def logprobs(token=None):
        ids.extend([token] if token is not None else [])
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        return torch.log_softmax(logits.double(), -1)

    scores = logprobs()
    golden["prompt_logprobs"] = [None] + [round(scores[i, ids[i + 1]].item(), 6) for i in range(length - 1)]
    generate(golden, count, logprobs, scores)
    if gaps:
        golden["routing_gap"] = round(min(gaps), 6)
    if cached:
        # A fresh model, as it remembers the longest text that it has seen.
        model, cache = load(), None

        def cached_logprobs(*tokens):
            nonlocal cache
            with torch.no_grad():
                out = model(torch.tensor([tokens]), use_cache=True, cache=cache)
            cache = out.cache
            return torch.log_softmax(out.logits[0].double(), -1)

        golden["cached"] = dict(tokens=[], logprobs=[], margins=[])
        generate(golden["cached"], count, cached_logprobs, cached_logprobs(*golden["prompt"]))
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    if published and (finish := own(kind, "finish")):
        finish(kind, folder)
    if renamed:  # a model_type that transformers does not know, of the same model
        path.write_text(json.dumps(dict(json.loads(path.read_text()), model_type=renamed), indent=2, sort_keys=True) + "\n")
    for f in folder.iterdir():
        f.chmod(0o644)
    if os.environ.get("MILLRACE_HIDDEN"):
        write_hidden(load(), golden["prompt"], pathlib.Path(os.environ["MILLRACE_HIDDEN"]) / folder.name)
    size = sum(f.stat().st_size for f in folder.iterdir())
    gap = f", least routing gap {golden['routing_gap']}" if gaps else ""
    print(f"{folder.name}: {size // 1024} KiB, {length} prompt tokens, {len(set(golden['tokens']))} different ones generated, least margin {min(golden['margins'])}{gap}", flush=True)


FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma3", "phi3"]
FAMILIES_NEXT = ["gpt2", "gpt_neox", "bloom", "mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "qwen3_5_text", "qwen3_5", "mamba2", "phi3-longrope", "llama-dynamic"]


def variation(kind, r):
    """A random configuration of a family."""
    heads = r.choice([1, 2, 3, 4, 6, 8])
    kv = r.choice([k for k in range(1, heads + 1) if heads % k == 0])
    dim = r.choice([8, 16, 24, 32, 40, 64, 80, 96, 128, 256])
    layers = r.choice([1, 2, 3, 4, 7])
    hidden = heads * r.choice([8, 16, 24, 32, 40])
    c = dict(
        vocab_size=r.choice([97, 128, 151, 200, 333]),
        hidden_size=hidden,
        intermediate_size=r.choice([24, 50, 96, 131, 160]),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=r.choice([128, 512, 4096, 131072]),
        rms_norm_eps=r.choice([1e-6, 1e-5, 1e-3]),
        tie_word_embeddings=r.random() < 0.4,
    )
    how = dict(
        v4=r.random() < 0.5,
        short=r.random() < 0.3,
        dtype=r.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16]),
        shard=r.choice(["1GB", "50KB"]),
        prompt=r.choice([1, 2, 15, 16, 17, 33, 64, 100, 150]),
        count=r.choice([8, 24, 40]),
    )
    theta = r.choice([100.0, 10000.0, 500000.0, 1e6])
    layer_types = [r.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]
    window = r.choice([1, 3, 8, 16, 17, 50, 4096])
    scalings = [
        rope(theta),
        rope(theta, rope_type="linear", factor=r.choice([2.0, 4.5])),
        rope(theta, **dict(LLAMA3, factor=r.choice([2.0, 8.0, 32.0]), original_max_position_embeddings=r.choice([16, 64, 8192]))),
        rope(theta, **dict(YARN, factor=r.choice([2.0, 4.0, 40.0]), original_max_position_embeddings=r.choice([16, 64, 4096]))),
        rope(theta, **dict(YARN, attention_factor=1.3, beta_fast=16.0, beta_slow=2.0)),
        rope(theta, **dict(YARN, mscale=1.0, mscale_all_dim=0.7)),
        rope(theta, **dict(YARN, truncate=False)),
    ]
    if kind not in FAMILIES:
        if module(kind):
            c["layer_types"] = layer_types
            c["sliding_window"] = window
            c["rope_parameters"] = [s for s in scalings if s["rope_type"] != "llama3"]
            return module(kind).variation(kind, r, c, how)
        return variation_next(kind, r, c, how, [s for s in scalings if s["rope_type"] != "llama3"], layer_types, window)
    if kind in ("llama", "mistral", "qwen2", "qwen3"):
        c["rope_parameters"] = r.choice(scalings + scalings[:1] * 2)
        if kind in ("llama", "mistral") and r.random() < 0.5 or kind == "qwen3":
            c["head_dim"] = dim
    if kind == "llama":
        c.update(attention_bias=r.random() < 0.4, mlp_bias=r.random() < 0.4)
        c["hidden_act"] = r.choice(["silu", "silu", "gelu_pytorch_tanh"])
    elif kind == "mistral":
        c["sliding_window"] = r.choice([None, window])
    elif kind in ("qwen2", "qwen3"):
        if kind == "qwen3":
            c["attention_bias"] = r.random() < 0.3
        if r.random() < 0.6:
            c.update(use_sliding_window=True, sliding_window=window)
            if r.random() < 0.5:
                c["max_window_layers"] = r.randrange(layers + 1)
            else:
                c["layer_types"] = layer_types
        elif r.random() < 0.5:
            c.update(use_sliding_window=False, sliding_window=window, max_window_layers=0)
    elif kind.startswith("gemma"):
        c.update(head_dim=dim, attention_bias=r.random() < 0.3, tie_word_embeddings=r.random() < 0.8)
        c["rope_parameters"] = rope(theta)
        if kind != "gemma":
            c.update(sliding_window=window, query_pre_attn_scalar=r.choice([16, 100, 256]))
            if r.random() < 0.5:
                c["layer_types"] = layer_types
        if kind == "gemma2":
            c.update(attn_logit_softcapping=r.choice([None, 1.5, 50.0]), final_logit_softcapping=r.choice([None, 4.0, 30.0]))
        if kind == "gemma3_text":
            c["final_logit_softcapping"] = r.choice([None, None, 5.0])
            c["rope_parameters"] = dict(full_attention=r.choice(scalings[:4]), sliding_attention=rope(r.choice([10000.0, 500.0])))
            if "layer_types" not in c:
                c["sliding_window_pattern"] = r.choice([1, 2, 3, 6])
    elif kind == "phi3":
        # Its configuration knows no head_dim: fused rows and partial rope.
        c.update(sliding_window=r.choice([None, window]), pad_token_id=0, eos_token_id=1, bos_token_id=2)
        c["rope_parameters"] = rope(theta, partial_rotary_factor=r.choice([1.0, 1.0, 0.5, 0.75]))
    if kind == "gemma3":
        how.update(v4=False, short=False)
        c = dict(text_config=variation("gemma3_text", r)[0], vision_config=VISION)
        c["text_config"].update(final_logit_softcapping=None)
        c["tie_word_embeddings"] = c["text_config"]["tie_word_embeddings"]
    return c, how


def variation_next(kind, r, c, how, scalings, layer_types, window):
    """The same for the families in FAMILIES_NEXT, from what they have in common."""
    heads, layers, hidden = c["num_attention_heads"], c["num_hidden_layers"], c["hidden_size"]
    positions = dict(max_position_embeddings=c["max_position_embeddings"])
    published = r.random() < 0.4
    experts = r.choice([1, 2, 3, 4, 6, 8])
    chosen = r.randint(1, experts)
    small = r.choice([8, 16, 24, 37])
    if kind == "gpt2":
        c = dict(vocab_size=c["vocab_size"], n_embd=hidden, n_layer=layers, n_head=heads, tie_word_embeddings=r.random() < 0.8)
        c.update(n_positions=r.choice([200, 256, 300]), n_inner=r.choice([None, None, 24, 50]), layer_norm_epsilon=r.choice([1e-5, 1e-3]))
        c.update(scale_attn_by_inverse_layer_idx=r.random() < 0.4, scale_attn_weights=r.random() < 0.8, reorder_and_upcast_attn=r.random() < 0.2)
        c["activation_function"] = r.choice(["gelu_new", "gelu_new", "gelu", "gelu_pytorch_tanh", "relu"])
    elif kind == "gpt_neox":
        c = dict({k: c[k] for k in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "tie_word_embeddings")}, **positions)
        c.update(use_parallel_residual=r.random() < 0.6, attention_bias=r.random() < 0.8, layer_norm_eps=r.choice([1e-5, 1e-3]))
        c["hidden_act"] = r.choice(["gelu", "gelu", "gelu_new"])
        c["rope_parameters"] = dict(r.choice(scalings[:2]), partial_rotary_factor=r.choice([0.25, 0.25, 0.5, 1.0]))
        published = published and c["max_position_embeddings"] <= 512
    elif kind == "bloom":
        c = dict(vocab_size=c["vocab_size"], hidden_size=hidden, n_layer=layers, n_head=heads, layer_norm_epsilon=r.choice([1e-5, 1e-3]), tie_word_embeddings=r.random() < 0.8)
        if r.random() < 0.4:
            c.update(n_head=r.choice([3, 5, 6, 7, 11, 12]), hidden_size=1)
            c["hidden_size"] = c["n_head"] * r.choice([8, 16])
        c["apply_residual_connection_post_layernorm"] = r.random() < 0.4
    elif kind == "mixtral":
        c.update(intermediate_size=small, num_local_experts=experts, num_experts_per_tok=chosen, sliding_window=r.choice([None, window]))
        c["rope_parameters"] = r.choice(scalings)
        if r.random() < 0.5 or c["rope_parameters"]["rope_type"] == "yarn":  # which fails without
            c["head_dim"] = r.choice([8, 16, 32])
    elif kind == "qwen3_moe":
        c.update(moe_intermediate_size=small, num_experts=experts, num_experts_per_tok=chosen, norm_topk_prob=r.random() < 0.5)
        c.update(decoder_sparse_step=r.choice([1, 1, 2]), mlp_only_layers=r.choice([None, [], [r.randrange(layers)]]), attention_bias=r.random() < 0.3)
        c["rope_parameters"] = r.choice(scalings)
        if r.random() < 0.7:
            c["head_dim"] = r.choice([8, 16, 32, 64])
        if r.random() < 0.4:
            c.update(use_sliding_window=r.random() < 0.6, sliding_window=window)
    elif kind == "gpt_oss":
        c.update(num_local_experts=experts, num_experts_per_tok=chosen, head_dim=r.choice([8, 16, 24, 64]), sliding_window=window)
        c.update(swiglu_limit=r.choice([7.0, 7.0, 2.0]), attention_bias=r.random() < 0.8, intermediate_size=small)
        if published:
            c.update(hidden_size=r.choice([32, 64, 96]), intermediate_size=r.choice([32, 64, 96]))
        if r.random() < 0.4:
            c["layer_types"] = layer_types
        c["rope_parameters"] = r.choice([dict(scalings[-1], beta_fast=32.0, beta_slow=1.0), r.choice(scalings)])
    elif kind == "deepseek_v3":
        groups = r.choice([1, 2, 4])
        each = r.choice([2, 3, 4])
        kept = r.randint(1, groups)
        c.update(num_key_value_heads=heads, n_group=groups, topk_group=kept, n_routed_experts=groups * each, num_experts_per_tok=r.randint(1, kept * each))
        c.update(q_lora_rank=r.choice([None, 16, 24, 40]), kv_lora_rank=r.choice([16, 24, 48]), qk_nope_head_dim=r.choice([8, 16, 32]))
        c.update(qk_rope_head_dim=r.choice([4, 8, 16]), v_head_dim=r.choice([8, 16, 24, 40]), moe_intermediate_size=small, n_shared_experts=r.choice([1, 1, 2]))
        c.update(first_k_dense_replace=r.randint(0, layers), norm_topk_prob=r.random() < 0.7, routed_scaling_factor=r.choice([1.0, 2.5]))
        c.update(attention_bias=r.random() < 0.2, rope_interleave=r.random() < 0.8)
        yarn = dict(scalings[2], mscale=1.0, mscale_all_dim=r.choice([1.0, 0.7]))
        c["rope_parameters"] = r.choice([yarn, yarn, r.choice(scalings)])
    elif kind in ("qwen3_5_text", "qwen3_5"):
        keys = r.choice([1, 2, 3])
        c.update(head_dim=r.choice([16, 32, 64]), attention_bias=r.random() < 0.2, linear_num_key_heads=keys, linear_num_value_heads=keys * r.choice([1, 2, 3]))
        c.update(linear_key_head_dim=r.choice([8, 16, 24, 32]), linear_value_head_dim=r.choice([8, 16, 32]), linear_conv_kernel_dim=r.choice([2, 3, 4, 4, 5]))
        part = r.choice([0.25, 0.25, 0.5, 1.0])
        half = int(c["head_dim"] * part) // 2
        c["rope_parameters"] = rope(r.choice([1e4, 1e7]), partial_rotary_factor=part)
        if r.random() < 0.7:
            c["rope_parameters"].update(mrope_section=[half - 2 * (half // 3), half // 3, half // 3], mrope_interleaved=True)
        c["num_hidden_layers"] = r.choice([2, 3, 4, 5, 8])
        if r.random() < 0.5:
            c["full_attention_interval"] = r.choice([1, 2, 3, 4])
        else:
            c["layer_types"] = [r.choice(["linear_attention", "linear_attention", "full_attention"]) for _ in range(c["num_hidden_layers"])]
    elif kind == "mamba2":
        groups = r.choice([1, 1, 2, 4])
        expand = r.choice([1, 2, 2, 3])
        heads, dim = groups * r.choice([1, 2, 3]) * expand, r.choice([8, 16, 24])
        c = {k: c[k] for k in ("vocab_size", "num_hidden_layers", "tie_word_embeddings")}
        c.update(num_heads=heads, head_dim=dim, expand=expand, hidden_size=heads * dim // expand, n_groups=groups, state_size=r.choice([8, 16, 24, 64, 128]))
        c.update(conv_kernel=r.choice([2, 3, 4, 4]), use_bias=r.random() < 0.3, use_conv_bias=r.random() < 0.7, chunk_size=r.choice([16, 64, 256]))
        c.update(layer_norm_epsilon=r.choice([1e-5, 1e-3]), residual_in_fp32=r.random() < 0.5, pad_token_id=0)
        c["time_step_limit"] = r.choice([[0.0, math.inf], [0.0, math.inf], [0.1, 1.0], [0.3, math.inf]])
    elif kind == "phi3-longrope":
        part = r.choice([1.0, 0.75, 0.5])
        length = int(hidden // heads * part) // 2
        original = r.choice([32, 64, 4096])
        how.update(prompt=r.choice([1, 5, 20]) if r.random() < 0.5 else r.choice([70, 130]), count=8)
        c.update(max_position_embeddings=original * r.choice([1, 4, 32]), original_max_position_embeddings=original, pad_token_id=0, eos_token_id=1, bos_token_id=2)
        factors = {k: sorted(round(r.uniform(1.0, most), 3) for _ in range(length)) for k, most in (("short_factor", 2.0), ("long_factor", 20.0))}
        c["rope_parameters"] = rope(10000.0, rope_type="longrope", partial_rotary_factor=part, **factors)
        c["rope_parameters"].update(r.choice([{}, {}, dict(attention_factor=1.2), dict(factor=8.0)]))
        published = False
    elif kind.startswith("llama-dynamic"):
        c.update(max_position_embeddings=r.choice([64, 128]), rope_parameters=rope(r.choice([10000.0, 5e5]), rope_type="dynamic", factor=r.choice([2.0, 4.0, 8.0])))
        how.update(count=8, prompt=r.randint(1, c["max_position_embeddings"] - 8))
        if kind.endswith("beyond"):
            how.update(prompt=r.choice([130, 180]), cached=True)
        published = False
    if kind in ("qwen3_5_text", "qwen3_5", "mamba2"):
        how.update(prompt=r.choice([1, 2, 5, 63, 64, 65, 100, 129, 200]))
    if published:
        how.update(published=True, short=False, shard="1GB")
    if kind == "qwen3_5":
        how.update(v4=False, short=False)
        c = dict(text_config=c, vision_config=dict(QWEN3_5_VISION, out_hidden_size=hidden), tie_word_embeddings=c["tie_word_embeddings"])
    return c, how


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    args = sys.argv[1:]
    if args[:1] != ["--fuzz"]:
        root = pathlib.Path(args[0] if args else pathlib.Path(__file__).parent)
        for name, kind, config, how in COMMITTED:
            if not args[1:] or name in args[1:]:
                how = dict(how)
                write(root / name, kind, config, zlib.crc32((name + how.pop("salt", "")).encode()), **how)
        return
    count, root, seed = int(args[1]), pathlib.Path(args[2]), int(args[3]) if len(args) > 3 else 1
    for kind in args[4:] or FAMILIES + FAMILIES_NEXT + [k for m in MODULES for k in m.FAMILIES]:
        for i in range(count):
            r = random.Random(f"{kind} {seed} {i}")
            config, how = variation(kind, r)
            write(root / f"{kind}-{seed}-{i}", kind.split("-")[0], config, r.randrange(1 << 30), **how)


if __name__ == "__main__":
    main()
