"""The errors and warnings that this package raises on purpose.

A message names arguments as values (`Argument`), so that who calls the library by other means than
Python, as the command line does, can name its own option in their place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Argument:
    """An argument that a message names: as text it is Python's, ``exclude='head'``.

    Attributes:
        name: of the argument.
        value: what to write there; None where the argument is named alone.
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={_written(self.value)}"


@dataclass(frozen=True)
class Advice:
    """Words that help those who call from Python, and those for the command line.

    Attributes:
        python: what stands in the message as text.
        command: what the command line says in its place.
    """

    python: str
    command: str = ""

    def __str__(self) -> str:
        return self.python


class Message:
    """What errors and warnings are made of: text, the arguments it names, and advice.

    Args:
        *parts: texts, `Argument`, `Advice`, and other errors, whose parts join in.

    Attributes:
        parts: all of them in order; the message is their text.

    Example:
        >>> error = InvalidArgumentError("nothing is left to prune: change ", Argument("exclude"))
        >>> str(error), error.worded(lambda part: f"--{part.name}")
        ('nothing is left to prune: change exclude', 'nothing is left to prune: change --exclude')
    """

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)
        self.parts: tuple[object, ...] = tuple(
            inner
            for part in parts
            for inner in (part.parts if isinstance(part, Message) else [part])
        )

    def __str__(self) -> str:
        return "".join(map(str, self.parts))

    def worded(self, name: Callable[[Argument], str]) -> str:
        """The message for the command line: advice for it, and arguments as ``name`` calls them."""
        return "".join(
            name(part)
            if isinstance(part, Argument)
            else part.command
            if isinstance(part, Advice)
            else str(part)
            for part in self.parts
        )


class SecateursError(Message, Exception):
    """Base class: something went wrong that a person can mend."""


class InvalidArgumentError(SecateursError, ValueError):
    """What was asked for cannot be right as it was written (exit code 2)."""


class FailureError(SecateursError, RuntimeError):
    """What was asked for makes sense, but could not be carried out (exit code 1)."""


class SecateursWarning(Message, UserWarning):
    """Base class: something is done otherwise than one may expect."""


class CoverageWarning(SecateursWarning):
    """Less than one half of a model's weights competes for pruning, or some cannot be seen.

    Attributes:
        said: what competes and what the largest parts are that do not.
        layers: values of ``layers`` that bring parts in; none if other layers are of no help.
        include: patterns of ``include`` that bring parts in; none if names are of no help.
    """

    def __init__(
        self, said: str, layers: Sequence[object] = (), include: Sequence[object] = ()
    ) -> None:
        self.said, self.layers, self.include = said, tuple(layers), tuple(include)
        arguments = [
            Argument(name, list(given))
            for name, given in (("layers", self.layers), ("include", self.include))
            if given
        ]
        advice: list[Advice | Argument] = [
            part for argument in arguments for part in (Advice(", ", " "), argument)
        ][1:]
        if advice:
            advice.insert(0, Advice("; to prune them too write ", "; to prune them write "))
        super().__init__(said, *advice)

    def __reduce__(self) -> tuple[type["CoverageWarning"], tuple[object, ...]]:
        return type(self), (self.said, self.layers, self.include)


class RepairWarning(SecateursWarning):
    """A repair does less than was asked for, or rests on few images."""


class LostTrainingWarning(SecateursWarning):
    """Values that were learned, or loaded, are gone, since the caller went back to older ones."""


def _written(value: object) -> str:
    """A value in Python; types by name."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return value.__name__ if isinstance(value, type) else repr(value)


def require(module: str, needed_for: str, package: str = "") -> None:
    """Import a module that the library by itself does without.

    Args:
        module: what is imported.
        needed_for: what asks for it, for the error.
        package: what to install, if it is called otherwise.

    Raises:
        FailureError: it is not installed.
    """
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # it is there, and misses something itself
        name = package or module.partition(".")[0]
        raise FailureError(f"{needed_for} needs {name}: pip install {name}") from error
