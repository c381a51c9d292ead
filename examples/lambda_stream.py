"""An answer word by word of a Lambda function, by boto3: lambda_stream.py FUNCTION [QUESTION]"""

import json
import sys

import boto3


def lines(events):
    """The lines of a response stream. Its chunks end anywhere: within a line, even within a character."""
    rest = b""
    for event in events:
        if "InvokeComplete" in event:
            if code := event["InvokeComplete"].get("ErrorCode"):
                sys.exit(f"the answer broke off: {code}: {event['InvokeComplete'].get('ErrorDetails')}")
            continue
        *whole, rest = (rest + event["PayloadChunk"]["Payload"]).split(b"\n")
        yield from whole


function, question = sys.argv[1], " ".join(sys.argv[2:]) or "What is Millrace?"
stream = boto3.client("lambda").invoke_with_response_stream(
    FunctionName=function,
    Payload=json.dumps({"messages": [{"role": "user", "content": question}], "max_tokens": 60, "temperature": 0, "stream": True}),
)
for line in lines(stream["EventStream"]):
    data = line.removeprefix(b"data:").strip()
    if data.startswith(b"{"):
        event = json.loads(data)
        if "error" in event:
            sys.exit(f"the answer broke off: {event['error']}")
        for choice in event["choices"]:
            print(choice["delta"].get("content") or "", end="", flush=True)
print()
