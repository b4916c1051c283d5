"""Times one step of the two-stream AlexNet in PyTorch, on the CPU: the peer of this project's `bench`.

    python3 scripts/bench_pytorch.py [--batch-size 128] [--threads N] [--steps 5] [--inference]
    python3 scripts/bench_pytorch.py --serve

The net is the one this project trains: grouped convolutions where a stream reads only itself,
normalization within each half of the channels. A training step is zero_grad, forward, loss, backward
and SGD; with --inference it is the forward pass alone. Images and labels are random and stay in memory.

The first form prints one line. The second lets another program interleave its own steps with these,
so that both meet the same load on the machine: after the warm-up it prints one line of JSON that says
what runs, then for each line on standard input it runs one step and prints {"ms": ...}.
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Callable

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    sys.exit(f"bench_pytorch.py needs PyTorch ({error}): pip install torch")


class StreamNorm(nn.Module):
    """Local response normalization within each half of the channels (paper 3.3)."""

    def forward(self, x):
        n, c, h, w = x.shape
        halves = x.reshape(n * 2, c // 2, h, w)
        # PyTorch divides alpha by the window's size: 5e-4 is the paper's 1e-4.
        return F.local_response_norm(halves, size=5, alpha=5e-4, beta=0.75, k=2.0).reshape(n, c, h, w)


def alexnet(classes):
    # fmt: off
    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)),  # 224 -> 227, at right and bottom: conv1 yields 55x55
        nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(inplace=True), StreamNorm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(inplace=True), StreamNorm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(256 * 6 * 6, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Linear(4096, classes),
    )
    # fmt: on


@dataclass
class Variant:
    """One way to run the net: takes the net and the images, returns them as the step shall use them."""

    label: str
    prepare: Callable


VARIANTS = {
    "eager": Variant("eager fp32", lambda net, images: (net, images)),
}


def make_step(variant, batch_size, classes, inference):
    """The function that runs one full step."""
    torch.manual_seed(0)
    images = torch.randn(batch_size, 3, 224, 224)
    labels = torch.randint(0, classes, (batch_size,))
    net, images = variant.prepare(alexnet(classes).train(not inference), images)

    def infer():
        with torch.inference_mode():
            net(images)

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def train():
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return infer if inference else train


def timed_ms(step):
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e3


def bench(step, args, label):
    rates = [args.batch_size / timed_ms(step) * 1e3 for _ in range(args.steps)]
    print(
        f"PyTorch {torch.__version__}, {label}, {'inference' if args.inference else 'training'}, "
        f"batch size {args.batch_size}, {args.threads} threads: "
        f"{statistics.median(rates):.2f} images/s (min {min(rates):.2f}, max {max(rates):.2f})"
    )


def serve(step, args, label):
    def answer(message):
        print(json.dumps(message), flush=True)

    answer(
        {
            "torch": torch.__version__,
            "variant": label,
            "threads": args.threads,
            "batch_size": args.batch_size,
        }
    )
    for _ in sys.stdin:
        answer({"ms": timed_ms(step)})


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=positive, default=128, metavar="N")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), metavar="N")
    parser.add_argument("--classes", type=positive, default=1000, metavar="N")
    parser.add_argument("--steps", type=positive, default=5, metavar="N", help="steps to time")
    parser.add_argument("--warm-up", type=int, default=2, metavar="N", help="steps before, untimed")
    parser.add_argument("--inference", action="store_true", help="the forward pass alone")
    parser.add_argument("--serve", action="store_true", help="one step for each line of input")
    parser.add_argument("--variant", choices=VARIANTS, default="eager")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    variant = VARIANTS[args.variant]
    step = make_step(variant, args.batch_size, args.classes, args.inference)
    for _ in range(args.warm_up):
        step()
    (serve if args.serve else bench)(step, args, variant.label)


if __name__ == "__main__":
    main()
