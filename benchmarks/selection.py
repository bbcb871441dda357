"""Claim: choosing the k smallest weights costs about what reading them costs.

    python benchmarks/selection.py                    ResNet-50's convolutions, 50%, beside peers
    python benchmarks/selection.py --table dtypes     three formats at three ratios
    python benchmarks/selection.py --table inputs     inputs that make selection hard

Ours is `secateurs.select`: the exact candidates as masks. ``benchmarks/peers.py`` says what each
peer does. "Reading" is one pass of ``abs().sum()`` over each tensor. On a GPU, add
``--device cuda``.
"""

import argparse
import copy
from collections.abc import Callable, Iterator

import torch
import torchvision
from inputs import KINDS, layers, weights
from peers import installed, kthvalue
from timing import finished, machine, markdown, medians
from torch import nn

import secateurs as sc

RESNET = 23_454_912  # the weights of ResNet-50's convolutions
READ, OURS, KTHVALUE = "reading", "secateurs.select", "kthvalue"


def resnet50(dtype: str, device: str) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet50().to(device, getattr(torch, dtype))


def reading_and_ours(
    model: nn.Module, ratio: float, layers: str | None = None
) -> dict[str, Callable[[], object]]:
    found = [w for w in weights(model) if layers is None or w.dim() == 4]
    return {
        READ: lambda: finished([w.abs().sum() for w in found]),
        OURS: lambda: finished(list(sc.select(model, ratio, layers=layers).chosen.values())),
    }


def beside_peers(arguments: argparse.Namespace) -> None:
    model = resnet50(arguments.dtype, arguments.device)
    functions = reading_and_ours(model, arguments.ratio, "conv2d")

    def fresh() -> Iterator[nn.Module]:
        while True:
            yield copy.deepcopy(model)

    # The copies are made before the clock starts: one is always ready.
    for name, peer in installed().items():
        ready = fresh()
        functions[name] = Prepared(lambda m, p=peer: finished(p(m, arguments.ratio)), ready)
    found = medians(functions, arguments.rounds)
    rows = [
        (
            name,
            f"{1e3 * seconds:.1f}",
            f"{seconds / found[OURS]:.2f}",
            f"{seconds / found[READ]:.1f}",
        )
        for name, seconds in found.items()
    ]
    print(f"{RESNET:,} {arguments.dtype} weights, ratio {arguments.ratio}; {machine()}\n")
    print(markdown(("method", "milliseconds", "times ours", "times reading"), rows))


class Prepared:
    """A function of a model, with the next model made outside of the clock."""

    def __init__(self, function: Callable[[nn.Module], object], models: Iterator[nn.Module]):
        self._function, self._models = function, models
        self._next: nn.Module | None = None

    def prepare(self) -> None:
        self._next = next(self._models)

    def __call__(self) -> object:
        assert self._next is not None
        return self._function(self._next)


def dtypes(arguments: argparse.Namespace) -> None:
    rows: list[tuple[str, ...]] = []
    for dtype in ("float32", "bfloat16", "float16"):
        model = resnet50(dtype, arguments.device)
        for ratio in (0.01, 0.5, 0.99):
            functions = reading_and_ours(model, ratio, "conv2d")
            functions[KTHVALUE] = lambda m=model, r=ratio: kthvalue(m, r)
            rows.append((dtype, str(ratio), *ratios(medians(functions, arguments.rounds))))
    print(f"{RESNET:,} weights; {machine()}\n")
    print(markdown(("dtype", "ratio", *HEAD), rows))


def hard_inputs(arguments: argparse.Namespace) -> None:
    cases = [(kind, RESNET, 50) for kind in KINDS]
    cases += [("normal", RESNET, 1), ("normal", RESNET, 10_000)]
    rows: list[tuple[str, ...]] = []
    for kind, total, tensors in cases:
        model = layers(total, tensors, kind).to(arguments.device)
        functions = reading_and_ours(model, arguments.ratio)
        functions[KTHVALUE] = lambda m=model: linear_kthvalue(m, arguments.ratio)
        found = medians(functions, arguments.rounds)
        rows.append((kind, f"{tensors:,}", *ratios(found)))
    print(f"{RESNET:,} float32 weights, ratio {arguments.ratio}; {machine()}\n")
    print(markdown(("input", "tensors", *HEAD), rows))


def linear_kthvalue(model: nn.Module, ratio: float) -> list[torch.Tensor]:
    found = weights(model)
    magnitudes = torch.cat([w.abs().flatten() for w in found])
    threshold = magnitudes.kthvalue(round(ratio * magnitudes.numel())).values
    return [w.abs() <= threshold for w in found]


HEAD = ("reading, ms", "ours, ms", "kthvalue, ms", "ours / reading", "kthvalue / ours")


def ratios(found: dict[str, float]) -> tuple[str, ...]:
    read, ours, theirs = found[READ], found[OURS], found[KTHVALUE]
    times = (f"{1e3 * seconds:.1f}" for seconds in (read, ours, theirs))
    return (*times, f"{ours / read:.1f}", f"{theirs / ours:.1f}")


TABLES = {"peers": beside_peers, "dtypes": dtypes, "inputs": hard_inputs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=TABLES, default="peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    TABLES[arguments.table](arguments)


if __name__ == "__main__":
    main()
