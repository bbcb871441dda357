"""The functions that may be called with a masked weight, and what becomes of the call."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from secateurs.gradient_pruning import functional, matrix_products

REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    F.linear: functional.linear,
    torch.conv1d: functional.convolution(1, transposed=False),
    torch.conv2d: functional.convolution(2, transposed=False),
    torch.conv3d: functional.convolution(3, transposed=False),
    torch.conv_transpose1d: functional.convolution(1, transposed=True),
    torch.conv_transpose2d: functional.convolution(2, transposed=True),
    torch.conv_transpose3d: functional.convolution(3, transposed=True),
}
# Products of matrices, one of which may be a weight.
PRODUCTS: dict[Any, Callable[..., Any]] = {
    torch.addmm: matrix_products.addmm,
    Tensor.addmm: matrix_products.addmm,
    torch._grouped_mm: matrix_products.grouped_mm,  # pyright: ignore[reportPrivateImportUsage]
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm), matrix_products.matmul),
    **dict.fromkeys(
        (Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__), matrix_products.matmul
    ),
}
# Views of their first argument: the same function of the mask is the result's mask.
VIEWS = frozenset(
    {torch.transpose, torch.t, Tensor.transpose, Tensor.t, Tensor.__getitem__}
    | {Tensor.T.__get__, Tensor.mT.__get__}  # pyright: ignore[reportAttributeAccessIssue]
)
# Embeddings, which may share a linear layer's weight: their input has no gradient to prune.
LOOKUPS = frozenset({F.embedding, F.embedding_bag})
# Copies of their first argument, which have the same mask.
COPIES = frozenset(
    {torch.clone, torch.detach, Tensor.data.__get__}  # pyright: ignore[reportAttributeAccessIssue]
    | {getattr(Tensor, name) for name in ("bfloat16", "clone", "contiguous", "cpu", "cuda")}
    | {getattr(Tensor, name) for name in ("detach", "double", "float", "half", "to", "type_as")}
)
# These return a tensor that does not depend on the weight's values.
LIKE = frozenset(
    {getattr(torch, f"{name}_like") for name in ("empty", "full", "ones", "rand", "randn", "zeros")}
    | {getattr(Tensor, f"new_{name}") for name in ("empty", "full", "ones", "tensor", "zeros")}
    | {Tensor.grad.__get__}  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
)
