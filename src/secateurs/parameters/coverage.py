"""How much of a model competes for pruning, and what the largest parts are that do not.

A model's weights are here the elements of all its floating-point parameters, biases and
normalisation included, each Parameter once; and what can be counted of quantised layers: the
weights of torch's own, and matrices of small integers as they are stored.
"""

import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from secateurs.errors import CoverageWarning
from secateurs.parameters.layer_choice import (
    Layers,
    Patterns,
    gates_of,
    is_picked,
    is_tied_embedding,
    is_weight_of,
    pattern_list,
    scales_in,
)
from secateurs.parameters.layer_kinds import EVERY_KIND, KINDS
from secateurs.parameters.patterns import globs, listed, touches
from secateurs.parameters.refusals import why_not
from secateurs.parameters.target import Target, all_parameters
from secateurs.parameters.weight_counts import (
    elements_of,
    float_elements,
    integer_weights,
    unseen_parts,
)

# What stands against a parameter in the way of pruning that the caller is about, though `select`
# would take it: what completes "NAME ...", such as "cannot be pruned in a surrogate", or nothing.
Barrier = Callable[[Target], str]

QUANTISED = "cannot be pruned once quantised: prune before"
_SHOWN = 3
_ADVISED = ("conv", "linear", "attention", "experts", "recurrent")
_WORTH_NAMING, _WORTH_ADVICE = 0.01, 0.05


@dataclass(frozen=True)
class Left:
    """Parameters whose names differ in numbers alone, and which do not compete.

    Attributes:
        glob: a pattern for ``include`` that brings them in.
        elements: how many they have in all.
        kind: what their layers are, or an empty string.
        layer: what brings them in as ``layers``; an empty string if only their names do.
        barrier: why they cannot be pruned, to be read after their name; else an empty string.
    """

    glob: str
    elements: int
    kind: str = ""
    layer: str = ""
    barrier: str = ""


