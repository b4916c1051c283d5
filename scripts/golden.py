"""Writes the reference tensors that the tests compare with, computed by PyTorch in float64.

    python3 scripts/golden.py [OUT_DIR]        (default: tests/golden)

Three small nets: `two_streams` is the table `alexnet` (ReLU, normalization, dropout as in the paper, SGD),
`one_stream` the table `fashion` (tanh, inverted dropout, Adam), `lenet` the table `lenet` (sigmoid, average pooling, plain
SGD). Each file holds, for the merged network:

    image, labels                       one batch
    param.LAYER.weight, .bias           initial parameters
    activation.NAME                     output of every layer, training step 0
    input_gradient.NAME                 gradient of the mean loss by the layer's input, same step (NAME `loss`: by the
                                        logits)
    gradient.LAYER.weight, .bias        gradients of the parameters, same step
    losses                              training loss before each of ten updates, steps 0..9
    final.LAYER.weight, .bias           parameters after them
    test_logits                         initial parameters, test time

Needs PyTorch and numpy; the generator of the dropout masks is written out here. Checks itself: the
generator against its published vectors, the gradients against finite differences. On one machine, running it again
writes the same bytes.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

try:
    import numpy as np
    import torch
    import torch.nn.functional as F
except ImportError as error:
    sys.exit(f"golden.py needs PyTorch and numpy ({error}): pip install torch numpy")

SEED = 1234567890123  # of the dropout masks
DATA_SEED = (SEED + 4) % 2**32  # +4: no value lies so near ReLU's kink or a tie that float32 may take the other side
BATCH = 5
CLASSES = 7
LABELS = [0, 3, 4, 6, 2]  # in two streams classes 0..3 live in stream 0, 4..6 in stream 1
STEPS = 10
KEEP = 0.5


def philox(counter, key):
    """Philox4x32-10 (Salmon et al., SC 2011) on arrays: four counter words, two key words, four result words."""
    low = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = (np.asarray(word, np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(10):
        a, b = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ np.uint64(k0), b & low, (a >> 32) ^ c3 ^ np.uint64(k1), a & low
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def check_philox():
    """The known answers of the Random123 distribution."""
    known = {0: "6627e8d5 e169c58d bc57ac4c 9b00dbd8", 2**32 - 1: "408f276d 41c83b0e a20bc7c6 6d5451fd"}
    for word, expected in known.items():
        found = " ".join(f"{int(w):08x}" for w in philox([word] * 4, [word] * 2))
        assert found == expected, f"Philox gives {found}, expected {expected}"


def philox_key(seed, purpose, layer=0):
    """The key of a purpose (the numbers of `Purpose` in crates/cpu/src/rng.rs) under a seed of 64 bits."""
    tag = (purpose << 16) ^ layer
    return (seed % 2**32 ^ tag * 0x9E3779B9 % 2**32, (seed >> 32) ^ tag)


def dropout_mask(seed, layer_index, step, samples, units):
    """1 where unit u of sample i is kept: word u % 4 of the block at counter (u // 4, i, step) is below keep * 2^32."""
    unit, sample = np.meshgrid(np.arange(units), np.arange(samples))
    words = np.stack(philox([unit // 4, sample, step % 2**32, step >> 32], philox_key(seed, 4, layer_index)))
    word = np.take_along_axis(words, (unit % 4)[None], axis=0)[0]
    return torch.from_numpy((word < math.floor(KEEP * 2**32)).astype(np.float64))


def lrn(x, groups):
    """x / (2 + 1e-4 * sum of squares over 5 neighbouring channels)^.75, within each of `groups` parts (paper 3.3)."""
    n, c, h, w = x.shape
    padded = F.pad((x * x).reshape(n * groups, c // groups, h, w), (0, 0, 0, 0, 2, 2))
    sums = sum(padded[:, d : d + c // groups] for d in range(5)).reshape(n, c, h, w)
    return x / (2 + 1e-4 * sums) ** 0.75


@dataclass
class Row:
    """A layer: its name, forward(x, weight, bias, draw), and for conv and dense the weight's shape and scale."""

    name: str
    forward: Callable
    shape: tuple = ()
    scale: float = 1.0  # on top of He's sqrt(2 / fan-in)


def conv(name, shape, stride=1, pad=0, beyond=0, groups=1, scale=1.0):
    """`shape` is K, C / groups, R, S; `beyond` zeros follow the last row and column."""
    sides = (pad, pad + beyond, pad, pad + beyond)
    return Row(name, lambda x, w, b, _: F.conv2d(F.pad(x, sides), w, b, stride, groups=groups), shape, scale)


def dense(name, shape, scale=1.0):
    return Row(name, lambda x, w, b, _: F.linear(x.flatten(1), w, b), shape, scale)


def pool(name, window, stride):
    return Row(name, lambda x, *_: F.max_pool2d(x, window, stride))


def avg_pool(name, window, stride):
    return Row(name, lambda x, *_: F.avg_pool2d(x, window, stride))


def norm(name):
    return Row(name, lambda x, *_: lrn(x, groups=2))


def relu(name):
    return Row(name, lambda x, *_: F.relu(x))


def tanh(name):
    return Row(name, lambda x, *_: torch.tanh(x))


def sigmoid(name):
    return Row(name, lambda x, *_: torch.sigmoid(x))


def dropout(name, layer_index):
    """`layer_index` is the row's index in the project's table, stated here to check this one."""

    def forward(x, _w, _b, draw):
        scaling, seed, step = draw
        if step is None:
            return x * KEEP if scaling == "test" else x
        mask = dropout_mask(seed, layer_index, step, len(x), x[0].numel()).to(x.dtype).reshape(x.shape)
        return x * mask / (1 if scaling == "test" else KEEP)

    row = Row(name, forward)
    row.layer_index = layer_index
    return row


# fmt: off
TWO_STREAMS = [
    conv("conv1", (8, 3, 11, 11), stride=4, beyond=3),              relu("relu1"), norm("norm1"), pool("pool1", 3, 2),
    conv("conv2", (12, 4, 5, 5), pad=2, groups=2),                  relu("relu2"), norm("norm2"), pool("pool2", 3, 2),
    conv("conv3", (16, 12, 3, 3), pad=1, scale=0.3),                relu("relu3"),
    conv("conv4", (16, 8, 3, 3), pad=1, groups=2, scale=0.7),       relu("relu4"),
    conv("conv5", (12, 8, 3, 3), pad=1, groups=2, scale=0.7),       relu("relu5"), pool("pool5", 3, 2),
    dense("fc6", (24, 48)),                                         relu("relu6"), dropout("drop6", 17),
    dense("fc7", (20, 24)),                                         relu("relu7"), dropout("drop7", 20),
    dense("fc8", (CLASSES, 20)),
]
ONE_STREAM = [
    conv("conv1", (8, 1, 11, 11), stride=4, pad=1),                 tanh("tanh1"), pool("pool1", 2, 2),
    conv("conv2", (12, 8, 5, 5), pad=2),                            tanh("tanh2"), pool("pool2", 2, 2),
    conv("conv3", (16, 12, 3, 3), pad=1),                           tanh("tanh3"),
    conv("conv4", (16, 16, 3, 3), pad=1),                           tanh("tanh4"),
    conv("conv5", (12, 16, 3, 3), pad=1),                           tanh("tanh5"), pool("pool5", 2, 2),
    dense("fc6", (24, 48)),                                         tanh("tanh6"), dropout("drop6", 15),
    dense("fc7", (20, 24)),                                         tanh("tanh7"), dropout("drop7", 18),
    dense("fc8", (CLASSES, 20)),
]
LENET = [
    conv("conv1", (4, 1, 5, 5), pad=2),                             sigmoid("sigmoid1"), avg_pool("pool1", 2, 2),
    conv("conv2", (6, 4, 5, 5)),                                    sigmoid("sigmoid2"), avg_pool("pool2", 2, 2),
    dense("fc3", (24, 54)),                                         sigmoid("sigmoid3"),
    dense("fc4", (20, 24)),                                         sigmoid("sigmoid4"),
    dense("fc5", (CLASSES, 20)),
]
# fmt: on


def sgd(params, lr=0.0005):
    """v <- .9 v - .0005 lr w - lr g;  w <- w + v (paper, section 5); no weight decay on biases. Returns the update."""
    momentum, decay = 0.9, 0.0005
    velocity = {name: torch.zeros_like(p) for name, p in params.items()}

    @torch.no_grad()
    def update():
        for name, p in params.items():
            weight_decay = decay if name.endswith(".weight") else 0.0
            velocity[name] = momentum * velocity[name] - weight_decay * lr * p - lr * p.grad
            p += velocity[name]

    return update


def adam(params):
    return torch.optim.Adam(params.values(), lr=0.001, betas=(0.9, 0.999), eps=1e-8).step


def plain_sgd(params):
    return torch.optim.SGD(params.values(), lr=0.5).step


@dataclass
class Case:
    name: str
    description: str
    image: tuple
    pixels: Callable  # of numbers in [-1, 1)
    rows: list
    scaling: str  # when dropout scales: at "test" time (paper 4.2) or in training ("train", inverted)
    optimizer: Callable
    seed: int = SEED  # of the dropout masks


CASES = [
    Case(
        "two_streams",
        "table alexnet in two streams, image 3x100x100 of integers in -128..128, conv channels 8 12 16 16 12, "
        "dense units 24 20, 7 classes, ReLU, pools 3/2, LRN n 5, k 2, alpha 1e-4, beta .75, dropout keep .5 scaled at "
        "test time, batch 5, SGD lr .0005, momentum .9, weight decay 5e-4 on weights",
        (3, 100, 100),
        lambda u: np.rint(128 * u),
        TWO_STREAMS,
        "test",
        sgd,
    ),
    Case(
        "one_stream",
        "table fashion, image 1x80x80 in -1..1, conv channels 8 12 16 16 12, dense units 24 20, 7 classes, tanh, "
        "pools 2/2, dropout keep .5 scaled in training, batch 5, Adam lr .001, betas .9 .999, epsilon 1e-8, "
        "no weight decay",
        (1, 80, 80),
        lambda u: u,
        ONE_STREAM,
        "train",
        adam,
    ),
    Case(
        "lenet",
        "table lenet, image 1x20x20 in -1..1, conv channels 4 6, dense units 24 20, 7 classes, sigmoid, average pools 2/2, "
        "batch 5, SGD lr .5, no momentum, no weight decay",
        (1, 20, 20),
        lambda u: u,
        LENET,
        "train",
        plain_sgd,
    ),
]


def as_f32(array):
    """float64 with values that float32 holds exactly, so that the file's tensors are what was computed with."""
    return torch.from_numpy(np.asarray(array, np.float32).astype(np.float64))


def draw_images(case, random):
    """4x4 patches under noise, in [-1, 1): noise alone would make all images alike to the deeper layers."""
    c, h, w = case.image
    patches = random.uniform(-1, 1, (BATCH, c, 4, 4))
    noise = random.uniform(-1, 1, (BATCH, c, h, w))
    return 0.7 * np.kron(patches, np.ones((h // 4, w // 4))) + 0.3 * noise


def draw_params(case, random):
    """Normal weights, small biases. Each filter's mean is taken out: it would see little but the mean activation."""
    params = {}
    for row in case.rows:
        if row.shape:
            weight = random.standard_normal((row.shape[0], math.prod(row.shape[1:])))
            weight -= weight.mean(axis=1, keepdims=True)
            weight *= row.scale * math.sqrt(2 / weight.shape[1])
            params[f"{row.name}.weight"] = as_f32(weight.reshape(row.shape))
            params[f"{row.name}.bias"] = as_f32(0.1 * random.standard_normal(row.shape[0]))
    return params


def forward(case, params, image, step):
    """Every layer's output by name; `step` is None at test time."""
    outputs, x = {}, image
    for row in case.rows:
        draw = (case.scaling, case.seed, step)
        x = row.forward(x, params.get(f"{row.name}.weight"), params.get(f"{row.name}.bias"), draw)
        outputs[row.name] = x
    return outputs


def logits(case, outputs):
    return outputs[case.rows[-1].name]


def check_gradients(case, params, gradients, image, labels, random):
    """A central difference along a random direction of each parameter."""
    for name, gradient in gradients.items():
        direction = torch.from_numpy(random.standard_normal(gradient.shape))
        direction *= 1e-6 / direction.norm()
        losses = []
        for sign in (1, -1):
            moved = {**params, name: params[name].detach() + sign * direction}
            losses.append(F.cross_entropy(logits(case, forward(case, moved, image, 0)), labels).item())
        difference, expected = losses[0] - losses[1], 2 * (gradient * direction).sum().item()
        limit = 1e-4 * abs(expected) + 1e-13
        assert abs(difference - expected) < limit, f"{case.name}: {name}: difference {difference}, gradient {expected}"


def compute(case):
    """The file's tensors, by name."""
    for index, row in enumerate(case.rows):
        assert getattr(row, "layer_index", index) == index, f"{case.name}: {row.name} is row {index}"
    random = np.random.RandomState(DATA_SEED)  # numpy keeps this generator's numbers for good
    image = as_f32(case.pixels(draw_images(case, random)))
    labels = torch.tensor(LABELS)
    params = draw_params(case, random)
    tensors = {"image": image, "labels": labels}
    tensors |= {f"param.{name}": p.clone() for name, p in params.items()}
    tensors["test_logits"] = logits(case, forward(case, params, image, None))

    for p in params.values():
        p.requires_grad_()
    update = case.optimizer(params)
    losses = []
    for step in range(STEPS):
        outputs = forward(case, params, image, step)
        for output in outputs.values():
            output.retain_grad()
        loss = F.cross_entropy(logits(case, outputs), labels)
        losses.append(loss.item())
        for p in params.values():
            p.grad = None
        loss.backward()
        if step == 0:
            readers = [row.name for row in case.rows][1:] + ["loss"]
            tensors |= {f"activation.{name}": y for name, y in outputs.items()}
            tensors |= {f"input_gradient.{reader}": x.grad for reader, x in zip(readers, outputs.values())}
            gradients = {name: p.grad.clone() for name, p in params.items()}
            tensors |= {f"gradient.{name}": g for name, g in gradients.items()}
            check_gradients(case, params, gradients, image, labels, random)
        update()
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    tensors |= {f"final.{name}": p for name, p in params.items()}
    return tensors


def write(path, tensors, metadata):
    """A safetensors file, written here because the library leaves the order of the metadata to chance."""
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    for name, array in arrays.items():
        arrays[name] = array.astype("<i8" if name == "labels" else "<f8" if name == "losses" else "<f4")
    header, blobs, offset = {"__metadata__": metadata}, [], 0
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):  # wide ones first, to align all
        dtype = {"<i8": "I64", "<f8": "F64", "<f4": "F32"}[array.dtype.str]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
        blobs.append(array.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", nargs="?", type=Path, default=Path("tests/golden"), metavar="OUT_DIR")
    out_dir = parser.parse_args().out_dir

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    check_philox()
    out_dir.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        tensors = compute(case)
        path = out_dir / f"{case.name}.safetensors"
        metadata = {"case": case.description, "seed": str(SEED), "torch": torch.__version__}
        write(path, tensors, metadata)
        losses = " ".join(f"{loss:.4f}" for loss in tensors["losses"].tolist())
        print(f"{path}: {len(tensors)} tensors, {path.stat().st_size} bytes, losses {losses}")


if __name__ == "__main__":
    main()
