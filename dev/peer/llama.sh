#!/bin/bash
# Builds llama.cpp from the source package of llama-cpp-python, which vendors it, for
# this machine's processor: the programs lie in build/peer/llama/bin.
# `llama.sh avx2` also builds llama-batched-bench with AVX2 and nothing newer, in
# build/peer/llama-avx2/bin.
# Needs python3 with venv, cmake and g++.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=build/peer
version=0.3.36
isa=${1:-}
mkdir -p "$dir"

for tool in python3 cmake g++; do
	command -v "$tool" >/dev/null || { echo "the comparison needs $tool: apt-get install ${tool/python3/python3-venv}" >&2; exit 1; }
done
if [[ ! -x $dir/venv/bin/python ]]; then
	python3 -m venv "$dir/venv"
fi
pip=("$dir/venv/bin/python" -m pip)
"${pip[@]}" install --quiet numpy==2.4.6 gguf==0.19.0
"${pip[@]}" install --quiet --no-deps dashscope==2.0.2 # for Qwen's vocabulary

# build FOLDER OPTIONS -- PROGRAMS builds those that are not there.
build() {
	local folder=$1 options=() missing program
	shift
	while [[ $1 != -- ]]; do
		options+=("$1")
		shift
	done
	shift
	for program; do
		[[ -x $folder/bin/$program ]] || missing=1
	done
	[[ ${missing:-} ]] || return 0
	if [[ ! -d $dir/source/vendor ]]; then
		"${pip[@]}" download --quiet --no-deps --no-binary llama-cpp-python -d "$dir" llama-cpp-python==$version
		mkdir -p "$dir/source"
		tar -xzf "$dir/llama_cpp_python-$version.tar.gz" -C "$dir/source" --strip-components=1
	fi
	if [[ ! -f $folder/CMakeCache.txt ]]; then
		cmake -S "$dir/source/vendor/llama.cpp" -B "$folder" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF "${options[@]}" \
			-DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF >"$dir/cmake.log"
	fi
	echo "building llama.cpp: some minutes; the log is $dir/build.log" >&2
	nice cmake --build "$folder" --parallel "$(nproc)" --target "$@" >"$dir/build.log"
}

build "$dir/llama" -DGGML_NATIVE=ON -- llama-batched-bench llama-quantize llama-perplexity llama-tokenize llama-imatrix llama-server
tower=$dir/llama/bin/tower
if [[ ! $tower -nt dev/peer/mtmd/tower.cc ]]; then
	mtmd=$dir/source/vendor/llama.cpp
	cd "$dir/llama"
	nice g++ -O2 -std=c++17 -I"$OLDPWD/$mtmd"/{tools/mtmd,ggml/include,include} "$OLDPWD/dev/peer/mtmd/tower.cc" -o bin/tower tools/mtmd/libmtmd.a \
		src/libllama.a ggml/src/libggml{,-cpu,-base}.a vendor/hash/libvendor-hash.a -lgomp -lpthread -ldl -lm
	cd "$OLDPWD"
fi
case $isa in
"") ;;
avx2) build "$dir/llama-avx2" -DGGML_NATIVE=OFF -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -- llama-batched-bench ;;
*) echo "llama.sh: $isa: expected avx2 or nothing" >&2; exit 2 ;;
esac
