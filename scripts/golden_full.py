"""Writes what recipes give at their own size, from the bytes of images to losses, computed by PyTorch in float64.

    python3 scripts/golden_full.py [OUT_FILE] [--float32] [--search DRAWS] [--only CASE]

OUT_FILE is tests/golden/full_size.json where nothing else is said.

Cases: the recipes `paper`, `half` and `fashion`, and `odd`, which is `half` with numbers of channels that no fast
convolution takes. No image and no weight is stored: both are drawn from Philox4x32-10, here and in the program, by the
rules below. Everything here follows the paper and the program's documentation, not its code.

    labels, draw    of four images and of two held-out ones
    batches         the images of steps 0, 1 and 2: two of four a step, so step 2 is in the second epoch
    inputs          of each step, what the network reads: two numbers, see `summary`
    logits          step 0, in training
    decisions       step 0, which way pools and ReLUs send the gradients: a number a layer, see `decisions`
    gradients       step 0, of each parameter of the merged network: two numbers
    losses          training loss before each of three updates
    test_logits     initial parameters, centres of two other images
    test_loss       their mean loss
    view_losses     (paper) their mean loss in each of the ten views
    ten_views_loss  (paper) their mean loss by the mean of the ten views' probabilities

--float32 writes nothing: it prints how far PyTorch in float32 is from the file, which is what tolerances are chosen by.
--search DRAWS tries so many draws of the images, see `margin`. Needs a minute and 4 GB.
"""

import argparse
import json
import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import golden
import numpy as np
import torch
import torch.nn.functional as F
from golden import conv, dense, dropout, norm, pool, relu
from golden_images import CHECK, IMAGES, INIT, SEED, Input, permutation, words

OUT_FILE = Path("tests/golden/full_size.json")
BATCH, STEPS = 2, 3
# What decides which way a gradient goes: pools, and ReLUs that no pool decides for.
DECIDERS = ("pool1", "pool2", "relu3", "relu4", "pool5", "relu6", "relu7")


# fmt: off
PAPER = [  # sections 3.1 to 3.5 and figure 2; zeros beyond the image give conv1 its 55 positions
    conv("conv1", (96, 3, 11, 11), stride=4, beyond=3),    relu("relu1"), norm("norm1"), pool("pool1", 3, 2),
    conv("conv2", (256, 48, 5, 5), pad=2, groups=2),       relu("relu2"), norm("norm2"), pool("pool2", 3, 2),
    conv("conv3", (384, 256, 3, 3), pad=1),                relu("relu3"),
    conv("conv4", (384, 192, 3, 3), pad=1, groups=2),      relu("relu4"),
    conv("conv5", (256, 192, 3, 3), pad=1, groups=2),      relu("relu5"), pool("pool5", 3, 2),
    dense("fc6", (4096, 9216)),                            relu("relu6"), dropout("drop6", 17),
    dense("fc7", (4096, 4096)),                            relu("relu7"), dropout("drop7", 20),
    dense("fc8", (1000, 4096)),
]


def half(k1, k2, k3, k4, k5, d6, d7, classes):
    return [
        conv("conv1", (k1, 3, 11, 11), stride=4, pad=2),   relu("relu1"), pool("pool1", 3, 2),
        conv("conv2", (k2, k1, 5, 5), pad=2),              relu("relu2"), pool("pool2", 3, 2),
        conv("conv3", (k3, k2, 3, 3), pad=1),              relu("relu3"),
        conv("conv4", (k4, k3, 3, 3), pad=1),              relu("relu4"),
        conv("conv5", (k5, k4, 3, 3), pad=1),              relu("relu5"), pool("pool5", 3, 2), dropout("drop5", 13),
        dense("fc6", (d6, 36 * k5)),                       relu("relu6"), dropout("drop6", 16),
        dense("fc7", (d7, d6)),                            relu("relu7"),
        dense("fc8", (classes, d7)),
    ]


FASHION = [
    conv("conv1", (96, 1, 11, 11), stride=4, pad=1),       relu("relu1"), pool("pool1", 3, 2),
    conv("conv2", (256, 96, 5, 5), pad=2),                 relu("relu2"), pool("pool2", 3, 2),
    conv("conv3", (384, 256, 3, 3), pad=1),                relu("relu3"),
    conv("conv4", (384, 384, 3, 3), pad=1),                relu("relu4"),
    conv("conv5", (256, 384, 3, 3), pad=1),                relu("relu5"), pool("pool5", 3, 2),
    dense("fc6", (4096, 6400)),                            relu("relu6"), dropout("drop6", 15),
    dense("fc7", (4096, 4096)),                            relu("relu7"), dropout("drop7", 18),
    dense("fc8", (10, 4096)),
]
# fmt: on


