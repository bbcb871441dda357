"""Kinds of layers: their classes, their weights, and which dimension is that of the outputs."""

from abc import ABC
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.modules.rnn import RNNCellBase
from torch.nn.parameter import UninitializedParameter

from secateurs.parameters.layer_names import is_matrix, outputs_last


class Conv1D(ABC):  # noqa: B024
    """The linear layer of GPT-2 in transformers, whose weight is (in, out), and its subclasses.

    Recognised by name, so that transformers need not be imported.
    """

    @classmethod
    def __subclasshook__(cls, subclass: type) -> bool:
        return any(
            base.__name__ == "Conv1D" and base.__module__.partition(".")[0] == "transformers"
            for base in subclass.__mro__
        )


class Experts(ABC):  # noqa: B024
    """Modules whose class name contains "experts": they stack one matrix per expert in a tensor."""

    @classmethod
    def __subclasshook__(cls, subclass: type) -> bool:
        return any("experts" in base.__name__.lower() for base in subclass.__mro__)


# Conv1D and Experts are no subclasses of nn.Module, so not type[nn.Module].
Classes = tuple[type[Any], ...]

_CONVOLUTIONS: dict[str, Classes] = {
    "conv1d": (nn.Conv1d,),
    "conv2d": (nn.Conv2d,),
    "conv3d": (nn.Conv3d,),
    "conv_transpose1d": (nn.ConvTranspose1d,),
    "conv_transpose2d": (nn.ConvTranspose2d,),
    "conv_transpose3d": (nn.ConvTranspose3d,),
}
TRANSPOSED: Classes = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ALL_CONVOLUTIONS = tuple(cls for classes in _CONVOLUTIONS.values() for cls in classes)
_LINEAR: Classes = (nn.Linear, Conv1D)
# The output projection of an attention module is a layer of its own, one level below.
ATTENTION: Classes = (nn.MultiheadAttention, NonDynamicallyQuantizableLinear)
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_RECURRENT: Classes = (nn.RNNBase, RNNCellBase)

KINDS: dict[str, Classes] = {
    **_CONVOLUTIONS,
    "conv": _ALL_CONVOLUTIONS,
    "linear": _LINEAR,
    "attention": ATTENTION,
    "experts": (Experts,),
    "recurrent": _RECURRENT,
    "default": (*_ALL_CONVOLUTIONS, *_LINEAR, *ATTENTION, Experts),
}
LAYER_NAMES = (*KINDS, "all")
EVERY_KIND: Classes = (*KINDS["default"], *_RECURRENT)
_SINGLE: Classes = (*_ALL_CONVOLUTIONS, *_LINEAR, *ATTENTION, *_RECURRENT)
_MOST: Classes = (*_ALL_CONVOLUTIONS, nn.Linear)
EMBEDDINGS: Classes = (nn.Embedding, nn.EmbeddingBag)


class KindOf(dict[type, bool]):
    """Whether a class belongs to some kinds of layers, computed once for each class.

    Args:
        classes: the kinds.
    """

    def __init__(self, classes: Classes):
        super().__init__()
        self._classes = classes

    def __missing__(self, cls: type) -> bool:
        found = self[cls] = issubclass(cls, self._classes)
        return found


def weight_attributes(module: nn.Module) -> tuple[str, ...]:
    """The names of a layer's weights, whether or not they are among its parameters now."""
    if isinstance(module, _MOST):
        return ("weight",)
    if isinstance(module, nn.MultiheadAttention):
        return _ATTENTION_WEIGHTS
    if isinstance(module, RNNCellBase):
        return ("weight_ih", "weight_hh")
    if isinstance(module, nn.RNNBase):
        names = (name for layer in module._all_weights for name in layer)
        return tuple(name for name in names if name.startswith("weight_"))
    if isinstance(module, Experts) and not isinstance(module, _SINGLE):
        return tuple(name for name, p in module._parameters.items() if is_stack(module, name, p))
    return ("weight",)


def is_stack(module: nn.Module, attribute: str, parameter: torch.Tensor | None) -> bool:
    """Whether a parameter may stack one matrix per expert, by its shape and name."""
    # `isinstance` is slow for Parameters, and this is called for every parameter of a model.
    if parameter is None or issubclass(type(parameter), UninitializedParameter):
        return False
    return parameter.dim() == 3 and is_matrix(attribute) and not isinstance(module, _SINGLE)


def stack_outputs_last(module: nn.Module, attribute: str) -> bool:
    """Whether a stack is (experts, in, out); if the shapes leave it open, (experts, out, in)."""
    flag = getattr(module, "is_transposed", None)  # set by transformers
    if isinstance(flag, bool):
        return flag
    shapes = {name: tuple(p.shape) for name, p in module._parameters.items() if p is not None}
    beside = [s for n, s in shapes.items() if n != attribute and len(s) == 3]
    bias = shapes.get(f"{attribute}_bias")
    return bool(outputs_last(shapes[attribute], bias=bias, beside=beside))
