"""What stands upon boto3, or beside it, on a SageMaker endpoint: LangChain, the SageMaker SDK, the AWS CLI, OpenAI's client."""

import json
import os
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from langchain_aws.llms.sagemaker_endpoint import LLMContentHandler, SagemakerEndpoint

from emulator import TOKEN

QUESTION = "What is Millrace?"


class Text(LLMContentHandler):
    """TGI's bodies, with the array that LangChain's users index."""

    content_type = accepts = "application/json"

    def transform_input(self, prompt, model_kwargs):
        stream = model_kwargs.pop("stream", False)
        return json.dumps({"inputs": prompt, "stream": stream, "parameters": {"return_full_text": False, **model_kwargs}}).encode()

    def transform_output(self, output):
        if not isinstance(output, bytes):
            return json.load(output)[0]["generated_text"]
        return json.loads(output.removeprefix(b"data:"))["token"]["text"] if output else ""


@pytest.fixture(scope="module")
def langchain(sagemaker):
    return SagemakerEndpoint(endpoint_name="millrace", client=sagemaker.client(), content_handler=Text(), model_kwargs={"max_new_tokens": 60})


def test_langchain_text(langchain):
    whole = langchain.invoke(QUESTION)
    assert whole.startswith(" Millrace is a server")
    assert "".join(langchain.stream(QUESTION, stream=True)).removesuffix("<|end_of_text|>") == whole


def test_langchain_error(langchain):
    with pytest.raises(langchain.client.exceptions.ModelError, match="temperature"):
        langchain.invoke(QUESTION, temperature=-1)


def test_sdk_error(sagemaker, monkeypatch):
    for name, value in sagemaker.environment.items():
        monkeypatch.setenv(name, value)
    from sagemaker.predictor import Predictor  # which looks for a region when it is imported
    from sagemaker.serializers import JSONSerializer

    predictor = Predictor("millrace", serializer=JSONSerializer())
    with pytest.raises(sagemaker.client().exceptions.ClientError, match="temperature"):
        predictor.predict({"inputs": QUESTION, "parameters": {"temperature": -1}})


def test_cli_error(sagemaker):
    command = [Path(sys.executable).parent / "aws", "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "millrace", "--body", "fileb:///dev/stdin", os.devnull]
    done = subprocess.run(command, input=b'{"inputs": ""}', env={**os.environ, **sagemaker.environment}, capture_output=True)
    assert done.returncode and b"ModelError" in done.stderr and b"inputs" in done.stderr


@pytest.fixture(scope="module")
def chat(sagemaker):
    client = openai.OpenAI(base_url=f"{sagemaker.url}/endpoints/millrace/openai/v1", api_key=TOKEN, max_retries=0)
    return lambda **more: client.chat.completions.create(**{"model": "", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60, "temperature": 0} | more)


def test_openai_chat(chat):
    whole = chat().choices[0].message.content
    assert whole.startswith("Millrace is a server")
    assert "".join(c.choices[0].delta.content or "" for c in chat(stream=True)) == whole


@pytest.mark.parametrize("stream", [False, True])
def test_openai_error(chat, stream):
    with pytest.raises(openai.APIStatusError) as caught:
        chat(temperature=-1, stream=stream)
    assert caught.value.status_code == 424 and "temperature" in caught.value.response.text


def test_openai_token(sagemaker):
    client = openai.OpenAI(base_url=f"{sagemaker.url}/endpoints/millrace/openai/v1", api_key="sk-other", max_retries=0)
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="", messages=[{"role": "user", "content": QUESTION}])
