"""The templates of examples/: CloudFormation's linter finds nothing, and what they set is known to the program."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cfnlint import decode

EXAMPLES = Path(__file__).parents[2] / "examples"
TEMPLATES = sorted((EXAMPLES / "cloudformation").glob("*.yaml"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_lint(template):
    done = subprocess.run([Path(sys.executable).with_name("cfn-lint"), template], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def variables(template) -> set:
    """The names of environment variables that the resources of a template set."""
    tree, problems = decode.decode(str(template))
    assert not problems
    names = set()
    for resource in tree["Resources"].values():
        properties = resource.get("Properties", {})
        names |= properties.get("PrimaryContainer", {}).get("Environment", {}).keys()
        names |= properties.get("Environment", {}).get("Variables", {}).keys()
    return names


def test_variables():
    help_text = "".join(
        subprocess.run([os.environ["MILLRACE"], *command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in (["serve"], ["lambda"]))
    for template in TEMPLATES:
        names = variables(template)
        assert names, template.name
        unknown = {n for n in names if not re.search(rf"\b{n}\b", help_text)} - {"SAGEMAKER_REGION"}  # the platform's, not a flag's
        assert not unknown, template.name


def test_unit(tmp_path):
    """systemd finds no fault in the unit, and waits for as long as requests that run may take."""
    text = (EXAMPLES / "systemd/millrace.service").read_text()
    timeout = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])
    helped = subprocess.run([os.environ["MILLRACE"], "serve", "--help"], capture_output=True, text=True, check=True).stdout
    default = int(re.search(r"--graceful-termination-timeout=(\d+)", helped)[1])
    assert timeout > default
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "millrace.service"
    unit.write_text(text.replace("/usr/local/bin/millrace", os.environ["MILLRACE"]))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
