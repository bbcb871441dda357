"""Layers for which there are kernels: their weight as a matrix, and their geometry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from secateurs.gradient_pruning.direct_layers import torch_kind
from secateurs.parameters.layer_kinds import EVERY_KIND, Conv1D
from secateurs.parameters.model_contents import ModelContents

_WITH_KERNELS = (nn.Linear, Conv1D, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class LayerForm:
    """What a linear layer or a convolution computes.

    Attributes:
        matrix: the weight, detached, (outputs, inputs), where the inputs of a convolution are its
            channels times its kernel's positions.
        kernel: the size of the kernel; empty for a linear layer.
        stride: of a convolution.
        dilation: of a convolution.
        padding: as `torch.nn.functional.pad` takes it; empty if there is none.
        groups: of a convolution.
        channels_last: whether a convolution's weight has its channels last in memory; its output
            has then, too.
    """

    matrix: Tensor
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    groups: int = 1
    channels_last: bool = False

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution."""
        return bool(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """Whether each output pixel is computed from the input pixel at the same position."""
        return not self.padding and all(size == 1 for size in (*self.kernel, *self.stride))

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether the kernels work for an input of this shape: not empty, and in a batch."""
        return 0 not in shape and (not self.kernel or len(shape) == len(self.kernel) + 2)

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """How many pixels a convolution gives for so many, padding included."""
        geometry = zip(size, self.kernel, self.stride, self.dilation, strict=True)
        return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in geometry)


def why_not_form(module: nn.Module) -> str:
    """Why a layer is left as it is; empty if `form_of` describes it."""
    if not isinstance(module, _WITH_KERNELS):
        return f"layers of type {type(module).__name__} have no sparse kernel"
    cls = type(module)
    if torch_kind(cls) is None and not (isinstance(module, Conv1D) and cls.__name__ == "Conv1D"):
        return "its class has a forward of its own"
    if "forward" in vars(module):
        return "its forward was replaced on the instance"
    why = _why_not_weight(module._parameters.get("weight"))
    if why:
        return why
    if "bias" not in module._parameters:
        return "its bias is computed: remove its parametrization or torch.nn.utils.prune first"
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return "it pads with other values than zeros"
    return ""


def _why_not_weight(weight: Tensor | None) -> str:
    if weight is None:
        return "its weight is computed: remove its parametrization or torch.nn.utils.prune first"
    if isinstance(weight, UninitializedParameter):
        return "it is not initialised yet: run one forward pass of the lazy model first"
    if type(weight) is not nn.Parameter:
        return "its weight is a tensor subclass"
    if weight.is_meta:
        return "it is on the meta device and has no values: load the weights first"
    if weight.layout != torch.strided:
        return "its weight is stored as a sparse tensor: use to_dense() of it"
    if weight.is_inference():
        return "its weight was made in inference mode, where changes cannot be noticed"
    return "" if weight.numel() else "it has no weights"


def form_of(module: nn.Module) -> LayerForm:
    """Describe a layer for which `why_not_form` is empty."""
    weight = cast(Tensor, module._parameters["weight"]).detach()
    if isinstance(module, Conv1D):
        return LayerForm(weight.t())
    if isinstance(module, nn.Linear):
        return LayerForm(weight)
    layer = cast(Any, module)
    padding = tuple(
        layer._reversed_padding_repeated_twice
        if isinstance(layer.padding, str)
        else (size for one in reversed(layer.padding) for size in (one, one))
    )
    return LayerForm(
        _ungrouped(weight, layer.groups).flatten(1),
        layer.kernel_size,
        layer.stride,
        layer.dilation,
        padding if any(padding) else (),
        layer.groups,
        weight.stride(1) == 1 and weight.stride(-1) == weight.shape[1] > 1,
    )


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """The weight of a grouped convolution as that of one group, with zeros between the groups."""
    if groups == 1:
        return weight
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    whole = weight.new_zeros((weight.shape[0], inputs * groups, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        whole[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return whole


def plain_layers(contents: ModelContents) -> tuple[list[tuple[str, nn.Module]], dict[str, str]]:
    """The layers that may be replaced, and the others with the reason, by name."""
    layers: list[tuple[str, nn.Module]] = []
    left: dict[str, str] = {}
    for name, module in contents.modules:
        if isinstance(module, EVERY_KIND):
            why = why_not_form(module)
            if why:
                left[name] = why
            else:
                layers.append((name, module))
    return layers, left
