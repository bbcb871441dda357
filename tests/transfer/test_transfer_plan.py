"""Who attacks whom, with which variants, and how."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from digit_nets import networks
from secateurs.attacks import parse_method
from secateurs.errors import InvalidArgumentError
from secateurs.surrogates import MUP, Diversified
from secateurs.transfer import (
    AttackVariants,
    Protocol,
    Search,
    check_seeds,
    fit_size,
    make_groups,
)
from secateurs.transfer.image_choice import ImageSet
from secateurs.transfer.plan import noise_group

NETS = networks("hidden", "convolved", "normed")
fit_size(NETS, 8)
A, B, C = NETS


def names(groups: Any) -> list[tuple[list[str], list[str]]]:
    return [([n.name for n in g.surrogates], [n.name for n in g.targets]) for g in groups]


def test_each_alone_attacks_the_targets() -> None:
    assert names(make_groups([A, B], [C])) == [
        (["hidden"], ["normed"]),
        (["convolved"], ["normed"]),
    ]


def test_without_targets_the_other_surrogates_are_scored() -> None:
    assert names(make_groups([A, B, C])) == [
        (["hidden"], ["convolved", "normed"]),
        (["convolved"], ["hidden", "normed"]),
        (["normed"], ["hidden", "convolved"]),
    ]


def test_hold_one_out() -> None:
    groups = make_groups([A, B, C], hold_one_out=True)
    assert names(groups) == [
        (["convolved", "normed"], ["hidden"]),
        (["hidden", "normed"], ["convolved"]),
        (["hidden", "convolved"], ["normed"]),
    ]
    assert groups[0].name == "convolved;normed"
    assert [n.name for n in noise_group(groups).targets] == ["hidden", "convolved", "normed"]


def test_hold_one_out_scores_targets_too() -> None:
    assert names(make_groups([A, B], [C], hold_one_out=True)) == [
        (["convolved"], ["hidden", "normed"]),
        (["hidden"], ["convolved", "normed"]),
    ]


def test_together() -> None:
    assert names(make_groups([A, B], [C], together=True)) == [(["hidden", "convolved"], ["normed"])]


@pytest.mark.parametrize(
    ("surrogates", "targets", "options", "words"),
    [
        ([A], [], {"hold_one_out": True}, "but hidden is the only one: name two or more"),
        ([A], [], {}, "nothing to score: name targets beside hidden"),
        ([A, B], [], {"together": True}, "leave nothing to score"),
        ([], [A], {}, "no surrogates"),
        ([A, B], [B], {}, "convolved is named twice"),
    ],
)
def test_groups_that_cannot_be(
    surrogates: Any, targets: Any, options: dict[str, bool], words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        make_groups(surrogates, targets, **options)


def test_variants_are_a_grid_of_their_own_for_each_recipe() -> None:
    variants = AttackVariants(
        recipe=["dwp", "rapa", "mup"],
        p_prune=[0.1, 0.3],
        p_bern=[0.5],
        granularity=["weight", "kernel"],
        rapa_p_bern=[0.01, 0.05],
        mup_p_prune=[0.2],
    )
    assert [str(variant) for variant in variants.all] == [
        "dwp 0.1 0.5",
        "dwp 0.3 0.5",
        "dwp 0.1 0.5 kernel",
        "dwp 0.3 0.5 kernel",
        "rapa 0.01",
        "rapa 0.05",
        "mup 0.2",
    ]


def test_the_options_reach_the_surrogate() -> None:
    (variant,) = AttackVariants(
        p_prune=[0.2],
        p_bern=[0.7],
        granularity=["filter"],
        scope=["layer"],
        redraw=[4],
        prune_type=["gradient"],
        include=["0.*"],
    ).all
    assert str(variant) == "dwp 0.2 0.7 filter layer redraw=4 prune_type=gradient include=0.*"
    made: Any = variant.surrogate(B, seed=5).model
    assert isinstance(made, Diversified)
    assert (made.p_prune, made.p_bern, made.redraw, made.prune_type) == (0.2, 0.7, 4, "gradient")
    assert (made.options.granularity, made.options.scope) == ("filter", "layer")
    assert [target.name for target in made.targets] == ["0.weight"]
    assert made.seed == 5


def test_recipes_are_those_of_the_surrogates() -> None:
    rapa, mup = AttackVariants(recipe=["rapa", "mup"], rapa_p_bern=[0.1], mup_p_prune=[0.25]).all
    made: Any = rapa.surrogate(A, seed=0).model
    assert (made.p_prune, made.p_bern) == (1.0, 0.1)
    other: Any = mup.surrogate(A, seed=0).model
    assert isinstance(other, MUP) and other.p_prune == 0.25


def test_plain_adds_nothing() -> None:
    assert AttackVariants(recipe=["plain"]).all == []


def test_a_surrogate_with_nothing_to_prune_is_named() -> None:
    (bare,) = networks("bare")
    (variant,) = AttackVariants(recipe=["rapa"]).all
    with pytest.raises(InvalidArgumentError) as caught:
        variant.surrogate(bare, seed=0)
    assert str(caught.value).startswith("rapa does not fit bare: ")
    assert "or write another recipe (dwp, mup)" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recipe": ["dwpp"]}, "recipe must be one of plain, dwp, rapa, mup; got 'dwpp'; did you"),
        ({"p_prune": [1.5]}, "p_prune must be from 0 to 1"),
        ({"rapa_p_bern": [-0.1]}, "rapa_p_bern must be from 0 to 1"),
        ({"granularity": ["neuron"]}, "granularity must be one of weight, kernel, filter"),
        ({"score": ["taylor"]}, "score must be one of magnitude, lamp, random"),
        ({"redraw": ["sometimes"]}, 'redraw must be "forward", "step", or how many draws'),
        ({"redraw": [0]}, 'redraw must be "forward", "step", or how many draws'),
    ],
)
def test_variants_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        AttackVariants(**options)


def test_success_is_measured_at_these_steps() -> None:
    def at(steps: int, every: int) -> list[int]:
        method = parse_method("mi-logit")
        return Protocol(method=method, steps=steps, every=every).checkpoints

    assert (at(60, 20), at(50, 20), at(5, 20)) == ([20, 40, 60], [20, 40, 50], [5])


@pytest.mark.parametrize("name", ["steps", "passes", "every", "batch_size"])
def test_a_protocol_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{name} must be a whole number from 1, got 0"):
        Protocol(method=parse_method("ce"), **{name: 0})


def some_images(count: int) -> ImageSet:
    import torch

    whole = torch.arange(count)
    levels = whole.view(-1, 1, 1, 1).to(torch.uint8)
    return ImageSet(levels, whole, whole, [str(i) for i in range(count)], count, True)


def test_a_search_takes_the_first_images_and_leaves_the_rest() -> None:
    some, rest = Search(images=3).split(some_images(10))
    assert (some.names, rest.names) == (["0", "1", "2"], [str(i) for i in range(3, 10)])
    assert [len(part) for part in Search().split(some_images(10))] == [2, 8]


def test_a_search_that_leaves_nothing() -> None:
    with pytest.raises(InvalidArgumentError, match="leaves none to report on: write fewer"):
        Search(images=10).split(some_images(10))
    with pytest.raises(InvalidArgumentError, match="search_images must be a whole number from 1"):
        Search(images=0)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_integers_of_any_kind(kind: Any) -> None:
    protocol = Protocol(method=parse_method("mi-logit"), steps=kind(6), every=kind(4))
    assert protocol.checkpoints == [4, 6]
    assert asdict(Search(images=kind(2), steps=kind(3))) == {"images": 2, "steps": 3}
    assert AttackVariants(redraw=[kind(4), "step"]).all == AttackVariants(redraw=[4, "step"]).all
    seeds = check_seeds([kind(0), kind(7)])
    assert seeds == [0, 7]
    assert {type(seed) for seed in seeds} == {int}
    with pytest.raises(InvalidArgumentError, match="each once"):
        check_seeds([kind(3), 3])
