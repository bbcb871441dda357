"""What messages are made of."""

import pickle
import warnings

import pytest

from secateurs.errors import (
    Advice,
    Argument,
    CoverageWarning,
    FailureError,
    InvalidArgumentError,
    SecateursError,
)


def option(argument: Argument) -> str:
    return f"--{argument.name}:{argument.value}"


INNER = FailureError("not ", Argument("seed", 3), Advice(" (see help)", " (see --help)"))


@pytest.mark.parametrize(
    ("parts", "python", "command"),
    [
        (("as it was",), "as it was", "as it was"),
        ((Argument("p_prune"), " is odd"), "p_prune is odd", "--p_prune:None is odd"),
        (("write ", Argument("exclude", "a")), "write exclude='a'", "write --exclude:a"),
        ((Argument("layers", ["conv", int]),), "layers=['conv', int]", None),
        ((Argument("p_prune", 0.5),), "p_prune=0.5", "--p_prune:0.5"),
        (
            ("in a: ", INNER, "."),
            "in a: not seed=3 (see help).",
            "in a: not --seed:3 (see --help).",
        ),
        ((), "", ""),
    ],
)
def test_both_wordings(parts: tuple[object, ...], python: str, command: str | None) -> None:
    error = InvalidArgumentError(*parts)
    assert str(error) == python
    assert command is None or error.worded(option) == command


@pytest.mark.parametrize(
    "message", [INNER, CoverageWarning("low", ["conv", "linear"], ["*"]), CoverageWarning("low")]
)
def test_messages_survive_pickling(message: SecateursError) -> None:
    again = pickle.loads(pickle.dumps(message))
    assert type(again) is type(message) and str(again) == str(message)
    assert again.worded(option) == message.worded(option)


def test_a_warning_is_shown_as_python_says_it() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn(CoverageWarning("low", ["conv", int], ["*"]), stacklevel=1)
    said = "low; to prune them too write layers=['conv', int], include=['*']"
    assert str(caught[0].message) == said
