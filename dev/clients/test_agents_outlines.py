"""Outlines, over each of the servers that it knows and Millrace stands for: OpenAI's, TGI, vLLM."""

from typing import Literal

import openai
import outlines
import pytest
from huggingface_hub import InferenceClient
from outlines.types import Regex
from pydantic import BaseModel, Field


class Port(BaseModel):
    name: str = Field(max_length=12)
    port: int = Field(ge=1, le=65535)
    kind: Literal["tcp", "udp"]


@pytest.fixture(scope="module")
def models(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
    return {"openai": (outlines.from_openai(client, "tgi"), {"max_tokens": 100}),
            "vllm": (outlines.from_vllm(client, "tgi"), {"max_tokens": 100}),
            "tgi": (outlines.from_tgi(InferenceClient(url)), {"max_new_tokens": 100, "return_full_text": False})}  # which / returns, as TGI's


@pytest.mark.parametrize("server", ["openai", "vllm", "tgi"])
def test_schema(models, server):
    model, limit = models[server]
    assert Port.model_validate_json(model("Give me some JSON.", Port, **limit))


@pytest.mark.parametrize("server", ["vllm", "tgi"])
def test_choice_and_regex(models, server):
    model, limit = models[server]
    assert model("Is water wet?", Literal["yes", "no"], **limit) in ("yes", "no")
    assert model("What is the address?", Regex(r"10\.\d\.\d\.\d"), **limit).startswith("10.")


@pytest.mark.parametrize("server", ["openai", "vllm", "tgi"])
def test_stream(models, server):
    model, limit = models[server]
    text = "".join(model.stream("Give me some JSON.", Port, **limit))
    assert Port.model_validate_json(text.removesuffix("<|eot_id|>"))  # Outlines shows TGI's special tokens
