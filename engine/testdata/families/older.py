"""The first generations of decoders: learned positions, ALiBi, parallel blocks."""

import json

import torch
from safetensors.torch import load_file, save_file
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from . import LLAMA, SHAPE, rope

GPT = dict(vocab_size=120, n_positions=128, n_embd=40, n_layer=2, n_head=5, n_inner=48)
OPT = dict(vocab_size=120, hidden_size=40, num_hidden_layers=2, num_attention_heads=5, ffn_dim=48, max_position_embeddings=128, word_embed_proj_dim=40)
NEO = dict(vocab_size=120, hidden_size=40, num_layers=2, num_heads=5, intermediate_size=48, max_position_embeddings=128, attention_types=[[["global", "local"], 1]], window_size=13)
FALCON = dict(vocab_size=120, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, ffn_hidden_size=56)
MPT = dict(vocab_size=120, d_model=40, n_layers=2, n_heads=5, max_seq_len=128)
DBRX = dict(
    vocab_size=120,
    d_model=32,
    n_layers=2,
    n_heads=4,
    max_seq_len=256,
    attn_config=dict(kv_n_heads=2, clip_qkv=1.5, rope_theta=10000.0),
    ffn_config=dict(ffn_hidden_size=16, moe_num_experts=6, moe_top_k=2),
)
PHIMOE = dict(LLAMA, hidden_size=32, intermediate_size=16, num_attention_heads=4, num_key_value_heads=2, num_local_experts=5, attention_bias=True, lm_head_bias=True)
MSCALE = dict(rope_type="longrope", short_factor=[1.0, 1.1, 1.3, 1.8], long_factor=[1.2, 2.0, 4.5, 9.0], short_mscale=1.2, long_mscale=1.2, original_max_position_embeddings=128)
PLAIN = dict(SHAPE, num_attention_heads=5)
BF16 = dict(dtype=torch.bfloat16)

