#!/usr/bin/env bash
# Proves and measures training on one NVIDIA GPU; see usage() below.
set -u

usage() {
    cat <<'END'
Proves and measures training on one NVIDIA GPU, and writes a report.

    scripts/gpu-check.sh [--quick] [--tiny] [--only LIST] [--report FILE]

      --quick         without compute-sanitizer, with fewer steps of training and bench
      --tiny          a tiny network and few steps everywhere: tries this script itself, measures nothing
      --only LIST     only these steps, such as 3,5 or 7.1; for a machine that is lent for minutes
      --report FILE   the report, in Markdown [default: gpu-report.md]; all output goes to FILE with .log in place of .md

Run it from a folder that scripts/gpu-pack.sh made, or from the repository after
    cargo build --release && cargo test --release --no-run --test operations
It needs Python 3 and an NVIDIA driver; NVRTC and NCCL are taken from a CUDA toolkit or from Python's packages, unless
ALEXNET_SPLIT_LIBRARIES names their folders. What is missing leaves out the steps that need it. It changes no setting of
the GPU. PYTHON names the Python to use [default: python3]; TMPDIR, where 2 GB can be written [default: /tmp].

Exit codes: 0 no step failed, 1 a step failed, 2 nothing can be checked (no GPU, no program, wrong flags).
END
}

die() {
    echo "gpu-check: $*" >&2
    exit 2
}

# ---- What is asked for ----

quick=no tiny=no only="" report=gpu-report.md
while (($#)); do
    case $1 in
        --quick) quick=yes ;;
        --tiny) tiny=yes ;;
        --only | --report)
            (($# > 1)) || die "$1 needs a value; see --help"
            if [[ $1 == --only ]]; then only=$2; else report=$2; fi
            shift
            ;;
        -h | --help) usage && exit 0 ;;
        *) die "unknown flag $1; see --help" ;;
    esac
    shift
done
log_of_all=${report%.md}.log

# ---- What is there ----

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 2
root=$(dirname "$scripts")
python=${PYTHON:-python3}
command -v "$python" >/dev/null || die "no $python; name a Python 3 in the variable PYTHON"

# The newest of some files that can be run.
newest() {
    local file found=""
    for file in "$@"; do
        if [[ -f $file && -x $file && (-z $found || $file -nt $found) ]]; then found=$file; fi
    done
    echo "$found"
}

build=${CARGO_TARGET_DIR:-$root/target}/release
if [[ -d $root/bin ]]; then
    program=$(newest "$root/bin/alexnet-split") operations=$(newest "$root/bin/operations")
else
    program=$(newest "$build/alexnet-split") operations=$(newest "$build"/deps/operations-*)
fi
[[ -n $program ]] || die "no program: build it (cargo build --release), or unpack what scripts/gpu-pack.sh makes"
said=$("$program" --version 2>&1) || die "$program does not run here: $said"

if [[ -f $root/VERSION ]]; then
    version=$(head -n 1 "$root/VERSION")
else
    version="$said, $(git -C "$root" describe --always --dirty 2>/dev/null || echo "no commit")"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/gpu-check.XXXXXX") || die "cannot write to ${TMPDIR:-/tmp}"
running=()
trap 'rm -rf "$work"' EXIT
trap '((${#running[@]})) && kill "${running[@]}" 2>/dev/null; exit 130' INT TERM

# This is the only process of its run, whatever launcher started the script.
unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT TORCHELASTIC_USE_AGENT_STORE
unset SLURM_STEP_NUM_TASKS SLURM_PROCID SLURM_LOCALID SLURM_STEP_NODELIST
# Kernels are compiled anew, and nothing is left in the user's home.
export ALEXNET_SPLIT_CACHE=${ALEXNET_SPLIT_CACHE:-$work/kernels}

helper() { "$python" "$scripts/gpu_report.py" "$@"; }

found_libraries=""
if [[ -z ${ALEXNET_SPLIT_LIBRARIES:-} ]]; then
    found_libraries=$(helper libraries) || die "$python cannot run $scripts/gpu_report.py"
    folders=$(cut -f 3 <<<"$found_libraries" | while read -r path; do dirname "$path"; done | uniq | paste -sd :)
    [[ -z $folders ]] || export ALEXNET_SPLIT_LIBRARIES=$folders
