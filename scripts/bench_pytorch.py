"""Times one step of the two-stream AlexNet in PyTorch, on the CPU or on a CUDA GPU: the peer of this
project's `bench`, made as fast as an expert can make it.

    python3 scripts/bench_pytorch.py [--device cpu|cuda] [--precision fp32|tf32|bf16] [--inference]
    python3 scripts/bench_pytorch.py --serve
    python3 scripts/bench_pytorch.py --check
    python3 scripts/bench_pytorch.py --list

The net is the one this project trains: grouped convolutions where a stream reads only itself,
normalization within each half of the channels. A training step is zero_grad, forward, loss, backward
and SGD with momentum and weight decay; with --inference it is the forward pass alone. Images and labels
are random. On a GPU every step uploads the images first, a byte a value, as this project's steps do, and
several steps are timed at once, so that one may be queued while the last one runs.

There are several ways to run that net (--list). By default each is tried for a few steps in a process of
its own, so that one that fails (torch.compile without a C++ compiler, say) does no harm, and the fastest
is taken. --check compares what they compute with the plainest of them.

The first form prints one line. --serve lets another program interleave its own steps with these, so that
both meet the same load on the machine: after the warm-up it prints one line of JSON that says what runs,
then for each line on standard input, a number, it runs so many steps and prints the time of one,
{"ms": ...}.

On Linux the script restarts itself with jemalloc if it finds libjemalloc.so.2: with the C library's
malloc a quarter of a CPU step and more goes into page faults. The environment variable JEMALLOC names
another path, or none if empty.
"""

import argparse
import copy
import json
import math
import os
import statistics
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Optional

JEMALLOC_PLACES = [
    "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    "/usr/lib/aarch64-linux-gnu/libjemalloc.so.2",
    "/usr/lib64/libjemalloc.so.2",
    "/usr/lib/libjemalloc.so.2",
    "/usr/local/lib/libjemalloc.so.2",
    os.path.join(sys.prefix, "lib/libjemalloc.so.2"),  # conda
]
# Freed memory is kept, in huge pages: no page faults after the first step.
JEMALLOC_CONF = (
    "thp:always,metadata_thp:auto,dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"
)
RESTARTED = "BENCH_PYTORCH_RESTARTED"


def has_jemalloc():
    """Whether this process allocates with jemalloc; looked up, since preloading may fail silently."""
    try:
        with open("/proc/self/maps") as maps:
            return "libjemalloc" in maps.read()
    except OSError:
        return False


def restart_with_jemalloc():
    """Starts this script again with jemalloc preloaded, once: an allocator cannot be changed later."""
    places = [os.environ["JEMALLOC"]] if "JEMALLOC" in os.environ else JEMALLOC_PLACES
    library = next(filter(os.path.isfile, places), None)
    if RESTARTED in os.environ or library is None or has_jemalloc():
        return
    preload = " ".join(filter(None, [library, os.environ.get("LD_PRELOAD")]))
    ours = {"LD_PRELOAD": preload, RESTARTED: "1"}
    environment = {"MALLOC_CONF": JEMALLOC_CONF, **os.environ, **ours}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


if __name__ == "__main__":
    restart_with_jemalloc()

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    sys.exit(f"bench_pytorch.py needs PyTorch ({error}): pip install torch")


