"""Linear operations whose input gradient uses another weight than their forward pass.

For ``y = f(x, w) + b``, linear in x and in w, with a masked weight ``m``:

    y      = f(x, w) + b           bit for bit what the dense operation gives
    dL/dx  = f^T(dL/dy, m)         computed with the masked weight
    dL/dw  = dense                 as if nothing were masked
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Gradients = tuple[Tensor | None, ...]


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, masked: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG004
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, _, masked, _ = inputs
        ctx.save_for_backward(x, masked)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, masked = ctx.saved_tensors
        need_x, need_weight, _, need_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            grad @ masked if need_x else None,
            rows.mT @ x.reshape(-1, x.shape[-1]) if need_weight else None,
            None,
            rows.sum(0) if need_bias else None,
        )


class _Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        masked: Tensor,  # noqa: ARG004
        bias: Tensor | None,
        transposed: bool,
        options: tuple[list[int], ...],
        groups: int,
    ) -> Tensor:
        stride, padding, dilation, output_padding = options
        return torch.convolution(
            x, weight, bias, stride, padding, dilation, transposed, output_padding, groups
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, _, masked, _, ctx.transposed, ctx.options, ctx.groups = inputs
        ctx.save_for_backward(x, masked)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, masked = ctx.saved_tensors
        need_x, need_weight, _, need_bias, *_ = ctx.needs_input_grad
        stride, padding, dilation, output_padding = ctx.options
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad, x, masked, [grad.shape[1]], stride, padding, dilation,
            ctx.transposed, output_padding, ctx.groups, [need_x, need_weight, need_bias],
        )  # fmt: skip
        return grad_x, grad_weight, None, grad_bias, None, None, None


def linear(x: Tensor, weight: Tensor, masked: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` whose input gradient uses ``masked``.

    Args:
        x: (..., in).
        weight: (out, in), used by the forward pass.
        masked: (out, in), used by the gradient to ``x``.
        bias: (out,) or None.

    Returns:
        (..., out).
    """
    return _Linear.apply(*_autocast(x, weight, masked, bias))


def convolution(dims: int, transposed: bool) -> Callable[..., Tensor]:
    """Return the masked counterpart of ``torch.convNd`` or ``torch.conv_transposeNd``.

    Args:
        dims: spatial dimensions, 1 to 3.
        transposed: whether it is a transposed convolution.

    Returns:
        A function with the arguments of the torch function, in their order, and the masked weight
        after the weight.
    """

    def forward(
        x: Tensor,
        weight: Tensor,
        masked: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor:
        wide = _each(dilation, dims)
        x, sides = _padded(x, padding, weight.shape[2:], wide)
        options = (_each(stride, dims), sides, wide, [0] * dims)
        return _convolve(x, weight, masked, bias, False, options, groups)

    def backward(
        x: Tensor,
        weight: Tensor,
        masked: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
    ) -> Tensor:
        options = tuple(_each(v, dims) for v in (stride, padding, dilation, output_padding))
        return _convolve(x, weight, masked, bias, True, options, groups)

    return backward if transposed else forward


def _convolve(
    x: Tensor,
    weight: Tensor,
    masked: Tensor,
    bias: Tensor | None,
    transposed: bool,
    options: tuple[list[int], ...],
    groups: int,
) -> Tensor:
    single = x.dim() == weight.dim() - 1  # one image without a batch dimension
    tensors = _autocast(x.unsqueeze(0) if single else x, weight, masked, bias)
    y = _Convolution.apply(*tensors, transposed, options, groups)
    return y.squeeze(0) if single else y


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def _padded(
    x: Tensor, padding: int | str | Sequence[int], kernel: Sequence[int], dilation: list[int]
) -> tuple[Tensor, list[int]]:
    """Turn ``padding`` into a number for each side; pad here what is uneven, as torch does."""
    if not isinstance(padding, str):
        return x, _each(padding, len(kernel))
    if padding == "valid":
        return x, [0] * len(kernel)
    totals = [d * (size - 1) for d, size in zip(dilation, kernel, strict=True)]
    if any(total % 2 for total in totals):
        x = F.pad(x, [n for total in reversed(totals) for n in (0, total % 2)])
    return x, [total // 2 for total in totals]


def _autocast(
    x: Tensor, weight: Tensor, masked: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Cast as autocast would: a Function must see what its backward pass computes on."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return x, weight, masked, bias
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Tensor) -> Tensor:
        eligible = tensor.is_floating_point() and tensor.dtype != torch.float64
        return tensor.to(dtype) if eligible else tensor

    return cast(x), cast(weight), cast(masked), None if bias is None else cast(bias)
