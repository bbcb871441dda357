"""Claim: holding masks costs about 2 to 5% of a training step.

    python benchmarks/hold.py                     ResNet-18, 64-pixel images, batch 32, one thread
    python benchmarks/hold.py --device cuda       the same on a GPU, in seconds of the clock

Two copies of one network take steps in turns, a held one between two others. Told are the median of
the ratios to the mean of the steps before and after it, and their quartiles; and what is spent in
the hooks themselves, which varies less than a whole step on a busy machine. On a CPU it is
processor time.

To mask gradients before a step of Adam instead of its states after it would halve the time in the
hooks, but on a CPU the step itself then takes up to 1.7 times as long (57 and 97 ms): torch's
square root takes seven times as long where four of five second moments are exactly zero.
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


def stepping(
    name: str, masks: bool, arguments: argparse.Namespace, spent: list[float]
) -> Callable[[], object]:
    """A step; ``spent`` gets the seconds of each call of the hooks."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18().to(arguments.device)
    sc.global_prune(model, arguments.p_prune, granularity=arguments.granularity)
    optimizer = OPTIMIZERS[name](model)
    if masks:
        held = hold(model, optimizer)
        for hook in ("before_step", "after_step"):
            setattr(held, hook, timing(getattr(held, hook), spent))
    x = torch.randn(arguments.batch, 3, arguments.pixels, arguments.pixels, device=arguments.device)
    labels = torch.randint(0, 1000, (arguments.batch,), device=arguments.device)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def timing(hook: Callable[..., object], spent: list[float]) -> Callable[..., object]:
    def call(*args: object) -> object:
        began = time.process_time()
        result = hook(*args)
        spent.append(time.process_time() - began)
        return result

    return call


def measure(
    name: str, arguments: argparse.Namespace, clock: Callable[[], float]
) -> tuple[float, list[float], float]:
    """Seconds of a plain step, quartiles of a held one's ratios to it, share of the hooks."""
    spent: list[float] = []
    plain = stepping(name, False, arguments, spent)
    held = stepping(name, True, arguments, spent)

    def timed(step: Callable[[], object]) -> float:
        finished(None)
        began = clock()
        finished(step())
        return clock() - began

    for step in (plain, held, plain, held):  # to warm up
        step()
    spent.clear()
    before = timed(plain)
    seconds, ratios = [before], list[float]()
    for _ in range(arguments.rounds):
        taken, after = timed(held), timed(plain)
        ratios.append(2 * taken / (before + after))
        seconds.append(after)
        before = after
    hooks = [sum(pair) for pair in zip(spent[::2], spent[1::2], strict=True)]
    usual = statistics.median(seconds)
    return usual, statistics.quantiles(ratios, n=4), statistics.median(hooks) / usual


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
        seconds, quartiles, hooks = measure(name, arguments, clock)
        ratios = (f"{ratio:.3f}" for ratio in quartiles)
        rows.append((name, f"{1e3 * seconds:.1f}", *ratios, f"{100 * hooks:.2f}%"))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(
        f"ResNet-18, batch {arguments.batch}, {arguments.pixels} pixels, {machine()}; load {load}\n"
    )
    head = ("optimizer", "plain, ms", "held: quarter", "median", "three quarters", "hooks")
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
