"""Claim: a surrogate that is pruned afresh adds at most 5% to an attack's step.

    python benchmarks/diversified.py                  time: one step, dense and diversified
    python benchmarks/diversified.py --table memory   what each pending backward pass holds

A step is a forward and a backward pass down to the images, batch 16 at 224 px, of one and the same
`secateurs.Diversified`, inside and outside of its ``dense()``, in turns. Wall clock and processor
time of all threads, which other work on the machine disturbs less. Memory is what the graphs of
several passes hold until their backward passes, beyond those of the dense network.
"""

import argparse
import statistics
import time

import torch
from inputs import networks
from timing import finished, machine, markdown
from torch import Tensor, nn

import secateurs as sc
from secateurs.cli.allocator import keep_freed_memory
from secateurs.surrogates import RECIPES


def step(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Wall and processor seconds of one gradient."""
    inputs = images.clone().requires_grad_()
    began, busy = time.perf_counter(), time.process_time()
    finished(torch.autograd.grad(model(inputs).logsumexp(1).sum(), inputs))
    return time.perf_counter() - began, time.process_time() - busy


def in_a_step(arguments: argparse.Namespace) -> None:
    rows: list[tuple[str, ...]] = []
    images = torch.rand(16, 3, 224, 224, device=arguments.device)
    for name, model in networks().items():
        model = model.eval().requires_grad_(False).to(arguments.device)
        for recipe in arguments.recipes:
            surrogate = RECIPES[recipe](model, prune_type=arguments.prune_type)
            seen: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
            for number in range(arguments.rounds + 1):
                with surrogate.dense():
                    dense = step(surrogate, images)
                diversified = step(surrogate, images)
                if number:  # the first round warms up
                    seen[True].append(dense)
                    seen[False].append(diversified)
            rows.append((name, recipe, *columns(seen[True], seen[False])))
    head = ("network", "recipe", "dense, ms", "diversified, ms", "wall", "processor time")
    print(f"Batch 16 at 224 px, {arguments.prune_type} pruning; {machine()}\n")
    print(markdown(head, rows))


def columns(dense: list[tuple[float, float]], diversified: list[tuple[float, float]]) -> list[str]:
    """Median milliseconds, and medians of the ratios of neighbours."""
    taken = [1e3 * statistics.median(wall for wall, _ in each) for each in (dense, diversified)]
    ratios = [
        statistics.median(d[i] / s[i] for s, d in zip(dense, diversified, strict=True))
        for i in (0, 1)
    ]
    return [f"{ms:.0f}" for ms in taken] + [f"{ratio:.3f}" for ratio in ratios]


def pending(arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    model = networks()["tf_efficientnet_lite0"].eval().requires_grad_(False).to(arguments.device)
    targets = sum(target.parameter.nbytes for target in sc.find_targets(model)) / 2**20
    images = torch.rand(1, 3, 32, 32, device=arguments.device, requires_grad=True)
    surrogate = sc.Diversified(model, 0.3, 0.5)
    rows: list[tuple[str, ...]] = []
    for count in (1, 2, 4, 8):
        with surrogate.dense():
            dense = held(surrogate, images, count)
        more = held(surrogate, images, count) - dense
        rows.append((str(count), f"{more:.1f}", f"{more / targets / count:.3f}"))
    head = ("pending passes", "MiB more than dense", "copies of the prunable weights for each")
    print(f"tf_efficientnet_lite0, {targets:.1f} MiB of prunable weights; {machine()}\n")
    print(markdown(head, rows))


def held(model: nn.Module, images: Tensor, count: int) -> float:
    """MiB beside the model's own that ``count`` graphs hold for their backward passes."""
    saved: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graphs = [model(images) for _ in range(count)]
    memory = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
    for parameter in model.parameters():
        memory.pop(parameter.untyped_storage().data_ptr(), None)
    del graphs
    return sum(memory.values()) / 2**20


TABLES = {"step": in_a_step, "memory": pending}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", choices=TABLES, default="step")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["dwp", "rapa"])
    parser.add_argument("--prune-type", choices=("global", "gradient"), default="global")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    keep_freed_memory()  # as ``secateurs transfer`` does; fresh pages cost more than the redraw
    TABLES[arguments.table](arguments)


if __name__ == "__main__":
    main()
