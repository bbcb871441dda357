"""What every rank checks: a network divided over ranks is pruned as if it were whole."""

import math
import os
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from placed import (
    assert_equal,
    feed_forward,
    fsdp,
    gathered,
    inputs,
    placed,
    stacks,
    stepped,
    tensor_parallel,
    ways,
    whole,
)
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from torch.nn.parallel import DistributedDataParallel

import secateurs as sc
from secateurs._tensors.multiply import Product, multiply
from secateurs.masks import apply

GRANULARITIES = (("weight", "global"), ("kernel", "global"), ("filter", "layer"))
FEW = ("fsdp", "columns", "tensor parallel", "twice the rows", "hybrid fsdp")
"""Ways to divide of each kind; the masks and ties of all ways are compared by the first checks."""


def every_way_gives_the_masks_of_one_process(rank: int, ranks: int, folder: Path) -> None:
    for name, (divided, single) in ways(ranks).items():
        model, reference = divided(), single()
        for granularity, scope in GRANULARITIES:
            options = {"granularity": granularity, "scope": scope, "seed": 3}
            sc.global_prune(model, 0.45, 0.7, **options)
            sc.global_prune(reference, 0.45, 0.7, **options)
            assert_equal(model, reference, f"{name} {granularity} {scope}")
        if single is whole:
            options = {"scope": "2:4", "exclude": ["0", "3", "7"]}
            if name in ("fsdp", "rows", "replicas", "hybrid fsdp"):
                sc.global_prune(model, **options)
                sc.global_prune(reference, **options)
                assert_equal(model, reference, f"{name} neighbours")
            elif name == "columns":
                with pytest.raises(sc.InvalidArgumentError, match="are divided over ranks: shard"):
                    sc.global_prune(model, **options)
        assert sc.sparsity(model) == sc.sparsity(reference), name
        assert_equal(sc.restore(model), single(), f"{name} restored")


def experts_and_recurrent_layers_are_divided_in_any_way(
    rank: int, ranks: int, folder: Path
) -> None:
    line = init_device_mesh("cpu", (ranks,))
    for dimension in (0, 1, 2):
        model, reference = placed(stacks(), line, Shard(dimension)), stacks()
        for granularity, scope in (*GRANULARITIES, ("filter", "global")):
            options = {"granularity": granularity, "scope": scope, "seed": 3}
            options["include"] = ["*", "core"]
            sc.global_prune(model, 0.45, 0.7, **options)
            sc.global_prune(reference, 0.45, 0.7, **options)
            assert_equal(model, reference, f"{dimension} {granularity} {scope}")
        assert_equal(sc.restore(model), stacks(), f"{dimension} restored")


def ties_go_to_the_earlier_unit_of_the_whole(rank: int, ranks: int, folder: Path) -> None:
    for name, (divided, single) in ways(ranks).items():
        model, reference = stepped(divided()), stepped(single())
        for p_prune in (0.2, 1.0) if name == "fsdp" else (0.4,):
            sc.global_prune(model, p_prune)
            sc.global_prune(reference, p_prune)
            assert_equal(model, reference, f"{name} {p_prune}")


def all_equal_weights_are_pruned_in_order(rank: int, ranks: int, folder: Path) -> None:
    for name, (divided, single) in ways(ranks, FEW).items():
        model, reference = divided(), single()
        for parameter in (*model.parameters(), *reference.parameters()):
            nn.init.constant_(parameter, 0.5)
        sc.global_prune(model, 0.33, 0.5, seed=1)
        sc.global_prune(reference, 0.33, 0.5, seed=1)
        assert_equal(model, reference, name)


def more_weights_than_the_sample_in_every_format(rank: int, ranks: int, folder: Path) -> None:
    def built() -> nn.Module:
        torch.manual_seed(0)
        dtypes = (torch.float32, torch.bfloat16, torch.float64)
        return nn.ModuleList(nn.Linear(300, 1000, bias=False).to(dtype) for dtype in dtypes)

    line = init_device_mesh("cpu", (ranks,))
    model, reference = placed(built(), line, Shard(0)), built()
    for include in ("0", "1", "2", ["0", "1"], None):
        for p_prune in (0.001, 0.5):
            masks, others = (
                sc.select(m, p_prune, include=include).draw(0.5, seed=1) for m in (model, reference)
            )
            for name in others:
                assert torch.equal(gathered(masks[name]), others[name]), (name, include, p_prune)


