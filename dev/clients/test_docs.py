"""The examples of the documentation, as they are, against the real binary: each block of docs/api.md, and README's first answer."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str, *languages: str) -> list:
    """The code of a page, each named by the heading above it."""
    text = (ROOT / page).read_text()
    found = []
    for block in BLOCK.finditer(text):
        heading = re.findall(r"^#+ (.+)$", text[:block.start()], re.MULTILINE)[-1]
        if block[1] in languages:
            found.append(pytest.param(block[1], block[2], id=f"{heading}-{len(found)}"))
    return found


def run(language: str, code: str, url: str) -> str:
    command = {"sh": ["bash", "-euo", "pipefail", "-c", code], "python": [sys.executable, "-c", code]}[language]
    done = subprocess.run(command, env={**os.environ, "URL": url}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("language, code", blocks("docs/api.md", "sh", "python"))
def test_api(url, language, code):
    if code.startswith("export URL="):
        return
    out = run(language, code, url)
    assert out.strip()
    if "curl" in code:
        bodies = [line.removeprefix("data:").strip() for line in out.splitlines() if line.startswith("data:")] or [out]
        for body in bodies:
            decoder, rest = json.JSONDecoder(), body.strip()
            while rest:  # several commands of a block answer one after the other
                answer, end = decoder.raw_decode(rest)
                assert "error" not in answer, answer
                rest = rest[end:].strip()


def test_a_port_is_four_digits(url):
    code = next(b.values[1] for b in blocks("docs/api.md", "sh") if "regex" in b.values[1])
    assert re.fullmatch(r"[0-9]{4}", json.loads(run("sh", code, url))["generated_text"])


def test_readme_answer(url):
    """What README shows of a first request is what the server answers."""
    block = next(b.values[1] for b in blocks("README.md", "console"))
    command, answer = re.search(r"^\$ (curl .*)\n(\{.*\})$", block, re.MULTILINE).groups()
    assert json.loads(run("sh", command.replace("localhost:8080", url), url)) == json.loads(answer)


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_openai_client(url, page):
    for b in blocks(page, "python"):
        assert "Millrace" in run("python", b.values[1].replace("http://localhost:8080", url), url)