fi

# Step 2 runs it again and shows what it says.
doctor=$(timeout --foreground -k 10 300 "$program" doctor --gpus 1 2>&1)
case $? in
    10 | 11) die "no GPU here: $(sed -n 's/^error: //p' <<<"$doctor" | head -n 1)" ;;
esac
# What the doctor says of a thing that is there.
finding() { sed -n "s/^$1  *ok  *//p" <<<"$doctor" | head -n 1; }

sanitizer=$(command -v compute-sanitizer || newest /usr/local/cuda*/bin/compute-sanitizer)
no_torch=""
torch=$(timeout --foreground -k 10 180 "$python" "$scripts/gpu_report.py" torch 2>&1) || {
    no_torch=$(tail -n 1 <<<"$torch")
    no_torch=${no_torch:-PyTorch does not answer}
}

# The tiny network has every layer of the paper's table; the tests of the program use the same.
tiny_net=(
    --set "net.image_size=67" --set "input.resize=67" --set "net.conv_channels=[8,12,16,16,12]"
    --set "net.dense_units=[24,20]" --batch-size 16
)
small_data=$work/data
"$python" "$scripts/make_data.py" "$root/data/fashion-mnist" "$small_data" --train 160 --test 20 >/dev/null ||
    die "cannot cut a small data set out of $root/data/fashion-mnist"
if [[ $tiny == yes ]]; then
    net=("${tiny_net[@]}") data=$small_data
    train_steps=3 compare_steps=3 nccl_steps=2 bench_steps=1
else
    net=() data=$root/data/fashion-mnist
    train_steps=200 compare_steps=20 nccl_steps=10 bench_steps=50
    if [[ $quick == yes ]]; then train_steps=20 bench_steps=10; fi
fi

# ---- Steps: how they are run and reported ----

for file in "$report" "$log_of_all"; do
    { true >"$file"; } 2>/dev/null || die "cannot write $file"
done
titles=() results=() times=() logs=()
started=$(date -u '+%Y-%m-%d %H:%M UTC')

# step NUMBER TITLE LIMIT FUNCTION [ARGUMENT...]
#
# Runs the function with its output in $log. It may set `note`, a few words for the table; it calls `skip` where it
# cannot run here; its status says whether all is well. What takes time it must run by `within`.
step() {
    local number=$1 title=$2 limit=$3 begin=$SECONDS status result
    shift 3
    if [[ -n $only && ,$only, != *,"$number",* && ,$only, != *,"${number%%.*}",* ]]; then return; fi
    log=$work/step-$number.log note="" reason="" deadline=$((SECONDS + limit))
    printf '%-4s %-46s ' "$number" "$title"
    "$@" >"$log" 2>&1 </dev/null
    status=$?
    if [[ -n $reason ]]; then
        result="skipped: $reason"
    elif ((status == 0)); then
        result="ok${note:+: $note}"
    elif ((status == 124 || SECONDS >= deadline)); then
        result="FAILED: not done within $limit s"
    else
        # The program says in one line what was wrong.
        note=${note:-$(grep '^error: ' "$log" | tail -n 1 | cut -c 1-160)}
        result="FAILED: exit code $status${note:+, $note}"
    fi
    titles+=("$number $title") results+=("$result") times+=($((SECONDS - begin))) logs+=("$log")
    echo "$result ($((SECONDS - begin)) s)"
    {
        echo "==== $number $title: $result"
        cat "$log"
        echo
    } >>"$log_of_all"
    # After every step, so that a machine that is taken away leaves a report of what was done.
    write_report >"$report"
}

skip() {
    reason=$*
    echo "skipped: $reason"
}

