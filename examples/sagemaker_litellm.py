"""LiteLLM on an endpoint, three ways: sagemaker_litellm.py ENDPOINT [QUESTION]

SAGEMAKER_TOKEN is a bearer token; see sagemaker_openai.py.
"""

import os
import sys

import litellm

endpoint, question = sys.argv[1], " ".join(sys.argv[2:]) or "What is Millrace?"
runtime = os.environ.get("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME") or f"https://runtime.sagemaker.{os.environ['AWS_REGION']}.amazonaws.com"
invocations = f"{runtime}/endpoints/{endpoint}/invocations"
request = {"messages": [{"role": "user", "content": question}], "max_tokens": 60, "temperature": 0}

# The messages as they are. Without hf_model_name LiteLLM asks for a model with the endpoint's name,
# which is known to a container that is started with SERVED_MODEL_NAME=endpoint's name.
chat = litellm.completion(model=f"sagemaker_chat/{endpoint}", hf_model_name="tgi", sagemaker_base_url=invocations, **request)
print(chat.choices[0].message.content)

# A prompt that LiteLLM makes of the messages.
text = litellm.completion(model=f"sagemaker/{endpoint}", return_full_text=False, sagemaker_base_url=invocations, **request)
print(text.choices[0].message.content)

# A stream, by the endpoint's OpenAI-compatible path: on the other two LiteLLM
# loses what SageMaker cuts in two (github.com/BerriAI/litellm/issues/5372).
path = f"{runtime}/endpoints/{endpoint}/openai/v1"
for chunk in litellm.completion(model="openai/tgi", api_base=path, api_key=os.environ["SAGEMAKER_TOKEN"], stream=True, **request):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