COMMITTED = [
    ("opt", "opt", OPT, dict(BF16, salt="g")),
    ("opt-post-norm-v4", "opt", dict(OPT, do_layer_norm_before=False, activation_function="gelu", tie_word_embeddings=False), dict(BF16, v4=True, salt="f")),
    ("opt-plain-hub", "opt", dict(OPT, enable_bias=False, layer_norm_elementwise_affine=False), dict(BF16, published=True, salt="l")),
    ("opt-narrow", "opt", dict(OPT, do_layer_norm_before=False, word_embed_proj_dim=24), dict(BF16, salt="k")),
    ("gpt-neo", "gpt_neo", NEO, dict(BF16, salt="r")),
    ("gpt-neo-hub-v4", "gpt_neo", dict(NEO, hidden_size=48, num_heads=3, num_layers=3, attention_types=[[["local"], 2], [["global"], 1]], layer_norm_epsilon=1e-3), dict(dtype=torch.float16, v4=True, published=True, salt="w")),
    ("gptj", "gptj", dict(GPT, n_embd=48, n_head=3, rotary_dim=12), dict(BF16, salt="a")),
    ("gptj-hub-v4", "gptj", dict(GPT, rotary_dim=8, tie_word_embeddings=True, layer_norm_epsilon=1e-3), dict(dtype=torch.float16, v4=True, published=True, salt="c")),
    ("codegen", "codegen", dict(GPT, n_head=5, rotary_dim=4), dict(BF16, salt="j")),
    ("codegen-hub-v4", "codegen", dict(GPT, n_embd=64, n_head=4, rotary_dim=16), dict(dtype=torch.float16, v4=True, published=True, salt="k")),
    ("gpt-bigcode", "gpt_bigcode", GPT, dict(BF16, salt="f")),
    ("gpt-bigcode-heads-hub-v4", "gpt_bigcode", dict(GPT, multi_query=False, activation_function="gelu", layer_norm_epsilon=1e-3), dict(dtype=torch.float16, v4=True, published=True, salt="n")),
    ("falcon", "falcon", FALCON, dict(BF16, salt="o")),
    ("falcon-new", "falcon", dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, rope_parameters=rope(50000.0), tie_word_embeddings=False), dict(BF16, salt="e")),
    ("falcon-new-one-norm-v4", "falcon", dict(FALCON, new_decoder_architecture=True, num_kv_heads=3, num_ln_in_parallel_attn=1, bias=True), dict(BF16, v4=True, salt="r")),
    ("falcon-alibi", "falcon", dict(FALCON, alibi=True, multi_query=False, parallel_attn=False, bias=True), dict(BF16, salt="a")),
    ("phi", "phi", dict(PLAIN, hidden_size=48, num_attention_heads=3), dict(BF16, salt="u")),
    ("phi-norms-v4", "phi", dict(PLAIN, num_attention_heads=4, num_key_value_heads=2, hidden_size=64, qk_layernorm=True, rope_parameters=rope(5000.0, partial_rotary_factor=0.25)), dict(BF16, v4=True, salt="g")),
    ("persimmon", "persimmon", dict(PLAIN, hidden_size=48, num_attention_heads=3, layer_norm_eps=1e-3), dict(BF16, salt="o")),
    ("persimmon-no-norms-v4", "persimmon", dict(PLAIN, qk_layernorm=False, rope_parameters=rope(25000.0, partial_rotary_factor=0.25)), dict(BF16, v4=True, salt="k")),
    ("stablelm", "stablelm", dict(PLAIN, hidden_size=48, num_attention_heads=3, num_key_value_heads=1, use_qkv_bias=True), dict(BF16, salt="e")),
    ("stablelm-norms-v4", "stablelm", dict(PLAIN, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, qk_layernorm=True, use_parallel_residual=True), dict(BF16, v4=True, salt="b")),
    ("starcoder2", "starcoder2", dict(LLAMA, sliding_window=11), dict(BF16, salt="b")),
    ("starcoder2-no-bias-v4", "starcoder2", dict(LLAMA, use_bias=False, tie_word_embeddings=False, norm_epsilon=1e-3, rope_parameters=rope(1e6)), dict(BF16, v4=True, salt="b")),
    ("mpt", "mpt", dict(MPT, attn_config=dict(clip_qkv=1.2, softmax_scale=0.5)), dict(BF16, salt="h")),
    ("mpt-hub-v4", "mpt", dict(MPT, d_model=48, n_heads=6, attn_config=dict(qk_ln=True, alibi_bias_max=12, clip_qkv=2.0)), dict(BF16, v4=True, published=True, salt="f")),
    ("dbrx", "dbrx", DBRX, dict(BF16, salt="c")),
    ("dbrx-v4", "dbrx", dict(DBRX, n_heads=2, attn_config=dict(kv_n_heads=1, clip_qkv=8, rope_theta=5000.0), ffn_config=dict(ffn_hidden_size=24, moe_num_experts=4, moe_top_k=3, ffn_act_fn=dict(name="gelu"), moe_normalize_expert_weights=None)), dict(BF16, v4=True, salt="d")),
    ("phimoe", "phimoe", dict(PHIMOE, router_jitter_noise=0.1), dict(BF16, salt="c")),
    ("phimoe-longrope-v4", "phimoe", dict(PHIMOE, attention_bias=False, lm_head_bias=False, sliding_window=19, max_position_embeddings=512, rope_parameters=rope(**MSCALE)), dict(BF16, v4=True, salt="b")),
    ("nemotron", "nemotron", dict(LLAMA, head_dim=16), dict(BF16, salt="k")),
    ("nemotron-biases-v4", "nemotron", dict(LLAMA, hidden_size=48, num_attention_heads=3, attention_bias=True, mlp_bias=True, norm_eps=1e-3, rope_parameters=rope(5000.0, partial_rotary_factor=0.25)), dict(BF16, v4=True, salt="o")),
    ("bitnet", "bitnet", LLAMA, dict(BF16, salt="b")),
    ("bitnet-hub-v4", "bitnet", dict(LLAMA, num_attention_heads=4, num_key_value_heads=2, hidden_size=64, tie_word_embeddings=True), dict(BF16, v4=True, published=True, salt="t")),
    ("nanochat", "nanochat", dict(LLAMA, final_logit_softcapping=6.0), dict(BF16, salt="z")),
]
FAMILIES = ["opt", "gpt_neo", "gptj", "codegen", "gpt_bigcode", "falcon", "phi", "persimmon", "stablelm", "starcoder2", "nanochat", "mpt", "dbrx", "phimoe", "nemotron", "bitnet"]

