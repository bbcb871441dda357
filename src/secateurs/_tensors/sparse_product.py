"""A sparse matrix times a dense one, without filling the output first."""

import torch
from torch import Tensor


def sparse_product(
    matrix: Tensor, columns: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """A sparse matrix times a dense one, plus a bias.

    torch fills the output of a sparse product before it adds the product to that, which takes up to
    a third of the whole time. MKL need not read what it overwrites (``beta`` of 0); elsewhere this
    was not tried.

    Args:
        matrix: outputs x inputs, in CSR.
        columns: inputs x pixels, contiguous.
        bias: a value for each output.
        out: what the product is written to, outputs x pixels.
    """
    if bias is not None:
        return torch.addmm(bias[:, None], matrix, columns, out=out)
    if matrix.device.type != "cpu" or not torch.backends.mkl.is_available():
        return torch.mm(matrix, columns, out=out)
    if out is None:
        out = columns.new_empty((matrix.shape[0], columns.shape[1]))
    return torch.addmm(out, matrix, columns, beta=0, out=out)
