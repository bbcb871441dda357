"""Argument checks for all modules; each error says what was wrong and what to write instead."""

import difflib
import inspect
import math
import numbers
import operator
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex, cast

from secateurs._io.text import quoted
from secateurs.errors import Advice, Argument, InvalidArgumentError

if TYPE_CHECKING:
    import torch

_RENAMED = {"mode": "prune_type", "floor": "keep_at_least"}
"""The present names of arguments of earlier versions."""

_ELSEWHERE = {
    "amount": "p_prune",
    "ratio": "p_prune",
    "sparsity": "p_prune",
    "pruning_ratio": "p_prune",
    "local": "layer",
    "l1": "magnitude",
    "channel": "filter",
    "neuron": "filter",
    "connection": "kernel",
}
"""Words of other libraries and papers for arguments and choices, too unlike ours in spelling."""


def check_ratio(name: str, value: float) -> float:
    """Return ``value`` as a float if it is a number from 0 to 1.

    Args:
        name: of the argument, or what the number is in words, as in "the ratio of 'fc'".
        value: what is checked.

    Raises:
        InvalidArgumentError: ``value`` is not a number, or lies outside [0, 1].
    """
    what = Argument(name) if name.isidentifier() else name
    number = as_real(value)
    if number is None:
        half = Argument(name, 0.5) if name.isidentifier() else "0.5"
        raise InvalidArgumentError(
            what, f" must be a number from 0 to 1, got {quoted(value)}; for a half write ", half
        )
    if not 0 <= number <= 1:
        hint = f"; for {number:g} per cent write {number / 100:g}" if 1 < number <= 100 else ""
        raise InvalidArgumentError(
            what, f" must be from 0 to 1 inclusive, got {quoted(value)}{hint}"
        )
    return number


def as_real(value: object) -> float | None:
    """Convert a real number of Python or numpy to a float; None for all else.

    True and False are no numbers. An integer that no float can hold becomes infinity.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if cast("float", value) > 0 else -math.inf


def as_integer(value: object) -> int | None:
    """Convert an integer of Python or numpy, or a tensor of one, to an int; None for all else.

    Everything that ``operator.index`` accepts is an integer, except True and False.
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "torch.bool":
        return None
    try:
        return operator.index(cast("SupportsIndex", value))
    except (TypeError, ValueError, RuntimeError):  # the last two for tensors of several values
        return None


def check_count(name: str, value: object, least: int = 1) -> int:
    """Return ``value`` as an int if it is a whole number of at least ``least``.

    Raises:
        InvalidArgumentError: it is not.
    """
    count = as_integer(value)
    if count is None or count < least:
        raise InvalidArgumentError(
            Argument(name), f" must be a whole number from {least}, got {quoted(value)}"
        )
    return count


def check_positive(name: str, value: object, example: float) -> float:
    """Return ``value`` as a float if it is a finite number above 0.

    Raises:
        InvalidArgumentError: it is not; the message writes ``example``.
    """
    number = as_real(value)
    if number is None or not 0 < number < math.inf:
        raise InvalidArgumentError(
            Argument(name), f" must be a number above 0, got {quoted(value)}; write ",
            Argument(name, example),
        )  # fmt: skip
    return number


def check_not_negative(name: str, value: object) -> float:
    """Return ``value`` as a float if it is a finite number of at least 0.

    Raises:
        InvalidArgumentError: it is not.
    """
    number = as_real(value)
    if number is None or not 0 <= number < math.inf:
        raise InvalidArgumentError(
            Argument(name), f" must be a number from 0 on, got {quoted(value)}"
        )
    return number


