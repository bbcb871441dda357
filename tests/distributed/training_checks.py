"""What every rank checks of training: masks hold, and all is as in one process.

All ranks see the same images, so averages of gradients are those of one process bit for bit.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from placed import assert_equal, feed_forward, fsdp, gathered, inputs, whole
from torch import nn, optim
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

import secateurs as sc
from retrain_rows import COLUMNS
from secateurs.results import Results, RetrainRow
from secateurs.training import (
    Constant,
    Cubic,
    GradientRegrowth,
    Iterative,
    MagnitudeRegrowth,
    Pruner,
    hold,
)
from secateurs.training.epochs import DivergedError
from secateurs.training.labelled_images import LabelledImages
from secateurs.training.retrain import RetrainData, Retraining
from secateurs.training.retrain_plan import RetrainPlan
from secateurs.training.settings import TrainingSettings

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda parameters: optim.SGD(parameters, 0.1, momentum=0.9),
    "adam": lambda parameters: optim.Adam(parameters, 0.01, amsgrad=True),
}
PRUNERS: dict[str, dict[str, Any]] = {
    "cubic": {"schedule": Cubic(0.8, end=4, every=2), "granularity": "kernel", "scope": "layer"},
    "floor": {"schedule": Iterative(0.85, 2, every=2), "keep_at_least": 0.1},
    "rewound": {"schedule": Iterative(0.8, 2, every=2, rewind=1), "score": "random", "seed": 2},
    "surgery": {"schedule": Constant(0.7), "regrow": MagnitudeRegrowth(margin=0)},
    "rigl": {
        "schedule": Constant(0.7),
        "regrow": GradientRegrowth(every=1, until=9, fraction=0.6),
        "seed": 1,
    },
    "rigl of filters": {
        "schedule": Constant(0.4),
        "regrow": GradientRegrowth(every=2, until=9, fraction=0.6, start="uniform"),
        "granularity": "filter",
        "seed": 1,
    },
}


def train(
    model: nn.Module, optimizer: optim.Optimizer, steps: int, after: Callable[[], object]
) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(inputs()).square().mean().backward()
        optimizer.step()
        after()


def divided(way: str, ranks: int) -> nn.Module:
    if way == "ddp":
        return DistributedDataParallel(whole())
    if way == "fsdp":
        return fsdp(whole(), init_device_mesh("cpu", (ranks,)))
    return fsdp(whole(), init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards")))


def assert_states_equal(first: optim.Optimizer, second: optim.Optimizer, message: str) -> None:
    for one, two in zip(first.state.values(), second.state.values(), strict=True):
        for name, value in one.items():
            assert torch.equal(gathered(value), gathered(two[name])), f"{message} {name}"


# What is tried with how many ranks: each network that is divided takes a second.
HELD = {
    2: [("sgd", "ddp"), ("adam", "ddp"), ("sgd", "fsdp"), ("adam", "fsdp")],
    4: [("adam", "fsdp"), ("sgd", "hybrid fsdp")],
}
PRUNED = {
    2: [("rigl", "ddp"), *((kind, "fsdp") for kind in PRUNERS)],
    4: [("surgery", "fsdp"), ("rigl", "hybrid fsdp")],
}
RESUMED = {2: "rewound", 4: "surgery"}


def a_held_training_is_that_of_one_process(rank: int, ranks: int, folder: Path) -> None:
    for kind, way in HELD[ranks]:
        model, reference = divided(way, ranks), whole()
        optimizer, other = (OPTIMIZERS[kind](m.parameters()) for m in (model, reference))
        sc.global_prune(model, 0.6)
        sc.global_prune(reference, 0.6)
        with hold(model, optimizer), hold(reference, other):
            train(model, optimizer, 3, lambda: None)
            train(reference, other, 3, lambda: None)
        assert_equal(model, reference, f"{way} {kind}")
        assert_states_equal(optimizer, other, f"{way} {kind}")
        assert sc.sparsity(model).zeros == sc.sparsity(reference).zeros > 0
        for parameter, kept in optimizer.state.items():
            zero = gathered(parameter.detach()) == 0
            for state, value in kept.items():
                if zero.any() and value.shape == parameter.shape:
                    assert not gathered(value)[zero].any(), f"{way} {kind} {state}"


def lbfgs_is_held_as_in_one_process(rank: int, ranks: int, folder: Path) -> None:
    """On layers whose sizes divide by the number of ranks: torch's LBFGS steps no others."""
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(2))
    model, reference = fsdp(feed_forward(), init_device_mesh("cpu", (ranks,))), feed_forward()
    for network in (model, reference):
        optimizer = optim.LBFGS(network.parameters(), max_iter=3)

        def closure(network: nn.Module = network, optimizer: optim.Optimizer = optimizer) -> Any:
            optimizer.zero_grad()
            loss = network(x).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)  # now there are directions of all weights
        sc.global_prune(network, 0.6)
        with hold(network, optimizer) as held:
            optimizer.step(closure)
        masks = [gathered(mask) for mask in held.masks.values()]
        kept = optimizer.state[next(network.parameters())]
        flat = torch.stack([gathered(v) for v in (*kept["old_dirs"], *kept["old_stps"])])
        start = 0
        for parameter in network.parameters():
            part = flat[:, start : start + parameter.numel()]
            start += parameter.numel()
            if parameter.dim() == 2:
                mask = masks.pop(0).reshape(-1)
                assert not part[:, ~mask].any()
                assert part[:, mask].any()
    assert_equal(model, reference, "lbfgs")