@dataclass
class Case:
    """A recipe: the network, what becomes of an image, and the update."""

    name: str
    rows: list
    channels: int
    stored: int  # side of the stored image; the network's is 224
    scaling: str
    optimizer: object
    streams: int = 1
    both: tuple = ()  # layers that read both streams
    on_stream_0: tuple = ()
    bias_1: tuple = ()  # paper, section 5
    std: float = 0.0  # of normal weights; 0: uniform in +-1 / sqrt(fan-in), biases too
    random_crop: bool = False
    flip: bool = False
    colour_noise: float = 0.0
    mean: float | None = None  # None: the mean image
    scale: float = 1.0
    seed: int = SEED
    views: bool = False
    draw: int = 0  # of the images: so that float32 decides as float64 does, see `margin`
    labels: list = field(default_factory=list)  # of the images, then of those held out


def adam(lr, params):
    return torch.optim.Adam(params.values(), lr=lr, betas=(0.9, 0.999), eps=1e-8).step


HALF_INPUT = dict(channels=3, stored=224, scaling="train", flip=True, mean=127.5, scale=0.007843138)
CASES = [
    Case(
        "paper", PAPER, 3, 256, "test", partial(golden.sgd, lr=0.01), streams=2, both=("conv3", "fc6", "fc7", "fc8"),
        on_stream_0=("fc8",), bias_1=("conv2", "conv4", "conv5", "fc6", "fc7"), std=0.01, random_crop=True, flip=True,
        colour_noise=0.1, views=True, draw=2, labels=[3, 996, 501, 250, 77, 640],
    ),
    Case("half", half(48, 128, 192, 192, 128, 2048, 2048, 5), **HALF_INPUT, optimizer=partial(adam, 0.0002),
         draw=10, labels=[3, 0, 4, 1, 2, 3]),
    Case("fashion", FASHION, 1, 224, "train", partial(adam, 0.001), mean=0.0, scale=0.003921569,
         draw=34, labels=[9, 0, 4, 7, 2, 5]),
    Case("odd", half(36, 100, 150, 150, 100, 500, 300, 5), **HALF_INPUT, optimizer=partial(adam, 0.0002),
         draw=11, labels=[3, 0, 4, 1, 2, 3]),
]  # fmt: skip


