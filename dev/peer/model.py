"""Write one random checkpoint twice: for Millrace and for llama.cpp.

    python model.py DIR [--shape qwen2-0.5b|llama-1b|qwen3.5-2b]

DIR/hf gets config.json, model.safetensors (bf16) and tokenizer files;
DIR/BF16.gguf gets the same tensors in bf16 and the same tokenizer.
Random weights are enough: neither engine's speed depends on the values. The
tokenizer is a real one, Qwen's, since reading it is much of a start.
"""

import argparse
import base64
import importlib.metadata
import json
import pathlib
import struct

import gguf
import numpy as np

SHAPES = {
    # The shape of Qwen2-0.5B: a large tied vocabulary over a small body.
    "qwen2-0.5b": dict(model_type="qwen2", hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                       num_attention_heads=14, num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True),
    # The shape of Llama-3.2-1B.
    "llama-1b": dict(model_type="llama", hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
                     num_attention_heads=32, num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=True),
    # The shape of Qwen3.5-2B with a smaller vocabulary: three layers of a gated
    # delta net to each one of attention.
    "qwen3.5-2b": dict(model_type="qwen3_5_text", hidden_size=2048, intermediate_size=6144, num_hidden_layers=24,
                       num_attention_heads=8, num_key_value_heads=2, head_dim=256, vocab_size=32000, tie_word_embeddings=True,
                       linear_num_key_heads=16, linear_num_value_heads=16, linear_key_head_dim=128,
                       linear_value_head_dim=128, linear_conv_kernel_dim=4, full_attention_interval=4),
}

# What transformers and llama.cpp call a family.
ARCHITECTURES = {
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen3_5_text": ("Qwen3_5ForCausalLM", "qwen35"),
}


def delta_net(c, p, g):
    """The tensors of a layer's gated delta net."""
    h, heads = c["hidden_size"], c["linear_num_value_heads"]
    keys, values = c["linear_num_key_heads"] * c["linear_key_head_dim"], heads * c["linear_value_head_dim"]
    p += "linear_attn."
    yield p + "in_proj_qkv.weight", g + "attn_qkv.weight", (2 * keys + values, h)
    yield p + "in_proj_z.weight", g + "attn_gate.weight", (values, h)
    yield p + "in_proj_b.weight", g + "ssm_beta.weight", (heads, h)
    yield p + "in_proj_a.weight", g + "ssm_alpha.weight", (heads, h)
    yield p + "conv1d.weight", g + "ssm_conv1d.weight", (2 * keys + values, 1, c["linear_conv_kernel_dim"])
    yield p + "dt_bias", g + "ssm_dt.bias", (heads,)
    yield p + "A_log", g + "ssm_a", (heads,)
    yield p + "norm.weight", g + "ssm_norm.weight", (c["linear_value_head_dim"],)
    yield p + "out_proj.weight", g + "ssm_out.weight", (h, values)


