"""A sparse matrix times a dense one, without filling the output first."""

import torch
from torch import Tensor


def sparse_product(
    matrix: Tensor, columns: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """A sparse matrix times a dense one, plus a bias.

    torch fills the output of a sparse product with zeros and adds the product to them; filling
    takes up to a third of the whole time. Here it is left out on CPUs with MKL, which does not read
    an output that it overwrites (``beta`` of 0); for other libraries this was not measured.

    Args:
        matrix: outputs x inputs, in CSR.
        columns: inputs x pixels, contiguous.
        bias: a value for each output; default none.
        out: what the product is written to, outputs x pixels; default a new tensor.
    """
    if bias is not None:
        return torch.addmm(bias[:, None], matrix, columns, out=out)
    if matrix.device.type != "cpu" or not torch.backends.mkl.is_available():
        return torch.mm(matrix, columns, out=out)
    if out is None:
        out = columns.new_empty((matrix.shape[0], columns.shape[1]))
    return torch.addmm(out, matrix, columns, beta=0, out=out)
