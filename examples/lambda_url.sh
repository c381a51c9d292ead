#!/bin/sh
# A stream through a Lambda function URL of AuthType NONE, by curl: lambda_url.sh URL
# With AWS_IAM add: --aws-sigv4 "aws:amz:$AWS_REGION:lambda" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"
set -eu
curl -sSfN "${1%/}/v1/chat/completions" -H 'Content-Type: application/json' \
	-d '{"messages": [{"role": "user", "content": "What is Millrace?"}], "max_tokens": 60, "temperature": 0, "stream": true}'
