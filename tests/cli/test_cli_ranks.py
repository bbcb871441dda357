"""The sweep command under torchrun: real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from command_line import LOADING, Run

from secateurs.results import read_retrain_rows

HERE = Path(__file__).parent
SLOW = (
    *("sweep", "--arch", "slow_network:build", "--data", "pictures", "--batch-size", "4"),
    *("--p-prune", "0", "0.4", "0.8", "--p-bern", "1", "0.5", "--draws", "3", "--output", "here"),
)
"""Eight batches, nine networks: 3.6 seconds of sleep."""
EXACT = ("p_prune", "score", "count", "correct1", "correct5", "achieved", "loss")

# Each process has its share of the machine, which may be busy.
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals"),
]


@pytest.fixture
def slow(tmp_path: Path, pictures: Path) -> Generator[Path]:
    """A folder with images, and a network that takes its time."""
    assert pictures.parent == tmp_path
    shutil.copy(HERE / "slow_network.py", tmp_path)
    yield tmp_path
    sys.modules.pop("slow_network", None)


def start(folder: Path, *program: object) -> "subprocess.Popen[str]":
    cache = os.environ.get("SECATEURS_CACHE", str(folder / "cache"))
    # No GPU, where ranks outnumber the GPUs of most machines; no warning of Python 3.12 at a fork.
    fixed = {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    fixed |= {"OMP_NUM_THREADS": "1", "SECATEURS_CACHE": cache, "COLUMNS": "80"}
    return subprocess.Popen(
        [sys.executable, *map(str, program)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | fixed,
        start_new_session=True,
        # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def torchrun(ranks: int, folder: Path, *words: object) -> "subprocess.Popen[str]":
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks)
    return start(folder, *launcher, "-m", "secateurs", *words)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, list[str]]:
    """Exit code, stdout, and what the ranks said on stderr: all lines but those of torchrun."""
    out, err = process.communicate(timeout=240)
    head, _, _ = LOADING.sub("", err).partition('Traceback (most recent call last):\n  File "')
    lines = [line for line in head.splitlines() if "torch/distributed/" not in line]
    return process.returncode, out, lines


def interrupt_once_at_work(
    process: "subprocess.Popen[str]", folder: Path, strike: Callable[[int], None]
) -> tuple[int, str, list[str]]:
    limit = time.monotonic() + 240
    try:
        while not (folder / "started").exists():
            assert process.poll() is None and time.monotonic() < limit, process.communicate()
            time.sleep(0.01)
        time.sleep(0.3)
        strike(process.pid)
        return ended(process)
    finally:
        process.kill()
        (folder / "started").unlink(missing_ok=True)


def seen(folder: Path) -> int:
    """How many images all variants were scored on together, as all ranks have saved it."""
    saved = [json.loads(path.read_text()) for path in folder.glob("progress*.json")]
    done = (pair for ranks in saved for each in ranks.values() for pair in each["done"])
    return sum(stop - start for start, stop in done)


def columns(rows: list[dict[str, Any]], names: tuple[str, ...] = EXACT) -> list[list[Any]]:
    return [[row[name] for name in names] for row in rows]


def test_rows_are_those_of_one_process_and_rank_0_prints(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("sweep", "--limit", "100", "--batch-size", "16", "--p-prune", "0", "0.3", "0.7")
    words += ("--score", "magnitude", "taylor", "random", "--draws", "2")
    # Nobody has trained the network yet: rank 0 does, and the others wait.
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path / "fresh"))
    code, out, said = ended(torchrun(2, tmp_path, *words, "--output", "ranks"))
    assert code == 0, said
    assert said == ["wrote results.csv, results.jsonl, sweep.png, sweep.svg to ranks"]
    assert out.count("digits-cnn") == 1
    alone = run(*words, "--output", "alone")
    there = run(*words, "--output", "ranks")
    assert "these results were there already" in there.err
    assert there.out == alone.out == out
    assert len(there.rows) == 9 and {row["count"] for row in there.rows} == {100}
    assert columns(there.rows) == columns(alone.rows)
    assert [row["score_data"] for row in there.rows] == [row["score_data"] for row in alone.rows]
    assert not list((tmp_path / "fresh").glob("*.tmp"))


def test_ctrl_c_ends_all_ranks_and_any_number_of_them_goes_on(run: Run, slow: Path) -> None:
    def as_a_terminal(pid: int) -> None:
        os.killpg(pid, signal.SIGINT)

    def torchrun_alone(pid: int) -> None:
        os.kill(pid, signal.SIGTERM)

    three = torchrun(3, slow, *SLOW, "--workers", "1")
    code, out, said = interrupt_once_at_work(three, slow, as_a_terminal)
    assert (code, out) == (1, "")
    assert said == ["secateurs: interrupted; the same command goes on where it was"]
    first = seen(slow / "here")

    two = torchrun(2, slow, *SLOW, "--workers", "1")
    code, out, said = interrupt_once_at_work(two, slow, torchrun_alone)
    assert (code, out, len(said)) == (1, "", 1), said
    assert said[0].startswith("secateurs: ended by SIGTERM")
    assert 0 < first < seen(slow / "here") < 9 * 30

    rows, expected = run(*SLOW, "-j", 0).rows, run(*SLOW, "-j", 0, "--output", "whole").rows
    assert {row["count"] for row in rows} == {30}
    assert columns(rows) == columns(expected)


STRUCK_WORKER = """
import os, signal
from secateurs.cli import main
from secateurs.cli.torchrun import on_ranks

