"""Prunes a file or folder, and waits where it is told to, so that a test can kill it there."""

import sys
import time
from pathlib import Path

from secateurs.checkpoint import prune_checkpoint, rewrite

source, output, where = sys.argv[1:]


def wait(*_: object) -> None:
    sys.stdout.write("here\n")
    sys.stdout.flush()
    time.sleep(600)


if where == "writing":
    write = rewrite.write_all
    done: list[int] = []

    def slowly(*arguments) -> None:
        write(*arguments)
        done.append(1)
        if len(done) == 3:
            wait()

    rewrite.write_all = slowly
elif where == "renaming":
    Path.replace = wait  # type: ignore[method-assign]
    Path.rename = wait  # type: ignore[method-assign]
prune_checkpoint(source, output, 0.5)