@dataclass(frozen=True)
class Coverage:
    """What of a model's weights competes.

    Attributes:
        competing: how many elements compete.
        total: how many there are.
        left: what does not compete, the largest first.
        unseen: types of parts whose weights cannot be counted.
        known: how many elements do not compete since the caller said so, or since they are scales
            of quantised weights; not in ``left``.
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
        """The largest parts that do not compete, with their shares of the model."""
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
        """What to say of the largest parts that cannot be pruned whatever one writes."""
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
        """What brings the largest parts in: kinds for ``layers``, globs for ``include``.

        Args:
            by_layer: whether kinds are of use; else all are named by globs.
        """
        first = [left for left in self.left[:_SHOWN] if left.elements and not left.barrier]
        large = [left for left in first if left.elements >= _WORTH_ADVICE * self.total]
        wanted = large if large or self.barred() else first
        kinds = list(dict.fromkeys(left.layer for left in wanted if left.layer and by_layer))
        return kinds, [left.glob for left in wanted if not (left.layer and by_layer)]


def no_barrier(target: Target) -> str:  # noqa: ARG001
    """For those who prune in the usual way, see `Barrier`."""
    return ""


def count_coverage(model: nn.Module, targets: Sequence[Target]) -> tuple[int, int]:
    """How many elements compete, and how many the model has; without names, so at no great cost."""
    total, special = float_elements(model)
    if special:
        total += sum(count for *_, count in integer_weights(model))
    return sum(elements_of(t.parameter) for t in targets), total


def coverage_of(
    model: nn.Module,
    targets: Sequence[Target],
    *,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    barrier: Barrier = no_barrier,
) -> Coverage:
    """Say what competes and what does not.

    Args:
        model: the network.
        targets: what competes; see `secateurs.find_targets`.
        include: what the caller gave; what it does not mention was left out on purpose.
        exclude: what the caller gave; what it drops was left out on purpose.
        barrier: what cannot be pruned in the way that the caller is about.
    """
    competing, total = count_coverage(model, targets)
    chosen = {target.name for target in targets}
    everything = all_parameters(model)
    known = _left_on_purpose(model, everything, chosen, include, exclude)
    rest = [
        target
        for name, target in everything.items()
        if name not in chosen and name not in known and target.parameter.is_floating_point()
    ]
    gates = gates_of(everything.values())
    barriers = {target.name: _why_barred(target) or barrier(target) for target in rest}
    left = [
        _left(glob, members, gates, barriers[members[0].name])
        for glob, members in _grouped(rest, chosen, barriers)
    ]
    left += [
        Left(name, count, kind, barrier=QUANTISED)
        for name, _, kind, count in integer_weights(model)
        if name not in known
    ]
    left.sort(key=lambda one: -one.elements)
    return Coverage(competing, total, tuple(left), _unseen(model, exclude), sum(known.values()))


def grouped(sizes: Mapping[str, int], chosen: Collection[str], *, barrier: str = "") -> list[Left]:
    """Tensors of a file that do not compete.

    Args:
        sizes: how many elements each of them has.
        chosen: the names of those that compete.
        barrier: why they cannot be pruned, if so; see `Left`.
    """
    return [
        Left(glob, sum(sizes[name] for name in names), barrier=barrier)
        for glob, names in globs(list(sizes), chosen).items()
    ]


def warn_of_coverage(
    model: nn.Module,
    targets: Sequence[Target],
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    barrier: Barrier = no_barrier,
) -> None:
    """Warn the caller of this package if less than one half of the weights competes.

    Also if there are parts whose weights cannot be counted. What ``exclude`` drops, or ``include``
    does not mention, was left out on purpose and does not count.

    Args:
        model: the network.
        targets: what competes.
        layers: what the caller gave, as for the others.
        include: see ``layers``.
        exclude: see ``layers``.
        barrier: what cannot be pruned in the way that the caller is about.
    """
    total, special = float_elements(model)
    if not special and 2 * sum(t.parameter.numel() for t in targets) >= total:
        return
    found = coverage_of(model, targets, include=include, exclude=exclude, barrier=barrier)
    warn_if_low(found, layers, include)


def warn_if_low(
    found: Coverage, layers: Layers | None = None, include: Patterns | None = None
) -> None:
    """Warn the caller of this package about a coverage; see `warn_of_coverage`."""
    if found.is_low:
        warning = _warning(found, layers, include)
    elif found.unseen and include is None:
        warning = CoverageWarning(f"{_unseen_words(found)}: they are not pruned")
    else:
        return
    warnings.warn(warning, stacklevel=_outside())


def percent(share: float) -> str:
    """A share in percent, with a digit behind the point where it is small."""
    if share < 0.001:
        return "less than 0.1%" if share else "0%"
    return f"{share:.0%}" if 0.1 <= share < 0.99 or share == 1 else f"{share:.1%}"


def _warning(found: Coverage, layers: Layers | None, include: Patterns | None) -> CoverageWarning:
    kinds, names = found.remedies(by_layer=layers is not None)
    parts = [
        f"only {percent(found.share)} of the model's weights compete for pruning "
        f"({found.competing:,} of {found.total:,}); the largest that do not: {found.largest()}"
    ]
    parts += found.barred()
    if found.unseen:
        parts.append(_unseen_words(found))
    return CoverageWarning(
        "; ".join(parts),
        (*pattern_list("layers", () if layers is None else layers), *kinds) if kinds else (),
        (*pattern_list("include", "*" if include is None else include), *names) if names else (),
    )


def _unseen_words(found: Coverage) -> str:
    return f"weights of {listed(found.unseen)} cannot be seen"


def _grouped(
    rest: Sequence[Target], chosen: Collection[str], barriers: Mapping[str, str]
) -> list[tuple[str, list[Target]]]:
    """Few globs for all of ``rest``; none is for weights of layers and others, or two barriers.

    Where it matches weights and others, ``include`` takes the weights alone.
    """
    by_name = {target.name: target for target in rest}
    weights = {target.name for target in rest if is_weight_of(target, EVERY_KIND)}
    groups: dict[tuple[bool, str], list[str]] = {}
    for name in sorted(by_name, key=lambda name: name not in weights):
        groups.setdefault((name in weights, barriers[name]), []).append(name)
    found: list[tuple[str, list[Target]]] = []
    for (weighs, barrier), names in groups.items():
        avoided = [
            name
            for name in by_name
            if barriers[name] != barrier or (name in weights and not weighs)
        ]
        for glob, members in globs(names, [*chosen, *avoided]).items():
            found.append((glob, [by_name[name] for name in members]))
    return found


def _left(glob: str, targets: Sequence[Target], gates: set[str], barrier: str) -> Left:
    first = targets[0]
    by_name, kind = _only_by_name(first, gates)
    layer = next((kind for kind in _ADVISED if is_weight_of(first, KINDS[kind])), "")
    return Left(
        glob,
        sum(elements_of(target.parameter) for target in targets),
        kind,
        "" if by_name else layer,
        barrier,
    )


def _only_by_name(target: Target, gates: set[str]) -> tuple[bool, str]:
    """Whether it is left out of its kind on purpose, and what it is."""
    kind = type(target.module).__name__
    if not gates.isdisjoint(target.names):
        return True, f"{kind}, a router of experts"
    if is_tied_embedding(target):
        layers = [name.rpartition(".")[0] for name in target.names[1:]]
        return True, f"{kind} tied to {listed(layers)}"
    return False, kind


def _why_barred(target: Target) -> str:
    reason = why_not(target.module, target.parameter)
    return reason[0] if reason else ""


def _unseen(model: nn.Module, exclude: Patterns | None) -> tuple[str, ...]:
    dropped = pattern_list("exclude", () if exclude is None else exclude)
    parts = unseen_parts(model)
    kinds = [kind for name, part, kind in parts if not any(touches(name, part, p) for p in dropped)]
    return tuple(dict.fromkeys(kinds))


def _left_on_purpose(
    model: nn.Module,
    everything: dict[str, Target],
    chosen: Collection[str],
    include: Patterns | None,
    exclude: Patterns | None,
) -> dict[str, int]:
    """What does not compete since the caller said so, and how many elements it has.

    That is what ``exclude`` drops, and what ``include`` does not mention; and the scales of
    quantised weights, which are none.
    """
    wanted = None if include is None else pattern_list("include", include)
    dropped = pattern_list("exclude", () if exclude is None else exclude)
    scales = scales_in(everything)
    known: dict[str, int] = {}
    for name, target in everything.items():
        if name in chosen or not target.parameter.is_floating_point():
            continue
        picked = wanted is None or any(is_picked(target, p) for p in wanted)
        if not picked or name in scales or any(is_picked(target, p) for p in dropped):
            known[name] = elements_of(target.parameter)
    for name, module, _, count in integer_weights(model):
        picked = wanted is None or any(touches(name, module, p) for p in wanted)
        if not picked or any(touches(name, module, p) for p in dropped):
            known[name] = count
    return known


def _outside() -> int:
    """The stacklevel, for the caller of this function, of the first frame outside this package."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe(1)
    while frame.f_back is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] != package:
            break
        level, frame = level + 1, frame.f_back
    return level
