"""``secateurs transfer`` from the words to the files."""

import csv
import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from command_line import LOADING, Outcome, Run

from secateurs.results import TransferRow, read_rows
from secateurs.zoo.digits import digits_images

NETS = ("digit_nets:hidden", "digit_nets:convolved", "digit_nets:normed")
QUICK = (
    *("transfer", "--data", "digits", "--limit", "6", "--steps", "4", "--every", "2"),
    *("--eps", "64/255", "--alpha", "16/255", "--method", "mi-logit", "--output", "here"),
)


def rows_of(outcome: Outcome) -> list[TransferRow]:
    assert outcome.code == 0, outcome
    return read_rows(Path("here"), TransferRow)


def test_every_row_with_and_without(run: Run) -> None:
    done = run(
        *QUICK, "--surrogates", *NETS, "--hold-one-out", "--recipe", "dwp", "rapa",
        "--p_prune", "0.2", "0.4", "--seeds", "0,3",
    )  # fmt: skip
    rows = rows_of(done)
    assert {row.variant for row in rows} == {
        "noise", "plain", "dwp 0.2 0.5", "dwp 0.4 0.5", "rapa 0.05",
    }  # fmt: skip
    assert {row.seed for row in rows} == {0, 3}
    assert {row.step for row in rows if row.variant == "plain"} == {2, 4}
    assert {(row.eps, row.alpha, row.method) for row in rows} == {(64 / 255, 16 / 255, "mi-logit")}
    assert {row.count for row in rows} == {6}
    assert {row.target for row in rows if row.role == "holdout"} == set(NETS)


def test_an_attack_that_cannot_reach_epsilon_is_said(run: Run) -> None:
    done = run(*QUICK, "--surrogates", NETS[0], "--steps", "3")  # and no network to score
    assert "3 steps of --alpha 16/255 change a pixel by at most 48/255, and the" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--recipe", "rapa", "--p-prune", "0.3"), "--p-prune has no effect: it belongs to dwp"),
        (("--recipe", "plain", "--scope", "layer"), "--scope has no effect: it belongs to dwp"),
        (("--rapa-p-bern", "0.3"), "it belongs to rapa; write --recipe dwp rapa to use it"),
        (("--mup-p-prune", "0.3"), "it belongs to mup; write --recipe dwp mup to use it"),
    ],
)
def test_an_option_of_a_recipe_that_was_not_asked_for_is_said(
    run: Run, words: tuple[str, ...], said: str
) -> None:
    assert said in run(*QUICK, "--surrogates", NETS[0], *words).err  # and no network to score


