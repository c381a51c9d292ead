"""Writes tiny checkpoints in the ways that quantised ones are stored, and what
transformers computes from the numbers that they stand for.

    python quantized.py [NAME...]

A folder is like one of goldens.py. What the tensors stand for is computed by
compressed-tensors and bitsandbytes, where these have code for it, else by the
formula of the method's own kernels; it is rounded to bfloat16, as a backend is given
it that does not take quantised formats. Needs torch, transformers, safetensors,
compressed-tensors and bitsandbytes; the Go tests only read the folders.
"""

import json
import pathlib
import shutil
import sys
import zlib

import bitsandbytes.functional as bnb
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from goldens import generate, randomise

LLAMA = dict(
    vocab_size=120, hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=256, tie_word_embeddings=False, torch_dtype="bfloat16",
)
GROUP = 16


def integers(w, bits, size, symmetric):
    """Codes from 0 on, [out, in], scales and zero points, [out, groups]."""
    x = w.unflatten(-1, (-1, size))
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    if symmetric:
        scale = x.abs().amax(-1) / (middle - 1)
        zero = torch.full_like(scale, middle)
    else:
        low, high = x.amin(-1).clamp(max=0), x.amax(-1).clamp(min=0)
        scale = (high - low) / top
        zero = (-low / scale).round().clamp(1, top)
    scale = scale.half().float()
    codes = ((x / scale.unsqueeze(-1)).round() + zero.unsqueeze(-1)).clamp(0, top).flatten(-2)
    return codes.int(), scale, zero.int()