def every_score_gives_the_masks_of_one_process(rank: int, ranks: int, folder: Path) -> None:
    def scaled(target: sc.Target) -> Tensor:
        return target.weight.abs() * 2 + (1 if target.name == "0.weight" else 0)

    def by_filter(target: sc.Target) -> Tensor:
        count, *inner = target.parameter.shape
        return torch.arange(float(count)).sin().reshape(count, *(1 for _ in inner))

    for name, (divided, single) in ways(ranks, FEW).items():
        model, reference = divided(), single()
        if name in ("fsdp", "tensor parallel", "hybrid fsdp"):
            feed = inputs() if name != "tensor parallel" else torch.ones(2, 8)
            for network in (model, reference):
                network(feed).square().sum().backward()
            for part, other in zip(model.parameters(), reference.parameters(), strict=True):
                other.grad = gathered(part.grad)  # the same to the last bit
            scores = ["random", "lamp", scaled, "gradient", "taylor"]
        else:
            scores = ["random", "lamp", scaled]
        for score in scores:
            options = {"score": score, "granularity": "kernel", "seed": 5}
            sc.global_prune(model, 0.5, **options)
            sc.global_prune(reference, 0.5, **options)
            assert_equal(model, reference, f"{name} {score}")
        filters = [m for m in (model, reference) if isinstance(m[0], nn.Conv2d)]
        options = {"score": by_filter, "granularity": "filter", "exclude": "3"}
        pairs = [sc.select(m, 0.5, **options).chosen for m in filters]
        for parameter in pairs[0] if pairs else ():
            assert torch.equal(gathered(pairs[0][parameter]), pairs[1][parameter]), name


def levels_and_redraws_are_those_of_one_process(rank: int, ranks: int, folder: Path) -> None:
    for name, (divided, single) in ways(ranks, FEW).items():
        levels = [
            sc.select_levels(m, (0.2, 0.6), granularity="filter") for m in (divided(), single())
        ]
        assert levels[0].at(0.6).count == levels[1].at(0.6).count
        generators = [torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)]
        if rank:
            generators[0].manual_seed(100 + rank)  # rank 0's rules
        masks = [None, None]
        for _ in range(2):
            for i, candidates in enumerate(one.at(0.6) for one in levels):
                masks[i] = candidates.draw(0.5, generator=generators[i], out=masks[i])
            for parameter in masks[1]:
                same = torch.equal(gathered(masks[0][parameter]), masks[1][parameter])
                assert same, (name, parameter)
            assert masks[0].table == masks[1].table


def masks_are_saved_whole_and_loaded_in_parts(rank: int, ranks: int, folder: Path) -> None:
    for number, (name, (divided, single)) in enumerate(ways(ranks, FEW).items()):
        model, path = divided(), folder / f"{number}.safetensors"
        masks = sc.select(model, 0.5, granularity="filter").draw(0.5, seed=1)
        assert "over several ranks" in repr(masks)
        masks.save(path)
        loaded = sc.Masks.load(path)
        reference = sc.apply_masks(single(), loaded)
        assert_equal(sc.apply_masks(model, loaded), reference, name)
        assert_equal(sc.apply_masks(model, masks), reference, name)
    with pytest.raises((sc.FailureError, FileNotFoundError), match="cannot write"):
        masks.save(folder / "missing" / "masks.safetensors")


def a_pruned_model_trains_on(rank: int, ranks: int, folder: Path) -> None:
    line = init_device_mesh("cpu", (ranks,))
    model, reference = fsdp(whole(), line), whole()
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (model, reference)]
    model(inputs())  # leaves the root's parameters whole
    parameters = [id(p) for p in sc.restore(model).parameters()]
    for _ in range(2):
        for network, optimizer in zip((model, reference), optimizers, strict=True):
            with sc.pruned(network, 0.5, 0.5, seed=2):
                network(inputs()).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        for part, other in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(gathered(part.detach()), other.detach())
    assert [id(p) for p in model.parameters()] == parameters
    kept = gathered(sc.global_prune(model, 0.5)[0].weight.detach()).clone()
    assert torch.equal(gathered(sc.make_permanent(model)[0].weight.detach()), kept)
    assert not [name for name, _ in model.named_buffers()]