class StreamNorm(nn.Module):
    """Local response normalization within each half of the channels (paper 3.3), by PyTorch's own."""

    def forward(self, x):
        n, c, h, w = x.shape
        halves = x.reshape(n * 2, c // 2, h, w)
        # PyTorch divides alpha by the window's size: 5e-4 is the paper's 1e-4.
        halves = F.local_response_norm(halves, size=5, alpha=5e-4, beta=0.75, k=2.0)
        return halves.reshape(n, c, h, w)


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


def windows(x, groups, band, start):
    """The sum over five neighbouring channels, times 1e-4, within each group, added to `start`.

    With a band matrix it is a 1x1 convolution, which the libraries do faster than they pool over
    channels. Without one it is five shifted tensors, which a compiler fuses with what stands around it.
    """
    if band is not None:
        return F.conv2d(x, band, start, groups=groups)
    length = x.shape[1] // groups
    padded = F.pad(x.unflatten(1, (groups, length)), (0, 0, 0, 0, 2, 2))
    sums = sum(padded[:, :, shift : shift + length] for shift in range(5)).flatten(1, 2) * 1e-4
    return sums if start is None else sums + start[:, None, None]


class Normalize(torch.autograd.Function):
    """y = x * s^-.75, where s = 2 + the window's squares; its gradient by hand walks through memory half
    as often as autograd would. A window is symmetric, so `windows` serves the way back too."""

    @staticmethod
    def forward(ctx, x, groups, band, twos):
        s = windows(x * x, groups, band, twos)
        r = s.sqrt().mul_(s).rsqrt_()  # s^-.75 without pow
        ctx.groups = groups
        ctx.save_for_backward(x, s, r, band)
        return x * r

    @staticmethod
    def backward(ctx, gradient):
        x, s, r, band = ctx.saved_tensors
        direct = gradient * r
        sums = windows((direct * x).div_(s), ctx.groups, band, None)
        return direct.addcmul_(x, sums, value=-1.5), None, None, None


class FastNorm(nn.Module):
    """What StreamNorm computes, by `Normalize`."""

    def __init__(self, channels, groups, banded, dtype):
        super().__init__()
        self.groups = groups
        self.register_buffer("twos", torch.full((channels,), 2.0, dtype=dtype))
        self.register_buffer("band", None)
        if banded:
            channel = torch.arange(channels // groups)
            near = (channel[:, None] - channel).abs() <= 2
            band = (near * 1e-4).repeat(groups, 1)[:, :, None, None]
            self.band = band.to(dtype)

    def forward(self, x):
        return Normalize.apply(x, self.groups, self.band, self.twos)


class BlockConv(nn.Module):
    """The first convolution over blocks of 4x4 pixels: 3x3 at stride 1 over 48 channels instead of 11x11
    at stride 4 over 3, which leave a GPU's matrix units idle. The kernels are padded to 12x12."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, blocks):
        kernels = F.pixel_unshuffle(F.pad(self.conv.weight, (0, 1, 0, 1)), 4)
        return F.conv2d(blocks, kernels, self.conv.bias)


class Halves(nn.Module):
    """Grouped convolutions as two dense ones each; what they yield stays two tensors until a layer reads
    both. Libraries are often slow at two groups."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        halves = None
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d) and layer.groups == 2:
                weights, biases = layer.weight.chunk(2), layer.bias.chunk(2)
                parts = zip(halves or x.chunk(2, 1), weights, biases)
                halves = [F.conv2d(half, w, b, padding=layer.padding) for half, w, b in parts]
            elif halves and isinstance(layer, (nn.Conv2d, nn.Flatten)):
                x, halves = layer(torch.cat(halves, 1)), None
            elif halves:
                halves = [layer(half) for half in halves]
            else:
                x = layer(x)
        return x


@dataclass(frozen=True)
class Variant:
    """One way to run the net."""

    about: str
    devices: tuple
    expert: bool = True  # channels last, images padded beforehand, FastNorm, fused SGD
    shifts: bool = False  # FastNorm without its band matrix
    blocks: bool = False  # BlockConv
    halves: bool = False  # Halves
    mode: Optional[str] = None  # of torch.compile
    graph: bool = False  # a CUDA graph of the whole step, the optimizer included


BOTH, CPU, CUDA = ("cpu", "cuda"), ("cpu",), ("cuda",)
TUNED = "max-autotune-no-cudagraphs"
# fmt: off
VARIANTS = {
    "eager": Variant("as anybody would write it", BOTH, expert=False),
    "expert": Variant(
        "channels last, normalization by convolution, conv1 over blocks, fused SGD", BOTH, blocks=True),
    "expert-compiled": Variant("expert, compiled", CPU, blocks=True, mode="default"),
    "graph": Variant("expert as a CUDA graph", CUDA, blocks=True, graph=True),
    "graph-halves": Variant(
        "the same without grouped convolutions", CUDA, blocks=True, halves=True, graph=True),
    "compiled": Variant("compiled and tuned", CUDA, shifts=True, mode=TUNED),
    "compiled-trees": Variant(
        "the same with the compiler's own CUDA graphs", CUDA, shifts=True, mode="max-autotune"),
    "compiled-graph": Variant(
        "compiled and tuned, as a CUDA graph", CUDA, shifts=True, mode=TUNED, graph=True),
    "compiled-blocks": Variant(
        "the same, conv1 over blocks", CUDA, shifts=True, blocks=True, mode=TUNED, graph=True),
    "compiled-halves": Variant(
        "the same without grouped convolutions", CUDA,
        shifts=True, blocks=True, halves=True, mode=TUNED, graph=True),
}
# fmt: on

# To choose a variant: the steps timed, those before them, and the seconds it may take in all.
TRIAL_STEPS = {"cpu": 3, "cuda": 20}
WARM_UP = {"cpu": 2, "cuda": 10}
TRIAL_SECONDS = 1200

# How far a variant may be from the plain one in fp32: its loss relatively, the others by the norm of the
# difference over the norm. Rounding that turns a single ReLU moves a gradient by 1e-3; a window of one
# channel more, or over both halves, by 1e-1 and more.
TOLERANCES = {
    "fp32": {"loss": 1e-5, "scores": 1e-5, "gradients": 1e-2},
    "tf32": {"loss": 1e-3, "scores": 1e-2, "gradients": 2e-1},
    "bf16": {"loss": 1e-2, "scores": 5e-2, "gradients": 5e-1},
}


def use_precision(precision):
    """Says what fp32 means on a GPU, in matrix products and in convolutions alike.

    By the older of PyTorch's two interfaces: torch.compile asks it, and they must not be mixed.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True


def arrange(net, images, variant, dtype):
    """The net as the variant runs it, on the parameters of `net`, and the images as it reads them."""
    if not variant.expert:
        return net, images
    layers = []
    for layer in net[1:]:
        if isinstance(layer, nn.Conv2d):
            conv = layer
        if isinstance(layer, StreamNorm):
            # The tensors its input comes as, each of one group of channels or of both.
            parts = 2 if variant.halves and conv.groups == 2 else 1
            layer = FastNorm(conv.out_channels // parts, 2 // parts, not variant.shifts, dtype)
        layers.append(layer)
    if variant.blocks:
        layers[0] = BlockConv(layers[0])
        images = F.pixel_unshuffle(F.pad(images, (0, 4, 0, 4)), 4)
    else:
        images = F.pad(images, (0, 3, 0, 3))
    net = Halves(layers) if variant.halves else nn.Sequential(*layers)
    last = torch.channels_last
    return net.to(memory_format=last), images.contiguous(memory_format=last)


def make_step(variant, args, checking=False):
    """The function that runs one full step and returns its loss, or with --inference the scores; and
    the parameters, in which a training step leaves its gradients.

    In a check nothing is dropped or learned, and the images are as large as pixels are, so that the
    normalization matters.
    """
    device, bf16 = args.device, args.precision == "bf16"
    if device == "cuda":
        use_precision(args.precision)
    torch.manual_seed(0)
    images = torch.randn(args.batch_size, 3, 224, 224) * (128 if checking else 1)
    labels = torch.randint(0, args.classes, (args.batch_size,)).to(device)
    dtype = torch.bfloat16 if bf16 else torch.float32
    net, images = arrange(alexnet(args.classes), images, variant, dtype)
    net, images = net.to(device).train(not (args.inference or checking)), images.to(device)
    if args.inference and variant.expert:  # training keeps fp32 weights beside bf16 arithmetic
        net, images = net.to(dtype), images.to(dtype)

    def infer():
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            return net(images)

    def loss():
        return F.cross_entropy(infer().float(), labels)

    run = infer if args.inference else loss
    if variant.mode:
        torch._dynamo.mark_static_address(images)  # or the compiler's CUDA graphs copy them
        run = torch.compile(run, mode=variant.mode, fullgraph=True, dynamic=False)
    parameters = list(net.parameters())
    if args.inference:
        step = inference_step(run)
    else:
        step = training_step(run, parameters, 0.0 if checking else 0.01, variant.expert or None)
    step = captured(step, parameters) if variant.graph else step
    return uploading(step, images) if device == "cuda" and not checking else step, parameters


def uploading(step, images):
    """The step after an upload of as many bytes as the images have values."""
    staged = torch.randint(0, 256, images.shape, dtype=torch.uint8)
    staged = staged.pin_memory() if images.is_cuda else staged

    def step_after_upload():
        with torch.no_grad():
            images.copy_(staged.to(images.device, non_blocking=True))
        return step()

    return step_after_upload


def inference_step(infer):
    """The forward pass with nothing kept for a way back."""

    def step():
        with torch.inference_mode():
            return infer()

    return step


def training_step(loss, parameters, rate, fused):
    """Everything from zero_grad to SGD; a fused one updates all parameters in one pass."""
    optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=5e-4, fused=fused)

    def step():
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def captured(step, parameters):
    """The step as a CUDA graph, which launches hundreds of kernels at the cost of one."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compiles, chooses algorithms, makes the optimizer's state
            step()
    torch.cuda.current_stream().wait_stream(side)
    for parameter in parameters:
        parameter.grad = None  # so that the gradients come to lie in the graph's own memory
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        result = step()

    def replay():
        graph.replay()
        return result

    return replay


def timed_ms(step, device, steps=1):
    """Milliseconds of one of so many steps, to the end of what they queued on a GPU."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return (time.perf_counter() - start) * 1e3 / steps


def bench(step, args, about, out):
    ms = [timed_ms(step, args.device) for _ in range(args.steps)]
    rate, least, most = (args.batch_size * 1e3 / of(ms) for of in (statistics.median, max, min))
    print(
        f"PyTorch {about['torch']}, {about['variant']}, {args.precision} on {args.device}, "
        f"{'inference' if args.inference else 'training'}, batch size {args.batch_size}, "
        f"{args.threads} threads, {'' if about['jemalloc'] else 'no '}jemalloc: "
        f"{rate:.2f} images/s (min {least:.2f}, max {most:.2f})",
        file=out,
    )


def serve(step, args, about, out):
    def answer(message):
        print(json.dumps(message), file=out, flush=True)

    answer(about)
    for line in sys.stdin:
        answer({"ms": timed_ms(step, args.device, int(line))})


def variants_here(args):
    """The names of the variants for this device."""
    return [name for name, variant in VARIANTS.items() if args.device in variant.devices]


def tell(text):
    print(f"bench_pytorch.py: {text}", file=sys.stderr, flush=True)


def trial(name, args):
    """Images per second of a variant, in a process of its own: whatever it does there, this one goes on.

    By its fastest step, as other programs on the machine can only make it slower.
    """
    command = [sys.executable, __file__, "--serve", "--variant", name]
    for option in ("device", "precision", "batch-size", "classes", "threads", "warm-up"):
        command += [f"--{option}", str(getattr(args, option.replace("-", "_")))]
    command += ["--inference"] if args.inference else []
    pipes = {"input": "1\n" * TRIAL_STEPS[args.device], "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=TRIAL_SECONDS, **pipes)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise RuntimeError(f"exit status {done.returncode}, {''.join(last)}")
    ms = [json.loads(line)["ms"] for line in done.stdout.splitlines()[1:]]
    return args.batch_size * 1e3 / min(ms)


def try_all(args):
    """Images per second of each variant that works here."""
    tried = {}
    for name in variants_here(args):
        try:
            tried[name] = round(trial(name, args), 2)
            tell(f"{name}: {tried[name]} images/s")
        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
            tell(f"{name} is skipped: {error}")
    if not tried:
        sys.exit("bench_pytorch.py: no variant works here")
    return tried


def difference(value, wanted):
    """The norm of the difference over the norm; infinite where there are NaNs."""
    value, wanted = value.detach().float().cpu(), wanted.detach().float().cpu()
    off = ((value - wanted).norm() / wanted.norm()).item()
    return math.inf if math.isnan(off) else off


def results(name, args):
    """What a step of the variant computes: loss and gradients, or scores.

    Of the fourth step: a compiler's CUDA graph is recorded in the second.
    """
    step, parameters = make_step(VARIANTS[name], args, checking=True)
    for _ in range(3):
        step()
    value = step().clone()
    if args.inference:
        return {"scores": [value]}
    return {"loss": [value], "gradients": [parameter.grad.clone() for parameter in parameters]}


def check(args, out):
    """Compares each variant with the plain one in fp32; returns whether all agree."""
    plain = copy.copy(args)
    plain.precision = "fp32"
    wanted = results("eager", plain)
    most = TOLERANCES[args.precision]
    limits = ", ".join(f"{what} within {most[what]:.0e}" for what in wanted)
    print(f"{args.device}, {args.precision}, batch size {args.batch_size}: {limits}", file=out)
    good = True
    for name in variants_here(args):
        torch._dynamo.reset()
        try:
            found = results(name, args)
        except Exception as error:
            print(f"{name:16} does not run here: {brief(error)}", file=out, flush=True)
            continue
        off = {what: max(map(difference, found[what], wanted[what])) for what in wanted}
        agrees = all(off[what] <= most[what] for what in off)
        good = good and agrees
        text = ", ".join(f"{what} {by:.1e}" for what, by in off.items())
        print(f"{name:16} {text}: {'ok' if agrees else 'OFF'}", file=out, flush=True)
    return good


def brief(error):
    """An error in one line: PyTorch's are pages."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def instructions():
    """The CPU's instructions that PyTorch uses, and what oneDNN, which makes the convolutions, is held to."""
    held = os.environ.get("ONEDNN_MAX_CPU_ISA")
    onednn = f", oneDNN at most {held}" if held else ""
    return torch.backends.cpu.get_cpu_capability() + onednn


def list_variants():
    for name, variant in VARIANTS.items():
        print(f"{name:16} {'+'.join(variant.devices):9} {variant.about}")


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="128, or 8 in a check")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), metavar="N")
    parser.add_argument("--classes", type=positive, default=1000, metavar="N")
    parser.add_argument("--steps", type=positive, default=5, metavar="N", help="steps to time")
    parser.add_argument("--warm-up", type=int, metavar="N", help="steps before, untimed")
    parser.add_argument("--inference", action="store_true", help="the forward pass alone")
    parser.add_argument("--variant", choices=["best", *VARIANTS], default="best")
    parser.add_argument("--serve", action="store_true", help="so many steps for each line of input")
    parser.add_argument("--check", action="store_true", help="compare what the variants compute")
    parser.add_argument("--list", action="store_true", help="tell the variants")
    args = parser.parse_args()
    if args.batch_size is None:
        args.batch_size = 8 if args.check else 128
    if args.warm_up is None:
        args.warm_up = WARM_UP[args.device]
    if args.precision == "tf32" and args.device == "cpu":
        parser.error("tf32 needs --device cuda")
    if args.variant != "best" and args.device not in VARIANTS[args.variant].devices:
        parser.error(f"{args.variant} is not for --device {args.device}")
    return args


