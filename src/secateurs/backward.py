"""Gradient pruning: the forward pass stays dense, the gradient to each layer's input is pruned.

A module with masked weights, and every module around it, becomes an instance of a subclass of its
own class. The outermost of them that is called runs its ``forward`` under a function mode that
knows all masked weights below it by identity: where one of them is handed to a convolution, linear
or attention function, by whichever module, the gradient to the input is computed with the masked
weight. A masked weight that is handed to anything else is an error, never a dense gradient.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn

from secateurs._mode import MaskedWeights, active_mode, masked_attributes, without_our_mode
from secateurs.apply import mask_beside, matching_targets
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.masks import Masks
from secateurs.sparsity import BACKWARD_SUFFIX
from secateurs.targets import KINDS, ORIGINAL_SUFFIX, Target, pruned_places

# These never use a weight themselves, and people compare their types.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
# In these, torch takes another path, with other rounding, when no gradient is wanted and no
# function mode is active.
FAST_PATHS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


def prune_gradients(model: nn.Module, masks: Masks) -> None:
    """Put masks on the backward pass, in place of any that stand there.

    Raises:
        InvalidArgumentError: the masks do not fit, a parameter is not the weight of a
            convolution, linear or attention layer, or its module's ``forward`` was replaced.
    """
    pairs = matching_targets(model, masks)
    for target, _ in pairs:
        check_gradient_prunable(target)
    masked = [(target, mask_beside(mask, target)) for target, mask in pairs]
    restore_gradients(model)
    install_gradient_masks(model, [(*p, keep) for target, keep in masked for p in target.places])


def gradient_masks(model: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """The masks that stand: (module, attribute, mask that broadcasts to the weight)."""
    masks: list[tuple[nn.Module, str, Tensor]] = []
    for module, attribute in pruned_places(model, BACKWARD_SUFFIX):
        masks.append((module, attribute, module.get_buffer(attribute + BACKWARD_SUFFIX)))
    return masks


def install_gradient_masks(model: nn.Module, masks: list[tuple[nn.Module, str, Tensor]]) -> None:
    """Put masks on a model without any; `gradient_masks` describes the argument."""
    for module, attribute, keep in masks:
        keep = keep.to(module.get_parameter(attribute).device)
        module.register_buffer(attribute + BACKWARD_SUFFIX, keep, persistent=False)
    for module in list(model.modules()) if masks else ():
        own = tuple(attribute for attribute, _ in masked_attributes(module))
        if own or _may_use_others(module):
            object.__setattr__(module, "__class__", _subclass(type(module), own))


def restore_gradients(model: nn.Module) -> None:
    """Take all masks off the backward pass."""
    for module in model.modules():
        if isinstance(module, _PrunedBackward):
            object.__setattr__(module, "__class__", module.secateurs_base)
    for module, attribute in pruned_places(model, BACKWARD_SUFFIX):
        del module._buffers[attribute + BACKWARD_SUFFIX]
        module._non_persistent_buffers_set.discard(attribute + BACKWARD_SUFFIX)


class _PrunedBackward(nn.Module):
    """Mixed into a module's own class while its backward pass is pruned."""

    secateurs_base: type[nn.Module]
    secateurs_own: tuple[str, ...]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self.secateurs_base, self.secateurs_own), self.__getstate__()


@cache
def _subclass(base: type[nn.Module], own: tuple[str, ...]) -> type[nn.Module]:
    def original(attribute: str) -> property:
        def get(self: nn.Module) -> Tensor:
            # Between pruning in the weights and in the backward pass, both stand for a moment.
            saved = self._buffers.get(attribute + ORIGINAL_SUFFIX)
            return getattr(self, attribute).detach() if saved is None else saved

        return property(get)

    @wraps(base.forward)  # for those who inspect its signature
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return _forward(self, base.forward, args, kwargs)

    namespace: dict[str, Any] = {name + ORIGINAL_SUFFIX: original(name) for name in own}
    namespace |= {"secateurs_base": base, "secateurs_own": own}
    namespace |= {"forward": forward, "__module__": base.__module__}
    return type(base.__name__, (_PrunedBackward, base), namespace)


def _rebuild(base: type[nn.Module], own: tuple[str, ...]) -> nn.Module:
    """Make an empty instance for ``copy`` and ``pickle`` to fill."""
    cls = _subclass(base, own)
    return cls.__new__(cls)


def _forward(module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a module's own ``forward``, under a mode that knows the masked weights it may use."""
    if not torch.is_grad_enabled():
        return forward(module, *args, **kwargs)
    if isinstance(module, FAST_PATHS) and not wants_gradients(module, args, kwargs):
        with without_our_mode():
            return forward(module, *args, **kwargs)
    mode = active_mode(module)
    if mode is not None:
        return _checked(module, mode, forward, args, kwargs)
    mode = MaskedWeights(module)
    with mode:
        return _checked(module, mode, forward, args, kwargs)


def _checked(
    module: nn.Module, mode: MaskedWeights, forward: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """Run ``forward``, and see that it handed the module's masked weights to our functions."""
    own = [id(getattr(module, attribute)) for attribute, _ in masked_attributes(module)]
    for weight in own:
        mode.used.discard(weight)
    output = forward(module, *args, **kwargs)
    for weight in own:
        if weight not in mode.used:
            raise not_handed(module)
    return output


def not_handed(module: nn.Module) -> FailureError:
    """The error for a module that used its masked weight in a way which nobody saw."""
    return FailureError(
        f"{module._get_name()} did not hand its weight to a convolution, linear or "
        "attention function, so its backward pass cannot be pruned: exclude this layer"
    )


def wants_gradients(module: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether a call of a module computes something that a gradient may be asked of."""
    tensors = (*args, *kwargs.values(), *module.parameters())
    return any(isinstance(t, Tensor) and t.requires_grad for t in tensors)


def _may_use_others(module: nn.Module) -> bool:
    """Whether a module without masks of its own may hand masked weights to functions."""
    if isinstance(module, _CONTAINERS) or "forward" in vars(module):
        return False  # the latter runs something else than its class's ``forward``
    below = any(True for child in module.modules() for _ in masked_attributes(child))
    return below or isinstance(module, FAST_PATHS)


def check_gradient_prunable(target: Target) -> None:
    """Refuse a weight whose use cannot be told from others'.

    Raises:
        InvalidArgumentError: it is not the weight of a convolution, linear or attention layer, or
            its module's ``forward`` was replaced.
    """
    if not any(_is_linear(module, attribute) for module, attribute in target.places):
        raise InvalidArgumentError(
            f"gradient pruning works on convolution, linear and attention weights; {target.name} "
            f"belongs to {type(target.module).__name__}: write exclude={target.name!r}"
        )
    for module, _ in target.places:
        if "forward" in vars(module):
            raise InvalidArgumentError(
                f"{target.name} cannot be gradient-pruned, since the forward method of its module "
                f"was replaced on the instance: undo that, or write exclude={target.name!r}"
            )


def _is_linear(module: nn.Module, attribute: str) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return attribute.endswith("_proj_weight")
    return attribute == "weight" and isinstance(module, (*KINDS["conv"], *KINDS["linear"]))
