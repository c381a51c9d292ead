"""One question, one answer of a Lambda function, by boto3: lambda_invoke.py FUNCTION [QUESTION]"""

import json
import sys

import boto3

function, question = sys.argv[1], " ".join(sys.argv[2:]) or "What is Millrace?"
answer = boto3.client("lambda").invoke(
    FunctionName=function,
    Payload=json.dumps({"messages": [{"role": "user", "content": question}], "max_tokens": 60, "temperature": 0}),
)
payload = json.load(answer["Payload"])
if "FunctionError" in answer:
    sys.exit(f"{payload['errorType']}: {payload['errorMessage']}")
print(payload["choices"][0]["message"]["content"])
