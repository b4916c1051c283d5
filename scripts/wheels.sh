# To be sourced in the repository's root. NVIDIA's compilers and libraries come from PyPI into target/nvrtc, a virtual
# environment with NVRTC; $nvrtc is the folder of its library.
venv=target/nvrtc
if [ ! -e "$venv/ready" ]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir nvidia-cuda-nvrtc==13.0.88
    touch "$venv/ready"
fi
nvrtc=$PWD/$(dirname "$(find "$venv" -name 'libnvrtc.so.13' -print -quit)")

# Unpacks a package such as nvidia-nccl-cu12==2.18.1 into $venv/wheels, in a folder of its own name, once.
wheel() {
    local folder=$venv/wheels/$1
    if [ ! -e "$folder/ready" ]; then
        rm -rf "$folder"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-compile \
            --target "$folder" "$1"
        touch "$folder/ready"
    fi
}
