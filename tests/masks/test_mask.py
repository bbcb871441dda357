from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from helpers import Case, every_case, every_granularity
from secateurs import (
    InvalidArgumentError,
    Mask,
    Masks,
    apply_masks,
    select,
    sparsity,
)
from secateurs.masks.granularity import Units


def masks_of(model: nn.Module, granularity: str = "weight") -> Masks:
    return select(model, 0.6, granularity=granularity).draw(0.7, seed=0)


@every_case
@every_granularity
def test_masks_are_a_mapping_in_the_model_s_order_and_shapes(case: Case, granularity: str) -> None:
    model = case.model()
    masks = masks_of(model, granularity)
    assert tuple(masks) == case.targets
    assert len(masks) == len(case.targets)
    for name, mask in masks.items():
        assert mask.dtype == torch.bool
        assert mask.shape == model.get_parameter(name).shape
    zeros = [int((~mask).sum()) for mask in masks.values()]
    assert [layer.zeros for layer in masks.table] == zeros
    assert [layer.name for layer in masks.table] == list(masks)
    assert masks.sparsity == sum(zeros) / sum(mask.numel() for mask in masks.values())
    assert masks.density == 1 - masks.sparsity


@every_case
@every_granularity
def test_what_is_saved_is_loaded(case: Case, granularity: str, tmp_path: Path) -> None:
    model = case.model()
    masks = masks_of(model, granularity)
    masks.save(tmp_path / "masks.safetensors")
    loaded = Masks.load(tmp_path / "masks.safetensors")
    assert list(loaded) == list(masks)  # in the model's order, not the file's
    for name, mask in masks.units.items():
        assert torch.equal(loaded.units[name].keep, mask.keep)
        assert loaded.units[name].units == mask.units
    apply_masks(model, loaded)
    first = model.state_dict()
    again = apply_masks(case.model(), masks).state_dict()
    assert all(torch.equal(first[n].double(), again[n].double()) for n in first)


def test_a_path_may_begin_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    masks = masks_of(nn.Linear(2, 2))
    masks.save("~/masks.safetensors")
    assert (tmp_path / "masks.safetensors").exists()
    assert Masks.load("~/masks.safetensors") == masks
    for act in (masks.save, Masks.load):
        with pytest.raises(InvalidArgumentError, match="path must be a path as text, got 3"):
            act(3)


def test_the_order_survives_where_it_is_not_alphabetical(tmp_path: Path) -> None:
    masks = masks_of(nn.ModuleDict({"z": nn.Linear(2, 2), "a": nn.Linear(2, 2)}))
    masks.save(tmp_path / "m")
    assert list(Masks.load(str(tmp_path / "m"))) == ["z.weight", "a.weight"]


def test_a_kernel_mask_takes_one_byte_a_kernel(tmp_path: Path) -> None:
    masks_of(nn.Conv2d(8, 8, 5), "kernel").save(tmp_path / "m")
    with safe_open(str(tmp_path / "m"), "pt") as file:
        assert file.get_tensor("weight").numel() == 64
    assert (tmp_path / "m").stat().st_size < 600


def test_masks_from_tensors(tmp_path: Path) -> None:
    keep = torch.tensor([[True, False], [False, True]])
    masks = Masks.from_tensors({"0.weight": keep, "1.weight": keep})
    assert masks.sparsity == 0.5
    model = apply_masks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), masks)
    assert sparsity(model).zeros == 4
    masks.save(tmp_path / "m")  # one tensor under two names
    assert torch.equal(Masks.load(tmp_path / "m")["1.weight"], keep)
    assert repr(masks) == "Masks(2 parameters, sparsity=0.5000)"


def test_masks_of_transposed_layout_are_saved_in_flat_order(tmp_path: Path) -> None:
    keep = torch.tensor([[True, False, False], [True, True, False]])
    Masks.from_tensors({"weight": keep.t().contiguous().t()}).save(tmp_path / "m")
    assert torch.equal(Masks.load(tmp_path / "m")["weight"], keep)


def test_nothing_pruned_and_everything() -> None:
    model = nn.Linear(3, 3)
    assert select(model, 0).draw().sparsity == 0.0
    assert select(model, 1).draw().density == 0.0
    assert Masks({}).sparsity == 0.0


def test_to_copies_to_a_device() -> None:
    masks = masks_of(nn.Linear(3, 3))
    moved = masks.to("meta")
    assert moved["weight"].is_meta
    assert not masks["weight"].is_meta
    assert moved.units["weight"].units == masks.units["weight"].units


def test_a_mask_checks_itself() -> None:
    units = Units((2, 3), (2, 3), (2, 1))
    with pytest.raises(
        InvalidArgumentError, match=r"must be bool .* got torch\.float32; write mask"
    ):
        Mask(torch.ones(2, 1), units)
    with pytest.raises(
        InvalidArgumentError, match=r"of units \(2, 1\) cannot have the shape \(2, 3\)"
    ):
        Mask(torch.ones(2, 3, dtype=torch.bool), units)
    with pytest.raises(InvalidArgumentError, match="must be bool"):
        Masks.from_tensors({"weight": torch.ones(2, 3)})
    with pytest.raises(InvalidArgumentError, match=r"must be dense, got .*sparse_coo; write mask"):
        Masks.from_tensors({"weight": torch.eye(2).bool().to_sparse()})
    with pytest.raises(InvalidArgumentError, match="by the names of parameters, got 3"):
        Masks.from_tensors({3: torch.ones(2, 3, dtype=torch.bool)})
    with pytest.raises(KeyError):
        masks_of(nn.Linear(2, 2))["bias"]


@pytest.mark.parametrize("prune_type", ["global", "gradient"])
def test_what_is_often_taken_for_masks(prune_type: str) -> None:
    model = nn.Linear(3, 2)
    candidates = select(model, 0.5)
    for given in (candidates, {"weight": torch.ones(2, 3, dtype=torch.bool)}, None):
        with pytest.raises(InvalidArgumentError, match=r"masks must be secateurs\.Masks, got"):
            apply_masks(model, given, prune_type)
    with pytest.raises(InvalidArgumentError, match=r"out must be secateurs\.Masks, got dict"):
        candidates.draw(0.5, seed=0, out={})
    with pytest.raises(InvalidArgumentError, match=r"mask of weight must be a bool tensor.*int"):
        Masks.from_tensors({"weight": 1})
    with pytest.raises(InvalidArgumentError, match=r"a mapping from names.*got NoneType"):
        Masks.from_tensors(None)
    for given in (None, [1], {"weight": torch.ones(2, 3, dtype=torch.bool)}):
        with pytest.raises(InvalidArgumentError, match=r"secateurs\.Mask: .* Masks\.from_tensors"):
            Masks(given)


def test_masks_for_another_model() -> None:
    masks = masks_of(nn.Linear(3, 2))
    other, wide = nn.Sequential(nn.Linear(3, 2)), nn.Linear(4, 2)
    for prune_type in ("global", "gradient"):
        with pytest.raises(
            InvalidArgumentError, match="another model: it has no parameter 'weight'"
        ):
            apply_masks(other, masks, prune_type)
        with pytest.raises(
            InvalidArgumentError,
            match=r"another model: weight has shape \(2, 4\), its mask \(2, 3\)",
        ):
            apply_masks(wide, masks, prune_type)
    assert not list(wide.buffers())
