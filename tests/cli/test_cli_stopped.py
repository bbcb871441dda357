"""A real process that is stopped in the middle and goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from command_line import LOADING, Run

HERE = Path(__file__).parent
SWEEP = (
    *("sweep", "--arch", "slow_network:build", "--data", "pictures", "--batch-size", "4"),
    *("--p-prune", "0", "0.4", "0.8", "--p-bern", "1", "0.5", "--draws", "3", "--output", "here"),
)
"""Eight batches, nine networks: 1.4 seconds of sleep."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def _network(tmp_path: Path, pictures: Path) -> Generator[None]:
    shutil.copy(HERE / "slow_network.py", tmp_path)
    yield
    sys.modules.pop("slow_network", None)


def start(folder: Path, *program: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *program],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(process: "subprocess.Popen[str]", path: Path) -> None:
    """Wait until a running process has written a file."""
    limit = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < limit, process.communicate()
        time.sleep(0.01)


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(run: Run, tmp_path: Path) -> None:
    command = (*SWEEP, "--workers", "2")
    process = start(tmp_path, "-m", "secateurs", *command)
    try:
        wait_for(process, tmp_path / "started")
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers hear it too
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (1, "")
    assert LOADING.sub("", err) == (
        "secateurs: interrupted; the same command goes on where it was\n"
    )
    assert (tmp_path / "here" / "progress.json").is_file()
    assert "no finished rows" in run("report", "here").complaint
    (tmp_path / "started").unlink()
    finished = run("sweep", "--config", "here/command.json").rows
    assert finished[-1]["count"] == 30 and (tmp_path / "started").exists()
    expected = run(*command, "--workers", "0", "--output", "whole").rows
    assert [row["correct1"] for row in finished] == [row["correct1"] for row in expected]
