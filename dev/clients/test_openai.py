"""OpenAI's Python client."""

import asyncio
import json

import openai
import pytest
from pydantic import BaseModel, Field

from server import running

QUESTION = [{"role": "user", "content": "What is Millrace?"}]
MODEL = "tgi"  # the model that is served, whatever its name


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)


def test_models(client):
    assert [m.object for m in client.models.list().data] == ["model"]


def test_chat(client):
    out = client.chat.completions.create(model=MODEL, messages=QUESTION, max_completion_tokens=60, temperature=0)
    assert "server" in out.choices[0].message.content
    assert out.object == "chat.completion" and out.choices[0].finish_reason == "stop"
    assert out.usage.total_tokens == out.usage.prompt_tokens + out.usage.completion_tokens


def test_chat_stream(client):
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=60, temperature=0).choices[0].message.content
    chunks = list(client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=60, temperature=0, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert len({c.id for c in chunks}) == 1


def test_system_and_turns(client):
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": [{"type": "text", "text": "What is Millrace?"}]}]
    assert client.chat.completions.create(model=MODEL, messages=messages, max_tokens=60, temperature=0).choices[0].message.content


def test_several(client):
    out = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=12, n=3, temperature=1.5, seed=7)
    assert [c.index for c in out.choices] == [0, 1, 2]
    again = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=12, n=3, temperature=1.5, seed=7)
    assert [c.message.content for c in again.choices] == [c.message.content for c in out.choices]


def test_logprobs(client):
    out = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3)
    entries = out.choices[0].logprobs.content
    assert len(entries) == 6
    for entry in entries:
        assert bytes(entry.bytes).decode() == entry.token and len(entry.top_logprobs) >= 3
        assert entry.logprob == entry.top_logprobs[0].logprob  # greedy


def test_logit_bias(client):
    plain = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=1, temperature=0, logprobs=True, top_logprobs=1)
    first = plain.choices[0].message.content
    for token in range(2048):  # the demo model's vocabulary: forbid whatever stood first
        out = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=1, temperature=0, logit_bias={str(t): -100 for t in range(token, token + 128)})
        if out.choices[0].message.content != first:
            return
    pytest.fail("no bias changed the first token")


def test_penalties_and_stop(client):
    out = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=60, temperature=0, frequency_penalty=0.2, presence_penalty=0.2, stop=["server"])
    assert out.choices[0].finish_reason in ("stop", "length")


def test_tools(client, weather_tool):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    out = client.chat.completions.create(model=MODEL, messages=messages, tools=[weather_tool], max_tokens=60, temperature=0)
    call = out.choices[0].message.tool_calls[0]
    assert out.choices[0].finish_reason == "tool_calls" and json.loads(call.function.arguments) == {"city": "Paris"}
    messages += [out.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 18, "condition": "cloudy"}'}]
    end = client.chat.completions.create(model=MODEL, messages=messages, tools=[weather_tool], max_tokens=60, temperature=0)
    assert "18" in end.choices[0].message.content


def test_tools_stream(client, weather_tool):
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    name, arguments, reason = "", "", None
    for chunk in client.chat.completions.create(model=MODEL, messages=messages, tools=[weather_tool], tool_choice="required", max_tokens=60, temperature=0, stream=True):
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert name == "get_weather" and json.loads(arguments) == {"city": "Paris"} and reason == "tool_calls"


class Port(BaseModel):
    name: str = Field(max_length=20)
    port: int = Field(ge=1, le=65535)


def test_parse(client):
    out = client.chat.completions.parse(model=MODEL, messages=[{"role": "user", "content": "Give me some JSON."}], response_format=Port, max_tokens=80, temperature=0)
    assert isinstance(out.choices[0].message.parsed, Port)


def test_json_object(client):
    out = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Give me some JSON."}], response_format={"type": "json_object"}, max_tokens=100, temperature=0)
    assert isinstance(json.loads(out.choices[0].message.content), dict)


def test_completions(client):
    out = client.completions.create(model=MODEL, prompt="Question: What is Millrace?\nAnswer:", max_tokens=40, temperature=0)
    assert "server" in out.choices[0].text and out.object == "text_completion"
    both = client.completions.create(model=MODEL, prompt=["Hello", "What is Millrace?"], max_tokens=8, temperature=0)
    assert [c.index for c in both.choices] == [0, 1]


def test_completions_stream(client):
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(model=MODEL, prompt=["Hello", "What is Millrace?"], max_tokens=8, temperature=0, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    whole = client.completions.create(model=MODEL, prompt=["Hello", "What is Millrace?"], max_tokens=8, temperature=0)
    assert [texts[0], texts[1]] == [c.text for c in whole.choices]


@pytest.mark.parametrize("change", [
    {"model": "gpt-4o"}, {"temperature": -1}, {"top_p": 2}, {"max_tokens": 100_000}, {"top_logprobs": 30, "logprobs": True}, {"logit_bias": {"x": 1}},
    {"response_format": {"type": "json_object", "value": {"type": "wrong"}}}])
def test_errors(client, change):
    request = {"model": MODEL, "messages": QUESTION, "max_tokens": 5} | change
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(**request)
    assert caught.value.body  # the client found the reason where it looks for it


def test_image_is_refused(client):
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert "image" in str(caught.value.body)


def test_api_key(locked):
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{locked}/v1", api_key="wrong", max_retries=0).chat.completions.create(model=MODEL, messages=QUESTION)
    out = openai.OpenAI(base_url=f"{locked}/v1", api_key="secret").chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2)
    assert out.usage.completion_tokens == 2


