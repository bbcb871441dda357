"""Gradient pruning: the forward pass stays dense, the gradient to each layer's input is pruned.

A module whose weight is masked becomes an instance of a subclass of its own class. The subclass
runs the same ``forward`` under a function mode that knows the masked weights by identity: where
one of them is handed to a convolution, linear or attention function, the gradient to the input is
computed with the masked weight, and everything else is left alone. The module right above does the
same, since some networks hand a child's weight to a function themselves.
"""

import types
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateurs import _ops
from secateurs.apply import matching_targets
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.masks import Masks
from secateurs.sparsity import BACKWARD_SUFFIX
from secateurs.targets import ORIGINAL_SUFFIX, Target, pruned_places

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def prune_gradients(model: nn.Module, masks: Masks) -> None:
    """Put masks on the backward pass, in place of any that stand there.

    Raises:
        InvalidArgumentError: the masks do not fit, or a parameter is not the weight of a
            convolution, linear or attention layer.
    """
    pairs = matching_targets(model, masks)
    for target, _ in pairs:
        _check_linear(target)
    restore_gradients(model)
    masked = [(*place, mask.broadcastable) for target, mask in pairs for place in target.places]
    install_gradient_masks(model, masked)


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
    for module in list(model.modules()):
        own = tuple(a for m, a in _places(module) if m is module)
        below = any(_has_masks(child) for child in module.children())
        if own or (below and not isinstance(module, _CONTAINERS)):
            module.__class__ = _subclass(type(module), own)


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

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        mode = _MaskedWeights(self)
        with mode:
            output = super().forward(*args, **kwargs)
        if self.secateurs_own and not mode.used:
            raise FailureError(
                f"{self._get_name()} does not hand its weight itself to a convolution, linear or "
                "attention function, so its backward pass cannot be pruned: exclude this layer"
            )
        return output

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild, (self.secateurs_base, self.secateurs_own), self.__getstate__()


@cache
def _subclass(base: type[nn.Module], own: tuple[str, ...]) -> type[nn.Module]:
    def original(attribute: str) -> property:
        return property(lambda self: self._parameters[attribute].detach())

    namespace: dict[str, Any] = {name + ORIGINAL_SUFFIX: original(name) for name in own}
    namespace |= {"secateurs_base": base, "secateurs_own": own, "__module__": base.__module__}
    return type(base.__name__, (_PrunedBackward, base), namespace)


def _rebuild(base: type[nn.Module], own: tuple[str, ...]) -> nn.Module:
    """Make an empty instance for ``copy`` and ``pickle`` to fill."""
    cls = _subclass(base, own)
    return cls.__new__(cls)


class _Dual(NamedTuple):
    """A weight for the forward pass and the masked one for the gradient to the input."""

    weight: Tensor
    masked: Tensor


class _MaskedWeights(TorchFunctionMode):
    """Replaces the functions that get one of a module's masked weights, recognised by identity."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.used = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Inside our own functions gradients are off: there the dense operation is meant.
        if torch.is_grad_enabled():
            if func is F.multi_head_attention_forward:
                return self._attention(args, kwargs)
            replacement = _REPLACEMENTS.get(func)
            if replacement is not None:
                return self._replaced(func, replacement, args, kwargs)
        return func(*args, **kwargs)

    def _replaced(
        self, func: Callable[..., Any], replacement: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        weight = kwargs["weight"] if "weight" in kwargs else args[1]
        dual = self._dual(weight)
        if dual is None:
            return func(*args, **kwargs)
        if "weight" in kwargs:
            rest = {k: v for k, v in kwargs.items() if k not in ("weight", "input")}
            x = kwargs["input"] if "input" in kwargs else args[0]
            return replacement(x, *dual, *args[1:], **rest)
        return replacement(args[0], *dual, *args[2:], **kwargs)

    def _attention(self, args: Any, kwargs: Any) -> Any:
        """Hand pairs of weights to a copy of torch's function that understands them."""
        return _DUAL_ATTENTION(
            *(self._dual_or_same(a) for a in args),
            **{name: self._dual_or_same(a) for name, a in kwargs.items()},
        )

    def _dual_or_same(self, value: Any) -> Any:
        dual = self._dual(value)
        return value if dual is None else _DualWeight(*dual)

    def _dual(self, weight: Any) -> _Dual | None:
        for module, attribute in _places(self.module):
            if weight is module._parameters[attribute]:
                keep = module.get_buffer(attribute + BACKWARD_SUFFIX)
                self.used = True
                return _Dual(weight, torch.where(keep, weight, 0.0))
        return None


class _DualWeight:
    """Stands for a weight inside torch's attention function, which slices and applies it."""

    def __init__(self, weight: Tensor, masked: Tensor):
        self.weight, self.masked = weight, masked
        self.shape = weight.shape

    def chunk(self, count: int) -> "list[_DualWeight]":
        pairs = zip(self.weight.chunk(count), self.masked.chunk(count), strict=True)
        return [_DualWeight(w, m) for w, m in pairs]

    def split(self, sizes: list[int]) -> "list[_DualWeight]":
        pairs = zip(self.weight.split(sizes), self.masked.split(sizes), strict=True)
        return [_DualWeight(w, m) for w, m in pairs]


def _dual_linear(x: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor:
    if isinstance(weight, _DualWeight):
        return _ops.linear(x, weight.weight, weight.masked, bias)
    return F.linear(x, weight, bias)


def _with_globals(function: Any, names: dict[str, Any]) -> Callable[..., Any]:
    copy = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _dual_attention() -> Callable[..., Any]:
    """Torch's own attention function, except that ``linear`` accepts a `_DualWeight`.

    The same code runs, in whatever version of torch is installed, so the outputs are the same bit
    for bit; only the name ``linear`` means something else in it and in its two helpers.
    """
    names = dict(vars(F))
    names["linear"] = _dual_linear
    for helper in ("_in_projection_packed", "_in_projection"):
        names[helper] = _with_globals(getattr(F, helper), names)
    return _with_globals(F.multi_head_attention_forward, names)


# Built on import, since a compiler that traces `_MaskedWeights` cannot build functions.
_DUAL_ATTENTION = _dual_attention()
_REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    F.linear: _ops.linear,
    torch.conv1d: _ops.convolution(1, transposed=False),
    torch.conv2d: _ops.convolution(2, transposed=False),
    torch.conv3d: _ops.convolution(3, transposed=False),
    torch.conv_transpose1d: _ops.convolution(1, transposed=True),
    torch.conv_transpose2d: _ops.convolution(2, transposed=True),
    torch.conv_transpose3d: _ops.convolution(3, transposed=True),
}


def _places(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """The masked weights that a module's own ``forward`` may use: its own and its children's."""
    for holder in (module, *module.children()):
        for buffer in holder._buffers:
            if buffer.endswith(BACKWARD_SUFFIX):
                yield holder, buffer.removesuffix(BACKWARD_SUFFIX)


def _has_masks(module: nn.Module) -> bool:
    return any(buffer.endswith(BACKWARD_SUFFIX) for buffer in module._buffers)


def _check_linear(target: Target) -> None:
    linear = (nn.Linear, nn.MultiheadAttention)
    if not target.is_convolution and not any(isinstance(m, linear) for m, _ in target.places):
        raise InvalidArgumentError(
            f"gradient pruning works on convolution, linear and attention weights; {target.name} "
            f"belongs to {type(target.module).__name__}: write exclude={target.name!r}"
        )
