"""Imports, terminals, pipes: what the command line does with the process around it."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from command_line import LOADING, RANDOM

import secateurs
from result_rows import make_row
from secateurs.cli import main
from secateurs.results import Results


def test_help_and_what_is_mistyped_load_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from secateurs.cli import main\n"
        "names = ('sweep', 'retrain', 'transfer', 'prune', 'report')\n"
        "commands = [[name, '--help'] for name in names]\n"
        "for words in (['--version'], ['--help'], *commands):\n"
        "    try: main(words)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "wrong = (['sweep', '--p-prune', 'half'], ['sweep', '--p-prune', '1.5'],\n"
        "    ['retrain', '--ratio', '2'], ['sensitivity', '--ratios', '0.5,50'])\n"
        "for words in wrong:\n"
        "    try: main(words)\n"
        "    except SystemExit as end: assert end.code == 2\n"
        "heavy = {'torch', 'numpy', 'torchvision', 'timm', 'matplotlib', 'sklearn', 'PIL'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.endswith("loaded: []\n") and done.stderr.count("\n") == 4


@pytest.mark.parametrize("words", [[], ["--markdown"]])
def test_a_closed_pipe_is_no_traceback(tmp_path: Path, words: list[str]) -> None:
    with Results(tmp_path) as results:
        results.add_all(make_row(n / 3) for n in range(3))
    process = subprocess.Popen(
        [sys.executable, "-m", "secateurs", "report", str(tmp_path), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


def test_in_a_terminal_there_is_a_bar_of_its_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    said = bytearray()
    reader = threading.Thread(target=read_all, args=(ours, said))
    reader.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with open(theirs, "w") as terminal, monkeypatch.context() as patch:  # noqa: PTH123
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        with pytest.raises(SystemExit) as caught:
            main([*RANDOM, "--p-prune", "0", "0.5"])
    reader.join()
    assert caught.value.code == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert any(line.startswith("Sweeping") and "60/60" in line for line in lines)
    assert max(map(len, lines[:-1])) <= 80  # the last line is the path of the results
    assert lines[-1].startswith("wrote results.csv")
    assert said.count(b"\x1b[?25l") == said.count(b"\x1b[?25h") > 0  # the cursor is back


def read_all(descriptor: int, into: bytearray) -> None:
    try:
        while part := os.read(descriptor, 65536):
            into += part
    except OSError:  # how a terminal says that the other end was closed
        pass
    os.close(descriptor)


def test_a_stdout_in_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = io.BytesIO()
    narrow = io.TextIOWrapper(said, encoding="ascii", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", narrow)
        with pytest.raises(SystemExit) as caught:
            main([*RANDOM, "--p-prune", "0.5", "--scope", "layer", "global"])
    assert caught.value.code == 0
    assert b"layer" in said.getvalue() and b"?" in said.getvalue()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_ctrl_c_in_the_first_import_is_one_line() -> None:
    program = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'secateurs.cli.entry_point': os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from secateurs.cli import main\n"
        "heavy = {'typing', 'dataclasses', 'secateurs.errors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=os.environ | {"PYTHONPATH": str(Path(secateurs.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "secateurs: interrupted\n")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_ctrl_c_while_torch_is_imported_is_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "secateurs", *RANDOM],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        assert LOADING.match(process.stderr.readline())  # torch is imported after this line
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "secateurs: interrupted\n")
    assert not list(tmp_path.iterdir())
