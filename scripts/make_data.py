"""Cuts a small, class-balanced subset out of an IDX data set (MNIST, Fashion-MNIST and their kin).

    python3 scripts/make_data.py SRC DST [--train 10000] [--test 1000]

SRC holds the four standard files, gzip-compressed or not; DST receives the same four, compressed.
Of each class the first N / classes images are taken, in their original order. Running it again
writes the same bytes. Needs nothing but Python.
"""

import argparse
import gzip
import math
import struct
import sys
from pathlib import Path

IMAGES_MAGIC = 0x00000803  # unsigned bytes, three dimensions: images, rows, columns
LABELS_MAGIC = 0x00000801  # unsigned bytes, one dimension


def read_idx(folder, name, magic):
    """The dimensions and the bytes of the IDX file `name` or `name`.gz."""
    path = folder / f"{name}.gz"
    if path.exists():
        data = gzip.decompress(path.read_bytes())
    elif (folder / name).exists():
        path = folder / name
        data = path.read_bytes()
    else:
        sys.exit(f"{folder} has neither {name}.gz nor {name}")
    rank = magic & 0xFF
    header_bytes = 4 + 4 * rank
    if len(data) < header_bytes or struct.unpack_from(">I", data)[0] != magic:
        sys.exit(f"{path} is not an IDX file of the expected kind (magic number {magic:#010x})")
    shape = struct.unpack_from(f">{rank}I", data, 4)
    expected_bytes = math.prod(shape)
    if len(data) - header_bytes != expected_bytes:
        sys.exit(f"{path} holds {len(data) - header_bytes} bytes of data, expected {expected_bytes}")
    return shape, data[header_bytes:]


def write_idx(folder, name, magic, shape, data):
    """Writes `name`.gz without the time and the file name that gzip usually records."""
    header = struct.pack(f">I{len(shape)}I", magic, *shape)
    with open(folder / f"{name}.gz", "wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as file:
            file.write(header + data)


def first_of_each_class(labels, count):
    """The indices of the first `count` / classes images of each class, in ascending order."""
    classes = sorted(set(labels))
    per_class, rest = divmod(count, len(classes))
    if rest or per_class == 0:
        sys.exit(f"{count} images cannot be shared out evenly among {len(classes)} classes")
    taken = dict.fromkeys(classes, 0)
    indices = []
    for index, label in enumerate(labels):
        if taken[label] < per_class:
            taken[label] += 1
            indices.append(index)
    for label, found in taken.items():
        if found < per_class:
            sys.exit(f"class {label} has {found} images, {per_class} were asked for")
    return indices


def cut(src, dst, split, count):
    """Writes the images and the labels of one split; returns their compressed size in bytes."""
    image_name, label_name = f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"
    (images, rows, columns), pixels = read_idx(src, image_name, IMAGES_MAGIC)
    _, labels = read_idx(src, label_name, LABELS_MAGIC)
    if images != len(labels):
        sys.exit(f"{src}: {split} has {images} images and {len(labels)} labels")
    indices = first_of_each_class(labels, count)
    image_bytes = rows * columns
    chosen = b"".join(pixels[i * image_bytes : (i + 1) * image_bytes] for i in indices)
    write_idx(dst, image_name, IMAGES_MAGIC, (count, rows, columns), chosen)
    write_idx(dst, label_name, LABELS_MAGIC, (count,), bytes(labels[i] for i in indices))
    return sum((dst / f"{name}.gz").stat().st_size for name in (image_name, label_name))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("src", metavar="SRC", type=Path)
    parser.add_argument("dst", metavar="DST", type=Path)
    parser.add_argument("--train", metavar="N", type=int, default=10_000)
    parser.add_argument("--test", metavar="N", type=int, default=1_000)
    args = parser.parse_args()
    if args.dst.resolve() == args.src.resolve():
        sys.exit("DST must be another folder than SRC, whose files it would overwrite")
    args.dst.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", args.train), ("t10k", args.test)):
        size_bytes = cut(args.src, args.dst, split, count)
        print(f"{split}: {count} images, {size_bytes:,} bytes")


if __name__ == "__main__":
    main()
