"""``secateurs speed``: what it prints, writes and refuses."""

from pathlib import Path

import pytest
from command_line import Run

from secateurs.results import SpeedRow, read_rows

WORDS = ("speed", "--weights", "random", "--threads", 1, "-b", 1, "--p-prune", 0, 0.9)


def test_a_network_is_measured_printed_and_drawn(run: Run) -> None:
    said = run(*WORDS, "-o", "here", "--title", "Ours")
    assert said.code == 0, said
    assert "batch 1, 1 thread" in said.out and "90.0%" in said.out
    assert said.err.splitlines()[-1] == (
        "wrote results.csv, results.jsonl, speed.png, speed.svg to here"
    )
    rows = read_rows("here", SpeedRow)
    assert [row.p_prune for row in rows] == [0.0, 0.9]
    assert rows[0].seconds == rows[0].dense_seconds
    again = run(*WORDS, "-o", "here")
    assert "these results were there already" in again.err
    assert read_rows("here", SpeedRow) == rows
    shown = run("report", "here", "--markdown", "-o", "plot")
    assert "| digits" in shown.out
    assert Path("plot.png").is_file()
    assert "batch 1, 1 thread" in run("report", "here").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("speed", "--p-prune", 2), "--p-prune must be from 0 to 1"),
        (("speed", "--threads", 5000), "--threads 5000 is more than the"),
        (("speed", "--batch-sizes", 0), "--batch-sizes must be a whole number from 1"),
        (("speed", "--score", "taylor"), "--score"),
    ],
)
def test_wrong_options_are_refused(run: Run, words: tuple[object, ...], said: str) -> None:
    assert said in run(*words).complaint
