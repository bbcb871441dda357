"""Attacked images on disk, in the layout that TransferAttack's evaluation reads."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_benchmark import benchmark

from secateurs.errors import FailureError
from secateurs.transfer import check_saved


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    benchmark(limit=5).run(output=folder, save_images=folder / "images")
    return folder / "images"


def levels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_the_labels_are_those_that_transferattack_reads(saved: Path) -> None:
    """Its AdvDataset takes the columns filename, label, targeted_label, counted from 0."""
    with (saved / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = benchmark(limit=5).images
    assert [row["filename"] for row in rows] == list(images.names)
    assert [int(row["label"]) for row in rows] == images.labels.tolist()
    assert [int(row["targeted_label"]) for row in rows] == images.targets.tolist()


def test_every_attack_has_a_folder_with_the_same_names(saved: Path) -> None:
    clean = {path.name for path in (saved / "images").iterdir()}
    folders = sorted((saved / "adversarial").iterdir())
    assert [folder.name for folder in folders] == sorted(
        [
            "noise__seed-0",
            *(
                f"{group}__{variant}__seed-0"
                for group in ("convolved-normed", "hidden-normed", "hidden-convolved")
                for variant in ("plain", "dwp-0.3-0.5")
            ),
        ]
    )
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == clean
        for name in clean:
            change = np.abs(levels(folder / name) - levels(saved / "images" / name))
            assert 0 < change.max() <= 64


def test_scoring_the_files_gives_the_rows(saved: Path) -> None:
    bench = benchmark(limit=5)
    (row,) = [
        row
        for row in bench.run()
        if (row.surrogates, row.target, row.variant, row.step)
        == ("hidden;convolved", "normed", "dwp 0.3 0.5", 5)
    ]
    folder = saved / "adversarial" / "hidden-convolved__dwp-0.3-0.5__seed-0"
    pixels = torch.stack(
        [torch.from_numpy(levels(folder / name)).float() / 255 for name in bench.images.names]
    )
    with torch.no_grad():
        answers = bench.groups[2].targets[0].dense(pixels.unsqueeze(1)).argmax(1)
    digits = [str(int(hit)) for hit in answers == bench.images.targets]
    assert "".join(digits) == row.targeted_hits
    assert "".join(str(int(hit)) for hit in answers != bench.images.labels) == row.untargeted_hits


@pytest.mark.parametrize(("change", "fine"), [(16, True), (17, False)])
def test_a_file_outside_epsilon_is_refused(tmp_path: Path, change: int, fine: bool) -> None:
    for name, value in (("clean", 100), ("attacked", 100)):
        (tmp_path / name).mkdir()
        array = np.full((4, 4, 3), value, np.uint8)
        if name == "attacked":
            array[1, 2, 0] += change
        Image.fromarray(array).save(tmp_path / name / "a.png")
    if fine:
        check_saved(tmp_path / "attacked", tmp_path / "clean", ["a.png"], 16 / 255)
        return
    with pytest.raises(FailureError, match=r"by 17 of 255 grey levels, more than epsilon \(16\)"):
        check_saved(tmp_path / "attacked", tmp_path / "clean", ["a.png"], 16 / 255)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    for name, side in (("clean", 4), ("attacked", 5)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (side, side)).save(tmp_path / name / "a.png")
    with pytest.raises(FailureError, match="has another size than"):
        check_saved(tmp_path / "attacked", tmp_path / "clean", ["a.png"], 16 / 255)
    with pytest.raises(FailureError, match=r"cannot read .*b\.png again"):
        check_saved(tmp_path / "attacked", tmp_path / "clean", ["b.png"], 16 / 255)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailureError, match=r"cannot make .*file"):
        benchmark(limit=2).run(save_images=tmp_path / "file" / "images")