def test_what_is_said_and_written(run: Run) -> None:
    done = run(*QUICK, "--surrogates", *NETS[:2])
    assert done.code == 0, done
    said = LOADING.sub("", done.err).splitlines()
    assert said[0].startswith("6 of the 32 images looked at count: all networks classify them")
    assert "digit_nets:hidden 31" in said[0] or "digit_nets:hidden 32" in said[0]
    assert said[1] == (
        "digits names no target classes: they were drawn with seed 0, never the true class"
    )
    assert said[2].endswith(" to here") and len(said) == 3
    for name in said[2].removeprefix("wrote ").removesuffix(" to here").split(", "):
        assert Path("here", name).stat().st_size > 100, name
    files = {path.name for path in Path("here").iterdir()}
    assert {"results.csv", "results.jsonl", "table.md"} <= files
    assert {path.suffix for path in Path("here").iterdir()} >= {".png", ".svg"}
    assert "plain" in done.out and "dwp 0.3 0.5" in done.out and "noise" in done.out
    with Path("here", "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows_of(done))


def test_the_same_command_finds_its_results_again(run: Run) -> None:
    words = [word for word in QUICK if word not in ("--output", "here")]
    first = run(*words, "--surrogates", *NETS[:2])
    folder = Path(first.err.splitlines()[-1].split(" to ")[1])
    assert folder.parent == Path("secateurs-results") and folder.name.startswith("transfer_digits_")
    before = (folder / "results.jsonl").read_bytes()
    again = run(*words, "--surrogates", *NETS[:2])
    assert again.out == first.out and again.err == first.err
    assert (folder / "results.jsonl").read_bytes() == before
    other = run(*words, "--surrogates", *NETS[:2], "--seeds", "1")
    assert other.err.splitlines()[-1].split(" to ")[1] != str(folder)


def test_targets_and_an_ensemble(run: Run) -> None:
    rows = rows_of(run(*QUICK, "--surrogates", *NETS[:2], "--targets", NETS[2], "--ensemble"))
    assert {row.surrogates for row in rows} == {"", ";".join(NETS[:2])}
    assert {row.target for row in rows if row.role == "holdout"} == {NETS[2]}
    assert {row.target for row in rows if row.role == "whitebox"} == set(NETS[:2])


def test_untargeted(run: Run) -> None:
    done = run(*QUICK, "--surrogates", *NETS[:2], "--untargeted")
    assert {row.targeted for row in rows_of(done)} == {None}
    assert "target classes" not in done.err


def test_search_reports_on_other_images(run: Run) -> None:
    done = run(
        *QUICK, "--surrogates", *NETS[:2], "--search", "--search-images", "2", "--search-steps",
        "2", "--p-prune", "0.1", "0.8", "--p-bern", "0.9",
    )  # fmt: skip
    rows = rows_of(done)
    assert {(row.search_part, row.count, row.steps) for row in rows} == {
        ("search", 2, 2), ("report", 4, 4),
    }  # fmt: skip
    chosen = {row.variant for row in rows if row.search_part == "report" and row.recipe == "dwp"}
    assert len(chosen) == 1
    assert f"chosen on 2 images: {chosen.pop()} (" in done.err


def test_saved_images(run: Run) -> None:
    assert run(*QUICK, "--surrogates", *NETS[:2], "--save-images").code == 0
    folder = Path("here/images")
    assert (folder / "labels.csv").read_text().startswith("filename,label,targeted_label\n")
    assert len(list((folder / "images").iterdir())) == 6
    assert len(list((folder / "adversarial").iterdir())) == 1 + 2 * 2


def test_target_classes_of_the_imagenet_compatible_layout(
    run: Run, tmp_path: Path, compatible: Path
) -> None:
    done = run(
        "transfer", "--data", compatible, "--surrogates", "thousand:first", "thousand:second",
        "--steps", "2", "--output", "here", "--method", "ce", "--recipe", "plain",
    )  # fmt: skip
    rows = rows_of(done)
    assert {row.target_classes for row in rows} == {"given"}
    assert "target classes" not in done.err
    assert {row.variant for row in rows} == {"plain", "noise"}
    assert {row.img_size for row in rows} == {8}


@pytest.fixture
def compatible(tmp_path: Path) -> Generator[Path]:
    """Digits as images of ImageNet's classes 1 to 10, and networks of 1,000 classes for them."""
    from PIL import Image

    folder = tmp_path / "compatible"
    (folder / "images").mkdir(parents=True)
    levels, labels = digits_images("test")
    lines = ["ImageId,TrueLabel,TargetClass"]
    for place in range(0, 896, 90):
        Image.fromarray(levels[place]).save(folder / "images" / f"{place}.png")
        lines.append(f"{place},{labels[place] + 1},{(labels[place] + 5) % 10 + 1}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "thousand.py").write_text(
        "import digit_nets\n"
        "from torch import nn\n"
        "def padded(net):\n"
        "    model = nn.Sequential(net, nn.ConstantPad1d((0, 990), -9.0))\n"
        "    model.preprocess, model.num_classes = net.preprocess, 1000\n"
        "    return model\n"
        "def first(): return padded(digit_nets.hidden())\n"
        "def second(): return padded(digit_nets.convolved())\n"
    )
    yield folder
    sys.modules.pop("thousand", None)


def test_weights_from_files(run: Run, tmp_path: Path) -> None:
    import torch

    from digit_nets import hidden
    from secateurs.zoo.digits_family import digits_wide

    torch.save(hidden().state_dict(), tmp_path / "first.pt")
    torch.manual_seed(3)
    torch.save(digits_wide(pretrained=False).state_dict(), tmp_path / "second.pt")
    done = run(
        *QUICK, "--surrogates", "digit_nets:hidden=first.pt", "digit_nets:hidden", "--limit", "3"
    )
    rows = rows_of(done)
    assert {row.surrogates for row in rows} == {
        "", "digit_nets:hidden=first.pt", "digit_nets:hidden=as built",
    }  # fmt: skip
    wrong = run(*QUICK, "--surrogates", "digit_nets:hidden=second.pt", "digit_nets:convolved")
    assert "the weights in second.pt do not fit Sequential" in wrong.complaint


def test_without_any_options_it_runs_on_the_digits(run: Run, cache: Path) -> None:
    """With the networks of the default run, but few steps and images."""
    done = run("transfer", "--limit", "8", "--steps", "3", "--output", "here")
    rows = rows_of(done)
    family = {"digits-plain", "digits-wide", "digits-residual", "digits-patches"}
    assert {row.target for row in rows} == family
    assert {row.surrogates.count(";") for row in rows if row.surrogates} == {2}
    assert {(row.eps, row.data, row.img_size) for row in rows} == {(64 / 255, "digits", 8)}
    assert len(list(cache.glob("digits-*.safetensors"))) >= 4


BAD: list[tuple[tuple[str, ...], str]] = [
    (
        ("--eps", "16"),
        "--eps is a share of the pixel range, which runs from 0 to 1, got 16; for 16",
    ),
    (("--eps", "many"), "--eps must be a number or a fraction such as 16/255"),
    (("--alpha", "2"), "--alpha is a share of the pixel range"),
    (("--method", "mi-tii-logit"), "unknown component 'tii' in method 'mi-tii-logit'"),
    (("--recipe", "dpw"), "--recipe must be one of plain, dwp, rapa, mup; got 'dpw'; did you mean"),
    (("--p-prune", "30"), "--p-prune must be from 0 to 1 inclusive, got 30.0; for 30 per cent"),
    (("--p-bern", "half"), "--p-bern takes numbers such as 0.5, got 'half'"),
    (("--seeds", "1.5"), "--seeds takes whole numbers such as 3, got '1.5'"),
    (("--seeds", "2", "2"), "give at least one seed, and each once"),
    (("--steps", "0"), "--steps must be a whole number from 1, got 0"),
    (("--limit", "0"), "--limit must be at least 1, got 0"),
    (("--threads", "0"), "--threads must be at least 1, got 0"),
    (("--img-size", "0"), "--img-size must be at least 1, got 0"),
    (("--search-images", "3"), "--search-images belongs to a search: write --search too"),
    (("--search", "--search-images", "6"), "leaves none to report on"),
    (("--surrogates", NETS[0], "--hold-one-out"), "--hold-one-out leaves out one of"),
    (("--surrogates", NETS[0]), "nothing to score: name --targets"),
    (("--surrogates", NETS[0], NETS[0]), "digit_nets:hidden=as built is named twice"),
    (("--surrogates", NETS[0], "digit_nets:eleven"), "has 10 classes and digit_nets:eleven has 11"),
    (("--surrogates", NETS[0], "digit_nets:renamed"), "disagree on the classes (class 0 is '0'"),
    (("--surrogates", NETS[0], "digit_nets:wrong"), "of digits is classified correctly by every"),
    (("--surrogates", NETS[0], "=x.pt"), "a network is written NAME or NAME=WEIGHTS"),
    (
        ("--interpolation", "nearest"),
        "--interpolation must be one of bicubic, bilinear; got 'nearest'",
    ),
    (("--data", "nowhere"), "no data 'nowhere'"),
]


@pytest.mark.parametrize(("words", "complaint"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input(run: Run, words: tuple[str, ...], complaint: str) -> None:
    networks = () if "--surrogates" in words else ("--surrogates", *NETS[:2])
    outcome = run(*QUICK, *networks, *words)
    assert complaint in outcome.complaint
    assert outcome.code == 2
    assert not Path("here", "results.jsonl").exists()


def test_a_surrogate_with_nothing_to_prune_is_named(run: Run) -> None:
    outcome = run(
        *QUICK, "--surrogates", "digit_nets:hidden", "digit_nets:convolved", "--recipe", "dwp",
        "--include", "nothing.*",
    )  # fmt: skip
    assert outcome.complaint.startswith("dwp does not fit digit_nets:hidden: --include 'nothing.*'")
    assert "write another recipe (rapa, mup)" in outcome.complaint


def test_a_surrogate_that_rapa_cannot_prune_is_named_in_an_ensemble_too(run: Run) -> None:
    networks = "digit_nets:hidden", "digit_nets:bare", "digit_nets:normed"
    outcome = run(*QUICK, "--surrogates", *networks, "--hold-one-out", "--recipe", "rapa")
    assert outcome.complaint.startswith("rapa does not fit digit_nets:bare: ")
    assert "write another recipe (dwp, mup)" in outcome.complaint


def test_networks_need_images_and_images_need_networks(run: Run) -> None:
    assert "no images: write --data DIR" in run("transfer", "--surrogates", *NETS[:2]).complaint
    Path("folder").mkdir()
    assert "write --surrogates NAME NAME" in run("transfer", "--data", "folder").complaint


def test_a_folder_of_another_run(run: Run) -> None:
    assert run(*QUICK, "--surrogates", *NETS[:2]).code == 0
    kept = json.loads(Path("here/config.json").read_text())
    refused = run(*QUICK, "--surrogates", *NETS[:2], "--seeds", "5")
    assert "here holds results of another configuration (seeds: there [0], now [5])" in (
        refused.complaint
    )
    assert json.loads(Path("here/config.json").read_text()) == kept
    assert run(*QUICK, "--surrogates", *NETS[:2], "--seeds", "5", "--overwrite").code == 0
    changed: Any = json.loads(Path("here/config.json").read_text())
    assert changed["seeds"] == [5]
