"""What all tests share: servers, each started once for a test run, and the tool that the demo model knows."""

import pytest

from emulator import emulator
from server import running


@pytest.fixture(scope="session")
def url():
    with running() as address:
        yield address


@pytest.fixture(scope="session")
def locked():
    """A server that wants the API key "secret"."""
    with running("--api-key", "secret") as address:
        yield address


@pytest.fixture(scope="session")
def sagemaker():
    """An endpoint with what a container has to be asked for: sessions, and the usage in an answer's header."""
    with emulator("sagemaker", "--env", "SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true", "--env", "SAGEMAKER_USAGE=true") as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def function():
    """A Lambda function and its URL."""
    with emulator("lambda") as function:
        yield function


@pytest.fixture(scope="session")
def streaming_function():
    """A Lambda function and its URL, which streams."""
    with emulator("lambda", "--url-mode", "stream") as function:
        yield function


@pytest.fixture(scope="session")
def weather_tool():
    return {"type": "function", "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city"}}, "required": ["city"]}}}
