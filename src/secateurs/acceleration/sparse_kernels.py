"""Kernels: other forwards of linear layers and convolutions, which make use of their zeros.

Each is made of a layer's weight, and called with an input and a bias. They give what the dense
layer gives, up to the order in which sums are rounded, for inputs of any size. Which one is fast
depends on the machine, on the shapes and on the zeros: nothing here decides that.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from secateurs._tensors.compressed_rows import csr_of, sparse_product
from secateurs._tensors.memory_order import gathered
from secateurs.acceleration.layer_form import LayerForm

LEAST_ZEROS = 0.5
"""A sparse product is not tried with fewer zeros: it would read as much as the dense one."""

_BLOCK = 64  # inputs of a linear layer
_MOST_LEFT = 0.9  # of a layer, below which leaving out empty rows and columns is tried
_CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the dimensions of the input


class Kernel(ABC):
    """A forward of one layer; a subclass for each algorithm.

    Args:
        form: the layer.
    """

    def __init__(self, form: LayerForm):
        self.outputs, self.inputs = form.matrix.shape
        self._zeros = form.matrix.new_zeros(self.outputs)

    @abstractmethod
    def __call__(self, values: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output.

        Args:
            values: as the layer takes it.
            bias: the layer's bias as it is now.
        """


class SparseLinear(Kernel):
    """A linear layer as a sparse matrix times the inputs.

    Args:
        form: the layer.
        block: how many inputs are multiplied at once, so that they stay in the processor's cache;
            0 for all.
        contiguous: whether the output is contiguous; else it is left as the product gives it.
    """

    def __init__(self, form: LayerForm, *, block: int = 0, contiguous: bool = True):
        super().__init__(form)
        self._matrix = csr_of(form.matrix)
        self.block, self.contiguous = block, contiguous

    def __call__(self, values: Tensor, bias: Tensor | None) -> Tensor:
        """As `Kernel.__call__`."""
        rows = values.reshape(-1, self.inputs)
        shape = (*values.shape[:-1], self.outputs)
        if rows.shape[0] == 1:  # a product with a vector is up to three times as fast
            given = self._zeros if bias is None else bias
            return torch.addmv(given, self._matrix, rows[0]).view(shape)
        if not self.block:
            output = sparse_product(self._matrix, rows.t().contiguous(), bias).t()
            return (output.contiguous() if self.contiguous else output).view(shape)
        output = rows.new_empty((len(rows), self.outputs))
        for few, out in zip(rows.split(self.block), output.split(self.block), strict=True):
            unbiased = sparse_product(self._matrix, few.t().contiguous()).t()
            # The bias is added while the product is transposed in memory.
            out.copy_(unbiased) if bias is None else torch.add(unbiased, bias, out=out)
        return output.view(shape)


class SemiStructuredLinear(Kernel):
    """A linear layer with two zeros among four neighbours, on a GPU that computes these faster."""

    def __init__(self, form: LayerForm):
        super().__init__(form)
        with torch.no_grad():
            self._matrix = torch.sparse.to_sparse_semi_structured(form.matrix.contiguous())

    def __call__(self, values: Tensor, bias: Tensor | None) -> Tensor:
        """As `Kernel.__call__`."""
        return F.linear(values, self._matrix, bias)


class _ConvolutionKernel(Kernel):
    """A convolution of padded images, the pixels of one image after the other in memory."""

    def __init__(self, form: LayerForm):
        super().__init__(form)
        self._form = form
        self.channels = self.inputs // prod(form.kernel)

    def __call__(self, values: Tensor, bias: Tensor | None) -> Tensor:
        """As `Kernel.__call__`."""
        images = F.pad(values, self._form.padding) if self._form.padding else values
        output = self.convolve(images.contiguous(), bias)
        return output.contiguous(memory_format=_format_of(values, self._form))

    @abstractmethod
    def convolve(self, images: Tensor, bias: Tensor | None) -> Tensor:
        """The output for images that are padded and contiguous."""


