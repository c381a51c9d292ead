"""Write gguf/*.gguf: what llama.cpp's converter makes of checkpoints of the goldens.

    python gguf.py LLAMA_CPP CASE...

LLAMA_CPP is the source of llama.cpp, such as vendor/llama.cpp of the source package
llama-cpp-python==0.3.36. Needs torch, transformers and numpy. The files have no
tokenizer. CASE is a folder of engine/testdata, for one type with +q8_0 after it, for
several files with +split, for a head that predicts one more token, of
engine/testdata/drafts, with +mtp.
"""

import json
import logging
import pathlib
import re
import sys
import tempfile

here = pathlib.Path(__file__).parent
sys.path[:0] = [sys.argv[1] + "/gguf-py", sys.argv[1]]

import gguf  # noqa: E402
import torch  # noqa: E402
from conversion import get_model_class  # noqa: E402
from conversion.base import ModelBase, ModelType, TextModel, get_model_architecture  # noqa: E402

logging.disable(logging.CRITICAL)

# What the converter wants to find in config.json, which transformers 5 writes otherwise.
OLDER = {
    "GPTNeoXForCausalLM": lambda c: {"rotary_pct": c["rope_parameters"]["partial_rotary_factor"]},
    # Else it pads the embeddings of each layer with zeros.
    "Gemma3nForCausalLM": lambda c: {"vocab_size": c["vocab_size_per_layer_input"]},
    # It takes one size of model for granted where rope has an alpha.
    "HunYuanDenseV1ForCausalLM": lambda c: {"rope_scaling": None, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
    "HunYuanMoEV1ForCausalLM": lambda c: {key: [c[of]] * c["num_hidden_layers"] for key, of in (
        ("moe_intermediate_size", "intermediate_size"), ("moe_topk", "moe_topk"))} | {"num_shared_expert": [1]},
    "SolarOpenForCausalLM": lambda c: {"partial_rotary_factor": 1.0},
    "PhiMoEForCausalLM": lambda c: {"layer_norm_eps": c["rms_norm_eps"]},
    "GPT2LMHeadModel": lambda c: {"n_ctx": c["n_positions"]},
    # Factors that it would multiply weights by.
    "FalconH1ForCausalLM": lambda c: {"head_dim": c["hidden_size"] // c["num_attention_heads"], "mlp_multipliers": [1, 1], "ssm_multipliers": [1] * 5}
    | {f"{name}_multiplier": 1 for name in ("attention_in", "attention_out", "embedding", "key", "lm_head", "ssm_in", "ssm_out")},
    "Ministral3ForCausalLM": lambda c: {"rope_parameters": c["rope_parameters"] | {"mscale": 1.0, "mscale_all_dim": 1.0}},
    "GraniteMoeHybridForCausalLM": lambda c: {
        "layer_types": [{"full_attention": "attention"}.get(kind, kind) for kind in c["layer_types"]]},
}

# Names of tensors that published checkpoints have otherwise than transformers 5 saves
# them, and heads that architectures of llama.cpp do not have.
RENAMED = {
    "BitNetForCausalLM": [(r"^lm_head\.weight$", ""), (r"\.attn_sub_norm", ".inner_attn_ln"), (r"\.ffn_sub_norm", ".ffn_layernorm")],
    "KimiLinearForCausalLM": [(r"\.block_sparse_moe\.((gate|up|down)_proj)", r".mlp.\1")],
    "Lfm2MoeForCausalLM": [(r"^lm_head\.weight$", "")],
}

# What the converter calls classes of transformers.
ALIASES = {"MptForCausalLM": "MPTForCausalLM", "PhimoeForCausalLM": "PhiMoEForCausalLM", "Mistral4ForCausalLM": "Mistral3ForConditionalGeneration"}

# What a class of the converter chooses among.
INNER = {"Mistral3ForConditionalGeneration": "Mistral4Model", "Ministral3ForCausalLM": "Ministral3Model"}



# Classes of the converter that read heads, where those of the checkpoints do not.
HEADS = {"DeepseekV3ForCausalLM": "Glm4MoeLiteForCausalLM"}


def with_tokenizer(source, config, scratch):
    """Return a folder like source in which the converter finds how many tokens there are."""
    folder = pathlib.Path(scratch)
    for file in source.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    vocab = {f"<{i}>": i for i in range(config.get("text_config", config)["vocab_size"])}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<0>"}, "added_tokens": []}))
    return folder


def renamed(modify, names):
    """Return what converts tensors, under other names; those without one are left out."""

    def modify_tensors(self, data, name, bid):
        for pattern, to in names:
            name = re.sub(pattern, to, name)
        return modify(self, data, name, bid) if name else ()

    return modify_tensors


for name in sys.argv[2:]:
    case, _, how = name.partition("+")
    source = here.parent.parent / "testdata" / case
    config = ModelBase.load_hparams(source, False)
    kind = get_model_architecture(config, ModelType.TEXT)
    kind = ALIASES.get(kind, kind)
    config |= OLDER.get(kind, lambda c: {})(config)
    head = here.parent.parent / "testdata" / "drafts" / case
    if how == "mtp":
        config |= json.loads((head / "golden.json").read_text())["config"]
        kind = HEADS.get(kind, kind)
    model = get_model_class(kind)
    if kind in INNER:
        model = getattr(model, INNER[kind])
    model.set_vocab = TextModel._set_vocab_none
    if kind in RENAMED:
        model.modify_tensors = renamed(model.modify_tensors, RENAMED[kind])
    if kind == "BitNetForCausalLM":
        model.weight_quant = lambda self, weight: weight  # which are not ternary here
    with torch.inference_mode(), tempfile.TemporaryDirectory() as scratch:
        source = with_tokenizer(source, config, scratch)
        if how == "mtp":
            (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
            (source / "model-00002-of-00002.safetensors").symlink_to(head / "mtp.safetensors")
        kind = gguf.LlamaFileType.MOSTLY_Q8_0 if how == "q8_0" else gguf.LlamaFileType.MOSTLY_BF16
        split = 9 if how == "split" else 0
        model(source, kind, here / "gguf" / (name + ".gguf"), hparams=config, split_max_tensors=split).write()
