"""Claim: holding masks costs at most 3% of a training step.

    python benchmarks/hold.py                     ResNet-18, 64-pixel images, batch 32, one thread
    python benchmarks/hold.py --device cuda       the same on a GPU, in seconds of the clock

Two copies of one network take steps in turns, a held one between two others. Told are the median of
the ratios to the mean of the steps before and after it, and their quartiles. On a CPU
it is processor time, so that what else runs on the machine counts less.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from timing import finished, machine, markdown
from torch import nn, optim

import secateurs as sc
from secateurs.training import hold

OPTIMIZERS: dict[str, Callable[[nn.Module], optim.Optimizer]] = {
    "SGD, momentum": lambda model: optim.SGD(model.parameters(), 0.01, momentum=0.9),
    "AdamW": lambda model: optim.AdamW(model.parameters(), 1e-4),
    "AdamW, amsgrad": lambda model: optim.AdamW(model.parameters(), 1e-4, amsgrad=True),
    "AdamW, fused": lambda model: optim.AdamW(model.parameters(), 1e-4, fused=True),
}


def stepping(name: str, masks: bool, arguments: argparse.Namespace) -> Callable[[], object]:
    torch.manual_seed(0)
    model = torchvision.models.resnet18().to(arguments.device)
    sc.global_prune(model, arguments.p_prune, granularity=arguments.granularity)
    optimizer = OPTIMIZERS[name](model)
    if masks:
        hold(model, optimizer)
    x = torch.randn(arguments.batch, 3, arguments.pixels, arguments.pixels, device=arguments.device)
    labels = torch.randint(0, 1000, (arguments.batch,), device=arguments.device)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def measure(
    name: str, arguments: argparse.Namespace, clock: Callable[[], float]
) -> tuple[float, list[float]]:
    """The median seconds of a plain step, and the quartiles of a held one's ratios to it."""
    plain = stepping(name, False, arguments)
    held = stepping(name, True, arguments)

    def timed(step: Callable[[], object]) -> float:
        finished(None)
        began = clock()
        finished(step())
        return clock() - began

    for step in (plain, held, plain, held):  # to warm up
        step()
    before = timed(plain)
    seconds, ratios = [before], list[float]()
    for _ in range(arguments.rounds):
        taken, after = timed(held), timed(plain)
        ratios.append(2 * taken / (before + after))
        seconds.append(after)
        before = after
    return statistics.median(seconds), statistics.quantiles(ratios, n=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--p-prune", type=float, default=0.8)
    parser.add_argument("--granularity", default="weight")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time if arguments.device == "cpu" else time.perf_counter
    rows = []
    for name in OPTIMIZERS:
        seconds, quartiles = measure(name, arguments, clock)
        rows.append((name, f"{1e3 * seconds:.1f}", *(f"{ratio:.3f}" for ratio in quartiles)))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(
        f"ResNet-18, batch {arguments.batch}, {arguments.pixels} pixels, {machine()}; load {load}\n"
    )
    print(markdown(("optimizer", "plain, ms", "held: quarter", "median", "three quarters"), rows))


if __name__ == "__main__":
    main()
