#!/usr/bin/env bash
# Compares what the program takes NVRTC and NCCL to be with NVIDIA's headers and libraries, of CUDA 12 the oldest that it
# works with and of CUDA 13 new ones: see tests/abi.rs. They come from PyPI into target/nvrtc (1 GB).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/wheels.sh

waiting=()
for package in nvidia-nccl-cu12==2.18.1 nvidia-nccl-cu13==2.32.3 nvidia-cuda-nvrtc-cu12==12.0.76; do
    wheel "$package" &
    waiting+=($!)
done
for process in "${waiting[@]}"; do
    wait "$process"
done
ALEXNET_SPLIT_ABI=$PWD/$venv cargo test --locked --quiet --test abi -- --nocapture
