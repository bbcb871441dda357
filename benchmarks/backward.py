"""What a pruned backward pass saves of training: a step, or whole trainings with their accuracy.

    python benchmarks/backward.py                     a step of three networks, filters pruned
    python benchmarks/backward.py --table accuracy    accuracy of an MLP on MNIST against ratio

Steps: a VGG-like network and a ResNet-20 twice as wide on batches in the shape of CIFAR-10, and the
MLP 784-500-500-10 in MNIST's, with SGD and momentum. ``secateurs.training.GradientPruner`` prunes
whole filters of each layer but the last by magnitude; dense and pruned steps in turns; medians of
the ratios dense / pruned of neighbours. Wall clock, and processor time of all threads, which other
work on the machine disturbs less.

Accuracy: rows (``--csv``) of ratio, granularity, score, refresh and seed with the test accuracy
after equal epochs and the processor time; what is in the file already is not run again.
"""

import argparse
import csv
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import machine, markdown
from torch import Tensor, nn

from secateurs.training import GradientPruner

HEAD = ("ratio", "granularity", "score", "refresh", "seed", "epochs", "top1", "processor_seconds")


def vgg() -> nn.Module:
    """3 x 3 convolutions with 64 to 256 channels, a norm after each."""
    layers: list[nn.Module] = []
    before = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 0):
        if width:
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
            layers.append(nn.ReLU())
            before = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


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


def mlp() -> nn.Module:
    """784-500-500-10."""
    return nn.Sequential(
        nn.Linear(784, 500), nn.ReLU(), nn.Linear(500, 500), nn.ReLU(), nn.Linear(500, 10)
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
    yield "VGG-like", vgg, torch.randn(batch, 3, 32, 32), [0.5, 0.75]
    yield "ResNet-20, width 32", lambda: resnet20(32), torch.randn(batch, 3, 32, 32), [0.5, 0.75]
    yield "MLP 784-500-500-10", mlp, torch.randn(max(batch, 128), 784), [0.9, 0.95, 0.98]


def steps(arguments: argparse.Namespace) -> None:
    rows: list[tuple[str, ...]] = []
    for name, build, images, ratios in networks(arguments.batch_size):
        if arguments.only and not name.startswith(arguments.only):
            continue
        labels = torch.randint(0, 10, (len(images),))
        for ratio, gradient in itertools.product(ratios, ("dense", "masked")):
            rows.append((name, f"{ratio:g}", gradient))
            rows[-1] += compared(build, images, labels, ratio, gradient, arguments.rounds)
            print(rows[-1], flush=True)
    head = ("network", "ratio", "weight gradient", "dense, ms", "wall", "processor time")
    print(f"\nBatch {arguments.batch_size}, {machine()}\n")
    print(markdown(head, rows))


def compared(
    build: Callable[[], nn.Module], images: Tensor, labels: Tensor, ratio: float, gradient: str,
    rounds: int,
) -> tuple[str, ...]:  # fmt: skip
    """Milliseconds of a dense step, and how many times faster a pruned one is."""
    torch.manual_seed(0)
    dense, pruned = build(), build()
    last = [name for name, _ in pruned.named_parameters() if name.endswith("weight")][-1]
    GradientPruner(
        pruned, ratio, granularity="filter", scope="layer", exclude=last, weight_gradient=gradient
    )
    functions = [partial(step, model, learner(model), images, labels) for model in (dense, pruned)]
    seen: list[list[tuple[float, float]]] = [[], []]
    for number in range(rounds + 2):
        for taken, function in zip(seen, functions, strict=True):
            seconds = timed(function)
            if number > 1:  # the first rounds warm up
                taken.append(seconds)
    faster = [statistics.median(d[i] / p[i] for d, p in zip(*seen, strict=True)) for i in (0, 1)]
    milliseconds = 1e3 * statistics.median(processor for _, processor in seen[0])
    return f"{milliseconds:.1f}", f"{faster[0]:.2f}x", f"{faster[1]:.2f}x"


def mnist(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import MNIST

    data = MNIST(folder, train=train)
    images = data.data.view(len(data.data), -1).float() / 255
    return (images - 0.1307) / 0.3081, data.targets


def trained(
    ratio: float, granularity: str, score: str, refresh: int, seed: int, epochs: int, folder: Path
) -> tuple[float, float]:
    """Test accuracy in percent, and processor seconds of training."""
    (images, labels), (test, answers) = mnist(folder, True), mnist(folder, False)
    torch.manual_seed(seed)
    model = mlp()
    optimizer = learner(model)
    pruner = None
    if ratio:
        pruner = GradientPruner(
            model, ratio, granularity=granularity, scope="layer", exclude="4", score=score,
            seed=seed, refresh=refresh or None, weight_gradient="masked",
        )  # fmt: skip
    began = time.process_time()
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(128):
            step(model, optimizer, images[batch], labels[batch])
            if pruner is not None:
                pruner.step()
    seconds = time.process_time() - began
    with torch.no_grad():
        right = (model(test).argmax(1) == answers).float().mean()
    return 100 * float(right), seconds


def accuracy(arguments: argparse.Namespace) -> None:
    file = Path(arguments.csv)
    done = set()
    if file.is_file():
        with file.open() as lines:
            done = {tuple(row[name] for name in HEAD[:6]) for row in csv.DictReader(lines)}
    else:
        file.write_text(",".join(HEAD) + "\n")
    grid = itertools.product(
        arguments.ratios, ("weight", "filter"), ("magnitude", "random"), (0, 100), range(3)
    )
    dense = ((0.0, "weight", "magnitude", 0, seed) for seed in range(3))
    for row in (*dense, *grid):
        key = tuple(map(str, (*row, arguments.epochs)))
        if key in done:
            continue
        found = trained(*row, arguments.epochs, Path(arguments.data))
        with file.open("a") as lines:
            csv.writer(lines).writerow((*key, f"{found[0]:.2f}", f"{found[1]:.1f}"))
        print(*key, *found, flush=True)


TABLES = {"step": steps, "accuracy": accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=TABLES, default="step")
    parser.add_argument("--only", help="the networks whose name begins so")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.75, 0.9, 0.95, 0.98])
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--csv", default="backward.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    TABLES[arguments.table](arguments)


if __name__ == "__main__":
    main()
