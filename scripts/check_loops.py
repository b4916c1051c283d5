#!/usr/bin/env python3
"""Reads the machine code of the CPU's hot loops and fails where the compiler has spoiled one.

    cargo build --release -p alexnet-split-cpu --example hot_loops
    scripts/check_loops.py target/release/examples/hot_loops      # or a build of it for 64-bit ARM

Prints a line for each innermost loop that multiplies and adds with the vectors of AVX2, AVX-512 or NEON:

- adds: its multiply-adds of vectors; loads: other instructions that read vectors or single numbers (of ARM all loads);
- stack: its instructions that reach the stack; sums: those of them that move a register which multiply-adds add to;
- calls: functions called; scalar: multiply-adds of single numbers, or of vectors narrower than the set's.

A loop is spoiled by a scalar multiply-add, and by a call, around which all vectors go to memory and back (LRN may
call the power function: it has a way without for the paper's exponent). A loop over the depth of a product (`block`
in panels.rs) is also spoiled where a sum goes through the stack, or where more than half as many instructions as
there are multiply-adds reach it: a few may, which keep a word of the left operand for the next row. Transforms of
tiles have more values than there are registers: their use of the stack is shown only. Each file that makes products
must have such loops, or nothing was checked and that is a failure, too.

Anywhere in the program, a call of a function that stands for one instruction is a failure: it is in a closure that was
compiled without the wide instructions, where all vectors go through memory.
"""

import re
import subprocess
import sys
from collections import Counter

# Files that make products.
PRODUCTS = ["conv/winograd/mod.rs", "conv/winograd/weights.rs", "dense.rs", "gemm.rs"]


class Arm:
    tools = "aarch64-linux-gnu-"
    sets = ["neon"]
    branch = re.compile(r"(b|b\.\w+|cbn?z|tbn?z)$")
    call = re.compile(r"(bl|blr)$")
    stack = re.compile(r"\[(sp|x29)\b")
    vector = re.compile(r"\b[qv](\d+)\b")
    single = re.compile(r"core_arch.*neon")

    @staticmethod
    def kind(name, operands):
        """What an instruction is counted as: one of `sets` where it multiplies and adds vectors."""
        if re.match(r"fn?m(add|sub)$", name):
            return "scalar"
        if name in ("fmla", "fmls"):
            return "neon" if ".4s" in operands.split(",")[0] else "scalar"
        return "loads" if name.startswith("ld") else ""

    @staticmethod
    def target(operands):
        """The operand that a multiply-add adds to."""
        return operands.split(",")[0]


class X86:
    tools = ""
    sets = ["avx2", "avx512"]
    branch = re.compile(r"j\w+$")
    call = re.compile(r"call")
    stack = re.compile(r"\(%rsp\b")
    vector = re.compile(r"%[xyz]mm(\d+)")
    single = re.compile(r"core_arch.*_mm\d*_")

    @staticmethod
    def kind(name, operands):
        if re.match(r"vfn?m(add|sub)\w*s[sd]$", name):
            return "scalar"
        if re.match(r"vfn?m(add|sub)\w*p[sd]$", name) or name == "vdpbf16ps":
            return "avx512" if "%zmm" in operands else "avx2" if "%ymm" in operands else "scalar"
        return "loads" if re.match(r"v(mov|broadcast)", name) and re.search(r"\),%[xyz]mm", operands) else ""

    @staticmethod
    def target(operands):
        return operands.split(",")[-1]


def functions(path, arch):
    """The instructions of each function: address, name and operands."""
    command = [arch.tools + "objdump", "-d", "--no-show-raw-insn", "-j", ".text", path]
    code = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as objdump:
        for line in objdump.stdout:
            address, *text = line.rstrip("\n").split("\t", 1)
            if text and address.endswith(":"):
                name, *operands = text[0].split(None, 1)
                operands = re.split(r"\s(?://|#)\s", operands[0])[0] if operands else ""
                code.append((int(address[:-1], 16), name, operands))
            elif line.endswith(">:\n"):
                yield code
                code = []
    yield code
    if objdump.returncode:
        sys.exit(f"objdump cannot read {path}")


