"""Writes what transformers' image processors make of images, for the tests of this package.

    python goldens.py          the committed set, goldens.json beside this file
    python goldens.py DIR      200 photograph-like images of each kind of checkpoint, into DIR,
                               for MILLRACE_VISION_GOLDENS=DIR go test -run Transformers

goldens.json has a list of cases:

    name        of the case
    files       the checkpoint's files, by name
    images      width, height and the seed of its pixels (see pixels), or file, beside goldens.json
        prompt      what replaces the placeholder, runs of image tokens as {count}
        tiles       shape of pixel_values: tiles, height, width
        values      some of them: their flat index in [tiles][3][height][width], and the value
        raw         or a file with all of them as float32

a list of image files that are decoded:

    decoded     name and data of a file, width, height and rgb of what Pillow reads; base64

and the positions that towers compute themselves, in transformers' order:

    nearest     for Idefics 3: patches along an edge, table's edge, places
    qwen        rows and columns of patches, table's edge, side of a window in merged patches:
                axes, ids and weights of the table, the order of merged patches by windows

Needs torch, torchvision, transformers, Pillow, numpy and num2words.
"""

import base64
import io
import json
import pathlib
import re
import sys
import tempfile

import numpy as np
import torch
import transformers
from PIL import Image, ImageOps
from tokenizers import Tokenizer, models
from transformers import AutoImageProcessor, PreTrainedTokenizerFast
from transformers.image_transforms import convert_to_rgb
from transformers.utils import logging
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

HERE = pathlib.Path(__file__).parent
HALF = [0.5, 0.5, 0.5]
CLIP = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
RESCALE = dict(do_rescale=True, rescale_factor=0.00392156862745098, do_normalize=True)

