"""Writes random heads that predict one more token, for the checkpoints here, and what they draft.

    python drafts.py [DIR [NAME...]]    the committed set, into drafts here

Each is a folder with mtp.safetensors, the head's tensors under the names that published
checkpoints have, and golden.json:

    base     folder of the checkpoint, beside DIR
    config   what config.json has besides
    tokens   a text: the prompt of base's golden.json and what follows it there
    prompt   how many of them are the prompt
    drafts   after each token from the prompt's last on, but for the last two: which
             tokens the head expects after the next one, four of them
    margins  best minus second-best logit of each

The head is written down here from its publications (arXiv 2412.19437, section 2.2), around
a decoder layer of transformers: at position t it joins norms of the embedding of token t+1
and of the model's last state at t, which is the one after the last norm, projects them,
and runs the layer on positions 0 to t. To expect one token more it is given, at position
t+1, the token that it expects and its own state at t, after its own last norm. Everything
is computed in float32 from the files as they were written. Needs what goldens.py needs.
"""

import json
import pathlib
import shutil
import sys
import zlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeDecoderLayer
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHBlock
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeDecoderLayer
from transformers.utils import logging

HERE = pathlib.Path(__file__).parent
TOKENS = 4  # of a draft

# What the head's own tensors are called, the layers below which its blocks are, and
# what is added to the weights of norms.
QWEN = ("mtp.pre_fc_norm_embedding", "mtp.pre_fc_norm_hidden", "mtp.fc", "mtp.norm", ["mtp.layers.0."], 1)
NEMOTRON = ("mtp.layers.0.enorm", "mtp.layers.0.hnorm", "mtp.layers.0.eh_proj", "mtp.layers.1.final_layernorm", ["mtp.layers.0.", "mtp.layers.1."], 0)


def after(layers):
    at = f"model.layers.{layers}."
    return (at + "enorm", at + "hnorm", at + "eh_proj", at + "shared_head.norm", [at], 0)


# name: base, decoder layer, kinds of layer_types that its blocks have, names, extra configuration
COMMITTED = {
    "qwen3_5": ("qwen3_5", Qwen3_5DecoderLayer, ["full_attention"], QWEN, dict(mtp_num_hidden_layers=1)),
    "qwen3_5-moe": ("qwen3_5-moe", Qwen3_5MoeDecoderLayer, ["full_attention"], QWEN, dict(mtp_num_hidden_layers=1)),
    "deepseek-v3": ("deepseek-v3", DeepseekV3DecoderLayer, None, None, dict(num_nextn_predict_layers=1)),
    "glm4-moe": ("glm4-moe", Glm4MoeDecoderLayer, None, None, dict(num_nextn_predict_layers=1)),
    "nemotron-h": ("nemotron-h", NemotronHBlock, ["full_attention", "moe"], NEMOTRON, dict(num_nextn_predict_layers=1, mtp_hybrid_override_pattern="*E")),
}


def randomise(module, generator):
    for name, p in (*module.named_parameters(), *module.named_buffers()):
        if p.ndim > 1:
            size = p.shape[-1] ** -0.5
            p.data = torch.randn(p.shape, generator=generator) * size
        else:
            p.data = torch.rand(p.shape, generator=generator) - 0.5 + (0 if "bias" in name else 1)
        p.data = p.data.bfloat16().float()


