#!/bin/bash
# Compares the CPU backend with llama.cpp: builds llama.cpp from the source
# package of llama-cpp-python, writes random checkpoints for both, of a dense
# model and of one with a gated delta net, runs both.
# Needs python3 with venv, cmake and the Go tool chain; everything lies in
# build/peer. Arguments go to the peer program (-threads, -rounds).
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=build/peer
mkdir -p "$dir"

for tool in python3 cmake g++; do
	command -v "$tool" >/dev/null || { echo "the comparison needs $tool: apt-get install ${tool/python3/python3-venv}" >&2; exit 1; }
done
if [[ ! -x $dir/venv/bin/pip ]]; then
	python3 -m venv "$dir/venv"
fi
"$dir/venv/bin/pip" install --quiet numpy==2.4.6 gguf==0.19.0

if [[ ! -x $dir/llama/bin/llama-batched-bench ]]; then
	"$dir/venv/bin/pip" download --quiet --no-deps --no-binary llama-cpp-python -d "$dir" llama-cpp-python==0.3.36
	mkdir -p "$dir/source"
	tar -xzf "$dir"/llama_cpp_python-0.3.36.tar.gz -C "$dir/source" --strip-components=1
	cmake -S "$dir/source/vendor/llama.cpp" -B "$dir/llama" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
		-DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF >"$dir/cmake.log"
	cmake --build "$dir/llama" --parallel 2 --target llama-bench llama-batched-bench >"$dir/build.log"
fi
go build -o "$dir/peer" ./dev/peer
pace=-pace
for shape in qwen2-0.5b qwen3.5-0.8b; do
	if [[ ! -f $dir/$shape/model.gguf ]]; then
		"$dir/venv/bin/python" dev/peer/model.py "$dir/$shape" --shape "$shape"
	fi
	echo "$shape:"
	"$dir/peer" -model "$dir/$shape" -llama "$dir/llama/bin" $pace "$@"
	pace=
done