def test_async(url):
    async def answers():
        client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-")
        return await asyncio.gather(*(client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=20, temperature=0) for _ in range(8)))
    assert len({a.choices[0].message.content for a in asyncio.run(answers())}) == 1


def test_model(client):
    model = client.models.list().data[0]
    assert client.models.retrieve(model.id).id == model.id and model.max_model_len > 0
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o/x")


def test_fields_of_vllm(client):
    """Fields of vLLM in extra_body: honoured, or refused by name."""
    out = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=30, extra_body={"guided_choice": ["yes it is", "no"]})
    assert out.choices[0].message.content in ("yes it is", "no")
    out = client.completions.create(model=MODEL, prompt="a", max_tokens=9, temperature=0, extra_body={"min_tokens": 9, "ignore_eos": True, "top_k": -1, "min_p": 0.1})
    assert out.usage.completion_tokens == 9
    out = client.completions.create(model=MODEL, prompt="a", max_tokens=30, extra_body={"response_format": {"type": "json_object"}, "structured_outputs": None})
    assert out.choices[0].text.startswith("{")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(model=MODEL, messages=QUESTION, extra_body={"use_beam_search": True})
    assert "`use_beam_search` is not supported" in refused.value.response.json()["error"]


def test_scores(client):
    """The log-probabilities of a prompt, in OpenAI's form and in vLLM's."""
    scored = client.completions.create(model=MODEL, prompt="What is Millrace?", max_tokens=0, echo=True, logprobs=1, temperature=0).choices[0].logprobs
    out = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=1, extra_body={"prompt_logprobs": 2})
    assert scored.token_logprobs[0] is None and all(p < 0 for p in scored.token_logprobs[1:])
    assert out.prompt_logprobs[0] is None and all(2 <= len(p) <= 3 for p in out.prompt_logprobs[1:])


# A template that begins the model's reasoning, as those of Qwen3 and DeepSeek-R1 do. The demo model does not end it: its budget does.
THINKING = """{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>

<think>
"""
BUDGET = {"thinking_token_budget": 12, "reasoning_budget_message": " So:\n"}


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    template = tmp_path_factory.mktemp("thinker") / "template.jinja"
    template.write_text(THINKING)
    with running("--tokenizer-config-path", str(template)) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)


def think(client, messages=QUESTION, **more):
    return client.chat.completions.create(model=MODEL, messages=messages, max_tokens=60, temperature=0, **{"extra_body": BUDGET, **more})


def test_reasoning(thinker):
    out = think(thinker)
    message, usage = out.choices[0].message, out.usage
    assert message.reasoning == message.reasoning_content and message.reasoning.endswith("So:") and "think>" not in message.content
    assert 12 < usage.completion_tokens_details.reasoning_tokens <= usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens in (0, usage.prompt_tokens // 16 * 16)

    chunks = list(think(thinker, stream=True, stream_options={"include_usage": True}))
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert "".join(getattr(d, "reasoning", "") for d in deltas) == "".join(getattr(d, "reasoning_content", "") for d in deltas) == message.reasoning
    assert "".join(d.content or "" for d in deltas) == message.content
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == usage.completion_tokens_details.reasoning_tokens
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0  # the same prompt again

    hidden = think(thinker, extra_body={**BUDGET, "include_reasoning": False})
    assert hidden.choices[0].message.content == message.content and not hasattr(hidden.choices[0].message, "reasoning")
    assert hidden.usage.completion_tokens == usage.completion_tokens

    cut = think(thinker, extra_body={}).choices[0]
    assert cut.finish_reason in ("length", "stop") and cut.message.content == "" and cut.message.reasoning
    again = think(thinker, messages=[*QUESTION, message.model_dump(exclude_none=True), *QUESTION])
    assert again.usage.prompt_tokens > usage.prompt_tokens + usage.completion_tokens - 5  # the reasoning went back, too


def test_reasoning_before_a_schema(thinker):
    schema = {"type": "object", "properties": {"port": {"type": "integer", "minimum": 1, "maximum": 65535}}, "required": ["port"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "port", "schema": schema}}
    message = think(thinker, response_format=form).choices[0].message
    assert message.reasoning and 0 < json.loads(message.content)["port"] < 65536


def test_repetition(client):
    detection = {"repetition_detection": {"max_pattern_size": 4, "min_count": 3}, "logit_bias": {"300": 100}, "ignore_eos": True}
    out = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=60, temperature=0, extra_body=detection)
    assert out.choices[0].finish_reason == "repetition" and out.choices[0].stop_reason == "repetition_detected"
    assert out.usage.completion_tokens == 3
