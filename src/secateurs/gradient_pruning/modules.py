"""Gradient pruning: the forward pass stays dense, the gradient to each layer's input is pruned.

A module with masked weights, and every module that contains it, becomes an instance of a subclass
of its own class. The outermost of them that is called runs its ``forward`` under a function mode
that recognises all masked weights in it by identity. When a convolution, linear or attention
function is called with one of them, the gradient to the input is computed with the masked weight.
Any other function of a masked weight is an error, never a dense gradient.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateurs._io.text import listed
from secateurs.errors import Argument, FailureError, InvalidArgumentError
from secateurs.gradient_pruning.function_mode import (
    MaskedWeights,
    active_mode,
    without_our_mode,
)
from secateurs.masks.apply import mask_beside, matching_targets
from secateurs.masks.mask import Masks
from secateurs.originals.module_state import (
    ORIGINAL_SUFFIX,
    check_mask_name,
    forget_mask,
    keep_mask,
    keeps_original,
    masks_of,
    original_of,
    parameter_of,
)
from secateurs.parameters.layer_kinds import KINDS
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.patterns import excluding
from secateurs.parameters.recomputed_weights import refuse_recomputed
from secateurs.parameters.target import Target

# These never use a weight themselves, and other code compares their types.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_REPLACED = "secateurs_replaced"  # the attribute of a `_with_our_base` class for the one before it
# In these, torch runs other code, with other rounding, if no gradient is wanted and no function
# mode is active.
FAST_PATHS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


def prune_gradients(contents: ModelContents, masks: Masks) -> None:
    """Put masks on the backward pass, instead of any that are on it.

    Args:
        contents: of the network, which is changed in place.
        masks: one for each parameter.

    Raises:
        InvalidArgumentError: the masks do not fit, a parameter is not the weight of a
            convolution, linear or attention layer, or its module's ``forward`` was replaced.
    """
    pairs = matching_targets(contents, masks)
    check_gradient_prunable([target for target, _ in pairs])
    for target, _ in pairs:
        for place in target.places:
            check_mask_name(*place)
    masked = [(target, mask_beside(mask, target)) for target, mask in pairs]
    modules = [module for _, module in contents.modules]
    restore_gradients(modules)
    install_gradient_masks(
        modules, [(*place, keep) for target, keep in masked for place in target.places]
    )


def gradient_masks(modules: Iterable[nn.Module]) -> list[tuple[nn.Module, str, Tensor]]:
    """The masks of modules: (module, attribute, mask that broadcasts to the weight)."""
    return [(module, *mask) for module in modules for mask in masks_of(module)]


def install_gradient_masks(
    modules: Iterable[nn.Module], masks: Sequence[tuple[nn.Module, str, Tensor]]
) -> None:
    """Put masks on a model that has none.

    Args:
        modules: all modules of the model.
        masks: from `gradient_masks`.
    """
    for module, attribute, keep in masks:
        parameter = parameter_of(module, attribute)
        keep_mask(module, attribute, keep if parameter is None else keep.to(parameter.device))
    for module in modules if masks else ():
        masked = masks_of(module)
        if masked or _may_use_others(module):
            own = _names_with_property(module) if masked else ()
            object.__setattr__(module, "__class__", _pruned_class(module, own))


def restore_gradients(modules: Iterable[nn.Module]) -> None:
    """Take all masks off the backward pass of modules."""
    for module in modules:
        if isinstance(module, _PrunedBackward):
            object.__setattr__(module, "__class__", _without_ours(type(module)))
        for attribute, _ in masks_of(module):
            forget_mask(module, attribute)


class _PrunedBackward:
    """Mixed into a module's own class while its backward pass is pruned."""

    secateurs_base: type[nn.Module]
    secateurs_own: tuple[str, ...]


@cache
def _subclass(base: type[nn.Module], own: tuple[str, ...]) -> type[nn.Module]:
    @wraps(base.forward)  # keeps its signature, which other code inspects
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return _forward(self, base.forward, args, kwargs)

    def reduce(self: nn.Module, protocol: Any) -> Any:  # noqa: ARG001
        return _rebuild, (base, own), self.__getstate__()

    namespace: dict[str, Any] = {name + ORIGINAL_SUFFIX: _original(name) for name in own}
    namespace |= {"secateurs_base": base, "secateurs_own": own, "__reduce_ex__": reduce}
    namespace |= {"forward": forward, "__module__": base.__module__}
    # Its own class first: removing a parametrization gives the module the first base.
    return type(base.__name__, (base, _PrunedBackward), namespace)


def _names_with_property(module: nn.Module) -> tuple[str, ...]:
    """The masked weights that get a property ``NAME_orig``: the module has no such attribute."""
    return tuple(
        attribute
        for attribute, _ in masks_of(module)
        # Between global and gradient pruning, a module may keep originals and masks for a moment.
        if keeps_original(module, attribute) or not hasattr(module, attribute + ORIGINAL_SUFFIX)
    )


def _original(attribute: str) -> property:
    def get(self: nn.Module) -> Tensor:
        kept = original_of(self, attribute)
        return getattr(self, attribute).detach() if kept is None else kept.values

    return property(get)


