// Package realweights tests with the weights of two small models that PyPI has,
// SmolLM2-135M-Instruct and Gemma-3-270M: the CPU backend must give llama.cpp's
// greedy text wherever llama.cpp prefers one token clearly, from the GGUF files that
// PyPI has, and from the same as float32. prepare.py writes these; goldens.py writes
// what llama.cpp does with the latter, tokenizers.py what it makes of texts with small
// vocabularies.
//
// How the goldens of a model are written:
//
//	python3 -m venv build/goldens
//	build/goldens/bin/pip install --no-deps -r dev/realweights/requirements.txt xllamacpp==2026.10.11549
//	build/goldens/bin/python dev/realweights/prepare.py smollm2 build/goldens/smollm2 --gguf build/goldens/smollm2-f32.gguf
//	build/goldens/bin/python dev/realweights/goldens.py smollm2 build/goldens/smollm2-f32.gguf dev/realweights/smollm2.json
package realweights
