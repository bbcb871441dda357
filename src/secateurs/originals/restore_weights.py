"""Puts original values back into pruned weights, bit for bit."""

from collections.abc import Callable, Collection

import torch
from torch import nn

from secateurs._io.text import listed
from secateurs._tensors.memory_order import as_integers
from secateurs.distributed.dtensor import local_of
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import InvalidArgumentError
from secateurs.originals.module_state import (
    NamedModules,
    forget_original,
    original_of,
    originals_of,
    parameter_of,
)
from secateurs.originals.original import Original, differs, update_trained, valid_of


def check_releasable(modules: NamedModules) -> None:
    """Check that the original values of all pruned weights can be put back.

    Raises:
        InvalidArgumentError: some weights are computed now, as by ``weight_norm``.
    """
    computed = [name for name, module, a, _ in originals_of(modules) if _is_computed(module, a)]
    if computed:
        raise InvalidArgumentError(
            f"{listed(computed)}: since this was pruned, a parametrization or weight_norm was put "
            "on, so the original values cannot be put back: "
            "call torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils."
            "remove_weight_norm first, or make_permanent(model) to keep the weights as they are"
        )


def find_released(
    modules: NamedModules, group: ProcessGroup, keep: Collection[int] = ()
) -> list[tuple[nn.Module, str, Original]]:
    """Find the weights whose pruning ends, and note which of all pruned weights were trained.

    The originals of Parameters that were replaced since are dropped. All ranks of a sharded model
    must call this together.

    Args:
        modules: all of the model's.
        group: the ranks that hold the model.
        keep: ids of the Parameters that are about to be pruned again, and stay as they are.

    Returns:
        For `release_weights`: the others, each with its module and its name there.
    """
    again: list[Original] = []
    released: list[tuple[nn.Module, str, Original]] = []
    for _, module, attribute, original in originals_of(modules):
        if not _is_current(module, attribute, original):
            forget_original(module, attribute)
        elif id(original.parameter) in keep:
            again.append(original)
        else:
            released.append((module, attribute, original))
    update_trained(again, group, wait=group.is_distributed)
    update_trained([original for _, _, original in released], group)
    return released


def release_weights(released: list[tuple[nn.Module, str, Original]]) -> None:
    """End the pruning of weights: put their original values back, bit for bit.

    Weights that were trained since keep their values.

    Args:
        released: from `find_released`.
    """
    try:
        _release(released)
    except BaseException:  # as Ctrl-C, which would leave some of them pruned
        _release(released)
        raise


def _release(released: list[tuple[nn.Module, str, Original]]) -> None:
    for module, attribute, original in released:
        if not original.was_trained:
            copy_bits(original.parameter, original.values)
        forget_original(module, attribute)


def compare_all_values(modules: NamedModules, group: ProcessGroup | None = None) -> None:
    """Find which pruned weights were trained, also by writes that torch did not count.

    Args:
        modules: all of the model's.
        group: the ranks that hold the model, which must call this together; by default, each rank
            finds what was trained on itself.
    """
    found = originals_of(modules)
    current = [o for _, module, attribute, o in found if _is_current(module, attribute, o)]
    update_trained(current, group, compare_all=True)


def restore_weights(
    modules: NamedModules, before: Callable[[list[str]], None] | None = None
) -> list[str]:
    """Put the original values back, bit for bit, also where the weights were trained since.

    Weights that are computed now are left out; `check_releasable` names them.

    Args:
        modules: all of the model's.
        before: called with the names to be returned, before anything changes. If it raises, the
            model stays as it is.

    Returns:
        The names of the weights that were trained since pruning, whose training is lost.
    """
    found = [entry for entry in originals_of(modules) if not _is_computed(*entry[1:3])]
    current: dict[int, list[Original]] = {}
    names: dict[int, str] = {}
    for name, module, attribute, original in found:
        if _is_current(module, attribute, original):
            current.setdefault(id(original.parameter), []).append(original)
            names.setdefault(id(original.parameter), name)
    compare_all_values(modules)
    valid = {key: valid_of(originals) for key, originals in current.items()}
    lost = [names[key] for key, o in valid.items() if o is not None and o.was_trained]
    if before is not None:
        before(lost)
    for _, module, attribute, original in found:
        right = valid.get(id(original.parameter))
        if right is not None and _is_current(module, attribute, original):
            copy_bits(right.parameter, right.values)
        forget_original(module, attribute)
    return lost


def forget_originals(modules: NamedModules) -> None:
    """Drop all originals: the pruned weights become permanent."""
    for _, module, attribute, _ in originals_of(modules):
        forget_original(module, attribute)


def copy_original(module: nn.Module, attribute: str, values: torch.Tensor) -> bool:
    """Write values into a pruned parameter, and end its pruning.

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


def _is_current(module: nn.Module, attribute: str, original: Original) -> bool:
    return original.belongs_to(parameter_of(module, attribute))


def _is_computed(module: nn.Module, attribute: str) -> bool:
    held = attribute in module._parameters or attribute in module._buffers
    return not held and hasattr(module, attribute)


@torch.no_grad()
def copy_bits(parameter: torch.Tensor, values: torch.Tensor) -> None:
    """Write values into a parameter, bit for bit if they have its dtype."""
    # In inference mode torch would not count this write, and a pending backward pass would use the
    # new values without an error. A tensor that was made in inference mode is written in it.
    with torch.inference_mode(parameter.is_inference()):
        target, source = local_of(parameter.detach()), local_of(values.detach())
        if values.dtype == parameter.dtype:
            target, source = as_integers(target), as_integers(source)
        target.copy_(source)
    torch.clear_autocast_cache()  # inside autocast, layers would go on with casts of the old values
