"""Runs the command line again and again, each time struck by signals or with a broken stream.

Takes a file to prune; prints a line of JSON for each case: its name, the exit code, what was said
on stderr, and which files are there afterwards. Importing the library takes seconds, so each case
is a fork of one process, not a process of its own.
"""

import atexit
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from secateurs.checkpoint import file_blocks
from secateurs.cli import main

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
STRUCK: dict[str, Sequence[int]] = {
    "once": (INT,),
    "twice": (INT, INT),
    "SIGTERM": (TERM,),
    "SIGHUP": (HUP,),
    "both": (TERM, INT, HUP),
}
STREAMS = ("a stdout that nobody reads", "a full stdout", "a full stderr")


TO_THE_END = ("twice", "a stdout that nobody reads")
"""For which Python takes its time to leave, and may be struck or complain once more."""


def break_stream(case: str) -> None:
    """Give this process a stream that cannot be written."""
    if case == "a stdout that nobody reads":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
    else:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1 if case == "a full stdout" else 2)


def strike_while_writing(signals: Sequence[int]) -> None:
    """Send the signals to this process once part of the result is written, and at its very end."""
    write, written = file_blocks.write_all, 0

    def struck(*arguments) -> None:
        nonlocal written
        write(*arguments)
        written += 1
        if written == 2:
            for number in signals:
                os.kill(os.getpid(), number)

    file_blocks.write_all = struck
    atexit.register(lambda: [os.kill(os.getpid(), number) for number in signals])


def child(case: str, folder: Path, said: Path) -> None:
    os.chdir(folder)
    for number in (INT, TERM, HUP):
        signal.signal(number, signal.default_int_handler if number == INT else signal.SIG_DFL)
    if case == "ignored":
        signal.signal(HUP, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    if case in STREAMS:
        break_stream(case)
    else:
        strike_while_writing((HUP,) if case == "ignored" else STRUCK[case])
    sys.argv = ["secateurs", "prune", "in.safetensors", "-o", "out.safetensors", "--p-prune", "0.5"]
    try:
        main()
    except SystemExit as ended:
        if case in TO_THE_END:
            raise
        sys.stdout.flush()
        os._exit(int(ended.code or 0))


def warm_up(stored: Path) -> None:
    """Import what a command imports, once for all cases."""
    words = ["prune", str(stored), "-o", str(stored.with_stem("warm")), "--p-prune", "0.5"]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), suppress(SystemExit):
        main(words)


def run(stored: Path) -> None:
    warm_up(stored)
    for number, case in enumerate([*STRUCK, *STREAMS, "ignored"]):
        folder, said = stored.parent / str(number), stored.parent / f"{number}.txt"
        folder.mkdir()
        shutil.copy(stored, folder / "in.safetensors")
        process = os.fork()
        if process == 0:
            child(case, folder, said)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        files = sorted(path.name for path in folder.iterdir())
        print(json.dumps([case, code, said.read_text(), files]), flush=True)  # noqa: T201


run(Path(sys.argv[1]))