class UnfoldedConvolution(_ConvolutionKernel):
    """A convolution as a sparse matrix times the pixels that each output pixel is computed from.

    Args:
        form: the layer.
        joint: whether all images are multiplied at once, not one after the other.
    """

    def __init__(self, form: LayerForm, *, joint: bool = False):
        super().__init__(form)
        self._matrix, self._joint = csr_of(form.matrix), joint

    def convolve(self, images: Tensor, bias: Tensor | None) -> Tensor:
        """As `_ConvolutionKernel.convolve`."""
        count, size = images.shape[0], self._form.output_size(images.shape[2:])
        shape = (count, self.outputs, *size)
        if count == 1:
            columns = self._columns(images[0], size)
            return sparse_product(self._matrix, columns, bias).view(shape)
        if self._joint:
            columns = self._columns(images.transpose(0, 1), size)
            several = sparse_product(self._matrix, columns, bias)
            return several.view(self.outputs, count, *size).transpose(0, 1).contiguous()
        output = images.new_empty((count, self.outputs, prod(size)))
        for image, out in zip(images, output, strict=True):
            sparse_product(self._matrix, self._columns(image, size), bias, out=out)
        return output.view(shape)

    def _columns(self, images: Tensor, size: tuple[int, ...]) -> Tensor:
        """The inputs of each output pixel, (inputs, pixels); nothing is copied where k is 1.

        Args:
            images: (channels, *pixels) or (channels, images, *pixels).
            size: how many output pixels there are.
        """
        form, several = self._form, images.dim() - len(size) - 1
        channel, *between = images.stride()[: 1 + several]
        steps = images.stride()[1 + several :]
        taps = [d * s for d, s in zip(form.dilation, steps, strict=True)]
        moves = [n * s for n, s in zip(form.stride, steps, strict=True)]
        view = images.as_strided(
            (images.shape[0], *form.kernel, *images.shape[1 : 1 + several], *size),
            (channel, *taps, *between, *moves),
        )
        return view.reshape(self.inputs, -1)


class ShiftedConvolution(_ConvolutionKernel):
    """A convolution as the sum of a sparse matrix times shifted pixels for each kernel position.

    No pixel is copied: in a row of padded images after each other, a shift is another beginning.
    Pixels computed across the images' edges are left out at the end. Strides must be 1.
    """

    def __init__(self, form: LayerForm):
        super().__init__(form)
        taps = form.matrix.view(self.outputs, self.channels, -1).unbind(2)
        self._taps = [(i, csr_of(tap)) for i, tap in enumerate(taps) if bool(tap.any())]

    def convolve(self, images: Tensor, bias: Tensor | None) -> Tensor:
        """As `_ConvolutionKernel.convolve`."""
        size = self._form.output_size(images.shape[2:])
        steps = images.stride()[2:]
        length = 1 + sum((n - 1) * s for n, s in zip(size, steps, strict=True))
        given = self._zeros if bias is None else bias
        output = given[:, None].expand(self.outputs, length).repeat(images.shape[0], 1, 1)
        offsets = self._offsets(steps)
        for image, out in zip(images.flatten(2), output, strict=True):
            for tap, matrix in self._taps:
                start = offsets[tap]
                torch.addmm(out, matrix, image[:, start : start + length], out=out)
        per_image, per_channel, _ = output.stride()
        shape = (images.shape[0], self.outputs, *size)
        return output.as_strided(shape, (per_image, per_channel, *steps)).contiguous()

    def _offsets(self, steps: tuple[int, ...]) -> list[int]:
        """How far each position of the kernel is from the first, in pixels."""
        geometry = zip(self._form.kernel, self._form.dilation, steps, strict=True)
        sides = (range(0, size * d * step, d * step) for size, d, step in geometry)
        return [sum(position) for position in product(*sides)]


