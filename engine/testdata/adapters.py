"""Writes random LoRA adapters of the checkpoints here and what PEFT computes with them.

    python adapters.py [DIR [NAME...]]    the committed set, into adapters here

Each adapter is a folder with the files that PEFT saves and golden.json, as
goldens.py describes it, with one key more:

    base             folder of the checkpoint, beside DIR

PEFT reads the adapter back from these files, as a user's would be, and everything
is computed in float32. Needs peft, beside what goldens.py needs; the Go tests only
read the folders.
"""

import json
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Mxfp4Config
from transformers.utils import logging

from goldens import generate

HERE = pathlib.Path(__file__).parent
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

# name, base, configuration, type of the weights, seed
COMMITTED = [
    ("llama-attention", "llama", dict(r=4, lora_alpha=8, target_modules=ATTENTION), torch.bfloat16, 1),
    ("llama-pattern", "llama", dict(r=3, lora_alpha=5, use_rslora=True, target_modules=r".*\.(mlp\.(gate|up|down)|self_attn\.[qv])_proj", rank_pattern={r"layers\.0\.mlp\.up_proj": 6, "q_proj": 2}, alpha_pattern={"v_proj": 9}), torch.float16, 2),
    ("llama-one-layer", "llama", dict(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], layers_to_transform=[1], layers_pattern="layers"), torch.float32, 3),
    ("phi3-fused", "phi3", dict(r=4, lora_alpha=4, target_modules="all-linear"), torch.bfloat16, 4),
    ("gpt2", "gpt2", dict(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True), torch.bfloat16, 5),
    ("gpt-neox", "gpt-neox", dict(r=4, lora_alpha=8, target_modules="all-linear"), torch.bfloat16, 6),
    ("qwen3_5", "qwen3_5", dict(r=4, lora_alpha=8, target_modules="all-linear"), torch.bfloat16, 7),
    ("qwen3_5-vision", "qwen3_5-vision-hub", dict(r=2, lora_alpha=4, target_modules="all-linear"), torch.bfloat16, 8),
    ("mixtral", "mixtral", dict(r=2, lora_alpha=2, target_modules=ATTENTION, target_parameters=EXPERTS + ["mlp.gate.weight"]), torch.bfloat16, 9),
    ("mixtral-names-v4", "mixtral", dict(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "w1", "w2", "w3"]), torch.bfloat16, 10),
    ("qwen3-moe", "qwen3-moe", dict(r=2, lora_alpha=4, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"]), torch.bfloat16, 11),
    ("gpt-oss", "gpt-oss", dict(r=2, lora_alpha=2, target_modules=ATTENTION, target_parameters=EXPERTS), torch.bfloat16, 12),
    ("gpt-oss-mxfp4", "gpt-oss-mxfp4-hub-v4", dict(r=2, lora_alpha=2, target_modules=["q_proj"], target_parameters=EXPERTS), torch.bfloat16, 13),
    ("deepseek-v3", "deepseek-v3", dict(r=4, lora_alpha=4, target_modules="all-linear", target_parameters=EXPERTS), torch.bfloat16, 14),
    ("mamba2", "mamba2", dict(r=4, lora_alpha=8, target_modules=["in_proj"]), torch.bfloat16, 15),
]


def load(base):
    how = dict(dtype=torch.float32, attn_implementation="eager")
    if "quantization_config" in json.loads((HERE / base / "config.json").read_text()):
        how["quantization_config"] = Mxfp4Config(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(HERE / base, **how)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model.eval()


def noise(name, tensor, generator):
    """About as much change as there is weight: A keeps the size of its input, B does too."""
    size = 0.3 / tensor.shape[1] ** 0.5 if ".lora_B" in name else 1 / tensor.shape[1] ** 0.5
    return torch.randn(tensor.shape, generator=generator) * size


def apart(tensors, config):
    """An adapter of experts as transformers 4 names them: each by itself."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = dict(w1=(inner, hidden), w2=(hidden, inner), w3=(inner, hidden))
    for layer in range(config.num_hidden_layers):
        for expert in range(config.num_local_experts):
            for name, (rows, cols) in shapes.items():
                module = f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"
                tensors[module + ".lora_A.weight"] = torch.empty(2, cols)
                tensors[module + ".lora_B.weight"] = torch.empty(rows, 2)
    return tensors


def write(folder, base, config, dtype, seed):
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    old = "w1" in config["target_modules"]
    targets = dict(config, target_modules=["q_proj", "v_proj"]) if old else config
    model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **targets))
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    tensors = load_file(folder / "adapter_model.safetensors")
    if old:
        tensors = apart(tensors, model.config)
        text = json.loads((folder / "adapter_config.json").read_text())
        text["target_modules"] = config["target_modules"]
        (folder / "adapter_config.json").write_text(json.dumps(text, indent=2) + "\n")
    text = json.loads((folder / "adapter_config.json").read_text())
    text["base_model_name_or_path"] = base
    if isinstance(text["target_modules"], list):
        text["target_modules"].sort()  # a set, whose order differs from run to run
    (folder / "adapter_config.json").write_text(json.dumps(text, indent=2) + "\n")
    tensors = {n: noise(n, t, generator).to(dtype) for n, t in sorted(tensors.items())}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})

    model = PeftModel.from_pretrained(load(base), folder).eval()
    read = model.state_dict()
    lora = [n for n in read if ".lora_" in n]
    if old and any(read[n].abs().max() == 0 for n in lora):
        raise SystemExit(f"{folder.name}: PEFT has not read all of the adapter")
    golden = json.loads((HERE / base / "golden.json").read_text())
    ids = golden["prompt"][:40]
    golden = dict(base=base, prompt=list(ids), tokens=[], logprobs=[], margins=[])

    def logprobs(token=None):
        ids.extend([token] if token is not None else [])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return torch.log_softmax(logits.double(), -1)

    scores = logprobs()
    golden["prompt_logprobs"] = [None] + [round(scores[i, ids[i + 1]].item(), 6) for i in range(len(ids) - 1)]
    generate(golden, 16, logprobs, scores)
    with model.disable_adapter():
        plain = logprobs()
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    for f in folder.iterdir():
        f.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{folder.name}: {size // 1024} KiB, {len(lora)} tensors, least margin {min(golden['margins'])}, changes log-probabilities by {(plain[-1] - logprobs()[-1]).abs().max().item():.2g}", flush=True)


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "adapters"
    for name, base, config, dtype, seed in COMMITTED:
        if len(sys.argv) < 3 or name in sys.argv[2:]:
            write(root / name, base, config, dtype, seed)
