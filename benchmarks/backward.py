"""What a pruned backward pass saves of a training step; backward_accuracy.py shows what it costs.

    python benchmarks/backward.py                                      whole filters
    python benchmarks/backward.py --only MLP --granularity weight      single weights
    python benchmarks/backward.py --granularity kernel --ratios 0.95 0.98   kernels of convolutions
    python benchmarks/backward.py --channels-last                   in this order of memory

VGG-like networks of 64 to 256 and 128 to 512 channels and a ResNet-20 twice as wide as usual on
batches in the shape of CIFAR-10, and the MLPs 784-500-500-10 and 784-2048-2048-10 in MNIST's, with
SGD and momentum.
``secateurs.training.GradientPruner`` prunes units of each layer but the last by magnitude; dense
and pruned steps in turns; medians of the ratios dense / pruned of neighbours. Wall clock, and
processor time of all threads, which other work on the machine disturbs less.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from timing import machine, markdown
from torch import Tensor, nn

from secateurs.training import GradientPruner


def vgg(width: int = 64) -> nn.Module:
    """3 x 3 convolutions with ``width`` to four times as many channels, a norm after each."""
    layers: list[nn.Module] = []
    before = 3
    for channels in (width, 2 * width, 4 * width):
        for _ in range(2):
            layers += [nn.Conv2d(before, channels, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        same = before == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (out + self.shortcut(x)).relu()


def resnet20(width: int = 64) -> nn.Module:
    """ResNet-20 (He et al. 2016, section 4.2) whose first stage has ``width`` channels."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
    before = width
    for stage, number in itertools.product(range(3), range(3)):
        after = width << stage
        layers.append(Block(before, after, 2 if stage and not number else 1))
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def mlp(width: int = 500) -> nn.Module:
    """784-width-width-10."""
    return nn.Sequential(
        nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def learner(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()


def timed(function: Callable[[], None]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def networks(batch: int) -> Iterator[tuple[str, Callable[[], nn.Module], Tensor, list[float]]]:
    images = torch.randn(batch, 3, 32, 32)
    yield "VGG-like, width 64", vgg, images, [0.5, 0.75]
    yield "VGG-like, width 128", lambda: vgg(128), images, [0.5, 0.75]
    yield "ResNet-20, width 32", lambda: resnet20(32), images, [0.5, 0.75]
    yield "MLP 784-500-500-10", mlp, torch.randn(128, 784), [0.9, 0.95, 0.98]
    wide = partial(mlp, 2048)
    yield "MLP 784-2048-2048-10", wide, torch.randn(256, 784), [0.9, 0.95, 0.98]


def steps(arguments: argparse.Namespace) -> None:
    rows: list[tuple[str, ...]] = []
    for name, build, images, ratios in networks(arguments.batch_size):
        if arguments.only and not name.startswith(arguments.only):
            continue
        labels = torch.randint(0, 10, (len(images),))
        for ratio, gradient in itertools.product(arguments.ratios or ratios, ("dense", "masked")):
            rows.append((name, f"{ratio:g}", gradient))
            rows[-1] += compared(build, images, labels, ratio, gradient, arguments)
            print(rows[-1], flush=True)
    head = ("network", "ratio", "weight gradient", "dense, ms", "wall", "processor time")
    print(f"\nBatch {arguments.batch_size}, {machine()}\n")
    print(markdown(head, rows))


def compared(
    build: Callable[[], nn.Module], images: Tensor, labels: Tensor, ratio: float, gradient: str,
    arguments: argparse.Namespace,
) -> tuple[str, ...]:  # fmt: skip
    """Milliseconds of a dense step, and how many times faster a pruned one is."""
    torch.manual_seed(0)
    dense, pruned = build(), build()
    if arguments.channels_last and images.dim() == 4:
        images = images.to(memory_format=torch.channels_last)
        dense, pruned = (m.to(memory_format=torch.channels_last) for m in (dense, pruned))
    last = [name for name, _ in pruned.named_parameters() if name.endswith("weight")][-1]
    GradientPruner(
        pruned, ratio, granularity=arguments.granularity, scope="layer", exclude=last,
        weight_gradient=gradient,
    )  # fmt: skip
    functions = [partial(step, model, learner(model), images, labels) for model in (dense, pruned)]
    seen: list[list[tuple[float, float]]] = [[], []]
    for number in range(arguments.rounds + 2):
        for taken, function in zip(seen, functions, strict=True):
            seconds = timed(function)
            if number > 1:  # the first rounds warm up
                taken.append(seconds)
    faster = [statistics.median(d[i] / p[i] for d, p in zip(*seen, strict=True)) for i in (0, 1)]
    milliseconds = 1e3 * statistics.median(processor for _, processor in seen[0])
    return f"{milliseconds:.1f}", f"{faster[0]:.2f}x", f"{faster[1]:.2f}x"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--granularity", default="filter")
    parser.add_argument("--only", help="the networks whose name begins so")
    parser.add_argument("--ratios", type=float, nargs="+", help="others than each network's own")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps(arguments)


if __name__ == "__main__":
    main()