class SmallerLayer(Kernel):
    """A dense layer without the outputs and inputs (of a convolution: channels) that are zero."""

    def __init__(self, form: LayerForm):
        super().__init__(form)
        self._form = form
        self.rows, self.columns = used(form)
        whole = form.matrix.view(self.outputs, -1, *form.kernel)
        self._weight = whole[self.rows][:, self.columns].contiguous()
        self._all_rows = len(self.rows) == self.outputs
        self._all_columns = len(self.columns) == whole.shape[1]

    def __call__(self, values: Tensor, bias: Tensor | None) -> Tensor:
        """As `Kernel.__call__`."""
        bias = self._zeros if bias is None else bias
        axis = 1 if self._form.is_convolution else values.dim() - 1
        few = values if self._all_columns else gathered(values, self.columns, axis)
        small = self._layer(few, bias if self._all_rows else bias[self.rows])
        layout = _format_of(values, self._form)
        if self._all_rows:
            return small.contiguous(memory_format=layout)
        shape = list(small.shape)
        shape[axis] = self.outputs
        along = bias.view(-1, *(1 for _ in shape[axis + 1 :])).expand(shape)
        filled = along.clone(memory_format=layout)  # never the bias itself
        filled.index_copy_(axis, self.rows, small)
        return filled

    def _layer(self, values: Tensor, bias: Tensor) -> Tensor:
        form = self._form
        if not form.is_convolution:
            return F.linear(values, self._weight.flatten(1), bias)
        images = F.pad(values, form.padding) if form.padding else values
        convolve = _CONVOLVE[values.dim()]
        return convolve(images, self._weight, bias, form.stride, 0, form.dilation)


def used(form: LayerForm) -> tuple[Tensor, Tensor]:
    """The outputs, and the inputs or input channels, that have a weight other than zero."""
    channels = form.matrix.view(len(form.matrix), -1, prod(form.kernel)) != 0
    by_channel = channels.any(2)
    return by_channel.any(1).nonzero()[:, 0], by_channel.any(0).nonzero()[:, 0]


def kernels_for(form: LayerForm, shape: tuple[int, ...]) -> dict[str, Callable[[], Kernel]]:
    """The kernels of a layer that may be faster than dense: by name, functions that make them.

    Args:
        form: the layer.
        shape: of its input.
    """
    found: dict[str, Callable[[], Kernel]] = {}
    if not form.takes(shape):
        return found
    matrix = form.matrix
    kept = int(torch.count_nonzero(matrix))
    if kept <= (1 - LEAST_ZEROS) * matrix.numel() / form.groups:
        found |= dict(_sparse(form, shape))
    if form.groups == 1 and kept:
        rows, columns = used(form)
        left = len(rows) * len(columns) * prod(form.kernel)
        if left <= _MOST_LEFT * matrix.numel():
            found["smaller"] = partial(SmallerLayer, form)
    return found


def _sparse(form: LayerForm, shape: tuple[int, ...]) -> Iterator[tuple[str, Callable[[], Kernel]]]:
    if not form.is_convolution:
        yield "csr", partial(SparseLinear, form)
        if prod(shape[:-1]) > _BLOCK:
            yield "csr in blocks", partial(SparseLinear, form, block=_BLOCK)
        if form.matrix.is_cuda and _is_two_of_four(form.matrix):
            yield "2:4", partial(SemiStructuredLinear, form)
        return
    name = "csr" if form.is_pointwise else "im2col csr"
    yield name, partial(UnfoldedConvolution, form)
    if shape[0] > 1:
        yield f"{name}, images joined", partial(UnfoldedConvolution, form, joint=True)
    if not form.is_pointwise and all(step == 1 for step in form.stride):
        yield "shifted csr", partial(ShiftedConvolution, form)


def _is_two_of_four(matrix: Tensor) -> bool:
    """Whether of four neighbours in a row at most two are kept."""
    if matrix.shape[1] % 4:
        return False
    return bool(((matrix.reshape(-1, 4) != 0).sum(1) <= 2).all())


def _format_of(values: Tensor, form: LayerForm) -> torch.memory_format:
    """The order in memory that torch gives a layer's output for an input."""
    if len(form.kernel) != 2:
        return torch.contiguous_format
    last = values.is_contiguous(memory_format=torch.channels_last) and not values.is_contiguous()
    return torch.channels_last if last or form.channels_last else torch.contiguous_format
