"""What all operations of gradient pruning share: a weight with its mask, and products with it."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function

from secateurs._tensors.memory_order import inverse, storage_order

Gradients = tuple[Tensor | None, ...]
# Other subclasses of tensors may not have what is done with these.
ORDINARY = (Tensor, torch.nn.Parameter)

transforms_active = cast(Any, torch._C)._are_functorch_transforms_active
# Whether a tensor holds several gradients, as with torch.autograd.grad(is_grads_batched=True).
is_batched = cast(Any, torch._C)._functorch.is_legacy_batchedtensor

# Measured, one thread of an x86 machine: gathering the outputs costs as much as it saves, at
# about half of these multiplications saved, and with 75 to 85% of the outputs kept.
_FEWEST_SAVED = 1 << 22
_LARGEST_SHARE = 0.75


class Dual(NamedTuple):
    """A weight for the forward pass and its mask for the backward pass.

    `attention` takes it as a weight; it has the methods that torch's code calls on one.

    Attributes:
        weight: its values.
        keep: bool, broadcasts to the weight; True where the gradient to the input uses it.
        masked_gradient: whether pruned elements get no gradient of their own.
    """

    weight: Tensor
    keep: Tensor
    masked_gradient: bool = False

    @property
    def shape(self) -> torch.Size:
        """The shape of both."""
        return self.weight.shape

    def chunk(self, count: int) -> "list[Dual]":
        """Chunk both along the first dimension."""
        return self._parts(self.weight.chunk(count), self.keep.chunk(count))

    def split(self, sizes: list[int]) -> "list[Dual]":
        """Split both along the first dimension."""
        return self._parts(self.weight.split(sizes), self.keep.split(sizes))

    def _parts(self, weights: Any, keeps: Any) -> "list[Dual]":
        return [Dual(*p, self.masked_gradient) for p in zip(weights, keeps, strict=True)]


def callable_of(function: type[Function]) -> Callable[..., Any]:
    """``function.apply`` that takes a third of its time, except under transforms.

    What `torch.func` and ``torch.compile`` need, ``setup_context``, makes calls slow.

    Args:
        function: with static methods ``forward``, ``setup_context`` and ``backward``.
    """

    class Plain(Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = function.forward(*inputs)
            function.setup_context(ctx, inputs, output)
            return output

        backward = function.backward

    def call(*inputs: Any) -> Any:
        if torch.compiler.is_compiling() or transforms_active():
            return function.apply(*inputs)
        return Plain.apply(*inputs)

    return call


def masked(weight: Tensor, keep: Tensor) -> Tensor:
    """The weight with zeros where it is pruned."""
    if torch.compiler.is_compiling() or transforms_active() or type(keep) is not Tensor:
        return weight * keep  # torch 2.11 neither compiles nor batches a view as integers
    # As integers first: torch converts bool several times more slowly than int8.
    factor = keep.view(torch.int8).to(weight.dtype)
    if torch.is_grad_enabled() or factor.shape != weight.shape or factor.dtype != weight.dtype:
        return weight * factor
    return weight * factor if is_batched(weight) else factor.mul_(weight)


def is_of_outputs(weight: Tensor, keep: Tensor, dimension: int) -> bool:
    """Whether a mask on a CPU is one of whole outputs, of which some can be computed alone.

    Args:
        weight: the masked weight.
        keep: its mask.
        dimension: of the outputs, in the weight.
    """
    if keep.is_contiguous() and keep.shape == weight.shape:
        return False  # the usual mask of single weights, known quickly
    if keep.device.type != "cpu":  # a GPU would have to wait for the number of outputs
        return False
    sizes = zip(keep.shape, keep.stride(), strict=True)
    if any(n != 1 and s != 0 for i, (n, s) in enumerate(sizes) if i != dimension):
        return False
    return keep.shape[dimension] == weight.shape[dimension]


def may_gather(weight: Tensor, keep: Tensor, dimension: int, products: int) -> bool:
    """Whether it may pay to compute some outputs alone, of ``products`` multiplications."""
    return products >= _FEWEST_SAVED and is_of_outputs(weight, keep, dimension)


def kept_outputs(weight: Tensor, keep: Tensor, dimension: int, products: int) -> Tensor | None:
    """The outputs that a mask of whole filters keeps, where it pays to compute these alone.

    Args:
        weight: the masked weight.
        keep: its mask.
        dimension: of the outputs, in the weight.
        products: multiplications of the dense product that would become smaller.

    Returns:
        Their indices; None where the product is to be computed with zeros instead.
    """
    if type(keep) is not Tensor or type(weight) not in ORDINARY:
        return None
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or transforms_active():
        return None  # a second derivative, or shapes that may not depend on values
    if not may_gather(weight, keep, dimension, products):
        return None
    for other in range(keep.dim()):
        if other != dimension:
            keep = keep.narrow(other, 0, 1)
    index = keep.flatten().nonzero().flatten()
    share = len(index) / weight.shape[dimension]
    pays = share <= _LARGEST_SHARE and (1 - share) * products >= _FEWEST_SAVED
    return index if pays else None


def spread(part: Tensor, index: Tensor, dimension: int, like: Tensor) -> Tensor:
    """A tensor like ``like``, in its order of memory, with ``part`` at an index and zeros else."""
    order = storage_order(like)
    made = part.new_zeros([like.shape[i] for i in order])
    made.index_copy_(order.index(dimension), index, part.permute(order))
    return made.permute(inverse(order))


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


def flat(x: Tensor) -> Tensor:
    """(..., n) as (rows, n)."""
    # Not flatten: torch has no batching rule for it where it computes several gradients at once.
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])
