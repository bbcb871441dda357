"""Pruning by a schedule while training: exact counts, resumed bit for bit, nothing lost."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel
from training_cases import assert_held, images, loss_of, network, train

import secateurs as sc
from helpers import assert_same, snapshot
from secateurs.training import (
    Constant,
    Cubic,
    GradientRegrowth,
    Iterative,
    MagnitudeRegrowth,
    OneShot,
    Pruner,
    Schedule,
    erk_ratios,
    masks_from_zeros,
)

WEIGHTS = ("0.weight", "4.weight")


def made(
    schedule: Schedule, model: nn.Module | None = None, **options: Any
) -> tuple[nn.Module, optim.Optimizer, Pruner]:
    model = network() if model is None else model
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, Pruner(model, optimizer, schedule, **options)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([model.get_parameter(name).detach().reshape(-1) for name in WEIGHTS])


def kept(pruner: Pruner) -> Tensor:
    return torch.cat([pruner.masks[name].reshape(-1) for name in WEIGHTS])


def test_a_schedule_that_begins_at_nothing_needs_no_gradients_before_the_first_step() -> None:
    model, optimizer, pruner = made(Cubic(0.5, end=2, every=1), score="taylor")
    for _ in range(2):
        loss_of(model).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
    assert pruner.sparsity == pytest.approx(0.5, abs=0.01)


def test_each_pruning_takes_the_smallest_of_what_is_kept() -> None:
    schedule = Cubic(0.9, end=6, every=2, begin=2, initial=0.3)
    model, optimizer, pruner = made(schedule)
    expected = torch.ones(len(flat(model)), dtype=torch.bool)
    for step in range(1, 9):
        train(model, optimizer, 1)
        ratio = schedule.ratio_at(step)
        if ratio is not None:
            scores = [
                (float(w.abs()) if k else -1.0) for w, k in zip(flat(model), expected, strict=True)
            ]
            order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
            expected = torch.ones(len(scores), dtype=torch.bool)
            expected[order[: round(ratio * len(scores))]] = False
        pruner.step()
        assert torch.equal(kept(pruner), expected)
        assert_held(model, optimizer, pruner.masks)
    assert pruner.sparsity == pytest.approx(0.9, abs=1e-3)
    assert pruner.sparsity == sc.sparsity(model).ratio


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "kernel"},
        {"granularity": "filter", "scope": "layer"},
        {"scope": "layer"},
        {"score": "gradient"},
        {"score": "taylor", "granularity": "kernel"},
        {"score": "random", "seed": 3},
        {"score": "random", "seed": 3, "granularity": "filter", "scope": "layer"},
        {"score": lambda target: -target.weight.abs()},
        {"layers": "linear"},
        {"include": "0"},
    ],
    ids=[
        *("kernel", "filter", "layer", "gradient", "taylor", "random", "random-filter"),
        *("function", "linear", "include"),
    ],
)
def test_what_is_pruned_stays_pruned_under_any_criterion(options: dict[str, Any]) -> None:
    model, optimizer, pruner = made(Iterative(0.6, 3, every=1), **options)
    before = {name: mask.clone() for name, mask in pruner.masks.items()}
    for _ in range(4):
        train(model, optimizer, 1)
        pruner.step()
        for name, mask in pruner.masks.items():
            assert not (mask & ~before[name]).any(), "a weight came back"
        before = {name: mask.clone() for name, mask in pruner.masks.items()}
    units = list(pruner.masks.units.values())
    pruned = sum(int((~mask.keep).sum()) for mask in units)
    total = sum(mask.keep.numel() for mask in units)
    assert pruned == (
        sum(round(0.6 * mask.keep.numel()) for mask in units)
        if options.get("scope") == "layer"
        else round(0.6 * total)
    )


def test_rewound_weights_are_those_of_the_step() -> None:
    for rewind in (0, 1):
        model, optimizer, pruner = made(Iterative(0.75, 2, every=2, rewind=rewind))
        first = copy.deepcopy(model.state_dict())
        for step in range(1, 6):
            train(model, optimizer, 1)
            learned = model[4].weight.detach().clone()
            pruner.step()
            if step == rewind:
                first = copy.deepcopy(model.state_dict())
            if pruner.schedule.ratio_at(step) is None:
                assert torch.equal(model[4].weight, learned)
                continue
            for name, value in model.state_dict().items():
                mask = pruner.masks[name] if name in pruner.masks else torch.tensor(True)
                assert torch.equal(value, torch.where(mask, first[name], 0)), name
            assert not optimizer.state
            assert torch.equal(model[4].weight_orig, learned)  # nothing is gone
        assert_held(model, optimizer, pruner.masks)


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "one-shot": lambda: {"schedule": OneShot(0.5)},
    "cubic": lambda: {"schedule": Cubic(0.8, end=6, every=2), "granularity": "kernel"},
    "rewound": lambda: {"schedule": Iterative(0.8, 2, every=3, rewind=1)},
    "random": lambda: {"schedule": Iterative(0.8, 3, every=2), "score": "random", "seed": 1},
    "surgery": lambda: {
        "schedule": Cubic(0.8, end=4, every=2),
        "regrow": MagnitudeRegrowth(gamma=0.2),
        "seed": 1,
    },
    "rigl": lambda: {
        "schedule": Constant(0.7),
        "regrow": GradientRegrowth(every=2, until=8),
        "seed": 1,
    },
}


@pytest.mark.parametrize("order", ["mop", "pmo", "opm", "m-op", "mo-p"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_is_the_same_bit_for_bit(kind: str, order: str) -> None:
    """In any order of loading; the letters before the dash are loaded before the Pruner is made."""
    model, optimizer, pruner = made(**KINDS[kind]())
    train(model, optimizer, 4, pruner.step)
    file = io.BytesIO()
    saved = {"m": model.state_dict(), "o": optimizer.state_dict(), "p": pruner.state_dict()}
    torch.save(saved, file)
    train(model, optimizer, 5, pruner.step)

    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = network(1)
    other = optim.SGD(again.parameters(), lr=0.1, momentum=0.9)
    loads = {"m": again.load_state_dict, "o": other.load_state_dict}
    early, _, late = order.rpartition("-")
    for part in early:
        loads[part](state[part])
    resumed = Pruner(again, other, **KINDS[kind]())
    loads["p"] = resumed.load_state_dict
    for part in late:
        loads[part](state[part])
    train(again, other, 5, resumed.step)
    assert_same(snapshot(again), snapshot(model))
    assert resumed.masks == pruner.masks
    assert resumed.steps == 9
    for one, two in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert torch.equal(one["momentum_buffer"], two["momentum_buffer"])


def test_what_the_originals_mean_while_training() -> None:
    model, optimizer, pruner = made(Iterative(0.75, 2, every=2))
    train(model, optimizer, 1)
    pruner.step()
    assert not hasattr(model[4], "weight_orig")  # nothing is pruned yet
    for _ in range(3):
        train(model, optimizer, 1)
        learned = model[4].weight.detach().clone()
        pruner.step()
        if hasattr(model[4], "weight_orig") and pruner.schedule.ratio_at(pruner.steps):
            assert torch.equal(model[4].weight_orig, learned)
            last = learned
    train(model, optimizer, 1)
    pruner.remove()
    with pytest.warns(sc.LostTrainingWarning):
        sc.restore(model)
    assert torch.equal(model[4].weight, last)


@pytest.mark.parametrize("regrow", [None, MagnitudeRegrowth()])
def test_after_remove_nothing_happens_until_it_gets_an_optimizer(regrow: Any) -> None:
    model, optimizer, pruner = made(Iterative(0.75, 3, every=1), regrow=regrow)
    train(model, optimizer, 1, pruner.step)
    masks = pruner.masks
    pruner.remove()
    train(model, optimizer, 3, pruner.step)
    assert (pruner.steps, pruner.masks) == (1, masks)
    assert model[4].weight.count_nonzero() == model[4].weight.numel()  # trained, not pruned again
    pruner.replace_optimizer(optimizer)
    train(model, optimizer, 2, pruner.step)
    assert pruner.steps == 3
    assert pruner.sparsity > masks.sparsity
    assert sc.sparsity(model).ratio == pytest.approx(pruner.sparsity)


def test_a_later_hold_of_the_same_weights_ends_a_pruner() -> None:
    model, optimizer, pruner = made(Iterative(0.75, 3, every=1))
    train(model, optimizer, 1, pruner.step)
    handle = sc.training.hold(model, optimizer)
    train(model, optimizer, 3, pruner.step)
    assert pruner.steps == 1
    assert_held(model, optimizer, handle.masks)


@pytest.mark.parametrize("regrow", [None, MagnitudeRegrowth(), GradientRegrowth(2, 9)])
def test_two_pruners_of_other_weights_do_not_undo_each_other(regrow: Any) -> None:
    def both(rewind: int | None) -> tuple[nn.Module, optim.Optimizer, list[Pruner]]:
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        first = Iterative(0.5, 2, every=2)
        second = Iterative(0.8, 2, every=2, rewind=rewind)
        options = {"regrow": regrow, "seed": 0}
        pruners = [
            Pruner(model, optimizer, first, include="0", **options),
            Pruner(model, optimizer, second, include="4", **options),
        ]
        return model, optimizer, pruners

    for rewind in (None, 1) if not isinstance(regrow, MagnitudeRegrowth) else (None,):
        model, optimizer, pruners = both(rewind)
        for step in range(1, 7):
            train(model, optimizer, 1)
            for pruner in pruners:
                pruner.step()
            for pruner, name in zip(pruners, WEIGHTS, strict=True):
                assert not model.get_parameter(name)[~pruner.masks[name]].any(), f"{name} at {step}"
        assert [pruner.sparsity for pruner in pruners] == pytest.approx([0.5, 0.8])
        assert hasattr(model[0], "weight_orig")


def test_a_pruned_model_is_pruned_further() -> None:
    model = network()
    sc.global_prune(model, 0.5)
    zeros = masks_from_zeros(model)
    model, optimizer, pruner = made(Cubic(0.8, end=2, every=1, initial=0.5), model)
    assert pruner.masks == zeros
    train(model, optimizer, 2, pruner.step)
    assert not any((pruner.masks[name] & ~zeros[name]).any() for name in WEIGHTS)
    assert_held(model, optimizer, pruner.masks)
    model = network()
    sc.global_prune(model, 0.5)
    said = "the schedule goes down, from 0.5 to 0.3 at step 0"
    with pytest.raises(sc.InvalidArgumentError, match=said):
        made(OneShot(0.3), model)


@pytest.mark.parametrize("regrow", [None, MagnitudeRegrowth()])
def test_neighbours_stay_in_their_pattern(regrow: Any) -> None:
    options = {"scope": "2:4", "exclude": "0", "regrow": regrow}
    model, optimizer, pruner = made(OneShot(0.5, at=1), **options)
    for _ in range(3):
        train(model, optimizer, 1)
        pruner.step()
        assert set(pruner.masks["4.weight"].view(-1, 4).sum(1).tolist()) == {2}
        assert torch.equal(model[4].weight == 0, ~pruner.masks["4.weight"])
    with pytest.raises(sc.InvalidArgumentError, match=r"more of 4\.weight is pruned already"):
        made(OneShot(0.75), sc.global_prune(network(), 0.8), scope="1:4", exclude="0")


def test_a_floor_keeps_a_part_of_every_layer_and_the_count_exact() -> None:
    def small_first() -> nn.Module:
        model = network()
        model[0].weight.data *= 1e-3
        return model

    with pytest.raises(
        sc.InvalidArgumentError, match=r"prunes every weight of 0\.weight"
    ) as caught:
        made(OneShot(0.6), small_first())
    assert "write keep_at_least=0.01" in str(caught.value)
    _, _, pruner = made(OneShot(0.6), small_first(), keep_at_least=0.2)
    assert int(pruner.masks["0.weight"].sum()) == 15  # a fifth of 72, rounded up
    assert int((~kept(pruner)).sum()) == round(0.6 * 252)
    _, _, pruner = made(OneShot(0.99), scope="layer", keep_at_least=0.1)
    assert [int(pruner.masks[name].sum()) for name in WEIGHTS] == [8, 18]
    _, _, pruner = made(OneShot(0.99), scope="layer", keep_at_least=0.55)
    # Of 180, 99: as a float, 0.55 * 180 is more.
    assert [int(pruner.masks[name].sum()) for name in WEIGHTS] == [40, 99]
    with pytest.raises(
        sc.InvalidArgumentError, match=r"with keep_at_least=0\.5 at most 0\.5 can be pruned"
    ):
        made(OneShot(0.6), keep_at_least=0.5)


def test_averages_lose_what_is_pruned_on_the_way() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    average = AveragedModel(model)
    pruner = Pruner(model, optimizer, Iterative(0.8, 3, every=1), averaged=average)
    train(model, optimizer, 4, lambda: (average.update_parameters(model), pruner.step()))
    for name, mask in pruner.masks.items():
        weight = average.module.get_parameter(name)
        assert not weight[~mask].any()
        assert weight[mask].all()


def test_a_replaced_optimizer_is_refused_until_it_is_handed_in() -> None:
    model, optimizer, pruner = made(Iterative(0.8, 4, every=1))
    train(model, optimizer, 2, pruner.step)
    other = optim.Adam(model.parameters())
    with pytest.raises(
        sc.InvalidArgumentError, match=r"call pruner.replace_optimizer\(optimizer\)"
    ):
        train(model, other, 1)
    pruner.replace_optimizer(other)
    train(model, other, 2, pruner.step)
    assert pruner.steps == 4
    assert_held(model, other, pruner.masks)


def test_erk_gives_small_layers_more() -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 10))
    ratios = erk_ratios(model, 0.5)
    raw = {"0.weight": (8 + 16 + 3 + 3) / (8 * 16 * 9), "2.weight": (10 + 16) / 160}
    sizes = {"0.weight": 1152, "2.weight": 160}
    keep = 1312 - 656
    scale = keep / sum(raw[name] * sizes[name] for name in raw)
    assert scale * raw["2.weight"] > 1  # so it stays dense
    assert ratios == {"0.weight": (1152 - (keep - 160)) / 1152, "2.weight": 0.0}
    assert erk_ratios(model, 0.0) == dict.fromkeys(ratios, 0.0)
    assert set(erk_ratios(model, 1.0).values()) == {1.0}


def test_a_pruner_shows_what_it_does_and_lets_go_at_the_end_of_a_block() -> None:
    model, optimizer, pruner = made(OneShot(0.5))
    assert repr(pruner) == "Pruner(OneShot(ratio=0.5, at=0), steps=0, sparsity=0.5000)"
    with pruner:
        train(model, optimizer, 1, pruner.step)
    assert_held(model, optimizer, pruner.masks)
    said = r"this Pruner has ended: call pruner\.replace_optimizer"
    with pytest.raises(sc.InvalidArgumentError, match=said), pruner:
        pass
    train(model, optimizer, 1)
    assert flat(model).all()
    assert images().shape[0] == 6
    assert loss_of(model).isfinite()
