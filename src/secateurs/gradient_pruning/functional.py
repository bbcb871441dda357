"""Linear operations whose input gradient uses another weight than their forward pass.

For ``y = f(x, w) + b``, linear in x and in w, with a mask ``keep``:

    y      = f(x, w) + b                bit for bit what the dense operation gives
    dL/dx  = f^T(dL/dy, keep * w)       computed with the masked weight
    dL/dw  = dense                      as if nothing were masked; or, on request, keep * dense

The mask is saved in the graph, so later masks do not change the backward pass of an earlier forward
pass. The masked weight is computed in the backward pass, for one layer at a time. Where whole
outputs are pruned, the backward pass computes a smaller dense product of the others.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from secateurs._tensors.memory_order import gathered
from secateurs.errors import InvalidArgumentError
from secateurs.gradient_pruning.kernel_products import SparseKernels
from secateurs.gradient_pruning.masked_weight import (
    Gradients,
    autocast,
    callable_of,
    flat,
    kept_outputs,
    masked,
    may_gather,
    spread,
)
from secateurs.gradient_pruning.saved_weight import BackwardWeight, is_ordinary, is_plain
from secateurs.gradient_pruning.sparse_products import SparsePattern, multiplies_in_backward

Options = tuple[list[int], list[int], list[int], bool, list[int], int]
"""Of a convolution: stride, padding, dilation, whether it is transposed, output padding, groups."""


class _Linear(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        keep: Tensor,  # noqa: ARG004
        bias: Tensor | None,
        masked_gradient: bool,  # noqa: ARG004
        sparse: SparsePattern | None,  # noqa: ARG004
    ) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, weight, keep, _, ctx.masked_gradient, ctx.sparse = inputs
        ctx.save_for_backward(x, weight, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, keep = ctx.saved_tensors
        need_x, need_weight, _, need_bias, *_ = ctx.needs_input_grad
        rows, points = flat(grad), flat(x)
        need_part = need_weight and ctx.masked_gradient
        kept = grad_x = grad_weight = None
        if need_x or need_part:
            kept = kept_outputs(weight, keep, 0, len(points) * weight.numel())
        if kept is not None:
            few = gathered(rows, kept, 1)
            if need_x:
                grad_x = (few @ gathered(weight, kept, 0)).view(x.shape)
            if need_part:
                grad_weight = spread(few.mT @ points, kept, 0, weight)
        elif ctx.sparse is not None and multiplies_in_backward(grad):
            if need_x:
                grad_x = ctx.sparse.to_input(rows, weight).view(x.shape)
            if need_part:
                grad_weight = ctx.sparse.to_weight(rows, points)
        elif need_x:
            grad_x = grad @ masked(weight, keep)
        if need_weight and grad_weight is None:
            grad_weight = rows.mT @ points
            grad_weight = masked(grad_weight, keep) if ctx.masked_gradient else grad_weight
        return grad_x, grad_weight, None, rows.sum(0) if need_bias else None, None, None


class _Convolution(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        keep: Tensor,  # noqa: ARG004
        bias: Tensor | None,
        masked_gradient: bool,  # noqa: ARG004
        options: Options,
        sparse: SparseKernels | None,  # noqa: ARG004
    ) -> Tensor:
        return torch.convolution(x, weight, bias, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, weight, keep, _, ctx.masked_gradient, ctx.options, ctx.sparse = inputs
        ctx.save_for_backward(x, weight, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, keep = ctx.saved_tensors
        need_x, need_weight, _, need_bias, *_ = ctx.needs_input_grad
        _, padding, _, transposed, _, groups = ctx.options
        need_part = need_weight and ctx.masked_gradient
        dense = partial(_gradients, ctx.options, grad, x)
        kept = grad_x = grad_weight = grad_bias = None
        sparse = ctx.sparse if ctx.sparse is not None and multiplies_in_backward(grad) else None
        dimension = int(transposed)  # that of the outputs, in the weight
        if sparse is None and groups == 1 and (need_x or need_part):
            large = x if transposed else grad
            products = large.numel() // large.shape[1] * weight.numel() if large.numel() else 0
            kept = kept_outputs(weight, keep, dimension, products)
        if sparse is not None:
            grad_x = sparse.to_input(grad, weight, x, padding) if need_x else None
            grad_weight = sparse.to_weight(grad, weight, x, padding) if need_part else None
        elif kept is not None:
            few, part = gathered(grad, kept, 1), gathered(weight, kept, dimension)
            grad_x, of_part, _ = _gradients(ctx.options, few, x, part, need_x, need_part, False)
            grad_weight = spread(of_part, kept, dimension, weight) if need_part else None
        else:
            used = masked(weight, keep) if need_x else weight
            grad_x, grad_weight, grad_bias = dense(used, need_x, need_weight, need_bias)
            if grad_weight is not None and ctx.masked_gradient:
                grad_weight = masked(grad_weight, keep)
            return grad_x, grad_weight, None, grad_bias, None, None, None
        if need_weight and not need_part:
            _, grad_weight, grad_bias = dense(weight, False, True, need_bias)
        elif need_bias:
            grad_bias = grad.sum((0, *range(2, grad.dim())))
        return grad_x, grad_weight, None, grad_bias, None, None, None


def _gradients(
    options: Options, grad: Tensor, x: Tensor, weight: Tensor, *needed: bool
) -> tuple[Any, Any, Any]:
    """The gradients of a convolution to its input, weight and bias that are needed."""
    if not any(needed):
        return None, None, None
    if not weight.numel():  # all outputs are pruned
        return torch.zeros_like(x), torch.zeros_like(weight), None
    return torch.ops.aten.convolution_backward.default(
        grad, x, weight, [grad.shape[1]], *options, needed
    )


_linear, _convolution = callable_of(_Linear), callable_of(_Convolution)


def linear(
    x: Tensor,
    weight: Tensor,
    keep: Tensor,
    bias: Tensor | None = None,
    *,
    masked_gradient: bool = False,
    sparse: SparsePattern | None = None,
) -> Tensor:
    """`torch.nn.functional.linear` whose input gradient uses ``keep * weight``.

    Args:
        x: (..., in).
        weight: (out, in), used by the forward pass.
        keep: bool, broadcasts to (out, in); True where the gradient to ``x`` uses the weight.
        bias: (out,) or None.
        masked_gradient: whether pruned elements of the weight get no gradient of their own.
        sparse: of the mask, where sparse products are to be used.

    Returns:
        (..., out).
    """
    plain = sparse is None and is_plain(x) and is_ordinary(weight, keep)
    if plain and not may_gather(weight, keep, 0, x.numel() * weight.shape[0]):
        output = F.linear(x, weight, bias)
        if BackwardWeight(weight, keep, masked_gradient).prune(x, output):
            return output
    return _linear(*autocast(x, weight, keep, bias), masked_gradient, sparse)


def convolution(dims: int, transposed: bool) -> Callable[..., Tensor]:
    """Return the masked counterpart of ``torch.convNd`` or ``torch.conv_transposeNd``.

    Args:
        dims: spatial dimensions, 1 to 3.
        transposed: whether it is a transposed convolution.

    Returns:
        A function with the arguments of the torch function, in their order, and the mask after
        the weight; one that is not transposed takes a ``sparse`` pattern of its mask, too, which
        counts where `takes_kernels` is true.
    """

    def masked_conv(
        x: Tensor,
        weight: Tensor,
        keep: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        *,
        masked_gradient: bool = False,
        sparse: SparseKernels | None = None,
    ) -> Tensor:
        step, wide = _each(stride, dims), _each(dilation, dims)
        x, sides = _padded(x, padding, weight.shape[2:], step, wide)
        options = step, sides, wide, False, [0] * dims, groups
        usable = sparse if takes_kernels(step, wide, groups) else None
        return _convolve(x, weight, keep, bias, masked_gradient, options, usable)

    def masked_conv_transpose(
        x: Tensor,
        weight: Tensor,
        keep: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
        *,
        masked_gradient: bool = False,
    ) -> Tensor:
        step, sides, wide, more = (
            _each(v, dims) for v in (stride, padding, dilation, output_padding)
        )
        options = step, sides, wide, True, more, groups
        return _convolve(x, weight, keep, bias, masked_gradient, options)

    return masked_conv_transpose if transposed else masked_conv


def _convolve(
    x: Tensor,
    weight: Tensor,
    keep: Tensor,
    bias: Tensor | None,
    masked_gradient: bool,
    options: Options,
    sparse: SparseKernels | None = None,
) -> Tensor:
    single = x.dim() == weight.dim() - 1  # one image without a batch dimension
    tensors = x, weight, keep, bias = autocast(x.unsqueeze(0) if single else x, weight, keep, bias)
    plain = sparse is None and is_plain(x) and is_ordinary(weight, keep)
    # How many multiplications a smaller product may save; none where there are groups.
    most = x.numel() // max(x.shape[1], 1) * weight.numel() if options[-1] == 1 else 0
    if plain and not may_gather(weight, keep, int(options[3]), most):
        y = torch.convolution(x, weight, bias, *options)
        if BackwardWeight(weight, keep, masked_gradient).prune(x, y):
            return y.squeeze(0) if single else y
    y = _convolution(*tensors, masked_gradient, options, sparse)
    return y.squeeze(0) if single else y


def takes_kernels(stride: int | Sequence[int], dilation: int | Sequence[int], groups: int) -> bool:
    """Whether a convolution is of the kind that `SparseKernels` computes."""
    return groups == 1 and {*_each(stride, 2), *_each(dilation, 2)} == {1}


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    """The value of each dimension; a single one is that of all."""
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def _padded(
    x: Tensor,
    padding: int | str | Sequence[int],
    kernel: Sequence[int],
    stride: list[int],
    dilation: list[int],
) -> tuple[Tensor, list[int]]:
    """The padding as one number for each dimension; ``x`` is padded if its two sides differ."""
    if not isinstance(padding, str):
        return x, _each(padding, len(kernel))
    if padding == "valid":
        return x, [0] * len(kernel)
    if padding != "same" or max(stride) > 1:  # torch refuses both
        raise InvalidArgumentError(
            f"padding={padding!r} with stride={stride}: write 'valid', 'same' with stride 1, "
            "or numbers"
        )
    totals = [d * (size - 1) for d, size in zip(dilation, kernel, strict=True)]
    if any(total % 2 for total in totals):
        x = F.pad(x, [n for total in reversed(totals) for n in (0, total % 2)])
    return x, [total // 2 for total in totals]
