#!/bin/sh
# One question, one answer, by the AWS CLI: sagemaker_cli.sh ENDPOINT
# The CLI has no command for streams.
set -eu
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
printf '%s' '{"messages": [{"role": "user", "content": "What is Millrace?"}], "max_tokens": 60, "temperature": 0}' |
	aws sagemaker-runtime invoke-endpoint --endpoint-name "$1" --content-type application/json --body fileb:///dev/stdin "$answer" >&2
cat "$answer"
