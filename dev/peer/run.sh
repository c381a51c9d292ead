#!/bin/bash
# Compares the CPU backend with llama.cpp: builds llama.cpp (llama.sh), then runs
# both on random checkpoints that model.py writes. Everything lies in build/peer;
# all shapes take 17 GB. Arguments go to the peer program: -short, -only, -out ….
set -euo pipefail
cd "$(dirname "$0")/../.."
isa=
for ((i = 1; i <= $#; i++)); do
	case ${!i} in
	-isa=* | --isa=*) isa=${!i#*=} ;;
	-isa | --isa) next=$((i + 1)); isa=${!next-} ;;
	esac
done
dev/peer/llama.sh "$isa"
go build -o build/peer/peer ./dev/peer
exec build/peer/peer "$@"
