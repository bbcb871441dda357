"""What of a model's weights competes for pruning, and what the largest parts are that do not.

A model's weights are here the elements of all its floating-point parameters, biases and
normalisation included, each Parameter once; and what can be counted of quantised layers: the
weights of torch's own, and matrices of small integers as they are stored.
"""

from collections.abc import Collection, Mapping, Sequence

from secateurs.parameters.coverage import (
    QUANTISED,
    Barrier,
    Coverage,
    Left,
    no_barrier,
    warn_if_low,
)
from secateurs.parameters.layer_choice import (
    Layers,
    Patterns,
    gates_of,
    is_picked,
    is_tied_embedding,
    is_weight_of,
    pattern_list,
    scales_in,
    weights_of,
)
from secateurs.parameters.layer_kinds import EVERY_KIND, KINDS
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.patterns import globs, listed, touches
from secateurs.parameters.refusals import why_not
from secateurs.parameters.target import Target
from secateurs.parameters.weight_counts import (
    elements_of,
    float_elements,
    integer_weights,
    unseen_parts,
)

_ADVISED = ("conv", "linear", "attention", "experts", "recurrent")


def count_coverage(contents: ModelContents, targets: Sequence[Target]) -> tuple[int, int]:
    """How many elements compete, and how many the model has; without names, so at no great cost."""
    total, special = float_elements(contents)
    if special:
        total += sum(count for *_, count in integer_weights(contents))
    return sum(elements_of(t.parameter) for t in targets), total


def coverage_of(
    contents: ModelContents,
    targets: Sequence[Target],
    *,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    barrier: Barrier = no_barrier,
) -> Coverage:
    """Say what competes and what does not.

    Args:
        contents: of the network.
        targets: what competes; see `secateurs.find_targets`.
        include: what the caller gave; what it does not mention was left out on purpose.
        exclude: what the caller gave; what it drops was left out on purpose.
        barrier: what cannot be pruned in the way that the caller is about.
    """
    competing, total = count_coverage(contents, targets)
    chosen = {target.name for target in targets}
    everything = contents.targets
    known = _left_on_purpose(contents, chosen, include, exclude)
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
    return Coverage(competing, total, tuple(left), _unseen(contents, exclude), sum(known.values()))


def warn_of_coverage(
    contents: ModelContents,
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
        contents: of the network.
        targets: what competes.
        layers: what the caller gave, as for the others.
        include: see ``layers``.
        exclude: see ``layers``.
        barrier: what cannot be pruned in the way that the caller is about.
    """
    total, special = float_elements(contents)
    if not special and 2 * sum(t.parameter.numel() for t in targets) >= total:
        return
    found = coverage_of(contents, targets, include=include, exclude=exclude, barrier=barrier)
    warn_if_low(found, layers, include)


def _grouped(
    rest: Sequence[Target], chosen: Collection[str], barriers: Mapping[str, str]
) -> list[tuple[str, list[Target]]]:
    """Few globs for all of ``rest``; none is for weights of layers and others, or two barriers.

    Where it matches weights and others, ``include`` takes the weights alone.
    """
    by_name = {target.name: target for target in rest}
    weights = weights_of(by_name, EVERY_KIND)
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
    reason = why_not(target)
    return reason[0] if reason else ""


def _unseen(contents: ModelContents, exclude: Patterns | None) -> tuple[str, ...]:
    dropped = pattern_list("exclude", () if exclude is None else exclude)
    parts = unseen_parts(contents)
    kinds = [kind for name, part, kind in parts if not any(touches(name, part, p) for p in dropped)]
    return tuple(dict.fromkeys(kinds))


def _left_on_purpose(
    contents: ModelContents,
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
