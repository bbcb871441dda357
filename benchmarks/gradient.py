"""Claim: pruning the backward pass costs at most 3% of a forward and backward pass.

That is of resnet50, 8 images; of mobilenet_v3_small, 1 image, at most 10%.

Forward and backward pass of a network of torchvision's (random weights, ``eval()`` mode, the
gradient of the sum of the scores towards the images and all weights) under
``secateurs.gradient_prune``, beside the same network dense. Two copies of one network, in turns;
medians of the ratios to the mean of the dense steps before and after. Wall clock, and the processor
time of all threads, which other work on the machine disturbs less.

    python benchmarks/gradient.py [--network resnet50] [--rounds 15] [--ratio 0.5] [--batch-size 8]
        [--threads 1] [--granularity weight] [--device cpu]
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

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
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--granularity", default="weight")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    dense = torchvision.models.get_model(options.network).eval().to(options.device)
    pruned = sc.gradient_prune(copy.deepcopy(dense), options.ratio, granularity=options.granularity)
    shape = (options.batch_size, 3, 224, 224)
    images = torch.randn(shape, device=options.device).requires_grad_()
    taken: list[list[Seconds]] = []
    for number in range(options.rounds + 2):
        seconds = [timed(partial(step, model, images)) for model in (dense, pruned, dense)]
        if number > 1:  # the first rounds warm up
            taken.append(seconds)
    print(
        f"{options.network}, {options.batch_size} images, ratio {options.ratio}, granularity "
        f"{options.granularity}, {options.device}; {machine()}\n"
    )
    print("| clock | dense, ms | times dense |")
    print("|---|---:|---:|")
    for i, clock in enumerate(("wall", "processor")):
        milliseconds = 1e3 * statistics.median(before[i] for before, _, _ in taken)
        ratio = statistics.median(2 * ours[i] / (a[i] + b[i]) for a, ours, b in taken)
        print(f"| {clock} | {milliseconds:.0f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
