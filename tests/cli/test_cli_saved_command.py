"""``--config``: a run's folder holds its options, and others may count instead."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import RANDOM, Run

from secateurs.cli.saved_command import expand
from secateurs.results import Results
from secateurs.results.run_command import COMMAND

NAMES = {"--output": "--output", "-o": "--output", "--p-prune": "--p-prune", "--amp": "--amp"}


def write(folder: Path, *options: object, command: str = "sweep") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / COMMAND).write_text(json.dumps({"command": command, "options": options}))
    (folder / "config.json").touch()
    return folder


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sweep --config run", "sweep --p-prune 0 -0.5 --amp --include=-x"),
        ("sweep --config=run/config.json", "sweep --p-prune 0 -0.5 --amp --include=-x"),
        ("sweep --p_prune 1 --config run -o b", "sweep --amp --include=-x --p_prune 1 -o b"),
        ("sweep --config run --include a b", "sweep --p-prune 0 -0.5 --amp --include a b"),
        ("sweep --p-prune 1", "sweep --p-prune 1"),
    ],
)
def test_options_of_a_run(
    typed: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("run"), "--p-prune", "0", "-0.5", "--amp", "--include=-x")
    assert expand(typed.split(), NAMES) == meant.split()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sweep --config run", "sweep --p-prune 0 0.5 -oout --amp"),
        ("sweep --config run --overwrite", "sweep --p-prune 0 0.5 -oout --amp --overwrite"),
        ("sweep --config run --quiet", "sweep --p-prune 0 0.5 -oout --amp --quiet"),
        ("sweep --config run --seed 1", "sweep --p-prune 0 0.5 --amp --seed 1"),
        ("sweep --config run -o b", "sweep --p-prune 0 0.5 --amp -o b"),
    ],
)
def test_only_the_same_run_goes_where_it_went(
    typed: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("run"), "--p-prune", "0", "0.5", "-oout", "--overwrite", "--amp", "--json")
    assert expand(typed.split(), NAMES) == meant.split()


@pytest.mark.parametrize(
    "typed",
    [
        "sweep --weights random --limit 30 --p-prune 0 0.5",
        "sensitivity --weights random --limit 30 --ratios 0.5",
        "budget --weights random --limit 30 --max-drop 90",
        "speed --weights random --batch-sizes 1 --threads 1 --p-prune 0.9",
        "retrain --limit 100 --batch-size 20 --epochs 1 --dense-epochs 1",
        "repair --weights random --images 10 --limit 30",
        "transfer --surrogates digits --targets digits-wide=random --data digits --limit 1",
    ],
)
def test_an_interrupted_run_has_its_command(
    typed: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Results.open

    def interrupted(self: Results[Any], *arguments: Any, **options: Any) -> bool:
        opened(self, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Results, "open", interrupted)
    said = run(*typed.split(), "-o", "a.safetensors")
    assert said.complaint == "interrupted; the same command goes on where it was"
    (file,) = Path().glob(f"a.*/{COMMAND}")
    assert json.loads(file.read_text())["options"] == [*typed.split()[1:], "-o", "a.safetensors"]


@pytest.mark.parametrize(
    "words",
    [
        ("sensitivity", "--weights", "random", "--limit", 30, "--ratios", 0.5),
        ("speed", "--weights", "random", "--batch-sizes", 1, "--threads", 1, "--p-prune", 0.9),
        ("budget", "--weights", "random", "--limit", 30, "--max-drop", 90),
    ],
)
def test_every_run_can_be_repeated(run: Run, words: tuple[object, ...]) -> None:
    assert run(*words, "-o", "a").code == 0
    again = run(words[0], "--config", "a", "-o", "b")
    assert again.code == 0, again.err
    first, second = (json.loads((Path(each) / COMMAND).read_text()) for each in ("a", "b"))
    assert second["options"] == [*map(str, words[1:]), "-o", "b"]
    assert first["options"] == [*map(str, words[1:]), "-o", "a"]


def test_a_sweep_is_repeated_with_another_ratio(run: Run) -> None:
    first = run(*RANDOM, "--p-prune", "0", "0.5", "--seed", "1", "-o", "a")
    assert first.code == 0
    again = run("sweep", "--config", "a/config.json", "--p-prune", "0", "0.7", "-o", "b")
    assert [row["p_prune"] for row in again.rows] == [0, 0.7]
    assert [row["count"] for row in again.rows] == [30, 30]
    assert again.rows[0]["top1"] == first.rows[0]["top1"]
    third = run("sweep", "--config", "b", "-o", "c")
    assert [row["p_prune"] for row in third.rows] == [0, 0.7]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("sweep --config", "--config needs a value"),
        ("sweep --config a b", "--config needs a value"),
        ("sweep --config run --config run", "--config takes one run"),
        ("sweep --config absent", "there is no run absent"),
        ("sweep --config empty", f"empty has no {COMMAND}"),
        ("sweep --config broken", f"broken/{COMMAND} holds no options"),
        ("sweep --config numbers", f"numbers/{COMMAND} holds no options"),
        ("retrain --config run", f"run/{COMMAND} is of secateurs sweep, not of secateurs retrain"),
    ],
)
def test_what_is_no_run(typed: str, words: str, run: Run) -> None:
    write(Path("run"), "--amp")
    write(Path("numbers"), 3)
    Path("empty").mkdir()
    (write(Path("broken")) / COMMAND).write_text("{")
    assert words in run(*typed.split()).complaint
