"""Writes tiny random checkpoints of models that see, and what transformers computes from them.

    python vision.py [NAME...]    all, or some, into this folder

Each is a folder with config.json, model.safetensors and golden.json of a text as goldens.py
writes them, preprocessor_config.json, and vision.json:

    tiles       the input of the vision tower, tile by tile: pixels [patches, width], the class
                token's row, if there is one, being zeros after them; pos, rows and weights of the
                learned positions; axes, the row and the column of each patch; windows, the patches
                of each; merge, how many patches become one row. What is merged is consecutive.
    order       of the rows of all tiles, the one that each image token takes; -1: the newline
    embeds      the rows of all image tokens
    prompt      token ids, that of an image token being image_token
    axes        three positions of each token of the prompt, if they have three
    spans       first and count of tokens that attend to each other
    logprobs    of each token of the prompt given those before it, null where it is an image token

Everything is computed in float32 with eager attention, from the files as they were written. Folders
ending in -hub have the tensors' names that are published on the hub. Needs torch, transformers and
safetensors; the Go tests only read the folders.
"""

import json
import pathlib
import shutil
import sys
import zlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from families import SHAPE, rope
from families.dense import GEMMA4, KEY_IS_VALUE, PER_LAYER
from goldens import GEMMA, QWEN3_5, generate, randomise

LLAMA = dict(SHAPE, num_attention_heads=5, num_key_value_heads=1, model_type="llama")
SIGLIP = dict(model_type="siglip_vision_model", hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4, vision_use_head=False)
CLIP = dict(model_type="clip_vision_model", hidden_size=24, intermediate_size=36, num_hidden_layers=3, num_attention_heads=2, image_size=12, patch_size=4, projection_dim=8)
PIXTRAL = dict(model_type="pixtral", hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=4)
QWEN2 = dict(SHAPE, num_attention_heads=5, num_key_value_heads=1, model_type="qwen2")
QWEN_VISION = dict(depth=3, num_heads=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2)
GEMMA4_SHORT = dict(GEMMA4, num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])
GEMMA4_VISION = dict(hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2, head_dim=8, patch_size=4, pooling_kernel_size=3, position_embedding_size=64)
IMAGE = 119

