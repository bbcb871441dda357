"""Torch's own operation, whose backward pass reads a pruned weight.

An operation that torch differentiates itself saves its weight for the backward pass. A hook on the
saved weight returns the weight times the mask instead. The gradient to the input is computed with
that; the gradient to the weight does not depend on the weight, so it is the dense one. All else is
torch's own code, which takes a fraction of the time of a function written in Python.
"""

import threading
from functools import cache, partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from secateurs.gradient_pruning.kernel_products import SparseKernels
from secateurs.gradient_pruning.masked_weight import (
    ORDINARY,
    Gradients,
    masked,
    transforms_active,
)
from secateurs.gradient_pruning.sparse_products import SparsePattern

_saving_hooks = cast(Any, torch._C)._autograd._top_saved_tensors_default_hooks
_is_traced = cast(Any, torch._C)._is_tracing
_current_node = cast(Any, torch._C)._current_autograd_node

# Of a mask of so many elements or fewer, a copy in the dtype of the weight is kept: to convert it
# takes longer than the product.
_SMALL = 1 << 17


class Node(NamedTuple):
    """A kind of node in torch's graph: which of the tensors it is differentiated by is which.

    Attributes:
        saved: its attribute that holds the weight.
        x: the index of the input.
        weight: the index of the weight.
        transposes: whether it takes the weight transposed.
    """

    saved: str
    x: int
    weight: int
    transposes: bool


_CONVOLUTION = Node("_raw_saved_weight", 0, 1, transposes=False)
_NODES = {
    "ConvolutionBackward0": _CONVOLUTION,
    "AddmmBackward0": Node("_raw_saved_mat2", 1, 2, transposes=True),
    "MmBackward0": Node("_raw_saved_mat2", 0, 1, transposes=True),
}
_VIEWS = ("ViewBackward0", "UnsafeViewBackward0")


@cache
def _kind_of(node: type) -> Node | None:
    return _NODES.get(node.__name__)  # torch makes this name anew each time that it is asked for


def is_plain(x: Tensor) -> bool:
    """Whether torch's own operation can be called: nothing else transforms, replays or saves it."""
    return not torch.compiler.is_compiling() and not transforms_active() and is_unwatched(x)


def is_unwatched(x: Tensor) -> bool:
    """As `is_plain`, where neither the compiler nor a transform of torch.func watches."""
    return (
        type(x) in ORDINARY
        and _saving_hooks(True) is None  # as of activation checkpointing
        and not _is_traced()
        and forward_ad._current_level < 0
    )


def is_ordinary(weight: Tensor, keep: Tensor) -> bool:
    """Whether a weight and its mask are tensors that can be saved and multiplied."""
    return type(weight) in ORDINARY and type(keep) is Tensor


class Scratch(threading.local):
    """Memory for one masked weight, which each thread has for itself.

    New memory of some megabytes comes from the operating system page by page, which takes longer
    than the product that is written into it. When torch asks for the next masked weight, it no
    longer needs the one before, since one thread computes one node of the graph at a time.

    Args:
        largest: how many elements it has at most.
    """

    def __init__(self, largest: int = 1 << 22):
        self._largest = largest
        self._memory: Tensor | None = None

    def __reduce__(self) -> tuple[type["Scratch"], tuple[int]]:
        return Scratch, (self._largest,)

    def like(self, tensor: Tensor) -> Tensor | None:
        """Memory of a tensor's shape, with any values; None if it is too large, or not on a CPU."""
        usable = tensor.device.type == "cpu" and tensor.is_contiguous()
        # Memory that is made in inference mode could not be written to outside of it.
        if not usable or tensor.numel() > self._largest or torch.is_inference_mode_enabled():
            return None
        memory = self._memory
        if memory is None or memory.dtype != tensor.dtype or memory.numel() < tensor.numel():
            self._memory = memory = tensor.new_empty(tensor.numel())
        return memory[: tensor.numel()].view(tensor.shape)