# name, class of the processor, config.json, preprocessor_config.json, processor_config.json, tokenizer_config.json
CHECKPOINTS = [
    ("gemma3", "Gemma3Processor",
     dict(model_type="gemma3", mm_tokens_per_image=16, vision_config=dict(model_type="siglip_vision_model", image_size=112, patch_size=14)),
     dict(image_processor_type="Gemma3ImageProcessor", do_convert_rgb=None, do_pan_and_scan=None, size=dict(height=112, width=112), resample=2, image_seq_length=16, image_mean=HALF, image_std=HALF, **RESCALE),
     dict(processor_class="Gemma3Processor", image_seq_length=16),
     dict(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>")),
    ("qwen2_vl", "Qwen2VLProcessor",
     dict(model_type="qwen2_vl", vision_config=dict(model_type="qwen2_vl", in_chans=3)),
     dict(image_processor_type="Qwen2VLImageProcessor", min_pixels=3136, max_pixels=200704, patch_size=14, temporal_patch_size=2, merge_size=2, **CLIP),
     None, {}),
    ("qwen2_5_vl", "Qwen2_5_VLProcessor",
     dict(model_type="qwen2_5_vl", vision_config=dict(window_size=112)),
     dict(image_processor_type="Qwen2VLImageProcessorFast", size=dict(shortest_edge=3136, longest_edge=100352), patch_size=14, temporal_patch_size=2, merge_size=2, **CLIP),
     None, {}),
    ("qwen3_vl", "Qwen3VLProcessor",
     dict(model_type="qwen3_vl", vision_config=dict(num_position_embeddings=2304)),
     None,
     dict(image_processor=dict(image_processor_type="Qwen2VLImageProcessorFast", size=dict(shortest_edge=65536, longest_edge=262144), patch_size=16, temporal_patch_size=2, merge_size=2, image_mean=HALF, image_std=HALF, resample=3, data_format="channels_first", **RESCALE), processor_class="Qwen3VLProcessor"), {}),
    ("idefics3", "Idefics3Processor",
     dict(model_type="idefics3", scale_factor=2, vision_config=dict(image_size=112, patch_size=14)),
     dict(image_processor_type="Idefics3ImageProcessor", do_image_splitting=True, do_pad=True, max_image_size=dict(longest_edge=112), size=dict(longest_edge=336), resample=1, image_mean=HALF, image_std=HALF, **RESCALE),
     dict(image_seq_len=16), {}),
    ("smolvlm whole", "SmolVLMProcessor",
     dict(model_type="smolvlm", scale_factor=4, vision_config=dict(image_size=128, patch_size=16)),
     dict(image_processor_type="SmolVLMImageProcessor", do_image_splitting=False, max_image_size=dict(longest_edge=128), size=dict(longest_edge=300), resample=1, image_mean=HALF, image_std=HALF, **RESCALE),
     dict(image_seq_len=4), {}),
    ("smolvlm", "SmolVLMProcessor",
     dict(model_type="smolvlm", scale_factor=2, vision_config=dict(image_size=118, patch_size=14)),
     dict(image_processor_type="SmolVLMImageProcessor", do_image_splitting=True, max_image_size=dict(longest_edge=118), size=dict(longest_edge=236), resample=1, image_mean=HALF, image_std=HALF, **RESCALE),
     dict(image_seq_len=16), {}),
    ("llava", "LlavaProcessor",
     dict(model_type="llava", vision_feature_select_strategy="default", vision_config=dict(model_type="clip_vision_model", image_size=112, patch_size=14)),
     dict(image_processor_type="CLIPImageProcessor", size=dict(shortest_edge=112), crop_size=dict(height=112, width=112), do_center_crop=True, resample=3, **CLIP, **RESCALE),
     dict(patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1, image_token="<image>"), {}),
    ("llava old", "LlavaProcessor",
     dict(model_type="llava", vision_config=dict(model_type="clip_vision_model", image_size=98, patch_size=14)),
     dict(feature_extractor_type="CLIPFeatureExtractor", size=112, crop_size=98, do_center_crop=True, do_resize=True, do_normalize=True, resample=3, **CLIP),
     dict(patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1), {}),
    ("llava padded", "LlavaProcessor",
     dict(model_type="llava", vision_feature_select_strategy="full", vision_config=dict(model_type="siglip_vision_model", image_size=112, patch_size=16)),
     dict(image_processor_type="LlavaImageProcessorFast", do_pad=True, size=dict(height=112, width=112), do_center_crop=False, image_mean=HALF, image_std=HALF, resample=3, **RESCALE),
     dict(patch_size=16, vision_feature_select_strategy="full"), {}),
    ("internvl", "InternVLProcessor",
     dict(model_type="internvl", downsample_ratio=0.5, vision_config=dict(image_size=[112, 112], patch_size=[14, 14])),
     dict(image_processor_type="GotOcr2ImageProcessorFast", crop_to_patches=False, min_patches=1, max_patches=6, size=dict(height=112, width=112), image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225], resample=3, **RESCALE),
     dict(image_seq_length=16),
     dict(extra_special_tokens=dict(context_image_token="<IMG_CONTEXT>", start_image_token="<img>", end_image_token="</img>", video_token="<video>"))),
    ("paligemma", "PaliGemmaProcessor",
     dict(model_type="paligemma", vision_config=dict(model_type="siglip_vision_model", image_size=112, patch_size=14)),
     dict(image_processor_type="SiglipImageProcessor", size=dict(height=112, width=112), image_seq_length=64, resample=3, image_mean=HALF, image_std=HALF, **RESCALE),
     None, dict(bos_token="<bos>")),
    ("pixtral", "PixtralProcessor",
     dict(model_type="llava", vision_config=dict(model_type="pixtral", image_size=256, patch_size=16)),
     dict(image_processor_type="PixtralImageProcessor", patch_size=dict(height=16, width=16), size=dict(longest_edge=256), resample=3, **CLIP, **RESCALE),
     dict(patch_size=16, image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]"), {}),
    ("mistral3", "PixtralProcessor",
     dict(model_type="mistral3", spatial_merge_size=2, vision_config=dict(model_type="pixtral", image_size=308, patch_size=14)),
     dict(image_processor_type="PixtralImageProcessorFast", patch_size=14, size=dict(longest_edge=308), do_pad=True, resample=3, **CLIP, **RESCALE),
     dict(patch_size=14, spatial_merge_size=2), {}),
    ("llava_next", "LlavaNextProcessor",
     dict(model_type="llava_next", vision_config=dict(model_type="clip_vision_model", image_size=112, patch_size=14), image_grid_pinpoints=[[112, 224], [224, 112], [224, 224], [336, 112], [112, 336]]),
     dict(image_processor_type="LlavaNextImageProcessor", aspect_ratio_setting="anyres", size=dict(shortest_edge=112), crop_size=dict(height=112, width=112), do_center_crop=True, do_pad=True, image_grid_pinpoints=[[112, 224], [224, 112], [224, 224], [336, 112], [112, 336]], resample=3, **CLIP, **RESCALE),
     dict(patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1), {}),
    ("qwen3_5", "Qwen3VLProcessor",
     dict(model_type="qwen3_5", vision_config={}),
     dict(image_processor_type="Qwen2VLImageProcessorFast", size=dict(shortest_edge=65536, longest_edge=131072), patch_size=16, temporal_patch_size=2, merge_size=2, image_mean=HALF, image_std=HALF),
     None, {}),
    ("gemma4", "Gemma4Processor",
     dict(model_type="gemma4", text_config=dict(use_bidirectional_attention="vision"), vision_config=dict(patch_size=16, pooling_kernel_size=3)),
     None,
     dict(image_processor=dict(image_processor_type="Gemma4ImageProcessor", do_normalize=False, image_mean=[0.0, 0.0, 0.0], image_std=[1.0, 1.0, 1.0], patch_size=16, pooling_kernel_size=3, max_soft_tokens=70, resample=3, rescale_factor=0.00392156862745098), image_seq_length=70),
     dict(boi_token="<|image>", eoi_token="<image|>", image_token="<|image|>", audio_token="<|audio|>", boa_token="<|audio>", eoa_token="<audio|>")),
]

# width, height
SIZES = [(112, 112), (61, 37), (300, 211), (97, 401), (640, 100)]


def pixels(width, height, seed):
    """A picture that the Go tests compute too: slopes, edges and noise."""
    i = np.arange(height * width * 3, dtype=np.uint64).reshape(height, width, 3)
    noise = ((i + np.uint64(seed)) * np.uint64(2654435761) >> np.uint64(13)) & np.uint64(63)
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    slope = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1)
    edges = np.where((x // 7 + y // 5 + seed) % 3 == 0, 96, 0)[..., None]
    return ((slope + edges + noise.astype(np.int64)) % 256).astype(np.uint8)


def checkpoint(name, processor, config, preprocessor, processor_config, tokenizer_config):
    """Reads a checkpoint as transformers does, from files."""
    files = {"config.json": config, "preprocessor_config.json": preprocessor, "processor_config.json": processor_config, "tokenizer_config.json": tokenizer_config}
    files = {k: v for k, v in files.items() if v is not None}
    with tempfile.TemporaryDirectory() as folder:
        for file, values in files.items():
            (pathlib.Path(folder) / file).write_text(json.dumps(values))
        image_processor = AutoImageProcessor.from_pretrained(folder)
    extra = dict(tokenizer_config.get("extra_special_tokens", {}), **{k: v for k, v in tokenizer_config.items() if isinstance(v, str)})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0, "\n\n": 1}, unk_token="<unk>")), unk_token="<unk>", extra_special_tokens=extra)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "[IMG]", "<|image_pad|>"]})
    kind = getattr(transformers, processor)
    arguments = {k: v for k, v in (processor_config or {}).items() if k not in ("image_processor", "processor_class")}
    for part in ("video_processor", "feature_extractor"):
        if part in kind.__init__.__code__.co_varnames:
            arguments[part] = None
    # Parts that do not matter here are left out, which the base class would not allow.
    base = transformers.ProcessorMixin
    check, base.check_argument_for_proper_class = base.check_argument_for_proper_class, lambda *a, **k: None
    try:
        patch = config["vision_config"].get("patch_size", getattr(image_processor, "patch_size", 16))
        return kind(image_processor=image_processor, tokenizer=tokenizer, **arguments), patch[0] if isinstance(patch, list) else patch, files
    finally:
        base.check_argument_for_proper_class = check


