"""A file of ratios prunes each tensor as `allocate` prunes the parameter of a model."""

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import secateurs as sc
from secateurs.checkpoint import prune_checkpoint
from secateurs.errors import InvalidArgumentError
from secateurs.repair import allocate

RATIOS = {"0.weight": 0.25, "1.weight": 0.7}


@pytest.fixture
def model(tmp_path: Path) -> nn.Sequential:
    made = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    save_file(made.state_dict(), tmp_path / "in.safetensors")
    return made


def test_each_tensor_has_its_own_ratio(model: nn.Sequential, tmp_path: Path) -> None:
    done = prune_checkpoint(
        tmp_path / "in.safetensors", tmp_path / "out.safetensors", ratios=RATIOS
    )
    assert [(one.pruned, one.total) for one in done.weights] == [(12, 48), (17, 24)]
    sc.apply_masks(model, allocate(model, None, RATIOS).draw())
    for name, tensor in load_file(tmp_path / "out.safetensors").items():
        assert torch.equal(tensor, model.state_dict()[name])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "p_prune=0.5"),
        ({"p_prune": 0.5, "ratios": RATIOS}, "leave out p_prune and scope"),
        ({"ratios": {"0.weight": 0.5}}, "no ratio for 1.weight: add it, or write exclude"),
        ({"ratios": RATIOS | {"2.weight": 0.5}}, "'2.weight', which does not compete"),
        ({"ratios": RATIOS | {"1.weight": 2.0}}, "1.weight"),
    ],
)
def test_ratios_that_do_not_fit_are_refused(
    model: nn.Sequential, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        prune_checkpoint(tmp_path / "in.safetensors", tmp_path / "out.safetensors", **options)  # type: ignore[arg-type]


def test_a_shared_tensor_goes_by_each_of_its_names(tmp_path: Path) -> None:
    tensors = {"embed.weight": torch.randn(8, 8), "body.weight": torch.randn(4, 4)}
    file = tmp_path / "in.safetensors"
    save_file(tensors, file, {"head.weight": "embed.weight"})  # as save_model writes tied ones
    ratios = {"head.weight": 0.5, "body.weight": 0.25}
    done = prune_checkpoint(file, tmp_path / "a.safetensors", ratios=ratios, include=["*", "head"])
    assert {one.name: one.pruned for one in done.weights} == {"embed.weight": 32, "body.weight": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is left out by name is no surprise
        prune_checkpoint(file, tmp_path / "b.safetensors", 0.5, layers="all", exclude="head")
