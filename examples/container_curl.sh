#!/bin/sh
# What SageMaker asks of a container, by curl: container_curl.sh [URL]
# URL is where the image listens: docker run -p 8080:8080 IMAGE serve
set -eu
url=${1:-http://localhost:8080}
curl -sS -o /dev/null -w 'ping: %{http_code}\n' "$url/ping"
curl -sSf "$url/invocations" -H 'Content-Type: application/json' \
	-d '{"inputs": "What is Millrace?", "parameters": {"max_new_tokens": 60, "return_full_text": false}}'
echo
curl -sSfN "$url/invocations" -H 'Content-Type: application/json' \
	-d '{"messages": [{"role": "user", "content": "What is Millrace?"}], "max_tokens": 60, "temperature": 0, "stream": true}'
