"""Quantised weights: a magnitude counts with its scale, or is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from stored_models import PRUNES, assert_same, to_file
from torch import nn

import secateurs as sc
from secateurs.checkpoint import plan_pruning, prune_checkpoint

FP8 = torch.float8_e4m3fn


KINDS = {
    "tensor": ((), (48, 40)),
    "tensor, one dimension": ((1,), (48, 40)),
    "channel": ((48,), (1, 40)),
    "channel, two dimensions": ((48, 1), (1, 40)),
    "input channel": ((1, 40), (48, 1)),
    "blocks": ((3, 3), (16, 16)),
    "groups": ((48, 5), (1, 8)),
}
"""The shape of a scale, and for how many rows and columns one of its numbers holds."""


def factor(scale: torch.Tensor, steps: tuple[int, int]) -> torch.Tensor:
    """The slow way: the factor of every element."""
    wide = scale.float().reshape(-(-48 // steps[0]), -(-40 // steps[1]))
    return torch.tensor(
        [[wide[i // steps[0], j // steps[1]] for j in range(40)] for i in range(48)]
    )


def stored(kind: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A layer in fp8 with its scale and one without, and the factor of each of its elements."""
    torch.manual_seed(0)
    quantised = (torch.randn(48, 40) * 50).to(FP8)
    shape, steps = KINDS[kind]
    scale = torch.rand(shape)
    other = torch.randn(16, 16) * 0.1
    tensors = {"a.weight": quantised, "a.SCALE": scale, "b.weight": other, "b.bias": torch.ones(4)}
    return tensors, factor(scale, steps)


NAMES = ("weight_scale", "weight_scale_inv", "weight.scale", "scale_weight", "scale")


def pruned(tensors: dict[str, torch.Tensor], factors: torch.Tensor, granularity: str):
    """As the same weights are pruned where the scale is multiplied in."""
    model = nn.ModuleDict({"a": nn.Linear(40, 48), "b": nn.Linear(16, 16)})
    with torch.no_grad():
        model["a"].weight.copy_(tensors["a.weight"].float() * factors)
        model["b"].weight.copy_(tensors["b.weight"])
    keep = sc.select(model, 0.5, granularity=granularity).draw()
    return {n: tensors[n].float() * keep[n] for n in ("a.weight", "b.weight")}


