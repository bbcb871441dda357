"""What a pruned backward pass costs in accuracy, after equal epochs beside dense training.

    python benchmarks/backward_accuracy.py mlp        784-500-500-10 on MNIST, weights and filters
    python benchmarks/backward_accuracy.py lenet5     on MNIST, kernels
    python benchmarks/backward_accuracy.py vgg        on CIFAR-10 at a half of the width, filters
    python benchmarks/backward_accuracy.py vgg64      the same at its full width; also vgg128
    python benchmarks/backward_accuracy.py resnet20   on CIFAR-10 at twice the usual width, filters

``secateurs.training.GradientPruner`` prunes each layer but the last, by magnitude or at random,
chosen once (refresh 0) or anew every so many steps; weight gradients are masked, or dense. SGD with
momentum whose rate falls to 0 along half a cosine. A row of ``--csv`` has the accuracy on the test
images at the end, by which nothing is chosen, and the processor time of the training; a row that is
there already is not run again.
"""

import argparse
import csv
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from backward import learner, mlp, resnet20, step, vgg
from torch import Tensor, nn
from torch.utils.data import DataLoader

from secateurs.training import GradientPruner
from secateurs.zoo import load_data, load_model

HEAD = (
    "network", "ratio", "granularity", "score", "refresh", "weight_gradient", "seed", "epochs",
    "images", "top1", "processor_seconds",
)  # fmt: skip
NETWORKS = {
    "mlp": (mlp, "mnist", ("weight", "filter")),
    "lenet5": (lambda: load_model("lenet5", weights="random").model, "mnist", ("kernel",)),
    "vgg": (lambda: vgg(32), "cifar10", ("filter",)),
    "vgg64": (lambda: vgg(64), "cifar10", ("filter",)),
    "vgg128": (lambda: vgg(128), "cifar10", ("filter",)),
    "resnet20": (lambda: resnet20(32), "cifar10", ("filter",)),
}
PREPROCESSED_FOR = {"mnist": "lenet5", "cifar10": "resnet20"}
"""The network of the zoo whose preprocessing the images of a data set get."""


class Setting(NamedTuple):
    """What is pruned in one training."""

    ratio: float
    granularity: str
    score: str
    refresh: int
    weight_gradient: str
    seed: int


def images_of(name: str, split: str, folder: Path, limit: int | None) -> tuple[Tensor, Tensor]:
    """All images of a data set, normalised, and their classes."""
    model = load_model(PREPROCESSED_FOR[name], weights="random")
    source = folder / "cifar10-jpeg" if name == "cifar10" else name
    data = load_data(source, model=model, split=split, data_root=folder, limit=limit)
    batches = list(DataLoader(data.dataset, batch_size=1000))
    return torch.cat([images for images, _ in batches]), torch.cat([which for _, which in batches])


def trained(
    name: str, setting: Setting, images: Tensor, labels: Tensor, epochs: int
) -> tuple[nn.Module, float]:
    """A network, and the processor seconds of its training."""
    torch.manual_seed(setting.seed)
    model = NETWORKS[name][0]().train()
    optimizer = learner(model)
    pruner = None
    if setting.ratio:
        last = [name for name, _ in model.named_parameters() if name.endswith("weight")][-1]
        pruner = GradientPruner(
            model, setting.ratio, granularity=setting.granularity, scope="layer", exclude=last,
            score=setting.score, seed=setting.seed, refresh=setting.refresh or None,
            weight_gradient=setting.weight_gradient,
        )  # fmt: skip
    batch = 128 if len(images) > 20000 else 64
    total = epochs * math.ceil(len(images) / batch)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    began = time.process_time()
    for _ in range(epochs):
        for which in torch.randperm(len(images)).split(batch):
            step(model, optimizer, images[which], labels[which])
            rates.step()
            if pruner is not None:
                pruner.step()
    return model, time.process_time() - began


def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        right = [
            (model(part).argmax(1) == answers).sum()
            for part, answers in zip(images.split(500), labels.split(500), strict=True)
        ]
    return 100 * float(torch.stack(right).sum()) / len(images)


def settings(arguments: argparse.Namespace) -> Iterator[Setting]:
    granularities = NETWORKS[arguments.network][2]
    for seed in arguments.seeds:
        yield Setting(0.0, granularities[0], "magnitude", 0, "dense", seed)
    for row in itertools.product(
        arguments.ratios, granularities, arguments.scores, arguments.refresh,
        arguments.weight_gradient, arguments.seeds,
    ):  # fmt: skip
        yield Setting(*row)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument(
        "--ratios", type=float, nargs="*", default=[0.5, 0.75, 0.9, 0.95, 0.98],
        help="pruned; none: train the dense network alone",
    )  # fmt: skip
    parser.add_argument("--scores", nargs="+", default=["magnitude", "random"])
    parser.add_argument("--refresh", type=int, nargs="+", default=[0, 100], help="steps")
    parser.add_argument("--weight-gradient", nargs="+", default=["masked"], help="masked, dense")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, help="train on this many images")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--csv", type=Path, default=Path("backward.csv"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done: set[tuple[str, ...]] = set()
    if arguments.csv.is_file():
        with arguments.csv.open() as lines:
            done = {tuple(row[name] for name in HEAD[:9]) for row in csv.DictReader(lines)}
    else:
        arguments.csv.write_text(",".join(HEAD) + "\n")
    data = NETWORKS[arguments.network][1]
    images, labels = images_of(data, "train", arguments.data, arguments.limit)
    test, answers = images_of(data, "test", arguments.data, None)
    if arguments.network == "mlp":
        images, test = images.flatten(1), test.flatten(1)
    for setting in settings(arguments):
        key = tuple(map(str, (arguments.network, *setting, arguments.epochs, len(images))))
        if key in done:
            continue
        model, seconds = trained(arguments.network, setting, images, labels, arguments.epochs)
        found = (f"{top1(model, test, answers):.2f}", f"{seconds:.1f}")
        with arguments.csv.open("a") as lines:
            csv.writer(lines).writerow((*key, *found))
        print(*key, *found, flush=True)


if __name__ == "__main__":
    main()
