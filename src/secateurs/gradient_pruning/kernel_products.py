"""Sparse products for the backward pass of convolutions of which few kernels are kept."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from secateurs.gradient_pruning.sparse_products import MaskPattern, keeps_few, multiplies, rows_of

# Measured, one thread of an x86 machine with MKL, 3 x 3 kernels, 64 to 256 channels, batches of 1
# and 16, against oneDNN: with 5% of the kernels kept, the gradient to the input comes 1.1 to 1.5
# times as fast, that to the kept kernels 1.2 to 1.6 times; with 2%, 1.5 to 3 times. With 10% both
# take longer, and so do products smaller than this.
_LARGEST_SHARE = 0.05
_FEWEST_PRODUCTS = 100_000_000


class SparseKernels(MaskPattern):
    r"""Where a mask keeps whole kernels of a two-dimensional convolution of stride 1.

    With P the padded images, of width u, each image and channel is written into a frame of P's
    size, the frames of all images one behind the other. Then a step of (a, b) in the kernel is a
    step of s = a u + b in a row, and the convolution is a sum of matrix products:

    .. math:: Y = \sum_{a,b} W_{ab} P_{\cdot, s:},\quad
              \partial P = \sum_{a,b} W_{ab}^T \partial Y_{\cdot, -s:},\quad
              \partial W_{ab} = \partial Y\, P_{\cdot, s:}^T

    each with the same sparse pattern of kernels. The frames of the output are zero where the
    kernel would reach into the next row or image.

    The arguments are those of `MaskPattern`; the mask is True where the kernel is kept.
    """

    def pays(self, x: Tensor, weight: Tensor) -> bool:
        """Whether the products are large enough for sparse ones to be faster."""
        products = x.numel() // max(x.shape[-3], 1) * weight.numel()
        large = products >= _FEWEST_PRODUCTS and x.is_contiguous()
        return large and multiplies(x, weight)

    def to_input(self, grad: Tensor, weight: Tensor, x: Tensor, padding: Sequence[int]) -> Tensor:
        """The gradient to the input, of that to the output; both (images, channels, ...)."""
        frame = _Frame(x, padding)
        last = frame.step(weight.shape[2] - 1, weight.shape[3] - 1)
        flows = frame.written(grad, (0, 0), before=last)
        found = x.new_zeros(x.shape[1], frame.length)
        for a, b in product(*map(range, weight.shape[2:])):
            start = last - frame.step(a, b)
            matrix = self.transposed(weight[self.outputs, self.inputs, a, b])
            torch.addmm(found, matrix, flows[:, start : start + frame.length], out=found)
        return frame.read(found, padding, x.shape)

    def to_weight(self, grad: Tensor, weight: Tensor, x: Tensor, padding: Sequence[int]) -> Tensor:
        """The gradient to the kept kernels, in the weight's shape, with zeros elsewhere."""
        frame = _Frame(x, padding)
        last = frame.step(weight.shape[2] - 1, weight.shape[3] - 1)
        flows, inputs = frame.written(grad, (0, 0)), frame.written(x, padding, after=last)
        found = torch.zeros_like(weight)
        rows, columns = rows_of(self.empty), self.empty.col_indices()
        for a, b in product(*map(range, weight.shape[2:])):
            start = frame.step(a, b)
            shifted = inputs[:, start : start + frame.length]
            kept = torch.sparse.sampled_addmm(self.empty, flows, shifted.mT, beta=0.0)
            found[rows, columns, a, b] = kept.values()
        return found


def kernel_pattern(weight: Tensor, keep: Tensor) -> SparseKernels | None:
    """The pattern of a mask of whole kernels; None where no sparse product pays."""
    if weight.dim() != 4 or keep.shape[:2] != weight.shape[:2]:
        return None
    sides = zip(keep.shape[2:], keep.stride()[2:], strict=True)
    if any(size > 1 and stride for size, stride in sides):
        return None  # not one of kernels
    kernels = keep[:, :, 0, 0].contiguous()
    few = keeps_few(weight, kernels, _LARGEST_SHARE)
    return SparseKernels(kernels, weight.dtype) if few else None


class _Frame:
    """The frames of the padded images of an input.

    Args:
        x: (images, channels, height, width).
        padding: of height and width.
    """

    def __init__(self, x: Tensor, padding: Sequence[int]):
        self._images = x.shape[0]
        self._height, self._width = x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1]
        self.length = self._images * self._height * self._width

    def step(self, a: int, b: int) -> int:
        """How far apart in a row of frames two positions are."""
        return a * self._width + b

    def written(
        self, values: Tensor, corner: Sequence[int], before: int = 0, after: int = 0
    ) -> Tensor:
        """(channels, frames), with values from a corner of each frame on, and zeros elsewhere."""
        rows = values.new_zeros(values.shape[1], before + self.length + after)
        inside = self._cut(rows[:, before : before + self.length], corner, values.shape)
        inside.copy_(values.transpose(0, 1))
        return rows

    def read(self, rows: Tensor, corner: Sequence[int], shape: Sequence[int]) -> Tensor:
        """What `written` has written."""
        return self._cut(rows, corner, shape).transpose(0, 1).contiguous()

    def _cut(self, rows: Tensor, corner: Sequence[int], shape: Sequence[int]) -> Tensor:
        frames = rows.unflatten(1, (self._images, self._height, self._width))
        return frames.narrow(2, corner[0], shape[2]).narrow(3, corner[1], shape[3])
