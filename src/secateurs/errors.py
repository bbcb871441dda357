"""The errors and warnings that this package raises on purpose.

A message stores the arguments that it names as `Argument`, so that the command line can show its
own options instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Argument:
    """An argument in a message; as text, it is written as in Python: ``exclude='head'``.

    Attributes:
        name: the argument's name.
        value: the value to show; None shows the name alone.
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}={_written(self.value)}"


@dataclass(frozen=True)
class Advice:
    """Text in a message that differs between Python and the command line.

    Attributes:
        python: the text in Python.
        command: the text on the command line.
    """

    python: str
    command: str = ""

    def __str__(self) -> str:
        return self.python


class Message:
    """The base of all errors and warnings: a message with a wording for the command line.

    Args:
        *parts: texts, `Argument`, `Advice`, and other errors, which stand for their own parts.

    Attributes:
        parts: the parts in order; the message is their text.

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
        """The wording for the command line, in which ``name`` writes the arguments."""
        return "".join(
            name(part)
            if isinstance(part, Argument)
            else part.command
            if isinstance(part, Advice)
            else str(part)
            for part in self.parts
        )


class SecateursError(Message, Exception):
    """Base class: something went wrong that the user can fix."""


class InvalidArgumentError(SecateursError, ValueError):
    """An argument is wrong (exit code 2 of the command line)."""


class FailureError(SecateursError, RuntimeError):
    """The arguments are fine, but the work could not be done (exit code 1)."""


class SecateursWarning(Message, UserWarning):
    """Base class: the result may differ from what the user expects."""


class CoverageWarning(SecateursWarning):
    """Less than one half of a model's weights competes for pruning, or some cannot be counted.

    Attributes:
        said: how much competes, and the largest layers that do not.
        layers: the value of ``layers`` that adds them; empty if none does.
        include: the value of ``include`` that adds them; empty if none does.
    """

    def __init__(
        self, said: str, layers: Sequence[object] = (), include: Sequence[object] = ()
    ) -> None:
        self.said, self.layers, self.include = said, tuple(layers), tuple(include)
        parts: list[object] = [said]
        before = Advice("; to prune them too write ", "; to prune them write ")
        for name, given in (("layers", self.layers), ("include", self.include)):
            if given:
                parts += [before, Argument(name, list(given))]
                before = Advice(", ", " ")
        super().__init__(*parts)

    def __reduce__(self) -> tuple[type["CoverageWarning"], tuple[object, ...]]:
        return type(self), (self.said, self.layers, self.include)


class RepairWarning(SecateursWarning):
    """A repair does less than was asked for, or rests on few images."""


class AccelerationWarning(SecateursWarning):
    """Layers that were made faster run dense, so the model is slower than was measured."""


class LostTrainingWarning(SecateursWarning):
    """Trained or loaded values were replaced by the original ones, and are lost."""


def _written(value: object) -> str:
    """A value as it is written in Python; types by their name."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return value.__name__ if isinstance(value, type) else repr(value)


def require(module: str, needed_for: str, package: str = "", *, extra: str = "") -> None:
    """Import a module of an optional package.

    Args:
        module: the module.
        needed_for: what needs it, for the error.
        package: the package to install, if its name is not that of the module.
        extra: the extra of this package that installs it with all else that is needed, or "".

    Raises:
        FailureError: it is not installed.
    """
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # it is installed, but one of its own imports is missing
        name = package or module.partition(".")[0]
        install = f"'secateurs[{extra}]'" if extra else name
        raise FailureError(f"{needed_for} needs {name}: pip install {install}") from error
