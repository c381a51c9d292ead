"""The first generations of decoders: learned positions, ALiBi, parallel blocks."""

import torch

from . import LLAMA, SHAPE, rope

GPT = dict(vocab_size=120, n_positions=128, n_embd=40, n_layer=2, n_head=5, n_inner=48)
OPT = dict(vocab_size=120, hidden_size=40, num_hidden_layers=2, num_attention_heads=5, ffn_dim=48, max_position_embeddings=128, word_embed_proj_dim=40)
NEO = dict(vocab_size=120, hidden_size=40, num_layers=2, num_heads=5, intermediate_size=48, max_position_embeddings=128, attention_types=[[["global", "local"], 1]], window_size=13)
FALCON = dict(vocab_size=120, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, ffn_hidden_size=56)
PLAIN = dict(SHAPE, num_attention_heads=5)
BF16 = dict(dtype=torch.bfloat16)

COMMITTED = [
    ("opt", "opt", OPT, dict(BF16)),
    ("opt-post-norm-v4", "opt", dict(OPT, do_layer_norm_before=False, activation_function="gelu"), dict(BF16, v4=True)),
    ("opt-plain-hub", "opt", dict(OPT, enable_bias=False, layer_norm_elementwise_affine=False), dict(BF16, published=True)),
    ("gpt-neo", "gpt_neo", NEO, dict(BF16)),
    ("gpt-neo-hub-v4", "gpt_neo", dict(NEO, hidden_size=48, num_heads=3, num_layers=3, attention_types=[[["local"], 2], [["global"], 1]], layer_norm_epsilon=1e-3), dict(dtype=torch.float16, v4=True, published=True)),
    ("gptj", "gptj", dict(GPT, n_embd=48, n_head=3, rotary_dim=12), dict(BF16)),
    ("gptj-hub-v4", "gptj", dict(GPT, rotary_dim=8, tie_word_embeddings=True, layer_norm_epsilon=1e-3), dict(dtype=torch.float16, v4=True, published=True)),
    ("codegen", "codegen", dict(GPT, n_head=5, rotary_dim=4), dict(BF16)),
    ("codegen-hub-v4", "codegen", dict(GPT, n_embd=64, n_head=4, rotary_dim=16), dict(dtype=torch.float16, v4=True, published=True)),
    ("gpt-bigcode", "gpt_bigcode", GPT, dict(BF16)),
    ("gpt-bigcode-heads-hub-v4", "gpt_bigcode", dict(GPT, multi_query=False, activation_function="gelu", layer_norm_epsilon=1e-3), dict(dtype=torch.float16, v4=True, published=True)),
    ("falcon", "falcon", FALCON, dict(BF16)),
    ("falcon-new", "falcon", dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, rope_parameters=rope(50000.0), tie_word_embeddings=False), dict(BF16)),
    ("falcon-new-one-norm-v4", "falcon", dict(FALCON, new_decoder_architecture=True, num_kv_heads=3, num_ln_in_parallel_attn=1, bias=True), dict(BF16, v4=True)),
    ("falcon-alibi", "falcon", dict(FALCON, alibi=True, multi_query=False, parallel_attn=False, bias=True), dict(BF16)),
    ("phi", "phi", dict(PLAIN, hidden_size=48, num_attention_heads=3), dict(BF16)),
    ("phi-norms-v4", "phi", dict(PLAIN, num_attention_heads=4, num_key_value_heads=2, hidden_size=64, qk_layernorm=True, rope_parameters=rope(5000.0, partial_rotary_factor=0.25)), dict(BF16, v4=True)),
    ("persimmon", "persimmon", dict(PLAIN, hidden_size=48, num_attention_heads=3, layer_norm_eps=1e-3), dict(BF16)),
    ("persimmon-no-norms-v4", "persimmon", dict(PLAIN, qk_layernorm=False, rope_parameters=rope(25000.0, partial_rotary_factor=0.25)), dict(BF16, v4=True)),
    ("stablelm", "stablelm", dict(PLAIN, hidden_size=48, num_attention_heads=3, num_key_value_heads=1, use_qkv_bias=True), dict(BF16)),
    ("stablelm-norms-v4", "stablelm", dict(PLAIN, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, qk_layernorm=True, use_parallel_residual=True), dict(BF16, v4=True)),
    ("starcoder2", "starcoder2", dict(LLAMA, sliding_window=11), dict(BF16)),
    ("starcoder2-no-bias-v4", "starcoder2", dict(LLAMA, use_bias=False, tie_word_embeddings=False, norm_epsilon=1e-3, rope_parameters=rope(1e6)), dict(BF16, v4=True)),
    ("nanochat", "nanochat", dict(LLAMA, final_logit_softcapping=6.0), dict(BF16)),
]
FAMILIES = ["opt", "gpt_neo", "gptj", "codegen", "gpt_bigcode", "falcon", "phi", "persimmon", "stablelm", "starcoder2", "nanochat"]

