"""text-generation's own Client and AsyncClient, TGI's first clients."""

import asyncio

import pytest
from text_generation import AsyncClient, Client
from text_generation.errors import ValidationError
from text_generation.types import Grammar, GrammarType

QUESTION = "What is Millrace?"


@pytest.fixture(scope="module")
def client(url):
    return Client(url)


def test_generate(client):
    out = client.generate(QUESTION, max_new_tokens=40, decoder_input_details=True, top_n_tokens=2)
    assert "server" in out.generated_text
    assert out.details.finish_reason in ("eos_token", "length") and len(out.details.tokens) == out.details.generated_tokens
    assert out.details.prefill[0].logprob is None and len(out.details.top_tokens[0]) >= 2


def test_best_of(client):
    out = client.generate(QUESTION, max_new_tokens=8, do_sample=True, best_of=2)
    assert len(out.details.best_of_sequences) == 1


def test_stream(client):
    events = list(client.generate_stream(QUESTION, max_new_tokens=40))
    assert events[-1].generated_text == client.generate(QUESTION, max_new_tokens=40).generated_text
    assert all(e.generated_text is None for e in events[:-1])


def test_grammar(client):
    out = client.generate("A year: ", max_new_tokens=10, grammar=Grammar(type=GrammarType.Regex, value="[12][0-9]{3}"))
    assert len(out.generated_text) == 4 and out.generated_text.isdigit()


def test_chat(client):
    """Not as a stream: with today's pydantic this client wants tool_calls in every chunk, which no server sends."""
    messages = [{"role": "user", "content": QUESTION}]
    out = client.chat(messages=messages, max_tokens=40, temperature=0)
    assert "server" in out.choices[0].message.content


def test_tools(client, weather_tool):
    out = client.chat(messages=[{"role": "user", "content": "What is the weather in London?"}], tools=[weather_tool], tool_choice="auto", max_tokens=60, temperature=0)
    assert out.choices[0].message.tool_calls[0]["function"]["name"] == "get_weather"


def test_invalid(client):
    """The client checks most things itself; this one it leaves to the server."""
    with pytest.raises(ValidationError, match="tokens"):
        client.generate(QUESTION, max_new_tokens=100_000)


def test_async(url):
    async def texts():
        client = AsyncClient(url)
        streamed = ""
        async for event in client.generate_stream(QUESTION, max_new_tokens=20):
            streamed += "" if event.token.special else event.token.text
        return streamed, (await client.generate(QUESTION, max_new_tokens=20)).generated_text
    streamed, whole = asyncio.run(texts())
    assert streamed == whole
