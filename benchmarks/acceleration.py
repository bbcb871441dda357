"""Claim: accelerate pays at 90% zeros where linear layers or 1 x 1 convolutions dominate.

    python benchmarks/acceleration.py                          all, batch 1 and 16, 1 and 2 threads
    python benchmarks/acceleration.py --networks vit --batches 1 --threads 1
    python benchmarks/acceleration.py --models DIR             trained networks from a folder

Of each network four copies run in turns: dense, dense with the channels last in memory, every
layer with zeros as MKL's CSR whatever that costs, and accelerated, which is chosen by timing. Told
are the dense milliseconds, and how many times as fast the others are (above 1 is faster): the
median of a round's ratios. With one thread it is processor time.
"""

import argparse
import copy
import os
from collections.abc import Callable
from pathlib import Path

import torch
from timing import machine, markdown
from torch import nn

import secateurs as sc
from secateurs.acceleration import Stopwatch
from secateurs.acceleration.stopwatch import Functions
from secateurs.zoo import load_model

# Name: what is loaded, the trained weights if there are some, and the size of an input.
NETWORKS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "lenet300": ("lenet300", "", (1, 28, 28)),
    "lenet5": ("lenet5", "", (1, 28, 28)),
    "resnet20": ("resnet20", "resnet20_cifar10", (3, 32, 32)),
    "lite0": ("timm:tf_efficientnet_lite0", "tf_efficientnet_lite0", (3, 224, 224)),
    "vit": ("timm:vit_small_patch16_224", "", (3, 224, 224)),
}


def load(name: str, models: Path | None) -> nn.Module:
    spec, file, _ = NETWORKS[name]
    path = models / f"{file}.safetensors" if models and file else None
    torch.manual_seed(0)
    weights = path if path and path.is_file() else "random"
    return load_model(spec, weights=weights).model.eval()


def sparse_everywhere(functions: Functions) -> dict[str, float]:
    """Seconds by which every sparse product looks fast, so that all of them are taken."""
    fast = ("csr", "im2col csr", "accelerated")
    return {name: 0.1 if name in fast else 1.0 for name in functions}


def run(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return model(images)

    return call


def measure(network: nn.Module, images: torch.Tensor, threads: int, rounds: int) -> list[str]:
    torch.set_num_threads(threads)
    last, csr, fast = (copy.deepcopy(network) for _ in range(3))
    last.to(memory_format=torch.channels_last)
    sc.accelerate(csr, images, measure=sparse_everywhere)
    made = sc.accelerate(fast, images)
    taken = sum(layer.chosen != "dense" for layer in made.layers)
    functions = {
        "dense": run(network, images),
        "channels last": run(last, images.contiguous(memory_format=torch.channels_last)),
        "csr": run(csr, images),
        "accelerated": run(fast, images),
    }
    seconds = Stopwatch(torch.device("cpu"), threads, rounds)(functions)
    gains = [f"{seconds['dense'] / seconds[name]:.2f}" for name in list(functions)[1:]]
    return [f"{1e3 * seconds['dense']:.3g}", *gains, f"{taken} of {len(made.layers)}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.8, 0.9, 0.95])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--scope", choices=("layer", "global"), default="layer")
    parser.add_argument("--rounds", type=int, default=15)
    usual = os.environ.get("SECATEURS_MODELS")
    parser.add_argument("--models", type=Path, default=Path(usual) if usual else None)
    arguments = parser.parse_args()
    head = ["network, zeros", "batch", "threads", "dense, ms", "channels last", "all CSR"]
    rows: list[list[str]] = []
    for name in arguments.networks:
        for ratio in arguments.ratios:
            network = load(name, arguments.models)
            sc.global_prune(network, ratio, scope=arguments.scope)
            for batch in arguments.batches:
                images = torch.rand(batch, *NETWORKS[name][2])
                for threads in arguments.threads:
                    cells = measure(network, images, threads, arguments.rounds)
                    rows.append([f"{name}, {ratio:.0%}", str(batch), str(threads), *cells])
                    print(" ".join(rows[-1]), flush=True)
    print(f"\n{machine()}\n")
    print(markdown([*head, "accelerated", "layers replaced"], rows))


if __name__ == "__main__":
    main()
