"""Write blocks.json: random blocks of the types of GGUF, and what gguf's Python
package, which is llama.cpp's, makes of them.

    pip install gguf==0.19.0; python blocks.py
"""

import base64
import json
import pathlib

import gguf
import numpy as np

HALVES = {  # where a block has numbers of 16 bits, which must be finite
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
}  # fmt: skip

rng = np.random.default_rng(1)
cases = {}
for name, halves in HALVES.items():
    kind = gguf.GGMLQuantizationType[name]
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (512 // elements, size), dtype=np.uint8)
    for at in halves:
        halves_of = rng.normal(0, 0.01, len(blocks)).astype("<f2")
        blocks[:, at : at + 2] = halves_of.view(np.uint8).reshape(-1, 2)
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(108, 140, len(blocks))
    row = blocks.reshape(1, -1)
    values = gguf.dequantize(row, kind).astype("<f4")
    cases[name] = {"row": base64.b64encode(row.tobytes()).decode(), "values": base64.b64encode(values.tobytes()).decode()}
path = pathlib.Path(__file__).parent / "blocks.json"
path.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in cases.items()) + "\n}\n")
