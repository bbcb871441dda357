"""How much of a model competes for pruning, in numbers and in words."""

import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from secateurs._io.text import listed
from secateurs.errors import CoverageWarning
from secateurs.parameters.layer_choice import Layers, Patterns, pattern_list
from secateurs.parameters.patterns import globs
from secateurs.parameters.target import Target

Barrier = Callable[[Target], str]
"""Says why a parameter that `select` accepts cannot be pruned in another way, such as in a
surrogate. The text is read after the name: "cannot be pruned in a surrogate"; empty if it can."""

QUANTISED = "cannot be pruned once quantised: prune before"
_SHOWN = 3
_WORTH_NAMING, _WORTH_ADVICE = 0.01, 0.05


@dataclass(frozen=True)
class Left:
    """Parameters that do not compete, and whose names differ only in numbers.

    Attributes:
        glob: the pattern by which ``include`` picks them.
        elements: how many elements they have in all.
        kind: what their layers are, or an empty string.
        layer: the value of ``layers`` that picks them; an empty string if none does.
        barrier: why they cannot be pruned, see `Barrier`; else an empty string.
    """

    glob: str
    elements: int
    kind: str = ""
    layer: str = ""
    barrier: str = ""


@dataclass(frozen=True)
class Coverage:
    """How much of a model competes.

    Attributes:
        competing: how many elements compete.
        total: how many there are.
        left: what does not compete, the largest first.
        unseen: what the modules are whose weights cannot be counted.
        known: how many elements the caller left out, or belong to scales of quantised weights;
            these are not in ``left``.
    """

    competing: int
    total: int
    left: tuple[Left, ...] = ()
    unseen: tuple[str, ...] = ()
    known: int = 0

    @property
    def share(self) -> float:
        """``competing / total``; 1.0 if there are none."""
        return self.competing / self.total if self.total else 1.0

    @property
    def is_low(self) -> bool:
        """Whether less than one half competes of what was not left out on purpose."""
        return 2 * self.competing < self.total - self.known

    def largest(self) -> str:
        """The largest entries of ``left``, with their shares of the model."""
        every = [left for left in self.left if left.elements]
        shown = [one for one in every[:_SHOWN] if one.elements >= _WORTH_NAMING * self.total]
        shown = shown or every[:1]
        more = len(every) - len(shown)
        said = (
            f"{one.glob} ({percent(one.elements / self.total)}{', ' * bool(one.kind)}{one.kind})"
            for one in shown
        )
        return ", ".join(said) + (f" and {more:,} smaller" if more > 0 else "")

    def barred(self) -> list[str]:
        """Sentences on the largest entries of ``left`` that cannot be pruned at all."""
        names: dict[str, list[str]] = {}
        for left in self.left[:_SHOWN]:
            if left.barrier and left.elements >= _WORTH_ADVICE * self.total:
                names.setdefault(left.barrier, []).append(left.glob)
        singular = ("is ", "has ")
        return [
            f"{'each of ' * (len(s) > 1 and why.startswith(singular))}{listed(s)} {why}"
            for why, s in names.items()
        ]

    def remedies(self, *, by_layer: bool) -> tuple[list[str], list[str]]:
        """Values of ``layers`` and globs for ``include`` that pick the largest entries of ``left``.

        Args:
            by_layer: whether to give values of ``layers``; else there are globs alone.
        """
        first = [left for left in self.left[:_SHOWN] if left.elements and not left.barrier]
        large = [left for left in first if left.elements >= _WORTH_ADVICE * self.total]
        wanted = large if large or self.barred() else first
        kinds = list(dict.fromkeys(left.layer for left in wanted if left.layer and by_layer))
        return kinds, [left.glob for left in wanted if not (left.layer and by_layer)]


def no_barrier(target: Target) -> str:  # noqa: ARG001
    """The `Barrier` of ordinary pruning: none."""
    return ""


def grouped(sizes: Mapping[str, int], chosen: Collection[str], *, barrier: str = "") -> list[Left]:
    """Group the tensors of a file that do not compete.

    Args:
        sizes: how many elements each of them has.
        chosen: the names of those that compete.
        barrier: why they cannot be pruned, if so; see `Left`.
    """
    return [
        Left(glob, sum(sizes[name] for name in names), barrier=barrier)
        for glob, names in globs(list(sizes), chosen).items()
    ]


def warn_if_low(
    found: Coverage, layers: Layers | None = None, include: Patterns | None = None
) -> None:
    """Warn the caller of this package about a coverage; see `warn_of_coverage`."""
    unseen = [f"weights of {listed(found.unseen)} cannot be seen"] if found.unseen else []
    if found.is_low:
        kinds, names = found.remedies(by_layer=layers is not None)
        said = (
            f"only {percent(found.share)} of the model's weights compete for pruning "
            f"({found.competing:,} of {found.total:,}); the largest that do not: {found.largest()}"
        )
        warning = CoverageWarning(
            "; ".join((said, *found.barred(), *unseen)),
            (*pattern_list("layers", () if layers is None else layers), *kinds) if kinds else (),
            (*pattern_list("include", "*" if include is None else include), *names)
            if names
            else (),
        )
    elif unseen and include is None:
        warning = CoverageWarning(f"{unseen[0]}: they are not pruned")
    else:
        return
    warnings.warn(warning, stacklevel=_outside())


def percent(share: float) -> str:
    """A share in percent, with one decimal where it is small."""
    if share < 0.001:
        return "less than 0.1%" if share else "0%"
    return f"{share:.0%}" if 0.1 <= share < 0.99 or share == 1 else f"{share:.1%}"


def _outside() -> int:
    """The ``stacklevel`` by which this function's caller warns the code outside this package."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe(1)
    while frame.f_back is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] != package:
            break
        level, frame = level + 1, frame.f_back
    return level
