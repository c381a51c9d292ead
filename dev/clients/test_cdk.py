"""The CDK constructs of examples/, in Python and in TypeScript: both make the same templates."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("aws_cdk", reason="needs aws-cdk-lib")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("python"), EXAMPLES / "cdk/python", sys.executable, "app.py")


def synthesize(out, folder, *command):
    done = subprocess.run(command, cwd=folder, env={**os.environ, "CDK_OUTDIR": str(out), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((out / f"{name}.template.json").read_text()) for name in ("chat", "small")}


def resources(template, kind):
    return [r["Properties"] for r in template["Resources"].values() if r["Type"] == kind]


def test_the_endpoint_is_the_template_with_its_parameters(python):
    chat = python["chat"]
    assert "Tag" not in chat["Parameters"] and "Weights" in chat["Parameters"]
    assert chat["Parameters"]["FallbackInstanceType"]["Default"] == "ml.c6i.4xlarge"
    [model] = [m for m in resources(chat, "AWS::SageMaker::Model") if "ShadowTag" not in json.dumps(m)]
    assert model["PrimaryContainer"]["Image"] == {"Fn::Sub": "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}/${Repository}:1.0"}
    assert resources(chat, "AWS::IAM::Policy")[0]["PolicyDocument"]["Statement"][0]["Resource"] == {"Ref": "Endpoint"}


def test_the_functions_url_streams_as_the_function_does(python):
    [function], [url] = resources(python["small"], "AWS::Lambda::Function"), resources(python["small"], "AWS::Lambda::Url")
    assert function["PackageType"] == "Image"
    assert function["Environment"]["Variables"] == {"LAMBDA_INVOKE_MODE": "stream", "MODEL_ID": "s3://my-models/llama/"}
    assert url["InvokeMode"] == "RESPONSE_STREAM" and url["AuthType"] == "AWS_IAM"


def test_typescript_makes_the_same(python, tmp_path):
    if not shutil.which("npm"):
        pytest.skip("needs npm")
    shutil.copytree(EXAMPLES / "cloudformation", tmp_path / "cloudformation")
    folder = shutil.copytree(EXAMPLES / "cdk/typescript", tmp_path / "cdk/typescript")
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", f"aws-cdk-lib@{version('aws-cdk-lib')}"], cwd=folder, check=True)
    subprocess.run(["npx", "tsc"], cwd=folder, check=True)
    assert synthesize(tmp_path / "out", folder, "node", "app.js") == python
