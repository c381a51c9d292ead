"""Write one random vision tower twice: for Millrace and for llama.cpp's mtmd.

    python tower.py DIR

The shape is SigLIP's base at 384 pixels with Gemma 3's projector. DIR/hf gets
config.json, preprocessor_config.json and model.safetensors (bf16), without a language
model; DIR/BF16.gguf, F16.gguf and F32.gguf the same tensors, matrices in that type.
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np

from model import bf16

HIDDEN, INNER, LAYERS, HEADS, IMAGE, PATCH, TEXT, POOL = 768, 3072, 12, 12, 384, 16, 2048, 4


def tensors():
    """Yield (checkpoint name, gguf name, shape, whether it is a matrix of a layer)."""
    p = "vision_tower.vision_model."
    yield p + "embeddings.patch_embedding.weight", "v.patch_embd.weight", (HIDDEN, 3, PATCH, PATCH), False
    yield p + "embeddings.patch_embedding.bias", "v.patch_embd.bias", (HIDDEN,), False
    yield p + "embeddings.position_embedding.weight", "v.position_embd.weight", ((IMAGE // PATCH) ** 2, HIDDEN), False
    for i in range(LAYERS):
        for name, short, out, into in (("self_attn.q_proj", "attn_q", HIDDEN, HIDDEN), ("self_attn.k_proj", "attn_k", HIDDEN, HIDDEN),
                                       ("self_attn.v_proj", "attn_v", HIDDEN, HIDDEN), ("self_attn.out_proj", "attn_out", HIDDEN, HIDDEN),
                                       ("mlp.fc1", "ffn_up", INNER, HIDDEN), ("mlp.fc2", "ffn_down", HIDDEN, INNER)):
            yield f"{p}encoder.layers.{i}.{name}.weight", f"v.blk.{i}.{short}.weight", (out, into), True
            yield f"{p}encoder.layers.{i}.{name}.bias", f"v.blk.{i}.{short}.bias", (out,), False
        for name, short in (("layer_norm1", "ln1"), ("layer_norm2", "ln2")):
            for part in ("weight", "bias"):
                yield f"{p}encoder.layers.{i}.{name}.{part}", f"v.blk.{i}.{short}.{part}", (HIDDEN,), False
    for part in ("weight", "bias"):
        yield f"{p}post_layernorm.{part}", f"v.post_ln.{part}", (HIDDEN,), False
    yield "multi_modal_projector.mm_soft_emb_norm.weight", "mm.soft_emb_norm.weight", (HIDDEN,), False
    yield "multi_modal_projector.mm_input_projection_weight", "mm.input_projection.weight", (HIDDEN, TEXT), False


def writer(path):
    w = gguf.GGUFWriter(str(path), "clip")
    w.add_bool("clip.has_vision_encoder", True)
    w.add_string("clip.projector_type", "gemma3")
    w.add_bool("clip.use_gelu", True)
    for key, value in (("image_size", IMAGE), ("patch_size", PATCH), ("embedding_length", HIDDEN), ("feed_forward_length", INNER),
                       ("projection_dim", TEXT), ("block_count", LAYERS), ("attention.head_count", HEADS), ("projector.scale_factor", POOL)):
        w.add_uint32("clip.vision." + key, value)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    w.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    w.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    return w


def main():
    folder = pathlib.Path(sys.argv[1])
    hf = folder / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    (hf / "config.json").write_text(json.dumps(dict(
        model_type="gemma3", mm_tokens_per_image=(IMAGE // PATCH // POOL) ** 2, text_config=dict(model_type="gemma3_text", hidden_size=TEXT),
        vision_config=dict(model_type="siglip_vision_model", hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS,
                           num_attention_heads=HEADS, image_size=IMAGE, patch_size=PATCH)), indent=2))
    (hf / "preprocessor_config.json").write_text(json.dumps(dict(
        image_processor_type="Gemma3ImageProcessor", size=dict(height=IMAGE, width=IMAGE), image_seq_length=(IMAGE // PATCH // POOL) ** 2)))
    rng = np.random.default_rng(1)
    listed = list(tensors())
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, _, shape, _ in listed:
        n = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    types = {"BF16": gguf.GGMLQuantizationType.BF16, "F16": gguf.GGMLQuantizationType.F16, "F32": gguf.GGMLQuantizationType.F32}
    writers = {name: writer(folder / f"{name}.gguf") for name in types}
    with open(hf / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(head)) + head)
        for name, gname, shape, matrix in listed:
            x = rng.standard_normal(shape, np.float32) * np.float32(0.02)
            if ("norm" in name or "post_layernorm" in name) and name.endswith("weight"):
                x = np.ones(shape, np.float32)
            b = bf16(np.ascontiguousarray(x))
            out.write(b.tobytes())
            x = (b.astype(np.uint32) << 16).view(np.float32)
            if "soft_emb_norm" in name:
                x = x + 1  # llama.cpp's files have Gemma's shift in the weight
            for kind, w in writers.items():
                if kind == "BF16" and matrix:
                    w.add_tensor(gname, b.view(np.uint8).reshape(shape[0], -1), raw_dtype=types[kind])
                elif kind == "F16" and matrix or gname == "mm.input_projection.weight":  # which is always so
                    w.add_tensor(gname, x.astype(np.float16))
                else:
                    w.add_tensor(gname, x)
    for w in writers.values():
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()


if __name__ == "__main__":
    main()