def summary(array):
    """The length of a tensor, and its product with a vector of random signs, which no exchange of elements leaves as it
    is: element e is negated where bit e is set in the words of purpose CHECK."""
    flat = np.asarray(array.detach(), np.float64).reshape(-1)
    bits = words(SEED, CHECK, -(-flat.size // 32), 0).astype("<u4").view(np.uint8)
    signs = np.unpackbits(bits, bitorder="little")[: flat.size]
    return [float(np.linalg.norm(flat)), float(flat.sum() - 2 * flat[signs == 1].sum())]


def draw_values(case, shape, fan_in, index, stream):
    """Parameter `index` of a stream: four values from the block at counter (element / 4, 0, index, stream), in 24 bits
    each. Normal ones by Box and Muller: two from words 0 and 1, two from words 2 and 3."""
    drawn = words(case.seed, INIT, -(-math.prod(shape) // 4) * 4, 0, index, stream)
    u = ((drawn >> np.uint64(8)).astype(np.float64) + 0.5) / 2**24
    if case.std:
        radius, angle = np.sqrt(-2 * np.log(u[0::2])), 2 * math.pi * u[1::2]
        values = case.std * np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
    else:
        values = (2 * u - 1) / math.sqrt(fan_in)
    return torch.from_numpy(values[: math.prod(shape)].reshape(shape))


def draw_params(case):
    """The merged network's parameters. Each stream numbers its own: of each layer the weights that read the stream
    itself, those that read the other one, and the bias."""
    parts, index = {}, [0] * case.streams
    for row in filter(lambda row: row.shape, case.rows):
        both, fan_in = row.name in case.both, math.prod(row.shape[1:])
        streams = 1 if row.name in case.on_stream_0 else case.streams
        outputs = row.shape[0] // streams
        block = (outputs, row.shape[1] // (2 if both else 1), *row.shape[2:])
        for stream in range(streams):

            def draw(shape):
                index[stream] += 1
                return draw_values(case, shape, fan_in, index[stream] - 1, stream)

            blocks = [draw(block) for _ in range(2 if both else 1)]
            weight = torch.cat(blocks if stream == 0 else blocks[::-1], dim=1)
            if case.std:
                index[stream] += 1
                bias = torch.full((outputs,), float(row.name in case.bias_1), dtype=torch.float64)
            else:
                bias = draw((outputs,))
            parts.setdefault(f"{row.name}.weight", []).append(weight)
            parts.setdefault(f"{row.name}.bias", []).append(bias)
    return {name: torch.cat(values) for name, values in parts.items()}


def test_results(case, params, inputs, labels, dtype):
    """The part of the file that is made at test time."""

    def logits_of(image):
        return golden.logits(case, golden.forward(case, params, image.to(dtype), None))

    centre = logits_of(inputs.test(inputs.room // 2, inputs.room // 2))
    found = {"test_logits": centre.tolist(), "test_loss": F.cross_entropy(centre, labels).item()}
    if case.views:
        views = [logits_of(view) for view in inputs.ten_views()]
        found["view_losses"] = [F.cross_entropy(view, labels).item() for view in views]
        mean = torch.stack([view.double().softmax(dim=1) for view in views]).mean(dim=0)
        found["ten_views_loss"] = F.nll_loss(mean.log(), labels).item()
    return found


def decisions(outputs):
    """Of each of these a number that changes with any decision: the sum over outputs i of (1 + i % 9973) times 1 where
    ReLU lets the gradient through, or 1 + the place in its map that a window's maximum, if it is above 0, is at."""
    found, before = {}, None
    for name, y in outputs.items():
        if name in DECIDERS:
            places = F.max_pool2d(before, 3, 2, return_indices=True)[1] if name.startswith("pool") else 0
            chosen = torch.where(y > 0, 1 + places, 0).flatten()
            found[name] = int((chosen * (1 + torch.arange(len(chosen)) % 9973)).sum())
        before = y
    return found


@torch.no_grad()
def margin(case, params):
    """How narrowly step 0 decides anything, in parts of the largest value there."""
    x = Input(case).training(permutation(case.seed, 0)[:BATCH], 0).float()
    gaps = []
    for name, y in golden.forward(case, params, x, 0).items():
        if name in DECIDERS and name.startswith("pool"):
            first, second = F.unfold(x.flatten(0, 1)[:, None], 3, stride=2).topk(2, dim=1).values.unbind(dim=1)
            gaps.append((first - second)[first > 0].min() / x.max())
        elif name in DECIDERS:
            gaps.append(x.abs().min() / x.abs().max())
        x = y
    return min(gaps).item()


def search(case, draws):
    """Prints draws of the images with ever wider margins."""
    params, best = {name: value.float() for name, value in draw_params(case).items()}, 0.0
    for draw in range(draws):
        found = margin(replace(case, draw=draw), params)
        if found > best:
            best = found
            print(f"{case.name}: draw {draw}: margin {found:.1e}", flush=True)


def compute(case, dtype=torch.float64):
    """The case's part of the file."""
    for index, row in enumerate(case.rows):
        assert getattr(row, "layer_index", index) == index, f"{case.name}: {row.name} is row {index}"
    inputs, params = Input(case), {name: value.to(dtype) for name, value in draw_params(case).items()}
    labels = torch.tensor(case.labels)
    with torch.no_grad():
        found = {"labels": case.labels, "draw": case.draw} | test_results(case, params, inputs, labels[IMAGES:], dtype)
    for param in params.values():
        param.requires_grad_()
    update = case.optimizer(params)
    found |= {"batches": [], "inputs": [], "losses": []}
    for step in range(STEPS):
        epoch, first = divmod(step * BATCH, IMAGES)
        indices = permutation(case.seed, epoch)[first : first + BATCH]
        image = inputs.training(indices, epoch)
        outputs = golden.forward(case, params, image.to(dtype), step)
        logits = golden.logits(case, outputs)
        loss = F.cross_entropy(logits, labels[indices])
        for param in params.values():
            param.grad = None
        loss.backward()
        found["batches"].append(indices)
        found["inputs"].append(summary(image))
        found["losses"].append(loss.item())
        if step == 0:
            found["logits"] = logits.tolist()
            found["decisions"] = decisions(outputs)
            found["gradients"] = {name: summary(param.grad) for name, param in sorted(params.items())}
        update()
    return found


def differences(found, expected):
    """By name, how far numbers are from those expected, in parts of the largest of these or of a tensor's length."""

    def far(a, b):
        a, b = np.asarray(a), np.asarray(b)
        return float(np.abs(a - b).max() / np.abs(b).max())

    names = [name for name in expected if name not in ("labels", "draw", "batches", "inputs", "decisions", "gradients")]
    by_name = {name: far(found[name], expected[name]) for name in names}
    for name, numbers in expected["gradients"].items():
        apart = (abs(a - b) / numbers[0] for a, b in zip(found["gradients"][name], numbers))
        by_name[f"gradients.{name}"] = max(apart)
    return by_name


def rounded(value, digits=10):
    """Numbers as the file has them: logits, of which there are thousands, with 8 digits."""
    if isinstance(value, dict):
        return {name: rounded(v, 8 if "logits" in name else digits) for name, v in value.items()}
    if isinstance(value, list):
        return [rounded(v, digits) for v in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_file", nargs="?", type=Path, default=OUT_FILE, metavar="OUT_FILE")
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--search", type=int, metavar="DRAWS")
    parser.add_argument("--only", metavar="CASE")
    args = parser.parse_args()

    torch.use_deterministic_algorithms(True)
    golden.check_philox()
    chosen = [case for case in CASES if args.only in (None, case.name)]
    if args.search:
        for case in chosen:
            search(case, args.search)
        return
    if args.float32:
        expected = json.loads(args.out_file.read_text())
        for case in chosen:
            for name, difference in differences(compute(case, torch.float32), expected[case.name]).items():
                print(f"{case.name}: {name}: {difference:.1e}", flush=True)
        return
    sections = []
    for case in chosen:
        found = compute(case)
        print(case.name, "losses", found["losses"], "test", found["test_loss"], flush=True)
        lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in rounded(found).items())
        sections.append(f"{json.dumps(case.name)}: {{\n" + ",\n".join(lines) + "\n}")
    args.out_file.write_text("{\n" + ",\n".join(sections) + "\n}\n")


if __name__ == "__main__":
    main()
