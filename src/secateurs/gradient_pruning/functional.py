"""Linear operations whose input gradient uses another weight than their forward pass.

For ``y = f(x, w) + b``, linear in x and in w, with a mask ``keep``:

    y      = f(x, w) + b                bit for bit what the dense operation gives
    dL/dx  = f^T(dL/dy, keep * w)       computed with the masked weight
    dL/dw  = dense                      as if nothing were masked

The mask is saved in the graph, so later masks do not change the backward pass of an earlier forward
pass. The masked weight is computed in the backward pass, for one layer at a time.
"""

import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from secateurs.errors import InvalidArgumentError

Gradients = tuple[Tensor | None, ...]


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, keep: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ARG004
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, weight, keep, _ = inputs
        ctx.save_for_backward(x, weight, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, keep = ctx.saved_tensors
        need_x, need_weight, _, need_bias = ctx.needs_input_grad
        rows, points = flat(grad), flat(x)
        return (
            grad @ masked(weight, keep) if need_x else None,
            rows.mT @ points if need_weight else None,
            None,
            rows.sum(0) if need_bias else None,
        )


class _Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        keep: Tensor,  # noqa: ARG004
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
        x, weight, keep, _, ctx.transposed, ctx.options, ctx.groups = inputs
        ctx.save_for_backward(x, weight, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, keep = ctx.saved_tensors
        need_x, need_weight, _, need_bias, *_ = ctx.needs_input_grad
        stride, padding, dilation, output_padding = ctx.options
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad, x, masked(weight, keep) if need_x else weight, [grad.shape[1]],
            stride, padding, dilation, ctx.transposed, output_padding, ctx.groups,
            [need_x, need_weight, need_bias],
        )  # fmt: skip
        return grad_x, grad_weight, None, grad_bias, None, None, None


# ``apply`` reads the signature in every call: without this it takes longer than a small layer.
for _function in (_Linear, _Convolution):
    _function.forward.__signature__ = inspect.signature(_function.forward)


def masked(weight: Tensor, keep: Tensor) -> Tensor:
    """The weight with zeros where it is pruned."""
    # Not `torch.where`, which takes ten times as long on a CPU.
    return weight * keep


def linear(x: Tensor, weight: Tensor, keep: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` whose input gradient uses ``keep * weight``.

    Args:
        x: (..., in).
        weight: (out, in), used by the forward pass.
        keep: bool, broadcasts to (out, in); True where the gradient to ``x`` uses the weight.
        bias: (out,) or None.

    Returns:
        (..., out).
    """
    return _Linear.apply(*autocast(x, weight, keep, bias))


def convolution(dims: int, transposed: bool) -> Callable[..., Tensor]:
    """Return the masked counterpart of ``torch.convNd`` or ``torch.conv_transposeNd``.

    Args:
        dims: spatial dimensions, 1 to 3.
        transposed: whether it is a transposed convolution.

    Returns:
        A function with the arguments of the torch function, in their order, and the mask after
        the weight.
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
    ) -> Tensor:
        step, wide = _each(stride, dims), _each(dilation, dims)
        x, sides = _padded(x, padding, weight.shape[2:], step, wide)
        options = (step, sides, wide, [0] * dims)
        return _convolve(x, weight, keep, bias, False, options, groups)

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
    ) -> Tensor:
        options = tuple(_each(v, dims) for v in (stride, padding, dilation, output_padding))
        return _convolve(x, weight, keep, bias, True, options, groups)

    return masked_conv_transpose if transposed else masked_conv


def _convolve(
    x: Tensor,
    weight: Tensor,
    keep: Tensor,
    bias: Tensor | None,
    transposed: bool,
    options: tuple[list[int], ...],
    groups: int,
) -> Tensor:
    single = x.dim() == weight.dim() - 1  # one image without a batch dimension
    tensors = autocast(x.unsqueeze(0) if single else x, weight, keep, bias)
    y = _Convolution.apply(*tensors, transposed, options, groups)
    return y.squeeze(0) if single else y


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def flat(x: Tensor) -> Tensor:
    """(..., n) as (rows, n)."""
    return x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)


def _padded(
    x: Tensor,
    padding: int | str | Sequence[int],
    kernel: Sequence[int],
    stride: list[int],
    dilation: list[int],
) -> tuple[Tensor, list[int]]:
    """Turn ``padding`` into one number for each dimension; pad ``x`` if its sides differ."""
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


def autocast(
    x: Tensor, weight: Tensor, keep: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Cast as autocast does, outside of the Function: it saves its inputs for the backward pass."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return x, weight, keep, bias
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Tensor) -> Tensor:
        eligible = tensor.is_floating_point() and tensor.dtype != torch.float64
        return tensor.to(dtype) if eligible else tensor

    return cast(x), cast(weight), keep, None if bias is None else cast(bias)


class Dual(NamedTuple):
    """A weight for the forward pass and its mask for the gradient to the input.

    `attention` takes it as a weight; it has the methods that torch's code calls on one.
    """

    weight: Tensor
    keep: Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape of both."""
        return self.weight.shape

    def chunk(self, count: int) -> "list[Dual]":
        """Chunk both along the first dimension."""
        return [Dual(*p) for p in zip(*(t.chunk(count) for t in self), strict=True)]

    def split(self, sizes: list[int]) -> "list[Dual]":
        """Split both along the first dimension."""
        return [Dual(*p) for p in zip(*(t.split(sizes) for t in self), strict=True)]


def _dual_linear(x: Tensor, weight: Tensor | Dual, bias: Tensor | None = None) -> Tensor:
    return linear(x, *weight, bias) if isinstance(weight, Dual) else F.linear(x, weight, bias)


def _with_globals(function: Any, names: dict[str, Any]) -> Callable[..., Any]:
    copy = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _dual_attention() -> Callable[..., Any]:
    """Torch's own attention function, except that ``linear`` accepts a `Dual`.

    It runs the code of the installed torch, so the outputs are the same bit for bit; only the
    global name ``linear`` is another function, in it and in its two helpers.
    """
    names = dict(vars(F))
    names["linear"] = _dual_linear
    # The function itself too: under another function mode it calls itself by name.
    for name in ("_in_projection_packed", "_in_projection", "multi_head_attention_forward"):
        names[name] = _with_globals(getattr(F, name), names)
    return names["multi_head_attention_forward"]


# Built on import, since torch.compile cannot build functions in a call that it traces.
attention = _dual_attention()
