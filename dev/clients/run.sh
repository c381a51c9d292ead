#!/bin/bash
# Runs the real clients against the real binary: run.sh [client ...], all by default.
# Python clients have virtual environments in build/clients, made when their files
# change: most one each, for their dependencies exclude one another. Those that
# agree share the one called agents.
# cdk, the CDK's constructs in Python, runs only if it is named: its packages are 270 MB
# beside those of node, which has the constructs in TypeScript.
# run.sh --install [client ...] makes the environments and runs nothing.
set -euo pipefail
cd "$(dirname "$0")"
export MILLRACE=${MILLRACE:-$(cd ../.. && pwd)/build/millrace}
venvs=$(cd ../.. && pwd)/build/clients
# What is imported is compiled once, and nothing is left in the source tree. (pip
# would compile all of each package, most of which is never imported.)
export PYTHONPYCACHEPREFIX=$venvs/pycache
export HF_HOME=$venvs/huggingface

missing=()
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v npm >/dev/null || missing+=(npm)
if ((${#missing[@]})); then
	echo "The tests with real clients are skipped: not installed: ${missing[*]}."
	exit
fi

install_only=
if [[ ${1:-} == --install ]]; then
	install_only=1
	shift
fi

pip_install() { # DIR NAME: makes DIR and installs requirements/NAME.txt there
	python3 -m venv "$1"
	"$1/bin/pip" install --quiet --disable-pip-version-check --no-compile -r "requirements/$2.txt"
}

# environment NAME: makes build/clients/NAME as requirements/NAME.txt says. uv takes
# a tenth of pip's time for the dozen, but does not read pip's settings: where it
# does not reach the registry, pip does.
environment() {
	local dir=$venvs/$1 uv=$venvs/uv/bin/uv
	cmp -s "requirements/$1.txt" "$dir/installed.txt" && return
	[[ -x $uv ]] || pip_install "$venvs/uv" uv
	rm -rf "$dir"
	if ! { "$uv" venv --quiet "$dir" &&
		"$uv" pip install --quiet --cache-dir "$venvs/uv/cache" --python "$dir" -r "requirements/$1.txt"; }; then
		rm -rf "$dir"
		pip_install "$dir" "$1"
	fi
	cp "requirements/$1.txt" "$dir/installed.txt"
}

node_environment() {
	mkdir -p "$venvs/node"
	cp node/*.mjs "$venvs/node/"
	cmp -s node/package-lock.json "$venvs/node/node_modules/installed.json" && return
	cp node/*.json "$venvs/node/"
	(cd "$venvs/node" && npm ci --silent --no-audit --no-fund)
	cp node/package-lock.json "$venvs/node/node_modules/installed.json"
}

clients=("$@")
((${#clients[@]})) || clients=(docs huggingface_hub hub text_generation openai langchain litellm agents lm_eval aws moto templates node schemathesis)
for client in "${clients[@]}"; do
	[[ $client != node && $client != cdk ]] || node_environment
	[[ $client == node ]] || environment "$client"
	[[ -z $install_only ]] || continue
	case $client in
	node)
		echo 'node:'
		(cd "$venvs/node" && node --test --test-reporter=dot)
		;;
	hub) # a stand-in for the hub that clients download from
		echo 'hub:'
		(cd ../.. && go build -o build/hub ./dev/hub)
		"$venvs/hub/bin/python" -m pytest -q --tb=short -p no:cacheprovider -W ignore test_hub.py
		;;
	schemathesis) # the server's own OpenAPI document against what the server does
		echo 'schemathesis:'
		"$venvs/schemathesis/bin/python" schemathesis_run.py
		;;
	*)
		echo "$client:"
		"$venvs/$client/bin/python" -m pytest -q --tb=short -p no:cacheprovider -W ignore test_"$client"*.py
		;;
	esac
done
