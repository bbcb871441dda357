import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import reference
from helpers import (
    DTYPES,
    FLOAT8,
    Case,
    assert_same,
    every_case,
    every_granularity,
    every_scope,
    exact,
    flags,
    snapshot,
)
from secateurs import (
    Candidates,
    InvalidArgumentError,
    Masks,
    find_targets,
    select,
    select_levels,
)

RATIOS = (0, 0.1, 0.25, 0.5, 0.75, 1)


def chosen(candidates: Candidates) -> dict[str, list[bool]]:
    return {name: flags(mask) for name, mask in candidates.chosen.items()}


# Sums of these are exact in any order, so that the oracle and a vectorised sum agree to the bit.
NUMBERS = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, 1.5, -2.0, 3.0, math.inf, -math.inf])


@st.composite
def models(draw: st.DrawFn) -> nn.Module:
    """A few layers of any shape and dtype, full of ties."""
    shapes = st.sampled_from([(2, 3), (1, 1), (3, 0), (2, 2, 2), (3, 1, 2, 2), (2, 2, 1, 1)])
    model = nn.Sequential()
    dtypes = draw(st.one_of(st.sampled_from([[d] for d in DTYPES]), st.just(list(DTYPES))))
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(shapes)
        count = math.prod(shape)
        values = torch.tensor(draw(st.lists(NUMBERS, min_size=count, max_size=count)))
        dtype = draw(st.sampled_from(dtypes))
        if dtype in FLOAT8:  # some have no infinity
            values = values.nan_to_num(posinf=4.0, neginf=-4.0)
        layer = nn.Linear(1, 1) if len(shape) == 2 else nn.Conv2d(1, 1, 1)
        layer.weight = nn.Parameter(values.view(shape).to(dtype))
        model.append(layer)
    return model


@every_granularity
@every_scope
@given(model=models(), p_prune=st.one_of(st.sampled_from([0.0, 1e-9, 0.5, 1.0]), st.floats(0, 1)))
@exact(60)
def test_exactly_the_candidates_of_the_oracle(
    granularity: str, scope: str, model: nn.Module, p_prune: float
) -> None:
    weights = {t.name: reference.Weight.of(t.parameter) for t in find_targets(model)}
    if not any(reference.units(w, granularity) for w in weights.values()):
        with pytest.raises(InvalidArgumentError, match="chosen weights are all empty"):
            select(model, p_prune, granularity=granularity, scope=scope)
        return
    found = select(model, p_prune, granularity=granularity, scope=scope)
    assert chosen(found) == reference.candidates(weights, p_prune, granularity, scope)


@every_case
@every_granularity
@every_scope
def test_counts_are_exact_and_candidates_nested(case: Case, granularity: str, scope: str) -> None:
    model = case.model()
    before = snapshot(model)
    found = [select(model, p, granularity=granularity, scope=scope) for p in RATIOS]
    for p, candidates in zip(RATIOS, found, strict=True):
        assert tuple(candidates.chosen) == case.targets
        sizes = [units.count for units in candidates.units.values()]
        assert candidates.total == sum(sizes)
        if scope == "global":
            assert candidates.count == round(p * candidates.total)
        else:
            counts = [int(mask.sum()) for mask in candidates.chosen.values()]
            assert counts == [round(p * n) for n in sizes]
    for small, large in pairwise(found):
        assert all(bool((large.chosen[n] | ~small.chosen[n]).all()) for n in small.chosen)
    assert_same(snapshot(model), before)


@every_case
@every_granularity
@every_scope
def test_levels_hold_the_candidates_of_every_ratio(
    case: Case, granularity: str, scope: str
) -> None:
    model = case.model()
    levels = select_levels(model, (0.75, 0.1, *RATIOS), granularity=granularity, scope=scope)
    assert levels.ratios == RATIOS
    assert all(level.dtype == torch.uint8 for level in levels.level.values())
    for p in RATIOS:
        assert chosen(levels.at(p)) == chosen(
            select(model, p, granularity=granularity, scope=scope)
        )


@pytest.mark.parametrize("score", ["random", "gradient", "taylor", lambda t: -t.weight.abs()])
def test_levels_take_every_score(score: object) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    model(torch.randn(2, 6)).square().sum().backward()
    options = {"score": score, "seed": 3 if score == "random" else None}
    levels = select_levels(model, RATIOS, **options)
    for p in RATIOS:
        assert chosen(levels.at(p)) == chosen(select(model, p, **options))


def test_255_levels_fit_and_more_are_refused() -> None:
    model = nn.Linear(30, 30)
    ratios = [i / 255 for i in range(256)]
    levels = select_levels(model, ratios[1:])
    for p in ratios[1::25]:
        assert chosen(levels.at(p)) == chosen(select(model, p))
    for wrong in (ratios, []):
        with pytest.raises(
            InvalidArgumentError, match=rf"1 to 255 values of p_prune, got {len(wrong)}"
        ):
            select_levels(model, wrong)
    with pytest.raises(InvalidArgumentError, match=r"p_prune=0\.5001 is not one of \["):
        levels.at(0.5001)


