"""What is on disk after kill -9 and on a full disk: real processes, real limits."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from result_rows import make_row
from secateurs._io.durable import replace_files
from secateurs.errors import FailureError
from secateurs.results import Results, read_rows

TESTS = Path(__file__).resolve().parent.parent
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")

ADD_FOREVER = """
import sys
from result_rows import make_row
from secateurs.results import Results
results = Results(sys.argv[1])
results.open({"run": 1})
start = len(results.rows())
print("ready", flush=True)
for number in range(start, 10**6):
    results.add(make_row(number / 10**6))
    results.save_progress({"number": number, "padding": "x" * 5000})
    print(number, flush=True)
"""


def _start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )


@POSIX
def test_kill_9_never_leaves_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    rng = random.Random(0)
    promised = 0
    for _ in range(12):
        process = _start(ADD_FOREVER, str(tmp_path))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.08))
        process.send_signal(signal.SIGKILL)
        said = [line for line in process.stdout.read().split("\n") if line]
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        promised = max([promised, *(int(line) + 1 for line in said)])

        # A strict reader: every line of every file is whole.
        rows = read_rows(tmp_path)
        stored = tmp_path / "results.jsonl"
        content = stored.read_bytes() if stored.exists() else b""  # killed before the first row
        assert content.count(b"\n") == len(rows) and (not rows or content.endswith(b"}\n"))
        assert len(rows) >= promised
        assert [row.p_prune for row in rows] == [number / 10**6 for number in range(len(rows))]
        if (tmp_path / "results.csv").exists():
            in_csv = read_rows(tmp_path / "results.csv")
            assert in_csv == rows[: len(in_csv)] and len(rows) - len(in_csv) <= 1
        progress = Results(tmp_path).load_progress()
        assert progress is None or promised - 1 <= progress["number"] < len(rows)
    assert promised > 0
    # Nothing of the killed ones stays but the lock file, and that goes with the next writer.
    with Results(tmp_path) as results:
        results.open({"run": 1})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "results.jsonl", "results.csv", "progress.json"}


FILL = """
import resource, signal, sys
from result_rows import make_row
from secateurs.errors import FailureError
from secateurs.results import Results
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
results = Results(sys.argv[1])
results.open({"run": 1})
results.save_progress({"kept": True})
number = 0
try:
    while True:
        results.add(make_row(number / 100))
        number += 1
except FailureError as error:
    print(number)
    print(error)
try:
    results.save_progress({"padding": "x" * 10**6})
except FailureError as error:
    print(error)
"""


@POSIX
def test_a_full_disk_is_one_line_and_what_was_there_is_intact(tmp_path: Path) -> None:
    process = _start(FILL, str(tmp_path), "20000")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    count, rows_error, progress_error = said.splitlines()
    assert int(count) > 5
    assert "results.jsonl: the disk is full" in rows_error
    assert "make room, then run the same command again" in rows_error
    assert "progress.json: the disk is full" in progress_error
    assert [row.p_prune for row in read_rows(tmp_path)] == [n / 100 for n in range(int(count))]
    assert read_rows(tmp_path / "results.csv") == read_rows(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))
    # With room again, the same configuration continues.
    with Results(tmp_path) as results:
        assert results.open({"run": 1}) is True
        assert results.load_progress() == {"kept": True}
        results.add(make_row(0.99))
        assert len(results.rows()) == int(count) + 1


@POSIX
def test_rows_added_together_are_all_there_or_none(tmp_path: Path) -> None:
    program = FILL.replace(
        "results.add(make_row(number / 100))",
        ("results.add_all([make_row((3 * number + i) / 1000) for i in range(3)])"),
    )
    process = _start(program, str(tmp_path), "20000")
    count = int(process.communicate(timeout=60)[0].splitlines()[0])
    assert len(read_rows(tmp_path)) == 3 * count


def test_adding_rows_that_fail_to_write_names_the_cause(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.open({})
        (tmp_path / "results.csv").mkdir()
        with pytest.raises(FailureError, match=r"cannot write .*results\.csv: .*output"):
            results.add(make_row())


@POSIX
def test_what_killed_writers_of_a_file_left_goes_with_the_next_write(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = "table [1].md"
    theirs = tmp_path / f".{name}.{dead.pid}.tmp"
    ours = tmp_path / f".{name}.{os.getpid()}.tmp"
    keep = [
        tmp_path / f".{name}.{os.getppid()}.tmp",  # of a process that still runs
        tmp_path / f".other.md.{dead.pid}.tmp",  # for another file
        tmp_path / f".{name}.backup.tmp",
        tmp_path / f"{name}.{dead.pid}.tmp",
        tmp_path / f".table 1.md.{dead.pid}.tmp",
    ]
    for path in (theirs, ours, *keep):
        path.write_text("torn")
    replace_files({tmp_path / name: b"whole"})
    assert (tmp_path / name).read_bytes() == b"whole"
    assert set(tmp_path.iterdir()) == {tmp_path / name, *keep}


def test_the_file_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FailureError, match=r"^cannot write .*/a: Is a directory"):
        replace_files({tmp_path / "a": b"", tmp_path / "b": b""})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
