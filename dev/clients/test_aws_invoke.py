"""`millrace sagemaker invoke` and `millrace lambda invoke` against the emulators: what a person at a terminal does."""

import json
import os
import subprocess

import pytest

from server import BINARY


@pytest.fixture
def invoke(sagemaker):
    def run(*arguments, status=0, stdin=None):
        done = subprocess.run([BINARY, "sagemaker", "invoke", "millrace", *arguments], input=stdin, capture_output=True, text=True,
                              timeout=120, env={**os.environ, **sagemaker.environment})
        assert done.returncode == status, done.stdout + done.stderr
        return done
    return run


FEW = ("--parameters", '{"max_new_tokens": 12}')


def test_a_stream_and_an_answer_in_one_piece_are_the_same_text(invoke):
    whole = invoke("Hello", *FEW).stdout
    assert whole.strip()
    assert invoke("Hello", "--stream", *FEW).stdout == whole


def test_chat(invoke):
    assert "\n" in invoke("Who are you?", "--chat", "--stream", "--parameters", '{"max_tokens": 12}').stdout


def test_the_prompt_from_elsewhere(invoke, tmp_path):
    (tmp_path / "prompt.txt").write_text("Hello\n")
    whole = invoke("Hello", *FEW).stdout
    assert invoke(f"@{tmp_path}/prompt.txt", *FEW).stdout == whole
    assert invoke("-", *FEW, stdin="Hello").stdout == whole
    assert "is empty" in invoke("-", stdin="", status=2).stderr


@pytest.mark.parametrize("flags", [(), ("--stream",), ("--chat",), ("--chat", "--stream")], ids=" ".join)
def test_tokens_are_counted(invoke, flags):
    parameters = '{"max_tokens": 3}' if "--chat" in flags else '{"max_new_tokens": 3}'
    report = invoke("Hello", "--verbose", "--parameters", parameters, *flags).stderr
    assert "3 tokens generated" in report and "# length" in report
    assert ("tokens in the prompt" in report) == bool(flags)  # TGI's answer in one piece does not say


def test_raw(invoke):
    body = json.dumps({"inputs": "Hello", "parameters": {"max_new_tokens": 3}, "stream": True})
    assert invoke(body, "--raw", "--stream").stdout.startswith("data:")
    assert json.loads(invoke('{"inputs": "Hello", "parameters": {"max_new_tokens": 3}}', "--raw").stdout)[0]["generated_text"]


@pytest.mark.parametrize("flags", [(), ("--stream",)], ids=["whole", "stream"])
def test_the_containers_own_error_is_shown(invoke, flags):
    error = invoke("Hello", "--parameters", '{"temperature": -1}', *flags, status=1).stderr
    assert "endpoint millrace: the container answered 422 (validation): " in error and "temperature" in error


def test_a_session_is_opened_used_and_closed(invoke):
    opened = invoke("Hello", "--session", "new", *FEW)
    session = opened.stderr.split()[1]
    assert invoke("Hello", "--session", session, *FEW).stdout == opened.stdout
    invoke("--session", session, "--close-session")
    assert "does not exist or has expired" in invoke("Hello", "--session", session, *FEW, status=1).stderr


def test_an_endpoint_that_is_not_there(invoke, sagemaker):
    done = subprocess.run([BINARY, "sagemaker", "invoke", "elsewhere", "Hello"], capture_output=True, text=True, timeout=120,
                          env={**os.environ, **sagemaker.environment})
    assert done.returncode == 1 and "there is no endpoint elsewhere in service in us-east-1" in done.stderr


@pytest.fixture
def invoke_function(function):
    def run(*arguments, status=0):
        done = subprocess.run([BINARY, "lambda", "invoke", "millrace", *arguments], capture_output=True, text=True,
                              timeout=120, env={**os.environ, **function.environment})
        assert done.returncode == status, done.stdout + done.stderr
        return done
    return run


def test_a_function(invoke_function):
    whole = invoke_function("Hello", *FEW).stdout
    assert whole.strip()
    assert invoke_function("Hello", "--stream", *FEW).stdout == whole
    assert "# length" in invoke_function("Hello", "--stream", "--verbose", *FEW).stderr
    failed = invoke_function("Hello", "--parameters", '{"temperature": -1}', status=1).stderr
    assert "function millrace failed (validation)" in failed and "temperature" in failed
    assert "the end of the function's log:\n  START RequestId" in failed


def test_a_transform_job(tmp_path):
    lines = [json.dumps({"inputs": text, "parameters": {"max_new_tokens": 3}}) for text in ("Hello", "What is Millrace?", "Hello")]
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/a.jsonl").write_text("\n".join(lines))
    (tmp_path / "in/b.jsonl").write_text('{"inputs": ""}\n')
    outputs = {}
    for strategy in "SingleRecord", "MultiRecord":
        out = tmp_path / strategy
        done = subprocess.run([BINARY, "sagemaker", "transform", tmp_path / "in", out, "--batch-strategy", strategy], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and "b.jsonl: call 1 of 1: the container answered 422" in done.stderr, done.stderr
        assert done.stdout.startswith(f"1 files transformed by {3 if strategy == 'SingleRecord' else 1} calls ({strategy}, ")
        assert [p.name for p in out.rglob("*") if p.is_file()] == ["a.jsonl.out"]
        outputs[strategy] = (out / "sub/a.jsonl.out").read_text()
    first, _, third = [json.loads(line)[0]["generated_text"] for line in outputs["SingleRecord"].splitlines()]
    assert first == third and outputs["SingleRecord"] == outputs["MultiRecord"]
