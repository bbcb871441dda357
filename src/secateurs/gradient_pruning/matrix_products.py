"""Matrix products whose input gradient uses another weight than their forward pass.

As in `secateurs.gradient_pruning.functional`: ``y = x @ w`` equals the dense product bit for bit,
the gradient to x is computed with ``keep * w``, and the gradient to w is dense. They are for layers
that call a matrix product instead of a linear function: transformers' ``Conv1D`` and experts.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from secateurs._tensors.memory_order import gathered
from secateurs.gradient_pruning.masked_weight import (
    Dual,
    Gradients,
    autocast,
    callable_of,
    flat,
    kept_outputs,
    masked,
    spread,
)

Operand = Tensor | Dual


class _Product(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        keep: Tensor,  # noqa: ARG004
        added: Tensor | None,
        masked_gradient: bool,  # noqa: ARG004
        first: bool,
        factors: tuple[Any, Any],
    ) -> Tensor:
        if added is not None:
            return torch.addmm(added, x, weight, beta=factors[0], alpha=factors[1])
        return torch.matmul(weight, x) if first else torch.matmul(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, weight, keep, added, ctx.masked_gradient, ctx.first, ctx.factors = inputs
        ctx.shape = None if added is None else added.shape
        ctx.save_for_backward(x, weight, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, keep = ctx.saved_tensors
        need_x, need_weight, _, need_added, *_ = ctx.needs_input_grad
        to_added, scale = ctx.factors
        scaled = grad if scale == 1 else grad * scale
        grad_x = grad_weight = grad_added = kept = None
        if need_added:
            grad_added = (grad if to_added == 1 else grad * to_added).sum_to_size(ctx.shape)
        need_part = need_weight and ctx.masked_gradient
        if weight.dim() == 2 and not ctx.first and (need_x or need_part):
            kept = kept_outputs(weight, keep, 1, x.numel() * weight.shape[1])
        if kept is not None:
            few = gathered(scaled, kept, scaled.dim() - 1)
            if need_x:
                grad_x = few @ gathered(weight, kept, 1).mT
            if need_part:
                grad_weight = spread(flat(x).mT @ flat(few), kept, 1, weight)
        elif need_x:
            used = masked(weight, keep).mT
            grad_x = (used @ scaled if ctx.first else scaled @ used).sum_to_size(x.shape)
        if need_weight and grad_weight is None:
            grad_weight = _of_weight(x, scaled, ctx.first, weight)
            grad_weight = masked(grad_weight, keep) if ctx.masked_gradient else grad_weight
        return grad_x, grad_weight, None, grad_added, None, None, None


class _Grouped(Function):
    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        keep: Tensor,  # noqa: ARG004
        masked_gradient: bool,  # noqa: ARG004
        offs: Tensor,
    ) -> Tensor:
        return F.grouped_mm(x, weight, offs=offs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, weight, keep, ctx.masked_gradient, offs = inputs
        ctx.save_for_backward(x, weight, keep, offs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Gradients:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, keep, offs = ctx.saved_tensors
        need_x, need_weight, *_ = ctx.needs_input_grad
        grad_x = F.grouped_mm(grad, masked(weight, keep).mT, offs=offs) if need_x else None
        grad_weight = F.grouped_mm(x.mT, grad, offs=offs) if need_weight else None
        if grad_weight is not None and ctx.masked_gradient:
            grad_weight = masked(grad_weight, keep)
        return grad_x, grad_weight, None, None, None


_product, _grouped = callable_of(_Product), callable_of(_Grouped)


def matmul(
    input: Operand,  # noqa: A002
    other: Operand | None = None,
    *,
    mat2: Operand | None = None,
) -> Tensor | None:
    """`torch.matmul`, ``mm`` or ``bmm`` of a weight and its input, in either order.

    Returns:
        None where neither or both are weights, or an operand is a vector.
    """
    second = mat2 if other is None else other
    first = isinstance(input, Dual)
    weight, x = (input, second) if first else (second, input)
    if not isinstance(weight, Dual) or not isinstance(x, Tensor):
        return None
    if min(x.dim(), len(weight.shape)) < 2:
        return None
    values, keep, masked_gradient = weight
    x, values, keep, _ = autocast(x, values, keep, None)
    return _product(x, values, keep, None, masked_gradient, first, (1, 1))


def addmm(
    input: Operand,  # noqa: A002
    mat1: Operand,
    mat2: Operand,
    *,
    beta: Any = 1,
    alpha: Any = 1,
) -> Tensor | None:
    """`torch.addmm` whose last operand is a weight; None if another one is."""
    if isinstance(input, Dual) or isinstance(mat1, Dual) or not isinstance(mat2, Dual):
        return None
    values, keep, masked_gradient = mat2
    x, values, keep, added = autocast(mat1, values, keep, input)
    return _product(x, values, keep, added, masked_gradient, False, (beta, alpha))


def grouped_mm(
    mat_a: Operand, mat_b: Operand, *, offs: Tensor | None = None, **others: Any
) -> Tensor | None:
    """`torch.nn.functional.grouped_mm` of (rows, in) and a weight (groups, in, out)."""
    if isinstance(mat_a, Dual) or not isinstance(mat_b, Dual) or offs is None:
        return None
    if mat_a.dim() != 2 or len(mat_b.shape) != 3 or any(v is not None for v in others.values()):
        return None
    return _grouped(mat_a, *mat_b, offs)


def _of_weight(x: Tensor, grad: Tensor, first: bool, weight: Tensor) -> Tensor:
    if first:
        return (grad @ x.mT).sum_to_size(weight.shape)
    if weight.dim() == 2:
        return flat(x).mT @ flat(grad)
    return (x.mT @ grad).sum_to_size(weight.shape)
