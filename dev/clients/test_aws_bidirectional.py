"""AWS's Python SDK for bidirectional streams, which needs Python 3.12, against the SageMaker emulator over TLS."""

import asyncio
import json
import shutil
import subprocess

import pytest

from emulator import emulator

pytest.importorskip("aws_sdk_sagemaker_runtime_http2", reason="the SDK for bidirectional streams needs Python 3.12")
from aws_sdk_sagemaker_runtime_http2.client import AsyncSageMakerRuntimeHTTP2Client
from aws_sdk_sagemaker_runtime_http2.config import AsyncSageMakerRuntimeHTTP2Config
from aws_sdk_sagemaker_runtime_http2.models import (
    InvokeEndpointWithBidirectionalStreamInput, RequestPayloadPart, RequestStreamEventPayloadPart)
from awscrt.io import ClientTlsContext, TlsContextOptions
from smithy_http.aio.crt import AWSCRTHTTPClient


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with emulator("sagemaker", "--tls-cert", str(certificate), "--tls-key", str(key)) as running:
        yield running.url.replace("127.0.0.1", "localhost"), str(certificate)


async def converse(endpoint, *parts):
    """What the endpoint sends until each of the requests has ended."""
    url, certificate = endpoint
    transport, trust = AWSCRTHTTPClient(), TlsContextOptions()
    trust.override_default_trust_store_from_path(None, certificate)
    transport._tls_ctx = ClientTlsContext(trust)  # there is no public way yet
    client = AsyncSageMakerRuntimeHTTP2Client(await AsyncSageMakerRuntimeHTTP2Config.resolve(
        endpoint_uri=url, region="us-east-1", aws_access_key_id="local", aws_secret_access_key="local", transport=transport))
    stream = await client.invoke_endpoint_with_bidirectional_stream(InvokeEndpointWithBidirectionalStreamInput(endpoint_name="millrace"))
    for part in parts:
        await stream.input_stream.send(RequestStreamEventPayloadPart(value=part))
    _, answer = await stream.await_output()
    heard, running = [], sum(part.completion_state != "PARTIAL" for part in parts)
    while running:
        part = (await answer.receive()).value
        assert part.data_type == "UTF8" and part.completion_state == "COMPLETE"
        heard.append(json.loads(part.bytes_))
        running -= heard[-1].get("done", False)
    await stream.close()
    return heard


def test_requests_share_a_bidirectional_stream(endpoint):
    heard = asyncio.run(asyncio.wait_for(converse(
        endpoint,
        RequestPayloadPart(bytes_=b'{"id":"a","inputs":"What is Millrace?","stream":true,"parameters":{"max_new_tokens":4}}'),
        RequestPayloadPart(bytes_=b'{"id":"b","inp', data_type="UTF8", completion_state="PARTIAL"),
        RequestPayloadPart(bytes_=b'uts":""}', data_type="UTF8", completion_state="COMPLETE")), 60))
    of = {name: [m for m in heard if m["id"] == name] for name in "ab"}
    assert [m["data"]["token"]["text"] for m in of["a"][:-1]] == [" Millrace", " is", " a", " server"]
    assert of["a"][-1] == {"id": "a", "done": True}
    assert [m["status"] for m in of["b"]] == [422]
