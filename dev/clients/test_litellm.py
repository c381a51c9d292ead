"""LiteLLM, by its OpenAI and its Hugging Face routes."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # read on import: no price list from the network

import litellm  # noqa: E402
import pytest  # noqa: E402

from emulator import CREDENTIALS, emulator  # noqa: E402

QUESTION = [{"role": "user", "content": "What is Millrace?"}]


@pytest.fixture(scope="module", params=["openai", "huggingface"])
def route(request, url):
    base = {"openai": f"{url}/v1", "huggingface": f"{url}/v1/chat/completions"}[request.param]
    return {"model": f"{request.param}/tgi", "api_base": base, "api_key": "-"}


def test_completion(route):
    out = litellm.completion(messages=QUESTION, max_tokens=60, temperature=0, **route)
    assert "server" in out.choices[0].message.content and out.usage.completion_tokens > 0


def test_stream(route):
    whole = litellm.completion(messages=QUESTION, max_tokens=60, temperature=0, **route).choices[0].message.content
    parts = litellm.completion(messages=QUESTION, max_tokens=60, temperature=0, stream=True, **route)
    assert "".join(p.choices[0].delta.content or "" for p in parts) == whole


def test_tools(route, weather_tool):
    out = litellm.completion(messages=[{"role": "user", "content": "What is the weather in Paris?"}], tools=[weather_tool], max_tokens=60, temperature=0, **route)
    assert json.loads(out.choices[0].message.tool_calls[0].function.arguments) == {"city": "Paris"}


def test_error(route):
    with pytest.raises((litellm.exceptions.APIError, litellm.exceptions.BadRequestError), match="temperature"):
        litellm.completion(messages=QUESTION, temperature=-1, **route)


def test_text_completion(url):
    out = litellm.text_completion(model="text-completion-openai/tgi", api_base=f"{url}/v1", api_key="-", prompt="What is Millrace?", max_tokens=40, temperature=0)
    assert "server" in out.choices[0].text


def test_sagemaker_example(sagemaker):
    lines = sagemaker.run("sagemaker_litellm.py", "millrace").splitlines()
    assert len(lines) == 3 and all(line.strip().startswith("Millrace is a server") for line in lines)


@pytest.fixture
def credentials(monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def test_sagemaker_name_of_the_endpoint_as_the_models(credentials):
    with emulator("sagemaker", "--env", "SERVED_MODEL_NAME=millrace") as endpoint:
        out = litellm.completion(model="sagemaker_chat/millrace", messages=QUESTION, max_tokens=60, temperature=0, sagemaker_base_url=f"{endpoint.url}/endpoints/millrace/invocations")
    assert "server" in out.choices[0].message.content


def test_sagemaker_error(sagemaker, credentials):
    with pytest.raises(litellm.exceptions.BadRequestError, match="top_p"):
        litellm.completion(model="sagemaker_chat/millrace", hf_model_name="tgi", messages=QUESTION, top_p=7, sagemaker_base_url=f"{sagemaker.url}/endpoints/millrace/invocations")
