"""Claim: pruning afresh from standing candidates costs a few copies of the weights.

    python benchmarks/redraw.py                       beside the original method's way
    python benchmarks/redraw.py --table attack        the share of it in an attack's step

Ours draws each candidate's fate and writes the weights: ``candidates.draw(p_bern, generator=...,
out=masks)`` and `secateurs.apply_masks`. The original method has no standing candidates: it sorts,
compares, draws one float a weight and multiplies, at every step (``benchmarks/peers.py``). An
attack's step is a forward and a backward pass down to the images, batch 16 at 224 px. On a GPU,
add ``--device cuda``: the generator is then on the device too; ``--graph`` replays the redraw as a
CUDA graph.
"""

import argparse
import copy
import resource
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from inputs import networks, weights
from peers import original_method
from timing import finished, machine, markdown, medians
from torch import nn

import secateurs as sc


def redrawing(
    model: nn.Module, p_prune: float, p_bern: float, device: str, *, graph: bool = False
) -> Callable[[], object]:
    """A function that prunes the model afresh; on a GPU maybe as a CUDA graph."""
    candidates = sc.select(model, p_prune, layers="conv2d")
    generator = torch.Generator(device).manual_seed(0)
    masks = candidates.draw(p_bern, generator=generator)

    def redraw() -> object:
        return sc.apply_masks(model, candidates.draw(p_bern, generator=generator, out=masks))

    redraw()
    if not graph:
        return lambda: finished(redraw())
    recorded = torch.cuda.CUDAGraph()
    recorded.register_generator_state(generator)
    with torch.cuda.graph(recorded):
        redraw()
    return lambda: finished(recorded.replay())


def beside_the_original(arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet50().to(arguments.device)
    source = [w.clone() for w in weights(model) if w.dim() == 4]
    target = [torch.empty_like(w) for w in source]
    theirs = copy.deepcopy(model)
    functions: dict[str, Callable[[], object]] = {
        "copying the weights": lambda: finished(
            [t.copy_(s) for t, s in zip(target, source, strict=True)]
        )
    }
    for p_bern in (0.5, 0.3):
        functions[f"secateurs, p_bern {p_bern}"] = redrawing(
            copy.deepcopy(model), 0.5, p_bern, arguments.device, graph=arguments.graph
        )
    redraw = functions["secateurs, p_bern 0.3"]
    functions["the original method"] = lambda: finished(original_method(theirs, 0.5, 0.3))
    found = medians(functions, arguments.rounds)
    copying, ours = found["copying the weights"], found["secateurs, p_bern 0.3"]
    rows = [
        (name, f"{1e3 * s:.2f}", f"{s / copying:.1f}", f"{s / ours:.2f}")
        for name, s in found.items()
    ]
    print(f"{sum(w.numel() for w in source):,} float32 weights, half are candidates; {machine()}\n")
    print(markdown(("what", "milliseconds", "times copying", "times ours"), rows))
    print(f"\nFifty more redraws raised the peak memory by {growth(redraw):.1f} MiB.")


def growth(redraw: Callable[[], object]) -> float:
    redraw()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(50):
        redraw()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) / 1024


def in_an_attack(arguments: argparse.Namespace) -> None:
    rows: list[tuple[str, ...]] = []
    for name, model in networks().items():
        model = model.eval().to(arguments.device)
        images = torch.rand(16, 3, 224, 224, device=arguments.device)

        def step(model: nn.Module = model, images: torch.Tensor = images) -> object:
            inputs = images.clone().requires_grad_()
            model(inputs).logsumexp(1).sum().backward(inputs=[inputs])
            return finished(inputs.grad)

        redraw = redrawing(model, 0.3, 0.5, arguments.device)
        steps, draws = alternating(step, redraw, arguments.rounds)
        share = statistics.median(d / s for d, s in zip(draws, steps, strict=True))
        count = sum(w.numel() for w in weights(model) if w.dim() == 4)
        cells = (1e3 * statistics.median(steps), 1e3 * statistics.median(draws), 100 * share)
        rows.append((name, f"{count:,}", *(f"{cell:.2f}" for cell in cells)))
    print(f"Batch 16 at 224 px, p_prune 0.3, p_bern 0.5; {machine()}\n")
    print(markdown(("network", "weights", "step, ms", "redraw, ms", "redraw, % of step"), rows))


def alternating(
    step: Callable[[], object], redraw: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for taken, function in zip(seconds, (step, redraw), strict=True):
            began = time.perf_counter()
            function()
            if number:  # the first round warms up
                taken.append(time.perf_counter() - began)
    return seconds


TABLES = {"original": beside_the_original, "attack": in_an_attack}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=TABLES, default="original")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--graph", action="store_true")
    arguments = parser.parse_args()
    TABLES[arguments.table](arguments)


if __name__ == "__main__":
    main()