@pytest.mark.parametrize("granularity", ["weight", "filter"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@PRUNES
@pytest.mark.parametrize("kind", KINDS)
def test_magnitudes_count_with_their_scale(
    tmp_path: Path,
    kind: str,
    prune,
    granularity: str,
    dtype: torch.dtype,
) -> None:
    tensors, _ = stored(kind)
    tensors["a.weight_scale"] = tensors.pop("a.SCALE").to(dtype)
    factors = factor(tensors["a.weight_scale"], KINDS[kind][1])
    expected = pruned(tensors, factors, granularity)
    to_file(tmp_path / "in.safetensors", tensors)
    prune(tmp_path / "in.safetensors", tmp_path / "out.safetensors", 0.5, granularity=granularity)
    found = sc.load_checkpoint(tmp_path / "out.safetensors")
    for name, values in expected.items():
        assert torch.equal(found.pop(name).float(), values), name
    assert_same(found, {n: t for n, t in tensors.items() if n not in expected})


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_a_scale(tmp_path: Path, name: str, suffix: str) -> None:
    tensors, factors = stored("channel")
    tensors[f"a.{name}"] = tensors.pop("a.SCALE")
    source, output = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".pt":
        torch.save(tensors, source)
    else:
        to_file(source, tensors)
    prune_checkpoint(source, output, 0.5)
    found = sc.load_checkpoint(output)
    for weight, values in pruned(tensors, factors, "weight").items():
        assert torch.equal(found[weight].float(), values)


def test_equal_layers_with_other_scales_end_at_equal_ratios(tmp_path: Path) -> None:
    """Without their scale, one of these ended at 5% and the other at 95%."""
    torch.manual_seed(0)
    values = torch.randn(64, 64)
    tensors = {}
    for name, scale in (("a", 0.01), ("b", 1.0)):
        tensors |= {
            f"{name}.weight": (values / scale).to(FP8),
            f"{name}.weight_scale": torch.tensor(scale),
        }
    to_file(tmp_path / "in.safetensors", tensors)
    done = prune_checkpoint(tmp_path / "in.safetensors", tmp_path / "out.safetensors", 0.5)
    assert all(0.48 < one.pruned / one.total < 0.52 for one in done.weights)


def test_a_scale_in_another_file_and_a_block_that_the_configuration_tells(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    torch.manual_seed(0)
    scale = torch.rand(2, 2)
    weight = torch.randn(192, 96).to(FP8)  # blocks of 128 and 64, or two of 96 and two of 48
    to_file(folder / "1.safetensors", {"a.weight": weight})
    to_file(folder / "2.safetensors", {"a.weight_scale_inv": scale})
    places = {"a.weight": "1.safetensors", "a.weight_scale_inv": "2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(sc.InvalidArgumentError, match="block of a known size"):
        plan_pruning(folder, 0.5)
    (folder / "config.json").write_text('{"quantization_config": {"weight_block_size": [128, 64]}}')
    prune_checkpoint(folder, tmp_path / "out", 0.5)
    wide = scale.repeat_interleave(128, 0)[:192].repeat_interleave(64, 1)[:, :96]
    dense = nn.Linear(96, 192)
    dense.weight = nn.Parameter(weight.float() * wide)
    keep = sc.select(dense, 0.5).draw()["weight"]
    found = sc.load_checkpoint(tmp_path / "out")["a.weight"]
    assert torch.equal(found.float(), weight.float() * keep)


REFUSED = {
    "int8 of compressed-tensors": (
        {"a.weight": torch.ones(4, 4, dtype=torch.int8), "a.weight_scale": torch.ones(4, 1)},
        "'a.weight' are quantised integers",
    ),
    "int8 of bitsandbytes": (
        {"a.weight": torch.ones(4, 4, dtype=torch.int8), "a.SCB": torch.ones(4)},
        "'a.weight' are quantised integers",
    ),
    "4 bits of bitsandbytes": (
        {"a.weight": torch.ones(8, 1, dtype=torch.uint8), "a.weight.absmax": torch.ones(1)},
        "'a.weight' are quantised integers",
    ),
    "GPTQ": (
        {"a.qweight": torch.ones(4, 4, dtype=torch.int32), "a.scales": torch.ones(1, 4)},
        "'a.qweight' are quantised integers",
    ),
    "packed by compressed-tensors": (
        {"a.weight_packed": torch.ones(4, 4, dtype=torch.int32), "a.weight_scale": torch.ones(1)},
        "'a.weight_packed' are quantised integers",
    ),
    "two scales": (
        {
            "a.weight": torch.ones(4, 4).to(FP8),
            "a.weight_scale": torch.ones(4, 1),
            "a.weight_scale_2": torch.ones(1),
        },
        "'a.weight' is quantised with 'a.weight_scale_2'",
    ),
    "a zero point": (
        {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_zero_point": torch.ones(4, 1)},
        "'a.weight' is quantised with 'a.weight_zero_point'",
    ),
    "a scale of no known kind": (
        {"a.weight": torch.ones(4, 4).to(FP8), "a.w_scale": torch.ones(4, 1)},
        "'a.weight' is quantised with 'a.w_scale'",
    ),
    "a scale of another shape": (
        {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.ones(3, 7)},
        "a.weight of shape (4, 4) has a scale of shape (3, 7)",
    ),
    "a scale of integers": (
        {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.ones(4, dtype=torch.uint8)},
        "the scale 'a.weight_scale' of dtype U8",
    ),
    "a scale that is NaN": (
        {"a.weight": torch.ones(4, 4).to(FP8), "a.weight_scale": torch.tensor(float("nan"))},
        "the score of a.weight is NaN",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_applied_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    quantised, complaint = REFUSED[kind]
    to_file(tmp_path / "in.safetensors", {**quantised, "head.weight": torch.randn(4, 4)})
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    with pytest.raises(sc.InvalidArgumentError) as caught:
        prune_checkpoint(source, output, 0.5)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
    assert not output.exists()
    for options in ({"include": "head"}, {"exclude": "a"}):
        done = prune_checkpoint(source, output, 0.5, **options)
        assert [one.name for one in done.weights] == ["head.weight"]


def test_scales_are_no_weights(tmp_path: Path) -> None:
    tensors, _ = stored("channel, two dimensions")
    tensors["a.weight_scale"] = tensors.pop("a.SCALE")
    to_file(tmp_path / "in.safetensors", tensors)
    plan = plan_pruning(tmp_path / "in.safetensors", 0.5, layers="all")
    assert [w.entry.name for w in plan.weights] == ["a.weight", "b.weight", "b.bias"]


@pytest.mark.parametrize("dtype", [FP8, torch.int8])
def test_scales_of_no_known_kind_are_no_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "a.weight": torch.ones(4, 4).to(dtype),
        "a.weight_scaling_factor": torch.ones(1),
        "b.weight": torch.ones(4, 4),
    }
    to_file(tmp_path / "in.safetensors", tensors)
    plan = plan_pruning(tmp_path / "in.safetensors", 0.5, layers="all", score="random", seed=0)
    names = [w.entry.name for w in plan.weights]
    assert names == (["a.weight", "b.weight"] if dtype is FP8 else ["b.weight"])


def test_random_scores_need_no_scale(tmp_path: Path) -> None:
    to_file(tmp_path / "in.safetensors", REFUSED["a scale of another shape"][0])
    done = prune_checkpoint(
        tmp_path / "in.safetensors", tmp_path / "out.safetensors", 0.5, score="random", seed=0
    )
    assert done.weights[0].pruned == 8