def what_one_rank_learned_all_ranks_prune(rank: int, ranks: int, folder: Path) -> None:
    model = placed(whole(), init_device_mesh("cpu", (ranks,)), Shard(0))
    for masks in (sc.select(model, 0.5).draw(), None):
        sc.apply_masks(model, sc.select(model, 0.6).draw())
        if rank == 0:  # the last one may have no row of the smallest layer
            with torch.no_grad():
                for layer in (model[0], model[5]):
                    layer.weight.to_local().add_(1)
        reference = whole()
        with torch.no_grad():
            for part, other in zip(model.parameters(), reference.parameters(), strict=True):
                other.copy_(gathered(part.detach()))
        before = {name: other.clone() for name, other in reference.named_parameters()}
        # Where one rank wrote, its zeros and those of all others are what the weight is now.
        if masks is not None:
            sc.apply_masks(model, masks)
        else:
            assert sc.select(model, 0.4).count == sc.select(reference, 0.4).count
            sc.global_prune(model, 0.4)
        for name in ("0.weight", "5.weight"):
            kept = gathered(model.get_submodule(name[:1]).weight_orig)
            assert torch.equal(kept, before[name]), name
        sc.make_permanent(model)


def an_interrupt_while_shards_are_written_loses_no_training(
    rank: int, ranks: int, folder: Path
) -> None:
    def interrupted(products: list[Product]) -> None:
        multiply(products[:1])
        raise KeyboardInterrupt

    for name, (divided, single) in ways(ranks, FEW).items():
        model, reference = divided(), single()
        for network in (model, reference):
            sc.global_prune(network, 0.5)
            with torch.no_grad():
                network[0].weight.div_(2).add_(0.01)
        trained = reference[0].weight.detach().clone()
        others = sc.select(model, 0.8, exclude="2").draw()
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(apply, "multiply", interrupted)
            sc.apply_masks(model, others)
        assert_equal(model, reference, name)
        with warnings.catch_warnings(action="error"):
            sc.restore(model)
        reference = single()
        with torch.no_grad():
            reference[0].weight.copy_(trained)
        assert_equal(model, reference, f"{name} restored")


def gradients_are_pruned_under_fsdp(rank: int, ranks: int, folder: Path) -> None:
    line = init_device_mesh("cpu", (ranks,))
    for cut in (fsdp, lambda model, mesh: fully_shard(model, mesh=mesh)):
        model, reference = cut(whole(), line), whole()
        outcomes = []
        for network in (model, reference):
            dense = network(inputs()).detach()
            sc.gradient_prune(network, 0.5, 0.7, seed=6, granularity="kernel")
            x = inputs().requires_grad_()
            y = network(x)
            assert torch.equal(y, dense)
            y.square().sum().backward()
            sparsity = sc.sparsity(network)
            outcomes.append((x.grad, sparsity))
        assert torch.equal(outcomes[0][0], outcomes[1][0])
        assert outcomes[0][1] == outcomes[1][1]
        for part, other in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(gathered(part.grad), other.grad)
        sc.restore(model)
        x = inputs().requires_grad_()
        model(x).square().sum().backward()
        assert not torch.equal(x.grad, outcomes[0][0])


def gradients_are_pruned_under_tensor_parallelism(rank: int, ranks: int, folder: Path) -> None:
    line = init_device_mesh("cpu", (ranks,))
    model, reference = tensor_parallel(feed_forward(), line), feed_forward()
    gradients: list[Tensor] = []
    for network in (model, reference):
        x = torch.ones(2, 8, requires_grad=True)
        dense = network(x).detach()
        sc.gradient_prune(network, 0.5, 0.7, seed=6)
        y = network(x)
        assert torch.equal(y, dense)
        y.square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
    for part, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(gathered(part.grad), other.grad)