def unpatch(patches, rows, columns, size, merge, frames):
    """Qwen's patches as an image."""
    x = patches.reshape(rows // merge, columns // merge, merge, merge, 3, frames, size, size)[:, :, :, :, :, 0]
    return x.permute(4, 0, 2, 5, 1, 3, 6).reshape(1, 3, rows * size, columns * size)


def process(processor, patch, image):
    """What replaces the placeholder, and the tiles that the tower sees, in patches of some size."""
    kwargs = processor._merge_kwargs(tokenizer_init_kwargs={}, return_tensors="pt")["images_kwargs"]
    kwargs["return_tensors"] = "pt"
    nested = "Idefics3" in type(processor).__name__ or "SmolVLM" in type(processor).__name__
    inputs, prompts = processor._process_images([[image]] if nested else [image], **kwargs)
    tiles, (prompt,) = inputs["pixel_values"], prompts
    if "image_grid_thw" in inputs:
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        p = processor.image_processor
        tiles = unpatch(tiles, rows, columns, p.patch_size, p.merge_size, p.temporal_patch_size)
    elif "image_position_ids" in inputs:
        positions = inputs["image_position_ids"][0]
        positions = positions[positions[:, 0] >= 0]
        columns, rows = (positions.max(0).values + 1).tolist()
        size = processor.image_processor.patch_size
        x = tiles[0, : rows * columns].reshape(rows, columns, size, size, 3)
        tiles = x.permute(4, 0, 2, 1, 3).reshape(1, 3, rows * size, columns * size)
        tiles = 2 * (tiles - 0.5)  # the model begins so
    tiles = tiles.reshape(-1, *tiles.shape[-3:])
    # Towers do not see what is less than a patch.
    tiles = tiles[..., : tiles.shape[-2] // patch * patch, : tiles.shape[-1] // patch * patch]
    token = getattr(processor.tokenizer, "image_token", None) or processor.image_token
    return re.sub(f"(?:{re.escape(token)})+", lambda m: "{%d}" % (len(m[0]) // len(token)), prompt), tiles


def positions():
    nearest = []
    for n, side in [(8, 8), (26, 26), (26, 70), (36, 32), (70, 70), (5, 7)]:
        # transformers/models/idefics3/modeling_idefics3.py
        bounds = torch.arange(1 / side, 1.0, 1 / side)
        at = (torch.arange(n, dtype=torch.float32) * (1.0 / torch.tensor(n))).clamp(max=1.0 - 1e-6)
        nearest.append(dict(n=n, side=side, places=torch.bucketize(at, bounds, right=True).tolist()))
    qwen = []
    for rows, columns, side, window in [(4, 6, 48, 2), (2, 2, 48, 4), (10, 14, 5, 4), (6, 12, 6, 3)]:
        grid = torch.tensor([[1, rows, columns]])
        ids, weights = get_vision_interpolation_indices_and_weights(grid, side, align_corners=True, spatial_merge_size=2)
        order, windows = get_vision_window_index(grid, 2, window * 2 * 14, 14)
        qwen.append(dict(
            rows=rows, columns=columns, side=side, window=window, axes=get_vision_position_ids(grid, 2).flatten().tolist(),
            ids=ids.flatten().tolist(), weights=[round(w, 6) for w in weights.flatten().tolist()],
            order=order.tolist(), windows=windows.diff().tolist(),
        ))
    return dict(nearest=nearest, qwen=qwen)


def variants():
    """Image files of many kinds: name, bytes."""
    rng = np.random.default_rng(7)
    width, height = 23, 17
    picture = Image.fromarray(pixels(width, height, 3)).resize((width, height), Image.BICUBIC, box=(2, 2, 9, 7))
    alpha = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
    clear = picture.copy()
    clear.putalpha(alpha)

    def save(image, kind, **options):
        out = io.BytesIO()
        image.save(out, kind, **options)
        return out.getvalue()

    yield "rgb.png", save(picture, "PNG")
    yield "rgba.png", save(clear, "PNG")
    yield "grey.png", save(picture.convert("L"), "PNG")
    yield "grey-alpha.png", save(clear.convert("LA"), "PNG")
    yield "bits.png", save(picture.convert("1"), "PNG")
    yield "palette.png", save(picture.quantize(11), "PNG")
    yield "palette-clear.png", save(picture.quantize(11), "PNG", transparency=bytes(range(0, 110, 10)))
    yield "rgb-clear.png", save(picture, "PNG", transparency=picture.getpixel((3, 3)))
    yield "grey16.png", save(Image.fromarray(rng.integers(0, 600, (height, width), dtype=np.uint16)), "PNG")
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"exif{orientation}.png", save(picture, "PNG", exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            yield f"{subsampling}{'p' if progressive else ''}.jpg", save(picture, "JPEG", quality=85, subsampling=subsampling, progressive=progressive, exif=exif if subsampling == 1 else b"")
    yield "grey.jpg", save(picture.convert("L"), "JPEG", quality=60)
    yield "cmyk.jpg", save(picture.convert("CMYK"), "JPEG", quality=90)
    yield "restart.jpg", save(picture, "JPEG", quality=70, restart_marker_blocks=1)
    yield "rgb.jpg", save(picture, "JPEG", quality=80, keep_rgb=True)
    narrow = picture.crop((0, 0, 3, 17))
    yield "narrow.jpg", save(narrow, "JPEG", quality=80)
    yield "lossy.webp", save(picture, "WEBP", quality=70, exif=exif)
    yield "even.webp", save(picture.crop((0, 0, 20, 16)), "WEBP", quality=50)
    yield "lossy-clear.webp", save(clear, "WEBP", quality=70)
    yield "lossless.webp", save(picture, "WEBP", lossless=True)
    yield "lossless-clear.webp", save(clear, "WEBP", lossless=True, exact=True)
    yield "frames.webp", save(picture, "WEBP", save_all=True, append_images=[picture.rotate(90)], quality=60)
    yield "frames-clear.webp", save(clear, "WEBP", save_all=True, append_images=[clear.rotate(90)], quality=60)
    yield "rgb.gif", save(picture, "GIF")
    yield "clear.gif", save(picture.quantize(11), "GIF", transparency=4)
    yield "frames.gif", save(picture, "GIF", save_all=True, append_images=[picture.rotate(90)])
    yield "rgb.bmp", save(picture, "BMP")
    yield "palette.bmp", save(picture.quantize(11), "BMP")
    yield "grey.bmp", save(picture.convert("L"), "BMP")
    yield "bits.bmp", save(picture.convert("1"), "BMP")
    yield "rgba.bmp", save(clear, "BMP")


def decoded():
    """What Pillow reads of the variants, laid on white."""
    images = []
    for name, data in variants():
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        rgb = convert_to_rgb(image, return_numpy=True)
        images.append(dict(name=name, data=base64.b64encode(data).decode(), width=rgb.shape[1], height=rgb.shape[0], rgb=base64.b64encode(rgb.tobytes()).decode()))
    return images


def committed():
    cases = []
    for c in CHECKPOINTS:
        processor, patch, files = checkpoint(*c)
        case = dict(name=c[0], files=files, images=[])
        for seed, (width, height) in enumerate(SIZES):
            prompt, tiles = process(processor, patch, Image.fromarray(pixels(width, height, seed)))
            flat = tiles.flatten()
            at = [int(i) for i in np.random.default_rng(seed).integers(0, len(flat), 24)]
            case["images"].append(dict(
                width=width, height=height, seed=seed, prompt=prompt, tiles=[tiles.shape[0], *tiles.shape[2:]],
                values=[[i, round(float(flat[i]), 6)] for i in at],
            ))
        cases.append(case)
    (HERE / "goldens.json").write_text(dump(dict(cases=cases, decoded=decoded(), **positions())))


def dump(golden):
    """JSON with a line for each image."""
    text = json.dumps(golden, separators=(",", ":"))
    return text.replace('{"width"', '\n{"width"').replace('{"name"', '\n{"name"').replace('{"n":', '\n{"n":').replace('{"rows"', '\n{"rows"') + "\n"


def photograph(rng):
    """Something with what photographs have: smooth areas, edges, texture."""
    width, height = (int(2 ** rng.uniform(4.5, 10.3)) for _ in range(2))
    small = rng.integers(0, 256, (max(2, height // 60), max(2, width // 60), 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC)).astype(np.int64)
    for _ in range(int(rng.integers(1, 12))):
        y, x = sorted(rng.integers(0, height, 2)), sorted(rng.integers(0, width, 2))
        picture[y[0] : y[1], x[0] : x[1]] = rng.integers(0, 256, 3)
    picture = picture + rng.integers(-12, 13, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def encode(image, rng, i):
    """The image in one of the formats, and what Pillow reads of it."""
    out = io.BytesIO()
    match i % 5:
        case 0:
            image.save(out, "PNG")
        case 1:
            image.save(out, "JPEG", quality=int(rng.integers(30, 100)), subsampling=int(rng.integers(0, 3)), progressive=bool(rng.integers(2)))
        case 2:
            image.save(out, "WEBP", quality=int(rng.integers(30, 100)))
        case 3:
            image.convert("L").save(out, "JPEG")
        case 4:
            alpha = Image.fromarray(rng.integers(0, 256, (image.height, image.width), dtype=np.uint8))
            image.putalpha(alpha)
            image.save(out, "PNG")
    return out.getvalue()


def full(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for n, c in enumerate(CHECKPOINTS):
        processor, patch, files = checkpoint(*c)
        case = dict(name=c[0], files=files, images=[])
        for i in range(200):
            rng = np.random.default_rng([n, i])
            data = encode(photograph(rng), rng, i)
            image = Image.open(io.BytesIO(data))
            name = f"{n}-{i}"
            (folder / name).write_bytes(data)
            try:
                prompt, tiles = process(processor, patch, image)
            except Exception as e:  # sizes that no model takes
                print(name, image.size, e)
                continue
            tiles.numpy().astype("<f4").tofile(folder / f"{name}.f32")
            case["images"].append(dict(width=image.width, height=image.height, file=name, prompt=prompt, tiles=[tiles.shape[0], *tiles.shape[2:]], raw=f"{name}.f32"))
        cases.append(case)
    (folder / "goldens.json").write_text(dump(dict(cases=cases)))


if __name__ == "__main__":
    logging.set_verbosity_error()
    committed() if len(sys.argv) == 1 else full(sys.argv[1])
