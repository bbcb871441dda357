"""A layer that is repaired alone is what `secateurs.repair` makes of a model pruned there alone."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.errors import FailureError, InvalidArgumentError, RepairWarning
from secateurs.repair import RepairOptions
from secateurs.repair.single_layers import repair_single_layers
from secateurs.results import SensitivityRow


class _Net(nn.Module):
    """Grouped and plain convolutions with BatchNorm, an attention, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2, bias=False)
        self.last_norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.norm(self.conv(images)))
        tokens = torch.relu(self.last_norm(self.grouped(maps))).flatten(2).mT
        query = tokens.mean(1, keepdim=True)  # so that the packed weight is used in parts
        return self.head(self.attention(query, tokens, tokens)[0][:, 0])


def _images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count)) * 2 + 1


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    model = _Net()
    with torch.no_grad():
        model(_images(64))
    return model.eval()


def _rows(model: nn.Module, **options: Any) -> list[SensitivityRow]:
    loader = [(_images(40), torch.zeros(40, dtype=torch.long))]
    calibration = _images(48) if "repair" in options else None
    found = {"ratios": [0.5, 0.8], "calibration": calibration, "progress": False, **options}
    return sc.sensitivity(model, loader, **found)


@pytest.mark.parametrize(
    "steps",
    [["reconstruct"], ["sparsegpt"], ["channels"], ["sparsegpt", "channels", "reconstruct"],
     ["batchnorm"], ["batchnorm", "reconstruct"]],
    ids="+".join,
)  # fmt: skip
def test_it_is_the_repair_of_that_layer(net: nn.Module, steps: list[str]) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    rows = _rows(net, repair=steps)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert {(row.repair, row.calibration_count) for row in rows} == {(";".join(steps), 48)}
    images = _images(40)
    with torch.no_grad():
        dense = net(images).log_softmax(1)
        for row in rows:
            normalised = row.layer in ("conv.weight", "grouped.weight")
            if "batchnorm" in steps and not normalised:
                continue  # `repair` sets the statistics of all layers, also of those before it
            with sc.pruned(net, row.p_prune, include=[row.layer]):
                sc.repair(net, _images(48), steps)
                assert row.achieved == sc.sparsity(net, include=[row.layer]).ratio
                found = net(images).log_softmax(1)
            expected = (dense.exp() * (dense - found)).sum(1).mean().item()
            # Here the statistics of later layers stay those of the dense network.
            tolerance = 0.5 if "batchnorm" in steps else 2e-3
            assert row.divergence == pytest.approx(expected, rel=tolerance, abs=1e-7)


def test_repair_makes_a_layer_cheaper_to_prune(net: nn.Module) -> None:
    plain, repaired = _rows(net), _rows(net, repair=["sparsegpt", "reconstruct"])
    assert {(row.repair, row.calibration_count) for row in plain} == {("", 0)}
    assert sum(row.divergence for row in repaired) < sum(row.divergence for row in plain) / 2
    assert [row.achieved for row in plain] == [row.achieved for row in repaired]


def test_a_layer_that_is_called_twice_is_measured_as_pruned(net: nn.Module) -> None:
    del net
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.Linear(192, 5))
    twice = nn.Sequential(model[0], model[1], model[1], model[2])
    with pytest.warns(RepairWarning, match=r"1\.weight cannot be solved"):
        repaired = _rows(twice, repair=["reconstruct"])
    plain = _rows(twice)
    assert [row.divergence for row in repaired[:2]] == [row.divergence for row in plain[:2]]
    assert repaired[2].divergence < plain[2].divergence


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"repair": ["distill"]}, "of single layers takes batchnorm"),
        ({"repair": ["reconstruct"], "calibration": None}, "a repair needs images"),
        ({"repair": ["sparsegpt"], "granularity": "kernel", "include": "conv"}, "single weights"),
        ({"repair": ["batchnorm"], "calibration": _images(48) * torch.nan}, "NaN or infinity"),
    ],
)
def test_what_cannot_be_repaired_is_refused(
    net: nn.Module, options: dict[str, Any], said: str
) -> None:
    with warnings.catch_warnings(), pytest.raises(InvalidArgumentError, match=said):
        _rows(net, **options)


@pytest.mark.parametrize("steps", [["batchnorm"], ["sparsegpt", "reconstruct"]], ids="+".join)
def test_an_error_in_the_middle_leaves_the_model_as_it_was(
    net: nn.Module, steps: list[str]
) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    targets = {target.name: target for target in sc.find_targets(net)}
    made = list[str]()

    def mask(name: str) -> torch.Tensor:
        made.append(name)
        if len(made) == 4:  # the second mask of the second layer
            raise InterruptedError
        return torch.rand(targets[name].parameter.shape) < 0.5

    masks = {
        name: (target, {f"{name} {i}": partial(mask, name) for i in range(2)})
        for name, target in targets.items()
    }
    with pytest.raises(InterruptedError):
        repair_single_layers(net, _images(48), steps, masks, lambda *_: None, RepairOptions())
    full = iter([None, OSError("the disk is full")])

    def keep(key: str, values: dict[str, torch.Tensor]) -> None:
        del key, values
        if (error := next(full)) is not None:
            raise error

    made.clear()
    with pytest.raises(OSError, match="disk is full"):
        repair_single_layers(net, _images(48), steps, masks, keep, RepairOptions())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("step", ["batchnorm", "channels"])
def test_infinity_on_the_way_is_an_error(net: nn.Module, step: str) -> None:
    images = _images(48)
    images[0] = torch.finfo(torch.float32).max
    with pytest.raises(FailureError, match="NaN or infinite on these images"):
        _rows(net, repair=[step], calibration=images)


def test_without_batch_norm_its_repair_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with pytest.raises(InvalidArgumentError, match="no BatchNorm layer"):
        _rows(model, repair=["batchnorm"])