# Name, what the model is, its config, and how its pixels are cut.
COMMITTED = [
    ("gemma3-images", "gemma3", dict(text_config=dict(GEMMA, num_attention_heads=2, num_key_value_heads=1, sliding_window=9, layer_types=["sliding_attention", "full_attention"]), vision_config=SIGLIP, mm_tokens_per_image=4), dict(size=(16, 16), merge=2, spans=True)),
    ("qwen2-vl", "qwen2_vl", dict(text_config=dict(QWEN2, model_type="qwen2_vl_text", rope_parameters=rope(1e4, mrope_section=[1, 1, 2])), vision_config=dict(QWEN_VISION, embed_dim=24, hidden_size=40, mlp_ratio=2)), dict(size=(24, 16), merge=2)),
    ("qwen2_5-vl", "qwen2_5_vl", dict(text_config=dict(QWEN2, model_type="qwen2_5_vl_text", rope_parameters=rope(1e4, mrope_section=[2, 1, 1])), vision_config=dict(QWEN_VISION, hidden_size=24, intermediate_size=28, out_hidden_size=40, fullatt_block_indexes=[1], window_size=16)), dict(size=(24, 40), merge=2, window=2)),
    ("qwen3-vl", "qwen3_vl", dict(text_config=dict(SHAPE, num_attention_heads=3, num_key_value_heads=1, head_dim=16, model_type="qwen3_vl_text", rope_parameters=rope(1e4, mrope_section=[4, 2, 2], mrope_interleaved=True)), vision_config=dict(QWEN_VISION, hidden_size=24, intermediate_size=28, out_hidden_size=40, num_position_embeddings=25, deepstack_visual_indexes=[0, 2])), dict(size=(16, 24), merge=2, blend=5)),
    ("qwen3-vl-moe", "qwen3_vl_moe", dict(text_config=dict(SHAPE, num_attention_heads=3, num_key_value_heads=1, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, mlp_only_layers=[1], model_type="qwen3_vl_moe_text", rope_parameters=rope(1e4, mrope_section=[4, 2, 2], mrope_interleaved=True)), vision_config=dict(QWEN_VISION, depth=2, hidden_size=16, intermediate_size=20, out_hidden_size=40, num_position_embeddings=25, deepstack_visual_indexes=[0])), dict(size=(16, 24), merge=2, blend=5)),
    ("gemma4-images", "gemma4", dict(text_config=dict(GEMMA4_SHORT, **KEY_IS_VALUE, use_bidirectional_attention="vision"), vision_config=dict(GEMMA4_VISION, num_key_value_heads=2, standardize=True), audio_config=None), dict(size=(24, 36), merge=3, spans=True, channels_last=True)),
    ("gemma4-clipped", "gemma4", dict(text_config=dict(GEMMA4_SHORT, **PER_LAYER), vision_config=dict(GEMMA4_VISION, num_key_value_heads=1, use_clipped_linears=True), audio_config=None), dict(size=(36, 12), merge=3, channels_last=True)),
    ("idefics3", "idefics3", dict(text_config=LLAMA, vision_config=dict(SIGLIP, model_type="idefics3_vision"), scale_factor=2), dict(size=(16, 16), tiles=3, merge=2, prefix="model.vision_model.")),
    ("smolvlm", "smolvlm", dict(text_config=LLAMA, vision_config=dict(SIGLIP, model_type="smolvlm_vision", image_size=12), scale_factor=2), dict(size=(16, 16), tiles=2, merge=2, nearest=3)),
    ("llava", "llava", dict(text_config=LLAMA, vision_config=CLIP, vision_feature_layer=-2), dict(size=(12, 12), class_token=True)),
    ("llava-siglip", "llava", dict(text_config=QWEN2, vision_config=SIGLIP, vision_feature_layer=-1, vision_feature_select_strategy="full"), dict(size=(16, 16))),
    ("llava-pixtral", "llava", dict(text_config=dict(LLAMA, model_type="mistral"), vision_config=PIXTRAL, vision_feature_layer=-1, vision_feature_select_strategy="full"), dict(size=(12, 20))),
    ("internvl", "internvl", dict(text_config=QWEN2, vision_config=dict(model_type="internvl_vision", hidden_size=24, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2, image_size=[16, 16], patch_size=[4, 4], attention_bias=True, use_qk_norm=True, norm_type="rms_norm")), dict(size=(16, 16), tiles=2, merge=2, class_token=True)),
    ("paligemma", "paligemma", dict(text_config=dict(GEMMA, num_attention_heads=2, num_key_value_heads=1, model_type="gemma"), vision_config=dict(SIGLIP, projection_dim=40), projection_dim=40), dict(size=(16, 16), whole=True)),
    ("qwen3_5-images", "qwen3_5", dict(text_config=dict(QWEN3_5, hidden_size=40, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"]), vision_config=dict(QWEN_VISION, depth=2, hidden_size=24, intermediate_size=28, out_hidden_size=40, num_position_embeddings=25)), dict(size=(16, 24), merge=2, blend=5)),
    ("mistral3-images", "mistral3", dict(text_config=dict(LLAMA, model_type="mistral"), vision_config=PIXTRAL, spatial_merge_size=2), dict(size=(16, 24), merge=2)),
    ("llava-next", "llava_next", dict(text_config=LLAMA, vision_config=CLIP, vision_feature_layer=-2, image_grid_pinpoints=[[12, 24]]), dict(size=(12, 12), tiles=3, class_token=True, newline=(12, 24))),
]

QWEN_PROCESSOR = dict(image_processor_type="Qwen2VLImageProcessor", patch_size=4, merge_size=2, temporal_patch_size=2, min_pixels=64, max_pixels=4096)
PIXTRAL_PROCESSOR = dict(image_processor_type="PixtralImageProcessor", size=dict(longest_edge=32), patch_size=dict(height=4, width=4))
GEMMA4_PROCESSOR = dict(image_processor_type="Gemma4ImageProcessor", patch_size=4, pooling_kernel_size=3)
SQUARE = dict(size=dict(height=16, width=16))
CROPPED = dict(size=dict(shortest_edge=12), crop_size=dict(height=12, width=12))

# preprocessor_config.json of each.
PROCESSORS = {
    "gemma3-images": dict(SQUARE, image_processor_type="Gemma3ImageProcessor", image_seq_length=4),
    "qwen2-vl": QWEN_PROCESSOR,
    "qwen2_5-vl": QWEN_PROCESSOR,
    "qwen3-vl": QWEN_PROCESSOR,
    "qwen3-vl-moe": QWEN_PROCESSOR,
    "gemma4-images": dict(GEMMA4_PROCESSOR, max_soft_tokens=6),
    "gemma4-clipped": dict(GEMMA4_PROCESSOR, max_soft_tokens=3),
    "qwen3_5-images": QWEN_PROCESSOR,
    "idefics3": dict(image_processor_type="Idefics3ImageProcessor", size=dict(longest_edge=32), max_image_size=dict(longest_edge=16)),
    "smolvlm": dict(image_processor_type="SmolVLMImageProcessor", size=dict(longest_edge=32), max_image_size=dict(longest_edge=16)),
    "llava": dict(CROPPED, image_processor_type="CLIPImageProcessor"),
    "llava-siglip": dict(SQUARE, image_processor_type="SiglipImageProcessor"),
    "llava-pixtral": PIXTRAL_PROCESSOR,
    "internvl": dict(SQUARE, image_processor_type="GotOcr2ImageProcessor", crop_to_patches=True, min_patches=1, max_patches=4),
    "paligemma": dict(SQUARE, image_processor_type="SiglipImageProcessor", image_seq_length=16),
    "mistral3-images": PIXTRAL_PROCESSOR,
    "llava-next": dict(CROPPED, image_processor_type="LlavaNextImageProcessor", image_grid_pinpoints=[[12, 24]]),
}


def write_processor(folder):
    processor = PROCESSORS[folder.name.removesuffix("-hub")]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2, sort_keys=True) + "\n")


# What tensors are called on the hub, instead of what transformers writes.
HUB = {
    "llava-hub": ("llava", {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.", "model.vision_tower.": "vision_tower.vision_model.", "model.multi_modal_projector.": "multi_modal_projector."}),
}


def pieces(pixels, patch, merge, frames=1, channels_last=False):
    """Patches of pixels [3, height, width] in the order of the tower: [channel, frame, row, column] of each,
    or [row, column, channel], their rows and columns."""
    _, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    order = []
    for y in range(0, rows, merge):
        for x in range(0, columns, merge):
            order += [(y + i, x + j) for i in range(merge) for j in range(merge)]
    cut = [pixels[:, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch].unsqueeze(1).expand(-1, frames, -1, -1) for y, x in order]
    if channels_last:
        cut = [c.permute(1, 2, 3, 0) for c in cut]
    return torch.stack([c.reshape(-1) for c in cut]), order, rows, columns


def tile_of(pixels, patch, how):
    """What the tower is given of a tile."""
    merge = how.get("merge", 1)
    frames = how.get("frames", 1)
    patches, order, rows, columns = pieces(pixels, patch, merge, frames, how.get("channels_last", False))
    tile = dict(merge=merge * merge)
    if window := how.get("window"):
        # Windows of so many merged patches along an edge, row by row.
        groups = [[] for _ in range(-(-rows // merge // window) * -(-columns // merge // window))]
        across = -(-columns // merge // window)
        for i, (y, x) in enumerate(order):
            groups[y // merge // window * across + x // merge // window].append(i)
        new = [i for g in groups for i in g]
        patches, order = patches[new], [order[i] for i in new]
        tile["windows"] = [len(g) for g in groups]
    tile["axes"] = [n for place in order for n in place]
    first = 1 if how.get("class_token") else 0
    side = columns
    if side := how.get("nearest"):
        at = lambda i, n: min(int(i / n * side + 1e-6), side - 1)
        tile["pos"] = [at(y, rows) * side + at(x, columns) for y, x in order]
    elif side := how.get("blend"):
        tile["rows"], tile["weights"] = [], []
        for y, x in order:
            fy, fx = y * (side - 1) / (rows - 1), x * (side - 1) / (columns - 1)
            for k in range(4):
                ny, nx = min(int(fy) + k // 2, side - 1), min(int(fx) + k % 2, side - 1)
                wy = fy - int(fy) if k // 2 else 1 - fy + int(fy)
                wx = fx - int(fx) if k % 2 else 1 - fx + int(fx)
                tile["rows"].append(ny * side + nx)
                tile["weights"].append(wy * wx)
    else:
        tile["pos"] = [first + y * columns + x for y, x in order]
    if first:
        patches = torch.cat([patches, torch.zeros(1, patches.shape[1])])
        tile["class"] = 1
        tile["pos"].append(0)
        tile["axes"] += [0, 0]
    tile["pixels"] = [round(v, 6) for v in patches.flatten().tolist()]
    places = {place: i // (merge * merge) for i, place in enumerate(order) if i % (merge * merge) == 0}
    return tile, [places[(y, x)] for y in range(0, rows, merge) for x in range(0, columns, merge)]


def inputs_of(kind, pixels, how, patch):
    """What the model's get_image_features takes."""
    if kind.startswith("qwen"):
        _, height, width = pixels[0].shape
        patches, *_ = pieces(pixels[0], patch, how["merge"], 2)
        return dict(pixel_values=patches, image_grid_thw=torch.tensor([[1, height // patch, width // patch]]))
    if kind == "gemma4":
        # The model makes -1 to 1 of 0 to 1 itself, and has the column of a patch first.
        patches, order, *_ = pieces((pixels[0] + 1) / 2, patch, how["merge"], channels_last=True)
        return dict(pixel_values=patches.unsqueeze(0), image_position_ids=torch.tensor([[(x, y) for y, x in order]]))
    if kind in ("idefics3", "smolvlm"):
        return dict(pixel_values=torch.stack(pixels).unsqueeze(0))
    if kind == "mistral3" or how.get("sizes"):
        _, height, width = pixels[0].shape
        return dict(pixel_values=torch.stack(pixels), image_sizes=torch.tensor([[height, width]]))
    if how.get("newline"):
        return dict(pixel_values=torch.stack(pixels).unsqueeze(0), image_sizes=torch.tensor([how["newline"]]))
    return dict(pixel_values=torch.stack(pixels))


def rows_of(features):
    out = features.pooler_output
    if isinstance(out, torch.Tensor):
        out = [out.flatten(0, -2)]
    rows = torch.cat([o.flatten(0, -2) for o in out])
    if (deep := getattr(features, "deepstack_features", None)) is not None:
        # Of each layer, the images one after the other.
        flat = lambda f: f if isinstance(f, torch.Tensor) else torch.cat(list(f))
        rows = torch.cat([rows] + [flat(f) for f in deep], -1)
    return rows


def write(folder, kind, config, how, renames=None):
    seed = zlib.crc32(folder.name.removesuffix("-hub").encode())
    shutil.rmtree(folder, ignore_errors=True)
    g = torch.Generator().manual_seed(seed)
    config = dict(config, **({"image_token_id": IMAGE} if kind not in ("gemma3", "llava", "llava_next", "mistral3", "paligemma") else {"image_token_index": IMAGE}))
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **config))
    with torch.no_grad():
        randomise(model, g)
        for name, p in model.named_parameters():
            if "class_embedding" in name or "cls_token" in name or "lambda_" in name or "image_newline" in name:
                p.copy_(torch.randn(p.shape, generator=g) * 0.5)
        for name, b in model.named_buffers():
            if name.endswith(("std_bias", "std_scale")):
                b.copy_(torch.randn(b.shape, generator=g))
            if name.endswith(("input_min", "input_max", "output_min", "output_max")):
                b.copy_((1 if name.endswith("max") else -1) * (0.3 + torch.rand(b.shape, generator=g)))
    model.to(torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    saved.pop("_attn_implementation", None)
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")

    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, attn_implementation="eager")
    if info["missing_keys"] or info["mismatched_keys"]:
        raise SystemExit(f"{folder.name}: {info}")
    model.eval()
    if renames:
        tensors = load_file(folder / "model.safetensors")
        for old, new in renames.items():
            tensors = {new + n.removeprefix(old) if n.startswith(old) else n: t for n, t in tensors.items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    # A text.
    ids = torch.randint(0, IMAGE, (24,), generator=g).tolist()
    golden = dict(family=kind, prompt=list(ids), tokens=[], logprobs=[], margins=[])

    def scores(token=None):
        ids.extend([token] if token is not None else [])
        kwargs = dict(token_type_ids=torch.zeros(1, len(ids), dtype=torch.long)) if kind == "gemma3" else {}
        if kind == "paligemma":
            kwargs = dict(token_type_ids=torch.ones(1, len(ids), dtype=torch.long))
        with torch.no_grad():
            return torch.log_softmax(model(input_ids=torch.tensor([ids]), use_cache=False, **kwargs).logits[0].double(), -1)

    first = scores()
    golden["prompt_logprobs"] = [None] + [round(first[i, ids[i + 1]].item(), 6) for i in range(len(ids) - 1)]
    generate(golden, 8, scores, first)
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")

    # An image in a text.
    vision = model.config.vision_config
    patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    if kind.startswith("qwen"):
        how = dict(how, frames=2)
    if vision.model_type == "pixtral":
        how = dict(how, sizes=True)
    height, width = how["size"]
    pixels = [torch.randint(-64, 65, (3, height, width), generator=g) / 64 for _ in range(how.get("tiles", 1))]
    with torch.no_grad():
        kwargs = inputs_of(kind, pixels, how, patch)
        features = model.get_image_features(**kwargs, **({"vision_feature_layer": config["vision_feature_layer"], "vision_feature_select_strategy": config.get("vision_feature_select_strategy", "default")} if kind == "llava_next" else {}))
    embeds = rows_of(features)
    tiles, order, at = [], [], 0
    for p in pixels:
        tile, local = tile_of(p, patch, how)
        tiles.append(tile)
        order += [at + i for i in local]
        at += len(local)
    if how.get("newline"):
        # The whole image, and then lines of tiles.
        side, columns = 12 // patch, how["newline"][1] // 12
        order = list(range(side * side))
        for y in range(side * (how["newline"][0] // 12)):
            order += [(1 + y // side * columns + x // side) * side * side + y % side * side + x % side for x in range(side * columns)] + [-1]
    n = embeds.shape[0]
    if len(order) != n:
        raise SystemExit(f"{folder.name}: {len(order)} rows in order, {n} rows")
    prompt = torch.randint(0, IMAGE, (5,), generator=g).tolist() + [IMAGE] * n + torch.randint(0, IMAGE, (9,), generator=g).tolist()
    result = dict(tiles=tiles, order=order, prompt=prompt, image_token=IMAGE, embeds=[round(v, 6) for v in embeds.flatten().tolist()], spans=[])
    types = torch.tensor([[1 if i == IMAGE else 0 for i in prompt]])
    if how.get("spans"):
        kwargs["mm_token_type_ids" if kind == "gemma4" else "token_type_ids"] = types
        result["spans"] = [[5, n]]
    if how.get("whole"):
        kwargs["token_type_ids"] = torch.zeros_like(types)
        result["spans"] = [[0, len(prompt)]]
    if kind.startswith("qwen"):
        kwargs["mm_token_type_ids"] = types
        positions, _ = model.model.get_rope_index(torch.tensor([prompt]), types, image_grid_thw=kwargs["image_grid_thw"], attention_mask=torch.ones(1, len(prompt), dtype=torch.long))
        result["axes"] = positions[:, 0].tolist()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt]), use_cache=False, **kwargs).logits[0]
    logprobs = torch.log_softmax(logits.double(), -1)
    result["logprobs"] = [None] + [None if prompt[i + 1] == IMAGE else round(logprobs[i, prompt[i + 1]].item(), 6) for i in range(len(prompt) - 1)]
    write_processor(folder)
    (folder / "vision.json").write_text(json.dumps(result) + "\n")
    for f in folder.iterdir():
        f.chmod(0o644)
    print(f"{folder.name}: {sum(f.stat().st_size for f in folder.iterdir()) // 1024} KiB, {n} image tokens, embeds to {embeds.abs().max():.2f}", flush=True)


def main():
    here, names = pathlib.Path(__file__).parent, sys.argv[1:]
    rows = list(COMMITTED)
    for hub, (of, renames) in HUB.items():
        rows += [(hub, *row[1:], renames) for row in COMMITTED if row[0] == of]
    for name, *row in rows:
        if not names or name in names:
            write(here / name, *row)


if __name__ == "__main__":
    main()
