#!/usr/bin/env python3
"""Counts what the kernels' machine code costs, and fails where that is not what kernels/costs.txt says.

    alexnet-split kernels --out DIR                  # compiles them for the four targets, which needs no GPU
    scripts/check_sass.py DIR NVDISASM               # compares; NVDISASM is the disassembler of CUDA 13
    scripts/check_sass.py DIR NVDISASM --write       # writes the counts to kernels/costs.txt

Of each kernel the largest count of all targets stands in kernels/costs.txt:

- registers: of a thread;
- instructions, products: in its hottest loop: of the innermost ones with products that with the most of them. Products
  are tensor-core instructions (HMMA) or, where there are none, multiply-adds (FFMA). What the loop may jump over is
  counted, too, and no other loop may be within. Only matrix products have such a loop;
- loads: in that loop, by the number of bits that a thread reads: LDG global memory, LDGSTS the same into shared memory,
  LDS shared memory, LDSM the same as tensor-core fragments, LDL local memory, which no loop should have.

A spilled register is a failure. More registers, more instructions a product, or more or narrower loads are a regression,
fewer are a gain; either way the file must say so: --write, and look at the difference. A line's `bar` is a limit of
instructions a product, which --write leaves as it is. Other keys of a line are other tools' counts.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "kernels" / "costs.txt"

# Kernels that are matrix products: they must have a loop with products.
PRODUCT = re.compile(r"(conv|dense)_\w*(forward|backward_input|backward_weight)\w*")

COUNTED = ["registers", "instructions", "products", "loads"]

LOAD = re.compile(r"(LDGSTS|LDG|LDSM|LDS|LDL)\b(.*)")


def disassemble(nvdisasm, path):
    return subprocess.run([nvdisasm, "-c", path], stdout=subprocess.PIPE, text=True, check=True).stdout


def functions(text):
    """Each function of a cubin: its name, its instructions without their predicates, and where its labels stand."""
    for part in re.split(r"^\.text\.", text, flags=re.MULTILINE)[1:]:
        code, labels = [], {}
        for line in part.splitlines():
            if label := re.match(r"(\.L_\w+):", line):
                labels[label.group(1)] = len(code)
            elif instruction := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([^;]+?)\s*;", line):
                code.append(instruction.group(1))
        yield part.split(":")[0], code, labels


def loops(code, labels):
    """Where the parts of a function begin and end that a backward branch repeats."""
    for index, instruction in enumerate(code):
        target = re.match(r"BRA\b.*`\((\.L_\w+)\)", instruction)
        start = labels.get(target.group(1)) if target else None
        if start is not None and start <= index:
            yield start, index


def name(instruction):
    return instruction.split(None, 1)[0]


def width(instruction):
    """LDG.128 for LDG.E.128.CONSTANT: what a load reads and how many bits of it a thread gets."""
    match = LOAD.match(name(instruction))
    if not match:
        return None
    kind, rest = match.groups()
    if kind == "LDSM":  # of 8 x 8 fragments of 16 bits, a word a thread each
        return f"LDSM.{32 * int(rest[-1])}" if rest[-1] in "24" else "LDSM.32"
    bits = re.search(r"\.(?:[US])?(8|16|64|128)\b", rest)
    return f"{kind}.{bits.group(1) if bits else 32}"


def count(loop):
    """What a loop costs; `products` is 0 where it has none."""
    names = Counter(name(instruction).split(".")[0] for instruction in loop)
    loads = Counter(filter(None, map(width, loop)))
    # A NOP waits for a tensor core, which on sm_120 takes longer than four instructions.
    return {"instructions": len(loop) - names["NOP"], "products": names["HMMA"] or names["FFMA"], "loads": loads}


def hottest(code, labels):
    """The counts of the hottest loop, and whether it has a loop within; None where no loop has products."""
    all_loops = list(loops(code, labels))
    within = {loop: [other for other in all_loops if other != loop and loop[0] <= other[0] and other[1] <= loop[1]]
              for loop in all_loops}
    counts = {(start, end): count(code[start : end + 1]) for start, end in all_loops}
    innermost = [loop for loop in all_loops
                 if counts[loop]["products"] and not any(counts[other]["products"] for other in within[loop])]
    best = max(innermost, key=lambda loop: counts[loop]["products"], default=None)
    return best and (counts[best], bool(within[best]))


def per_product(counts):
    return counts["instructions"] / counts["products"]


def measure(folder, nvdisasm):
    """The largest counts of all targets by precision and kernel, and what is wrong whatever the table says."""
    listed = json.loads((folder / "kernels.json").read_text())
    files = sorted({kernel["file"] for kernel in listed if PRODUCT.fullmatch(kernel["kernel"])})
    with ThreadPoolExecutor(cpu_count()) as pool:
        texts = pool.map(lambda file: disassemble(nvdisasm, folder / file), files)
    loop_of = {(file, function): hottest(code, labels)
               for file, text in zip(files, texts) for function, code, labels in functions(text)}
    largest, wrong = {}, []
    for kernel in listed:
        key = f"{kernel['precision']} {kernel['kernel']}"
        counts = largest.setdefault(key, {"registers": 0})
        counts["registers"] = max(counts["registers"], kernel["registers"])
        if kernel["spill_bytes"]:
            wrong.append(f"{key}: {kernel['spill_bytes']} bytes of registers are spilled on {kernel['target']}")
        if not PRODUCT.fullmatch(kernel["kernel"]):
            continue
        loop, nested = loop_of[kernel["file"], kernel["kernel"]] or (None, False)
        if nested:
            wrong.append(f"{key}: on {kernel['target']} its hottest loop has one within, which is not unrolled")
        if not loop:
            wrong.append(f"{key}: no loop with products was found on {kernel['target']}")
        elif "loads" not in counts or per_product(loop) > per_product(counts):
            loop["loads"] |= counts.get("loads", Counter())
            counts.update(loop)
        else:
            counts["loads"] |= loop["loads"]
    return largest, wrong


def show(counts):
    """The words of a line of the table."""
    words = []
    for key, value in counts.items():
        if key == "loads":
            value = ",".join(f"{load}:{number}" for load, number in sorted(value.items()))
        words.append(f"{key}={value}")
    return words


def read(text):
    """The table: counts by precision and kernel."""
    table = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            precision, kernel, *words = line.split()
            counts = table[f"{precision} {kernel}"] = dict(word.split("=") for word in words)
            for key in COUNTED + ["bar"]:
                if key == "loads" and key in counts:
                    loads = (load.split(":") for load in counts[key].split(","))
                    counts[key] = Counter({load: int(number) for load, number in loads})
                elif key in counts:
                    counts[key] = int(counts[key])
    return table


def compare(key, found, expected):
    """What differs between the counts of a kernel and its line of the table."""
    if expected is None:
        return [f"{key}: has no line"]
    problems = []
    for counted in COUNTED:
        if found.get(counted) != expected.get(counted):
            here, there = (" ".join(show({counted: counts[counted]})) if counted in counts else f"no {counted}"
                           for counts in (found, expected))
            problems.append(f"{key}: {here}; the table has {there}")
    if "bar" in expected and per_product(found) > expected["bar"]:
        problems.append(f"{key}: {per_product(found):.1f} instructions a product, {expected['bar']} are the bar")
    return problems


def write(largest):
    """Writes the counts; lines' other keys and the comment at the top stay."""
    text = TABLE.read_text()
    table = read(text)
    lines = [line for line in text.splitlines() if line.startswith("#")]
    for key in sorted(largest):
        others = {other: value for other, value in table.get(key, {}).items() if other not in COUNTED}
        precision, kernel = key.split()
        lines.append(" ".join([f"{precision:<4} {kernel:<22}", *show({**largest[key], **others})]))
    TABLE.write_text("\n".join(lines) + "\n")


def main():
    folder, nvdisasm, *rest = sys.argv[1:]
    largest, wrong = measure(Path(folder), nvdisasm)
    if rest == ["--write"]:
        write(largest)
    table = read(TABLE.read_text())
    for key in sorted(largest):
        wrong += compare(key, largest[key], table.get(key))
        counts = largest[key]
        if "products" in counts:
            loads = ", ".join(f"{number} {load}" for load, number in sorted(counts["loads"].items()))
            print(f"{key:<27} {counts['registers']:>3} registers, {counts['instructions']:>4} instructions for "
                  f"{counts['products']:>4} products: {per_product(counts):.2f} each; {loads}")
    wrong += [f"{key}: there is no such kernel" for key in table if key not in largest]
    if wrong:
        sys.exit("\n".join(["Not as kernels/costs.txt has it (where it is a gain: --write):", *wrong]))


if __name__ == "__main__":
    main()
