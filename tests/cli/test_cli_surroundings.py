"""Terminals, pipes, settings and names around a command: they cost no finished work."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from command_line import LOADING, RANDOM, Run
from safetensors.torch import save_file

from hostile import HIDDEN, NAMES
from result_rows import make_row
from secateurs.cli import main
from secateurs.cli.standard_output import Stdout
from secateurs.errors import FailureError
from secateurs.results import Results, read_rows

FILES = {
    *("command.json", "config.json", "layers.jsonl", "outcomes.json"),
    *("results.csv", "results.jsonl", "sweep.png", "sweep.svg"),
}


def test_it_says_at_once_what_it_loads(run: Run) -> None:
    done = run(*RANDOM, "--p-prune", "0.5")
    assert done.err.startswith("loading the network digits and the data digits ...\n")


@pytest.mark.parametrize("columns", ["0", "-3", "abc", "²", "1", "99999999999"])
def test_a_size_that_is_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    with Results(tmp_path / "here") as results:
        results.add_all([make_row(0.0), make_row(0.5)])
    expected = run("report", "here"), run("sweep", "--help")
    assert "78.3 to 86.8" in expected[0].out
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, columns)
    assert (run("report", "here"), run("sweep", "--help")) == expected
    assert os.environ["COLUMNS"] == columns


@contextmanager
def full_disk(*, unbuffered: bool) -> Iterator[io.TextIOWrapper]:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    stream = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=unbuffered)
    try:
        yield stream
    finally:
        with suppress(OSError):
            stream.close()


@pytest.mark.parametrize("how", ["no reader", "full disk", "none"])
def test_a_broken_stdout_loses_neither_rows_nor_plots(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    if how == "full disk" and not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    expected = run(*RANDOM, "--p-prune", "0", "0.5", "--output", "whole").rows
    reader, writer = os.pipe()
    os.close(reader)
    broken = os.fdopen(writer, "w") if how != "full disk" else open("/dev/full", "w")  # noqa: PTH123, SIM115
    with broken, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None if how == "none" else broken)
        with pytest.raises(SystemExit) as caught:
            main([*RANDOM, "--p-prune", "0", "0.5", "--output", "here"])
    said = LOADING.sub("", capsys.readouterr().err).splitlines()
    assert said[0] == "wrote results.csv, results.jsonl, sweep.png, sweep.svg to here"
    assert {path.name for path in (tmp_path / "here").iterdir()} == FILES
    assert [row.loss for row in read_rows(tmp_path / "here")] == [row["loss"] for row in expected]
    assert caught.value.code == (1 if how == "full disk" else 0)
    assert len(said) == (2 if how == "full disk" else 1)
    assert how != "full disk" or said[1] == (
        "secateurs: cannot print the table: No space left on device; the files are written"
    )


@pytest.mark.parametrize("words", [["--version"], ["--help"], []])
def test_a_full_disk_under_what_has_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with full_disk(unbuffered=False) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as caught:
            main(words)
    assert caught.value.code == 1
    assert re.fullmatch("secateurs: cannot .*: No space left on device\n", capsys.readouterr().err)


def test_a_full_disk_under_an_unbuffered_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with PYTHONUNBUFFERED, where also an empty text is written."""
    went_on: list[str] = []
    with full_disk(unbuffered=True) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with (
            pytest.raises(FailureError, match="cannot print the table: No space left"),
            Stdout() as out,
        ):
            out.table(lambda console: console.print("a table"))
            out.table(lambda console: console.print("another one"))
            went_on.append("with the plots")
    assert went_on


def test_a_plot_that_cannot_be_drawn_is_one_line(tmp_path: Path, pictures: Path) -> None:
    """In a process of its own, since the settings are read when matplotlib is imported."""
    shutil.copy(Path(__file__).parent / "slow_network.py", tmp_path)  # which loads fast
    words = ("sweep", "--arch", "slow_network:build", "--data", pictures, "--p-prune", "0.5")
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe is no UTF-8")
    done = subprocess.run(
        [sys.executable, "-m", "secateurs", *words, "--workers", "0", "--output", "here"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "50%" in done.stdout and "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-2:]
    assert said[0].startswith("no plot: cannot draw here/sweep: 'utf-8' codec can't decode")
    assert said[1] == "wrote results.csv, results.jsonl to here"
    assert len(read_rows(tmp_path / "here")) == 1


def test_what_a_killed_run_left_goes_when_it_is_repeated(run: Run, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    words = (*RANDOM, "--p-prune", "0.5", "--output", "here")
    assert run(*words).code == 0
    for name in ("sweep.png", "sweep.svg", "results.csv", "results.jsonl", "progress.json"):
        (tmp_path / "here" / f".{name}.{dead.pid}.tmp").write_text("torn")
    assert run(*words).code == 0
    assert {path.name for path in (tmp_path / "here").iterdir()} == FILES


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_markup_in_names_is_shown_as_text(run: Run, tmp_path: Path, name: str) -> None:
    commands: list[tuple[object, ...]] = [
        ("sweep", "--arch", name),
        ("sweep", "--data", name),
        ("sweep", "--granularity", name),
        ("transfer", "--surrogates", f"{name}=x", "--data", "digits"),
        ("prune", name, "--p-prune", "0.5", "-o", "x"),
        ("report", name),
        (name,),
        ("sweep", f"--{name}"),
    ]
    if "\x00" not in name:
        commands += _commands_on_files(name)
    for words in commands:
        said = run(*words)
        assert not HIDDEN.search(said.out + said.err), words
        assert said.code == 0 or "Traceback" not in said.complaint


def _commands_on_files(name: str) -> list[tuple[object, ...]]:
    weights = Path("in.safetensors")
    if not re.search("[\ud800-\udfff]", name):  # which these files cannot hold
        save_file({f"{name}.weight": torch.randn(4, 4), name: torch.ones(3)}, weights)
    else:
        save_file({"conv.weight": torch.randn(4, 4)}, weights)
    prune = ("prune", weights, "--p-prune", "0.5")
    folder = Path("folder")
    with Results(folder) as results:
        shown = name.encode("utf-8", "replace").decode()
        results.add_all([make_row(p, model=shown, data=shown, score=shown) for p in (0.0, 0.5)])
    return [
        (*prune, "--dry-run"),
        (*prune, "--output", "out.safetensors", "--scope", "layer"),
        (*prune, "--output", "out.safetensors", "--include", name),
        ("report", folder),
        ("report", folder, "--markdown"),
    ]
