"""Writes tiny random checkpoints and what transformers computes from them.

    python goldens.py [DIR]                 the committed set, into this folder
    python goldens.py --fuzz N DIR [SEED]   N random variations of each family

Each checkpoint is a folder with config.json, model.safetensors (or shards and
an index) and golden.json:

    prompt           token ids
    prompt_logprobs  of each prompt token given those before it, null first
    tokens           the greedy continuation
    logprobs         of each of those
    margins          best minus second-best log-probability at each

Everything is computed in float32 with eager attention and without a cache, one
full forward pass per token, from the files as they were written, so that the
configuration is read back the way a user's is. Folders ending in -v4 have the
config.json of transformers 4. Needs torch, transformers and safetensors; the Go
tests only read the folders.
"""

import json
import pathlib
import random
import shutil
import sys
import zlib

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

SHAPE = dict(vocab_size=120, hidden_size=40, intermediate_size=48, num_hidden_layers=2, max_position_embeddings=256)
LLAMA = dict(SHAPE, num_attention_heads=5, num_key_value_heads=1)
GEMMA = dict(SHAPE, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
VISION = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32)


def rope(theta=10000.0, **scaling):
    return dict(dict(rope_type="default", rope_theta=theta), **scaling)


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


def randomise(model, generator):
    """Weights that make logits differ clearly and every parameter matter."""
    config = model.config.get_text_config()
    gemma = config.model_type.startswith("gemma")
    # A tied head sees each token's own embedding again: it must not drown the rest.
    spread = 0.7 if gemma and config.tie_word_embeddings else 2.5
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("norm.weight"):
            noise = noise * 0.3 + (0.0 if gemma else 1.0)
        elif name.endswith(".bias"):
            noise = noise * 0.5
        elif p.dim() < 2:
            pass
        elif "embed_tokens" in name or "lm_head" in name:
            noise = noise * spread / config.hidden_size**0.5
        elif "q_proj" in name or "k_proj" in name:
            noise = noise * 1.5 / p.shape[1] ** 0.5
        else:
            noise = noise / p.shape[-1] ** 0.5
        p.data.copy_(noise)


def as_v4(config):
    """The config.json that transformers 4 would have written."""
    c = dict(config)
    c["torch_dtype"] = c.pop("dtype")
    c["transformers_version"] = "4.46.3"
    c.pop("_sliding_window_pattern", None)
    parameters = c.pop("rope_parameters")
    if "full_attention" in parameters:
        c["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
    parameters = dict(parameters)
    c["rope_theta"] = parameters.pop("rope_theta")
    if "partial_rotary_factor" in parameters:
        c["partial_rotary_factor"] = parameters.pop("partial_rotary_factor")
    c["rope_scaling"] = parameters if parameters["rope_type"] != "default" else None
    default = AutoConfig.for_model(**{k: v for k, v in config.items() if k != "layer_types"})
    if getattr(default, "layer_types", None) == c.get("layer_types"):
        c.pop("layer_types", None)  # follows from the other keys, as it did then
    return c


def terse(config):
    """Only what differs from the defaults, as some checkpoints have it."""
    different = AutoConfig.for_model(**config).to_diff_dict()
    keep = {"model_type", "architectures", "dtype", "rope_parameters", "layer_types"}
    return {k: v for k, v in config.items() if k in different or k in keep}


def write(folder, kind, config, seed, dtype=torch.float32, v4=False, short=False, shard="1GB", prompt=None, generate=28):
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))
    with torch.no_grad():
        randomise(model, generator)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    if short:
        saved = terse(saved)
    if v4:
        saved = as_v4(dict(saved, **{k: config[k] for k in ("sliding_window_pattern",) if k in config}))
    saved.pop("_attn_implementation", None)
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    length = prompt or int(torch.randint(40, 71, (1,), generator=generator))
    vocab = model.config.get_text_config().vocab_size
    ids = torch.randint(0, vocab, (length,), generator=generator).tolist()
    golden = dict(family=kind, prompt=list(ids), tokens=[], logprobs=[], margins=[])

    def logprobs():
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        return torch.log_softmax(logits.double(), -1)

    scores = logprobs()
    golden["prompt_logprobs"] = [None] + [round(scores[i, ids[i + 1]].item(), 6) for i in range(length - 1)]
    for _ in range(generate):
        best, at = scores[-1].topk(2)
        ids.append(at[0].item())
        golden["tokens"].append(ids[-1])
        golden["logprobs"].append(round(best[0].item(), 6))
        golden["margins"].append(round((best[0] - best[1]).item(), 6))
        scores = logprobs()
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    for f in folder.iterdir():
        f.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{folder.name}: {size // 1024} KiB, {length} prompt tokens, least margin {min(golden['margins'])}", flush=True)


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
        generate=r.choice([8, 24, 40]),
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


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    args = sys.argv[1:]
    if args[:1] != ["--fuzz"]:
        root = pathlib.Path(args[0] if args else pathlib.Path(__file__).parent)
        for name, kind, config, how in COMMITTED:
            write(root / name, kind, config, zlib.crc32(name.encode()), **how)
        return
    count, root, seed = int(args[1]), pathlib.Path(args[2]), int(args[3]) if len(args) > 3 else 1
    for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma3", "phi3"):
        for i in range(count):
            r = random.Random(f"{kind} {seed} {i}")
            config, how = variation(kind, r)
            write(root / f"{kind}-{seed}-{i}", kind, config, r.randrange(1 << 30), **how)


main()
