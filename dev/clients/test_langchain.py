"""langchain-huggingface's endpoint classes on a server of one's own."""

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint


@pytest.fixture(scope="module")
def endpoint(url):
    return HuggingFaceEndpoint(endpoint_url=url, task="text-generation", max_new_tokens=60, do_sample=False, temperature=0.01)


def test_invoke(endpoint):
    assert "server" in endpoint.invoke("What is Millrace?")


def test_stream(endpoint):
    streamed = "".join(endpoint.stream("What is Millrace?"))
    assert streamed.removesuffix("<|end_of_text|>") == endpoint.invoke("What is Millrace?")  # LangChain shows special tokens


def test_stop(endpoint):
    assert "server" not in endpoint.invoke("What is Millrace?", stop=["server"])  # LangChain cuts it off


def test_chat(endpoint):
    chat = ChatHuggingFace(llm=endpoint, model_id="millrace", tokenizer=object())  # the server knows the template
    out = chat.invoke([SystemMessage("You are a helpful assistant."), HumanMessage("What is Millrace?")])
    assert "server" in out.content


def test_chat_tools(endpoint, weather_tool):
    chat = ChatHuggingFace(llm=endpoint, model_id="millrace", tokenizer=object()).bind_tools([weather_tool])
    out = chat.invoke([HumanMessage("What is the weather in Paris?")])
    assert [(c["name"], c["args"]) for c in out.tool_calls] == [("get_weather", {"city": "Paris"})]
