"""Calls of layer functions: inputs, outputs and weight as matrices.

They are read from the arguments that torch's function gets, so it makes no difference how a module
has padded or cast its input before.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from secateurs.parameters.weight_matrix import WeightMatrix

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_CONVOLUTION[:5], "output_padding", "groups", "dilation")
_NORMALISING = ("training", "momentum", "eps")
_SIGNATURES: dict[Any, tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    torch.conv1d: _CONVOLUTION,
    torch.conv2d: _CONVOLUTION,
    torch.conv3d: _CONVOLUTION,
    torch.conv_transpose1d: _TRANSPOSED,
    torch.conv_transpose2d: _TRANSPOSED,
    torch.conv_transpose3d: _TRANSPOSED,
    torch.addmm: ("bias", "input", "weight"),  # transformers' Conv1D, whose weight is (in, out)
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var", *_NORMALISING),
    F.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", *_NORMALISING),
}
"""The functions of layers, and the names of their arguments."""


@dataclass(frozen=True)
class LayerCall:
    """One call of a function of a layer.

    Attributes:
        function: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    function: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @staticmethod
    def is_known(function: Any) -> bool:
        """Whether a function is that of a layer."""
        return function in _SIGNATURES

    def __call__(self) -> Tensor:
        """Call the function."""
        return self.function(*self.args, **self.kwargs)

    def argument(self, name: str, default: Any = None) -> Any:
        """An argument by its name, positional or not."""
        if name in self.kwargs:
            return self.kwargs[name]
        index = _SIGNATURES[self.function].index(name)
        return self.args[index] if index < len(self.args) else default

    @property
    def input(self) -> Tensor:
        """The layer's input."""
        return self.argument("input")

    @property
    def weight(self) -> Tensor | None:
        """The tensor that identifies the layer: its weight; of BatchNorm the running mean."""
        return self.argument("running_mean" if self.is_batch_norm else "weight")

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution, transposed or not."""
        return _SIGNATURES[self.function] is _CONVOLUTION or self.is_transposed

    @property
    def is_transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return _SIGNATURES[self.function] is _TRANSPOSED

    @property
    def is_batch_norm(self) -> bool:
        """Whether it is BatchNorm."""
        return self.function in (torch.batch_norm, F.batch_norm)

    @property
    def groups(self) -> int:
        """The number of groups; 1 but for convolutions."""
        return self.argument("groups", 1) if self.is_convolution else 1

    def positions(self, output: Tensor) -> int:
        """How many values an output channel has for one image."""
        if not self.is_convolution:
            return 1
        return math.prod(output.shape[-self._dimensions :])

    def blocks(
        self, output: Tensor | None = None, chosen: Tensor | None = None, most: int = 2**22
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Inputs and outputs as matrices, of a few images at a time.

        Args:
            output: the layer's output; without it the second matrix is None.
            chosen: which positions of a convolution's output are used; default all.
            most: about how many numbers a block has.

        Yields:
            The inputs of each value, (groups, values, inputs), in the order of the weight; and the
            values, (groups, values, outputs).
        """
        if not self.is_convolution:
            yield _as_rows(self.input), None if output is None else _as_rows(output)
            return
        size = self._dimensions
        images = _channels_last(self.input, size)
        values = None if output is None else _channels_last(output, size).flatten(1, -2)
        positions = images[0, ..., 0].numel() if chosen is None else len(chosen)
        each = images.shape[-1] * math.prod(self._kernel) * positions
        step = max(1, most // max(each, 1))
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            rows = self._grouped(self._patches(images[part], chosen))
            if values is None:
                yield rows, None
                continue
            flat = values[part]
            yield rows, self._grouped(flat if chosen is None else flat[:, chosen])

    def _grouped(self, values: Tensor) -> Tensor:
        """Reshape (images, positions, channels) to (groups, values, channels of a group)."""
        split = values.flatten(0, 1).unflatten(1, (self.groups, -1))
        return split.transpose(0, 1)

    @property
    def layout(self) -> WeightMatrix:
        """Which elements of the weight are multiplied with which inputs."""
        return WeightMatrix(self.groups, self.is_transposed or self.function is torch.addmm)

    def matrix(self, weight: Tensor) -> Tensor:
        """A weight as (groups, outputs, inputs)."""
        return self.layout.matrix(weight)

    def unmatrix(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The weight of a matrix, which is the inverse of `matrix`."""
        return self.layout.weight(matrix, tuple(like.shape))

    @property
    def _dimensions(self) -> int:
        return len(self._kernel)

    @property
    def _kernel(self) -> tuple[int, ...]:
        return () if self.weight is None else tuple(self.weight.shape[2:])

    def _patches(self, images: Tensor, chosen: Tensor | None) -> Tensor:
        """The inputs of each output: (images, positions, channels times kernel positions).

        Args:
            images: with channels last.
            chosen: positions of the output.
        """
        size, kernel = self._dimensions, self._kernel
        stride = _several(self.argument("stride", 1), size)
        dilation = _several(self.argument("dilation", 1), size)
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = self._padding(size, reach)
        if self.is_transposed:
            images, stride = _spaced(images, stride), (1,) * size
        images = F.pad(images, [0, 0, *padding])
        steps, pixels = images.stride()[1:-1], images.shape[1:-1]
        positions = [len(range(0, n - r, s)) for n, r, s in zip(pixels, reach, stride, strict=True)]
        # A view that has, for each position, the inputs in the order of the weight.
        windows = images.as_strided(
            (len(images), *positions, images.shape[-1], *kernel),
            (
                images.stride(0),
                *(a * b for a, b in zip(steps, stride, strict=True)),
                images.stride(-1),
                *(a * b for a, b in zip(steps, dilation, strict=True)),
            ),
        )
        if self.is_transposed:  # which applies its kernel in reverse
            windows = windows.flip(list(range(-size, 0)))
        if chosen is None:
            return windows.flatten(1, size).flatten(2)
        return windows[(slice(None), *torch.unravel_index(chosen, positions))].flatten(2)

    def _padding(self, size: int, reach: list[int]) -> list[int]:
        given = self.argument("padding", 0)
        if self.is_transposed:
            each = zip(reach, _several(given, size), strict=True)
            more = _several(self.argument("output_padding", 0), size)
            pairs = [(r - p, r - p + extra) for (r, p), extra in zip(each, more, strict=True)]
        elif given == "same":
            pairs = [(total // 2, total - total // 2) for total in reach]
        else:
            each = _several(0 if given == "valid" else given, size)
            pairs = [(one, one) for one in each]
        return [one for pair in reversed(pairs) for one in pair]


def _several(value: Any, size: int) -> tuple[int, ...]:
    """A number for each dimension, of a single one or of several."""
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * size if len(given) == 1 else given


def _spaced(images: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Images with stride - 1 zeros between positions, as a transposed convolution reads them."""
    if set(stride) == {1}:
        return images
    sizes = zip(images.shape[1:-1], stride, strict=True)
    length = [(n - 1) * s + 1 for n, s in sizes]
    spaced = images.new_zeros(len(images), *length, images.shape[-1])
    spaced[(slice(None), *(slice(None, None, s) for s in stride))] = images
    return spaced


def _channels_last(values: Tensor, size: int) -> Tensor:
    """(images, positions ..., channels), of a convolution's input or output."""
    return values.reshape(-1, *values.shape[-size - 1 :]).movedim(1, -1)


def _as_rows(values: Tensor) -> Tensor:
    return values.reshape(1, -1, values.shape[-1])
