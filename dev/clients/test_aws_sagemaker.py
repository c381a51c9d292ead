"""boto3 against a container behind the SageMaker emulator. Each test is a rule of the contract between them."""

import json
import socket
import struct
import time
import urllib.error
import urllib.request

import botocore.exceptions
import pytest

from emulator import CREDENTIALS, emulator
from server import running

QUESTION = "What is Millrace?"
GENERATE = {"inputs": QUESTION, "parameters": {"max_new_tokens": 60, "return_full_text": False}}
CHAT = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60, "temperature": 0}
# Eight times two thousand tokens, for no special token of the demo model may end them: seconds on one core of any machine.
LONG = {**CHAT, "n": 8, "max_tokens": 2000, "logit_bias": {str(t): -100 for t in range(2042, 2048)}}


@pytest.fixture(scope="module")
def runtime(sagemaker):
    return sagemaker.client()


def invoke(runtime, body, **more):
    if not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    return runtime.invoke_endpoint(**{"EndpointName": "millrace", "ContentType": "application/json", "Body": body} | more)


def answer(runtime, body, **more):
    return json.load(invoke(runtime, body, **more)["Body"])


def stream(runtime, body, **more):
    """The parts of a streamed answer, one after another."""
    out = runtime.invoke_endpoint_with_response_stream(**{"EndpointName": "millrace", "ContentType": "application/json", "Body": json.dumps({**body, "stream": True})} | more)
    for part in out["Body"]:
        yield part["PayloadPart"]["Bytes"]


def model_error(runtime, body, **more):
    """What the container answered to a request that it refused."""
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        invoke(runtime, body, **more)
    return caught.value.response


# --- bodies and answers ---------------------------------------------------------


def test_generate_answers_an_array(runtime):
    out = invoke(runtime, GENERATE)
    assert out["ContentType"] == "application/json" and out["InvokedProductionVariant"] == "AllTraffic"
    [generated] = json.load(out["Body"])
    assert generated["generated_text"].startswith(" Millrace is a server")


def test_chat(runtime):
    assert answer(runtime, CHAT)["choices"][0]["message"]["content"].startswith("Millrace is a server")


def test_completion(runtime):
    out = answer(runtime, {"prompt": QUESTION, "max_tokens": 60, "temperature": 0})
    assert out["object"] == "text_completion" and "server" in out["choices"][0]["text"]


def test_lines_are_answered_by_lines_in_their_order(runtime):
    lines = [GENERATE | {"inputs": text} for text in (QUESTION, "Hello", QUESTION)]
    out = invoke(runtime, "\n".join(map(json.dumps, lines)), ContentType="application/jsonlines")
    assert [json.loads(line) for line in out["Body"].read().splitlines()] == [answer(runtime, line) for line in lines]


def test_accepted_lines_are_the_events_of_a_stream(runtime):
    body = b"".join(stream(runtime, GENERATE, Accept="application/jsonlines"))
    events = [json.loads(line) for line in body.splitlines()]
    assert events[-1]["generated_text"].startswith(" Millrace is a server") and len(events) > 10


def test_a_missing_content_type_means_json(runtime):
    out = runtime.invoke_endpoint(EndpointName="millrace", Body=json.dumps(CHAT))
    assert json.load(out["Body"])["choices"]


def test_any_name_means_the_model(runtime):
    """Clients of the platform send the endpoint's name, which the container is not told."""
    assert answer(runtime, {**CHAT, "model": "my-endpoint"})["choices"]


def test_25_megabytes_are_a_body_and_no_byte_more(runtime):
    body = json.dumps(GENERATE).ljust(25 << 20)
    assert answer(runtime, body)[0]["generated_text"]
    with pytest.raises(runtime.exceptions.ValidationError, match="too large"):
        invoke(runtime, body + " ")


# --- errors ---------------------------------------------------------------------