def what_needs_a_whole_model_says_so(rank: int, ranks: int, folder: Path) -> None:
    divided = fsdp(whole(), init_device_mesh("cpu", (ranks,)))
    copied = DistributedDataParallel(whole())
    needing = {
        "accelerate": lambda model: sc.acceleration.accelerate(model, inputs()),
        "allocate": lambda model: sc.repair.allocate(model, 0.5),
        "a surrogate": lambda model: sc.Diversified(model, 0.5, 0.5),
        "torch.nn.utils.prune": sc.to_torch_prune,
        "repair": lambda model: sc.repair(model, inputs()),
        "observed_inputs": lambda model: sc.repair.observed_inputs(model, inputs()).__enter__(),
    }
    for who, call in needing.items():
        with pytest.raises(sc.InvalidArgumentError, match=f"{who} needs a whole model.* divided"):
            call(divided)
    for who in ("accelerate", "allocate"):
        with pytest.raises(sc.InvalidArgumentError, match="wrapped in DistributedDataParallel"):
            needing[who](copied)


def data_parallel_ranks_hold_the_same_masks(rank: int, ranks: int, folder: Path) -> None:
    model, reference = DistributedDataParallel(whole()), whole()
    sc.global_prune(model, 0.5, 0.5, seed=7)
    sc.global_prune(reference, 0.5, 0.5, seed=7)
    assert_equal(model, reference)
    first = sc.global_prune(sc.restore(model), 0.5, 0.5).module[5].weight.detach()  # without a seed
    others = [torch.empty_like(first) for _ in range(ranks)]
    dist.all_gather(others, first.contiguous())
    assert all(torch.equal(other, first) for other in others)
    assert not torch.equal(first, reference[5].weight)
    sc.global_prune(model, 0.5, score="random")
    with pytest.raises(sc.InvalidArgumentError, match="draws random numbers"):
        sc.global_prune(reference, 0.5, 0.5)
    sc.restore(model)
    sc.gradient_prune(model, 0.5, 0.5, seed=8)
    sc.gradient_prune(sc.restore(reference), 0.5, 0.5, seed=8)
    gradients = []
    for network in (model, reference):
        x = inputs().requires_grad_()
        network(x).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)
    for part, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(part.grad, other.grad)
    sc.restore(model)
    with torch.no_grad():
        model.module[5].weight[0, 0] = 100.0 * rank
    with pytest.raises(sc.InvalidArgumentError, match="weights must be equal"):
        sc.global_prune(model, 0.5)


def what_differs_between_ranks_is_named(rank: int, ranks: int, folder: Path) -> None:
    model = placed(whole(), init_device_mesh("cpu", (ranks,)), Shard(0))
    last = rank == ranks - 1
    for options, said in (
        ({"p_prune": 0.25 if last else 0.5}, r"p_prune is 0.5, on rank \d p_prune is 0.25"),
        ({"p_prune": 2.0 if last else 0.5}, "p_prune is 2.0"),
        ({"p_prune": 0.5, "seed": rank, "p_bern": 0.5}, "seed is 0, on rank 1 seed is 1"),
        (
            {"p_prune": 0.5, "granularity": "kernel" if last else "weight"},
            "granularity is 'weight'",
        ),
        ({"p_prune": 0.5, "include": ["0*"] if last else None}, "include is None"),
        ({"p_prune": 0.5, "scope": "layer" if last else "global"}, "scope is 'global'"),
    ):
        with pytest.raises(sc.InvalidArgumentError, match=said):
            sc.global_prune(model, **options)
    with pytest.raises(sc.InvalidArgumentError, match="what is called is"):
        sc.sparsity(model) if last else sc.select(model, 0.5)
    with pytest.raises(sc.InvalidArgumentError, match="on rank 0 model is a model of 9 param"):
        sc.select(model if last else nn.Sequential(model, model), 0.5)


class Squares:
    """A score whose text has an address, as Python shows objects by default."""

    def __call__(self, target: sc.Target) -> Tensor:
        return target.weight.square()


