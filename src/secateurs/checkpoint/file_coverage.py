"""The fraction of a checkpoint that competes for pruning, and the largest tensors that do not."""

from secateurs.checkpoint.choice import STATISTICS
from secateurs.checkpoint.contents import FLOATS
from secateurs.checkpoint.pruning_plan import PruningPlan
from secateurs.checkpoint.quantized_weights import scales_among
from secateurs.parameters.coverage import QUANTISED, Coverage, grouped
from secateurs.parameters.layer_choice import Patterns, pattern_list
from secateurs.parameters.patterns import name_matches

# The dtypes of quantised weights in files; larger integers are indices.
_INTEGERS = ("I8", "U8", "I32")


def coverage_of_plan(plan: PruningPlan) -> Coverage:
    """Count the weights that compete and those that do not.

    Weights are the elements of all floating-point tensors except running statistics, and of
    matrices of small integers, as quantisers store them. Weights that ``exclude`` matches, or that
    ``include`` does not match, are counted as left out on purpose.
    """
    include, exclude = plan.options.include, plan.options.exclude
    wanted, dropped = _names_in(include), _names_in(exclude)
    scales = scales_among([entry for file in plan.source.files for entry in file.entries])
    floats: dict[str, int] = {}
    integers: dict[str, int] = {}
    known = 0
    for entry in plan.untouched:
        packed = entry.dtype in _INTEGERS and len(entry.shape) > 1
        is_weight = entry.dtype in FLOATS and entry.name.rpartition(".")[2] not in STATISTICS
        if not is_weight and not packed:
            continue
        picked = include is None or _is_named(entry.names, wanted)
        if not picked or entry.name in scales or _is_named(entry.names, dropped):
            known += entry.count
        else:
            (floats if is_weight else integers)[entry.name] = entry.count
    chosen = [name for weight in plan.weights for name in weight.entry.names]
    left = [*grouped(floats, chosen), *grouped(integers, chosen, barrier=QUANTISED)]
    left.sort(key=lambda one: -one.elements)
    competing = sum(weight.entry.count for weight in plan.weights)
    total = competing + known + sum(one.elements for one in left)
    return Coverage(competing, total, tuple(left), known=known)


def _names_in(given: Patterns | None) -> list[str]:
    return [one for one in pattern_list("", given or ()) if isinstance(one, str)]


def _is_named(names: tuple[str, ...], patterns: list[str]) -> bool:
    return any(name_matches(name, pattern) for name in names for pattern in patterns)
