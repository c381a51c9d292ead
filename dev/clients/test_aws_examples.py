"""The files of examples/, as they are, against the emulators."""

import json

import pytest

SENTENCE = "Millrace is a server for language models."


@pytest.mark.parametrize("example, times", [
    ("sagemaker_invoke.py", 1), ("sagemaker_stream.py", 1), ("sagemaker_langchain.py", 2), ("sagemaker_predictor.py", 2), ("sagemaker_openai.py", 1)])
def test_sagemaker(sagemaker, example, times):
    lines = sagemaker.run(example, "millrace").splitlines()
    answers = [line for line in lines if not line.startswith("sagemaker.config INFO")]  # the SDK's own words
    assert len(answers) == times and all(a.strip().startswith(SENTENCE) for a in answers)


def test_sagemaker_question(sagemaker):
    assert "8080" in sagemaker.run("sagemaker_stream.py", "millrace", "Which", "port", "does", "Millrace", "listen", "on?")


def test_sagemaker_cli(sagemaker):
    answer = json.loads(sagemaker.run("sagemaker_cli.sh", "millrace"))
    assert answer["choices"][0]["message"]["content"].startswith(SENTENCE)


@pytest.mark.parametrize("example", ["lambda_invoke.py", "lambda_stream.py"])
def test_lambda(function, example):
    assert function.run(example, "millrace").startswith(SENTENCE)


def test_lambda_url(streaming_function):
    assert chat_of(streaming_function.run("lambda_url.sh", streaming_function.url)).startswith(SENTENCE)


def test_container(sagemaker, url):
    ping, array, *events = sagemaker.run("container_curl.sh", url).split("\n", 2)
    assert ping == "ping: 200" and SENTENCE in json.loads(array)[0]["generated_text"] and chat_of(events[0]).startswith(SENTENCE)


def chat_of(events: str) -> str:
    """The text of a streamed chat."""
    data = [json.loads(e.removeprefix("data:")) for e in events.split("\n\n") if e.startswith("data: {")]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in data)
