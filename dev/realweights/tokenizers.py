"""Write testdata: small vocabularies as GGUF, and what llama.cpp makes of texts with
them.

    python tokenizers.py

bpe.gguf and spm.gguf have the vocabularies of engine/token/testdata/llama3 and
llama2. tokenizers.json has, for each pre-tokenizer that llama.cpp knows, the tokens
of TEXTS; those with the same tokens are together. Needs gguf==0.19.0, numpy and
xllamacpp==2026.10.11549, which has llama.cpp b11549 compiled in.
"""

import json
import pathlib
import re
import tempfile
import urllib.request

import gguf
import numpy as np
import xllamacpp

HERE = pathlib.Path(__file__).parent
TOKENIZERS = HERE.parent.parent / "engine/token/testdata"
WIDTH = 32
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

TEXTS = [
    "The miller turns the wheel.",
    "  two spaces before, two after  ",
    "line one\nline two\n\n\tindented\r\n   \n end\n\n",
    "größere Mühlen über dem Fluss, l'été à l'hiver",
    "水車は回る。粉屋👩‍🌾は読む, 제분소 mill",
    "emoji 🏳️‍🌈🍞😀 end",
    "<|begin_of_text|>nested<|eot_id|> and <s>x</s>",
    "12345678901234567890 3.14159 1,234 ½ ²",
    "we've they'll IT'S don't CamelCaseWords XMLHttp",
    "Ωμέγα مرحبا नमस्ते \u200b\u00a0x",
    "▁already▁marked",
    "def f(x):\n    return x**2 // 3  # a/b/c\n\n\nx = [1, 2]; y += 0xFF\n",
    "{\"a\": [1, 2.5e-3], \"b\": null}...!!!???",
    "a  b   c    d\t\te",
]


def write(path, kind, pre, tokens, types, more, whole):
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in [
        (writer.add_block_count, 1), (writer.add_context_length, 64), (writer.add_embedding_length, WIDTH), (writer.add_feed_forward_length, WIDTH),
        (writer.add_head_count, 1), (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_tokenizer_model, kind), (writer.add_tokenizer_pre, pre),
        (writer.add_token_list, tokens), (writer.add_token_types, types),
    ]:  # fmt: skip
        add(value)
    for key, value in more.items():
        getattr(writer, key)(value)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), WIDTH), np.float16))
    if whole:  # llama.cpp wants a model that it could run
        for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
            writer.add_tensor(name + ".weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            writer.add_tensor(f"blk.0.{name}.weight", np.zeros((WIDTH, WIDTH), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(name):
    tokenizer = json.loads((TOKENIZERS / name / "tokenizer.json").read_text())
    vocabulary = dict(tokenizer["model"]["vocab"])
    special = {}
    for added in tokenizer["added_tokens"]:
        vocabulary[added["content"]] = added["id"]
        special[added["content"]] = CONTROL if added["special"] else USER_DEFINED
    tokens = [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    merges = [m if isinstance(m, list) else m.split(" ") for m in tokenizer["model"]["merges"]]
    return tokens, special, merges


def bpe(path, pre, whole=True):
    tokens, special, merges = read("llama3")
    types = [special.get(token, NORMAL) for token in tokens]
    write(path, "gpt2", pre, tokens, types, {"add_token_merges": [" ".join(m) for m in merges], "add_bos_token_id": tokens.index("<|begin_of_text|>"), "add_eos_token_id": tokens.index("<|end_of_text|>")}, whole)


def spm(path, prefix, whole=True):
    tokens, special, merges = read("llama2")
    rank = {"".join(m): i for i, m in reversed(list(enumerate(merges)))}
    types = [UNKNOWN if t == "<unk>" else special.get(t, BYTE if re.fullmatch(r"<0x..>", t) else NORMAL) for t in tokens]
    scores = [-float(rank[t]) if t in rank else -1e6 for t in tokens]
    write(path, "llama", "default", tokens, types, {"add_token_scores": scores, "add_bos_token_id": 1, "add_eos_token_id": 2, "add_unk_token_id": 0, "add_add_space_prefix": prefix}, whole)


def tokenize(path):
    """Return the tokens of TEXTS, or None if llama.cpp refuses the file."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup, params.port = 64, 1, False, 0
    try:
        server = xllamacpp.Server(params)
    except Exception:
        return None

    def post(text):
        body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
        request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            return json.load(response)["tokens"]

    return [post(text) for text in TEXTS]


def main():
    names = re.findall(r'"([a-z0-9.-]+)": *(?:split|\{patterns)', (HERE.parent.parent / "engine/weights/gguf/split.go").read_text())
    groups = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in sorted(set(names)):
            path = pathlib.Path(scratch) / f"{name}.gguf"
            bpe(path, name)
            ids = tokenize(path)
            if ids is None:
                print("llama.cpp does not know", name)
                continue
            same = next((g for g in groups if g["ids"] == ids), None)
            if same:
                same["names"].append(name)
            else:
                groups.append({"names": [name], "ids": ids})
        prefixes = []
        for prefix in (True, False):
            path = pathlib.Path(scratch) / f"spm-{prefix}.gguf"
            spm(path, prefix)
            prefixes.append(tokenize(path))
    bpe(HERE / "testdata/bpe.gguf", "default", whole=False)
    spm(HERE / "testdata/spm.gguf", True, whole=False)
    golden = {"texts": TEXTS, "bpe": groups, "prefix": prefixes[0], "no_prefix": prefixes[1]}
    (HERE / "testdata/tokenizers.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n", encoding="utf-8")


main()
