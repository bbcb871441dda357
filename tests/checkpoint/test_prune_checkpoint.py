"""Pruning a file is pruning the model that it is loaded into."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from stored_models import DTYPES, PRUNES, TARGETS, Net, assert_same, raw, to_file
from torch import nn

import secateurs as sc
from secateurs.checkpoint import decide_pruning, plan_pruning, prune_checkpoint, write_pruned
from secateurs.checkpoint.header import read_header

MIXED = (
    (torch.float8_e5m2, torch.bfloat16, torch.float16),
    (torch.float64, torch.float8_e4m3fnuz, torch.float32),
)


def both_ways(
    folder: Path, dtypes, p_prune: float, p_bern: float, prune=prune_checkpoint, **options
) -> None:
    """Prune the model and its file, and compare all tensors, bit by bit."""
    model = Net(dtypes)
    source = to_file(folder / "in.safetensors", model.state_dict(), {"format": "pt"})
    prune(source, folder / "out.safetensors", p_prune, p_bern, seed=3, **options)
    sc.global_prune(model, p_prune, p_bern, seed=3, **options)
    assert_same(load_file(folder / "out.safetensors"), model.state_dict())


@PRUNES
@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
@pytest.mark.parametrize("dtypes", [*[(d,) for d in DTYPES], *MIXED], ids=str)
def test_a_file_is_pruned_as_its_model_is(tmp_path: Path, dtypes, granularity: str, prune) -> None:
    both_ways(tmp_path, dtypes, 0.37, 1.0, prune, granularity=granularity)
    both_ways(tmp_path, dtypes, 0.6, 0.3, prune, granularity=granularity, scope="layer")


@PRUNES
@pytest.mark.parametrize("score", ["magnitude", "random", "lamp"])
def test_neighbours_compete_as_in_the_model(tmp_path: Path, score: str, prune) -> None:
    options = {"scope": "2:4", "include": "line", "score": score}
    for dtype in DTYPES if score == "magnitude" else DTYPES[1:2]:
        for p_bern in (1.0, 0.4):
            both_ways(tmp_path, (dtype,), 0.5, p_bern, prune, **options)


def test_neighbours_of_columns(tmp_path: Path) -> None:
    """Of a Conv1D, whose inputs lie along the first dimension, as its bias shows."""
    columns = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    tensors = {"a.weight": columns, "a.bias": torch.ones(6), "b.weight": torch.ones(3, 6)}
    source = to_file(tmp_path / "in.safetensors", tensors)
    for block in (None, 50):
        plan = plan_pruning(source, scope="2:4", exclude="b")
        (weight,) = plan.weights
        assert weight.step % 24 == 0
        if block is not None:
            plan = replace(plan, weights=(replace(weight, block=24),))
        write_pruned(plan, decide_pruning(plan), tmp_path / "out.safetensors")
        rows = nn.Linear(8, 6)
        rows.weight.data.copy_(columns.T)
        sc.global_prune(rows, scope="2:4")
        found = load_file(tmp_path / "out.safetensors")
        assert torch.equal(found["a.weight"], rows.weight.T)
        assert torch.equal(found["b.weight"], tensors["b.weight"])


@pytest.mark.parametrize(
    ("p_prune", "options", "words"),
    [
        (0.3, {"include": "line"}, r"^scope='2:4' prunes 0\.5 of all units, not 0\.3"),
        (None, {}, r"each output of conv\.weight has 45, as 1 more .* exclude=\['conv\.weight', "),
        (None, {"scope": "layer"}, "^p_prune must be given"),
    ],
)
def test_neighbours_must_fit(tmp_path: Path, p_prune, options, words: str) -> None:
    source = to_file(tmp_path / "in.safetensors", Net().state_dict())
    with pytest.raises(sc.InvalidArgumentError, match=words):
        plan_pruning(source, p_prune, **{"scope": "2:4", **options})


@PRUNES
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
def test_random_scores_are_those_of_the_model(
    tmp_path: Path, granularity: str, scope: str, prune
) -> None:
    for p_bern in (1.0, 0.4):
        options = {"granularity": granularity, "scope": scope, "score": "random"}
        both_ways(tmp_path, DTYPES[1:2], 0.5, p_bern, prune, **options)


@pytest.mark.parametrize("p_prune", [0.0, 1e-9, 0.5, 1.0])
@pytest.mark.parametrize("p_bern", [0.0, 0.999, 1.0])
def test_ratios_at_the_ends(tmp_path: Path, p_prune: float, p_bern: float) -> None:
    both_ways(tmp_path, (torch.float32, torch.float16), p_prune, p_bern)


@PRUNES
@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
def test_ties_go_to_the_tensor_that_comes_first(tmp_path: Path, granularity: str, prune) -> None:
    model = Net()
    with torch.no_grad():
        for name in TARGETS:
            model.get_parameter(name).fill_(-0.5)
    source = to_file(tmp_path / "in.safetensors", model.state_dict())
    for p_prune in (0.2, 0.5, 0.93):
        prune(source, tmp_path / "out.safetensors", p_prune, granularity=granularity)
        sc.global_prune(model, p_prune, granularity=granularity)
        assert_same(load_file(tmp_path / "out.safetensors"), model.state_dict())


def test_of_another_order_the_untied_candidates_are_the_same(tmp_path: Path) -> None:
    model = Net((torch.bfloat16,))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    source = to_file(tmp_path / "in.safetensors", {name: state[name] for name in sorted(state)})
    prune_checkpoint(source, tmp_path / "out.safetensors", 0.5)
    found = load_file(tmp_path / "out.safetensors")
    sc.global_prune(model, 0.5)
    ours = torch.cat([found[n].flatten() == 0 for n in TARGETS])
    models = torch.cat([model.get_parameter(n).flatten() == 0 for n in TARGETS])
    magnitudes = torch.cat([state[n].flatten().abs() for n in TARGETS])
    assert ours.sum() == models.sum()
    differs = magnitudes[ours != models]
    assert differs.numel() > 0, "the test needs ties"
    assert differs.unique().numel() == 1


def test_everything_else_stays_the_same_to_the_byte(tmp_path: Path) -> None:
    state = Net().state_dict()
    state["odd"] = torch.tensor([1, 2, 3], dtype=torch.int8)
    state["norm.weight"] = torch.tensor([-0.0, float("nan"), 0.0, 1, 2, 3, 4])
    state["nothing"] = torch.empty(0, 3)
    metadata = {"format": "pt", "own words": "ü \n"}
    source = to_file(tmp_path / "in.safetensors", state, metadata)
    prune_checkpoint(source, tmp_path / "out.safetensors", 0.5)
    old, new = source.read_bytes(), (tmp_path / "out.safetensors").read_bytes()
    entries = {entry.name: entry for entry in read_header(source).entries}
    place = 0
    for name in TARGETS:
        entry = entries[name]
        assert old[place : entry.start] == new[place : entry.start]
        assert old[entry.start : entry.stop] != new[entry.start : entry.stop]
        place = entry.stop
    assert old[place:] == new[place:]
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == metadata


def test_values_that_stay_keep_their_bits(tmp_path: Path) -> None:
    weight = torch.tensor([[-0.0, 0.0, 1e-45, -1e-45], [float("inf"), -float("inf"), 1.0, -2.0]])
    source = to_file(tmp_path / "in.safetensors", {"fc.weight": weight})
    prune_checkpoint(source, tmp_path / "out.safetensors", 1 / 8)
    found = load_file(tmp_path / "out.safetensors")["fc.weight"]
    weight[0, 0] = 0.0
    assert raw(found) == raw(weight)


def test_the_file_itself_may_be_the_output(tmp_path: Path) -> None:
    model = Net()
    source = to_file(tmp_path / "model.safetensors", model.state_dict())
    prune_checkpoint(source, source, 0.5)
    assert_same(load_file(source), sc.global_prune(model, 0.5).state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_nan_is_refused_with_the_name_and_nothing_is_written(tmp_path: Path) -> None:
    state = Net().state_dict()
    state["linear.weight"][3, 4] = float("nan")
    source = to_file(tmp_path / "in.safetensors", state)
    for options in ({}, {"scope": "layer"}, {"granularity": "filter"}):
        for p_prune in (0.0, 0.5):
            with pytest.raises(sc.InvalidArgumentError, match=r"linear\.weight is NaN in places"):
                prune_checkpoint(source, tmp_path / "out.safetensors", p_prune, **options)
    assert not (tmp_path / "out.safetensors").exists()
    prune_checkpoint(source, tmp_path / "out.safetensors", 0.5, exclude="linear")


def test_the_plan_lists_what_competes(tmp_path: Path) -> None:
    source = to_file(tmp_path / "in.safetensors", Net().state_dict())
    plan = plan_pruning(source, 0.5)
    assert [weight.entry.name for weight in plan.weights] == list(TARGETS)
    assert "embed.weight" in [entry.name for entry in plan.untouched]


def test_a_large_tensor_takes_many_blocks_and_one_counting_pass(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = torch.randn(3000, 2000) * torch.rand(3000, 1)
    source = to_file(tmp_path / "in.safetensors", {"fc.weight": weight})
    size = source.stat().st_size
    read: list[int] = []
    prune_checkpoint(source, tmp_path / "out.safetensors", 0.7, advance=read.append)
    found = load_file(tmp_path / "out.safetensors")["fc.weight"]
    k = round(0.7 * weight.numel())
    threshold = weight.abs().flatten().kthvalue(k).values
    assert torch.equal(found, weight * (weight.abs() > threshold))
    assert sum(read) < 2.1 * size