def tensors(c):
    """Yield (checkpoint name, gguf name, shape) in file order."""
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    d = c.get("head_dim", h // c["num_attention_heads"])
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    gated = c["model_type"] == "qwen3_5_text"
    yield "model.embed_tokens.weight", "token_embd.weight", (v, h)
    for i in range(c["num_hidden_layers"]):
        p, g = f"model.layers.{i}.", f"blk.{i}."
        yield p + "input_layernorm.weight", g + "attn_norm.weight", (h,)
        if gated and (i + 1) % c["full_attention_interval"] != 0:
            yield from delta_net(c, p, g)
        else:
            for name, rows in (("q", 2 * q if gated else q), ("k", kv), ("v", kv)):
                yield f"{p}self_attn.{name}_proj.weight", f"{g}attn_{name}.weight", (rows, h)
                if c["model_type"] == "qwen2":
                    yield f"{p}self_attn.{name}_proj.bias", f"{g}attn_{name}.bias", (rows,)
                if gated and name != "v":
                    yield f"{p}self_attn.{name}_norm.weight", f"{g}attn_{name}_norm.weight", (d,)
            yield p + "self_attn.o_proj.weight", g + "attn_output.weight", (h, q)
        yield p + "post_attention_layernorm.weight", g + ("post_attention_norm.weight" if gated else "ffn_norm.weight"), (h,)
        yield p + "mlp.gate_proj.weight", g + "ffn_gate.weight", (f, h)
        yield p + "mlp.up_proj.weight", g + "ffn_up.weight", (f, h)
        yield p + "mlp.down_proj.weight", g + "ffn_down.weight", (h, f)
    yield "model.norm.weight", "output_norm.weight", (h,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", "output.weight", (v, h)


# How Qwen2 cuts a text into words; llama.cpp knows it by the name qwen2.
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def tokenizer(size):
    """Return tokens and merges of a byte-level vocabulary: the first ones of Qwen's, each
    made of two earlier ones, filled up where it has too few, and the end of text.

    The package dashscope has it as a line for each token, its bytes in base64 and its
    rank. The merge that makes a token joins the two parts that the merges before it
    leave of the token's bytes.
    """
    ranks = importlib.metadata.distribution("dashscope").locate_file("dashscope/resources/qwen.tiktoken")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shown = {b: chr(b) for b in printable}
    shown.update({b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in shown)})
    rank = {}
    for line in ranks.read_text().split("\n")[: size - 1]:
        if line:
            token, number = line.split()
            rank[base64.b64decode(token)] = int(number)
    merges = []
    for token, number in rank.items():
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [rank.get(a + b, number) for a, b in zip(parts, parts[1:])]
            i = pairs.index(min(pairs))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append(tuple("".join(shown[b] for b in part) for part in parts))
    tokens = ["".join(shown[b] for b in token) for token in rank]
    return tokens + [f"\u0120token{i}" for i in range(size - 1 - len(tokens))] + ["<|endoftext|>"], merges


def write_tokenizer(folder, tokens, merges):
    end = len(tokens) - 1
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    words = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": end, "content": tokens[end], "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, byte_level]}, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)},
                  "merges": [list(pair) for pair in merges]}}, ensure_ascii=False, separators=(",", ":")))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": tokens[end]}))


def bf16(x):
    """Round float32 to the nearest bfloat16, as uint16."""
    u = x.view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir", type=pathlib.Path)
    p.add_argument("--shape", choices=SHAPES, default="qwen2-0.5b")
    a = p.parse_args()
    c = SHAPES[a.shape]
    hf = a.dir / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    architecture, arch = ARCHITECTURES[c["model_type"]]
    (hf / "config.json").write_text(json.dumps(dict(
        c, architectures=[architecture], hidden_act="silu",
        max_position_embeddings=16384, eos_token_id=c["vocab_size"] - 1, rms_norm_eps=1e-6, rope_theta=1e6, torch_dtype="bfloat16", use_sliding_window=False), indent=2))
    tokens, merges = tokenizer(c["vocab_size"])
    write_tokenizer(hf, tokens, merges)

    rng = np.random.default_rng(1)
    listed = list(tensors(c))
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, _, shape in listed:
        n = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)

    w = gguf.GGUFWriter(str(a.dir / "BF16.gguf"), arch)
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(16384)
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1e6)
    w.add_vocab_size(c["vocab_size"])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL])
    w.add_token_merges([" ".join(pair) for pair in merges])
    w.add_eos_token_id(len(tokens) - 1)
    w.add_add_bos_token(False)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    if arch == "qwen35":
        w.add_key_length(c["head_dim"])
        w.add_value_length(c["head_dim"])
        w.add_rope_dimension_count(c["head_dim"] // 4)
        w.add_rope_dimension_sections([11, 11, 10, 0])
        w.add_full_attention_interval(c["full_attention_interval"])
        w.add_ssm_conv_kernel(c["linear_conv_kernel_dim"])
        w.add_ssm_state_size(c["linear_key_head_dim"])
        w.add_ssm_group_count(c["linear_num_key_heads"])
        w.add_ssm_time_step_rank(c["linear_num_value_heads"])
        w.add_ssm_inner_size(c["linear_num_value_heads"] * c["linear_value_head_dim"])

    with open(hf / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(head)) + head)
        for name, gname, shape in listed:
            if name.endswith("norm.weight"):
                x = np.ones(shape, np.float32)
            else:
                x = rng.standard_normal(shape, np.float32) * np.float32(0.02)
            b = bf16(np.ascontiguousarray(x))
            out.write(b.tobytes())
            if len(shape) == 1 or "conv1d" in name:  # llama.cpp wants these in float32
                x = (b.astype(np.uint32) << 16).view(np.float32)
                w.add_tensor(gname, -np.exp(x) if gname.endswith("ssm_a") else x.reshape(shape[0], -1) if len(shape) > 1 else x)
            else:
                w.add_tensor(gname, b.view(np.uint8).reshape(shape[0], -1), raw_dtype=gguf.GGMLQuantizationType.BF16)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
