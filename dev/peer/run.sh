#!/bin/bash
# Compares the CPU backend with llama.cpp: builds llama.cpp (llama.sh), then runs
# both on random checkpoints that model.py writes. Everything lies in build/peer;
# all shapes take 20 GB. Arguments go to the peer program: -short, -only, -out ….
set -euo pipefail
cd "$(dirname "$0")/../.."
dev/peer/llama.sh
go build -o build/peer/peer ./dev/peer
exec build/peer/peer "$@"
