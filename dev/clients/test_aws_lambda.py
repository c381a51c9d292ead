"""boto3 and HTTP clients against the function behind the Lambda emulator. Each test is a rule of the contract between them."""

import base64
import json
import urllib.error
import urllib.request

import openai
import pytest

from emulator import emulator

QUESTION = "What is Millrace?"
GENERATE = {"inputs": QUESTION, "parameters": {"max_new_tokens": 60, "return_full_text": False}}
CHAT = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60, "temperature": 0}


@pytest.fixture(scope="module")
def client(function):
    return function.client()


def invoke(client, event, **more):
    return client.invoke(FunctionName="millrace", Payload=json.dumps(event), **more)


def stream(client, event):
    """The chunks of a streamed answer and the event that ends it."""
    out = client.invoke_with_response_stream(FunctionName="millrace", Payload=json.dumps(event))
    *chunks, last = out["EventStream"]
    return [c["PayloadChunk"]["Payload"] for c in chunks], last["InvokeComplete"]


# --- direct invocations ---------------------------------------------------------


@pytest.mark.parametrize("event, text", [
    (GENERATE, lambda out: out[0]["generated_text"]),
    (CHAT, lambda out: out["choices"][0]["message"]["content"]),
    ({"prompt": QUESTION, "max_tokens": 60, "temperature": 0}, lambda out: out["choices"][0]["text"])], ids=["generate", "chat", "completion"])
def test_an_event_is_a_body_of_invocations(client, event, text):
    out = invoke(client, event)
    assert out["StatusCode"] == 200 and "FunctionError" not in out
    assert "server" in text(json.load(out["Payload"]))


def test_an_error_is_a_failure_of_the_function(client):
    out = invoke(client, {**CHAT, "temperature": -1})
    assert out["StatusCode"] == 200 and out["FunctionError"] == "Unhandled"
    error = json.load(out["Payload"])
    assert "temperature" in error["errorMessage"] and error["errorType"]


def test_the_log_of_a_call_is_returned_to_who_asks(client):
    log = base64.b64decode(invoke(client, GENERATE, LogType="Tail")["LogResult"]).decode()
    assert "START RequestId: " in log and "generated_tokens" in log and "REPORT RequestId: " in log
    assert "LogResult" not in invoke(client, GENERATE)


def test_an_unknown_function_is_not_found(client):
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="absent", Payload=b"{}")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_answer_is_cut_before_the_time_of_the_function_is_over(streamed):
    # Thirty-two times two thousand tokens, for no special token of the demo model may end them: many seconds on one core of any machine.
    long = {**CHAT, "n": 32, "max_tokens": 2000, "logit_bias": {str(t): -100 for t in range(2042, 2048)}, "stream": streamed}
    with emulator("lambda", "--timeout", "5s", "--", "--threads", "1", "--max-batch-size", "32") as function:
        if streamed:
            chunks, end = stream(function.client(), long)
            assert not end.get("ErrorCode")
            events = [json.loads(e.removeprefix(b"data:")) for e in b"".join(chunks).split(b"\n\n") if e.startswith(b"data: {")]
            choices = [c for e in events for c in e["choices"] if c["finish_reason"]]
        else:
            choices = json.load(invoke(function.client(), long)["Payload"])["choices"]
    assert [(c["finish_reason"], c["cut"]) for c in choices] == [("length", "deadline")] * 32


# --- streams --------------------------------------------------------------------


def test_a_stream_is_complete_and_ends_without_an_error(client):
    chunks, end = stream(client, {**GENERATE, "stream": True})
    assert not end.get("ErrorCode") and len(chunks) > 1
    events = b"".join(chunks).split(b"\n\n")
    assert json.loads(events[-2].removeprefix(b"data:"))["generated_text"].startswith(" Millrace is a server") and events[-1] == b""


def test_a_stream_that_cannot_begin_names_the_cause(client):
    chunks, end = stream(client, {**CHAT, "temperature": -1, "stream": True})
    assert end["ErrorCode"] == "Function.Validation" and "temperature" in end["ErrorDetails"] and b"data:" not in b"".join(chunks)


# --- events of HTTP fronts ------------------------------------------------------


