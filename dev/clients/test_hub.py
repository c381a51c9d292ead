"""The cache of the Hugging Face hub, shared: huggingface_hub and transformers read what millrace downloads, and millrace serves what they do.

The hub is the stand-in of dev/hub with the demo model. huggingface_hub reads its variables when it is imported, so each use is a process.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from server import BINARY, running

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "container" / "demo" / "model"
NAME = "millrace/demo"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The address of a hub that has the demo model, beside a file that is not needed to serve it."""
    folder = tmp_path_factory.mktemp("hub")
    for file in MODEL.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "README.md").write_text("# Demo")
    process = subprocess.Popen([ROOT / "build" / "hub", NAME, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(10)


def environment(hub, home, **more):
    return {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HOME": str(home), "HF_ENDPOINT": hub, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def python(program, env):
    """What a program prints as JSON."""
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def pull(env):
    return subprocess.run([BINARY, "pull", NAME], env=env, check=True, capture_output=True, text=True).stdout.strip()


DOWNLOAD = f"""
import json
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download({NAME!r}, allow_patterns=["*.json", "*.safetensors"])))
"""

READ = f"""
import json
from huggingface_hub import hf_hub_download, scan_cache_dir
from transformers import AutoConfig, AutoTokenizer
path = hf_hub_download({NAME!r}, "model.safetensors")
tokenizer = AutoTokenizer.from_pretrained({NAME!r})
cache = scan_cache_dir()
(repo,) = cache.repos
print(json.dumps({{
    "path": path,
    "family": AutoConfig.from_pretrained({NAME!r}).model_type,
    "ids": tokenizer("What is Millrace?")["input_ids"],
    "warnings": [str(w) for w in cache.warnings],
    "refs": list(repo.refs),
    "files": sorted(f.file_name for r in repo.revisions for f in r.files),
}}))
"""


@pytest.mark.parametrize("offline", ["0", "1"])
def test_clients_read_what_millrace_downloads(hub, tmp_path, offline):
    folder = pull(environment(hub, tmp_path))
    before = sorted((f.name, f.stat().st_mtime_ns) for f in Path(folder, "../../blobs").iterdir())
    env = environment(hub, tmp_path, HF_HUB_OFFLINE=offline)
    assert python(DOWNLOAD, env) == folder
    seen = python(READ, env)
    assert seen["path"] == folder + "/model.safetensors"
    assert seen["family"] == json.loads((MODEL / "config.json").read_text())["model_type"]
    assert len(seen["ids"]) > 2
    assert seen["warnings"] == [] and seen["refs"] == ["main"]
    assert seen["files"] == sorted(f.name for f in MODEL.iterdir())  # without README.md
    assert before == sorted((f.name, f.stat().st_mtime_ns) for f in Path(folder, "../../blobs").iterdir()), "downloaded again"


def test_checksums(hub, tmp_path):
    """huggingface_hub's own comparison of the cache with the hub."""
    env = environment(hub, tmp_path)
    pull(env)
    hf = Path(sys.executable).parent / "hf"
    done = subprocess.run([hf, "cache", "verify", NAME], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_millrace_serves_what_clients_download(hub, tmp_path):
    env = environment(hub, tmp_path)
    folder = python(DOWNLOAD, env)
    for offline in ["0", "1"]:
        with running("--model-id", NAME, environment={**env, "HF_HUB_OFFLINE": offline}) as url:
            with urllib.request.urlopen(url + "/info") as answer:
                info = json.load(answer)
            assert info["model_id"] == NAME and info["model_sha"] == Path(folder).name
    assert pull(env) == folder
