"""Writes rope.json: rotary frequencies as transformers computes them.

    python rope.py > rope.json        (needs torch and transformers 5)

Each case is a config.json and, by layer type ("" when all layers share one
rope), the inverse frequencies and the factor of cos and sin.
"""

import json
import sys

from transformers import AutoConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

SIZES = {
    "vocab_size": 96, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"factor": 4.0, "original_max_position_embeddings": 1024}

# name: keys beside SIZES
CASES = {
    "default, base absent": {"model_type": "llama"},
    "default, transformers 4": {"model_type": "llama", "rope_theta": 500000.0},
    "default, transformers 5": {"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    "linear, transformers 4": {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.5}},
    "linear, integer factor": {"model_type": "mistral", "rope_scaling": {"rope_type": "linear", "factor": 4}, "rope_theta": 1000000},
    "llama3": {"model_type": "llama", "head_dim": 128, "rope_theta": 500000.0,
               "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 256}},
    "llama3, transformers 5": {"model_type": "llama",
                               "rope_parameters": {**LLAMA3, "rope_theta": 10000.0, "original_max_position_embeddings": 1024}},
    "yarn, transformers 4": {"model_type": "qwen2", "rope_theta": 1000000.0, "rope_scaling": {**YARN, "type": "yarn"}},
    "yarn, transformers 5": {"model_type": "qwen3", "head_dim": 128, "rope_parameters": {**YARN, "rope_type": "yarn", "rope_theta": 5000.0}},
    "yarn, own betas": {"model_type": "llama", "rope_scaling": {**YARN, "rope_type": "yarn", "beta_fast": 16, "beta_slow": 2}},
    "yarn, attention factor": {"model_type": "llama", "rope_scaling": {**YARN, "rope_type": "yarn", "attention_factor": 0.75}},
    "yarn, mscale": {"model_type": "llama", "rope_scaling": {**YARN, "rope_type": "yarn", "mscale": 0.7, "mscale_all_dim": 1.1}},
    "yarn, not truncated": {"model_type": "llama", "rope_scaling": {**YARN, "rope_type": "yarn", "truncate": False}},
    "yarn, factor null": {"model_type": "llama", "rope_scaling": {**YARN, "rope_type": "yarn", "factor": None}},
    "yarn, length beside": {"model_type": "llama", "original_max_position_embeddings": 512,
                            "rope_scaling": {**YARN, "rope_type": "yarn"}},
    "phi3, half rotated": {"model_type": "phi3", "partial_rotary_factor": 0.5, "pad_token_id": 0},
    "gemma3, transformers 4": {"model_type": "gemma3_text", "head_dim": 64, "rope_theta": 800000.0, "rope_local_base_freq": 20000.0,
                               "sliding_window_pattern": 2, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
    "gemma3, transformers 5": {"model_type": "gemma3_text", "head_dim": 64, "layer_types": ["sliding_attention", "full_attention"],
                               "rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
                                                   "sliding_attention": {"rope_type": "default", "rope_theta": 30000.0}}},
    "gemma3, bases absent": {"model_type": "gemma3_text", "head_dim": 64, "sliding_window_pattern": 2},
}


def ropes(config):
    if config.model_type == "gemma3_text":
        rope = Gemma3RotaryEmbedding(config)
        return {t: (getattr(rope, t + "_inv_freq"), getattr(rope, t + "_attention_scaling")) for t in sorted(set(config.layer_types))}
    cls = Phi3RotaryEmbedding if config.model_type == "phi3" else LlamaRotaryEmbedding
    rope = cls(config)
    return {"": (rope.inv_freq, rope.attention_scaling)}


def main():
    out = []
    for name, keys in CASES.items():
        config = {**SIZES, **keys}
        found = ropes(AutoConfig.for_model(**json.loads(json.dumps(config))))
        out.append({
            "name": name,
            "config": config,
            "ropes": {t: {"freqs": [float(f"{x:.9g}") for x in freqs.tolist()], "scale": scale} for t, (freqs, scale) in found.items()},
        })
    lines = ",\n".join(json.dumps(c) for c in out)
    sys.stdout.write("[\n" + lines + "\n]\n")


main()