@pytest.mark.parametrize("body, status, cause", [
    ({"inputs": QUESTION, "parameters": {"temperature": -1}}, 422, "temperature"),
    ({**CHAT, "max_tokens": 100_000}, 422, "`max_tokens`"),
    ({"inputs": QUESTION, "parameters": {"adapter_id": "absent"}}, 422, "absent"),
    ('{"inputs": ', 400, "EOF"),
    ({"text": QUESTION}, 422, "did not match any variant"),
], ids=["value", "limit", "adapter", "JSON", "shape"])
def test_an_error_is_a_model_error_that_names_the_cause(runtime, body, status, cause):
    error = model_error(runtime, body)
    original = error["OriginalMessage"]
    assert error["OriginalStatusCode"] == status and error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert cause in json.loads(original)["error"] and len(original) < 1500
    assert "/aws/sagemaker/Endpoints/millrace" in error["LogStreamArn"] and str(status) in error["Error"]["Message"]


def test_a_stream_that_cannot_begin_is_a_model_error(runtime):
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        next(stream(runtime, {**CHAT, "temperature": -1}))
    assert caught.value.response["OriginalStatusCode"] == 422


def test_an_endpoint_of_another_name_is_not_found(runtime):
    with pytest.raises(runtime.exceptions.ValidationError, match="Endpoint absent of account"):
        invoke(runtime, CHAT, EndpointName="absent")


