"""Claim: on a CPU, training with the channels last in memory is often faster, hardly ever slower.

    python benchmarks/memory_format.py

Steps of SGD with momentum, in turns, of copies of one network that differ in their memory format
and in whether they compute in bfloat16 (``--amp`` of ``secateurs retrain``); medians of the
processor's time, one thread. ``secateurs retrain`` trains convolutional networks with the channels
last; what it does is `secateurs.outputs.use_channels_last`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from timing import machine, markdown
from torch import Tensor, nn

from secateurs.outputs import use_channels_last
from secateurs.zoo import load_model

NETWORKS = {
    "lenet5": (128, 1, 28),
    "resnet20": (128, 3, 32),
    "torchvision:resnet18": (32, 3, 64),
    "torchvision:mobilenet_v3_small": (32, 3, 64),
    "torchvision:squeezenet1_1": (16, 3, 112),
    "timm:tf_efficientnet_lite0": (16, 3, 112),
}
"""Networks, and the number, channels and pixels of their images."""


def step(model: nn.Module, learner: torch.optim.Optimizer, images: Tensor, amp: bool) -> None:
    labels = torch.arange(len(images)) % 10
    learner.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        loss = nn.functional.cross_entropy(model(images).float(), labels)
    loss.backward()
    learner.step()


def steps_of(name: str) -> Iterator[Callable[[], None]]:
    """Steps in float32 and in bfloat16, each in the usual format and with channels last."""
    count, channels, pixels = NETWORKS[name]
    images = torch.randn(count, channels, pixels, pixels)
    for amp in (False, True):
        for last in (False, True):
            model = load_model(name, weights="random").model.train()
            if last:
                use_channels_last(model, images)
            learner = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
            yield partial(step, model, learner, images, amp)


def seconds(function: Callable[[], None]) -> float:
    began = time.process_time()
    function()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[str, ...]] = []
    for name in arguments.networks:
        functions = list(steps_of(name))
        for function in functions:  # to warm up
            function()
        rounds = [[seconds(each) for each in functions] for _ in range(arguments.rounds)]
        usual, last, amp, amp_last = map(statistics.median, zip(*rounds, strict=True))
        rows.append((name, f"{1e3 * usual:.0f}", f"{usual / last:.2f}x"))
        rows[-1] += f"{1e3 * amp:.0f}", f"{amp / amp_last:.2f}x"
        print(rows[-1], flush=True)
    head = ("network", "float32, ms", "channels last", "bfloat16, ms", "channels last")
    print(f"\n{machine()}\n")
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
