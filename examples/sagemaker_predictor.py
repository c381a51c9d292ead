"""The SageMaker SDK's Predictor (sagemaker 2.x), whole and streamed: sagemaker_predictor.py ENDPOINT [QUESTION]"""

import json
import sys

from sagemaker.deserializers import JSONDeserializer
from sagemaker.iterators import LineIterator
from sagemaker.predictor import Predictor
from sagemaker.serializers import JSONSerializer

endpoint, question = sys.argv[1], " ".join(sys.argv[2:]) or "What is Millrace?"
predictor = Predictor(endpoint, serializer=JSONSerializer(), deserializer=JSONDeserializer())
request = {"inputs": question, "parameters": {"max_new_tokens": 60, "return_full_text": False}}
print(predictor.predict(request)[0]["generated_text"])
for line in predictor.predict_stream({**request, "stream": True}, iterator=LineIterator):
    if line.startswith(b"data:"):
        token = json.loads(line.removeprefix(b"data:"))["token"]
        print("" if token["special"] else token["text"], end="", flush=True)
print()
