"""Errors and warnings of the library, with options in place of arguments."""

import shlex
import warnings
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import TextIO

from secateurs._console import say
from secateurs.cli.processes import is_first
from secateurs.errors import Argument, CoverageWarning, Message

_CALLED = {
    "seed": "--seeds",
    "source": "IN",
    "learning_rate": "--lr",
    "steps": "--repair",
    "calibration": "--data",
    "ratios": "--ratios-from",
}
"""Arguments whose option has another name, in the commands that have that option."""


def in_options(message: Message, options: Collection[str] = ()) -> str:
    """An error or a warning with options in place of arguments.

    Args:
        message: the message of the library.
        options: the options of the command.

    Example:
        >>> from secateurs.errors import InvalidArgumentError
        >>> error = InvalidArgumentError("write ", Argument("exclude", ["*.up", "head"]))
        >>> str(error), in_options(error)
        ("write exclude=['*.up', 'head']", "write --exclude '*.up' head")
    """
    return message.worded(lambda argument: as_option(argument, options))


def as_option(argument: Argument, options: Collection[str] = ()) -> str:
    """An argument as it is written in a shell."""
    option, other = f"--{argument.name.replace('_', '-')}", _CALLED.get(argument.name)
    if other is not None and other in options and option not in options:
        option = other
    value = argument.value
    if value is None or value is True:
        return option
    words = [str(word) for word in (value if isinstance(value, list | tuple) else [value])]
    if any(word.startswith("-") for word in words):  # without "=" they would be options
        return " ".join(f"{option}={shlex.quote(word)}" for word in words)
    return " ".join((option, *map(shlex.quote, words)))


@contextmanager
def warnings_as_lines(worded: Callable[[Message], str]) -> Generator[None]:
    """Print each warning as one line, and a warning about coverage only once.

    Args:
        worded: turns a message of the library into text for the command line.
    """
    said: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],  # noqa: ARG001
        filename: str,  # noqa: ARG001
        lineno: int,  # noqa: ARG001
        file: TextIO | None = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        text = worded(message) if isinstance(message, Message) else str(message)
        if not isinstance(message, CoverageWarning):
            say(f"secateurs: warning: {' '.join(text.split())}", always=True)
        elif message.said not in said and is_first():
            said.add(message.said)
            say(f"secateurs: {text}", always=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", CoverageWarning)
        warnings.showwarning = show
        yield