def every_pruner_does_what_it_does_in_one_process(rank: int, ranks: int, folder: Path) -> None:
    for kind, way in PRUNED[ranks]:
        model, reference = divided(way, ranks), whole()
        optimizer, other = (OPTIMIZERS["sgd"](m.parameters()) for m in (model, reference))
        pruner = Pruner(model, optimizer, **PRUNERS[kind])
        single = Pruner(reference, other, **PRUNERS[kind])
        first = {name: gathered(mask).clone() for name, mask in pruner.masks.items()}
        train(model, optimizer, 4, pruner.step)
        train(reference, other, 4, single.step)
        assert_equal(model, reference, f"{way} {kind}")
        assert_states_equal(optimizer, other, f"{way} {kind}")
        assert pruner.sparsity == single.sparsity > 0.3
        changed = False
        rows = zip(pruner.masks.items(), single.masks.values(), strict=True)
        for (name, mask), expected in rows:
            now = gathered(mask)
            assert torch.equal(now, expected), f"{way} {kind} {name}"
            changed |= not torch.equal(now, first[name])
        assert changed, f"{way} {kind}"


def a_checkpoint_goes_on_on_any_number_of_ranks(rank: int, ranks: int, folder: Path) -> None:
    kind = RESUMED[ranks]
    reference = whole()
    other = OPTIMIZERS["adam"](reference.parameters())
    single = Pruner(reference, other, **PRUNERS[kind])
    train(reference, other, 3, single.step)
    if rank == 0:
        save(folder / f"{kind}-1", reference, other, single, alone=True)
    dist.barrier()
    line = init_device_mesh("cpu", (ranks,))
    model, optimizer, pruner = resumed(folder / f"{kind}-1", kind, line)
    save(folder / f"{kind}-all", model, optimizer, pruner)
    for part, steps in ((single, 3), (pruner, 3)):
        networks = (reference, other) if part is single else (model, optimizer)
        train(*networks, steps, part.step)
    assert_equal(model, reference, f"{kind}: one process, {ranks} ranks")
    assert pruner.steps == 6
    dist.barrier()
    if rank == 0:  # from all ranks to one process
        again = resumed(folder / f"{kind}-all", kind, None)
        train(*again[:2], 3, again[2].step)
        assert_equal(again[0], reference, f"{kind}: {ranks} ranks, one process")
    if ranks == 4:  # and to half of them
        halves = init_device_mesh("cpu", (2, 2), mesh_dim_names=("all", "half"))["half"]
        model, optimizer, pruner = resumed(folder / f"{kind}-all", kind, halves)
        train(model, optimizer, 3, pruner.step)
        assert_equal(model, reference, f"{kind}: 4 ranks, 2 ranks")


def save(
    path: Path, model: nn.Module, optimizer: optim.Optimizer, pruner: Pruner, alone: bool = False
) -> None:
    weights, state = get_state_dict(model, optimizer)
    everything = {"model": weights, "optimizer": state, "pruner": pruner}
    dcp.save(everything, checkpoint_id=path, no_dist=alone)


def resumed(
    path: Path, kind: str, mesh: DeviceMesh | None
) -> tuple[nn.Module, optim.Optimizer, Pruner]:
    model = copy.deepcopy(whole())
    with torch.no_grad():
        model[0].weight.mul_(-1)  # what is loaded is seen
    model = model if mesh is None else fsdp(model, mesh)
    optimizer = OPTIMIZERS["adam"](model.parameters())
    pruner = Pruner(model, optimizer, **PRUNERS[kind])
    weights, state = get_state_dict(model, optimizer)
    everything = {"model": weights, "optimizer": state, "pruner": pruner}
    group = None if mesh is None else mesh.get_group()
    dcp.load(everything, checkpoint_id=path, process_group=group, no_dist=mesh is None)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
    return model, optimizer, pruner


def a_retraining_is_that_of_one_process(rank: int, ranks: int, folder: Path) -> None:
    drawn = torch.Generator().manual_seed(3)
    images = LabelledImages(
        torch.randn(32, 3, 6, 6, generator=drawn), torch.randint(7, (32,), generator=drawn)
    )
    settings = TrainingSettings(epochs=2, learning_rate=0.05, batch_size=8)
    plan = RetrainPlan(ratio=0.8, dense=settings, retraining=settings, every=1)
    data = RetrainData(images, images, images)

    def run(name: str, group: Any) -> list[RetrainRow]:
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        writes = rank == 0 or group is None
        with Results(own, RetrainRow) if writes else nullcontext() as results:
            return Retraining(
                whole(),
                data,
                plan,
                columns=COLUMNS,
                results=results,
                folder=own,
                process_group=group,
            ).run()

    together, alone = run("together", dist.group.WORLD), run(f"alone-{rank}", None)
    for one, other in zip(together, alone, strict=True):
        assert (one.phase, one.achieved, one.count) == (other.phase, other.achieved, other.count)
        assert abs(one.loss - other.loss) < 1e-3 and one.ranks == ranks
    assert together[-1].achieved == 0.8
    again = run("together", dist.group.WORLD)  # finished: nothing is trained again
    pairs = zip(again, together, strict=True)
    assert all(repr(replace(one, duration=other.duration)) == repr(other) for one, other in pairs)
    spoiled = replace(data, train=LabelledImages(images.images.clone(), images.labels))
    spoiled.train.images[5] = torch.nan  # in the share of one rank
    data = spoiled
    try:
        run("spoiled", dist.group.WORLD)
        raise AssertionError("the loss is no number")
    except DivergedError as error:
        assert "dense epoch 1: the loss became NaN or infinite at step" in str(error)
