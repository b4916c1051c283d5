#!/usr/bin/env bash
# Compiles every kernel with NVIDIA's compiler for Ampere, Hopper and both Blackwells, which needs no GPU, and fails where
# one does not compile, spills registers to local memory, or costs something else than kernels/costs.txt says: see
# check_sass.py. NVRTC, which tests/ptx uses, too, and the disassembler come from PyPI into target/nvrtc. With --write it writes kernels/costs.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/wheels.sh
wheel nvidia-cuda-nvdisasm==13.5.37

# ALEXNET_SPLIT names a program that is built already.
program=(cargo run --locked --quiet --)
[ -z "${ALEXNET_SPLIT:-}" ] || program=("$ALEXNET_SPLIT")
code=$(mktemp -d)
trap 'rm -r "$code"' EXIT
ALEXNET_SPLIT_LIBRARIES=$nvrtc "${program[@]}" kernels --out "$code"
nvdisasm=$(find "$venv/wheels/nvidia-cuda-nvdisasm==13.5.37" -name nvdisasm -type f)
chmod +x "$nvdisasm"
scripts/check_sass.py "$code" "$nvdisasm" "$@"
