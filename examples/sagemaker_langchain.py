"""LangChain's chat model on an endpoint, whole and streamed: sagemaker_langchain.py ENDPOINT [QUESTION]"""

import json
import sys

from langchain_aws.chat_models.sagemaker_endpoint import ChatModelContentHandler, ChatSagemakerEndpoint
from langchain_core.messages import AIMessage, AIMessageChunk


class Messages(ChatModelContentHandler):
    """LangChain's messages as the endpoint's chat body, and its answers back."""

    content_type = accepts = "application/json"

    def transform_input(self, prompt, model_kwargs):
        return json.dumps({"messages": prompt, **model_kwargs}).encode()

    def transform_output(self, output):
        if not isinstance(output, bytes):
            return AIMessage(json.load(output)["choices"][0]["message"]["content"])
        data = output.removeprefix(b"data:").strip()  # a line of the stream
        choices = json.loads(data)["choices"] if data.startswith(b"{") else []
        return AIMessageChunk("".join(c["delta"].get("content") or "" for c in choices))


endpoint, question = sys.argv[1], " ".join(sys.argv[2:]) or "What is Millrace?"
chat = ChatSagemakerEndpoint(endpoint_name=endpoint, content_handler=Messages(), model_kwargs={"max_tokens": 60, "temperature": 0})
print(chat.invoke(question).content)
for chunk in chat.stream(question, stream=True):
    print(chunk.content, end="", flush=True)
print()
