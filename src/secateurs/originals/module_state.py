"""What pruning keeps beside the parameters of a module: original values, masks of backward passes.

Original values are no buffers, since others pair the buffers of two models one by one (averages of
models, DistributedDataParallel), but a module takes them along when it is moved, copied or pickled.
Masks are buffers, so that `torch.func.stack_module_state` stacks them. Neither is found by its name
alone, which a module may use itself.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from secateurs.errors import InvalidArgumentError
from secateurs.originals.original import Original

ORIGINAL_SUFFIX = "_orig"
BACKWARD_SUFFIX = "_backward_mask"
_PLACE = "_secateurs"


NamedModules = Iterable[tuple[str, nn.Module]]
"""Modules, each once, with their qualified names: all of a model."""


class Kept:
    """All that is kept for one module; it stands in for the module's ``_apply`` meanwhile.

    ``.to()``, ``.half()`` and their like end in ``_apply``, which knows parameters and buffers.

    Args:
        module: whose parameters it is about.

    Attributes:
        originals: by the parameter's name in the module.
        masks: names of the parameters whose backward pass is masked, in order.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self.originals: dict[str, Original] = {}
        self.masks: dict[str, None] = {}
        self.before: Any = vars(module).get("_apply")

    def __call__(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Do what ``_apply`` does, to original values too."""
        module = self.module
        standing = {
            a: o for a, o in self.originals.items() if o.belongs_to(parameter_of(module, a))
        }
        if self.before is None:
            type(module)._apply(module, fn, recurse)
        else:
            self.before(fn, recurse)
        with torch.no_grad():
            for attribute, original in standing.items():
                parameter = parameter_of(module, attribute)  # some conversions make new ones
                if parameter is not None:
                    keep_original(module, attribute, Original(fn(original.values), parameter))
        return module


def originals_of(modules: NamedModules) -> Iterator[tuple[str, nn.Module, str, Original]]:
    """Yield (name, module, attribute, original) of all that is kept, stale or not."""
    for prefix, module in modules:
        kept = _kept_below(module)
        for attribute, original in list(kept.originals.items()) if kept else ():
            yield f"{prefix}.{attribute}" if prefix else attribute, module, attribute, original


def original_of(module: nn.Module, attribute: str) -> Original | None:
    """What is kept for the parameter that stands in a module under a name now."""
    kept = _kept_below(module)
    original = kept.originals.get(attribute) if kept else None
    ours = original is not None and original.belongs_to(parameter_of(module, attribute))
    return original if ours else None


def keeps_original(module: nn.Module, attribute: str) -> bool:
    """Whether anything is kept under a name, also of a Parameter that is gone."""
    kept = _kept_below(module)
    return kept is not None and attribute in kept.originals


def is_pruned(module: nn.Module) -> bool:
    """Whether a parameter of this module itself is pruned, in its weights or its backward pass."""
    kept = _kept_below(module)
    return kept is not None and (
        bool(masks_of(module)) or any(original_of(module, a) for a in list(kept.originals))
    )


def keep_original(module: nn.Module, attribute: str, original: Original) -> None:
    """Keep an original in place of any that was kept; it is seen as ``module.NAME_orig``."""
    kept = _kept_for(module)
    kept.originals[attribute] = original
    vars(kept.module)[attribute + ORIGINAL_SUFFIX] = original.values


def forget_original(module: nn.Module, attribute: str) -> None:
    """Keep it no longer."""
    kept = _kept_below(module)
    if kept is not None and kept.originals.pop(attribute, None) is not None:
        vars(kept.module).pop(attribute + ORIGINAL_SUFFIX, None)
        _tidy(kept)


def masks_of(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The masks of one module, each with its parameter's name."""
    kept = _kept_below(module)
    if kept is None or not kept.masks:
        return []
    found = [(name, module._buffers.get(name + BACKWARD_SUFFIX)) for name in kept.masks]
    return [(name, mask) for name, mask in found if mask is not None]


def mask_of(module: nn.Module, attribute: str) -> torch.Tensor | None:
    """The mask of the backward pass of one parameter, if there is one."""
    kept = _kept_below(module)
    if kept is None or attribute not in kept.masks:
        return None
    return module._buffers.get(attribute + BACKWARD_SUFFIX)


def fits(mask: torch.Tensor, parameter: torch.Tensor | None) -> bool:
    """Whether a mask broadcasts to a parameter, or is of one that stood there before."""
    if parameter is None or mask.dim() != parameter.dim():
        return False
    sizes = zip(mask.shape, parameter.shape, strict=True)
    return all(have in (1, size) for have, size in sizes)


def check_mask_name(module: nn.Module, attribute: str) -> None:
    """Refuse to keep a mask where the module has something of its name itself.

    Raises:
        InvalidArgumentError: it has.
    """
    name = attribute + BACKWARD_SUFFIX
    if hasattr(module, name) and mask_of(module, attribute) is None:
        raise InvalidArgumentError(
            f"{attribute} of a {type(module).__name__} cannot be gradient-pruned: the module "
            f"already has an attribute {name}"
        )


def keep_mask(module: nn.Module, attribute: str, mask: torch.Tensor) -> None:
    """Keep the mask of a backward pass."""
    try:
        module.register_buffer(attribute + BACKWARD_SUFFIX, mask, persistent=False)
    except KeyError:
        check_mask_name(module, attribute)
        raise
    _kept_for(module).masks[attribute] = None


def forget_mask(module: nn.Module, attribute: str) -> None:
    """Keep it no longer."""
    kept = _kept_below(module)
    if kept is None or attribute not in kept.masks:
        return
    module._buffers.pop(attribute + BACKWARD_SUFFIX, None)
    module._non_persistent_buffers_set.discard(attribute + BACKWARD_SUFFIX)
    kept.masks.pop(attribute)
    _tidy(kept)


def parameter_of(module: nn.Module, attribute: str) -> nn.Parameter | None:
    """The Parameter that stands in a module under a name now."""
    # Not looked up by name: that gives the pruned weight where a surrogate runs in this thread.
    return next((p for name, p in module._parameters.items() if name == attribute), None)


def _kept_below(module: nn.Module) -> Kept | None:
    own = vars(module)
    # A surrogate is seen as its network, and what is kept lies there.
    return vars(own["_viewed"][0]).get(_PLACE) if "_viewed" in own else own.get(_PLACE)


def _kept_for(module: nn.Module) -> Kept:
    module = vars(module)["_viewed"][0] if "_viewed" in vars(module) else module
    own = vars(module)
    kept = own.get(_PLACE)
    if kept is None:
        kept = own[_PLACE] = own["_apply"] = Kept(module)
    return kept


def _tidy(kept: Kept) -> None:
    if kept.originals or kept.masks:
        return
    own = vars(kept.module)
    own.pop(_PLACE, None)
    if own.get("_apply") is kept:
        del own["_apply"]
        if kept.before is not None:
            own["_apply"] = kept.before
