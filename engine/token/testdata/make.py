"""Makes the tokenizers of this folder and what the Python library says about them.

    python make.py        # needs tokenizers (0.23.3 made the committed files)

One folder per kind of tokenizer that language models use: tokenizer.json,
tokenizer_config.json, and golden.json with
  encode  text, special -> ids, character offsets, the decodes of the ids
  decode  ids -> text, with and without special tokens; the ids are random, so
          they hold cut characters, invalid bytes, gaps and special tokens
"""

import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent

CORPUS = """
A river does not hurry, and yet it turns every wheel on its way to the sea.
The miller reads the water in the morning: high, low, cloudy, clear. He writes 3 numbers, 12 names and 2026 in his book.
Do you know the house at the bend? It's old; we've lived there for years, and they'll tell you that nothing has changed.
Mühlen drehen sich über den Fluss, während die Müllerin Brötchen für größere Gäste bäckt.
Le meunier préfère l'été à l'hiver : la rivière gèle rarement près de la forêt.
水車は川の流れで回ります。粉屋は毎朝水位を読みます。
Мельница стоит у реки, и колесо вращается день и ночь.
def turn(wheel, speed=3):
    for tooth in wheel:
        yield tooth * speed    # one step
{"name": "wheel", "teeth": [12, 24, 48], "open": true}
The wheel turns the stone, the stone turns the grain, the grain turns into bread 🍞 and everyone is happy 😀.
""".strip().split("\n")

TEXTS = [
    "",
    " ",
    "The miller turns the wheel.",
    "  two spaces before, two after  ",
    "line one\nline two\n\n\tindented\r\n",
    "Hé 😀 <s>x</s>",
    "größere Mühlen über dem Fluss",
    "cafe\u0301 and caf\u00e9",  # the same word decomposed and composed
    "水車は回る。粉屋👩‍🌾は読む",
    "a\u0000b\u0000",
    "\ufffd replaced \ufffd",
    "emoji 🏳️‍🌈🍞😀 end",
    "<|begin_of_text|>nested<|eot_id|> and <tool call> naïveté </s>",
    "<|im_start|>user\nhi<|im_end|>\n",
    "12345678901234567890 3.14159",
    "we've they'll IT'S don't",
    "Ωμέγα مرحبا नमस्ते \u200b\u00a0x",
    "\u2581already\u2581marked",
    "<0x41><0xC3><0xA9>",
]

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def template(single, tok, *names):
    return processors.TemplateProcessing(single=single, special_tokens=[(n, tok.token_to_id(n)) for n in names])


def byte_level(vocab):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tok.train_from_iterator(CORPUS * 3, trainer)
    return tok


def llama3():
    """Byte-level BPE; BOS by post-processor; added tokens with a space and with a letter that stands for a byte."""
    tok = byte_level(640)
    tok.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    tok.add_tokens([AddedToken("<tool call>", normalized=False), AddedToken("naïveté", normalized=False)])
    tok.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template("<|begin_of_text|> $A", tok, "<|begin_of_text|>")]
    )
    return tok, {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "tokenizer_class": "PreTrainedTokenizerFast"}


def qwen():
    """Byte-level BPE with NFC, no BOS; the config says so."""
    tok = byte_level(600)
    tok.normalizer = normalizers.NFC()
    tok.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok, {
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": {"content": "<|endoftext|>", "special": True},
        "tokenizer_class": "Qwen2Tokenizer",
    }


def byte_fallback(normalizer, decoder, specials):
    """Character BPE trained here, its vocabulary moved up after specials and the 256 byte tokens."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizer
    # Pieces must not cross a space in so small a corpus; the finished tokenizer does not split.
    tok.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    latin = [line for line in CORPUS if line.isascii() or "ü" in line or "é" in line]
    tok.train_from_iterator(latin * 3, trainers.BpeTrainer(vocab_size=420, show_progress=False))
    spec = json.loads(tok.to_str())
    names = specials + [f"<0x{b:02X}>" for b in range(256)]
    names += [t for t, _ in sorted(spec["model"]["vocab"].items(), key=lambda e: e[1])]
    spec["model"].update(
        vocab={t: i for i, t in enumerate(names)}, byte_fallback=True, fuse_unk=True, unk_token="<unk>"
    )
    spec["pre_tokenizer"] = None
    tok = Tokenizer.from_str(json.dumps(spec))
    tok.decoder = decoder
    tok.add_special_tokens(specials)
    return tok


def llama2():
    """Byte-fallback BPE; ▁ put before the text, the first space taken off again in the decode."""
    tok = byte_fallback(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        ["<unk>", "<s>", "</s>"],
    )
    tok.post_processor = template("<s> $A", tok, "<s>")
    return tok, {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": {"__type": "AddedToken", "content": "<s>"},
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": True,
        "tokenizer_class": "LlamaTokenizer",
    }


def gemma():
    """Byte-fallback BPE that neither adds nor strips a space; the BOS is the config's wish alone."""
    tok = byte_fallback(
        normalizers.Replace(" ", "▁"),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
        ["<pad>", "<eos>", "<bos>", "<unk>"],
    )
    config = {"bos_token": "<bos>", "eos_token": "<eos>", "add_bos_token": True, "tokenizer_class": "GemmaTokenizer"}
    # As transformers does with add_bos_token; the file itself has no post-processor.
    saved = tok.to_str()
    tok.post_processor = template("<bos> $A", tok, "<bos>")
    return tok, config, saved


def t5():
    """Unigram with Metaspace and an EOS after the text."""
    tok = Tokenizer(models.Unigram())
    tok.normalizer = normalizers.NFKC()
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tok.train_from_iterator(CORPUS, trainer)
    tok.post_processor = template("$A </s>", tok, "</s>")
    return tok, {"eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "T5Tokenizer"}


def wordpiece():
    """BERT's: lower case, ## inside words, a token on either side."""
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer()
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tok.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    )
    tok.post_processor = template("[CLS] $A [SEP]", tok, "[CLS]", "[SEP]")
    return tok, {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "tokenizer_class": "BertTokenizer"}


def goldens(tok, seed):
    encode = []
    for text in TEXTS:
        for special in (False, True):
            e = tok.encode(text, add_special_tokens=special)
            encode.append(
                {
                    "text": text,
                    "special": special,
                    "ids": e.ids,
                    "offsets": e.offsets,
                    "decode": tok.decode(e.ids, skip_special_tokens=False),
                    "decode_skip": tok.decode(e.ids, skip_special_tokens=True),
                }
            )
    rng = random.Random(seed)
    size = max(tok.get_vocab().values()) + 1
    decode = []
    for _ in range(40):
        ids = [rng.randrange(min(size, rng.choice([8, 300, size + 4]))) for _ in range(rng.randrange(1, 16))]
        decode.append(
            {
                "ids": ids,
                "decode": tok.decode(ids, skip_special_tokens=False),
                "decode_skip": tok.decode(ids, skip_special_tokens=True),
            }
        )
    return {"encode": encode, "decode": decode}


def main():
    for seed, make in enumerate([llama3, qwen, llama2, gemma, t5, wordpiece]):
        tok, config, *saved = make()
        folder = HERE / make.__name__
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(saved[0] if saved else tok.to_str())
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
        rows = goldens(tok, seed)
        lines = [f'"{k}": [\n' + ",\n".join(json.dumps(r) for r in rows[k]) + "\n]" for k in rows]
        (folder / "golden.json").write_text("{" + ",\n".join(lines) + "}\n")
        print(folder.name, (folder / "tokenizer.json").stat().st_size, (folder / "golden.json").stat().st_size)


if __name__ == "__main__":
    main()
