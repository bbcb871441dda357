"""Claim: pruning the backward pass costs at most 5% of a forward and backward pass.

Forward and backward pass of torchvision's resnet50 (random weights, ``eval()`` mode, the gradient
of the sum of the scores towards the images and all weights) under ``secateurs.gradient_prune``,
beside the same network dense. Two copies of one network, in turns; wall clock, and the processor
time of all threads, which other work on the machine disturbs less.

    python benchmarks/gradient.py [--rounds 9] [--ratio 0.5] [--batch-size 8] [--threads 2]
        [--granularity weight] [--device cpu]
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from timing import machine
from torch import nn

import secateurs as sc

Seconds = tuple[float, float]


def step(model: nn.Module, images: torch.Tensor) -> None:
    images.grad = None
    model.zero_grad()
    model(images).sum().backward()
    if images.is_cuda:
        torch.cuda.synchronize()


def timed(function: Callable[[], None]) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--granularity", default="weight")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dense = torchvision.models.resnet50().eval().to(options.device)
    pruned = sc.gradient_prune(copy.deepcopy(dense), options.ratio, granularity=options.granularity)
    shape = (options.batch_size, 3, 224, 224)
    images = torch.randn(shape, device=options.device).requires_grad_()
    networks = {"dense": dense, "gradient_prune": pruned, "dense again": dense}
    taken: dict[str, list[Seconds]] = {name: [] for name in networks}
    for number in range(options.rounds + 1):
        for name, model in networks.items():
            seconds = timed(lambda model=model: step(model, images))
            if number:  # the first round warms up
                taken[name].append(seconds)
    wall, processor = (
        {name: statistics.median(each[i] for each in times) for name, times in taken.items()}
        for i in (0, 1)
    )
    print(
        f"resnet50, {options.batch_size} images, ratio {options.ratio}, granularity "
        f"{options.granularity}, {options.device}; {machine()}\n"
    )
    print("| network | wall, ms | times dense | processor, ms | times dense |")
    print("|---|---:|---:|---:|---:|")
    for name in networks:
        print(
            f"| {name} | {1e3 * wall[name]:.0f} | {wall[name] / wall['dense']:.3f} "
            f"| {1e3 * processor[name]:.0f} | {processor[name] / processor['dense']:.3f} |"
        )


if __name__ == "__main__":
    main()