def check_seed(name: str, value: object) -> int:
    """Return ``value`` as an int if it is an integer.

    Raises:
        InvalidArgumentError: it is not.
    """
    seed = as_integer(value)
    if seed is None:
        raise InvalidArgumentError(Argument(name), f" must be an integer, got {quoted(value)}")
    return seed


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        InvalidArgumentError: it is not; the message lists the choices and the nearest one.
    """
    if isinstance(value, str) and value in choices:
        return value
    hint = nearest(value, choices) if isinstance(value, str) else ""
    raise InvalidArgumentError(
        Argument(name), f" must be one of {', '.join(choices)}; got {quoted(value)}{hint}"
    )


def check_keywords(
    function: Callable[..., object], given: Iterable[str], taken: Collection[str]
) -> None:
    """Refuse unknown keyword arguments of a function that takes ``**keywords``.

    Args:
        function: the function.
        given: the names of the keywords that it was given.
        taken: the names that it knows.

    Raises:
        InvalidArgumentError: a name is unknown; the message lists the function's arguments.
    """
    for name in given:
        if name not in taken:
            known = list(inspect.signature(function).parameters)
            hint = nearest(name, known)
            if name in _RENAMED:
                absent = "" if _RENAMED[name] in known else f", which {function.__name__} lacks"
                hint = f"; {name} was renamed {_RENAMED[name]}{absent}"
            raise InvalidArgumentError(
                f"{function.__name__} has no argument {name}; it takes {', '.join(known)}{hint}"
            )


def nearest(word: str, choices: Iterable[str], *, at_least: float = 0.5) -> str:
    """Return ``"; did you mean ...?"`` for the closest of ``choices``, or an empty string.

    Args:
        word: what was written.
        choices: what could have been meant.
        at_least: how alike they must be, from 0 to 1.
    """
    every = list(choices)
    meant = _ELSEWHERE.get(word.lower())
    if meant in every:
        return f"; did you mean {meant}?"
    close = difflib.get_close_matches(word, every, n=3, cutoff=at_least)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def make_generator(
    generator: "torch.Generator | None", seed: int | None, *, needed_for: Argument | None = None
) -> "torch.Generator | None":
    """Make one generator of the arguments ``generator`` and ``seed``.

    Args:
        generator: returned as it is.
        seed: seeds a new CPU generator, so that the numbers are the same on every device.
        needed_for: what draws random numbers, for the error; None if nothing does.

    Raises:
        InvalidArgumentError: both were given, or neither although ``needed_for`` is set.
    """
    import torch  # imported late, since the other checks work without it

    if generator is not None and seed is not None:
        raise InvalidArgumentError("give generator or seed, not both")
    if generator is not None:
        if not isinstance(generator, torch.Generator):
            raise InvalidArgumentError(
                f"generator must be a torch.Generator, got {type(generator).__name__}; "
                "for an integer write seed=..."
            )
        return generator
    if seed is not None:
        number = check_seed("seed", seed)
        if not -(2**63) <= number < 2**64:
            raise InvalidArgumentError(
                Argument("seed"), f" must fit into 64 bits, got {quoted(number)}"
            )
        return torch.Generator().manual_seed(number)
    if needed_for is not None:
        raise InvalidArgumentError(
            needed_for,
            " draws random numbers: ",
            Advice("hand in ", "write "),
            Argument("seed", 0),
            Advice(" or generator=torch.Generator()"),
        )
    return None


def check_seeded(seed: int | None, needed_for: Argument | None) -> None:
    """Check that there is a seed for what draws random numbers, where no generator is taken.

    Raises:
        InvalidArgumentError: there is none, or it does not fit into 64 bits.
    """
    if seed is None and needed_for is not None:
        raise InvalidArgumentError(
            needed_for, " draws random numbers: ", Advice("hand in ", "write "), Argument("seed", 0)
        )
    make_generator(None, seed)


def check_path(name: str, given: str | os.PathLike[str]) -> Path:
    """Make a `Path` of a path argument, with ``~`` replaced by the user's home.

    Raises:
        InvalidArgumentError: it is no path; it is empty, which would mean the current folder; or it
            begins with the home of a user whom the system does not know.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text:
        raise InvalidArgumentError(f"{name} must be a path as text, got {quoted(given)}")
    if not text:
        raise InvalidArgumentError(f"{name} is an empty path: write '.' for the folder you are in")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"{name} is {quoted(text)}, and there is no home folder of that user: for a file of "
            f"that name in the folder you are in write {quoted(f'./{text}')}"
        ) from error
