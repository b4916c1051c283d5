#!/usr/bin/env bash
# Compiles every kernel with NVIDIA's compiler for Ampere, Hopper and both Blackwells, which needs no GPU, and fails where
# one does not compile or spills registers to local memory. NVRTC comes from PyPI into target/nvrtc, where tests/ptx
# finds it, too.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/nvrtc
if [ ! -e "$venv/ready" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check nvidia-cuda-nvrtc==13.0.88
    touch "$venv/ready"
fi
libraries=$(dirname "$(find "$venv" -name 'libnvrtc.so.13' -print -quit)")
# ALEXNET_SPLIT names a program that is built already.
program=(cargo run --locked --quiet --)
[ -z "${ALEXNET_SPLIT:-}" ] || program=("$ALEXNET_SPLIT")
ALEXNET_SPLIT_LIBRARIES=$PWD/$libraries "${program[@]}" kernels