def run(ranks):
    worker = os.fork()
    if not worker:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    return os.waitpid(worker, 0)[1], ""

print(on_ranks(run), flush=True)
main(["sweep", "--p-prune", "1.2"])
"""


def test_nothing_is_said_of_a_signal_during_a_fork_and_what_cannot_be_is_said_once(
    tmp_path: Path,
) -> None:
    (tmp_path / "struck.py").write_text(STRUCK_WORKER)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    code, out, said = ended(start(tmp_path, *launcher, "struck.py"))
    assert out == "(0, '')\n" * 2
    assert (code, len(said)) == (1, 1), said  # torchrun's code; that of the ranks is 2
    assert said[0].startswith("secateurs: --p-prune") and "1.2" in said[0]


def test_an_image_that_one_rank_cannot_read_ends_all(slow: Path) -> None:
    broken = max((slow / "pictures" / "9").iterdir())
    broken.write_bytes(broken.read_bytes()[:40])
    words = (*SLOW[:-2], "--output", "there")
    code, out, said = ended(torchrun(2, slow, *words))
    assert (code, out, len(said)) == (1, "", 1), said
    assert said[0].startswith(f"secateurs: cannot read the image pictures/9/{broken.name}")
    assert said[0].endswith("(rank 1)")
    assert seen(slow / "there") > 0


def test_a_rank_that_is_killed_ends_the_others(slow: Path) -> None:
    def kill_a_rank(pid: int) -> None:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True
        )
        ranks = [int(word) for word in listed.stdout.split()]
        os.kill(max(ranks), signal.SIGKILL)

    process = torchrun(2, slow, *SLOW, "--workers", "0")
    code, out, said = interrupt_once_at_work(process, slow, kill_a_rank)
    assert (code, out, len(said)) == (1, "", 1), said
    assert "when another rank has ended; the same command goes on where it was" in said[0]
    assert seen(slow / "here") > 0


def test_ranks_train_and_prune_together(run: Run, tmp_path: Path) -> None:
    words = ("retrain", "--dense-epochs", 1, "--epochs", 1, "--limit", 300, "--output", "here")
    code, out, said = ended(torchrun(2, tmp_path, *words))
    assert code == 0 and out.count("digits-cnn ") == 1, said
    assert len(said) == 5 and said[-1].startswith("wrote results.csv"), said
    rows = read_retrain_rows(tmp_path / "here")
    assert [(row.phase, row.ranks, row.count) for row in rows] == [
        ("dense", 2, 30), ("retrain", 2, 30), ("test dense", 2, 896), ("test pruned", 2, 896)
    ]  # fmt: skip
    assert rows[-1].kept == 4021
    again = run(*words)  # finished: one process shows it
    assert (again.code, again.out) == (0, out), again.err