# Shows a command and runs it until the step's time is over; then it and all it started is killed.
within() {
    local left=$((deadline - SECONDS)) status shown
    shown=${*//"$work"/WORK}
    shown=${shown//"$program"/alexnet-split}
    echo "\$ ${shown//"$root"/.}"
    ((left > 0)) || return 124
    timeout -k 10 "$left" "$@" &
    running=($!)
    wait "${running[0]}"
    status=$?
    running=()
    ((status == 0)) || echo "exit code $status"
    return "$status"
}

# Runs the helper, whose last line says all in one line.
judge() {
    local text status
    text=$(helper "$@" 2>&1)
    status=$?
    note=$(tail -n 1 <<<"$text")
    echo "$text"
    return "$status"
}

count() { printf '%s\n' "${results[@]}" | grep -c "^$1"; }

write_report() {
    local i
    echo "# GPU check of alexnet-split"
    echo
    echo "- date: $started"
    echo "- GPU: $(finding 'GPU 0')"
    echo "- driver: ${driver:+$driver, }$(finding driver)"
    echo "- NVRTC $(finding NVRTC), NCCL $(finding NCCL)"
    echo "- CPU: $cpu, $(nproc) cores"
    echo "- PyTorch: ${no_torch:-$torch}"
    echo "- program: $version"
    echo "- result: $(count ok) ok, $(count FAILED) failed, $(count skipped) skipped in $SECONDS s$remark"
    echo
    echo "| step | result | seconds |"
    echo "|---|---|---|"
    for i in "${!titles[@]}"; do
        # A bar would end the cell.
        echo "| ${titles[i]} | ${results[i]//|/\\|} | ${times[i]} |"
    done
    for i in "${!titles[@]}"; do
        # The table says all of what was left out.
        if [[ ${results[i]} == skipped:* ]]; then continue; fi
        printf '\n## %s\n\n````text\n' "${titles[i]}"
        shorten "${logs[i]}"
        printf '````\n'
    done
}

# A log for the report: neither too long nor too wide.
shorten() {
    local lines
    lines=$(wc -l <"$1")
    if ((lines <= 120)); then
        cut -c 1-240 "$1"
    else
        head -n 60 "$1" | cut -c 1-240
        echo "[... $((lines - 120)) lines left out here, all are in ${log_of_all##*/} ...]"
        tail -n 60 "$1" | cut -c 1-240
    fi
}

driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader -i 0 2>/dev/null | head -n 1)
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
remark=""
[[ $quick == no ]] || remark+="; --quick"
[[ $tiny == no ]] || remark+="; --tiny: nothing here is a measurement"
[[ -z $only ]] || remark+="; --only $only"

# ---- The steps ----

gpu() {
    command -v nvidia-smi >/dev/null || { skip "no nvidia-smi" && return; }
    local fields=name,driver_version,compute_cap,memory.total,memory.used,utilization.gpu,clocks.sm,clocks.max.sm
    fields+=,clocks.max.mem,power.limit,temperature.gpu,persistence_mode,ecc.mode.current,mig.mode.current
    within nvidia-smi && within nvidia-smi "--query-gpu=$fields" --format=csv
}

machine() {
    echo "system    $(uname -srm), $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
    echo "libc      $(ldd --version 2>&1 | head -n 1)"
    echo "CPU       $cpu, $(nproc) cores"
    echo "memory    $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
    echo "disk      $(df -h --output=avail "$work" | tail -n 1 | tr -d ' ') free at $work"
    echo "Python    $("$python" --version 2>&1), $(command -v "$python")"
    echo "PyTorch   ${no_torch:-$torch}"
    echo "libraries ALEXNET_SPLIT_LIBRARIES=${ALEXNET_SPLIT_LIBRARIES:-}"
    printf '%s' "$found_libraries" | sed 's/^/          found /'
    [[ -z $found_libraries ]] || echo
    echo "sanitizer ${sanitizer:-none}"
    echo "nvcc      $(nvcc --version 2>/dev/null | sed -n 's/.*release //p')"
    echo "program   $program"
    if [[ -f $root/VERSION ]]; then sed 's/^/          /' "$root/VERSION"; else echo "          $version"; fi
}

check_doctor() {
    within "$program" doctor --gpus 1
}

kernel_tests() {
    [[ -n $operations ]] || { skip "no test program: cargo test --release --no-run --test operations" && return; }
    # Without the variable the tests would pass on the software device.
    grep -q ALEXNET_SPLIT_TEST_GPU "$operations" || {
        note="this test program does not know ALEXNET_SPLIT_TEST_GPU; build it anew"
        echo "$note"
        return 1
    }
    # One after another, so that what a failing one prints stays together.
    within env ALEXNET_SPLIT_TEST_GPU=1 "$operations" cuda tensor_cores --test-threads=1 --nocapture
    local status=$?
    local passed failed
    passed=$(sed -n 's/^test result:.* \([0-9]*\) passed.*/\1/p' "$log")
    failed=$(sed -n 's/^test result:.* \([0-9]*\) failed.*/\1/p' "$log")
    note="${passed:-0} tests passed, ${failed:-?} failed"
    ((status == 0)) || return "$status"
    # A test that finds no device says so and passes.
    if grep -q 'skipped:' "$log"; then note="tests found no device" && return 1; fi
    ((${passed:-0} > 0))
}

check_grads() {
    within "$program" check-grads --gpus 1 "${net[@]}" || return
    note=$(tail -n 1 "$log")
}

# train NAME FLAG...: a run of the network in $work/NAME.
train() {
    local name=$1
    shift
    rm -rf "${work:?}/$name"
    within "$program" train --data "$data" --out "$work/$name" "${net[@]}" "$@"
}

training() {
    local precision=$1 learn=() status
    if ((train_steps >= 100)); then learn=(--must-learn); fi
    train "$precision" --gpus 1 --precision "$precision" --steps "$train_steps" &&
        judge run "$work/$precision" "${learn[@]}"
    status=$?
    # Half a gigabyte. Only the fp32 run is needed again, and only if it is a good one.
    if ((status != 0)) || [[ $precision != fp32 ]]; then rm -rf "${work:?}/$precision"; fi
    return "$status"
}

same_bytes() {
    judge same "$work/$1" "$work/$2" || return
    within diff -r "$work/$1/checkpoints" "$work/$2/checkpoints" || { note="the checkpoints differ" && return 1; }
    ls -l "$work/$1"/checkpoints/*
    note="metrics and checkpoints to the last bit"
}

training_again() {
    [[ -d $work/fp32 ]] || { skip "there is no first fp32 run" && return; }
    train again --gpus 1 --precision fp32 --steps "$train_steps" && same_bytes fp32 again
    local status=$?
    rm -rf "${work:?}/again" "${work:?}/fp32"
    return "$status"
}

# Both compute in fp32 but add up in another order, so the losses differ in the last digits; every step starts from the
# other's differences and adds its own, so these grow with the steps. The first steps tell: a wrong kernel is far beyond
# the limit there.
cpu_against_gpu() {
    train on-cpu --gpus 0 --steps "$compare_steps" &&
        train on-gpu --gpus 1 --precision fp32 --steps "$compare_steps" &&
        judge compare "$work/on-cpu" "$work/on-gpu" --first 5 --limit 1e-3
    local status=$?
    rm -rf "${work:?}/on-cpu" "${work:?}/on-gpu"
    return "$status"
}

sanitize() {
    local tool=$1 precision=$2 summary status
    [[ $quick == no ]] || { skip "left out by --quick" && return; }
    [[ -n $sanitizer ]] || { skip "no compute-sanitizer" && return; }
    rm -rf "$work/sanitized"
    # The tools slow kernels down a hundredfold: the exchange must have more patience than usual.
    within "$sanitizer" --tool "$tool" --error-exitcode 86 --print-limit 20 \
        "$program" train --data "$small_data" --out "$work/sanitized" "${tiny_net[@]}" \
        --gpus 1 --precision "$precision" --steps 2 --exchange-timeout 600 --json
    status=$?
    if grep -q 'Device not supported' "$log"; then skip "compute-sanitizer does not support this device" && return; fi
    note=$(sed -n 's/^=* *\(.* SUMMARY: .*\)/\1/p' "$log" | tail -n 1)
    ((status == 0)) || return "$status"
    # The exit code alone proves neither that the tool saw kernels nor that there was no warning.
    summary="ERROR SUMMARY: 0 errors"
    [[ $tool != racecheck ]] || summary="RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
    grep -qF "$summary" "$log" && grep -q '"kind":"eval"' "$log"
}

# Two processes on one GPU, joined by NCCL, against one process that copies within the GPU.
two_ranks() {
    local data=$1 net=("${@:2}") nccl major minor port rank left status=0 code
    nccl=$(finding NCCL)
    IFS=. read -r major minor _ <<<"${nccl:-0.0}"
    if ((major < 2 || (major == 2 && minor < 30))); then
        skip "several ranks on one GPU need NCCL 2.30 or newer, this is ${nccl:-none}" && return
    fi
    train one --gpus 1 --precision fp32 --steps "$nccl_steps" || return
    port=$(helper port) || return
    left=$((deadline - SECONDS))
    ((left > 0)) || return 124
    echo "\$ two processes, MASTER_PORT=$port NCCL_MULTI_RANK_GPU_ENABLE=1 NCCL_MAX_CTAS=8"
    rm -rf "$work/two"
    running=()
    for rank in 0 1; do
        RANK=$rank LOCAL_RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
            NCCL_MULTI_RANK_GPU_ENABLE=1 NCCL_MAX_CTAS=8 NCCL_DEBUG=${NCCL_DEBUG:-WARN} \
            timeout -k 10 "$left" "$program" train --data "$data" --out "$work/two" "${net[@]}" \
            --precision fp32 --steps "$nccl_steps" >"$work/rank-$rank.log" 2>&1 &
        running+=($!)
    done
    for rank in 0 1; do
        wait "${running[rank]}"
        code=$?
        ((code == 0)) || status=$code
        echo "-- rank $rank: exit code $code"
        cat "$work/rank-$rank.log"
    done
    running=()
    ((status == 0)) || return "$status"
    same_bytes one two
}

nccl() {
    two_ranks "$@"
    local status=$?
    rm -rf "${work:?}/one" "${work:?}/two"
    return "$status"
}

nccl_real() {
    [[ $tiny == no ]] || { skip "left out by --tiny" && return; }
    nccl "$data"
}

# Whether all variants of the peer compute the network that plain PyTorch computes.
check_peer() {
    [[ -z $no_torch ]] || { skip "$no_torch" && return; }
    within "$python" "$scripts/bench_pytorch.py" --check --device cuda --precision "$1"
}

bench() {
    local precision=$1 speed ratio status alone=""
    local flags=(bench --gpus 1 --precision "$precision" --steps "$bench_steps" "${net[@]}")
    if [[ -n $no_torch ]]; then
        within "$program" "${flags[@]}"
    else
        # Where PyTorch does not run, at least this program is measured.
        within "$program" "${flags[@]}" --pytorch "$(command -v "$python")"
    fi
    status=$?
    if ((status != 0)) && [[ -z $no_torch ]]; then
        alone="failed beside PyTorch, alone "
        within "$program" "${flags[@]}"
    fi
    speed=$(sed -n 's/^training  *\([0-9.]* images\/s\).*/\1/p' "$log" | tail -n 1)
    ratio=$(sed -n 's/^ratio  *//p' "$log" | tail -n 1)
    note="${speed:+$alone$speed}${ratio:+, $ratio times PyTorch}"
    ((status == 0)) || return "$status"
    [[ -n $speed ]]
}

step 1.1 "GPU" 60 gpu
step 1.2 "machine" 60 machine
step 2 "doctor" 300 check_doctor
step 3 "kernel tests" 300 kernel_tests
step 4 "gradients against finite differences" 300 check_grads
step 5.1 "training, fp32" 300 training fp32
step 5.2 "training, tf32" 300 training tf32
step 5.3 "training, bf16" 300 training bf16
step 5.4 "training, fp32 again: the same bytes" 300 training_again
step 6 "losses on CPU and GPU" 600 cpu_against_gpu
number=0
for tool in memcheck racecheck synccheck initcheck; do
    for precision in fp32 bf16; do
        number=$((number + 1))
        step 7.$number "$tool, $precision" 300 sanitize $tool $precision
    done
done
step 8.1 "two ranks by NCCL on one GPU, tiny net" 180 nccl "$small_data" "${tiny_net[@]}"
step 8.2 "two ranks by NCCL on one GPU, whole net" 300 nccl_real
step 9.1 "bench, fp32" 600 bench fp32
step 9.2 "bench, tf32" 600 bench tf32
step 9.3 "bench, bf16" 600 bench bf16
step 9.4 "the PyTorch peer's variants, fp32" 600 check_peer fp32
step 9.5 "the PyTorch peer's variants, bf16" 600 check_peer bf16

((${#titles[@]})) || die "--only $only: there is no such step"
echo
echo "$(count ok) ok, $(count FAILED) failed, $(count skipped) skipped in $SECONDS s; report in $report"
(($(count FAILED) == 0))
