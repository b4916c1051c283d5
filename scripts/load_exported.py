"""Loads the network that this project's `export RUN out.safetensors` writes, as an ordinary torch.nn.Module.

    python3 scripts/load_exported.py out.safetensors

Prints the module and checks that it computes the logits which the trainer stored beside the parameters; exits with 1
where it does not. In Python: `from load_exported import load; net, classes = load("out.safetensors")`; the input is
N C H W, float32, preprocessed as in training.
"""

import argparse
import json
import sys
from collections import OrderedDict

try:
    import torch
    from safetensors import SafetensorError, safe_open
    from torch import nn
except ImportError as error:
    sys.exit(f"load_exported.py needs PyTorch and safetensors ({error}): pip install torch safetensors")

TOLERANCE = 1e-3  # of the largest logit


class StreamNorm(nn.LocalResponseNorm):
    """Local response normalization within each of `groups` equal parts of the channels (paper 3.3)."""

    def __init__(self, n, k, alpha, beta, groups):
        super().__init__(n, alpha * n, beta, k)  # PyTorch divides alpha by n, the paper does not
        self.groups = groups

    def forward(self, x):
        n, c, h, w = x.shape
        return super().forward(x.reshape(n * self.groups, c // self.groups, h, w)).reshape(n, c, h, w)


class SpatialNorm(nn.Module):
    """Local response normalization over windows of n x n pixels of each channel (the 2012 code's layer 2)."""

    def __init__(self, n, k, alpha, beta):
        super().__init__()
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward(self, x):
        sums = nn.functional.avg_pool2d(x * x, self.n, 1, self.n // 2, divisor_override=1)
        return x / (self.k + self.alpha * sums) ** self.beta


class PaperDropout(nn.Dropout):
    """Does not rescale in training; multiplies by the keep probability at test time (paper 4.2)."""

    def forward(self, x):
        return super().forward(x) * (1 - self.p)


def read(path):
    """The file's tensors by name, and its metadata."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def load(path):
    """The network in eval mode, and the names of its classes. Its state dict has conv1.weight, ..., fc8.bias."""
    tensors, metadata = read(path)
    params = {name: tensor for name, tensor in tensors.items() if not name.startswith("check.")}
    modules = OrderedDict()
    for index, row in enumerate(json.loads(metadata["layers"])):
        op, name = row["op"], row.get("name", f"{row['op']}_{index}")
        if op == "conv":
            k, c, *kernel = params[f"{name}.weight"].shape
            modules[f"pad_{index}"] = nn.ZeroPad2d(row["padding"])
            modules[name] = nn.Conv2d(c * row["groups"], k, tuple(kernel), row["stride"], groups=row["groups"])
        elif op == "dense":
            outputs, inputs = params[f"{name}.weight"].shape
            modules[f"flatten_{index}"] = nn.Flatten()
            modules[name] = nn.Linear(inputs, outputs)
        elif op == "lrn":
            modules[name] = StreamNorm(row["n"], row["k"], row["alpha"], row["beta"], row["groups"])
        elif op == "spatial_lrn":
            modules[name] = SpatialNorm(row["n"], row["k"], row["alpha"], row["beta"])
        elif op == "max_pool":
            modules[name] = nn.MaxPool2d(row["window"], row["stride"])
        elif op == "avg_pool":
            modules[name] = nn.AvgPool2d(row["window"], row["stride"])
        elif op == "dropout":
            modules[name] = {"test": PaperDropout, "train": nn.Dropout}[row["scaling"]](1 - row["keep"])
        else:
            modules[name] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[op]()
    net = nn.Sequential(modules)
    net.load_state_dict(params, strict=True)
    return net.eval(), json.loads(metadata["classes"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    path = parser.parse_args().file
    try:
        net, classes = load(path)
        tensors, _ = read(path)
        images, expected = tensors["check.images"], tensors["check.logits"]
    except KeyError as key:
        sys.exit(f"{path}: {key} is missing or not known to this script; expected a file that `export` wrote")
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        sys.exit(f"{path}: {error}")
    with torch.inference_mode():
        difference = (net(images) - expected).abs().max().item()
    largest = expected.abs().max().item()
    print(net)
    print(f"{len(images)} images, {len(classes)} classes")
    print(f"largest difference of the logits {difference:.3g}, largest logit {largest:.3g}")
    if not difference <= TOLERANCE * largest:
        sys.exit(f"{path}: the module does not compute the file's logits to {TOLERANCE:g} of the largest")


if __name__ == "__main__":
    main()
