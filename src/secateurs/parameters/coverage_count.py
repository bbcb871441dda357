"""Counts which of a model's weights compete for pruning, and lists the largest that do not.

The weights of a model are here the elements of all its floating-point parameters, biases and
normalisation included, each Parameter once. Of quantised layers, those of torch are counted, and
matrices of small integers.
"""

from collections.abc import Collection, Mapping, Sequence

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
    elements_of,
    float_elements,
    integer_weights,
    unseen_modules,
)

_ADVISED = ("conv", "linear", "attention", "experts", "recurrent")


def count_coverage(contents: ModelContents, targets: Sequence[Target]) -> tuple[int, int]:
    """How many elements compete, and how many the model has; faster than `coverage_of`."""
    total, special = float_elements(contents)
    if special:
        total += sum(count for *_, count in integer_weights(contents))
    return sum(elements_of(t.parameter) for t in targets), total


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
    competing, total = count_coverage(contents, targets)
    chosen = {target.name for target in targets}
    everything = contents.targets
    known = _left_on_purpose(contents, chosen, choice)
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
        for name, _, kind, count in integer_weights(contents)
        if name not in known
    ]
    left.sort(key=lambda one: -one.elements)
    return Coverage(competing, total, tuple(left), _unseen(contents, choice), sum(known.values()))


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
    total, special = float_elements(contents)
    if not special and 2 * sum(t.parameter.numel() for t in targets) >= total:
        return
    found = coverage_of(contents, targets, choice, barrier=barrier)
    warn_if_low(found, choice.layers, choice.include)


def _grouped(
    rest: Sequence[Target], chosen: Collection[str], barriers: Mapping[str, str]
) -> list[tuple[str, list[Target]]]:
    """Name all of ``rest`` by few globs.

    No glob is for weights of layers and other parameters at once, since ``include`` would pick the
    weights alone; nor for parameters with different barriers.
    """
    by_name = {target.name: target for target in rest}
    weights = weights_of(by_name, EVERY_KIND)
    groups: dict[tuple[bool, str], list[str]] = {}
    for name in sorted(by_name, key=lambda name: name not in weights):
        groups.setdefault((name in weights, barriers[name]), []).append(name)
    found: list[tuple[str, list[Target]]] = []
    for (are_weights, barrier), names in groups.items():
        avoided = [
            name
            for name in by_name
            if barriers[name] != barrier or (name in weights and not are_weights)
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
    """Whether the parameter competes only if ``include`` names it; and what it is."""
    kind = type(target.module).__name__
    if not gates.isdisjoint(target.names):
        return True, f"{kind}, a router of experts"
    if is_tied_embedding(target):
        layers = [name.rpartition(".")[0] for name in target.names[1:]]
        return True, f"{kind} tied to {listed(layers)}"
    return False, kind


def _why_barred(target: Target) -> str:
    reason = why_not(target)
    return reason[0] if reason else ""


def _unseen(contents: ModelContents, choice: LayerChoice) -> tuple[str, ...]:
    """What the modules are whose weights cannot be counted."""
    kinds = {
        kind: None
        for name, module, kind in unseen_modules(contents)
        if not any(touches(name, module, p) for p in choice.excluded)
    }
    return tuple(kinds)


def _left_on_purpose(
    contents: ModelContents, chosen: Collection[str], choice: LayerChoice
) -> dict[str, int]:
    """Names and elements of what does not compete because the caller said so.

    ``exclude`` drops it, or ``include`` does not mention it. Scales of quantised weights count as
    well: they are no weights.
    """
    wanted, dropped = choice.included, choice.excluded
    scales = scales_in(contents.targets)
    known: dict[str, int] = {}
    for name, target in contents.targets.items():
        if name in chosen or not target.parameter.is_floating_point():
            continue
        picked = wanted is None or any(is_picked(target, p) for p in wanted)
        if not picked or name in scales or any(is_picked(target, p) for p in dropped):
            known[name] = elements_of(target.parameter)
    for name, module, _, count in integer_weights(contents):
        picked = wanted is None or any(touches(name, module, p) for p in wanted)
        if not picked or any(touches(name, module, p) for p in dropped):
            known[name] = count
    return known
