"""The sweep command under torchrun: real processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import LOADING, Run, write_pictures

from secateurs.results import RetrainRow, read_rows

HERE = Path(__file__).parent
SLOW = (
    *("sweep", "--arch", "slow_network:build", "--data", "pictures", "--batch-size", "4"),
    *("--p-prune", "0", "0.4", "0.8", "--p-bern", "1", "0.5", "--draws", "3", "--output", "here"),
)
"""Eight batches, nine networks: 3.6 seconds of sleep."""
BROKEN = "pictures/9/808.png"
COMMANDS = {
    "sweep": (
        *("sweep", "--limit", "100", "--batch-size", "16", "--p-prune", "0", "0.3", "0.7"),
        *("--score", "magnitude", "taylor", "random", "--draws", "2", "--output", "swept"),
    ),
    "retrain": (
        *("retrain", "--dense-epochs", "1", "--epochs", "1", "--limit", "300"),
        *("--output", "retrained"),
    ),
    "impossible": ("sweep", "--p-prune", "1.2"),
    "broken": (*SLOW[:-1], "unread"),  # the last, since it fails
}
ONE_AFTER_ANOTHER = """
import json, os, signal, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from torch import distributed
from secateurs.cli import main
from secateurs.cli.torchrun import on_ranks

def struck(ranks):
    worker = os.fork()
    if not worker:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    return os.waitpid(worker, 0)[1], ""

def run(name, words):
    path = Path(f"{name}-{os.environ['RANK']}")
    out, err = (path.with_suffix(suffix).open("w") for suffix in (".out", ".err"))
    with out, err, redirect_stdout(out), redirect_stderr(err):
        try:
            code = print(on_ranks(struck)) if name == "struck" else main(words)
        except SystemExit as ended:
            code = ended.code
    path.with_suffix(".code").write_text(str(code or 0))
    # As a process that begins: nothing is left of the signals and of the other ranks.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if distributed.is_initialized():
        distributed.destroy_process_group()
    return code

run("struck", ())
os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
for name, words, os.environ["MASTER_PORT"] in json.loads(sys.argv[1]):
    code = run(name, words)
sys.exit(code)
"""
EXACT = ("p_prune", "score", "count", "correct1", "correct5", "achieved", "loss")

# Each process has its share of the machine, which may be busy.
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals"),
]


@pytest.fixture
def slow(tmp_path: Path, pictures: Path) -> Generator[Path]:
    """A folder with images, and a network that takes its time."""
    shutil.copy(HERE / "slow_network.py", tmp_path)
    yield tmp_path
    sys.modules.pop("slow_network", None)


def free_ports() -> Iterator[str]:
    """Ports below those that the system gives to connections, which any program may get later."""
    first = 20_000 + os.getpid() % 10_000
    for port in range(first, 32_768):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            yield str(port)


def torchrun(
    ranks: int, folder: Path, *program: object, cache: Path | None = None
) -> "subprocess.Popen[str]":
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks)
    # No GPU, where ranks outnumber the GPUs of most machines; no warning of Python 3.12 at a fork.
    fixed = {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    fixed |= {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    fixed |= {"SECATEURS_CACHE": str(cache)} if cache else {}
    return subprocess.Popen(
        [sys.executable, *map(str, (*launcher, *program))],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | fixed,
        start_new_session=True,
        # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, list[str]]:
    """Exit code, stdout, and what the ranks said on stderr: all lines but those of torchrun."""
    out, err = process.communicate(timeout=480)
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


@dataclass(frozen=True)
class Ran:
    """What the two ranks of one torchrun did in a folder, command by command."""

    code: int
    folder: Path

    def said(self, name: str) -> tuple[list[int], list[str], list[str]]:
        """Of one command: each rank's exit code and stdout, and what all of them said on stderr."""
        codes, outs, lines = [], [], list[str]()
        for rank in range(2):
            file = self.folder / f"{name}-{rank}"
            codes.append(int(file.with_suffix(".code").read_text()))
            outs.append(file.with_suffix(".out").read_text())
            lines += LOADING.sub("", file.with_suffix(".err").read_text()).splitlines()
        return codes, outs, lines


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The commands, run one after another by the same ranks, which take seconds to start."""
    folder = tmp_path_factory.mktemp("ranks")
    write_pictures(folder / "pictures")
    broken = folder / BROKEN
    broken.write_bytes(broken.read_bytes()[:40])
    shutil.copy(HERE / "slow_network.py", folder)
    (folder / "one_after_another.py").write_text(ONE_AFTER_ANOTHER)
    words = json.dumps([*zip(COMMANDS, COMMANDS.values(), free_ports(), strict=False)])
    # Nobody has trained the network yet: rank 0 does, and the others wait.
    cache = folder / "fresh"
    code, *_ = ended(torchrun(2, folder, "one_after_another.py", words, cache=cache))
    return Ran(code, folder)


@pytest.fixture
def run_there(ran: Ran, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command alone in the folder in which the ranks ran theirs."""
    monkeypatch.chdir(ran.folder)
    monkeypatch.setenv("SECATEURS_CACHE", str(ran.folder / "fresh"))
    return run


