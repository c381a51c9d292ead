"""One question, one answer, by boto3: sagemaker_invoke.py ENDPOINT [QUESTION]"""

import json
import sys

import boto3

endpoint, question = sys.argv[1], " ".join(sys.argv[2:]) or "What is Millrace?"
runtime = boto3.client("sagemaker-runtime")
try:
    answer = runtime.invoke_endpoint(
        EndpointName=endpoint,
        ContentType="application/json",
        Body=json.dumps({"inputs": question, "parameters": {"max_new_tokens": 60, "return_full_text": False}}),
    )
except runtime.exceptions.ModelError as error:
    # SageMaker hides the container's answer in a 424; these two members are what the container said.
    sys.exit(f"status {error.response['OriginalStatusCode']}: {error.response['OriginalMessage']}")
print(json.load(answer["Body"])[0]["generated_text"])
