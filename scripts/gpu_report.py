"""What scripts/gpu-check.sh needs beyond a shell: finding libraries, reading and comparing runs.

    python3 scripts/gpu_report.py libraries             NVRTC and NCCL of this machine: name, version and path a line
    python3 scripts/gpu_report.py torch                 PyTorch and what it sees; exit code 1 where it has no GPU
    python3 scripts/gpu_report.py port                  a free TCP port
    python3 scripts/gpu_report.py run RUN               losses, accuracy and speed of a run
    python3 scripts/gpu_report.py compare CPU GPU       the losses of two runs, step by step
    python3 scripts/gpu_report.py same ONE OTHER        whether two runs have the same metrics to the last digit

The last line of `run`, `compare` and `same` says all in one line. Needs nothing but Python.
"""

import argparse
import ctypes
import glob
import json
import math
import os
import socket
import statistics
import sys


def library_folders():
    """Where CUDA's toolkit and NVIDIA's Python packages keep libraries."""
    toolkits = sorted(glob.glob("/usr/local/cuda*"))
    patterns = [f"{toolkit}/{part}" for toolkit in toolkits for part in ("lib64", "targets/x86_64-linux/lib")]
    patterns += [f"{glob.escape(os.path.abspath(folder))}/nvidia/*/lib" for folder in sys.path]
    return [folder for pattern in patterns for folder in sorted(glob.glob(pattern))]


def call(library, function, count):
    """The numbers that `function` writes to `count` places, or None where it cannot be asked."""
    try:
        numbers = [ctypes.c_int(0) for _ in range(count)]
        failed = getattr(ctypes.CDLL(library), function)(*map(ctypes.byref, numbers))
    except (OSError, AttributeError):
        return None
    return None if failed else tuple(number.value for number in numbers)


def nvrtc_version(path):
    return call(path, "nvrtcVersion", 2)


def nccl_version(path):
    version = call(path, "ncclGetVersion", 1)
    return version and (version[0] // 10_000, version[0] % 10_000 // 100, version[0] % 100)


def print_libraries(_args):
    def found(names, version_of):
        paths = [os.path.join(folder, name) for folder in library_folders() for name in names]
        pairs = [(version_of(path), path) for path in paths if os.path.exists(path)]
        return [(version, path) for version, path in pairs if version]

    # A driver does not run what the compiler of a newer CUDA makes. 13.1 is 13010; of the same number all run.
    driver = call("libcuda.so.1", "cuDriverGetVersion", 1)
    nvrtc = found(["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"], nvrtc_version)
    if driver and driver[0]:
        nvrtc = [pair for pair in nvrtc if pair[0][0] <= driver[0] // 1000] or nvrtc
    nccl = found(["libnccl.so.2", "libnccl.so"], nccl_version)
    for name, pairs in [("NVRTC", nvrtc), ("NCCL", nccl)]:
        if pairs:
            # The newest; of equal ones the first.
            version, path = max(pairs, key=lambda pair: pair[0])
            print(name, ".".join(map(str, version)), path, sep="\t")


def print_torch(_args):
    try:
        import torch
    except Exception as error:  # a broken installation raises anything
        sys.exit(f"no PyTorch ({type(error).__name__}: {error})")
    about = f"PyTorch {torch.__version__}"
    if not torch.cuda.is_available():
        print(about)
        sys.exit(f"{about} sees no GPU")
    print(
        f"{about}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, sees {torch.cuda.get_device_name(0)}"
    )


def print_port(_args):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        print(free.getsockname()[1])


# What no two runs have in common.
TIMES = ("images_per_s", "loader_wait_ms")


def metrics(run, kind=None):
    path = os.path.join(run, "metrics.jsonl")
    try:
        with open(path) as file:
            rows = [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")
    rows = [row for row in rows if kind is None or row["kind"] == kind]
    return rows or sys.exit(f"{path}: holds nothing")


def print_run(args):
    steps, evals = metrics(args.run, "step"), metrics(args.run, "eval")
    losses = [row["loss"] for row in steps]
    # Speed is not yet steady in the first steps.
    steady = steps[len(steps) // 10 + 1 :] or steps
    speed = statistics.median(row["images_per_s"] for row in steady)
    accuracy = 100 * (1 - evals[-1]["top1_error"])
    tenth = max(1, len(losses) // 10)
    begin, end = (statistics.mean(part) for part in (losses[:tenth], losses[-tenth:]))
    print(f"mean loss of the first {tenth} and the last {tenth} steps: {begin:.4f} and {end:.4f}")
    print(f"steps measured for the speed: {len(steady)}, from {min(r['images_per_s'] for r in steady):.0f} images/s")
    if args.must_learn and not end < begin:
        sys.exit("the loss has not fallen")
    print(
        f"{len(steps)} steps, loss {losses[0]:.4f} to {losses[-1]:.4f}, held-out accuracy {accuracy:.1f}%, "
        f"{speed:.0f} images/s"
    )


def print_comparison(args):
    cpu, gpu = metrics(args.cpu, "step"), metrics(args.gpu, "step")
    if [row["step"] for row in cpu] != [row["step"] for row in gpu]:
        sys.exit(f"{len(cpu)} steps on the CPU and {len(gpu)} on the GPU cannot be compared")
    print(f"{'step':>4} {'loss on CPU':>16} {'loss on GPU':>16} {'relative difference':>20}")
    differences = []
    for one, other in zip(cpu, gpu):
        difference = abs(other["loss"] - one["loss"]) / abs(one["loss"])
        if math.isnan(difference):
            difference = math.inf  # is larger than any limit
        differences.append(difference)
        print(f"{one['step']:>4} {one['loss']:>16.10f} {other['loss']:>16.10f} {difference:>20.2e}")
    first = differences[: args.first]
    print(
        f"largest relative difference {max(first):.1e} in the first {len(first)} steps (limit {args.limit:g}), "
        f"{max(differences):.1e} in all {len(differences)}"
    )
    sys.exit(0 if max(first) <= args.limit else 1)


def print_same(args):
    def facts(run):
        rows = [row for row in metrics(run) if row["kind"] != "times"]
        return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]

    one, other = facts(args.one), facts(args.other)
    for mine, theirs in zip(one, other):
        if mine != theirs:
            sys.exit(f"the metrics differ first here:\n{json.dumps(mine)}\n{json.dumps(theirs)}")
    if len(one) != len(other):
        sys.exit(f"{len(one)} lines of metrics against {len(other)}")
    print(f"{len(one)} lines of metrics are the same to the last digit")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name, function, *arguments):
        subparser = commands.add_parser(name)
        for argument in arguments:
            subparser.add_argument(argument)
        subparser.set_defaults(function=function)
        return subparser

    command("libraries", print_libraries)
    command("torch", print_torch)
    command("port", print_port)
    run = command("run", print_run, "run")
    run.add_argument("--must-learn", action="store_true", help="fail where the loss has not fallen")
    compare = command("compare", print_comparison, "cpu", "gpu")
    compare.add_argument("--first", type=int, default=5, metavar="N", help="steps that the limit is for")
    compare.add_argument("--limit", type=float, default=1e-3, metavar="D", help="the largest difference allowed")
    command("same", print_same, "one", "other")
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
