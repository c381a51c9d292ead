"""LangGraph's agent, and LangChain's structured output, over langchain-openai."""

from typing import Literal

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from pydantic import BaseModel, Field


class Port(BaseModel):
    name: str = Field(max_length=12)
    protocols: set[Literal["tcp", "udp"]] = Field(max_length=2)


@pytest.fixture(scope="module")
def model(url):
    return ChatOpenAI(model="tgi", base_url=f"{url}/v1", api_key="-", temperature=0, max_tokens=150, max_retries=0)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_agent(model, streamed):
    @tool
    def get_weather(city: str) -> dict:
        """Get the weather of a city."""
        return {"city": city, "temperature": 21, "condition": "sunny"}

    agent = create_react_agent(model, [get_weather])
    question = {"messages": [("user", "What is the weather in Paris?")]}
    if streamed:
        *_, state = agent.stream(question, stream_mode="values")
    else:
        state = agent.invoke(question)
    assert [c["args"] for m in state["messages"] for c in getattr(m, "tool_calls", [])] == [{"city": "Paris"}]
    assert "21" in state["messages"][-1].content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured(model, method):
    assert isinstance(model.with_structured_output(Port, method=method).invoke("Give me some JSON."), Port)


def test_json_mode(model):
    assert isinstance(model.with_structured_output(method="json_mode").invoke("Give me some JSON."), dict)


def test_agent_with_response_format(model):
    """The answer of an agent as an object, which LangGraph asks for in a call of its own."""
    @tool
    def get_weather(city: str) -> dict:
        """Get the weather of a city."""
        return {"city": city, "temperature": 21, "condition": "sunny"}

    state = create_react_agent(model, [get_weather], response_format=Port).invoke({"messages": [("user", "What is the weather in Paris?")]})
    assert isinstance(state["structured_response"], Port)
