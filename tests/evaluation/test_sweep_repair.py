"""Sweeps that also measure repaired networks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import secateurs as sc
from secateurs import InvalidArgumentError
from secateurs.evaluation import Provenance, sweep
from secateurs.results import read_rows

GRID: dict[str, Any] = {"p_prune": [0, 0.5, 0.9], "score": ["magnitude", "wanda"]}
STEPS = ("batchnorm", "reconstruct")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    )
    model(images(64, 3))
    return model.eval()


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def loader() -> "DataLoader[Any]":
    labelled = images(30, 1), torch.arange(30) % 4
    return DataLoader(TensorDataset(*labelled), batch_size=16)


def repaired_sweep(**changes: Any) -> list[sc.results.Row]:
    named = Provenance(calibration="noise")
    given: dict[str, Any] = {"repair": STEPS, "calibration": images(20, 2), "provenance": named}
    return sweep(network(), loader(), progress=False, **(GRID | given | changes))


def comparable(row: sc.results.Row) -> dict[str, str]:
    timed = ("duration", "infer_samples_per_sec")
    return {name: repr(v) for name, v in row.as_dict().items() if name not in timed}


def test_each_network_is_measured_as_it_is_and_repaired() -> None:
    rows = repaired_sweep()
    repaired = [row for row in rows if row.repair]
    plain = repaired_sweep(repair=())
    assert [comparable(row) for row in rows if not row.repair] == list(map(comparable, plain))
    assert [(r.score, r.p_prune) for r in repaired] == [
        ("magnitude", 0.5), ("magnitude", 0.9), ("wanda", 0.5), ("wanda", 0.9),
    ]  # fmt: skip
    for row in repaired:
        assert row.repair == "batchnorm;reconstruct"
        assert (row.calibration, row.calibration_count) == ("noise", 20)
        assert len(row.calibration_sha256) == 16
        # The same by hand.
        model, calibration = network(), images(20, 2)
        with sc.repair.observed_inputs(model, calibration):
            sc.global_prune(model, row.p_prune, score=row.score)
        sc.repair(model, calibration, STEPS)
        with torch.no_grad():
            found = [int((model(batch).argmax(1) == labels).sum()) for batch, labels in loader()]
        assert row.correct1 == str(sum(found))
    known = {(row.score, row.calibration) for row in plain}
    assert known == {("magnitude", ""), ("wanda", "noise")}


def test_the_model_is_as_it_was() -> None:
    model = network()
    sc.global_prune(model, 0.3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sweep(model, loader(), p_prune=[0.5, 0.8], repair=STEPS, calibration=images(9, 2),
          progress=False)  # fmt: skip
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sc.restore(model) is model and sc.sparsity(model).ratio == 0


class Interrupted(TensorDataset):
    """Ends the first sweep at its second batch."""

    left = 24  # of which four are read to know the data

    def __getitem__(self, index: int) -> Any:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_an_interrupted_sweep_repairs_nothing_twice(tmp_path: Path, monkeypatch: Any) -> None:
    data = DataLoader(Interrupted(images(30, 1), torch.arange(30) % 4), batch_size=16)
    given: dict[str, Any] = {"repair": STEPS, "calibration": images(20, 2), "output": tmp_path}
    whole = [comparable(row) for row in sweep(
        network(), loader(), progress=False, **GRID, repair=STEPS, calibration=images(20, 2)
    )]  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        sweep(network(), data, progress=False, save_every=0, **GRID, **given)
    assert not read_rows(tmp_path) and (tmp_path / "progress.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("repaired-*")}
    assert len(kept) == 4
    path = next(iter(kept))
    path.write_bytes(b"torn")
    rows = sweep(network(), data, progress=False, **GRID, **given)
    assert list(map(comparable, rows)) == whole
    assert not list(tmp_path.glob("repaired-*"))
    path.write_bytes(b"of a sweep that was killed after its rows were written")
    sweep(network(), data, progress=False, **GRID, **given)
    assert not path.exists()
    with pytest.raises(InvalidArgumentError, match=r"calibration_count: there 20, now 19"):
        sweep(network(), data, progress=False, **GRID, **(given | {"calibration": images(19, 2)}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"calibration": None}, "^a repair needs images, without labels: write calibration=images"),
        ({"repair": ["batchnrm"]}, "^repair must be one of .*did you mean batchnorm"),
        ({"prune_type": ["global", "gradient"]}, "nothing to repair: leave out repair, or write "),
        ({"calibration": images(0, 2)}, "there are no calibration images"),
        ({"calibration": images(4, 2)[..., :5]}, r"shape \(1, 6, 5\)"),
        ({"calibration": images(4, 2) / 0}, "NaN or infinity"),
    ],
)
def test_bad_input(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        repaired_sweep(**changes)


def test_a_network_that_cannot_be_repaired_is_named_with_its_ratio(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).eval()
    with pytest.raises(InvalidArgumentError, match=r"no BatchNorm .* \(with p_prune=0.5\)$"):
        sweep(model, loader(), p_prune=0.5, repair="batchnorm", calibration=images(4, 2),
              output=tmp_path, progress=False)  # fmt: skip