ACTS = ["gelu_new", "gelu", "relu", "gelu_pytorch_tanh", "silu"]


def variation(kind, r, c, how):
    heads, layers, hidden = c["num_attention_heads"], c["num_hidden_layers"], c["hidden_size"]
    inner, kv = c["intermediate_size"], c["num_key_value_heads"]
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
        c = dict(base, ffn_dim=inner, word_embed_proj_dim=r.choice([hidden, hidden, 24]), activation_function=r.choice(ACTS), enable_bias=some(0.7))
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
    elif kind == "mpt":
        attn = dict(clip_qkv=r.choice([None, 0.5, 3.0]), softmax_scale=r.choice([None, 0.2]), alibi_bias_max=r.choice([8, 8, 16]), qk_ln=how["published"] and some(0.5))
        c = dict(old, d_model=hidden, n_layers=layers, n_heads=heads, max_seq_len=200, layer_norm_epsilon=1e-5 if attn["qk_ln"] else eps, attn_config=attn)
        c["n_heads"] = r.choice([h for h in range(1, 13) if hidden % (8 * h) == 0])
    elif kind == "dbrx":
        experts = r.choice([1, 2, 4, 7])
        c = dict(old, tie_word_embeddings=False, d_model=hidden, n_layers=layers, n_heads=heads, max_seq_len=r.choice([200, 512]))
        c["attn_config"] = dict(kv_n_heads=kv, clip_qkv=r.choice([0.5, 1.0, 8]), rope_theta=r.choice([1e4, 5e5]))
        c["ffn_config"] = dict(ffn_hidden_size=r.choice([8, 24, 37]), moe_num_experts=experts, moe_top_k=r.randint(1, experts), ffn_act_fn=dict(name=r.choice(["silu", "gelu"])), moe_normalize_expert_weights=r.choice([None, 1.0]))
        c["rope_parameters"] = r.choice(ropes)
    elif kind == "phimoe":
        c = dict(base, intermediate_size=r.choice([8, 24, 37]), num_key_value_heads=kv, rms_norm_eps=eps, num_local_experts=r.choice([2, 3, 6]), router_jitter_noise=r.choice([0.01, 0.1, 0.3]))
        c.update(attention_bias=some(0.5), lm_head_bias=some(0.5), sliding_window=r.choice([None, window]), rope_parameters=rope(r.choice([1e4, 1e6])))
        if some(0.5):
            size = hidden // heads // 2
            c["rope_parameters"].update(MSCALE, short_factor=[1.0 + i / 8 for i in range(size)], long_factor=[1.0 + i for i in range(size)], original_max_position_embeddings=256)
    elif kind == "nemotron":
        c = dict(base, intermediate_size=inner, num_key_value_heads=kv, norm_eps=eps, attention_bias=some(0.4), mlp_bias=some(0.4), rope_parameters=dict(r.choice(ropes), partial_rotary_factor=part))
        if some(0.5):
            c["head_dim"] = r.choice([8, 16, 32])
        c["hidden_act"] = r.choice(["relu2", "relu2", "gelu"])
    elif kind == "bitnet":
        c = dict(base, intermediate_size=inner + -inner % 4, num_key_value_heads=kv, rms_norm_eps=eps, attention_bias=some(0.3), rope_parameters=r.choice(ropes), hidden_act=r.choice(["relu2", "silu"]))
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
    if kind == "nemotron" and "norm.weight" in name:
        return noise * 0.3  # one is added
    if kind == "dbrx" and ".mlp." in name:
        return noise / (config.ffn_config.ffn_hidden_size if name.endswith("w2") else config.d_model) ** 0.5
    if "router" in name or kind == "phimoe" and "block_sparse_moe.gate" in name:
        return noise * 2.0 / p.shape[1] ** 0.5
    if kind == "bitnet" and "_proj" in name and p.dim() == 2:
        scale = torch.tensor(1.8 / p.shape[1] ** 0.5).bfloat16()
        return (noise * 1.2).round().clamp(-1, 1) * scale.float()
    if "Wqkv" in name:
        return noise * 1.5 / p.shape[1] ** 0.5
    if kind == "gpt_neo" and "q_proj" in name:
        return noise * 0.6 / p.shape[1] ** 0.5  # scores are not scaled
    return None


