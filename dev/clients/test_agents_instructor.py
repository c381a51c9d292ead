"""instructor, whose answers are objects: by tools, by a schema, whole, streamed, and several of them."""

from typing import Literal

import instructor
import openai
import pytest
from pydantic import BaseModel, Field

MESSAGES = [{"role": "user", "content": "Give me some JSON about two cities."}]
OPTIONS = {"model": "tgi", "messages": MESSAGES, "max_retries": 0, "max_tokens": 200}
MODES = [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA]


class City(BaseModel):
    name: str = Field(max_length=12)
    size: Literal["small", "large"]
    inhabitants: int = Field(ge=1, le=9999)


@pytest.fixture(scope="module", params=MODES, ids=lambda m: m.name)
def client(url, request):
    return instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0), mode=request.param)


def test_create(client):
    assert isinstance(client.chat.completions.create(response_model=City, temperature=0, **OPTIONS), City)


def test_partial(client):
    *_, last = client.chat.completions.create_partial(response_model=City, temperature=0, **OPTIONS)
    assert City.model_validate(last.model_dump())


@pytest.mark.parametrize("seed", range(1, 5))
def test_iterable(url, seed):
    """At temperature 1, where a schema that lets other keys through would get some."""
    client = instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0))
    cities = list(client.chat.completions.create_iterable(response_model=City, temperature=1, seed=seed, **OPTIONS))
    assert all(isinstance(c, City) for c in cities)
