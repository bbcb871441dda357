"""Signals and broken streams: one line at most, no half a file, and nothing lost that was made."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Run
from safetensors.torch import save_file

from secateurs.cli.interruption import Interruption

HERE = Path(__file__).parent
BEFORE, AFTER = ["in.safetensors"], ["in.safetensors", "out.safetensors"]

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs POSIX signals")

Case = tuple[int, str, list[str]]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """What became of each case of ending_badly.py."""
    stored = tmp_path_factory.mktemp("ending") / "stored.safetensors"
    torch.manual_seed(0)
    save_file({f"{i}.weight": torch.randn(50, 40) for i in range(4)}, stored)
    command = [sys.executable, str(HERE / "ending_badly.py"), str(stored)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert ran.returncode == 0, ran.stderr
    return {case: (code, said, files) for case, code, said, files in
            map(json.loads, ran.stdout.splitlines())}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "word"),
    [
        ("once", "interrupted"),
        ("twice", "interrupted"),
        ("SIGTERM", "ended by SIGTERM"),
        ("SIGHUP", "ended by SIGHUP"),
        ("both", "ended by SIGTERM"),
    ],
)
def test_a_signal_is_one_line_and_leaves_no_half_a_file(
    cases: dict[str, Case], case: str, word: str
) -> None:
    code, said, files = cases[case]
    lines = [line for line in said.splitlines() if line]
    assert lines[0].startswith("pruning 4 of 4 tensors"), said
    assert lines[1:] == [f"secateurs: {word}"], said
    assert (code, files) == (1, BEFORE)


def test_a_signal_that_is_ignored_stays_so(cases: dict[str, Case]) -> None:
    code, said, files = cases["ignored"]
    assert (code, files) == (0, AFTER), said


def test_a_broken_stream_loses_nothing(cases: dict[str, Case]) -> None:
    for case, expected in (("a stdout that nobody reads", 0), ("a full stderr", 0)):
        code, said, files = cases[case]
        assert (code, files) == (expected, AFTER), (case, said)
        assert "secateurs:" not in said and "Traceback" not in said and "ignored" not in said
    code, said, files = cases["a full stdout"]
    assert (code, files) == (1, AFTER)
    complaint = "cannot print the table: No space left on device; the files are written"
    assert said.splitlines()[-1] == f"secateurs: {complaint}"


def test_handlers_are_restored() -> None:
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        _handlers_are_given_back()
    finally:
        signal.signal(signal.SIGINT, outside)


def _handlers_are_given_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(KeyboardInterrupt), Interruption(last=False) as interruption:
        os.kill(os.getpid(), signal.SIGINT)
    assert interruption.renamed("interrupted; so") == "interrupted; so"
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before


def test_other_threads_handle_no_signals() -> None:
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with Interruption(last=True):
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not failed


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("prune", "m.safetensors", "-o", "", "--p-prune", "0.5"), "after -o"),
        (("prune", "m.safetensors", "--output=", "--p-prune", "0.5"), "after --output"),
        (("prune", "", "-o", "out", "--p-prune", "0.5"), "after prune"),
        (("sweep", "-o", ""), "after -o"),
        (("sweep", "-o="), "after -o"),
        (("sweep", "--data", "", "-o", "out"), "after --data"),
        (("transfer", "--output", ""), "after --output"),
        (("report", ""), "after report"),
    ],
)
def test_an_empty_path_is_not_this_folder(
    run: Run, tmp_path: Path, words: tuple[str, ...], where: str
) -> None:
    save_file({"0.weight": torch.ones(8, 8)}, tmp_path / "m.safetensors")
    before = (tmp_path / "m.safetensors").read_bytes()
    assert f"the argument {where} is empty" in run(*words).complaint
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    assert (tmp_path / "m.safetensors").read_bytes() == before


class Signals:
    """Gets a signal when it is freed."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def by_a_finalizer() -> None:
    value = type("Value", (), {})()
    weakref.finalize(value, signal.raise_signal, signal.SIGTERM)


@pytest.mark.parametrize("free", [Signals, by_a_finalizer])
def test_a_signal_while_an_object_is_freed_is_not_lost(
    free: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    with pytest.raises(KeyboardInterrupt), Interruption(last=False) as interruption:
        free()
        time.sleep(60)
    assert interruption.number == signal.SIGTERM
    assert not dropped
