"""Prunes a folder again and again, killed at one system call after another, and then once more.

Prints a line of JSON for each point: the output, the call, whether the output was whole after the
kill, and what is there after the same command.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from stored_folders import INDEX, loaded

from secateurs.checkpoint import prune_checkpoint

CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir")


def killed(run: Callable[[], object], point: int) -> str:
    """Run in a child that ends before its system call of this number; which one that is."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        left = point

        def dying(name: str, call: Callable[..., object]) -> Callable[..., object]:
            def counted(*arguments: object, **named: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os.write(writer, name.encode())
                    os._exit(9)
                return call(*arguments, **named)

            return counted

        for name in CALLS:
            setattr(os, name, dying(name, getattr(os, name)))
        run()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        name = said.read()
    os.waitpid(child, 0)
    return name


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def main(template: Path, source: Path, *outputs: Path) -> None:
    """Take every point in turn, each time from the same beginning.

    Args:
        template: what the folder of all files is like at first.
        source: the input, inside it.
        *outputs: the outputs, inside it, one after another.
    """
    os.fsync = lambda _: None  # nobody cuts the power
    where = template.with_name("here")
    for output in outputs:
        call, point = "none yet", 0

        def run(output: Path = output) -> None:
            prune_checkpoint(where / source, where / output, 0.5)

        while call:
            shutil.copytree(template, where)
            call = killed(run, point)
            whole = not (where / output / INDEX).exists() or bool(loaded(where / output))
            run()
            zeros = sum(int((t == 0).sum()) for t in loaded(where / output).values())
            print(json.dumps([str(output), call, whole, zeros, names(where)]))  # noqa: T201
            shutil.rmtree(where)
            point += 1


main(*map(Path, sys.argv[1:]))