def what_only_lies_elsewhere_on_each_rank_is_the_same(rank: int, ranks: int, folder: Path) -> None:
    model = placed(whole(), init_device_mesh("cpu", (ranks,)), Shard(0))
    squares = Squares()
    names = {target.name for target in sc.find_targets(model)}
    assert len(names) > 3  # in an order that differs between processes
    for score in (squares, partial(squares), lambda target: squares(target)):
        sc.select(model, 0.5, score=score)
    sc.select(model, 0.5, include=names)


def a_time_that_is_no_number_is_named(rank: int, ranks: int, folder: Path) -> None:
    model = placed(whole(), init_device_mesh("cpu", (ranks,)), Shard(0))
    before = os.environ["SECATEURS_TIMEOUT"]
    try:
        for text in ("soon", "", "inf", "nan", "-3", "0", "1e30"):
            os.environ["SECATEURS_TIMEOUT"] = text
            with pytest.raises(sc.InvalidArgumentError, match="SECATEURS_TIMEOUT in the envir"):
                sc.select(model, 0.5)
    finally:
        os.environ["SECATEURS_TIMEOUT"] = before


def an_error_on_one_rank_is_an_error_on_all(rank: int, ranks: int, folder: Path) -> None:
    model = placed(whole(), init_device_mesh("cpu", (ranks,)), Shard(0))

    def fails(target: sc.Target) -> Tensor:
        if rank == 1:
            raise KeyError("rank 1 has no score")
        return target.weight

    with pytest.raises((KeyError, sc.FailureError), match="rank 1 has no score"):
        sc.select(model, 0.5, score=fails)
    if rank == 1:
        with torch.no_grad():
            model[2].weight.to_local()[0] = math.nan
    for p_prune in (0.0, 0.5):
        with pytest.raises(sc.InvalidArgumentError, match=r"the score of 2\.weight is NaN"):
            sc.select(model, p_prune)
    sc.select(model, 0.5, exclude="2")


def a_score_that_fails_on_one_rank_says_so_on_all(rank: int, ranks: int, folder: Path) -> None:
    def fails(target: sc.Target) -> Tensor:
        if rank == 1:
            raise KeyError("rank 1 has no score")
        return target.weight.abs().sum((1, 2, 3), keepdim=True)

    mesh = init_device_mesh("cpu", (ranks,))
    # One shard has sums to add up over ranks, which the others then wait for.
    for model in (DistributedDataParallel(whole()), placed(whole(), mesh, Shard(1))):
        for run in (sc.select, sc.global_prune, sc.gradient_prune):
            with pytest.raises((KeyError, sc.FailureError), match="rank 1 has no score") as caught:
                run(
                    model,
                    0.5,
                    score=fails,
                    granularity="filter",
                    include="*0.weight",
                )
            assert isinstance(caught.value, KeyError if rank == 1 else sc.FailureError)
    model = DistributedDataParallel(whole())
    if rank == 1:
        with torch.no_grad():
            model.module[2].weight[0] = math.nan
    with pytest.raises(sc.InvalidArgumentError, match="NaN"):
        sc.select(model, 0.5)


def a_rank_that_does_not_come_is_missed(rank: int, ranks: int, folder: Path) -> None:
    model = placed(whole(), init_device_mesh("cpu", (ranks,)), Shard(0))
    sc.select(model, 0.5)
    start = time.monotonic()
    if rank == 1:
        time.sleep(5)
        return
    with pytest.raises(sc.FailureError, match="did not come within 2 s"):
        sc.global_prune(model, 0.5)
    assert time.monotonic() - start < 4


def a_rank_that_dies_is_missed(rank: int, ranks: int, folder: Path) -> None:
    model = placed(whole(), init_device_mesh("cpu", (ranks,)), Shard(0))
    start = time.monotonic()

    def dies(target: sc.Target) -> Tensor:
        if rank == 1:
            (folder.parent / "a_rank_that_dies_is_missed-1-of-2.txt").touch()
            os._exit(1)
        return target.weight

    with pytest.raises(sc.FailureError, match="one has ended"):
        sc.global_prune(model, 0.5, score=dies)
    assert time.monotonic() - start < 20