def prepared(name, args):
    """The variant's step, warm."""
    try:
        step, _ = make_step(VARIANTS[name], args)
        for _ in range(args.warm_up):
            step()
        return step
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"bench_pytorch.py: {brief(error)}")  # the last line, which `trial` passes on


def main():
    args = arguments()
    if args.list:
        return list_variants()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench_pytorch.py: this PyTorch finds no CUDA GPU")
    # Standard output is for answers alone: what PyTorch and compilers print goes to standard error.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(args.threads)
    if args.check:
        return 0 if check(args, out) else 1
    jemalloc = has_jemalloc()
    if args.device == "cpu" and not jemalloc:
        tell("without jemalloc, which makes PyTorch faster on the CPU (Debian: libjemalloc2)")
    tried = try_all(args) if args.variant == "best" else {}
    name = max(tried, key=tried.get) if tried else args.variant
    step = prepared(name, args)
    about = {
        "torch": torch.__version__,
        "variant": name,
        "device": args.device,
        "precision": args.precision,
        "instructions": instructions(),
        "threads": args.threads,
        "batch_size": args.batch_size,
        "jemalloc": jemalloc,
        "tried": tried,
    }
    (serve if args.serve else bench)(step, args, about, out)


if __name__ == "__main__":
    sys.exit(main())