class BackwardWeight:
    """A weight of convolutions or linear layers, and its mask.

    Args:
        weight: an ordinary tensor.
        keep: bool, an ordinary tensor that broadcasts to the weight; True is kept.
        masked_gradient: whether pruned elements of the weight get no gradient of their own.
        scratch: what larger masked weights are written into, if anything.

    Attributes:
        is_of_outputs: whether the mask is known to keep or prune whole outputs.
        dtype: of the weight, which may be converted later.
        shape: of the weight, whose ``data`` may be replaced later.
        keep_version: the count of writes to the mask.
        was_used: whether there was an earlier call.
        sparse: the pattern of the mask where sparse products pay; None if not, or not known.
    """

    def __init__(
        self, weight: Tensor, keep: Tensor, masked_gradient: bool, scratch: Scratch | None = None
    ):
        self.weight, self.keep, self.masked_gradient = weight, keep, masked_gradient
        self.dtype, self.shape = weight.dtype, weight.shape
        self._scratch = scratch
        self.is_of_outputs = False
        self.keep_version, self.was_used = keep._version, False
        self.sparse: SparsePattern | SparseKernels | None = None
        self._factor: Tensor | None = None

    def is_of(self, weight: Tensor, keep: Tensor) -> bool:
        """Whether it is this weight, as it was, and this mask, not written to since."""
        same = self.weight is weight and self.keep is keep and self.dtype == weight.dtype
        return same and self.shape == weight.shape and keep._version == self.keep_version

    def prune(self, x: Tensor, output: Tensor) -> bool:
        """Let the backward pass of an operation use the pruned weight.

        Args:
            x: the input of the operation.
            output: what torch's own operation gave.

        Returns:
            Whether this kind of operation is known; if not, nothing is pruned.
        """
        node: Any = output.grad_fn
        if node is None or not (x.requires_grad or self.masked_gradient):
            return True  # there is no gradient to prune
        kind = _kind_of(type(node))
        if kind is None and type(node).__name__ in _VIEWS:  # of a product of matrices
            node = node.next_functions[0][0]
            kind = _kind_of(type(node))
        if kind is None:
            return False
        if x.requires_grad:  # else torch may have saved no weight

            def pack(saved: Tensor) -> _Packed:
                return self, kind, saved, saved._version

            getattr(node, kind.saved).register_hooks(pack, _unpacked)
        if self.masked_gradient:
            node.register_hook(partial(self._mask_gradient, kind))
        return True

    def times_mask(self, saved: Tensor, transposes: bool) -> Tensor:
        """The product of what an operation saved of the weight and the mask."""
        factor = self._factor
        if factor is None or factor.dtype != saved.dtype:
            if self.keep.numel() > _SMALL:
                return self._times_large_mask(saved, transposes)
            self._factor = factor = self.keep.to(saved.dtype)
        return saved * (factor.mT if transposes else factor)

    def _times_large_mask(self, saved: Tensor, transposes: bool) -> Tensor:
        keep, values = self.keep, saved.mT if transposes else saved
        memory = None
        # Elsewhere than in a backward pass the result may be kept.
        if self._scratch is not None and not torch.is_grad_enabled() and _current_node():
            memory = self._scratch.like(values) if keep.shape == values.shape else None
        if memory is None:
            product = masked(values, keep)
        else:
            product = memory.copy_(keep.view(torch.int8)).mul_(values)
        return product.mT if transposes else product

    def _mask_gradient(self, kind: Node, found: Gradients, flow: Gradients) -> Gradients | None:  # noqa: ARG002
        gradient = found[kind.weight]
        if gradient is None:
            return None
        keep = self.keep.mT if kind.transposes else self.keep
        return _replaced(found, kind.weight, masked(gradient, keep))


# What the graph keeps instead of a weight: whose it is, the weight, and the count of writes to it.
_Packed = tuple[BackwardWeight, Node, Tensor, int]


def _unpacked(packed: _Packed) -> Tensor:
    pruned, kind, saved, version = packed
    if saved._version != version:
        raise _changed("weight", saved)
    if pruned.keep._version != pruned.keep_version:
        raise _changed("mask", saved)
    if torch.is_grad_enabled() and pruned.weight.requires_grad:
        _differentiate_again(pruned, kind)
        return saved
    return pruned.times_mask(saved, kind.transposes)


def _changed(what: str, saved: Tensor) -> RuntimeError:
    return RuntimeError(
        "one of the variables needed for gradient computation has been modified by an inplace "
        f"operation: the {what} of a gradient-pruned layer, of shape {list(saved.shape)}"
    )


def _differentiate_again(pruned: BackwardWeight, kind: Node) -> None:
    """Let the gradient to the input be a function of the pruned weight where it is differentiated.

    Torch differentiates as if the hook had returned the weight itself, so a second derivative would
    flow to pruned elements. Therefore the hook returns the weight, and the gradient to the input is
    computed anew.
    """
    node = _current_node()

    def replace(found: Gradients, _: Gradients) -> Gradients | None:
        handle.remove()
        of_x = found[kind.x]
        if of_x is None or not torch.is_grad_enabled():
            return None
        weight = masked(pruned.weight.to(of_x.dtype), pruned.keep)
        return _replaced(found, kind.x, _computed_anew(of_x, weight, kind))

    handle = node.register_hook(replace)


def _computed_anew(of_x: Tensor, weight: Tensor, kind: Node) -> Tensor:
    """A gradient to the input, from the gradient to the output that it was computed from."""
    node: Any = of_x.grad_fn
    if kind is _CONVOLUTION:
        flow = node._saved_grad_output
        x = flow.new_empty(1).expand(of_x.shape)  # of its values the gradient does not depend
        return torch.ops.aten.convolution_backward.default(
            flow, x, weight, None, node._saved_stride, node._saved_padding, node._saved_dilation,
            node._saved_transposed, node._saved_output_padding, node._saved_groups,
            (True, False, False),
        )[0]  # fmt: skip
    if node.name() == "TBackward0":  # of an input that is transposed in memory
        return node.next_functions[0][0]._saved_mat2.mT @ weight
    return node._saved_self @ weight


def _replaced(found: Gradients, index: int, value: Tensor) -> Gradients:
    return (*found[:index], value, *found[index + 1 :])
