#!/bin/bash
# Runs the real clients against the real binary: run.sh [client ...], all by default.
# Each Python client has a virtual environment of its own in build/clients, for
# their dependencies exclude one another; it is made when its file changes.
set -euo pipefail
cd "$(dirname "$0")"
export MILLRACE=${MILLRACE:-$(cd ../../.. && pwd)/build/millrace}
venvs=$(cd ../../.. && pwd)/build/clients
export PYTHONDONTWRITEBYTECODE=1

# environment NAME: makes build/clients/NAME as requirements/NAME.txt says.
environment() {
	local dir=$venvs/$1
	cmp -s "requirements/$1.txt" "$dir/installed.txt" && return
	rm -rf "$dir"
	python3 -m venv "$dir"
	"$dir/bin/pip" install --quiet --disable-pip-version-check -r "requirements/$1.txt"
	cp "requirements/$1.txt" "$dir/installed.txt"
}

python_client() {
	environment "$1"
	echo "$1:"
	"$venvs/$1/bin/python" -m pytest -q --tb=short -p no:cacheprovider -W ignore test_"$1"*.py
}

node_clients() {
	mkdir -p "$venvs/node"
	cp node/*.json node/*.mjs "$venvs/node/"
	(cd "$venvs/node" && npm ci --silent --no-audit --no-fund && echo 'node:' && node --test --test-reporter=dot)
}

# The server's own OpenAPI document against what the server does.
schemathesis_client() {
	environment schemathesis
	echo 'schemathesis:'
	"$venvs/schemathesis/bin/python" schemathesis_run.py
}

clients=("$@")
((${#clients[@]})) || clients=(huggingface_hub text_generation openai langchain litellm aws moto node schemathesis)
for client in "${clients[@]}"; do
	case $client in
	node) node_clients ;;
	schemathesis) schemathesis_client ;;
	*) python_client "$client" ;;
	esac
done