@pytest.mark.parametrize(
    ("n", "p", "k"),
    [(5, 0.5, 2), (7, 0.5, 4), (2, 0.25, 0), (6, 0.25, 2), (10, 0.249, 2), (3, 1, 3)],
)
def test_halves_go_to_the_even_count(n: int, p: float, k: int) -> None:
    assert select(nn.Linear(n, 1), p).count == k == round(p * n)


def test_ties_go_to_the_earlier_unit_also_across_layers() -> None:
    """The original code pruned nothing where scores tie."""
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(4, 2))
    for layer in model:
        nn.init.constant_(layer.weight, -0.25)
    assert chosen(select(model, 9 / 16)) == {
        "0.weight": [True] * 8,
        "1.weight": [True] + [False] * 7,
    }
    assert chosen(select(model, 3 / 8, scope="layer")) == {
        "0.weight": [True] * 3 + [False] * 5,
        "1.weight": [True] * 3 + [False] * 5,
    }


def test_ties_follow_the_flat_index_not_memory() -> None:
    model = nn.Conv2d(3, 2, 2)
    model.to(memory_format=torch.channels_last)
    nn.init.ones_(model.weight)
    assert not model.weight.is_contiguous()
    assert chosen(select(model, 0.25))["weight"] == [True] * 6 + [False] * 18


def test_expanded_weights_can_be_ranked() -> None:
    model = nn.Linear(4, 3)
    row = torch.tensor([2.0, 0.5, 1.0, 3.0])
    model.weight = nn.Parameter(row.expand(3, 4))
    assert flags(select(model, 0.25).chosen["weight"]) == [False, True, False, False] * 3
    assert select(model, 2 / 3, granularity="filter").count == 2


def test_p_prune_one_and_zero() -> None:
    """The original code raised IndexError at one."""
    model = nn.Linear(3, 3)
    assert select(model, 1).count == 9
    assert select(model, 0).count == 0


@every_case
@pytest.mark.parametrize("p_bern", [0.3, 0.5])
def test_a_draw_applies_the_bernoulli_table_to_the_candidates(case: Case, p_bern: float) -> None:
    model = case.model()
    for granularity in ("weight", "kernel", "filter"):
        candidates = select(model, 0.7, granularity=granularity)
        masks = candidates.draw(p_bern, seed=5)
        words = torch.empty(3, dtype=torch.int64)
        words.random_(-(2**63), None, generator=torch.Generator().manual_seed(5))
        table = reference.coins(p_bern, words.tolist(), candidates.total)
        weights = case.weights(model)
        for name, units in candidates.units.items():
            mine, table = table[: units.count], table[units.count :]
            weight = weights[name]
            ours = (model.get_parameter(name).double() * masks[name]).reshape(-1).tolist()
            candidate = flags(candidates.chosen[name])
            assert ours == reference.pruned(weight, granularity, candidate, mine)
        assert not table


def test_draws_prune_candidates_only_and_every_candidate_sometimes() -> None:
    candidates = select(nn.Linear(8, 8), 0.5)
    generator = torch.Generator().manual_seed(0)
    count, draws = torch.zeros(8, 8), 2000
    for _ in range(draws):
        count += ~candidates.draw(0.3, generator=generator)["weight"]
    can = candidates.chosen["weight"]
    assert not count[~can].any()
    sigma = math.sqrt(0.3 * 0.7 / draws)
    assert bool(((count[can] / draws - 0.3).abs() < 4.5 * sigma).all())


def test_seeds_and_generators_of_draws() -> None:
    candidates = select(nn.Linear(20, 20), 0.8)
    generator = torch.Generator().manual_seed(0)
    first, again = (candidates.draw(0.5, generator=generator)["weight"] for _ in range(2))
    assert not torch.equal(first, again)
    assert torch.equal(candidates.draw(0.5, seed=0)["weight"], first)
    assert not torch.equal(candidates.draw(0.5, seed=1)["weight"], first)


def test_layers_do_not_share_their_draws() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    masks = select(model, 1).draw(0.5, seed=0)
    assert not torch.equal(masks["0.weight"], masks["1.weight"])


def test_certain_draws_need_and_use_no_randomness() -> None:
    candidates = select(nn.Linear(4, 4), 0.5)
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert torch.equal(candidates.draw(1)["weight"], ~candidates.chosen["weight"])
    assert candidates.draw(0)["weight"].all()
    candidates.draw(1, generator=generator)
    candidates.draw(0, generator=generator)
    assert torch.equal(generator.get_state(), state)


