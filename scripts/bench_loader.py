#!/usr/bin/env python3
"""torchvision's fastest way from JPEG files to a network's input, on one core: the peer of `cargo bench --bench loader`.

It makes one pass over all images whenever it is sent a line, and answers with the milliseconds that it took.

  prepared: decode_jpeg, a random crop of 224, a flip, subtraction of a mean and division by a deviation, in place
  originals: decode_jpeg, the shorter side to 256 (antialiased bilinear), the centre, as bytes, and JPEG again
"""
import argparse
import random
import time

import torch
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg
from torchvision.transforms.v2 import functional as F

MEAN = torch.tensor([123.7, 116.3, 103.5]).view(3, 1, 1)
DEVIATION = torch.tensor([58.4, 57.1, 57.4]).view(3, 1, 1)


def training_input(data: torch.Tensor) -> torch.Tensor:
    image = decode_jpeg(data, mode=ImageReadMode.RGB)
    row, column = random.randrange(33), random.randrange(33)
    image = image[:, row : row + 224, column : column + 224]
    if random.random() < 0.5:
        image = image.flip(-1)
    return image.float().sub_(MEAN).div_(DEVIATION)


def prepared_image(data: torch.Tensor) -> torch.Tensor:
    image = decode_jpeg(data, mode=ImageReadMode.RGB)
    image = F.center_crop(F.resize(image, 256, antialias=True), 256)
    return encode_jpeg(image, quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=["prepared", "originals"])
    parser.add_argument("list", help="a file with a line an image: file, offset, bytes, separated by tabs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = []
    for line in open(args.list, encoding="utf-8"):
        path, offset, size = line.rstrip("\n").split("\t")
        with open(path, "rb") as file:
            file.seek(int(offset))
            images.append(torch.frombuffer(bytearray(file.read(int(size))), dtype=torch.uint8))
    work = training_input if args.way == "prepared" else prepared_image
    for image in images[:8]:
        work(image)
    print(f"torchvision, PyTorch {torch.__version__}", flush=True)
    while input() is not None:
        start = time.perf_counter()
        for image in images:
            work(image)
        print((time.perf_counter() - start) * 1e3, flush=True)


if __name__ == "__main__":
    try:
        main()
    except EOFError:
        pass
