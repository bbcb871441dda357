"""Counts which of a model's weights compete for pruning, and lists the largest that do not.

The weights of a model are here the elements of all its floating-point parameters, biases and
normalisation included, each Parameter once. Of quantised layers, those of torch are counted, and
matrices of small integers.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any

from secateurs._io.text import listed
from secateurs.parameters.coverage import (
    QUANTISED,
    Barrier,
    Coverage,
    Left,
    no_barrier,
    warn_if_low,
)
from secateurs.parameters.layer_choice import (
    LayerChoice,
    gates_of,
    is_picked,
    is_tied_embedding,
    is_weight_of,
    scales_in,
    weights_of,
)
from secateurs.parameters.layer_kinds import EVERY_KIND, KINDS
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.patterns import globs, touches
from secateurs.parameters.refusals import why_not
from secateurs.parameters.target import Target
from secateurs.parameters.weight_counts import (
    elements_in,
    elements_of,
    integer_weights,
    unseen_modules,
)

_ADVISED = ("conv", "linear", "attention", "experts", "recurrent")


def coverage_of(
    contents: ModelContents,
    targets: Sequence[Target],
    choice: LayerChoice,
    *,
    barrier: Barrier = no_barrier,
) -> Coverage:
    """Count what competes, and group what does not.

    Args:
        contents: of the network.
        targets: what competes; see `secateurs.find_targets`.
        choice: what the caller asked for. What ``include`` does not mention, or ``exclude`` drops,
            was left out on purpose.
        barrier: why a parameter cannot be pruned in the caller's way; see `Barrier`.
    """
    chosen = {target.name for target in targets}
    everything = contents.targets
    known = _left_on_purpose(contents, chosen, choice)
    rest = [
        target
        for name, target in everything.items()
        if name not in chosen and name not in known and target.parameter.is_floating_point()
    ]
    left = list(_others(rest, chosen, barrier, gates_of(everything.values())))
    left += [
        Left(name, count, kind, barrier=QUANTISED)
        for name, _, kind, count in integer_weights(contents)
        if name not in known
    ]
    left.sort(key=lambda one: -one.elements)
    unseen = {
        kind: None
        for name, module, kind in unseen_modules(contents)
        if not any(touches(name, module, p) for p in choice.excluded)
    }
    competing = sum(elements_of(target.parameter) for target in targets)
    total = elements_in(contents)
    return Coverage(competing, total, tuple(left), tuple(unseen), sum(known.values()))


def warn_of_coverage(
    contents: ModelContents,
    targets: Sequence[Target],
    choice: LayerChoice,
    *,
    barrier: Barrier = no_barrier,
) -> None:
    """Warn if less than one half of the weights competes, or if some cannot be counted.

    The arguments are those of `coverage_of`. What was left out on purpose does not matter.
    """
    competing = sum(elements_of(target.parameter) for target in targets)
    if 2 * competing >= elements_in(contents) and not any(unseen_modules(contents)):
        return  # the usual case, decided quickly
    found = coverage_of(contents, targets, choice, barrier=barrier)
    warn_if_low(found, choice.layers, choice.include)


def _others(
    rest: Sequence[Target], chosen: Collection[str], barrier: Barrier, gates: set[str]
) -> Iterator[Left]:
    """Name all of ``rest`` by few globs.

    No glob is for weights of layers and other parameters at once, since ``include`` would pick the
    weights alone; nor for parameters with different barriers.
    """
    by_name = {target.name: target for target in rest}
    weights = weights_of(by_name, EVERY_KIND)
    kinds = {
        name: (name not in weights, (why_not(target) or (barrier(target),))[0])
        for name, target in by_name.items()
    }
    for kind in dict.fromkeys(kinds.values()):
        others, why = kind
        avoided = [n for n, one in kinds.items() if one[1] != why or (others and not one[0])]
        names = [name for name in by_name if kinds[name] == kind]
        for glob, members in globs(names, [*chosen, *avoided]).items():
            elements = sum(elements_of(by_name[name].parameter) for name in members)
            yield Left(glob, elements, *_kind_and_layer(by_name[members[0]], gates), why)


def _kind_and_layer(target: Target, gates: set[str]) -> tuple[str, str]:
    """What the layer is, and the value of ``layers`` that picks it; empty if ``include`` alone."""
    kind = type(target.module).__name__
    if not gates.isdisjoint(target.names):
        return f"{kind}, a router of experts", ""
    if is_tied_embedding(target):
        layers = [name.rpartition(".")[0] for name in target.names[1:]]
        return f"{kind} tied to {listed(layers)}", ""
    return kind, next((kind for kind in _ADVISED if is_weight_of(target, KINDS[kind])), "")


def _left_on_purpose(
    contents: ModelContents, chosen: Collection[str], choice: LayerChoice
) -> dict[str, int]:
    """Names and elements of what does not compete because the caller said so.

    ``exclude`` drops it, or ``include`` does not mention it. Scales of quantised weights count as
    well: they are no weights.
    """
    wanted, dropped = choice.included, choice.excluded

    def is_left(picks: Callable[[Any], bool]) -> bool:
        return (wanted is not None and not any(map(picks, wanted))) or any(map(picks, dropped))

    scales = scales_in(contents.targets)
    known = {
        name: elements_of(target.parameter)
        for name, target in contents.targets.items()
        if name not in chosen
        and target.parameter.is_floating_point()
        and (name in scales or is_left(partial(is_picked, target)))
    }
    return known | {
        name: count
        for name, module, _, count in integer_weights(contents)
        if is_left(partial(touches, name, module))
    }
