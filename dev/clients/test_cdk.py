"""The CDK constructs of examples/ in Python make what those in TypeScript do, which node/cdk.test.mjs looks at."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_python_makes_what_typescript_does(tmp_path):
    done = subprocess.run([sys.executable, "app.py"], cwd=ROOT / "examples/cdk/python", capture_output=True, text=True,
                          env={**os.environ, "CDK_OUTDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    typescript = subprocess.run(["node", ROOT / "build/clients/node/cdk.mjs"], capture_output=True, text=True)
    assert typescript.returncode == 0, typescript.stderr
    made = {name: json.loads((tmp_path / f"{name}.template.json").read_text()) for name in ("chat", "small")}
    assert made == json.loads(typescript.stdout)
