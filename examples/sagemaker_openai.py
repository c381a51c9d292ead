"""OpenAI's client on an endpoint's OpenAI-compatible path: sagemaker_openai.py ENDPOINT [QUESTION]

SAGEMAKER_TOKEN is a bearer token, which the SageMaker SDK 3.x makes from AWS credentials:

    python -c 'from sagemaker.core.token_generator import generate_token; print(generate_token())'
"""

import os
import sys

from openai import OpenAI

endpoint, question = sys.argv[1], " ".join(sys.argv[2:]) or "What is Millrace?"
runtime = os.environ.get("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME") or f"https://runtime.sagemaker.{os.environ['AWS_REGION']}.amazonaws.com"
client = OpenAI(base_url=f"{runtime}/endpoints/{endpoint}/openai/v1", api_key=os.environ["SAGEMAKER_TOKEN"])
messages = [{"role": "user", "content": question}]
for chunk in client.chat.completions.create(model="", messages=messages, max_tokens=60, temperature=0, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
