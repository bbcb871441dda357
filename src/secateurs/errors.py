"""The two errors this package raises on purpose, and its warning.

The command line turns them into one line on stderr; nothing else is caught quietly.
"""

from collections.abc import Sequence


class SecateursError(Exception):
    """Base class: something went wrong that a person can mend."""


class InvalidArgumentError(SecateursError, ValueError):
    """What was asked for cannot be right as it was written (exit code 2)."""


class FailureError(SecateursError, RuntimeError):
    """What was asked for makes sense, but could not be carried out (exit code 1)."""


class CoverageWarning(UserWarning):
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
        options = {"layers": self.layers, "include": self.include}
        advice = [f"{name}=[{_listed(given)}]" for name, given in options.items() if given]
        remedy = f"; to prune them too write {', '.join(advice)}" if advice else ""
        super().__init__(said + remedy)


def _listed(given: Sequence[object]) -> str:
    return ", ".join(one.__name__ if isinstance(one, type) else repr(one) for one in given)


class LostTrainingWarning(UserWarning):
    """Values that were learned, or loaded, are gone, since the caller went back to older ones."""