def test_rows_are_those_of_one_process_and_rank_0_prints(ran: Ran, run_there: Run) -> None:
    codes, outs, said = ran.said("sweep")
    assert codes == [0, 0], said
    assert said == ["wrote results.csv, results.jsonl, sweep.png, sweep.svg to swept"]
    assert outs[0].count("digits-cnn") == 1 and outs[1] == ""
    alone = run_there(*COMMANDS["sweep"][:-1], "alone")
    there = run_there(*COMMANDS["sweep"])
    assert "these results were there already" in there.err
    assert there.out == alone.out == outs[0]
    assert len(there.rows) == 9 and {row["count"] for row in there.rows} == {100}
    assert columns(there.rows) == columns(alone.rows)
    assert [row["score_data"] for row in there.rows] == [row["score_data"] for row in alone.rows]
    assert not list((ran.folder / "fresh").glob("*.tmp"))


def test_ranks_train_and_prune_together(ran: Ran, run_there: Run) -> None:
    codes, outs, said = ran.said("retrain")
    assert codes == [0, 0] and outs[0].count("digits-cnn ") == 1 and outs[1] == "", said
    assert len(said) == 5 and said[-1].startswith("wrote results.csv"), said
    rows = read_rows(ran.folder / "retrained", RetrainRow)
    assert [(row.phase, row.ranks, row.count) for row in rows] == [
        ("dense", 2, 30), ("retrain", 2, 30), ("test dense", 2, 896), ("test pruned", 2, 896)
    ]  # fmt: skip
    assert rows[-1].kept == 4021
    again = run_there(*COMMANDS["retrain"])  # finished: one process shows it
    assert (again.code, again.out) == (0, outs[0]), again.err


def test_nothing_is_said_of_a_signal_during_a_fork_and_what_cannot_be_is_said_once(
    ran: Ran,
) -> None:
    assert ran.said("struck") == ([0, 0], ["(0, '')\n"] * 2, [])
    codes, outs, said = ran.said("impossible")
    assert (codes, outs, len(said)) == ([2, 2], ["", ""], 1), said
    assert said[0].startswith("secateurs: --p-prune") and "1.2" in said[0]


def test_an_image_that_one_rank_cannot_read_ends_all(ran: Ran) -> None:
    codes, outs, said = ran.said("broken")
    assert (ran.code, codes, outs, len(said)) == (1, [1, 1], ["", ""], 1), said
    assert said[0].startswith(f"secateurs: cannot read the image {BROKEN}")
    assert said[0].endswith("(rank 1)")
    assert seen(ran.folder / "unread") > 0


def test_ctrl_c_or_a_killed_rank_ends_all_and_one_process_goes_on(run: Run, slow: Path) -> None:
    def as_a_terminal(pid: int) -> None:
        os.killpg(pid, signal.SIGINT)

    def kill_a_rank(pid: int) -> None:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True
        )
        ranks = [int(word) for word in listed.stdout.split()]
        os.kill(max(ranks), signal.SIGKILL)

    words = ("-m", "secateurs", *SLOW, "--workers", "1")
    code, out, said = interrupt_once_at_work(torchrun(2, slow, *words), slow, as_a_terminal)
    assert (code, out) == (1, "")
    assert said == ["secateurs: interrupted; the same command goes on where it was"]
    first = seen(slow / "here")

    # torchrun ends the other rank and its worker as it does when it gets SIGTERM itself.
    code, out, said = interrupt_once_at_work(torchrun(2, slow, *words), slow, kill_a_rank)
    assert (code, out, len(said)) == (1, "", 1), said
    assert said[0].startswith("secateurs: ended by SIGTERM")
    assert "when another rank has ended; the same command goes on where it was" in said[0]
    assert 0 < first < seen(slow / "here") < 9 * 30

    rows, expected = run(*SLOW, "-j", 0).rows, run(*SLOW, "-j", 0, "--output", "whole").rows
    assert {row["count"] for row in rows} == {30}
    assert columns(rows) == columns(expected)