def test_an_adapter_that_is_not_there_is_refused(url):
    with emulator("sagemaker", "--inference-component", "base", "--adapter", "legal=/opt/legal") as endpoint:
        runtime = endpoint.client()
        assert answer(runtime, GENERATE, InferenceComponentName="base")[0]["generated_text"]
        with pytest.raises(runtime.exceptions.ValidationError, match="no such file"):
            invoke(runtime, GENERATE, InferenceComponentName="legal")
    # What the platform would send for a component that it believes to be loaded.
    request = urllib.request.Request(f"{url}/invocations", json.dumps(GENERATE).encode(), {"Content-Type": "application/json", "X-Amzn-SageMaker-Adapter-Identifier": "legal"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 422 and "legal" in json.load(caught.value)["error"]


# --- headers --------------------------------------------------------------------


@pytest.mark.parametrize("route, body, key", [
    ("/tokenize", {"inputs": QUESTION}, None),
    ("/info", {}, "model_id"),
    ("/generate", GENERATE, "generated_text"),
    ("/v1/chat/completions", CHAT, "choices")])
def test_the_attribute_route_names_the_route(runtime, route, body, key):
    out = answer(runtime, body, CustomAttributes=f"trace=7,route={route}")
    assert key in out if key else out[-1]["text"] == "?"


def test_an_unknown_route_is_refused(runtime):
    error = model_error(runtime, CHAT, CustomAttributes="route=/v1/embeddings")
    assert error["OriginalStatusCode"] == 400 and "/v1/chat/completions" in error["OriginalMessage"]


def test_the_attributes_of_an_answer_tell_the_usage(runtime):
    attributes = dict(a.split("=") for a in invoke(runtime, GENERATE)["CustomAttributes"].split(";"))
    assert int(attributes["generated_tokens"]) > 10 and int(attributes["prompt_tokens"]) > 0


def test_the_inference_id_is_in_the_containers_log(sagemaker, runtime):
    with pytest.raises(runtime.exceptions.ValidationError, match="inferenceId"):
        invoke(runtime, GENERATE, InferenceId="x" * 65)
    invoke(runtime, GENERATE, InferenceId="invoice-42")
    assert '"generated_tokens":' in sagemaker.logged('"request_id":"invoice-42"')


# --- sessions -------------------------------------------------------------------


def test_a_session_lives_from_new_session_to_close(runtime):
    opened = invoke(runtime, {"requestType": "NEW_SESSION"}, SessionId="NEW_SESSION")
    session, _, expires = opened["NewSessionId"].partition("; Expires=")
    assert time.strptime(expires, "%Y-%m-%dT%H:%M:%SZ") > time.gmtime()
    assert answer(runtime, CHAT, SessionId=session)["choices"]
    assert b"".join(stream(runtime, CHAT, SessionId=session)).endswith(b"data: [DONE]\n\n")
    assert invoke(runtime, {"requestType": "CLOSE"}, SessionId=session)["ClosedSessionId"] == session
    with pytest.raises(botocore.exceptions.ClientError, match="Session"):
        invoke(runtime, CHAT, SessionId=session)


def test_a_session_stays_with_one_instance():
    with emulator("sagemaker", "--instances", "2", "--env", "SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true") as endpoint:
        runtime = endpoint.client()
        session = invoke(runtime, {"requestType": "NEW_SESSION"}, SessionId="NEW_SESSION")["NewSessionId"].partition(";")[0]
        for turn in range(12):
            answer(runtime, GENERATE, SessionId=session, InferenceId=f"turn-{turn:02}")
        instances = {endpoint.logged(f'"request_id":"turn-{turn:02}"')[:3] for turn in range(12)}
    assert instances in ({"[1]"}, {"[2]"})


# --- streams --------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pieces_of_a_stream_join_to_what_the_container_wrote(seed):
    with emulator("sagemaker", "--seed", str(seed)) as endpoint:
        streams = [list(stream(endpoint.client(), GENERATE)) for _ in range(20)]
    assert len({b"".join(pieces) for pieces in streams}) == 1  # always the same bytes,
    assert len({tuple(map(len, pieces)) for pieces in streams}) > 10  # always cut elsewhere,
    assert any(not piece.endswith(b"\n") for pieces in streams for piece in pieces[:-1])  # also within an event
    *events, end = b"".join(streams[0]).split(b"\n\n")
    assert end == b"" and json.loads(events[-1].removeprefix(b"data:"))["generated_text"].startswith(" Millrace is a server")


def test_a_stream_whose_container_dies_ends_in_an_error():
    with emulator("sagemaker") as endpoint:
        pieces = stream(endpoint.client(), LONG)
        next(pieces)
        endpoint.kill_containers()
        with pytest.raises(botocore.exceptions.EventStreamError) as caught:
            list(pieces)
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"


def test_a_stream_longer_than_the_platform_allows_ends_in_an_error():
    with emulator("sagemaker", "--stream-timeout", "1s", "--", "--threads", "1") as endpoint:
        with pytest.raises(botocore.exceptions.EventStreamError) as caught:
            list(stream(endpoint.client(), LONG))
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"


def test_an_answer_is_cut_at_its_deadline_and_says_so():
    with emulator("sagemaker", "--", "--threads", "1", "--request-deadline", "1", "--stream-deadline", "1") as endpoint:
        whole = answer(endpoint.client(), LONG)
        events = [json.loads(e.removeprefix(b"data:")) for e in b"".join(stream(endpoint.client(), LONG)).split(b"\n\n") if e.startswith(b"data: {")]
    for choices in whole["choices"], [c for e in events for c in e["choices"] if c["finish_reason"]]:
        assert [(c["finish_reason"], c["cut"]) for c in choices] == [("length", "deadline")] * 8
    assert 0 < whole["usage"]["completion_tokens"] < 16_000


# --- other calls ----------------------------------------------------------------


@pytest.mark.parametrize("parameters, place, text", [({}, "OutputLocation", "Millrace"), ({"top_p": 7}, "FailureLocation", "top_p")], ids=["answer", "error"])
def test_an_asynchronous_answer_is_stored(tmp_path, parameters, place, text):
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "question.json").write_text(json.dumps(GENERATE | {"parameters": parameters}))
    with emulator("sagemaker", "--output", str(tmp_path)) as endpoint:
        out = endpoint.client().invoke_endpoint_async(EndpointName="millrace", ContentType="application/json", InputLocation="s3://inputs/question.json", InferenceId="a-1")
        assert out["ResponseMetadata"]["HTTPStatusCode"] == 202 and out["InferenceId"] == "a-1"
        stored = tmp_path / out[place].removeprefix("s3://")
        for _ in range(200):
            if stored.exists():
                break
            time.sleep(0.1)
        assert text in stored.read_text()


def test_ping_is_503_with_the_reason_while_the_model_loads():
    with socket.create_server(("127.0.0.1", 0)) as bucket:  # an S3 that never answers
        environment = {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{bucket.getsockname()[1]}"}
        with running("--model-id", "s3://models/tiny/", until="listening", environment=environment) as address:
            for method in "GET", "POST":
                with pytest.raises(urllib.error.HTTPError) as caught:
                    urllib.request.urlopen(urllib.request.Request(f"{address}/ping", method=method), timeout=2)
                assert caught.value.code == 503 and "s3://models/tiny/" in json.load(caught.value)["error"]