def test_a_redraw_writes_into_the_masks_of_an_earlier_draw() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(5, 6)).to(memory_format=torch.channels_last)
    for granularity in ("weight", "kernel", "filter"):
        candidates = select(model, 0.7, granularity=granularity)
        masks = candidates.draw(1)
        places = [mask.keep.data_ptr() for mask in masks.units.values()]
        for p_bern in (0.4, 0, 1, 0.5):
            fresh = candidates.draw(p_bern, seed=1)
            assert candidates.draw(p_bern, seed=1, out=masks) is masks
            assert all(torch.equal(masks[name], fresh[name]) for name in fresh)
        assert [mask.keep.data_ptr() for mask in masks.units.values()] == places


def test_masks_of_other_candidates_are_refused_for_a_redraw() -> None:
    plain = nn.Conv2d(3, 4, 3)
    candidates = select(plain, 0.5)
    kernels = select(plain, 0.5, granularity="kernel").draw()
    other = select(nn.Sequential(nn.Conv2d(3, 4, 3)), 0.5).draw()
    last = select(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), 0.5).draw()
    for masks in (kernels, other):
        with pytest.raises(InvalidArgumentError, match="out holds no mask for the units of weight"):
            candidates.draw(0.5, seed=0, out=masks)
    with pytest.raises(InvalidArgumentError, match="in another memory layout"):
        candidates.draw(0.5, seed=0, out=last)


def test_a_draw_does_not_change_the_candidates() -> None:
    candidates = select(nn.Linear(4, 4), 0.5)
    before = candidates.chosen["weight"].clone()
    for p_bern in (0, 0.5, 1):
        masks = candidates.draw(p_bern, seed=0)
        masks.units["weight"].keep.fill_(False)
    assert torch.equal(candidates.chosen["weight"], before)


@pytest.mark.parametrize("granularity", ["weights", "connection", None, 1])
def test_unknown_granularity(granularity: object) -> None:
    hint = "; did you mean weight" if granularity == "weights" else ""
    with pytest.raises(
        InvalidArgumentError,
        match=rf"granularity must be one of weight, kernel, filter; got .*{hint}",
    ):
        select(nn.Linear(2, 2), 0.5, granularity=granularity)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scope": "model"}, "scope must be one of global, layer, N:M; got 'model'"),
        ({"score": "random"}, r"score='random' draws random numbers: hand in seed=0"),
        ({"seed": 0, "generator": torch.Generator()}, "give generator or seed, not both"),
        ({"layers": "conv2d"}, r"nothing to prune with layers='conv2d'.*are Linear"),
    ],
)
def test_wrong_options(options: dict[str, object], words: str) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(InvalidArgumentError, match=words):
        select(model, 0.5, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=words):
        select_levels(model, [0.5], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("ratio", [1.2, -0.1, math.nan, "half", True, None])
def test_wrong_ratios(ratio: object) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(InvalidArgumentError, match=r"^p_prune must be"):
        select(model, ratio)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"^p_prune must be"):
        select_levels(model, [0.5, ratio])  # type: ignore[list-item]
    with pytest.raises(InvalidArgumentError, match=r"^p_bern must be"):
        select(model, 0.5).draw(ratio, seed=0)  # type: ignore[arg-type]


def test_a_random_draw_needs_a_source() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"p_bern=0\.5 draws random numbers: hand in seed"
    ):
        select(nn.Linear(2, 2), 0.5).draw(0.5)


@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
def test_equal_by_value_and_no_keys_of_a_dict(granularity: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4))

    def made(p_prune: float, **options: object) -> list[object]:
        candidates = select(model, p_prune, granularity=granularity, **options)
        masks = candidates.draw()
        levels = select_levels(model, [0.1, p_prune], granularity=granularity, **options)
        return [candidates, levels, masks, masks.units["0.weight"]]

    for one, same, other, part in zip(
        made(0.5), made(0.5), made(1.0), made(1.0, exclude="2"), strict=True
    ):
        assert (one == same, one != same) == (True, False)
        assert (one == other, one != other, one == 1) == (False, True, False)
        assert one in [other, same]
        assert one != part
        with pytest.raises(TypeError, match=f"unhashable type: '{type(one).__name__}'"):
            hash(one)


def test_masks_are_equal_to_what_says_the_same() -> None:
    masks = select(nn.Conv2d(2, 3, 3), 0.5, granularity="filter").draw()
    assert masks == dict(masks)
    assert masks == Masks.from_tensors(dict(masks))
    assert masks != {"weight": "a word"}
    assert masks != {"weight": masks["weight"].float()}
    assert masks != {}


def test_they_print_themselves_in_one_line() -> None:
    model = nn.Linear(4, 4)
    assert repr(select(model, 0.3)) == "Candidates(5 of 16 units)"
    assert repr(select_levels(model, [0.5, 0.3])) == "Levels(ratios=(0.3, 0.5))"