def innermost(code, arch):
    """The parts of a function that a branch backward repeats, without those that have such a part within."""
    places = {address: index for index, (address, _, _) in enumerate(code)}
    ends = {}
    for index, (_, name, operands) in enumerate(code):
        target = arch.branch.match(name) and re.search(r"(?:^|[\s,])([0-9a-f]+) <", operands)
        start = places.get(int(target.group(1), 16)) if target else None
        if start is not None and start <= index:
            ends[start] = index
    for start, end in ends.items():
        if not any(start <= other <= end and last <= end for other, last in ends.items() if other != start):
            yield code[start : end + 1]


def count(loop, arch):
    """What the loop has, and the addresses of its multiply-adds."""
    counts, adds, sums = Counter(), [], set()
    for address, name, operands in loop:
        kind = arch.kind(name, operands)
        counts[kind] += 1
        counts["calls"] += bool(arch.call.match(name))
        if kind == "scalar" or kind in arch.sets:
            adds.append(address)
            sums.update(arch.vector.findall(arch.target(operands)))
    for _, _, operands in loop:
        if arch.stack.search(operands):
            counts["stack"] += 1
            counts["sums"] += not sums.isdisjoint(arch.vector.findall(operands))
    return counts, adds


def places(path, arch, addresses):
    """For each address the functions inlined there, innermost first, of this crate: name, and file and line."""
    command = [arch.tools + "addr2line", "-e", path, "-f", "-i", "-a", "-C"]
    text = "\n".join(map(hex, addresses))
    output = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {}
    for address, part in zip(addresses, re.split(r"^0x[0-9a-f]+\n", output, flags=re.MULTILINE)[1:]):
        lines = part.splitlines()
        frames = zip(lines[::2], (line.split(" (")[0] for line in lines[1::2]))
        found[address] = [(name, at.split("crates/cpu/src/")[1]) for name, at in frames if "crates/cpu/src/" in at]
    return found


def describe(adds, found):
    """Where a loop's multiply-adds come from, and whether it runs over the depth of a product."""
    for address in adds:
        for (name, at), (_, user) in zip(found[address], found[address][1:]):
            if name.split("<")[0].split("::")[-1] == "block" and at.startswith("panels.rs"):
                shared = ("panels.rs", "operands.rs", "simd.rs", "bf16.rs")
                users = [at for _, at in found[address] if not at.startswith(shared)]
                return (users or [user])[0], True
    frames = found[adds[len(adds) // 2]]
    return (frames[0][1] if frames else ""), False


def main():
    path = sys.argv[1]
    with open(path, "rb") as program:
        arch = {b"\xb7\x00": Arm, b"\x3e\x00": X86}[program.read(20)[18:]]
    code = list(functions(path, arch))
    loops = [count(loop, arch) for function in code for loop in innermost(function, arch)]
    loops = [(counts, adds) for counts, adds in loops if adds]
    found = places(path, arch, [address for _, adds in loops for address in adds])
    columns = ["loads", "stack", "sums", "calls", "scalar"]
    print(f"{'where':<30}{'set':<8}{'adds':>5}" + "".join(f"{name:>7}" for name in columns))
    problems, checked = [], set()
    for (where, depth), counts, adds in sorted((describe(adds, found), counts, adds) for counts, adds in loops):
        if not where:
            continue  # another crate's
        level = max(arch.sets, key=lambda name: counts[name])
        spoiled = counts["scalar"] or counts["calls"] and not where.startswith("lrn.rs")
        if depth:
            spoiled = spoiled or counts["sums"] or 2 * counts["stack"] > counts[level]
            checked.add((where.split(":")[0], level))
        note = ("  over depth" if depth else "") + ("  SPOILED" if spoiled else "")
        print(f"{where:<30}{level:<8}{counts[level]:>5}" + "".join(f"{counts[name]:>7}" for name in columns) + note)
        if spoiled:
            problems.append(f"{where}, {level}, at {adds[0]:#x}")
    problems += [f"{file}: no products with {s}" for file in PRODUCTS for s in arch.sets if (file, s) not in checked]
    for address, name, operands in (instruction for function in code for instruction in function):
        if arch.call.match(name) and arch.single.search(operands):
            problems.append(f"a call of one instruction at {address:#x}: {operands}")
    if problems:
        sys.exit("hot loops are spoiled, or not there:\n  " + "\n  ".join(problems))


if __name__ == "__main__":
    main()
