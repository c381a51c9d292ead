"""Writes warpers.json: what transformers' logits processors make of small rows.

    python warpers.py > warpers.json

Each case holds the raw logits, the parameters, the ids seen so far and the
processed scores, null for -inf. The processors run in the order that package
sample defines. Needs torch and transformers; the Go tests only read the JSON.
"""

import json
import sys

import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

CASES = [
    ("temperature", dict(temperature=0.7)),
    ("hot", dict(temperature=3.5)),
    ("top_k", dict(top_k=5)),
    ("top_k beyond the row", dict(top_k=500)),
    ("top_p", dict(top_p=0.8)),
    ("top_p small", dict(top_p=0.01)),
    ("top_p near one", dict(top_p=0.999)),
    ("typical_p", dict(typical_p=0.6)),
    ("typical_p small", dict(typical_p=0.05)),
    ("typical_p near one", dict(typical_p=0.99)),
    ("repetition", dict(repetition_penalty=1.3)),
    ("repetition reward", dict(repetition_penalty=0.8)),
    ("all but min_p", dict(temperature=1.4, top_k=20, top_p=0.9, typical_p=0.7, repetition_penalty=1.2)),
    ("min_p", dict(min_p=0.1)),
    ("min_p small", dict(min_p=1e-6)),
    ("min_p near one", dict(min_p=0.9)),
    ("all", dict(temperature=1.4, top_k=20, top_p=0.9, typical_p=0.9, min_p=0.3, repetition_penalty=1.2)),
]


def processed(scores, seen, p):
    steps = []
    if "repetition_penalty" in p:
        steps.append(RepetitionPenaltyLogitsProcessor(p["repetition_penalty"]))
    if "temperature" in p:
        steps.append(TemperatureLogitsWarper(p["temperature"]))
    if "top_k" in p:
        steps.append(TopKLogitsWarper(p["top_k"]))
    if "top_p" in p:
        steps.append(TopPLogitsWarper(p["top_p"]))
    if "typical_p" in p:
        steps.append(TypicalLogitsWarper(p["typical_p"]))
    if "min_p" in p:
        steps.append(MinPLogitsWarper(p["min_p"]))
    for step in steps:
        scores = step(seen, scores)
    return scores


def main():
    torch.manual_seed(20)
    out = []
    for name, p in CASES:
        for vocab, spread in ((7, 1.0), (33, 2.5), (64, 6.0)):
            scores = torch.randn(1, vocab) * spread
            seen = torch.randint(0, vocab, (1, 6))
            result = processed(scores.clone(), seen, p)[0]
            out.append(
                dict(
                    name=f"{name}/{vocab}",
                    params=p,
                    seen=seen[0].tolist(),
                    logits=scores[0].tolist(),
                    scores=[None if v == float("-inf") else v for v in result.tolist()],
                )
            )
    sys.stdout.write("[\n" + ",\n".join(json.dumps(c) for c in out) + "\n]\n")


main()