def published(prefix, tensors):
    """A block's tensors as checkpoints have them: each expert by itself."""
    for name, t in tensors.items():
        if ".experts." not in name or name.endswith("weight") or name.endswith("bias"):
            yield prefix + name, t
            continue
        above, projection = name.rsplit(".", 1)
        for e, w in enumerate(t):
            parts = dict(gate_proj=w[: len(w) // 2], up_proj=w[len(w) // 2 :]) if projection == "gate_up_proj" else {projection: w}
            for part, rows in parts.items():
                yield f"{prefix}{above}.{e}.{part}.weight", rows.contiguous()


def rms(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def write(folder, base, block, kinds, names, extra, seed):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(HERE / base, dtype=torch.float32, attn_implementation="eager").eval()
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    config = model.config
    hidden, eps = config.hidden_size, getattr(config, "layer_norm_epsilon", None) or config.rms_norm_eps
    embed_norm, hidden_norm, project, last_norm, prefixes, shift = names or after(config.num_hidden_layers)
    # A decoder layer asks the configuration which kind it is: it is one of the model's.
    like = [config.layer_types.index(k) for k in kinds] if kinds else [config.num_hidden_layers - 1]
    blocks = [block(config, i).eval() for i in like]
    tensors = {n + ".weight": torch.rand(hidden, generator=generator) - 0.5 + (1 - shift) for n in (embed_norm, hidden_norm, last_norm)}
    tensors[project + ".weight"] = torch.randn(hidden, 2 * hidden, generator=generator) * (2 * hidden) ** -0.5
    tensors = {n: t.bfloat16() for n, t in tensors.items()}
    for prefix, b in zip(prefixes, blocks):
        randomise(b, generator)
        tensors.update({n: t.bfloat16() for n, t in published(prefix, b.state_dict())})
    save_file(tensors, folder / "mtp.safetensors", {"format": "pt"})

    w = {n: t.float() + (shift if n.removesuffix(".weight") in (embed_norm, hidden_norm, last_norm) else 0) for n, t in load_file(folder / "mtp.safetensors").items()}
    golden = json.loads((HERE / base / "golden.json").read_text())
    ids = torch.tensor([golden["prompt"] + golden["tokens"]])
    with torch.no_grad():
        inner = model.model
        states = inner(ids, use_cache=False).last_hidden_state[:, :-1]
        embeds = model.get_input_embeddings()(ids[:, 1:])

        def join(embeds, states):
            x = torch.cat([rms(embeds, w[embed_norm + ".weight"], eps), rms(states, w[hidden_norm + ".weight"], eps)], -1)
            return x @ w[project + ".weight"].T

        def run(x):
            n = x.shape[1]
            how = dict(attention_mask=torch.full((n, n), float("-inf")).triu(1)[None, None])
            if hasattr(inner, "rotary_emb"):
                how["position_embeddings"] = inner.rotary_emb(x, torch.arange(n)[None])
            for b in blocks:
                if hasattr(b, "set_experts_implementation"):
                    b.set_experts_implementation("eager")
                x = b(x, **how)
                x = x[0] if isinstance(x, tuple) else x
            return rms(x, w[last_norm + ".weight"], eps)

        given = join(embeds, states)
        own = run(given)
        first = len(golden["prompt"]) - 1
        drafts, margins = [], []
        for t in range(first, given.shape[1]):
            x, state = given[:, : t + 1], own[:, t]
            drafts.append([])
            margins.append([])
            for i in range(TOKENS):
                best = model.lm_head(state)[0].double().topk(2)
                drafts[-1].append(best.indices[0].item())
                margins[-1].append(round((best.values[0] - best.values[1]).item(), 6))
                if i + 1 < TOKENS:
                    embed = model.get_input_embeddings()(best.indices[:1])
                    x = torch.cat([x, join(embed, state)[None]], 1)
                    state = run(x)[:, -1]
    out = dict(
        base=base,
        config=extra,
        tokens=ids[0].tolist(),
        prompt=first + 1,
        drafts=drafts,
        margins=margins,
    )
    (folder / "golden.json").write_text(json.dumps(out) + "\n")
    for f in folder.iterdir():
        f.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{folder.name}: {size // 1024} KiB, {len(set(sum(drafts, [])))} different tokens in {len(drafts)} drafts, least margin {min(sum(margins, []))}", flush=True)


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "drafts"
    for name, how in COMMITTED.items():
        if len(sys.argv) < 3 or name in sys.argv[2:]:
            write(root / name, *how, zlib.crc32(name.encode()))