def words(codes, bits, order=range(8)):
    """I32 words of the last dimension, the lowest bits first."""
    each = 32 // bits
    packed = torch.zeros(*codes.shape[:-1], codes.shape[-1] // each, dtype=torch.int64)
    for i in range(each):
        packed |= codes[..., list(order)[i] if bits == 4 else i :: each].long() << bits * i
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


def awq(w):
    codes, scale, zero = integers(w, 4, GROUP, False)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    tensors = {".qweight": words(codes.T, 4, order), ".qzeros": words(zero.T, 4, order), ".scales": scale.T.half()}
    q, s, z = AutoAWQConverter(group_size=GROUP)._convert_gemm_module(tensors[".qweight"], tensors[".scales"], tensors[".qzeros"])
    args = QuantizationArgs(num_bits=4, type="int", symmetric=False, group_size=GROUP, strategy="group")
    return tensors, dequantize(q, s.float(), z, args=args)


def gptq(bits=4, symmetric=True, act_order=False, v2=False, bias=False):
    def store(w):
        inputs = w.shape[1]
        group = torch.arange(inputs) // GROUP
        if act_order:
            group = group[torch.randperm(inputs, generator=torch.Generator().manual_seed(inputs))]
        by_group = torch.argsort(group, stable=True)
        sorted_codes, scale, zero = integers(w[:, by_group], bits, GROUP, symmetric)
        codes = torch.empty_like(sorted_codes)
        codes[:, by_group] = sorted_codes
        kept = zero if v2 else (zero - 1) & (2**bits - 1)
        tensors = {
            ".qweight": words(codes, bits).T, ".qzeros": words(kept.T, bits), ".scales": scale.T.half(), ".g_idx": group.int(),
        }
        if bias:
            tensors[".bias"] = torch.zeros(w.shape[0], dtype=torch.float16)
        # as QuantLinear of AutoGPTQ does it
        shifts = torch.arange(0, 32, bits)
        mask = 2**bits - 1
        zeros = (tensors[".qzeros"].unsqueeze(-1) >> shifts & mask).flatten(1)
        if not v2:
            zeros = zeros + 1 & mask
        weight = (tensors[".qweight"].unsqueeze(1) >> shifts.view(1, -1, 1) & mask).flatten(0, 1)
        dequantized = tensors[".scales"].float()[group] * (weight - zeros[group])
        return tensors, dequantized.T

    return store


def blocks(w, rows, cols):
    """The greatest magnitude of each block, and that of its block for each element."""
    high, wide = -(-w.shape[0] // rows), -(-w.shape[1] // cols)
    padded = torch.nn.functional.pad(w, (0, wide * cols - w.shape[1], 0, high * rows - w.shape[0]))
    most = padded.view(high, rows, wide, cols).abs().amax((1, 3))
    return most, most.repeat_interleave(rows, 0)[: w.shape[0]].repeat_interleave(cols, 1)[:, : w.shape[1]]


def fp8(rows, cols, suffix, shape):
    def store(w):
        most, of = blocks(w, rows or w.shape[0], cols or w.shape[1])
        codes = (w / (of / 448)).to(torch.float8_e4m3fn)
        return {".weight": codes, suffix: (most / 448).view(shape(most))}, codes.float() * (of / 448)

    return store


def compressed(name, **args):
    """What compressed-tensors writes and reads."""

    def store(w):
        weights = QuantizationArgs(**args)
        scheme = QuantizationScheme(targets=["Linear"], weights=weights)
        compressor = BaseCompressor.get_value_from_registry(name)
        x = w.unflatten(-1, (-1, weights.group_size)) if weights.group_size else w
        state = {"weight": w}
        more = {}
        if name == "nvfp4-pack-quantized":
            more["global_scale"] = state["weight_global_scale"] = generate_gparam(w.amin(), w.amax())
        scale, zero = calculate_qparams(x.amin(-1), x.amax(-1), weights, **more)
        if not weights.group_size:
            scale, zero = scale.unsqueeze(-1), zero.unsqueeze(-1)
        if name in ("pack-quantized", "int-quantized"):
            scale = scale.bfloat16().float()
        state.update(weight_scale=scale, weight_zero_point=zero.to(torch.int8))
        if weights.symmetric:
            del state["weight_zero_point"]
        stored = compressor.compress(dict(state), scheme)
        read = compressor.decompress(dict(stored), scheme)["weight"].float()
        if name in ("pack-quantized", "int-quantized"):
            stored["weight_scale"] = stored["weight_scale"].bfloat16()
        return {"." + k: v for k, v in stored.items()}, read

    return store


def modelopt_nvfp4(w):
    stored, read = compressed("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True)(w)
    one = stored.pop(".weight_global_scale")
    return {".weight": stored.pop(".weight_packed"), ".weight_scale_2": (1 / one).view(()), **stored}, read


def nf4(double):
    def store(w):
        codes, state = bnb.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=double)
        tensors = {".weight." + k: v for k, v in state.as_dict(packed=True).items()}
        # Blocks run through the rows; dequantize_4bit of 0.50 does not know that on CPUs.
        most = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset if double else state.absmax
        pairs = codes.flatten().long()
        read = state.code[torch.stack([pairs >> 4, pairs & 15], -1)].view(-1, 64) * most.view(-1, 1)
        return {".weight": codes, **tensors}, read.view(w.shape)

    return store


def bnb_int8(w):
    codes, scales, _ = bnb.int8_vectorwise_quant(w.half())
    tensors = {".weight": codes, ".SCB": scales, ".weight_format": torch.tensor(0, dtype=torch.uint8)}
    return tensors, bnb.int8_vectorwise_dequant(codes, scales).float()


def groups(format, **weights):
    return dict(
        quant_method="compressed-tensors", format=format, quantization_status="compressed", ignore=["lm_head"], kv_cache_scheme=None,
        config_groups=dict(group_0=dict(targets=["Linear"], weights=weights, input_activations=None, output_activations=None)),
    )


METHODS = {
    "awq": (awq, dict(quant_method="awq", bits=4, group_size=GROUP, zero_point=True, version="gemm", modules_to_not_convert=None)),
    "gptq": (gptq(bias=True), dict(quant_method="gptq", bits=4, group_size=GROUP, sym=True, desc_act=False, damp_percent=0.01, true_sequential=True)),
    "gptq-act-order": (gptq(act_order=True, symmetric=False), dict(quant_method="gptq", bits=4, group_size=GROUP, sym=False, desc_act=True, checkpoint_format="gptq")),
    "gptq-8-v2": (gptq(8, False, v2=True), dict(quant_method="gptq", bits=8, group_size=GROUP, sym=False, desc_act=False, checkpoint_format="gptq_v2")),
    "fp8-block": (fp8(32, 32, ".weight_scale_inv", lambda s: s.shape), dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[32, 32])),
    "fp8-modelopt": (fp8(None, None, ".weight_scale", lambda s: ()), dict(quant_method="modelopt", quant_algo="FP8", kv_cache_quant_algo="FP8", exclude_modules=["lm_head"])),
    "ct-pack": (compressed("pack-quantized", num_bits=4, type="int", strategy="group", group_size=GROUP, symmetric=False), groups("pack-quantized", num_bits=4, type="int", strategy="group", group_size=GROUP, symmetric=False)),
    "ct-pack-8": (compressed("pack-quantized", num_bits=8, type="int", strategy="channel", symmetric=True), groups("pack-quantized", num_bits=8, type="int", strategy="channel", symmetric=True)),
    "ct-int": (compressed("int-quantized", num_bits=8, type="int", strategy="channel", symmetric=True), groups("int-quantized", num_bits=8, type="int", strategy="channel", symmetric=True)),
    "ct-float": (fp8(1, None, ".weight_scale", lambda s: s.shape), groups("float-quantized", num_bits=8, type="float", strategy="channel", symmetric=True)),
    "ct-nvfp4": (compressed("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True), groups("nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True)),
    "nvfp4-modelopt": (modelopt_nvfp4, dict(quant_method="modelopt", quant_algo="NVFP4", group_size=16, exclude_modules=["lm_head"])),
    "bnb-nf4": (nf4(False), dict(quant_method="bitsandbytes", load_in_4bit=True, load_in_8bit=False, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage="uint8")),
    "bnb-nf4-double": (nf4(True), dict(quant_method="bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)),
    "bnb-int8": (bnb_int8, dict(quant_method="bitsandbytes", load_in_8bit=True, llm_int8_threshold=6.0)),
}


def write(folder, store, quantization):
    generator = torch.Generator().manual_seed(zlib.crc32(folder.name.encode()))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **LLAMA), attn_implementation="eager").float()
    tensors = {}
    with torch.no_grad():
        randomise(model, generator)
        for name, p in model.named_parameters():
            if "layers." in name and p.dim() == 2:
                stored, read = store(p.data)
                p.copy_(read.bfloat16())
                tensors |= {name.removesuffix(".weight") + suffix: t.contiguous().clone() for suffix, t in stored.items()}
            else:
                p.copy_(p.bfloat16())
                tensors[name] = p.bfloat16()
    layer = "model.layers.0.self_attn."
    tensors |= {layer + "k_scale": torch.tensor(1.0), layer + "q_proj.input_scale": torch.tensor(0.5)}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = dict(LLAMA, model_type="llama", architectures=["LlamaForCausalLM"], rope_theta=10000.0, quantization_config=quantization)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    model.eval()
    ids = torch.randint(0, LLAMA["vocab_size"], (50,), generator=generator).tolist()
    golden = dict(family="llama", prompt=list(ids), tokens=[], logprobs=[], margins=[])

    def logprobs(token=None):
        ids.extend([token] if token is not None else [])
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0]
        return torch.log_softmax(logits.double(), -1)

    scores = logprobs()
    golden["prompt_logprobs"] = [None] + [round(scores[i, ids[i + 1]].item(), 6) for i in range(len(golden["prompt"]) - 1)]
    generate(golden, 12, logprobs, scores)
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{folder.name}: {size // 1024} KiB, least margin {min(golden['margins'])}", flush=True)


def main():
    here = pathlib.Path(__file__).parent
    for name in sys.argv[1:] or METHODS:
        write(here / ("llama-" + name), *METHODS[name])


if __name__ == "__main__":
    main()
