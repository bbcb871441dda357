"""Original values back into the weights, bit for bit, where they still belong to them."""

from collections.abc import Callable

import torch
from torch import nn

from secateurs._tensors.memory_order import as_integers
from secateurs.distributed.dtensor import local_of, settle
from secateurs.distributed.process_group import team_of
from secateurs.errors import InvalidArgumentError
from secateurs.originals.module_state import (
    forget_original,
    original_of,
    originals_of,
    parameter_of,
)
from secateurs.originals.original import Original, differs, look, valid_of


def check_releasable(model: nn.Module) -> None:
    """Check that every weight that is pruned now can get its original values back.

    Raises:
        InvalidArgumentError: one of them is computed now, as by ``weight_norm``.
    """
    computed = [name for name, module, a, _ in originals_of(model) if _is_computed(module, a)]
    if computed:
        raise InvalidArgumentError(_what_is_computed(computed))


def release_weights(model: nn.Module, keep: set[int] | None = None) -> None:
    """End the pruning of weights: put original values back, bit for bit.

    What was trained since stays as it is. All ranks of a sharded model must call together.

    Args:
        model: the network.
        keep: ids of the Parameters that are to be pruned again; here it is only seen whether they
            were trained.
    """
    settle(model)
    found = list(originals_of(model))
    if not found:
        return
    standing = [o for _, module, attribute, o in found if _stands(module, attribute, o)]
    keep = keep or set()
    again = [o for o in standing if id(o.parameter) in keep]
    others = [o for o in standing if id(o.parameter) not in keep]
    team = team_of(model) if standing else None
    look(again, team, wait=team is not None)
    trained = dict(zip(map(id, others), look(others, team), strict=True))
    if len(again) == len(found):
        return
    for _, module, attribute, original in found:
        if not trained.get(id(original), True):
            # Copied before they are let go: Ctrl-C in between must not lose the originals.
            copy_bits(original.parameter, original.values)
        if id(original) in trained or not _stands(module, attribute, original):
            forget_original(module, attribute)


def look_closely(model: nn.Module) -> None:
    """See of all pruned weights whether they were trained, also by writes that torch did not count.

    All ranks of a sharded model must call together.
    """
    settle(model)
    found = [o for _, module, attribute, o in originals_of(model) if _stands(module, attribute, o)]
    look(found, team_of(model) if found else None, closely=True)


def restore_weights(
    model: nn.Module, before: Callable[[list[str]], None] | None = None
) -> list[str]:
    """Put the original values back, bit for bit, whatever became of the weights since.

    Weights that are computed now are left out; `check_releasable` names them.

    Args:
        model: the network.
        before: called with the names that are returned before anything changes; what it raises
            leaves the model as it is.

    Returns:
        The names of the weights that were trained since, which is lost.
    """
    settle(model)
    found = [entry for entry in originals_of(model) if not _is_computed(*entry[1:3])]
    standing: dict[int, list[Original]] = {}
    names: dict[int, str] = {}
    for name, module, attribute, original in found:
        if _stands(module, attribute, original):
            standing.setdefault(id(original.parameter), []).append(original)
            names.setdefault(id(original.parameter), name)
    valid = {key: valid_of(originals) for key, originals in standing.items()}
    lost = [names[key] for key, o in valid.items() if o is not None and o.trained]
    if before is not None:
        before(lost)
    for _, module, attribute, original in found:
        right = valid.get(id(original.parameter))
        if right is not None and _stands(module, attribute, original):
            copy_bits(right.parameter, right.values)
        forget_original(module, attribute)
    return lost


def forget_originals(model: nn.Module) -> None:
    """Drop the kept originals, so that the pruned weights are the weights."""
    for _, module, attribute, _ in originals_of(model):
        forget_original(module, attribute)


def copy_original(module: nn.Module, attribute: str, values: torch.Tensor) -> bool:
    """Put values back into a parameter that is pruned, and end its pruning.

    Returns:
        Whether it held anything but these values and zeros.
    """
    parameter = parameter_of(module, attribute)
    if parameter is None:
        return False
    original = original_of(module, attribute)
    if original is not None and original.values is values:
        trained = original.trained
    else:
        trained = bool(differs(parameter, values))
    copy_bits(parameter, values)
    forget_original(module, attribute)
    return trained


def _stands(module: nn.Module, attribute: str, original: Original) -> bool:
    return original.belongs_to(parameter_of(module, attribute))


def _is_computed(module: nn.Module, attribute: str) -> bool:
    held = attribute in module._parameters or attribute in module._buffers
    return not held and hasattr(module, attribute)


def _what_is_computed(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return (
        f"{shown}: since this was pruned, a parametrization or weight_norm was put on, so the "
        "original values cannot be put back: "
        "call torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils."
        "remove_weight_norm first, or make_permanent(model) to keep the weights as they are"
    )


@torch.no_grad()
def copy_bits(parameter: torch.Tensor, values: torch.Tensor) -> None:
    """Write values into a parameter, bit for bit if they have its dtype."""
    here, there = local_of(parameter.detach()), local_of(values.detach())
    if values.dtype == parameter.dtype:
        here, there = as_integers(here), as_integers(there)
    here.copy_(there)