@pytest.mark.parametrize("event", [
    {"version": "2.0", "rawPath": "/v1/chat/completions", "rawQueryString": "", "headers": {"content-type": "application/json"},
     "requestContext": {"apiId": "a", "domainName": "a.execute-api.us-east-1.amazonaws.com", "http": {"method": "POST", "path": "/v1/chat/completions"}}},
    {"version": "1.0", "httpMethod": "POST", "path": "/dev/v1/chat/completions", "headers": {"Content-Type": "application/json"}, "requestContext": {"stage": "dev"}},
    {"httpMethod": "POST", "resource": "/{proxy+}", "path": "/v1/chat/completions", "headers": {"Content-Type": "application/json"},
     "multiValueHeaders": {"Content-Type": ["application/json"]}, "requestContext": {"apiId": "a", "stage": "prod"}},
    {"httpMethod": "POST", "path": "/v1/chat/completions", "headers": {"content-type": "application/json"},
     "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/a/b"}}},
    {"httpMethod": "POST", "path": "/v1/chat/completions", "multiValueHeaders": {"content-type": ["application/json"]}, "requestContext": {"elb": {}}}],
    ids=["HTTP API", "HTTP API, format 1.0", "REST API", "load balancer", "load balancer, lists"])
def test_an_event_of_http_is_answered_in_its_form(client, event):
    body = json.dumps(CHAT)
    for way in {"body": body, "isBase64Encoded": False}, {"body": base64.b64encode(body.encode()).decode(), "isBase64Encoded": True}:
        out = json.load(invoke(client, event | way)["Payload"])
        assert out["statusCode"] == 200 and "server" in json.loads(out["body"])["choices"][0]["message"]["content"]
        assert bool(out["multiValueHeaders"]) == ("multiValueHeaders" in event or event.get("version") == "1.0")


# --- events of nobody who waits ---------------------------------------------------


def test_messages_of_a_queue_are_refused_where_their_answers_have_nowhere_to_go(client):
    out = invoke(client, {"Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": json.dumps(GENERATE)}]})
    assert out["FunctionError"] and "QUEUE_OUTPUT" in json.load(out["Payload"])["errorMessage"]


def test_a_schedule_keeps_the_function_warm(client):
    out = invoke(client, {"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}})
    assert "FunctionError" not in out and json.load(out["Payload"]) is None


def test_an_event_that_is_not_served_is_in_the_log(client, function):
    out = client.invoke(FunctionName="millrace", InvocationType="Event", Payload=json.dumps({"Records": [{"eventSource": "aws:s3"}]}))
    assert out["StatusCode"] == 202 and "accepted are events of" in function.logged('records of \\"aws:s3\\"')


# --- the function URL -----------------------------------------------------------


@pytest.fixture(params=["function", "streaming_function"], ids=["buffered", "stream"])
def url(request):
    """The function URL in both of its invoke modes."""
    return request.getfixturevalue(request.param).url


def test_the_url_has_the_whole_api(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)
    request = {"model": "tgi", "messages": CHAT["messages"], "max_tokens": 60, "temperature": 0}
    whole = client.chat.completions.create(**request).choices[0].message.content
    chunks = client.chat.completions.create(**request, stream=True)
    assert "server" in whole and "".join(c.choices[0].delta.content or "" for c in chunks) == whole
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(**request | {"temperature": -1})
    assert "temperature" in str(caught.value.body)
    with urllib.request.urlopen(f"{url}/info") as out:
        assert json.load(out)["model_id"]


def test_the_url_streams(streaming_function):
    body = json.dumps({**GENERATE, "stream": True}).encode()
    request = urllib.request.Request(f"{streaming_function.url}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as out:
        assert out.headers["Content-Type"].startswith("text/event-stream") and out.headers["Transfer-Encoding"] == "chunked"
        assert out.readline().startswith(b"data:")
        assert json.loads(out.read().split(b"\n\n")[-2].removeprefix(b"data:"))["generated_text"].startswith(" Millrace is a server")


def test_a_stream_of_a_buffered_url_comes_in_one_piece(function):
    body = json.dumps({**GENERATE, "stream": True}).encode()
    request = urllib.request.Request(f"{function.url}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as out:
        assert out.headers["Content-Type"].startswith("text/event-stream")
        assert json.loads(out.read().split(b"\n\n")[-2].removeprefix(b"data:"))["generated_text"].startswith(" Millrace is a server")


def test_an_error_of_the_url_keeps_its_status(url):
    request = urllib.request.Request(f"{url}/generate", b'{"inputs": ""}', {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 422 and json.load(caught.value)["error_type"] == "validation"