class QKNorm(torch.nn.Module):
    """MPT's projection with norms of queries and keys, as llm-foundry has them."""

    def __init__(self, project, clip, norms):
        super().__init__()
        self.project, self.clip, self.norms = project, clip, norms

    def forward(self, x):
        qkv = self.project(x)
        if self.clip:
            qkv = qkv.clamp(-self.clip, self.clip)
        q, k, v = qkv.chunk(3, -1)
        q, k = (torch.nn.functional.layer_norm(y, y.shape[-1:], w) for y, w in zip((q, k), self.norms))
        return torch.cat([q, k, v], -1)


def prepare(kind, model, folder):
    """Where transformers 5 departs from the model that was trained."""
    config = model.config
    if kind == "falcon" and config.alibi:
        config._attn_implementation = "sdpa"  # eager adds the bias twice
    if kind == "mpt":  # it knows neither alibi_bias_max nor qk_ln
        attn = config.attn_config
        model.transformer.build_mpt_alibi_tensor = lambda heads, length, device: build_mpt_alibi_tensor(heads, length, attn.alibi_bias_max, device)
        if attn.qk_ln:
            tensors = load_file(folder / "model.safetensors")
            for i, block in enumerate(model.transformer.blocks):
                norms = [tensors[f"transformer.blocks.{i}.attn.{n}_ln.weight"].float() for n in "qk"]
                block.attn.Wqkv = QKNorm(block.attn.Wqkv, block.attn.clip_qkv, norms)
                block.attn.clip_qkv = None
    if kind == "dbrx" and "rope_parameters" not in json.loads((folder / "config.json").read_text()):
        # Version 4 read it here.
        config.rope_parameters["rope_theta"] = config.attn_config.rope_theta
        model.transformer.rotary_emb.inv_freq.copy_(model.transformer.rotary_emb.compute_default_rope_parameters(config)[0])


def finish(kind, folder):
    """BitNet's weights four in a byte. transformers would round inputs to 8 bits, too."""
    if kind != "bitnet":
        return
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        w = tensors.pop(name)
        scale = w.abs().max()
        quarters = ((w / scale).round() + 1).to(torch.uint8).chunk(4)
        tensors[name] = sum(q << (2 * i) for i, q in enumerate(quarters))
        tensors[name.replace(".weight", ".weight_scale")] = scale.reshape(1)
    save_file({n: t.contiguous() for n, t in tensors.items()}, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = dict(quant_method="bitnet", linear_class="autobitlinear", quantization_mode="offline")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def as_v4(kind, c):
    rope = c.pop("rope_parameters", None)
    if kind == "dbrx":
        if rope["rope_type"] != "default":
            c["rope_parameters"] = rope  # it knew none of these
    elif rope:
        rope = dict(rope)
        c["rope_theta"] = rope.pop("rope_theta")
        if "partial_rotary_factor" in rope:
            c["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        if rope["rope_type"] == "longrope":
            rope["type"] = rope.pop("rope_type")
        c["rope_scaling"] = rope if rope.get("rope_type") != "default" else None


def as_published(kind, tensors, config):
    some = next(iter(tensors.values()))
    n = config.get("n_positions") or config.get("max_position_embeddings") or 1
    mask = torch.ones(n, n).tril().view(1, 1, n, n)
    layers = range(next(config[key] for key in ("n_layer", "num_layers", "num_hidden_layers", "n_layers") if key in config))
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
    elif kind == "mpt":
        config.update(expansion_ratio=4, learned_pos_emb=True, no_bias=True, norm_type="low_precision_layernorm", init_config=dict(name="kaiming_normal_"), tokenizer_name="EleutherAI/gpt-neox-20b", verbose=0)
        if config["attn_config"]["qk_ln"]:
            generator = torch.Generator().manual_seed(1)
            for i in layers:
                for norm in ("q_ln", "k_ln"):
                    weight = torch.randn(config["d_model"], generator=generator) * 0.3 + 1.0
                    tensors[f"transformer.blocks.{i}.attn.{norm}.weight"] = weight.to(some.dtype)
    elif kind == "falcon":
        config["apply_residual_connection_post_layernorm"] = False
    return tensors, config
