#!/usr/bin/env bash
# Compiles the program for 64-bit ARM and, where an emulator is there or can be installed, runs the CPU's operations
# against their definitions on it: the paths that NEON takes. An emulator's time tells nothing, so the machine code of the
# hot loops is read, too.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
rustup target add "$target" 2> /dev/null
tools() { command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64; }
if ! tools > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    (apt-get update && apt-get install -y --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user) \
        > /dev/null 2>&1 || true
fi
if ! tools > /dev/null; then
    echo "compiling the CPU's operations and the pictures only: no aarch64-linux-gnu-gcc, which zstd's C code takes, and"
    echo "qemu-aarch64 (Debian's gcc-aarch64-linux-gnu and qemu-user)"
    exec cargo check --locked --quiet --target "$target" -p alexnet-split-cpu -p alexnet-split-images
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
cargo build --locked --quiet --release -p alexnet-split-cpu --example hot_loops --target "$target"
scripts/check_loops.py "${CARGO_TARGET_DIR:-target}/$target/release/examples/hot_loops"
# What the operations do not need is compiled, too, but not for speed.
plain=(--config 'profile.dev.package."*".opt-level=0')
for crate in "" -charts -gpu -images -net -ptx -scale -sources; do
    plain+=(--config "profile.dev.package.alexnet-split$crate.opt-level=0")
done
cargo test --locked --quiet --target "$target" "${plain[@]}" --test operations -- cpu::
