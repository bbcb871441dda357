"""Masks that the step ``"sparsegpt"`` may not choose anew."""

from collections.abc import Sequence

from secateurs.errors import Argument, InvalidArgumentError
from secateurs.originals.module_state import original_of
from secateurs.repair.layerwise import PrunedWeight
from secateurs.training.step_hooks import LoadHook


def refuse_fixed_masks(weights: Sequence[PrunedWeight]) -> None:
    """Refuse weights that are pruned by kernels or filters, or whose masks are held.

    The pattern of kernels would be lost, and a hold would bring its own masks back.

    Raises:
        InvalidArgumentError: there is such a weight; it is named.
    """
    _refuse_larger_units(weights)
    _refuse_held(weights)


def _refuse_larger_units(weights: Sequence[PrunedWeight]) -> None:
    """Refuse weights that are pruned by kernels or filters, whose pattern would be lost."""
    for one in weights:
        original = original_of(one.target.module, one.target.attribute)
        mask = None if original is None else original.mask
        if mask is not None and mask.shape != one.mask.shape:
            raise InvalidArgumentError(
                f"'sparsegpt' chooses single weights, and {one.target.name} is pruned by kernels "
                "or filters: leave it out of ", Argument("steps"), ", or prune with ",
                Argument("granularity", "weight"),
            )  # fmt: skip


def _refuse_held(weights: Sequence[PrunedWeight]) -> None:
    """Refuse weights whose masks are held, since the next step would bring those masks back."""
    for one in weights:
        hooks = one.target.module._load_state_dict_post_hooks.values()
        if any(isinstance(hook, LoadHook) and hook.held is not None for hook in hooks):
            raise InvalidArgumentError(
                f"'sparsegpt' chooses other masks, and those of {one.target.name} are held while "
                "it is trained: leave it out of ", Argument("steps"), ", or end that before, by "
                "the remove() of hold(...) or of the Pruner, and hold the new masks after it",
            )  # fmt: skip
