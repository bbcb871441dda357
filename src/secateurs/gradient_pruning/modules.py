"""Gradient pruning: the forward pass stays dense, the gradient to each layer's input is pruned.

A module with masked weights, and every module that contains it, becomes an instance of a subclass
of its own class. The outermost of them that is called runs its ``forward`` under a function mode
that recognises all masked weights in it by identity. When a convolution, linear or attention
function is called with one of them, the gradient to the input is computed with the masked weight.
Any other function of a masked weight is an error, never a dense gradient.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from secateurs.gradient_pruning.backward_state import (
    forget_state,
    has_masked_gradient,
    keep_state,
)
from secateurs.gradient_pruning.direct_layers import direct_forward
from secateurs.gradient_pruning.prunable_layers import check_gradient_prunable
from secateurs.gradient_pruning.pruned_forward import (
    FAST_PATHS,
    is_called_without_mode,
    run_forward,
    weight_is_read,
)
from secateurs.gradient_pruning.saved_weight import Scratch
from secateurs.masks.apply import mask_beside, matching_targets
from secateurs.masks.mask import Masks
from secateurs.originals.module_state import (
    ORIGINAL_SUFFIX,
    check_mask_name,
    forget_mask,
    keep_mask,
    keeps_original,
    mask_of,
    masks_of,
    original_of,
    parameter_of,
)
from secateurs.parameters.model_contents import ModelContents

# These never use a weight themselves, and other code compares their types.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_BASE = "secateurs_base"  # the attribute of our subclass for the module's own class
_REPLACED = "secateurs_replaced"  # the attribute of a `_with_our_base` class for the one before it


class GradientMask(NamedTuple):
    """A mask of the backward pass of one module.

    Attributes:
        module: the module.
        attribute: the name of the weight in it.
        keep: bool, broadcasts to the weight.
        masked_gradient: whether pruned elements get no gradient of their own.
    """

    module: nn.Module
    attribute: str
    keep: Tensor
    masked_gradient: bool = False


def prune_gradients(
    contents: ModelContents, masks: Masks, *, masked_gradient: bool = False
) -> None:
    """Put masks on the backward pass, instead of any that are on it.

    Args:
        contents: of the network, which is changed in place.
        masks: one for each parameter.
        masked_gradient: whether pruned elements get no gradient of their own.

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
    new = [
        GradientMask(*place, keep, masked_gradient)
        for target, keep in masked
        for place in target.places
    ]
    with gradients_kept(modules) as now:
        if sorted(map(_without_values, now)) == sorted(map(_without_values, new)):
            for module, attribute, keep, _ in new:  # what is known of the modules stays true
                keep_mask(module, attribute, keep)
            return
        restore_gradients(modules)
        install_gradient_masks(modules, new)


@contextmanager
def gradients_kept(modules: Sequence[nn.Module]) -> Generator[list[GradientMask]]:
    """The masks of modules, which come back if the body of the ``with`` block is cut short."""
    before = gradient_masks(modules)
    try:
        yield before
    except BaseException:  # as Ctrl-C, when some modules have other masks than the rest
        restore_gradients(modules)
        install_gradient_masks(modules, before)
        raise


def _without_values(mask: GradientMask) -> tuple[int, str, bool]:
    return id(mask.module), mask.attribute, mask.masked_gradient


def gradient_masks(modules: Iterable[nn.Module]) -> list[GradientMask]:
    """The masks of modules."""
    return [
        GradientMask(module, *mask, has_masked_gradient(module))
        for module in modules
        for mask in masks_of(module)
    ]


def install_gradient_masks(modules: Iterable[nn.Module], masks: Sequence[GradientMask]) -> None:
    """Put masks on a model that has none.

    Args:
        modules: all modules of the model.
        masks: from `gradient_masks`.
    """
    masked_gradients = {id(mask.module) for mask in masks if mask.masked_gradient}
    for module, attribute, keep, _ in masks:
        parameter = parameter_of(module, attribute)
        keep_mask(module, attribute, keep if parameter is None else keep.to(parameter.device))
    scratch = Scratch()
    for module in modules if masks else ():
        masked = masks_of(module)
        if masked or _may_use_others(module):
            own = _names_with_property(module) if masked else ()
            keep_state(module, id(module) in masked_gradients, scratch)
            kind = _pruned_class(module, own, bool(masked))
            object.__setattr__(module, "__class__", kind)


