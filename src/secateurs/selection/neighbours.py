"""Candidates of the scope N:M: the least of every M consecutive inputs of an output."""

from collections.abc import Sequence

import torch

from secateurs._tensors.float_keys import Scores, key_dtype, key_of, key_range
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.parameters.layer_choice import Patterns, pattern_list
from secateurs.parameters.target import Target
from secateurs.selection.key_counts import nan_error
from secateurs.selection.scopes import NOfM
from secateurs.selection.tie_breaking import Marks

# Elements whose keys are compared together: so many stay in the cache of a core; a device is
# waited for after each block.
_BLOCK, _DEVICE_BLOCK = 1 << 16, 1 << 25


def check_neighbours(targets: Sequence[Target], scope: NOfM, exclude: Patterns | None) -> None:
    """Check that the inputs of every weight fall into groups of M, each on one rank.

    Args:
        targets: the weights that compete.
        scope: N and M.
        exclude: the option of the selection, which the error repeats.

    Raises:
        InvalidArgumentError: they do not; the weights are named.
    """
    inputs = {t.name: t.layout.inputs(tuple(t.parameter.shape)) for t in targets}
    refuse_indivisible(inputs, scope, exclude)
    for target in targets:
        layout, cut = target.layout, set(target.placement.cut if target.placement else ())
        if cut and (layout.inputs_first or not cut <= set(range(1 + layout.stacked))):
            raise InvalidArgumentError(
                Argument("scope", f"{scope.kept}:{scope.of}"),
                f" compares inputs of one output, and those of {target.name} are divided over "
                "ranks: shard it by outputs, as fully_shard does, or write ",
                Argument("exclude", target.name),
            )


def refuse_indivisible(inputs: dict[str, int], scope: NOfM, exclude: Patterns | None) -> None:
    """Refuse weights whose outputs have a number of inputs that is no multiple of M.

    Args:
        inputs: the number of inputs of an output, by the name of the weight.
        scope: N and M.
        exclude: the option of the selection, which the error repeats.

    Raises:
        InvalidArgumentError: there are some; the error excludes them all.
    """
    wrong = [name for name, count in inputs.items() if count % scope.of]
    if not wrong:
        return
    before = [] if exclude is None else pattern_list("exclude", exclude)
    more = f", as {len(wrong) - 1} more have no multiple of it" if len(wrong) > 1 else ""
    raise InvalidArgumentError(
        Argument("scope", f"{scope.kept}:{scope.of}"),
        f" needs inputs in groups of {scope.of}, and each output of {wrong[0]} has "
        f"{inputs[wrong[0]]}{more}: to keep them dense write ",
        Argument("exclude", [*before, *wrong]),
    )


def choose_neighbours(
    scores: Sequence[Scores], targets: Sequence[Target], pruned: int, of: int
) -> list[torch.Tensor]:
    """Mark the units with the smallest scores in each group of consecutive inputs.

    Args:
        scores: one for each element on this rank.
        targets: their weights.
        pruned: how many to mark in each group.
        of: how many inputs form a group.

    Returns:
        For each of ``scores`` a bool tensor of its shape.

    Raises:
        InvalidArgumentError: a score is NaN; the parameter is named.
    """
    masks = Marks.empty([one.values for one in scores]).masks
    for one, target, mask in zip(scores, targets, masks, strict=True):
        layout = target.layout
        marked = torch.empty(mask.numel() // of, of, dtype=torch.bool, device=mask.device)
        rows = layout.rows(one.values).reshape(-1, of)
        step = max((_BLOCK if mask.is_cpu else _DEVICE_BLOCK) // of, 1)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            marked[part] = smallest_of_each(_keys(one, rows[part]), pruned)
        mask.copy_(layout.weight(marked, tuple(mask.shape)))
    return masks


def smallest_of_each(keys: torch.Tensor, count: int) -> torch.Tensor:
    """Flag the ``count`` smallest of each row; of equal ones the earlier."""
    columns = keys.t().contiguous()
    rank = torch.zeros(columns.shape, dtype=torch.int16, device=keys.device)
    for distance in range(1, len(columns)):
        earlier_first = columns[:-distance] <= columns[distance:]
        rank[distance:] += earlier_first
        rank[:-distance] += ~earlier_first
    return (rank < count).t()


def _keys(scores: Scores, values: torch.Tensor) -> torch.Tensor:
    dtype = key_dtype([scores])
    keys = key_of(values, dtype, absolute=scores.absolute)
    low, high = key_range(dtype, signed=not scores.absolute)
    if keys.numel() and bool((keys.amax() > high) | (keys.amin() < low)):
        raise nan_error(scores.name)
    return keys
