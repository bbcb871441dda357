"""Files that are no masks, or torn, or hostile."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from secateurs import FailureError, InvalidArgumentError, Masks, select
from secateurs.masks.granularity import Units


def masks_of(model: nn.Module) -> Masks:
    return select(model, 0.6).draw(0.7, seed=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as masks"),
        (b"not safetensors at all, but text", "cannot be read as masks"),
        (b"\xff" * 64, "cannot be read as masks"),
    ],
)
def test_a_file_that_is_not_safetensors(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "masks"
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=words) as error:
        Masks.load(path)
    assert str(path) in str(error.value)


def test_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "masks"
    masks_of(nn.Linear(9, 9)).save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InvalidArgumentError, match="cannot be read as masks"):
        Masks.load(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "masks.pt")
    with pytest.raises(InvalidArgumentError, match="cannot be read as masks"):
        Masks.load(tmp_path / "masks.pt")


UNITS = json.dumps({"weight": Units((2, 2), (2, 2), (2, 2)).described})


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"format": "secateurs-masks-1", "units": "{}"},
        {"format": "secateurs-masks-1", "units": "nonsense"},
        {"format": "secateurs-masks-1"},
        {"format": "secateurs-masks-1", "units": '{"weight": {"form": [2, 2]}}'},
        {"format": "secateurs-masks-1", "units": '{"weight": 3}'},
        {"format": "secateurs-masks-1", "units": "[]"},
        {"format": "secateurs-masks-1", "units": '["weight"]'},
        {"format": "secateurs-masks-1", "units": UNITS.replace("weight", "other")},
        {"format": "secateurs-masks-1", "units": UNITS.replace("2", "3")},
    ],
)
def test_other_safetensors_are_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2, 2, dtype=torch.bool)}, str(tmp_path / "w"), metadata)
    with pytest.raises(InvalidArgumentError, match=r"w cannot be read as masks: .") as error:
        Masks.load(tmp_path / "w")
    assert "\n" not in str(error.value)


def described(shape: object, view: object, unit: object) -> str:
    return json.dumps({"weight": {"shape": shape, "view": view, "unit": unit}})


@pytest.mark.parametrize(
    "units",
    [
        described([2, 2], [2, 2], "22"),
        described([2, 2], {"2": 2}, [2, 2]),
        described(None, [2, 2], [2, 2]),
        described([2.0, 2], [2.0, 2], [2, 2]),
        described([True, 2], [2, 2], [2, 2]),
        described([-2, -2], [-2, -2], [2, 2]),
        described([5], [2, 2], [2, 2]),
        described([8, 2], [2, 2, 2], [2, 2]),
        described([4, 4], [4, 4], [2, 2]),
        described([2, 2, 0], [2, 2, 2], [2, 2]),
        described([0, 2**70], [2, 2], [2, 2]),
        described([2, 2] + [1] * 100, [2, 2] + [1] * 100, [2, 2]),
        described([10**400, 2], [10**400, 2], [2, 2]),
        UNITS.replace("2", "1e999"),
        UNITS.replace("2", "NaN"),
        UNITS.replace("2", "9" * 10_000),
        UNITS[:-1] + ',"weight":' + UNITS[11:],
        '{"weight":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"weight": {"shape": "' + "x" * 100_000 + '"}}',
        '{"' + "x" * 100_000 + '": 1}',
        '{"weight": {"\\ud800": 1}}',
    ],
)
def test_units_that_cannot_be_are_refused(units: str, tmp_path: Path) -> None:
    metadata = {"format": "secateurs-masks-1", "units": units}
    save_file({"weight": torch.ones(2, 2, dtype=torch.bool)}, str(tmp_path / "w"), metadata)
    with pytest.raises(InvalidArgumentError, match=r"w cannot be read as masks: .") as error:
        Masks.load(tmp_path / "w")
    assert str(error.value).isprintable() and len(str(error.value)) < 500


def test_weights_are_no_masks(tmp_path: Path) -> None:
    save_file(nn.Linear(2, 2).state_dict(), str(tmp_path / "w"))
    with pytest.raises(
        InvalidArgumentError, match=r"it holds no masks: write them with masks\.save"
    ):
        Masks.load(tmp_path / "w")


def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InvalidArgumentError, match=r"there is no file .* to read masks from"):
            Masks.load(path)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(FailureError, match=r"cannot write .*absent.*: No such file"):
        masks_of(nn.Linear(2, 2)).save(tmp_path / "absent" / "masks")