def _pruned_class(module: nn.Module, own: tuple[str, ...]) -> type:
    """The class that a module becomes an instance of.

    A parametrization makes a class for its module, adds properties to it, and when it is removed
    gives the module that class's first base. So there our class becomes the first base.
    """
    cls = type(module)
    # As torch.nn.utils.parametrize.is_parametrized, but faster if there is none.
    parametrized = "parametrizations" in module._modules
    if parametrized and cls.__name__.startswith("Parametrized") and len(cls.__bases__) == 1:
        return _with_our_base(cls, tuple(vars(cls)), own)
    return _subclass(cls, own)


@cache
def _with_our_base(cls: type, names: tuple[str, ...], own: tuple[str, ...]) -> type:  # noqa: ARG001
    namespace = _namespace(cls) | {_REPLACED: cls}
    return type(cls.__name__, (_subclass(cls.__bases__[0], own),), namespace)


def _without_ours(cls: type) -> type:
    """A module's class without our bases; it may have been derived since, by a parametrization."""
    if "secateurs_base" in vars(cls):
        return vars(cls)["secateurs_base"]
    own = _namespace(cls)
    before = own.pop(_REPLACED, None)
    if before is not None and own == _namespace(before):
        return before
    bases = tuple(_without_ours(b) if issubclass(b, _PrunedBackward) else b for b in cls.__bases__)
    return type(cls.__name__, bases, own)


def _namespace(cls: type) -> dict[str, Any]:
    return {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}


def _rebuild(base: type[nn.Module], own: tuple[str, ...]) -> nn.Module:
    """Make an instance whose state ``copy`` or ``pickle`` sets."""
    cls = _subclass(base, own)
    return cls.__new__(cls)


def _forward(module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a module's own ``forward`` under a mode that knows the masked weights that it may use."""
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
    """Run ``forward``, and check that it passed its masked weights to functions we replace."""
    own = [id(getattr(module, attribute)) for attribute, _ in masks_of(module)]
    for weight in own:
        mode.used.discard(weight)
    output = forward(module, *args, **kwargs)
    for weight in own:
        if weight not in mode.used:
            raise not_handed(module)
    return output


def not_handed(module: nn.Module) -> FailureError:
    """The error for a module whose ``forward`` used its masked weight in no function we replace."""
    for attribute, _ in masks_of(module):
        if parametrize.is_parametrized(module, attribute):
            return FailureError(
                f"{attribute} of a {module._get_name()} is computed by a parametrization that was "
                "put on after gradient pruning, so its backward pass cannot be pruned: call "
                "restore(model), and prune again without this layer or without the parametrization"
            )
    return FailureError(
        f"{module._get_name()} did not hand its weight to a convolution, a matrix product or an "
        "attention function, so its backward pass cannot be pruned: exclude this layer"
    )


def wants_gradients(module: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether the output of a call of a module can have a gradient."""
    tensors = (*args, *kwargs.values(), *module.parameters())
    return any(isinstance(t, Tensor) and t.requires_grad for t in tensors)


def _may_use_others(module: nn.Module) -> bool:
    """Whether a module without masks of its own may hand masked weights to functions."""
    if isinstance(module, _CONTAINERS) or "forward" in vars(module):
        return False  # a ``forward`` of the instance hides that of the class
    inside = any(masks_of(child) for child in module.modules())
    return inside or isinstance(module, FAST_PATHS)


def check_gradient_prunable(targets: Sequence[Target]) -> None:
    """Refuse weights that cannot be gradient-pruned; one error names all that share a reason.

    Raises:
        InvalidArgumentError: one is not the weight of a convolution, linear or attention layer or
            of experts, or its module's ``forward`` was replaced, or computes another weight from
            it.
    """
    others = [t for t in targets if gradient_barrier(t)]
    if others:
        raise InvalidArgumentError(
            "gradient pruning works on the weights of convolutions, linear layers, attention and "
            f"experts; {_named(others)}: write ",
            _without(others, targets),
        )
    replaced = [t for t in targets if any("forward" in vars(module) for module, _ in t.places)]
    if replaced:
        raise InvalidArgumentError(
            f"{listed(t.name for t in replaced)} cannot be gradient-pruned, since the forward "
            "method of the module was replaced on the instance: undo that, or write ",
            _without(replaced, targets),
        )
    refuse_recomputed(targets, stored=False)


def gradient_barrier(target: Target) -> str:
    """Why a weight cannot be gradient-pruned because of the kind of its layer; empty if it can."""
    linear = any(_is_linear(module, attribute) for module, attribute in target.places)
    return "" if linear or target.is_stack else "cannot be pruned in the backward pass alone"


def _named(targets: Sequence[Target]) -> str:
    if len(targets) == 1:
        return f"{targets[0].name} belongs to {type(targets[0].module).__name__}"
    kinds: dict[str, list[str]] = {}
    for target in targets:
        kinds.setdefault(type(target.module).__name__, []).append(target.name)
    counts = ", ".join(f"{len(names)} of {kind} ({listed(names)})" for kind, names in kinds.items())
    return f"{len(targets)} parameters are none: {counts}"


def _without(targets: Sequence[Target], chosen: Sequence[Target]) -> Argument:
    names = [target.name for target in targets]
    return excluding(names, {t.name for t in chosen} - set(names))


def _is_linear(module: nn.Module, attribute: str) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return attribute.endswith("_proj_weight")
    return attribute == "weight" and isinstance(module, (*KINDS["conv"], *KINDS["linear"]))
