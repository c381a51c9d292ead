"""An answer word by word, by boto3: sagemaker_stream.py ENDPOINT [QUESTION]"""

import json
import sys

import boto3
from botocore.config import Config


def lines(parts):
    """The lines of a response stream. Its parts end anywhere: within a line, even within a character."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part["PayloadPart"]["Bytes"]).split(b"\n")
        yield from whole


endpoint, question = sys.argv[1], " ".join(sys.argv[2:]) or "What is Millrace?"
# The time-out is of the silence between two parts: a long prompt takes a while before the first.
runtime = boto3.client("sagemaker-runtime", config=Config(read_timeout=120))
stream = runtime.invoke_endpoint_with_response_stream(
    EndpointName=endpoint,
    ContentType="application/json",
    Body=json.dumps({"messages": [{"role": "user", "content": question}], "max_tokens": 60, "temperature": 0, "stream": True}),
)
for line in lines(stream["Body"]):
    if not line.startswith(b"data:"):
        continue  # the empty line between two events, or a comment
    data = line.removeprefix(b"data:").strip()
    if data == b"[DONE]":
        print()
        break
    event = json.loads(data)
    if "error" in event:
        sys.exit(f"the answer broke off: {event['error']}")
    for choice in event["choices"]:
        print(choice["delta"].get("content") or "", end="", flush=True)
else:
    sys.exit("the stream ended before the answer did")  # which boto3 does not notice by itself
