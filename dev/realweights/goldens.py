"""Write what llama.cpp generates for the prompts of a model.

    python goldens.py smollm2|gemma3 FILE.gguf OUT.json

FILE.gguf is the float32 file that prepare.py wrote. Needs xllamacpp==2026.10.11549, which
has llama.cpp b11549 compiled in. OUT.json gets, per prompt, the text, the tokens
that llama.cpp makes of it, the text and the tokens that it generates greedily, and
at each token the margin: the log-probability of the best minus that of the second
best.
Keys, values and weights are float32.
"""

import argparse
import json
import pathlib
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import xllamacpp

from prompts import PROMPTS

TOKENS = 48


def start(path):
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 4 * 2048
    params.n_parallel = 4
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup = False
    params.port = 0
    return xllamacpp.Server(params)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=sorted(PROMPTS))
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    server = start(args.gguf)

    def post(path, body):
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=1800) as response:
            return json.load(response)

    (forced,) = post("/tokenize", {"content": "a"})["tokens"]

    def golden(prompt):
        ids = post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]
        body = {"temperature": 0, "n_probs": 2}
        answer = post("/completion", body | {"prompt": ids, "n_predict": TOKENS, "return_tokens": True})
        tokens, generated = answer["tokens"], answer["completion_probabilities"]
        if len(generated) != len(tokens):
            # The server leaves out tokens that end inside a character. It tells
            # what it thinks of each one where another is forced upon it.
            body |= {"n_predict": 1, "logit_bias": [[forced, 1000]]}
            generated = [post("/completion", body | {"prompt": ids + tokens[:i]})["completion_probabilities"][0] for i in range(len(tokens))]
        tops = [[top["logprob"] for top in token["top_logprobs"]] for token in generated]
        best = [token["top_logprobs"][0]["id"] for token in generated]
        assert all(b == t or top[0] - top[1] < 0.01 for b, t, top in zip(best, tokens, tops, strict=True))
        return {
            "prompt": prompt,
            "ids": ids,
            "text": answer["content"],
            "tokens": tokens,
            "margins": [round(best - second, 4) for best, second in tops],
        }

    with ThreadPoolExecutor(4) as pool:
        goldens = list(pool.map(golden, PROMPTS[args.model]))
    lines = ",\n".join(json.dumps(g, ensure_ascii=False) for g in goldens)
    args.out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


main()
