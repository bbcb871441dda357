"""How little of a model competes, in the words of the command line."""

import shlex
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TextIO

from secateurs._io.text import printable
from secateurs.errors import CoverageWarning
from secateurs.parameters.coverage import Coverage, percent

_WORTH_A_LINE = 0.1


@contextmanager
def coverage_warnings(say: Callable[[str], None]) -> Generator[None]:
    """Say each `CoverageWarning` once, with options in place of arguments.

    Args:
        say: is handed a line.
    """
    said: set[str] = set()
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not isinstance(message, CoverageWarning):
                shown(message, category, filename, lineno, file, line)
            elif message.said not in said:
                said.add(message.said)
                say(message.said + _remedy(message.layers, message.include))

        warnings.simplefilter("always", CoverageWarning)
        warnings.showwarning = show
        yield


def coverage_line(
    found: Coverage, layers: Sequence[str] | None = None, include: Sequence[str] | None = None
) -> str:
    """Which weights stay and what to write to prune them; empty if these are few.

    Args:
        found: what competes.
        layers: what was given as ``--layers``.
        include: what was given as ``--include``.
    """
    left = found.total - found.competing - found.known
    if not left or left < _WORTH_A_LINE * found.total:
        return ""
    kinds, names = found.remedies(by_layer=layers is not None)
    stays = f"{percent(1 - found.share)} of the weights stay: {found.largest()}"
    line = "; ".join((stays, *found.barred()))
    return printable(
        line
        + _remedy(
            (*(layers or ()), *kinds) if kinds else (), (*(include or "*"), *names) if names else ()
        )
    )


def _remedy(layers: Sequence[object], include: Sequence[object]) -> str:
    options = (("--layers", layers), ("--include", include))
    said = " ".join(
        f"{option} {' '.join(shlex.quote(str(one)) for one in given)}"
        for option, given in options
        if given
    )
    return f"; to prune them write {said}" if said else ""