def restore_gradients(modules: Iterable[nn.Module]) -> None:
    """Take all masks off the backward pass of modules."""
    for module in modules:
        if hasattr(type(module), _BASE):
            object.__setattr__(module, "__class__", class_before(type(module), _BASE))
            forget_state(module)
        for attribute, _ in masks_of(module):
            forget_mask(module, attribute)


@cache
def _subclass(base: type[nn.Module], own: tuple[str, ...], masked: bool) -> type[nn.Module]:
    direct, plain = direct_forward(base) if masked else None, base.forward

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not masked and is_called_without_mode(self):
            return plain(self, *args, **kwargs)
        return run_forward(self, plain, args, kwargs)

    def forward_of_layer(self: nn.Module, input: Any) -> Any:  # noqa: A002
        output = direct(self, input) if direct else None
        return run_forward(self, plain, (input,), {}) if output is None else output

    def read(self: nn.Module, name: str) -> Any:
        if not torch.compiler.is_compiling() and mask_of(self, name) is not None:
            weight_is_read()
        return base.__getattr__(self, name)

    def reduce(self: nn.Module, protocol: Any) -> Any:  # noqa: ARG001
        return _rebuild, (base, own, masked), self.__getstate__()

    namespace: dict[str, Any] = {name + ORIGINAL_SUFFIX: _original(name) for name in own}
    namespace |= {_BASE: base, "secateurs_own": own, "__reduce_ex__": reduce}
    # `wraps` keeps its signature, which other code inspects.
    namespace["forward"] = wraps(plain)(forward_of_layer if direct else forward)
    namespace["__module__"] = base.__module__
    if masked:  # a module that only holds others is not slowed down
        namespace["__getattr__"] = read
    return type(base.__name__, (base,), namespace)


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


def _pruned_class(module: nn.Module, own: tuple[str, ...], masked: bool) -> type:
    """The class that a module becomes an instance of.

    A parametrization makes a class for its module, adds properties to it, and when it is removed
    gives the module that class's first base. So there our class becomes the first base.
    """
    cls = type(module)
    # As torch.nn.utils.parametrize.is_parametrized, but faster if there is none.
    parametrized = "parametrizations" in module._modules
    if parametrized and cls.__name__.startswith("Parametrized") and len(cls.__bases__) == 1:
        return _with_our_base(cls, tuple(vars(cls)), own, masked)
    return _subclass(cls, own, masked)


@cache
def _with_our_base(
    cls: type,
    names: tuple[str, ...],  # noqa: ARG001
    own: tuple[str, ...],
    masked: bool,
) -> type:
    namespace = _namespace(cls) | {_REPLACED: cls}
    return type(cls.__name__, (_subclass(cls.__bases__[0], own, masked),), namespace)


def class_before(cls: type, attribute: str) -> type:
    """The class that a module had before it became an instance of a subclass of ours.

    Args:
        cls: the module's class: ours, or one that a parametrization has derived from ours since.
        attribute: where our subclass holds its base.
    """
    if attribute in vars(cls):
        return vars(cls)[attribute]
    if not hasattr(cls, attribute):
        return cls
    own = _namespace(cls)
    before = own.pop(_REPLACED, None)
    if before is not None and own == _namespace(before):
        return before
    bases = tuple(class_before(base, attribute) for base in cls.__bases__)
    return type(cls.__name__, bases, own)


def _namespace(cls: type) -> dict[str, Any]:
    return {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}


def _rebuild(base: type[nn.Module], own: tuple[str, ...], masked: bool) -> nn.Module:
    """Make an instance whose state ``copy`` or ``pickle`` sets."""
    cls = _subclass(base, own, masked)
    return cls.__new__(cls)


def _may_use_others(module: nn.Module) -> bool:
    """Whether a module without masks of its own may call functions with masked weights."""
    if isinstance(module, _CONTAINERS) or "forward" in vars(module):
        return False  # a ``forward`` of the instance hides that of the class
    inside = any(masks_of(child) for child in module.modules())
    return inside or isinstance(module, FAST_PATHS)
