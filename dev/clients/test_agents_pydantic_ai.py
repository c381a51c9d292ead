"""pydantic-ai: agents with tools, and answers whose fields are paths, sets and secrets."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field, SecretStr
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Folder(BaseModel):
    path: Path
    kinds: set[Literal["file", "link"]] = Field(max_length=2)
    secret: SecretStr = Field(max_length=8)


class File(BaseModel):
    path: Path
    size: int = Field(ge=0, le=999)


@pytest.fixture(scope="module")
def model(url):
    return OpenAIChatModel("tgi", provider=OpenAIProvider(base_url=f"{url}/v1", api_key="-"), settings={"temperature": 0, "max_tokens": 300})


def test_text(model):
    assert "server" in Agent(model).run_sync("What is Millrace?").output


@pytest.mark.parametrize("output", [NativeOutput, ToolOutput], ids=["native", "tool"])
@pytest.mark.parametrize("kind", [Folder, File])
def test_output(model, output, kind):
    assert isinstance(Agent(model, output_type=output(kind)).run_sync("Give me some JSON.").output, kind)


async def stream(model):
    async with Agent(model, output_type=NativeOutput(File)).run_stream("Give me some JSON.") as result:
        return await result.get_output()


def test_stream(model):
    import asyncio
    assert isinstance(asyncio.run(stream(model)), File)


def test_tools(model):
    agent = Agent(model)
    asked = []

    @agent.tool_plain
    def get_weather(city: str) -> dict:
        """Get the weather of a city."""
        asked.append(city)
        return {"city": city, "temperature": 21, "condition": "sunny"}

    assert "21" in agent.run_sync("What is the weather in Paris?").output
    assert asked == ["Paris"]


def test_tool_with_path(model):
    """A tool whose parameters have a format and a set, on a model that writes calls freely until one begins."""
    agent = Agent(model)

    @agent.tool_plain
    def get_weather(city: str, folder: Path = Path("/"), days: set[int] = frozenset()) -> dict:
        """Get the weather of a city."""
        return {"city": city, "temperature": 21, "condition": "sunny"}

    assert agent.run_sync("What is the weather in Paris?").output