ACTS = ["gelu_new", "gelu", "relu", "gelu_pytorch_tanh", "silu"]


def variation(kind, r, c, how):
    heads, layers, hidden = c["num_attention_heads"], c["num_hidden_layers"], c["hidden_size"]
    inner = c["intermediate_size"]
    tied = c["tie_word_embeddings"]
    eps = r.choice([1e-5, 1e-5, 1e-3])
    ropes = c.pop("rope_parameters")
    c.pop("layer_types")
    window = c.pop("sliding_window")
    c.pop("rms_norm_eps")
    some = lambda p: r.random() < p
    part = r.choice([0.25, 0.5, 0.5, 1.0])
    if int(hidden // heads * part) % 2:
        part = 0.5
    how["published"] = some(0.4)
    old = dict(vocab_size=c["vocab_size"], tie_word_embeddings=tied)
    gpt = dict(old, n_embd=hidden, n_layer=layers, n_head=heads, n_positions=r.choice([200, 256]), n_inner=r.choice([None, inner]), layer_norm_epsilon=eps)
    base = dict(old, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, max_position_embeddings=r.choice([200, 256, 512]))
    if kind == "opt":
        c = dict(base, ffn_dim=inner, word_embed_proj_dim=hidden, activation_function=r.choice(ACTS), enable_bias=some(0.7))
        c.update(do_layer_norm_before=some(0.7), layer_norm_elementwise_affine=some(0.8), _remove_final_layer_norm=some(0.2))
    elif kind == "gpt_neo":
        types = [r.choice(["global", "local"]) for _ in range(layers)]
        c = dict(old, hidden_size=hidden, num_layers=layers, num_heads=heads, intermediate_size=r.choice([None, inner]), max_position_embeddings=200)
        c.update(attention_types=r.choice([[[types, 1]], [[[t], 1] for t in types]]), window_size=window, layer_norm_epsilon=eps, activation_function=r.choice(ACTS))
    elif kind in ("gptj", "codegen"):
        c = dict(gpt, rotary_dim=r.choice([2, 4, 8, hidden // heads]), activation_function=r.choice(ACTS))
    elif kind == "gpt_bigcode":
        c = dict(gpt, multi_query=some(0.6), scale_attn_weights=some(0.8), activation_function=r.choice(ACTS))
    elif kind == "falcon":
        c = dict(base, ffn_hidden_size=r.choice([None, inner]), layer_norm_epsilon=eps, bias=some(0.4), activation=r.choice(["gelu", "gelu_new", "relu"]))
        c["rope_parameters"] = r.choice(ropes)
        if some(0.4):
            c.update(new_decoder_architecture=True, num_kv_heads=r.choice([k for k in range(1, heads + 1) if heads % k == 0]), num_ln_in_parallel_attn=r.choice([None, 1, 2]))
        else:
            c.update(multi_query=some(0.5), parallel_attn=some(0.5))
        if some(0.4):
            c.update(alibi=True, rope_parameters=None)
    elif kind in ("phi", "persimmon", "stablelm", "starcoder2", "nanochat"):
        kv = c["num_key_value_heads"]
        c = dict(base, intermediate_size=inner, layer_norm_eps=eps)
        if kind != "persimmon":
            c["num_key_value_heads"] = kv
        c["rope_parameters"] = dict(r.choice(ropes))
        if kind in ("phi", "persimmon", "stablelm"):
            c["rope_parameters"]["partial_rotary_factor"] = part
            c["qk_layernorm"] = some(0.5)
        c["hidden_act"] = r.choice(["silu", "relu2", "gelu", "gelu_new"])
        if kind == "stablelm":
            c.update(use_qkv_bias=some(0.5), use_parallel_residual=some(0.5))
        elif kind == "starcoder2":
            c.update(norm_epsilon=c.pop("layer_norm_eps"), use_bias=some(0.6), sliding_window=r.choice([None, window]))
        elif kind == "nanochat":
            c.update(rms_norm_eps=c.pop("layer_norm_eps"), attention_bias=some(0.3), final_logit_softcapping=r.choice([15.0, 4.0, None]))
    if how["published"]:
        how.update(short=False, shard="1GB")
    return c, how


def noise(kind, name, p, noise, config):
    """Positions that do not drown the tokens, and norms by names of their own."""
    if "wpe" in name or "embed_positions" in name:
        return noise * 0.15
    if name.endswith(("ln_attn.weight", "ln_mlp.weight")) or ".norms." in name:
        return noise * 0.3 + 1.0
    if any(e in name for e in ("embed_tokens", "lm_head.w", "wte", "word_embeddings")):
        return noise * (1.2 if config.tie_word_embeddings else 2.5) / config.hidden_size**0.5
    if kind == "gpt_neo" and "q_proj" in name:
        return noise * 0.6 / p.shape[1] ** 0.5  # scores are not scaled
    return None


def prepare(kind, model):
    """ALiBi of Falcon's eager attention is added twice; SDPA has it right."""
    if kind == "falcon" and model.config.alibi:
        model.config._attn_implementation = "sdpa"


def as_v4(kind, c):
    rope = c.pop("rope_parameters", None)
    if rope:
        rope = dict(rope)
        c["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            c["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        c["rope_scaling"] = rope if rope["rope_type"] != "default" else None


def as_published(kind, tensors, config):
    some = next(iter(tensors.values()))
    n = config.get("n_positions") or config.get("max_position_embeddings")
    mask = torch.ones(n, n).tril().view(1, 1, n, n)
    layers = range(config.get("n_layer") or config.get("num_layers") or config.get("num_hidden_layers"))
    if kind == "opt":
        tensors = {name.removeprefix("model."): t for name, t in tensors.items()}
        config.update(activation_dropout=0.0, prefix="</s>")
    elif kind == "gpt_neo":
        config.update(attention_layers=[t for names, count in config["attention_types"] for t in names * count], gradient_checkpointing=False)
        for i in layers:
            tensors[f"transformer.h.{i}.attn.attention.bias"] = mask.to(torch.uint8)
            tensors[f"transformer.h.{i}.attn.attention.masked_bias"] = torch.tensor(-1e9).to(some.dtype)
    elif kind == "gptj":
        config.update(rotary=True, scale_attn_weights=True)
        for i in layers:
            tensors[f"transformer.h.{i}.attn.bias"] = mask.to(torch.bool)
            tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e9).to(some.dtype)
    elif kind == "codegen":
        config.update(n_ctx=n, scale_attn_weights=True)
        for i in layers:
            tensors[f"transformer.h.{i}.attn.causal_mask"] = mask.to(torch.bool)
    elif kind == "gpt_bigcode":
        config.update(inference_runner=0, max_batch_size=None, max_sequence_length=None, pad_key_length=True, pre_allocate_kv_cache=False, validate_runner_input=True)
    elif kind in ("phi", "persimmon", "stablelm", "starcoder2"):
        for i in layers:
            tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = torch.full((3,), 7.0)
    elif kind == "falcon":
        config["apply_residual_connection_post_layernorm"] = False
    return tensors, config
