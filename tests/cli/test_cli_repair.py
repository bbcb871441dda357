"""Repair from the command line: the command, and the sweep that measures repaired networks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Run
from PIL import Image
from safetensors.torch import load_file

import secateurs as sc
from secateurs.cli.option_types import RepairStep
from secateurs.repair import STEPS
from secateurs.results import RepairRow, read_rows
from secateurs.zoo import load_model
from secateurs.zoo.digits import digits_images

SHORT = ("repair", "--images", 40, "--limit", 60)


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """Forty training images of the digits in one folder, without their labels."""
    levels, _ = digits_images("train")
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    for number in range(0, 900, 22):
        Image.fromarray(levels[number]).save(folder / f"{number:03}.png")
    return folder


def left_over(folder: str) -> list[Path]:
    """What only an interrupted run needs."""
    return [*Path(folder).glob("stage-*"), *Path(folder).glob("pass-*")]


def comparable(folder: str) -> list[dict[str, str]]:
    rows = (row.as_dict() for row in read_rows(folder, RepairRow))
    return [{name: repr(v) for name, v in row.items() if name != "duration"} for row in rows]


def test_the_options_name_the_steps_of_the_library() -> None:
    assert RepairStep.__args__ == STEPS


def test_a_run_leaves_weights_rows_and_a_table(run: Run) -> None:
    said = run("repair", "--steps", "batchnorm", "reconstruct", "distill", "--iterations", 5,
               "-o", "here.safetensors", "--limit", 100)  # fmt: skip
    assert said.code == 0, said.err
    assert said.err.splitlines()[-1] == (
        "wrote here.safetensors; results.csv, results.jsonl, table.md and masks.safetensors are in "
        "here.repair"
    )
    table = Path("here.repair/table.md").read_text()
    assert not left_over("here.repair")
    rows = read_rows("here.repair/results.csv", RepairRow)
    assert [row.steps for row in rows] == ["dense", "pruned", "batchnorm;reconstruct", "distill"]
    dense, pruned, solved, distilled = rows
    assert (dense.loss, dense.agreement, dense.achieved) == (0.0, 100.0, 0.0)
    assert solved.loss < pruned.loss and solved.top1 > pruned.top1 + 20
    assert {row.kept for row in rows[1:]} == {round(0.1 * dense.kept)}
    assert {row.calibration_count for row in rows} == {128}
    assert f"| distill | {distilled.loss:.4g} | " in table and "top-1 on 100 images" in table
    assert f"{distilled.loss:.4g}" in said.out and "top-1 on 100 images" in said.out
    # The file is that of the last row, loads into the plain network, and is a sweep's dense one.
    model = load_model("digits", weights="here.safetensors").model
    masks = sc.Masks.load("here.repair/masks.safetensors")
    assert sc.sparsity(model).zeros == masks.table.zeros == dense.kept - distilled.kept
    swept = run("sweep", "--weights", "here.safetensors", "--p-prune", 0, "--limit", 100)
    assert swept.rows[0]["correct1"] == str(distilled.correct)
    # By hand, in one call, the same.
    told = run("report", "here.repair")
    assert (told.code, told.out) == (0, said.out)


def test_the_same_command_reports_and_other_options_are_refused(run: Run) -> None:
    words = (*SHORT, "--steps", "batchnorm", "-o", "here.safetensors")
    first = run(*words)
    again = run(*words)
    assert (again.code, again.out) == (0, first.out) and "there already" in again.err
    other = run(*words, "--p-prune", 0.5)
    assert other.code == 2 and "another configuration" in other.err.splitlines()[-1]
    assert run(*words, "--p-prune", 0.5, "--overwrite").code == 0
    assert read_rows("here.repair", RepairRow)[-1].p_prune == 0.5


def test_an_interrupted_run_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*SHORT, "--score", "wanda", "--steps", "batchnorm", "sparsegpt", "distill",
             "channels", "--iterations", 4)  # fmt: skip
    assert run(*words, "-o", "whole.safetensors").code == 0
    # Ctrl-C when the second pass is told of.
    from secateurs.cli import repair_command

    say = repair_command.say_row

    def interrupted(row: Any) -> None:
        say(row)
        if row.steps == "distill":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(repair_command, "say_row", interrupted)
        said = run(*words, "-o", "here.safetensors")
    assert said.code == 1 and "the same command goes on where it was" in said.err
    assert not Path("here.safetensors").exists()
    said = run(*words, "-o", "here.safetensors")
    assert said.code == 0 and "distill: loss" not in said.err and "channels:" in said.err
    assert comparable("here.repair") == comparable("whole.repair")
    assert not left_over("here.repair")
    whole = load_file("whole.safetensors")
    for name, tensor in load_file("here.safetensors").items():
        assert torch.equal(tensor, whole[name])
    masks = sc.Masks.load("here.repair/masks.safetensors")
    for name, mask in masks.items():
        assert torch.equal(mask, whole[name] != 0)


def test_an_interrupted_distillation_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*SHORT, "--steps", "distill", "--iterations", 6, "--features", 0.5, "--augment",
             "shift", "--tighten", 0.5, "--distill-batch-size", 16)  # fmt: skip
    assert run(*words, "-o", "whole.safetensors").code == 0
    from secateurs.repair.pass_state import PassFile

    save, saved = PassFile.replace, list[int]()

    def interrupted(file: PassFile, state: dict[str, Any]) -> None:
        save(file, state)
        saved.append(state["progress"]["taken"])
        if len(saved) == 4:
            raise KeyboardInterrupt

    def before_the_table(_: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PassFile, "replace", interrupted)
        assert run(*words, "-o", "here.safetensors").code == 1
        patched.setattr("secateurs.cli.repair_command.markdown_table", before_the_table)
        assert run(*words, "-o", "here.safetensors").code == 1
    assert run(*words, "-o", "here.safetensors").code == 0
    assert saved == [1, 2, 3, 4, 5, 6] and Path("here.repair/table.md").exists()
    assert comparable("here.repair") == comparable("whole.repair")
    assert not left_over("here.repair")
    (last,) = (row for row in read_rows("here.repair", RepairRow) if row.steps == "distill")
    assert (last.features, last.augment, last.tighten) == (0.5, "shift", 0.5)
    assert last.distill_batch_size == 16


@pytest.mark.parametrize(
    ("words", "ratios"),
    [
        (("--allocation", "uniform"), dict.fromkeys(("conv1", "linear1"), 0.9)),
        (("--ratios-from", "ratios.json"), {"conv1": 0.25, "linear1": 0.75}),
        (("--keep-at-least", 0.2, "--p-prune", 0.7, "--scope", "layer"), {"conv1": 0.7}),
    ],
)
def test_where_to_prune(run: Run, words: tuple[Any, ...], ratios: dict[str, float]) -> None:
    names = ("conv1", "conv2", "conv3", "linear1", "linear2")
    asked = {f"{name}.weight": ratios.get(name, 0.5) for name in names}
    Path("ratios.json").write_text(json.dumps(asked))
    assert run(*SHORT, "--steps", "batchnorm", *words, "-o", "here.safetensors").code == 0
    weights = load_file("here.safetensors")
    for name, ratio in ratios.items():
        zeros = (weights[f"{name}.weight"] == 0).float().mean()
        assert float(zeros) == pytest.approx(ratio, abs=0.01)


def test_a_folder_without_labels_and_no_scores(run: Run, unlabelled: Path) -> None:
    said = run("repair", "--data", unlabelled, "-o", "here.safetensors")
    assert said.code == 0, said.err
    assert "top-1" not in said.out
    last = read_rows("here.repair", RepairRow)[-1]
    assert (last.calibration_count, last.top1, last.data) == (41, None, "")


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("--arch", "resnet18"), 2, "needs images, without labels: write --data DIR"),
        (("--arch", "resnet18", "--data", "digits"), 2, "--p-prune is missing"),
        (("--data", "nowhere"), 2, "no data 'nowhere'"),
        (("--data", "."), 2, "no images in .: give a folder that holds some"),
        (("--images", 0), 2, "--images must be a whole number from 1, got 0"),
        (("--p-prune", 0), 2, "--p-prune 0 prunes nothing"),
        (("--p-prune", 1.5), 2, "--p-prune must be from 0 to 1"),
        (("--p-prune", 0.5, "--ratios-from", "x"), 2, "give --p-prune or --ratios-from, not both"),
        (("--ratios-from", "x"), 2, "x is neither .json nor .csv"),
        (("--ratios-from", "x.csv"), 1, "cannot read x.csv"),
        (("--score", "taylor"), 2, "--score taylor needs labels"),
        (("--scope", "layer", "--allocation", "erk"), 2, "leave one of them out"),
        (("--keep-at-least", 0.5), 2, "--keep-at-least leaves"),
        (("--steps", "batchnrm"), 2, "did you mean batchnorm"),
        (("--damping", 0), 2, "--damping must be a number above 0"),
        (("--lr", 0), 2, "--lr must be a number above 0"),
        (("--images", 1, "--steps", "distill"), 2, "needs two images"),
        (("--split", "test", "--test-data", "digits"), 2, "is scored, too"),
        (("-o", "here.pt"), 2, "--output must be a file such as here.safetensors"),
        (("--arch", "secateurs.zoo.digits_family:digits_patches", "--steps", "batchnorm"), 2,
         "leave batchnorm out of --steps"),
    ],
)  # fmt: skip
def test_bad_input(run: Run, words: tuple[Any, ...], code: int, complaint: str) -> None:
    if "secateurs.zoo.digits_family:digits_patches" in words:
        words = ("--weights", "random", "--data", "digits", "--p-prune", 0.5, *words)
    said = run("repair", *words)
    assert said.code == code and complaint in said.err.splitlines()[-1]
    assert said.err.splitlines()[-1].startswith("secateurs: ")
    assert not list(Path().rglob("*.safetensors")) and not list(Path().rglob("results.*"))


def test_other_files_are_not_replaced(run: Run) -> None:
    Path("here.safetensors").write_bytes(b"mine")
    said = run(*SHORT, "-o", "here.safetensors")
    assert said.code == 2 and "here.safetensors is there already" in said.complaint
    assert Path("here.safetensors").read_bytes() == b"mine"
    assert run(*SHORT, "--steps", "batchnorm", "-o", "dense.safetensors").code == 0
    said = run(*SHORT, "--weights", "dense.safetensors", "-o", "dense.safetensors", "--overwrite")
    assert said.code == 2 and "would replace the dense network's weights" in said.complaint


def test_a_sweep_adds_the_repaired_curves(run: Run, unlabelled: Path) -> None:
    words = ("sweep", "--p-prune", 0, 0.5, 0.9, "--limit", 60, "--scope", "global", "layer")
    plain = run(*words, "--output", "plain")
    said = run(*words, "--repair", "batchnorm", "--calibration", unlabelled,
               "--calibration-images", 30, "--output", "repaired")  # fmt: skip

    def measured(row: dict[str, Any]) -> dict[str, Any]:
        timed = ("duration", "infer_samples_per_sec")
        return {name: value for name, value in row.items() if name not in timed}

    rows = said.rows
    assert [measured(r) for r in rows if not r["repair"]] == list(map(measured, plain.rows))
    repaired = [row for row in rows if row["repair"]]
    assert [(r["scope"], r["p_prune"]) for r in repaired] == [
        ("global", 0.5), ("global", 0.9), ("layer", 0.5), ("layer", 0.9),
    ]  # fmt: skip
    assert {(r["calibration"], r["calibration_count"]) for r in repaired} == {(str(unlabelled), 30)}
    assert "plain" in said.out and "batchnorm" in said.out and "30 images" in said.out
    drawn = (said.folder / "sweep.svg").read_text()
    assert "plain" in drawn and "batchnorm" in drawn
    assert run(*words, "--repair", "batchnorm", "--calibration", unlabelled,
               "--calibration-images", 30, "--output", "repaired").out == said.out  # fmt: skip


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--data", "pictures", "--repair", "batchnorm"), "--repair needs images, without labels"),
        (("--data", "pictures", "--score", "obs"), "--score obs needs images, without labels"),
        (("--calibration", "digits"), "--calibration belongs to a repair"),
        (("--data", "pictures", "--repair", "batchnorm", "--calibration", "copies"),
         "the calibration image copies/copy.png is scored, too (as pictures/3/"),
        (("--data", "pictures", "--repair", "batchnorm", "--calibration", "nowhere"),
         "no data 'nowhere'"),
        (("--repair", "batchnorm", "--calibration-images", 0), "--calibration-images must be"),
        (("--repair", "batchnorm", "--prune-type", "gradient"), "leave out --repair"),
        (("--split", "train", "--repair", "batchnorm"), "is scored, too (as number "),
    ],
)  # fmt: skip
def test_bad_repairs_of_a_sweep(
    run: Run, pictures: Path, words: tuple[Any, ...], complaint: str
) -> None:
    Path("copies").mkdir()
    original = next((pictures / "3").iterdir())
    Path("copies/copy.png").write_bytes(original.read_bytes())
    said = run("sweep", "--p-prune", 0.5, *words)
    assert said.code == 2 and complaint in said.complaint
