"""Finds layers whose ``forward`` computes another weight, in which zeros do not stay zero.

With weight standardisation, for example, a convolution subtracts the mean of each filter from its
weights, so that a weight set to zero acts as another number. No attribute shows this. Therefore
the smallest layer of each class with its own ``forward`` is copied and run once, with some weights
zero, and the weights that it passes to torch's functions are checked.
"""

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from secateurs._io.text import listed
from secateurs.errors import Advice, Argument, InvalidArgumentError
from secateurs.parameters.patterns import excluding
from secateurs.parameters.target import Target

# Functions whose second argument is a weight, and products of matrices, which have it anywhere.
_LAYERS = frozenset(
    (
        F.linear, torch.conv1d, torch.conv2d, torch.conv3d,
        torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d,
    )
)  # fmt: skip
_PRODUCTS = frozenset(
    {torch.matmul, torch.mm, torch.addmm, torch.einsum}
    | {Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm, Tensor.addmm}
)
_FORWARDS = ("forward", "_conv_forward")


def refuse_recomputed(
    targets: Sequence[Target],
    asked: Sequence[str | type[nn.Module]] = (),
    *,
    stored: bool = True,
) -> None:
    """Refuse the weights of layers that do not keep zeros, all of them in one error.

    Args:
        targets: all that compete.
        asked: the entries of ``layers``; a class that is named there is not refused.
        stored: whether the error says how to prune the stored weights all the same.

    Raises:
        InvalidArgumentError: there are such layers.
    """
    by_class: dict[type[nn.Module], list[tuple[Target, nn.Module]]] = {}
    for target in targets:
        for module, attribute in target.places:
            if attribute == "weight":
                # Of a gradient-pruned layer, the class that it had before.
                cls = getattr(type(module), "secateurs_base", type(module))
                by_class.setdefault(cls, []).append((target, module))
    lost = {
        cls: [target.name for target, _ in held]
        for cls, held in by_class.items()
        if _has_own_forward(cls)
        and not _is_asked_for(cls, asked)
        and _loses_zeros(cls, [module for target, module in held if not target.is_dtensor])
    }
    if not lost:
        return
    names = [name for held in lost.values() for name in held]
    said = ", ".join(
        f"{len(held)} of type {cls.__name__} ({listed(held)})" for cls, held in lost.items()
    )
    exclusion = excluding(names, {target.name for target in targets} - set(names))
    stored_too = Argument("layers", [*(asked or ["default"]), *lost])
    raise InvalidArgumentError(
        f"{said}: forward computes other weights from these, in which a zero does not stay zero "
        "(as in weight standardisation): replace the layers by ordinary ones that hold the "
        "computed weights, or write ",
        exclusion,
        Advice(f", or, to prune the stored weights, {stored_too}" if stored else ""),
    )


def _has_own_forward(cls: type[nn.Module]) -> bool:
    """Whether a class of convolutions or linear layers has a ``forward`` that is not torch's."""
    if not issubclass(cls, (_ConvNd, nn.Linear)):
        return False
    forwards = (getattr(cls, name, None) for name in _FORWARDS)
    return any(f and not (f.__module__ or "").startswith("torch.nn.modules.") for f in forwards)


def _is_asked_for(cls: type[nn.Module], asked: Sequence[str | type[nn.Module]]) -> bool:
    return any(isinstance(one, type) and issubclass(cls, one) and _has_own_forward(one)
               for one in asked)  # fmt: skip


def _loses_zeros(cls: type[nn.Module], modules: Sequence[nn.Module]) -> bool:
    """Whether the smallest of the layers loses zeros; layers with one weight a filter are left."""
    weights = ((m, m._parameters.get("weight")) for m in modules)
    usable = [m for m, weight in weights if weight is not None and weight[:1].numel() > 1]
    if not usable:
        return False
    module: Any = min(usable, key=lambda m: m.get_parameter("weight").numel())
    shape, device = module.weight.shape, module.weight.device
    # Positive, so that no mean is zero; every second one is zero.
    values = torch.arange(module.weight.numel(), device=device).reshape(shape)
    weight = (values % 2 * (1 + values % 5)).to(module.weight.dtype)
    check = _ZeroCheck(weight)
    # A forward that cannot take this input raises; what was found before that counts.
    with suppress(Exception), torch.no_grad(), check:
        cls.forward(_copied(module, weight), _input(module))
    return check.lost


def _copied(module: nn.Module, weight: Tensor) -> nn.Module:
    """A copy with another weight, of which ``forward`` can change nothing in the module itself."""
    copied = module.__class__.__new__(module.__class__)
    copied.__dict__ = dict(module.__dict__)
    copied._parameters = {**module._parameters, "weight": nn.Parameter(weight, False)}
    copied._buffers = {k: None if b is None else b.clone() for k, b in module._buffers.items()}
    copied._modules = copy.deepcopy(module._modules)
    return copied.eval()  # without dropout and other random numbers


def _input(module: nn.Module) -> Tensor:
    """A small input for the layer, of one stride more than its kernel."""
    layer: Any = module
    like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(module, nn.Linear):
        return torch.zeros(1, layer.weight.shape[1], **like)
    sizes = [
        (kernel - 1) * dilation + stride
        for kernel, dilation, stride in zip(
            layer.kernel_size, layer.dilation, layer.stride, strict=True
        )
    ]
    return torch.zeros(1, layer.in_channels, *sizes, **like)


class _ZeroCheck(TorchFunctionMode):
    """Checks weights that are passed to convolutions, linear functions and products of matrices.

    Attributes:
        zero: where the weight of the layer is zero.
        lost: whether one of the weights that were passed is not zero there.
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        self.zero = weight == 0
        self.lost = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LAYERS:
            self._check(kwargs.get("weight", args[1] if len(args) > 1 else None), self.zero)
        elif func in _PRODUCTS:
            for factor in (*args, *kwargs.values()):
                self._check(factor, self.zero, self.zero.mT)
        return func(*args, **kwargs)

    def _check(self, weight: Any, *zeros: Tensor) -> None:
        """Set ``lost`` if a weight has other values in place of zeros, in every fitting layout."""
        if not isinstance(weight, Tensor):
            return
        fitting = [zero for zero in zeros if weight.shape == zero.shape]
        if fitting and all(weight[zero].any() for zero in fitting):
            self.lost = True
