"""Masks that the step ``"sparsegpt"`` may not change."""

from collections.abc import Sequence

from secateurs.errors import Argument, InvalidArgumentError
from secateurs.originals.module_state import original_of
from secateurs.repair.layerwise import PrunedTarget
from secateurs.training.step_hooks import LoadHook


def refuse_fixed_masks(weights: Sequence[PrunedTarget]) -> None:
    """Refuse weights that are pruned by kernels or filters, or whose masks are held.

    Whole kernels would no longer be zero, and a hold would put its own masks back.

    Raises:
        InvalidArgumentError: there is such a weight; it is named.
    """
    for one in weights:
        module, name = one.target.module, one.target.name
        original = original_of(module, one.target.attribute)
        mask = None if original is None else original.mask
        if mask is not None and mask.shape != one.mask.shape:
            raise InvalidArgumentError(
                f"'sparsegpt' chooses single weights, and {name} is pruned by kernels or filters: "
                "leave it out of ", Argument("steps"), ", or prune with ",
                Argument("granularity", "weight"),
            )  # fmt: skip
        hooks = module._load_state_dict_post_hooks.values()
        if any(isinstance(hook, LoadHook) and hook.held is not None for hook in hooks):
            raise InvalidArgumentError(
                f"'sparsegpt' chooses other masks, and those of {name} are held while it is "
                "trained: leave it out of ", Argument("steps"), ", or end that before, by the "
                "remove() of hold(...) or of the Pruner, and hold the new masks after it",
            )  # fmt: skip
