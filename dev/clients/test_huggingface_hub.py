"""huggingface_hub's InferenceClient: what most users of TGI call it with."""

import asyncio
import json

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import ValidationError

QUESTION = "What is Millrace?"
ANSWER = {"return_full_text": False}  # by default the prompt comes back with the answer, as from TGI


@pytest.fixture(scope="module")
def client(url):
    return InferenceClient(url)


def test_text_generation(client):
    text = client.text_generation(QUESTION, max_new_tokens=60, **ANSWER)
    assert "server" in text and QUESTION not in text
    assert client.text_generation(QUESTION, max_new_tokens=60) == QUESTION + text


def test_details(client):
    out = client.text_generation(QUESTION, max_new_tokens=8, details=True, decoder_input_details=True, top_n_tokens=3, seed=1, do_sample=True, temperature=0.7, **ANSWER)
    details = out.details
    assert details.finish_reason == "length" and details.generated_tokens == 8 and details.seed == 1
    assert "".join(t.text for t in details.tokens) == out.generated_text
    assert all(len(top) >= 3 and top[0]["logprob"] >= top[1]["logprob"] for top in details.top_tokens)
    assert details.prefill[0].logprob is None and all(t.logprob <= 0 for t in details.prefill[1:])


def test_stop(client):
    text = client.text_generation(QUESTION, max_new_tokens=60, stop=["server"])
    assert text.endswith("server")


def test_stream(client):
    whole = client.text_generation(QUESTION, max_new_tokens=30, **ANSWER)
    assert "".join(client.text_generation(QUESTION, max_new_tokens=30, stream=True, **ANSWER)) == whole
    events = list(client.text_generation(QUESTION, max_new_tokens=30, stream=True, **ANSWER, details=True))
    assert events[-1].generated_text == whole and events[-1].details.generated_tokens == len(events)


def test_stream_of_line_separators(client):
    """The client takes them for ends of lines, also inside of JSON: they come escaped."""
    text = "a\u2028b\u2029c\u0085d"
    grammar = {"grammar": {"type": "regex", "value": text}}
    assert client.text_generation("Say: ", max_new_tokens=30, **grammar, **ANSWER) == text
    events = list(client.text_generation("Say: ", max_new_tokens=30, stream=True, details=True, **grammar, **ANSWER))
    assert events[-1].generated_text == text
    chunks = client.chat_completion([{"role": "user", "content": "a\u2028b"}], max_tokens=30, stream=True, response_format={"type": "regex", "value": text})
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text


def test_best_of(client):
    out = client.text_generation(QUESTION, max_new_tokens=10, best_of=2, do_sample=True, details=True)
    assert len(out.details.best_of_sequences) == 1


def test_watermark(client):
    assert client.text_generation(QUESTION, max_new_tokens=10, watermark=True)


def test_grammar(client):
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "port": {"type": "integer"}}, "required": ["name", "port"]}
    text = client.text_generation("Give me JSON: ", max_new_tokens=80, grammar={"type": "json", "value": schema}, **ANSWER)
    assert set(json.loads(text)) >= {"name", "port"}
    text = client.text_generation("An address: ", max_new_tokens=40, grammar={"type": "regex", "value": r"[0-9]{1,3}(\.[0-9]{1,3}){3}"}, **ANSWER)
    assert text.count(".") == 3


def test_invalid(client):
    with pytest.raises(ValidationError, match="`temperature` must be strictly positive"):
        client.text_generation(QUESTION, temperature=-1.0)


def test_chat(client):
    out = client.chat_completion([{"role": "user", "content": QUESTION}], max_tokens=60, temperature=0)
    assert "server" in out.choices[0].message.content and out.choices[0].finish_reason == "stop"
    assert out.usage.total_tokens == out.usage.prompt_tokens + out.usage.completion_tokens


def test_chat_stream(client):
    messages = [{"role": "user", "content": QUESTION}]
    whole = client.chat_completion(messages, max_tokens=60, temperature=0).choices[0].message.content
    parts = list(client.chat_completion(messages, max_tokens=60, temperature=0, stream=True))
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == whole


def test_chat_logprobs(client):
    out = client.chat_completion([{"role": "user", "content": QUESTION}], max_tokens=5, temperature=0, logprobs=True, top_logprobs=2)
    entries = out.choices[0].logprobs.content
    assert len(entries) == 5 and all(len(e.top_logprobs) >= 2 for e in entries)


def test_tools(client, weather_tool):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    for choice in ("auto", "required", {"function": {"name": "get_weather"}}):
        out = client.chat_completion(messages, tools=[weather_tool], tool_choice=choice, max_tokens=60, temperature=0)
        call = out.choices[0].message.tool_calls[0]
        arguments = call.function.arguments
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        assert call.function.name == "get_weather" and "Paris" in arguments["city"], choice
        assert out.choices[0].finish_reason == "tool_calls"


def test_tool_result(client, weather_tool):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"temperature": 21, "condition": "sunny"}'}]
    out = client.chat_completion(messages, tools=[weather_tool], max_tokens=60, temperature=0)
    assert "21" in out.choices[0].message.content


def test_no_tool(client, weather_tool):
    out = client.chat_completion([{"role": "user", "content": QUESTION}], tools=[weather_tool], tool_choice="none", max_tokens=60, temperature=0)
    assert "server" in out.choices[0].message.content and not out.choices[0].message.tool_calls


@pytest.mark.parametrize("form", [
    lambda s: {"type": "json", "value": s},
    lambda s: {"type": "json_object", "value": s},
    lambda s: {"type": "json_schema", "json_schema": {"name": "port", "schema": s}}])
def test_response_format(client, form):
    schema = {"type": "object", "properties": {"port": {"type": "integer", "minimum": 1, "maximum": 65535}}, "required": ["port"], "additionalProperties": False}
    out = client.chat_completion([{"role": "user", "content": "Which port does Millrace use? Answer in JSON."}], response_format=form(schema), max_tokens=40, temperature=0)
    assert 1 <= json.loads(out.choices[0].message.content)["port"] <= 65535


def test_async(url):
    async def both():
        client = AsyncInferenceClient(url)
        return await asyncio.gather(*(client.text_generation(QUESTION, max_new_tokens=20) for _ in range(4)))
    assert len(set(asyncio.run(both()))) == 1
