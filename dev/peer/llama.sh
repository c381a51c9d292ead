#!/bin/bash
# Builds llama.cpp from the source package of llama-cpp-python, which vendors it, for
# this machine's processor: the programs lie in build/peer/llama/bin.
# Needs python3 with venv, cmake and g++.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=build/peer
version=0.3.36
programs=(llama-batched-bench llama-quantize llama-perplexity llama-tokenize llama-imatrix llama-server)
mkdir -p "$dir"

for tool in python3 cmake g++; do
	command -v "$tool" >/dev/null || { echo "the comparison needs $tool: apt-get install ${tool/python3/python3-venv}" >&2; exit 1; }
done
if [[ ! -x $dir/venv/bin/pip ]]; then
	python3 -m venv "$dir/venv"
fi
"$dir/venv/bin/pip" install --quiet numpy==2.4.6 gguf==0.19.0

for program in "${programs[@]}"; do
	[[ -x $dir/llama/bin/$program ]] || missing=1
done
if [[ ${missing:-} ]]; then
	if [[ ! -d $dir/source/vendor ]]; then
		"$dir/venv/bin/pip" download --quiet --no-deps --no-binary llama-cpp-python -d "$dir" llama-cpp-python==$version
		mkdir -p "$dir/source"
		tar -xzf "$dir/llama_cpp_python-$version.tar.gz" -C "$dir/source" --strip-components=1
	fi
	if [[ ! -f $dir/llama/CMakeCache.txt ]]; then
		cmake -S "$dir/source/vendor/llama.cpp" -B "$dir/llama" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
			-DGGML_NATIVE=ON -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF >"$dir/cmake.log"
	fi
	echo "building llama.cpp: some minutes; the log is $dir/build.log" >&2
	nice cmake --build "$dir/llama" --parallel "$(nproc)" --target "${programs[@]}" >"$dir/build.log"
fi
