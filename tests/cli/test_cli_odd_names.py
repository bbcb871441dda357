"""Paths that are not UTF-8, on the command line and in what it writes."""

import os
import sys
from pathlib import Path

import pytest
import torch
from command_line import Run

from secateurs.zoo.digits import DigitsCNN

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs bytes as names")
ODD = os.fsdecode(b"caf\xe9")


def test_data_weights_and_output_that_are_not_utf_8(
    run: Run, pictures: Path, tmp_path: Path
) -> None:
    pictures.rename(tmp_path / ODD)
    torch.save(DigitsCNN().state_dict(), tmp_path / "plain.pt")
    (tmp_path / "plain.pt").rename(tmp_path / f"{ODD}.pt")
    words = ("sweep", "--data", ODD, "--weights", f"{ODD}.pt", "--p-prune", 0.5, "--workers", 0)
    first = run(*words, "-o", f"{ODD}-out")
    assert first.code == 0, first
    assert r"30 images of caf\xe9 (all)" in first.out
    again = run(*words, "-o", f"{ODD}-out")
    assert "these results were there already" in again.err
    assert again.out == first.out
    files = sorted((tmp_path / f"{ODD}-out").iterdir())
    assert [path.name for path in files if path.suffix != ".png"] == [
        *("command.json", "config.json", "layers.jsonl", "outcomes.json"),
        *("results.csv", "results.jsonl", "sweep.svg"),
    ]
    for path in files:
        if path.suffix != ".png":
            path.read_text(encoding="utf-8")


def test_what_is_wrong_with_such_a_path_is_one_line(run: Run, tmp_path: Path) -> None:
    assert "no data" in run("sweep", "--data", ODD).complaint
    (tmp_path / ODD / "0").mkdir(parents=True)
    (tmp_path / ODD / "0" / f"{ODD}.png").touch()
    failed = run("sweep", "--data", ODD, "--workers", 0, "--p-prune", 0.5)
    assert r"cannot read the image caf\xe9/0/caf\xe9.png" in failed.complaint
    (tmp_path / f"{ODD}.safetensors").touch()
    broken = run("sweep", "--weights", f"{ODD}.safetensors", "--p-prune", 0.5)
    assert "as safetensors" in broken.complaint


def test_a_changed_data_folder_is_not_taken_for_the_old_one(
    run: Run, pictures: Path, tmp_path: Path
) -> None:
    words = ("sweep", "--data", pictures, "--p-prune", 0.5, "--workers", 0)
    assert run(*words).code == 0
    first, second = (pictures / digit for digit in "01")
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert "(other images or labels)" in run(*words).complaint
    assert run(*words, "--overwrite").code == 0
