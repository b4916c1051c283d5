"""The images of `golden_full.py`, and the way from their bytes to what the network reads, in training and at test time.
Written from the paper and the program's documentation, not from its code."""

import math
from functools import partial

import numpy as np
import torch
from golden import philox, philox_key

SEED = 2012  # of the recipes
INIT, SHUFFLE, AUGMENT, CHECK, COLOUR = 1, 2, 3, 5, 6  # purposes of random numbers
IMAGES, HELD_OUT = 4, 2
FIRST_HELD_OUT = 100  # the held-out images are drawn as numbers 100 and 101


def words(seed, purpose, elems, *who):
    """The first `elems` 32-bit words of the blocks at counters (0, *who), (1, *who), ..."""
    counters = np.arange(-(-elems // 4), dtype=np.uint64)
    who = [*who, 0, 0][:3] if len(who) < 3 else who
    return np.stack(philox([counters, *who], philox_key(seed, purpose)), axis=1).reshape(-1)[:elems]


def below(seed, purpose, bound, *counter):
    """A number in 0..bound: the high word of word * bound."""
    return int(philox(counter, philox_key(seed, purpose))[0]) * bound >> 32


def image_bytes(draw, channels, side, number):
    """Grey and coloured patches of 32 x 32 pixels under noise: (4 grey + 3 colour + noise) / 8, each a random byte."""

    def random(kind, elems):
        return words(SEED, CHECK, -(-elems // 4), number, kind, draw).astype("<u4").view(np.uint8)[:elems].astype(int)

    def patches(bytes_):
        return np.kron(bytes_.reshape(-1, 8, 8), np.ones((32, 32), int))[:, :side, :side]

    noise = random(3, channels * side * side).reshape(channels, side, side)
    return (4 * patches(random(1, 64)) + 3 * patches(random(2, 64 * channels)) + noise) // 8


def permutation(seed, epoch):
    """Fisher and Yates, from the end."""
    order = list(range(IMAGES))
    for i in range(IMAGES - 1, 0, -1):
        j = below(seed, SHUFFLE, i + 1, i, epoch, 0, 0)
        order[i], order[j] = order[j], order[i]
    return order


def colour_axes(images):
    """The principal axes of the pixels' colours, each as long as the standard deviation along it, the longest first; an
    axis' largest component is positive."""
    colours = images.transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(colours, bias=True))
    axes = []
    for value, vector in sorted(zip(values, vectors.T), key=lambda pair: -pair[0]):
        axes.append(vector * np.sign(vector[np.abs(vector).argmax()]) * math.sqrt(value))
    return axes


def colour_shift(case, axes, image, epoch):
    """Paper 4.1: a normal number for each axis (Box and Muller, words 0 and 1)."""
    shift = np.zeros(3)
    for number, axis in enumerate(axes):
        a, b, *_ = philox([image, epoch, number, 0], philox_key(case.seed, COLOUR))
        u, v = ((int(word) + 0.5) / 2**32 for word in (a, b))
        shift += case.colour_noise * math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v) * axis
    return shift


class Input:
    """From bytes to what the network reads: ((byte + shift) - mean of its place) * scale, cut, and mirrored."""

    def __init__(self, case):
        self.case, self.room = case, case.stored - 224
        draw = partial(image_bytes, case.draw, case.channels, case.stored)
        self.images = np.stack([draw(number) for number in range(IMAGES)])
        self.held_out = np.stack([draw(FIRST_HELD_OUT + number) for number in range(HELD_OUT)])
        self.mean = self.images.mean(axis=0) if case.mean is None else case.mean
        self.axes = colour_axes(self.images) if case.colour_noise else []

    def cut(self, image, row, col, mirrored, shift=0.0):
        whole = (image + np.reshape(shift, (-1, 1, 1)) - self.mean) * self.case.scale
        window = whole[:, row : row + 224, col : col + 224]
        return window[:, :, ::-1] if mirrored else window

    def training(self, indices, epoch):
        """Purpose AUGMENT at counter (image, epoch, what, 0); `what` is 0 for the row, 1 for the column, 2 the flip."""

        def one(image):
            row, col, flip = (
                below(self.case.seed, AUGMENT, bound, image, epoch, what, 0)
                for what, bound in enumerate([self.room + 1, self.room + 1, 2])
            )
            if not self.case.random_crop:
                row = col = self.room // 2
            shift = colour_shift(self.case, self.axes, image, epoch) if self.axes else 0.0
            return self.cut(self.images[image], row, col, self.case.flip and flip == 1, shift)

        return torch.from_numpy(np.stack([one(image) for image in indices]))

    def test(self, row, col, mirrored=False):
        return torch.from_numpy(np.stack([self.cut(image, row, col, mirrored) for image in self.held_out]))

    def ten_views(self):
        """Corners and centre, and the same mirrored (paper 4.1)."""
        ends, middle = (0, self.room), self.room // 2
        places = [(row, col) for row in ends for col in ends] + [(middle, middle)]
        return [self.test(*place, mirrored) for mirrored in (False, True) for place in places]
